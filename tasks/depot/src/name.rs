//! Names of backups, and where in the bucket their objects are.
//!
//! ```text
//! PREFIX NAME/manifest.json     what the backup is; written last, deleted last
//! PREFIX NAME/data.ID           its bytes; ID is new for each attempt and each move
//! PREFIX NAME/thaw.json         when a thaw was asked for, while it matters
//! PREFIX NAME/data.child-SUM    a backup that builds on this one is being stored
//! PREFIX NAME/data.delete-ID    this one is being deleted
//! ```
//!
//! A backup exists if and only if its manifest does. A data object that no manifest names is waste.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The last part of a manifest's key.
pub const MANIFEST: &str = "manifest.json";
/// The last part of a thaw's key.
pub const THAW: &str = "thaw.json";

const CHILD: &str = "child-";
const DELETE: &str = "delete-";

/// Keys have at most 1024 bytes; this leaves room for the prefix and the parts below the name.
const MAX_BYTES: usize = 800;

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

    /// The note that a backup which builds on this one is being stored.
    pub fn child(&self, child: &Name) -> String {
        let mut sum = hex::encode(Sha256::digest(child.as_str()));
        sum.truncate(20);
        self.data(&format!("{CHILD}{sum}"))
    }

    /// The note that this one is being deleted.
    pub fn mark(&self, id: &str) -> String {
        self.data(&format!("{DELETE}{id}"))
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
        if text.len() > MAX_BYTES {
            return Err(format!("a name has at most {MAX_BYTES} bytes"));
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
    /// A note that a backup which builds on this one is being stored.
    Child,
    /// A note that this one is being deleted.
    Mark,
}

/// Splits a key below the prefix into the name and the kind of object; `None` for what is not ours.
pub fn split(key: &str) -> Option<(Name, Kind)> {
    let (name, last) = key.rsplit_once('/')?;
    let kind = match last {
        MANIFEST => Kind::Manifest,
        THAW => Kind::Thaw,
        _ if last.strip_prefix("data.").is_some_and(|id| id.starts_with(CHILD)) => Kind::Child,
        _ if last.strip_prefix("data.").is_some_and(|id| id.starts_with(DELETE)) => Kind::Mark,
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
        assert_eq!(split(&name.thaw()), Some((name.clone(), Kind::Thaw)));
        assert_eq!(split(&name.mark("01J")), Some((name.clone(), Kind::Mark)));
        let other: Name = "hdb/2026-11-22".parse().unwrap();
        assert_eq!(split(&name.child(&other)), Some((name.clone(), Kind::Child)));
        assert_ne!(name.child(&other), name.child(&name), "a note for each");
        assert_eq!(split("other.txt"), None);
        assert_eq!(split("a/other.txt"), None);
    }
}
