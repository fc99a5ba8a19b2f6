//! What can go wrong with a server of one's own.

use std::error::Error;
use std::fmt;

/// The operation that did not work and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterError {
    message: String,
}

impl ClusterError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    pub(super) fn because(mut self, cause: &dyn Error) -> Self {
        self.message = format!("{}: {cause}", self.message);
        self
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for ClusterError {}
