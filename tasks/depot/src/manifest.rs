//! The manifest: what a backup is, how it was stored, and how to know that it came back whole.
//!
//! It is sealed: the document holds the SHA-256 of its own text, so that a bit flipped anywhere in it is found.
//! ```text
//! {"manifest":{…},"sha256":"…"}
//! ```
//! The stored bytes are covered by a CRC-32C for each block, so that a reader checks each block before it hands it
//! on; the plain bytes are covered by one SHA-256, checked before the end of the stream is called a success.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// The version that is written; readers refuse newer ones.
pub const VERSION: u32 = 1;
/// Most bytes of a manifest that a reader takes: 5 TiB in blocks of 5 MiB are 8 MiB of sums.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub version: u32,
    /// Program and version that wrote it.
    pub tool: String,
    /// Name of the backup, as in its key.
    pub name: String,
    /// The database that it is of, by which rules of retention are found.
    pub database: String,
    /// When the backup was begun.
    pub time: Timestamp,
    /// Name of the backup that this one builds on, for an incremental one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Bytes that were read.
    pub size: u64,
    /// SHA-256 of the bytes that were read, in hexadecimal.
    pub sha256: String,
    /// How the bytes are stored.
    pub stored: Stored,
    /// What SAP HANA calls it, for a backup that came through Backint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backint: Option<Backint>,
    /// Who decides when it is deleted, if not the rules of retention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What whoever stored it wanted to be known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<serde_json::Value>,
}

/// How the bytes are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Key of the data below the prefix.
    pub key: String,
    /// Bytes of the data.
    pub size: u64,
    /// Runs of parts of one size, in order: (count, bytes); the last may be shorter.
    pub parts: Vec<(u32, u64)>,
    /// Bytes of a block; the last may be shorter.
    pub block: u64,
    /// CRC-32C of each block, eight hexadecimal digits each.
    pub crc32c: String,
    /// `zstd`, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// `age`, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Storage class as S3 spells it.
    pub class: String,
    /// Until when object lock forbids to delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
    /// Version of the object, in a bucket with versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_version: Option<String>,
}

/// What SAP HANA calls a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backint {
    /// `SID` or `DB@SID`.
    pub user: String,
    /// The full name of the pipe or file.
    pub object: String,
    /// The id that was answered.
    pub ebid: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    sha256: &'a str,
}

impl Manifest {
    /// The document to store.
    pub fn seal(&self) -> Result<Vec<u8>, String> {
        let inner = serde_json::value::to_raw_value(self).map_err(|error| error.to_string())?;
        let sum = hex::encode(Sha256::digest(inner.get()));
        serde_json::to_vec(&Sealed { manifest: &inner, sha256: &sum }).map_err(|error| error.to_string())
    }

