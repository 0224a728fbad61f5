//! Names of backups, and where in the bucket their objects are.
//!
//! ```text
//! PREFIX NAME/manifest.json     what the backup is; written last, deleted first
//! PREFIX NAME/data.ID           its bytes; ID is new for each attempt and each move
//! PREFIX NAME/thaw.json         when a thaw was asked for, while it matters
//! ```
//!
//! A backup exists if and only if its manifest does. A data object that no manifest names is waste.

use std::fmt;
use std::str::FromStr;

/// The last part of a manifest's key.
pub const MANIFEST: &str = "manifest.json";
/// The last part of a thaw's key.
pub const THAW: &str = "thaw.json";

/// Keys have at most 1024 bytes; this leaves room for the prefix and the parts below the name.
const MOST_BYTES: usize = 800;

/// The name of a backup: components of `A-Z a-z 0-9 . _ @ = + % -`, between slashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The manifest's place below the prefix.
    pub fn manifest(&self) -> String {
        format!("{}/{MANIFEST}", self.0)
    }

    /// The note about a thaw.
    pub fn thaw(&self) -> String {
        format!("{}/{THAW}", self.0)
    }

    /// The place of the bytes of one attempt.
    pub fn data(&self, id: &str) -> String {
        format!("{}/data.{id}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            return Err(format!("a name has at most {MOST_BYTES} bytes"));
        }
        for part in text.split('/') {
            if part.is_empty() || part == "." || part == ".." {
                return Err("a name has no empty part, no `.` and no `..` between its slashes".to_owned());
            }
            if part == MANIFEST || part == THAW || part.starts_with("data.") {
                return Err(format!("`{part}` is a name that the depot uses itself"));
            }
            if let Some(odd) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"._@=+%-".contains(*c)) {
                return Err(format!("{odd:?} cannot be in a name: use A-Z a-z 0-9 . _ @ = + % - and /"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// What an object below the prefix is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A manifest.
    Manifest,
    /// Bytes of a backup.
    Data,
    /// A note about a thaw.
    Thaw,
}

/// Splits a key below the prefix into the name and the kind of object; `None` for what is not ours.
pub fn split(key: &str) -> Option<(Name, Kind)> {
    let (name, last) = key.rsplit_once('/')?;
    let kind = match last {
        MANIFEST => Kind::Manifest,
        THAW => Kind::Thaw,
        _ if last.starts_with("data.") => Kind::Data,
        _ => return None,
    };
    Some((name.parse().ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_strict_and_their_keys_can_be_split_again() {
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a b", "ä", "a/manifest.json", "a/data.1", "a\n"]
        {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        let name: Name = "hdb/2026-11-21T01_full".parse().unwrap();
        assert_eq!(split(&name.manifest()), Some((name.clone(), Kind::Manifest)));
        assert_eq!(split(&name.data("01J")), Some((name.clone(), Kind::Data)));
        assert_eq!(split(&name.thaw()), Some((name, Kind::Thaw)));
        assert_eq!(split("other.txt"), None);
        assert_eq!(split("a/other.txt"), None);
    }
}
