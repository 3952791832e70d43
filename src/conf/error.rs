//! What is wrong with a configuration, and where.

use crate::value::Pos;
use std::fmt;

/// A complaint about one place of a configuration. Displays as `file:line:column: reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where; a file of "" stands for text that came from a variable of the environment.
    pub pos: Pos,
    /// What, as one sentence without a full stop.
    pub reason: String,
}

impl Error {
    /// A complaint about `pos`.
    pub fn new(pos: &Pos, reason: impl Into<String>) -> Error {
        Error { pos: pos.clone(), reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pos, self.reason)
    }
}

impl std::error::Error for Error {}
