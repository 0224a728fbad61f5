//! Who the agent is in Vault, and what it may do there: for `hostler check`, which reads rights and nothing else.

use crate::vault::client::Request;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::VaultError;
use super::keeper::Vault;
use super::secrets::give_up;
use crate::domain::secret::Secret;

/// The agent, as Vault knows it.
pub struct Myself {
    vault: Arc<Vault>,
    token: Secret,
    /// Whether the token was made for the question.
    made: bool,
    /// What Vault calls it.
    pub name: String,
    /// Its policies.
    pub policies: Vec<String>,
    /// Policies that tokens for runs are to have, and cannot: the agent has not got them itself.
    pub lacking: Vec<String>,
    /// Why its tokens can make no tokens for runs, whatever its policies are, if that is so.
    pub barren: Option<&'static str>,
    /// How long it stays so; `None`: without end.
    pub ttl: Option<Duration>,
}

impl Myself {
    /// Logs in, and asks. It is not for agents that log in with what can be used once ([`Vault::logs_in_once`]).
    pub async fn of(vault: &Arc<Vault>) -> Result<Self, VaultError> {
        let (token, made) = vault.try_login().await?;
        let path = "auth/token/lookup-self";
        let action = "look at the agent's token";
        let answer = vault
            .client()
            .ask(Request { token: Some(&token), ..Request::new(Method::GET, path, action) })
            .await?;
        let data = &answer["data"];
        let role =
            data["meta"]["role_name"].as_str().map(|role| format!(" (role {role})")).unwrap_or_default();
        let words = |list: &Value| {
            let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        let policies = words(&data["policies"]);
        let wanted = vault.run_policies().unwrap_or_default().iter();
        let is_root = policies.iter().any(|policy| policy == "root");
        let lacking = wanted.filter(|policy| !is_root && !policies.contains(policy)).cloned().collect();
        Ok(Self {
            vault: Arc::clone(vault),
            made,
            name: format!("{}{role}", data["display_name"].as_str().unwrap_or("token")),
            policies,
            lacking,
            barren: match (data["type"].as_str(), data["num_uses"].as_i64()) {
                (Some("batch"), _) => Some(
                    "its tokens are of type batch, which make no others: set token_type=service for its role",
                ),
                (_, Some(uses)) if uses != 0 => {
                    Some("its tokens end after a number of uses: set token_num_uses=0 for its role")
                }
                _ => None,
            },
            ttl: data["ttl"].as_u64().filter(|ttl| *ttl > 0).map(Duration::from_secs),
            token,
        })
    }

    /// What it may do with a path: the words of Vault, without reading it.
    pub async fn may(&self, path: &str) -> Result<Vec<String>, VaultError> {
        let (own, action) = ("sys/capabilities-self", "tell what the agent may do");
        let body = json!({"paths": [path]});
        let answer = self
            .vault
            .client()
            .ask(Request {
                body: Some(&body),
                token: Some(&self.token),
                ..Request::new(Method::POST, own, action)
            })
            .await?;
        let words = answer["data"][path].as_array().cloned().unwrap_or_default();
        Ok(words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect())
    }

    /// Gives a token up that was made for the question.
    pub async fn go(self) {
        if self.made {
            // One that cannot be given up ends by itself.
            let _ = give_up(self.vault.client(), &self.token).await;
        }
    }
}
