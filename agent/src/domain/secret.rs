//! A value that must not show: a token, a password.
//!
//! The type has no `Debug`, no `Display` and no serde, so that no log line, report or error can hold it by
//! accident; its memory is wiped when it goes. Copies that a library makes of what [`Secret::reveal`] gives
//! out (a header on its way, a TLS buffer) are beyond this promise.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Shorter ones, in bytes, cannot be kept out of outputs without tearing holes into them.
pub const SHORTEST: usize = 6;

/// The longest one, in bytes, as most storages of Vault have it.
pub const MAX_LEN: usize = 1 << 20;

/// Which version of a secret a task wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionSelector {
    /// The newest when the run first read it.
    #[default]
    Newest,
    /// The one before that; none where the engine has it no more.
    Previous,
}

impl VersionSelector {
    /// For what is written only where it says something.
    pub fn is_newest(&self) -> bool {
        *self == Self::Newest
    }
}

/// A secret text; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; nothing is trimmed.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: for the one place that needs it, never for a message.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The same secret without white space around it; `None` if nothing is left.
    ///
    /// Files and variables often end in a newline that is no part of a token.
    pub fn trimmed(&self) -> Option<Self> {
        let text = self.0.trim();
        (!text.is_empty()).then(|| Self::new(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_takes_the_newline_of_a_file_away() {
        assert_eq!(Secret::new(" abc\n".to_owned()).trimmed().unwrap().reveal(), "abc");
        assert!(Secret::new(" \n".to_owned()).trimmed().is_none());
    }
}
