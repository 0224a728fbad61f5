//! Which version a secret has: metadata, never a value.
//!
//! Metadata does not change when a version is deleted or destroyed: its number still stands as the current one, and
//! only the entry of that version says that there is nothing to read.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::vault::client::Request;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use super::client::VaultError;
use super::keeper::Vault;
use crate::domain::secret::Secret;
use crate::domain::secret_watch::{SecretVersion, metadata};
use crate::host::clock;

impl Vault {
    /// The newest version of what is read at `path`, asked with the agent's own token.
    pub async fn version(&self, path: &str) -> Result<SecretVersion, VaultError> {
        let place = || self.client().server().address.clone();
        let Some(token) = self.token().await else {
            return Err(VaultError::Away { place: place(), why: "the agent is not logged in".to_owned() });
        };
        let mut first = Err(VaultError::Local(format!("{path} is not of an engine that keeps versions")));
        for (at, about) in metadata(path).into_iter().enumerate() {
            let told = self.version_at(&about, &token).await;
            // There is no such mount, or none that the agent may know of: another one may be meant.
            match &told {
                Err(VaultError::Denied { .. }) => {}
                Err(VaultError::Missing { why, .. }) if why.contains("no handler for route") => {}
                _ => return told,
            }
            if at == 0 {
                first = told;
            }
        }
        first
    }

    async fn version_at(&self, about: &str, token: &Secret) -> Result<SecretVersion, VaultError> {
        let place = || self.client().server().address.clone();
        let action = format!("read {about}");
        let answer = self
            .client()
            .ask(Request { token: Some(token), ..Request::new(Method::GET, about, &action) })
            .await;
        if let Err(VaultError::TokenDead { .. }) = answer {
            self.tend_soon();
        }
        let missing = |why: &str| VaultError::Missing { place: place(), action, why: why.to_owned() };
        match newest(&answer?["data"], clock::now()) {
            Newest::SecretVersion(version) => Ok(version),
            Newest::None(why) => Err(missing(why)),
            Newest::Unreadable => {
                Err(VaultError::Away { place: place(), why: "metadata that makes no sense".to_owned() })
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Newest {
    SecretVersion(SecretVersion),
    None(&'static str),
    Unreadable,
}

fn newest(data: &Value, now: Timestamp) -> Newest {
    let Some(number) = data["current_version"].as_u64() else { return Newest::Unreadable };
    if number == 0 {
        return Newest::None("it has no version yet");
    }
    let entry = &data["versions"][number.to_string()];
    let time = |name: &str| entry[name].as_str().filter(|text| !text.is_empty()).map(str::parse::<Timestamp>);
    let Some(Ok(created)) = time("created_time") else { return Newest::Unreadable };
    // An end that lies ahead is that of a version that deletes itself: until then it is read.
    let deleted = match time("deletion_time") {
        None => false,
        Some(Ok(at)) => at <= now,
        Some(Err(_)) => return Newest::Unreadable,
    };
    if entry["destroyed"] == Value::Bool(true) {
        return Newest::None("its newest version was destroyed");
    }
    if deleted {
        return Newest::None("its newest version was deleted");
    }
    Newest::SecretVersion(SecretVersion { number, created })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(name: &str) -> Value {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/contract/vault");
        let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["response"]["body"]["data"].clone()
    }

    #[test]
    fn recorded_metadata_is_understood() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let number = |data: &Value| match newest(data, now) {
            Newest::SecretVersion(version) => Ok(version.number),
            Newest::None(why) => Err(why),
            Newest::Unreadable => panic!("{data}"),
        };
        let data = recorded("kv2-metadata-read");
        assert_eq!(number(&data), Ok(data["current_version"].as_u64().unwrap()));
        assert_eq!(number(&recorded("kv2-metadata-deleted")), Err("its newest version was deleted"));
        let empty = serde_json::json!({"current_version": 0, "versions": {}});
        assert_eq!(number(&empty), Err("it has no version yet"));
        // Destroyed, and one that will delete itself tomorrow.
        let mut data = recorded("kv2-metadata-read");
        let current = data["current_version"].to_string();
        data["versions"][&current]["deletion_time"] = "2026-11-26T00:00:00.5Z".into();
        assert!(number(&data).is_ok());
        data["versions"][&current]["destroyed"] = true.into();
        assert_eq!(number(&data), Err("its newest version was destroyed"));
        data["versions"][&current]["created_time"] = "yesterday".into();
        assert_eq!(newest(&data, now), Newest::Unreadable);
        assert_eq!(newest(&Value::Null, now), Newest::Unreadable);
    }
}
