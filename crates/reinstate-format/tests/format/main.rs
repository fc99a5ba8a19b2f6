//! Tests of everything persisted, through the public interface.

#![cfg(test)]

mod campaign;
mod dictionaries;
mod forge;
mod fuzz;
mod golden;
mod log;
mod records;
mod sample;
mod segments;
mod values;
