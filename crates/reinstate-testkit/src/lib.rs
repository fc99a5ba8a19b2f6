//! Certification suite for live stores: properties, oracle, faults and mutants.
