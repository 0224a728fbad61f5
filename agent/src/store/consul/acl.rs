//! Policies and tokens, for whoever enrolls hosts with a token that may write ACLs. The agent never asks for them.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Consul, Request};
use crate::domain::secret::Secret;
use crate::store::StoreError;

/// A policy, as Consul lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    name: String,
}

/// A new token.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    #[serde(rename = "SecretID")]
    secret_id: String,
}

/// The policies of a cluster: each id by its name.
pub struct Policies(BTreeMap<String, String>);

impl Consul {
    /// The policies that are there. Needs `acl = "read"`.
    pub async fn policies(&self) -> Result<Policies, StoreError> {
        let body = self.acl(Method::GET, "acl/policies", None, "to list policies").await?;
        let all: Vec<Listed> = self.understood(&body, "a list of policies")?;
        Ok(Policies(all.into_iter().map(|policy| (policy.name, policy.id)).collect()))
    }

    /// Writes a policy: a new one, or the rules of the one that has that name. Needs `acl = "write"`.
    pub async fn put_policy(&self, there: &Policies, name: &str, rules: &str) -> Result<(), StoreError> {
        let path = match there.0.get(name) {
            Some(id) => format!("acl/policy/{id}"),
            None => "acl/policy".to_owned(),
        };
        let body = json!({"Name": name, "Rules": rules});
        self.acl(Method::PUT, &path, Some(body.to_string()), &format!("to write the policy {name}")).await?;
        Ok(())
    }

    /// Makes a token that has one policy and no end. Needs `acl = "write"`.
    pub async fn make_token(&self, policy: &str, description: &str) -> Result<Secret, StoreError> {
        let body = json!({"Description": description, "Policies": [{"Name": policy}]});
        let action = format!("to make a token with the policy {policy}");
        let body = self.acl(Method::PUT, "acl/token", Some(body.to_string()), &action).await?;
        let made: Made = self.understood(&body, "a token")?;
        Ok(Secret::new(made.secret_id))
    }

    async fn acl(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        action: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let (body, deadline) = (body.map(String::into_bytes), self.timeouts.request);
        let got = self.ask(Request { method, path, body, deadline, action, expected: &[200] }).await?;
        Ok(got.body.kept().to_vec())
    }

    /// What an answer says, which may hold a token: no error repeats it.
    fn understood<T: serde::de::DeserializeOwned>(&self, body: &[u8], what: &str) -> Result<T, StoreError> {
        serde_json::from_slice(body).map_err(|_| self.unreadable(format!("its answer is not {what}")))
    }
}
