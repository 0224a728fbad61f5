//! The tokens of runs: made as children of the agent's own, recorded before they are made to last, and revoked.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::vault::client::Request;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::super::client::VaultError;
use super::super::grant::VaultGrant;
use super::super::secrets::give_up;
use super::{SLACK, Vault};
use crate::domain::ids::RunId;
use crate::domain::secret::Secret;
use crate::host::disk::DiskError;

/// A token for a run lives so long until it is recorded: whatever ends the agent before leaves one that ends by itself.
const UNRECORDED_FOR: Duration = Duration::from_secs(60);

impl Vault {
    /// A token for one epoch of a run, which ends with it, and is renewable. It lives for `life`, and its parent for
    /// `needs` if that can be had.
    ///
    /// `record` writes its accessor down for whoever revokes it later. Until that has been done it lives for a minute.
    pub async fn grant(
        &self,
        run: RunId,
        life: Duration,
        needs: Duration,
        record: impl Fn(&str) -> Result<PathBuf, DiskError>,
    ) -> Result<VaultGrant, VaultError> {
        let granted = self.try_grant(run, life, needs, record).await;
        if granted.is_ok() {
            self.refusals.store(0, Ordering::Relaxed);
        }
        if let Err(error) = &granted {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            // What ails the agent's own token is found by looking after it; anything else is the run's matter.
            if error.may_pass() {
                self.kick.notify_one();
            }
        }
        granted
    }

    async fn try_grant(
        &self,
        run: RunId,
        life: Duration,
        needs: Duration,
        record: impl Fn(&str) -> Result<PathBuf, DiskError>,
    ) -> Result<VaultGrant, VaultError> {
        let grant = self.make_token(run, UNRECORDED_FOR, needs).await?;
        let accessor = grant.accessor.clone();
        let recorded = self.record(grant, &record).await?;
        match self.let_live(recorded, life).await {
            // Its policies do not let it renew itself, so it is made for as long as it takes.
            Err(VaultError::Denied { .. }) => {
                if let Some(accessor) = accessor {
                    // Refused, it ends by itself.
                    let _ = self.revoke(&accessor).await;
                }
                let grant = self.make_token(run, life, needs).await?;
                Ok(cut_to(self.record(grant, &record).await?, life))
            }
            granted => granted,
        }
    }

    async fn make_token(&self, run: RunId, ttl: Duration, needs: Duration) -> Result<VaultGrant, VaultError> {
        let mut held = self.held.lock().await;
        let mut body = json!({"ttl": format!("{}s", ttl.as_secs()), "renewable": true,
            "display_name": "hostler-run", "meta": {"run": run.to_string()}});
        if let Some(policies) = &self.run_policies {
            body["policies"] = json!(policies);
        }
        let mut again = true;
        loop {
            let session = match held.session.take() {
                Some(session) => session,
                None => self.login(&mut held).await?,
            };
            held.session = Some(session);
            let parent = self.outlive(&mut held, needs).await?;
            let token = held.session.as_ref().map(|session| session.token.clone());
            let Some(token) = token else { continue };
            let action = "make a token for a run (update on auth/token/create)";
            let path = "auth/token/create";
            match self
                .client
                .ask(Request {
                    body: Some(&body),
                    token: Some(&token),
                    ..Request::new(Method::POST, path, action)
                })
                .await
            {
                // One new login for a refused request, and no more.
                Err(VaultError::TokenDead { .. }) if std::mem::replace(&mut again, false) => {
                    held.session = None
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    let accessor =
                        answer["auth"]["accessor"].as_str().filter(|accessor| !accessor.is_empty());
                    let accessor = accessor.map(str::to_owned);
                    let (token, lasts, _) = self.auth_of(answer)?;
                    if let Some(accessor) = &accessor {
                        self.made().insert(accessor.clone(), token.clone());
                    }
                    let server = self.client.server().clone();
                    return Ok(VaultGrant { server, token, lasts, parent, accessor, record: None });
                }
            }
        }
    }

    /// Writes down what a token is known by, or gives it back.
    async fn record(
        &self,
        mut grant: VaultGrant,
        record: &impl Fn(&str) -> Result<PathBuf, DiskError>,
    ) -> Result<VaultGrant, VaultError> {
        if let Some(accessor) = &grant.accessor {
            match record(accessor) {
                Ok(path) => grant.record = Some(path),
                Err(error) => {
                    if let Err(error) = self.revoke(accessor).await {
                        tracing::warn!(
                            "cannot revoke a token made for a run; it expires within a minute: {error}"
                        );
                    }
                    return Err(VaultError::Local(error.to_string()));
                }
            }
        }
        Ok(grant)
    }

    /// Lets a token live for so long that was made for a minute.
    async fn let_live(&self, mut grant: VaultGrant, life: Duration) -> Result<VaultGrant, VaultError> {
        let (path, action) = ("auth/token/renew-self", "keep the token of a run alive");
        let body = json!({"increment": life.as_secs()});
        let answer = self
            .client
            .ask(Request {
                body: Some(&body),
                token: Some(&grant.token),
                ..Request::new(Method::PUT, path, action)
            })
            .await?;
        grant.lasts = self.auth_of(answer)?.1;
        Ok(cut_to(grant, life))
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Secret>> {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets the tokens of runs that are recorded no more.
    pub fn keep_made(&self, recorded: impl Fn(&str) -> bool) {
        self.made().retain(|accessor, _| recorded(accessor));
    }

    /// Revokes the token of a run, and with it every lease that it made. One that is dead already is as good.
    pub async fn revoke(&self, accessor: &str) -> Result<(), VaultError> {
        let own = self.made().get(accessor).cloned();
        if let Some(token) = own {
            // The agent that made it needs no right of its own for that.
            give_up(&self.client, &token).await?;
            self.made().remove(accessor);
            return Ok(());
        }
        let Some(token) = self.token().await else {
            let place = self.client.server().address.clone();
            return Err(VaultError::Away { place, why: "the agent is not logged in".to_owned() });
        };
        let action = "revoke the token of a run (update on auth/token/revoke-accessor)";
        let (path, body) = ("auth/token/revoke-accessor", json!({"accessor": accessor}));
        match self
            .client
            .ask(Request {
                body: Some(&body),
                token: Some(&token),
                ..Request::new(Method::POST, path, action)
            })
            .await
        {
            Ok(_) | Err(VaultError::Missing { .. }) => Ok(()),
            Err(VaultError::Refused { why, .. }) if why.contains("invalid accessor") => Ok(()),
            Err(error) => {
                if let VaultError::TokenDead { .. } = error {
                    self.tend_soon();
                }
                Err(error)
            }
        }
    }
}

/// A token that the mount's own limit has cut, which no renewal passes, ends as one does whose parent ends.
fn cut_to(mut grant: VaultGrant, life: Duration) -> VaultGrant {
    let cut = grant.lasts.filter(|lasts| lasts.saturating_add(SLACK) < life);
    grant.parent = grant.parent.into_iter().chain(cut).min();
    grant
}
