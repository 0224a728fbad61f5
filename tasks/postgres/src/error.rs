//! Every way in which a command can end badly, in one list, each with the exit code that scripts branch on.
//!
//! A message is one line: what failed, why, and what to do. It never holds a secret.

use std::fmt::Display;
use std::io;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer to the question is no.
    #[error("{0}")]
    No(String),
    /// What was read does not decide the question; an operator has to look.
    #[error("{0}")]
    Unclear(String),
    /// A server cannot be reached, or refuses a statement.
    #[error("{0}")]
    Server(String),
    /// A connection ended while it was used; the statement may or may not have taken effect.
    #[error("{0}")]
    Lost(String),
    /// The cluster, version or program does not exist here.
    #[error("{0}")]
    Missing(String),
    /// Nothing was changed, because something forbids it.
    #[error("{0}")]
    Refused(String),
    /// What is stored is damaged, or a part of it is missing.
    #[error("{0}")]
    Damaged(String),
    /// A program that was started has failed.
    #[error("{0}")]
    Program(String),
    /// The machine denied something: a file, a folder, a process.
    #[error("{0}")]
    Local(String),
    /// What is stored is in cold storage, and is on its way out of it.
    #[error("{0}")]
    Cold(String),
}

impl Error {
    /// The exit code; `docs/postgres.md` has the table.
    pub fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Unclear(_) => 3,
            Self::Server(_) | Self::Lost(_) => 4,
            Self::Missing(_) => 5,
            Self::Refused(_) => 6,
            Self::Damaged(_) => 7,
            Self::Program(_) => 8,
            Self::Local(_) => 9,
            Self::Cold(_) => 75,
        }
    }

    /// A failure of the machine, with the place.
    pub fn local(place: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Local(format!("{place}: {error}"))
    }
}
