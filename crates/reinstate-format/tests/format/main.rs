//! Tests of everything persisted, through the public interface.

mod sample;
mod segments;
