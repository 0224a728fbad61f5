//! What the agent hands to an executor: where Vault is, and a token of the run's own.
//!
//! It goes through a memory file that the executor inherits, never through arguments, environment or disk.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::settings::Server;
use crate::domain::secret::Secret;

/// Where Vault is, and a token.
pub struct VaultGrant {
    /// Where.
    pub server: Server,
    /// The token.
    pub token: Secret,
    /// How long it lasts, unless it is renewed.
    pub lasts: Option<Duration>,
    /// How long the token lasts that it is a child of: with it end the child and the child's leases.
    pub parent: Option<Duration>,
    /// What Vault knows the token by; it is not handed over.
    pub accessor: Option<String>,
    /// Where the token is recorded until it is given back.
    pub record: Option<PathBuf>,
}

#[derive(Serialize)]
struct Out<'a> {
    server: &'a Server,
    token: &'a str,
    lasts: Option<u64>,
    parent: Option<u64>,
    record: Option<&'a PathBuf>,
}

#[derive(Deserialize)]
struct In {
    server: Server,
    token: Value,
    lasts: Option<u64>,
    parent: Option<u64>,
    #[serde(default)]
    record: Option<PathBuf>,
}

impl VaultGrant {
    /// As it is handed over.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        let (lasts, parent) = (seconds(self.lasts), seconds(self.parent));
        let record = self.record.as_ref();
        let out = Out { server: &self.server, token: self.token.reveal(), lasts, parent, record };
        Zeroizing::new(serde_json::to_vec(&out).unwrap_or_default())
    }

    /// Reads what was handed over; no message holds any of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let read: In = serde_json::from_slice(bytes)
            .map_err(|_| "the Vault access that the agent handed over is not readable")?;
        match read.token {
            Value::String(token) => Ok(Self {
                server: read.server,
                token: Secret::new(token),
                lasts: read.lasts.map(Duration::from_secs),
                parent: read.parent.map(Duration::from_secs),
                accessor: None,
                record: read.record,
            }),
            _ => Err("the Vault access that the agent handed over has no token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_arrives_as_it_was_sent() {
        let server = Server {
            address: "http://v:1".into(),
            failover_addresses: Vec::new(),
            ca_file: None,
            client: None,
            namespace: None,
            verify: true,
        };
        let lasts = Some(Duration::from_secs(60));
        let record = Some(PathBuf::from("/state/tokens/r.1"));
        let token = Secret::new("s.x\"".into());
        let sent = VaultGrant { server: server.clone(), token, lasts, parent: None, accessor: None, record };
        let came = VaultGrant::from_bytes(&sent.to_bytes()).unwrap();
        assert!(came.server == server && came.token.reveal() == "s.x\"");
        assert_eq!((came.lasts, came.parent, came.record), (lasts, None, sent.record));
        let error = VaultGrant::from_bytes(b"{\"server\": {}, \"token\": \"s.x\"}").err().unwrap();
        assert!(!error.contains("s.x"));
    }
}
