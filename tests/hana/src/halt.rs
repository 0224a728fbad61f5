//! How a tool ends early: the exit code and what it says on stderr.

use std::io;

/// The end of a tool: `said` goes to stderr as it is, `code` is the exit code.
#[derive(Debug)]
pub(crate) struct Halt {
    /// Exit code of the process.
    pub(crate) code: i32,
    /// Text for stderr, without the last newline; empty for none.
    pub(crate) said: String,
}

impl Halt {
    pub(crate) fn new(code: i32, said: impl Into<String>) -> Self {
        Self { code, said: said.into() }
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::new(1, error.to_string())
    }
}

impl From<serde_json::Error> for Halt {
    fn from(error: serde_json::Error) -> Self {
        Self::new(1, format!("a state file of the stand-ins cannot be read: {error}"))
    }
}

/// What each tool's main function gives: its exit code.
pub(crate) type Ended = Result<i32, Halt>;
