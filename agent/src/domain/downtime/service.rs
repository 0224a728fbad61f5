//! Names of services, and the patterns by which a configuration names several.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::domain::text::{head, matches_pattern};

/// The longest name of a service, in bytes.
const MAX_SERVICE: usize = 63;

/// The name of a service, `[a-z0-9:._-]{1,63}`, such as `postgres:main`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Service(SmolStr);

/// A pattern over names of services: a name, in which each `*` stands for any part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServicePattern(SmolStr);

/// Why a text is not the name of a service, or no pattern over such names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a service: use a-z, 0-9, ':', '.', '_' and '-', at most 63 characters")]
pub struct BadService(String);

fn is_good(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '.' | '_' | '-')
}

impl Service {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServicePattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers this service.
    pub fn matches(&self, service: &Service) -> bool {
        matches_pattern(&self.0, &service.0)
    }

    /// The one service that it covers; `None` if it has a `*`.
    pub fn literal(&self) -> Option<Service> {
        self.0.parse().ok()
    }
}

impl FromStr for Service {
    type Err = BadService;

    fn from_str(text: &str) -> Result<Self, BadService> {
        let good = (1..=MAX_SERVICE).contains(&text.len()) && text.chars().all(is_good);
        if good { Ok(Self(text.into())) } else { Err(BadService(head(text, 80))) }
    }
}

impl FromStr for ServicePattern {
    type Err = BadService;

    fn from_str(text: &str) -> Result<Self, BadService> {
        let good = (1..=MAX_SERVICE).contains(&text.len()) && text.chars().all(|c| c == '*' || is_good(c));
        if good { Ok(Self(text.into())) } else { Err(BadService(head(text, 80))) }
    }
}

impl TryFrom<String> for Service {
    type Error = BadService;

    fn try_from(text: String) -> Result<Self, BadService> {
        text.parse()
    }
}

impl TryFrom<String> for ServicePattern {
    type Error = BadService;

    fn try_from(text: String) -> Result<Self, BadService> {
        text.parse()
    }
}

impl From<Service> for String {
    fn from(service: Service) -> Self {
        service.0.into()
    }
}

impl From<ServicePattern> for String {
    fn from(pattern: ServicePattern) -> Self {
        pattern.0.into()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_letters_and_their_length() {
        let longest = "x".repeat(63);
        for good in ["a", "postgres:main", "web.eu-1_b", "0", ":", &longest] {
            assert!(good.parse::<Service>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "a/b", "ä", "a*", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Service>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_star_stands_for_any_part() {
        let covers = |pattern: &str, service: &str| {
            pattern.parse::<ServicePattern>().unwrap().matches(&service.parse().unwrap())
        };
        assert!(covers("postgres:*", "postgres:main") && covers("*", "web") && covers("*:main", "a:main"));
        assert!(!covers("postgres:*", "postgres") && !covers("web", "web2"));
        assert!("web".parse::<ServicePattern>().unwrap().literal().is_some());
        assert!("w*".parse::<ServicePattern>().unwrap().literal().is_none());
        assert!("W*".parse::<ServicePattern>().is_err());
    }
}
