//! Where an order stands: on the host itself or on one of its groups. State is kept per such place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::Name;

/// A place for orders; written `hosts/db1` or `groups/all`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// An order for one host.
    Host(Name),
    /// An order for each host of a group.
    Group(Name),
}

/// An order in its place: the unit that the agent keeps state for; written `hosts/db1/backup`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderKey {
    /// Its place.
    pub source: Source,
    /// Its name.
    pub order: Name,
}

/// A text that names no place or no order in one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a place of orders: write hosts/NAME or groups/NAME, and /ORDER behind it for an order")]
pub struct BadSource(String);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "hosts/{name}"),
            Self::Group(name) => write!(f, "groups/{name}"),
        }
    }
}

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let bad = || BadSource(text.chars().take(140).collect());
        let (kind, name) = text.split_once('/').ok_or_else(bad)?;
        let name = name.parse().map_err(|_| bad())?;
        match kind {
            "hosts" => Ok(Self::Host(name)),
            "groups" => Ok(Self::Group(name)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.order)
    }
}

impl FromStr for OrderKey {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let bad = || BadSource(text.chars().take(140).collect());
        let (source, order) = text.rsplit_once('/').ok_or_else(bad)?;
        Ok(Self { source: source.parse()?, order: order.parse().map_err(|_| bad())? })
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = BadSource;

            fn try_from(text: String) -> Result<Self, BadSource> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

as_text!(Source);
as_text!(OrderKey);
