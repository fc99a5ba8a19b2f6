//! Live store and capture on PostgreSQL.
