//! Every way in which a command can end badly, in one list, each with the exit code that scripts branch on.
//!
//! A message is one line: where, what, and what to do. It never holds a secret.
//! The codes fit the three answers of a task's `probe` and `done`: 0 yes, 1 no, everything else "cannot tell".

use std::io;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer to the question is no.
    #[error("{0}")]
    No(String),
    /// A parameter does not fit this host.
    #[error("{0}")]
    Config(String),
    /// A tool of HANA failed, and said so in a documented way.
    #[error("{0}")]
    Tool(String),
    /// A tool's answer was not understood, or there was none: nothing rests on it.
    #[error("cannot tell: {0}")]
    Unclear(String),
    /// Nothing was changed, because something forbids it.
    #[error("{0}")]
    Refused(String),
    /// Not now, and later perhaps: nothing was changed.
    #[error("{0}")]
    NotNow(String),
    /// The machine denied something: a file, a process.
    #[error("{0}")]
    Local(String),
    /// A signal asked this program to stop; what it had started was ended too.
    #[error("stopped by signal {0}")]
    Stopped(u8),
}

impl Error {
    /// The exit code; `docs/hana.md` has the table.
    pub fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Config(_) => 3,
            Self::Tool(_) => 4,
            Self::Unclear(_) => 5,
            Self::Refused(_) => 6,
            Self::Local(_) => 9,
            Self::NotNow(_) => 75,
            Self::Stopped(signal) => signal.saturating_add(128),
        }
    }

    /// A failure of the machine, with the place.
    pub fn local(place: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Local(format!("{place}: {error}"))
    }
}

/// Why a text was not understood. It is never replaced by a guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unclear(pub String);

/// What a parser returns: a value, or why the text was not understood.
pub type Reading<T> = Result<T, Unclear>;

impl From<Unclear> for Error {
    fn from(unclear: Unclear) -> Self {
        Self::Unclear(unclear.0)
    }
}

/// Says why a text was not understood.
pub fn unclear<T>(why: impl Into<String>) -> Reading<T> {
    Err(Unclear(why.into()))
}

/// A foreign text as part of a message: one line, quoted, at most 160 characters.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(160).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
