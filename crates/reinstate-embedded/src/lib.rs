//! Live store on redb, an embedded key-value database.
