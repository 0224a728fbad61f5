//! A secret that an order watches, and which version of it was seen.
//!
//! Only the second version of the key/value engine counts versions, and tells them without a right to the value: at
//! `MOUNT/metadata/PATH` for what is read at `MOUNT/data/PATH`. A field has no version of its own: it says what the
//! order is about, and each new version of the whole counts.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The most secrets that one order may watch.
pub const MAX_WATCHED: usize = 16;

/// The longest path, in bytes.
const MAX_LEN: usize = 256;

/// A watched secret, such as `kv/data/hana/HDB#password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    path: String,
    field: String,
}

impl SecretRef {
    /// Reads `PATH#FIELD`; an error says what is wrong and how it should look.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let text: String = text.chars().take(100).collect();
            format!("{text:?} {why}: write MOUNT/data/PATH#FIELD, such as \"kv/data/hana/HDB#password\"")
        };
        let (path, field) = text.split_once('#').ok_or_else(|| wrong("names no field"))?;
        if field.is_empty() || field.contains('#') || field.chars().any(char::is_control) {
            return Err(wrong("names no field"));
        }
        let odd = |part: &str| {
            let strange = |c: char| matches!(c, '?' | '%' | '\\' | '{' | '}' | '*' | '+') || c.is_control();
            part.is_empty() || part == "." || part == ".." || part.contains(strange)
        };
        if path.len() > MAX_LEN || path.split('/').any(odd) {
            return Err(wrong("is no path"));
        }
        match parts(path).next() {
            Some(_) => Ok(Self { path: path.to_owned(), field: field.to_owned() }),
            None => Err(wrong("has no versions, which only a key/value engine of version 2 keeps")),
        }
    }

    /// Where the value is read.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.path, self.field)
    }
}

/// Mount and key of a path: one pair for each `data` in it that may be the engine's own part, the shortest mount first.
fn parts(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = (0..path.len()).filter_map(|at| {
        let (mount, rest) = path.split_at_checked(at)?;
        Some((mount, rest.strip_prefix("/data/")?))
    });
    pairs.filter(|(mount, key)| !mount.is_empty() && !key.is_empty())
}

/// Where the versions of what is read at `path` may be told. The path alone does not say where the engine is mounted:
/// a mount may be called `team/data/kv`, and a key `data/x`.
pub fn metadata(path: &str) -> Vec<String> {
    parts(path).map(|(mount, key)| format!("{mount}/metadata/{key}")).collect()
}

/// A version of a secret. The number alone does not name it: a store that was set back counts the same ones again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Counted by the engine, from 1.
    pub number: u64,
    /// When it was written, by the server's clock.
    pub created: Timestamp,
}

/// What is remembered of a watched secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVersion {
    /// The version that counts as known.
    pub version: SecretVersion,
    /// When the newest version that was ever seen was written. It never goes back.
    pub newest: Timestamp,
    /// The number that was known before, where it was not for a newer version that it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u64>,
}

/// What a version means to whoever knows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionChange {
    /// It is the one that is known.
    Known,
    /// It is newer, by its number and by its age.
    Newer,
    /// It has another number or age and is not newer: the secret was made anew, or its store was set back.
    Another,
}

impl ObservedVersion {
    /// What is remembered when a version is taken as known, after `before`.
    pub fn after(before: Option<&Self>, version: SecretVersion) -> Self {
        let news = before.map_or(VersionChange::Newer, |before| before.judge(version));
        Self {
            version,
            newest: before.map_or(version.created, |before| before.newest.max(version.created)),
            instead_of: before.filter(|_| news == VersionChange::Another).map(|before| before.version.number),
        }
    }

    /// Whether a version is news. A server that lags behind the others tells an old one, and then the newest once
    /// more: that is no second time, because it is not written later than what was seen.
    pub fn judge(&self, version: SecretVersion) -> VersionChange {
        if version == self.version {
            VersionChange::Known
        } else if version.number > self.version.number && version.created > self.newest {
            VersionChange::Newer
        } else {
            VersionChange::Another
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_versions_and_a_field_are_read() {
        let watched = SecretRef::read("team/kv/data/hana/HDB.x#password").unwrap();
        assert_eq!(watched.path(), "team/kv/data/hana/HDB.x");
        assert_eq!(watched.to_string(), "team/kv/data/hana/HDB.x#password");
        assert_eq!(metadata(watched.path()), ["team/kv/metadata/hana/HDB.x"]);
        // A mount or a key may be called so as well.
        assert_eq!(metadata("kv/data/a/data/b"), ["kv/metadata/a/data/b", "kv/data/a/metadata/b"]);
        assert_eq!(metadata("data/data/data/data"), ["data/metadata/data/data", "data/data/metadata/data"]);
        assert_eq!(metadata("data/kv"), Vec::<String>::new());
        for (text, word) in [
            ("kv/data/a", "names no field"),
            ("kv/data/a#", "names no field"),
            ("kv/a#b", "has no versions"),
            ("data/a#b", "has no versions"),
            ("kv/data/#b", "is no path"),
            ("/kv/data/a#b", "is no path"),
            ("kv/data/../a#b", "is no path"),
            ("kv/data/a?version=1#b", "is no path"),
            ("kv/data/{{ host }}#b", "is no path"),
        ] {
            let error = SecretRef::read(text).unwrap_err();
            assert!(error.contains(word) && error.contains("MOUNT/data/PATH#FIELD"), "{text}: {error}");
        }
        assert!(SecretRef::read(&format!("kv/data/{}#f", "x".repeat(300))).is_err());
    }

    #[test]
    fn only_what_is_newer_by_number_and_by_age_is_newer() {
        let version =
            |number, second| SecretVersion { number, created: Timestamp::from_second(second).unwrap() };
        let seen =
            ObservedVersion::after(Some(&ObservedVersion::after(None, version(4, 40))), version(5, 50));
        assert_eq!(seen.instead_of, None);
        for (number, second, news) in [
            (5, 50, VersionChange::Known),
            (6, 60, VersionChange::Newer),
            (9, 51, VersionChange::Newer),
            (4, 40, VersionChange::Another),
            (5, 60, VersionChange::Another),
            (1, 60, VersionChange::Another),
            (6, 50, VersionChange::Another),
        ] {
            assert_eq!(seen.judge(version(number, second)), news, "{number} {second}");
        }
        // A server that lags: back, and then the newest once more.
        let lagging = ObservedVersion::after(Some(&seen), version(4, 40));
        assert_eq!((lagging.instead_of, lagging.judge(version(5, 50))), (Some(5), VersionChange::Another));
        assert_eq!(lagging.judge(version(5, 51)), VersionChange::Newer, "written after all that was seen");
    }
}
