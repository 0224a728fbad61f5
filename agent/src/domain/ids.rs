//! Identifiers: of runs, of an instruction, of a digest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// The id of a run: a ULID, so that names sort by the time of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Ulid);

impl RunId {
    /// From the milliseconds since 1970 and 80 random bits.
    pub fn new(millis: u64, random: u128) -> Self {
        Self(Ulid::from_parts(millis, random))
    }

    /// When it was made, in milliseconds since 1970.
    pub fn millis(&self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not a run's id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the id of a run (26 letters and digits)")]
pub struct BadRunId(String);

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let id = Ulid::from_string(text).map_err(|_| BadRunId(text.chars().take(40).collect()))?;
        // One spelling only: a folder's name and a key must lead back to the same id.
        if id.to_string() == text { Ok(Self(id)) } else { Err(BadRunId(text.to_owned())) }
    }
}

impl TryFrom<String> for RunId {
    type Error = BadRunId;

    fn try_from(text: String) -> Result<Self, BadRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

/// What makes two orders the same instruction: `v1:` and the SHA-256 of the canonical document.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstructionHash([u8; 32]);

/// A text that is not an identity.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an identity (v1: and 64 hexadecimal digits)")]
pub struct BadIdentity(String);

impl InstructionHash {
    /// From the digest of the canonical document.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The digest.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Enough of the identity for a person to tell two apart.
    pub fn short(&self) -> String {
        self.to_string().chars().take(11).collect()
    }
}

impl fmt::Display for InstructionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for InstructionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstructionHash {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let bad = || BadIdentity(text.chars().take(80).collect());
        let digits = text.strip_prefix("v1:").ok_or_else(bad)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for InstructionHash {
    type Error = BadIdentity;

    fn try_from(text: String) -> Result<Self, BadIdentity> {
        text.parse()
    }
}

impl From<InstructionHash> for String {
    fn from(id: InstructionHash) -> Self {
        id.to_string()
    }
}
