//! Reading a run's secrets: key/value engines of both versions, and every path that answers with a lease.
//!
//! Each path is read once, however many fields of it are wanted: two reads of a dynamic path are two users. Answers
//! are wiped when the fields are taken out of them.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::vault::client::Request;
use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroize;

use super::client::{Client, VaultError};
use super::wire;
use crate::domain::name::Name;
use crate::domain::plan::SecretAt;
use crate::domain::secret::{self, Secret};

/// A lease that goes with what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id, which is no secret.
    pub id: String,
    /// How long it lasts.
    pub lasts: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// What leases are measured by.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long the run may execute.
    pub life: Duration,
    /// How long the token lasts that the run's token is a child of; `None`: without end.
    pub parent: Option<Duration>,
}

/// What was read.
#[derive(Default)]
pub struct Got {
    /// The values, by the names that the task gives them.
    pub values: BTreeMap<Name, Secret>,
    /// The versions that were read, by the same names, where the engine keeps any.
    pub versions: BTreeMap<Name, u64>,
    /// The leases that go with them.
    pub leases: Vec<Lease>,
}

/// Reads all secrets of a run; `pinned` are the versions that an earlier epoch has read.
pub async fn read_all(
    client: &Client,
    token: &Secret,
    wanted: &BTreeMap<Name, SecretAt>,
    pinned: &BTreeMap<Name, u64>,
    times: Times,
) -> Result<Got, VaultError> {
    let mut reading = Reading { client, token, got: Got::default() };
    let mut by_path: BTreeMap<(&str, u64), Vec<(&Name, &SecretAt)>> = BTreeMap::new();
    let newest = |(_, secret): &(&Name, &SecretAt)| secret.version.is_newest();
    for (name, secret) in wanted.iter().filter(newest) {
        let version = pinned.get(name).copied().unwrap_or(0);
        by_path.entry((secret.path.as_str(), version)).or_default().push((name, secret));
    }
    // Which one is newest at each path.
    let mut versions = BTreeMap::new();
    for ((path, version), fields) in by_path {
        let (lease, read) = reading.read(path, version, &fields).await?;
        versions.extend(read.map(|version| (path, version)));
        if let Some(lease) = lease {
            reading.got.leases.push(lasting(client, token, lease, times).await?);
        }
    }
    for (name, secret) in wanted.iter().filter(|secret| !newest(secret)) {
        let path = secret.path.as_str();
        let before = versions.get(path).map(|newest| newest.saturating_sub(1));
        let Some(version) = pinned.get(name).copied().or(before) else {
            return Err(VaultError::Local(format!(
                "secret {name}: the version before is known only where the task also reads the newest one of {path}, \
                 and the engine keeps versions"
            )));
        };
        if version == 0 {
            continue;
        }
        match reading.read(path, version, &[(name, secret)]).await {
            // Deleted, destroyed, or fallen out: the task finds no file of that name.
            Ok(_) | Err(VaultError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reading.got)
}

/// The secrets of one run, path by path.
struct Reading<'a> {
    client: &'a Client,
    token: &'a Secret,
    got: Got,
}

impl Reading<'_> {
    /// Reads a path once, in one version (0: the newest); its lease, and which version it was.
    async fn read(
        &mut self,
        path: &str,
        version: u64,
        fields: &[(&Name, &SecretAt)],
    ) -> Result<(Option<Lease>, Option<u64>), VaultError> {
        let query = if version == 0 { String::new() } else { format!("version={version}") };
        let action = format!("read {path}");
        let token = Some(self.token);
        let request = Request { query: &query, token, ..Request::new(Method::GET, path, &action) };
        let mut answer = self.client.ask(request).await?;
        let taken = take(&mut answer, fields, &mut self.got);
        let lease = lease_of(&answer);
        wipe(&mut answer);
        let version = taken.map_err(VaultError::Local)?;
        Ok((lease, version))
    }
}

/// Takes the fields out of an answer; which version it is, where the engine keeps any.
fn take(answer: &mut Value, fields: &[(&Name, &SecretAt)], got: &mut Got) -> Result<Option<u64>, String> {
    let path = fields.first().map_or("", |(_, wanted)| wanted.path.as_str());
    let version = version_of(path, answer);
    let data = &mut answer["data"];
    let data = if version.is_some() { &mut data["data"] } else { data };
    for (name, wanted) in fields {
        let at = format!("secret {name}: {} has", wanted.path);
        let value = match data.get_mut(&wanted.field) {
            None | Some(Value::Null) => return Err(format!("{at} no field `{}`", wanted.field)),
            Some(Value::String(text)) => Secret::new(text.clone()),
            Some(Value::Number(number)) => Secret::new(number.to_string()),
            Some(Value::Bool(_)) => {
                return Err(format!("{at} true or false in `{}`: that is no secret", wanted.field));
            }
            Some(value) => Secret::new(value.to_string()),
        };
        let length = value.reveal().len();
        if length == 0 || (length < secret::SHORTEST && !wanted.allow_short_secret) {
            return Err(format!(
                "{at} fewer than {} bytes in `{}`, which cannot be kept out of outputs: take a longer one, or say \
                 `allow_short_secret: true` in the task",
                secret::SHORTEST,
                wanted.field
            ));
        }
        if length > secret::MAX_LEN {
            let longest = secret::MAX_LEN;
            return Err(format!("{at} {length} bytes in `{}`: a secret has at most {longest}", wanted.field));
        }
        if let Some(version) = version {
            got.versions.insert((*name).clone(), version);
        }
        got.values.insert((*name).clone(), value);
    }
    Ok(version)
}

