//! A log of a real store and what becomes of its server. That it is right at every commit, the tests called
//! `histories` show.

mod standby;
