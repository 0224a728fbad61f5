//! Every way in which a command can end badly, in one list, each with the exit code that scripts branch on.
//!
//! A message is one line: where, what, and what to do. It never holds a secret.

use std::io;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration or a file named by it is wrong.
    #[error("{0}")]
    Config(String),
    /// The object store cannot be reached, or denies the request.
    #[error("{0}")]
    Store(String),
    /// There is no such backup.
    #[error("no backup `{0}`: see `hostler-depot list`")]
    Missing(String),
    /// Nothing was changed, because something forbids it.
    #[error("{0}")]
    Refused(String),
    /// What is stored is not what was once read.
    #[error("`{name}` is damaged: {why}")]
    Damaged {
        /// Name of the backup.
        name: String,
        /// What is wrong, and where.
        why: String,
    },
    /// The backup is in cold storage and cannot be read now.
    #[error("{0}")]
    Cold(String),
    /// The stream, or the command at its other end, failed.
    #[error("{0}")]
    Stream(String),
    /// The machine denied something: a file, a folder, memory.
    #[error("{0}")]
    Local(String),
    /// The answer to the question is no.
    #[error("{0}")]
    No(String),
}

impl Error {
    /// The exit code; `docs/backups.md` has the table.
    pub fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Config(_) => 3,
            Self::Store(_) => 4,
            Self::Missing(_) => 5,
            Self::Refused(_) => 6,
            Self::Damaged { .. } => 7,
            Self::Stream(_) => 8,
            Self::Local(_) => 9,
            Self::Cold(_) => 75,
        }
    }

    /// A failure of the machine, with the place.
    pub fn local(place: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Local(format!("{place}: {error}"))
    }

    /// Damage of one backup.
    pub fn damaged(name: &str, why: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), why: why.into() }
    }
}