/// Which version an answer is, if it is one of the engine that keeps versions. A secret of the other engine may have
/// fields of the same names; its answer always names a time after which it is to be read again.
fn version_of(path: &str, answer: &Value) -> Option<u64> {
    let (data, about) = (answer["data"].as_object()?, answer["data"]["metadata"].as_object()?);
    let has = |names: [&str; 3]| names.iter().all(|name| about.contains_key(*name));
    let is_versioned = path.contains("/data/")
        && answer["lease_duration"].as_u64().unwrap_or(0) == 0
        && data.len() == 2
        && data.get("data").is_some_and(Value::is_object)
        && has(["created_time", "deletion_time", "destroyed"]);
    about.get("version").and_then(Value::as_u64).filter(|_| is_versioned)
}

fn lease_of(answer: &Value) -> Option<Lease> {
    let id = answer["lease_id"].as_str().filter(|id| !id.is_empty())?;
    let lasts = wire::lasts(&answer["lease_duration"]);
    Some(Lease { id: id.to_owned(), lasts, renewable: answer["renewable"] == Value::Bool(true) })
}

/// A lease that lasts until the run's end: a renewal for that long shows how long it can last at most.
async fn lasting(
    client: &Client,
    token: &Secret,
    mut lease: Lease,
    Times { life, parent }: Times,
) -> Result<Lease, VaultError> {
    if lease.lasts < life && lease.renewable {
        let body = json!({"lease_id": lease.id, "increment": life.as_secs()});
        let path = "sys/leases/renew";
        let answer = client
            .ask(Request {
                body: Some(&body),
                token: Some(token),
                ..Request::new(Method::PUT, path, "renew the lease of a secret")
            })
            .await?;
        lease.lasts = wire::lasts(&answer["lease_duration"]);
    }
    // Cut to whole seconds, either way by one.
    let too_short = |lasts: Duration| lasts.saturating_add(Duration::from_secs(2)) < life;
    let cure = if too_short(lease.lasts) {
        "raise the max_ttl of its role, or lower the timeout"
    } else if let Some(parent) = parent.filter(|parent| too_short(*parent)) {
        // The answer does not tell: a lease ends with the token that made it, and that with its parent.
        lease.lasts = parent;
        "it ends with the run's token: raise the token_max_ttl of the agent's role and the max_lease_ttl of auth/token, or lower the timeout"
    } else {
        return Ok(lease);
    };
    let (id, lasts, life) = (&lease.id, lease.lasts.as_secs(), life.as_secs());
    Err(VaultError::Local(format!("the lease {id} lasts {lasts} s, the run may take {life} s: {cure}")))
}

/// Overwrites every text of an answer.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Gives the token up, and with it every lease that it made. One that is dead already is as good.
pub async fn give_up(client: &Client, token: &Secret) -> Result<(), VaultError> {
    let path = "auth/token/revoke-self";
    match client
        .ask(Request {
            body: Some(&json!({})),
            token: Some(token),
            ..Request::new(Method::PUT, path, "revoke the run's token")
        })
        .await
    {
        Ok(_) | Err(VaultError::TokenDead { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::VersionSelector;

    fn at(path: &str, field: &str) -> SecretAt {
        SecretAt {
            path: path.into(),
            field: field.into(),
            allow_short_secret: false,
            version: VersionSelector::Newest,
        }
    }

    fn taken(path: &str, field: &str, mut answer: Value) -> (Result<Option<u64>, String>, Option<String>) {
        let (name, wanted, mut got) = ("x".parse().unwrap(), at(path, field), Got::default());
        let version = take(&mut answer, &[(&name, &wanted)], &mut got);
        (version, got.values.get(&name).map(|value| value.reveal().to_owned()))
    }

    fn recorded(name: &str) -> Value {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/contract/vault");
        let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["response"]["body"].clone()
    }

    #[test]
    fn which_engine_answered_is_told_by_more_than_the_names_of_fields() {
        let newest = recorded("kv2-read");
        let number = newest["data"]["metadata"]["version"].as_u64();
        let mut of_versions = newest.clone();
        of_versions["data"]["data"]["password"] = json!("correct horse");
        assert_eq!(taken("secret/data/app/a", "password", of_versions).0, Ok(number));
        // The other engine, whose secret is called as the parts of such an answer are.
        let mut old = recorded("kv1-read");
        for path in ["kv1/app/a", "kv1/data/a"] {
            for data in [
                json!({"data": {"password": "correct horse"}, "metadata": {"version": 3}}),
                newest["data"].clone(),
            ] {
                old["data"] = data.clone();
                let (version, value) = taken(path, "data", old.clone());
                assert_eq!((version, value), (Ok(None), Some(data["data"].to_string())), "{path}");
            }
        }
    }

    #[test]
    fn a_secret_has_a_longest() {
        let of = |length: usize| {
            let data = json!({"value": "x".repeat(length)});
            taken("kv1/app/a", "value", json!({"data": data, "lease_duration": 60})).0
        };
        assert_eq!(of(secret::MAX_LEN), Ok(None));
        let error = of(secret::MAX_LEN + 1).unwrap_err();
        assert!(error.contains("1048577 bytes in `value`: a secret has at most 1048576"), "{error}");
    }
}
