//! The adapter against a real server.

mod certification;
