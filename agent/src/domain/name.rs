//! Names of hosts, groups, orders and tasks.
//!
//! A name becomes a part of a Consul key and of a path on disk, so what a name may hold is decided here
//! once: `[a-z0-9][a-z0-9._-]{0,62}`, never with `..`. Whoever holds a [`Name`] may put it into either.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The longest name, in bytes: the length of a DNS label.
pub const MAX_NAME: usize = 63;

/// A checked name. The agent holds each of them many times, so one of up to 23 bytes takes no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(SmolStr);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: use a-z, 0-9, '.', '_' and '-', first a letter or digit, at most 63, never '..'"
)]
pub struct BadName(pub String);

/// The group that every host is in.
pub const ALL: &str = "all";

impl Name {
    /// The name of the group that every host is in.
    pub fn all() -> Self {
        Self(SmolStr::new_static(ALL))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let rest = |c: char| first(c) || matches!(c, '.' | '_' | '-');
        let good = text.len() <= MAX_NAME
            && text.starts_with(first)
            && text.chars().all(rest)
            && !text.contains("..");
        if good { Ok(Self(text.into())) } else { Err(BadName(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        for good in ["a", "db1", "0", "sap-hana_2.0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "A", "_hostler", ".a", "-a", "a..b", "a/b", "a b", "é", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