    /// Reads a stored document; says in one line what is wrong with it.
    pub fn open(text: &[u8]) -> Result<Self, String> {
        let bad = |error: serde_json::Error| format!("its manifest cannot be read: {error}");
        let sealed: Sealed<'_> = serde_json::from_slice(text).map_err(bad)?;
        // Whitespace is the one thing that JSON lets change without notice.
        let whole = 12 + sealed.manifest.get().len() + 11 + sealed.sha256.len() + 2;
        if hex::encode(Sha256::digest(sealed.manifest.get())) != sealed.sha256 || whole != text.len() {
            return Err("its manifest is not what was written: the sum differs".to_owned());
        }
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let version = serde_json::from_str::<Versioned>(sealed.manifest.get()).map_err(bad)?.version;
        if version != VERSION {
            return Err(format!("its manifest has version {version}, this program reads {VERSION}"));
        }
        let manifest: Self = serde_json::from_str(sealed.manifest.get()).map_err(bad)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Numbers that do not fit together would be found late and named badly.
    fn check(&self) -> Result<(), String> {
        let stored = &self.stored;
        let sums = stored.size.checked_div(stored.block).map(|whole| {
            whole.saturating_add(u64::from(!stored.size.is_multiple_of(stored.block))).saturating_mul(8)
        });
        if sums != Some(stored.crc32c.len() as u64) {
            return Err("its manifest does not have a sum for each block".to_owned());
        }
        // Whoever deletes or moves this backup deletes what it names: that must be its own.
        let own = stored.key.strip_prefix(&self.name).is_some_and(|rest| {
            rest.strip_prefix("/data.").is_some_and(|id| !id.is_empty() && !id.contains('/'))
        });
        if !own {
            return Err("its manifest names the bytes of another".to_owned());
        }
        if self.sums().is_none() {
            return Err("its manifest has a sum that is no number".to_owned());
        }
        Ok(())
    }

    /// Whether the rules of retention have no say: what came through Backint belongs to SAP HANA, whose own catalog
    /// must find what it says; what has an owner is that owner's.
    pub fn owned(&self) -> bool {
        self.backint.is_some() || self.owner.is_some()
    }

    /// The CRC-32C of each block.
    pub fn sums(&self) -> Option<Vec<u32>> {
        self.stored
            .crc32c
            .as_bytes()
            .chunks(8)
            .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Manifest {
        Manifest {
            version: VERSION,
            tool: "hostler-depot 0.1.0".to_owned(),
            name: "hdb/monday".to_owned(),
            database: "hdb".to_owned(),
            time: "2026-11-21T01:00:00Z".parse().unwrap(),
            parent: Some("hdb/sunday".to_owned()),
            size: 12,
            sha256: hex::encode(Sha256::digest(b"hello world\n")),
            stored: Stored {
                key: "hdb/monday/data.01J".to_owned(),
                size: 12,
                parts: vec![(1, 12)],
                block: 5,
                crc32c: "0123456789abcdef00000000".to_owned(),
                compression: None,
                encryption: Some("age".to_owned()),
                class: "STANDARD".to_owned(),
                locked_until: None,
                object_version: None,
            },
            backint: None,
            owner: None,
            label: None,
        }
    }

    #[test]
    fn what_is_sealed_can_be_opened() {
        let manifest = example();
        assert_eq!(Manifest::open(&manifest.seal().unwrap()), Ok(manifest));
    }

    #[test]
    fn the_first_version_can_be_read() {
        let text = include_bytes!("../tests/fixtures/manifest-1.json");
        assert_eq!(Manifest::open(text), Ok(example()));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let sealed = example().seal().unwrap();
        for at in 0..sealed.len() * 8 {
            let mut text = sealed.clone();
            text[at / 8] ^= 1 << (at % 8);
            assert!(Manifest::open(&text).is_err(), "bit {at} of {:?}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn any_cut_is_found() {
        let sealed = example().seal().unwrap();
        for at in 0..sealed.len() {
            assert!(Manifest::open(&sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn numbers_from_outside_that_do_not_fit_together_are_refused() {
        let with = |change: fn(&mut Manifest)| {
            let mut manifest = example();
            change(&mut manifest);
            Manifest::open(&manifest.seal().unwrap())
        };
        assert!(with(|_| {}).is_ok());
        assert!(with(|one| one.stored.block = 0).is_err());
        assert!(with(|one| (one.stored.size, one.stored.block) = (u64::MAX, 1)).is_err());
        assert!(with(|one| one.stored.crc32c = "0123456789abcdefé00000".to_owned()).is_err());
        for key in
            ["hdb/sunday/data.01J", "hdb/monday/manifest.json", "hdb/monday/data.", "hdb/monday/data.1/x"]
        {
            let mut manifest = example();
            manifest.stored.key = key.to_owned();
            assert!(Manifest::open(&manifest.seal().unwrap()).unwrap_err().contains("another"), "{key}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let newer = Manifest { version: 2, ..example() };
        assert!(Manifest::open(&newer.seal().unwrap()).unwrap_err().contains("version 2"));
    }
}
