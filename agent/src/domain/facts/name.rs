//! What a fact may be called. A name stands in expressions, so it is a word of those: `[a-z][a-z0-9_]{0,31}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The longest name, in bytes.
const MAX_NAME: usize = 32;

/// The built-in fact.
pub const HOST: &str = "host";

/// Words that mean something else in an expression.
const TAKEN: [&str; 17] = [
    "and",
    "debug",
    "dict",
    "else",
    "false",
    "groups",
    "if",
    "in",
    "is",
    "labels",
    "loop",
    "namespace",
    "none",
    "not",
    "or",
    "params",
    "range",
];

/// The name of a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FactName(SmolStr);

/// Why a text is not the name of a fact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFactName {
    /// It has other characters, or is too long.
    #[error("{0:?} is not the name of a fact: use a-z, 0-9 and '_', first a letter, at most 32 characters")]
    Form(String),
    /// It means something else in expressions.
    #[error("{0} has another meaning in expressions: give the fact another name")]
    Taken(String),
}

impl FactName {
    /// The name of the built-in fact.
    pub fn host() -> Self {
        Self(SmolStr::new_static(HOST))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FactName {
    type Err = BadFactName;

    fn from_str(text: &str) -> Result<Self, BadFactName> {
        let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let first = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !first || text.len() > MAX_NAME || !text.chars().all(rest) {
            return Err(BadFactName::Form(text.chars().take(80).collect()));
        }
        if TAKEN.contains(&text) || text == "true" || text == "self" {
            return Err(BadFactName::Taken(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for FactName {
    type Error = BadFactName;

    fn try_from(text: String) -> Result<Self, BadFactName> {
        text.parse()
    }
}

impl From<FactName> for String {
    fn from(name: FactName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for FactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_of_expressions() {
        for good in ["a", "hana", "replication_2", HOST, &"x".repeat(32)] {
            assert!(good.parse::<FactName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "a.b", "é", "a\n", "params", "not", "true", &"x".repeat(33)]
        {
            assert!(bad.parse::<FactName>().is_err(), "{bad}");
        }
    }
}
