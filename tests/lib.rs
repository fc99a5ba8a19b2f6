//! The README's library quickstart, run as a documentation test.

#![doc = include_str!("../README.md")]
