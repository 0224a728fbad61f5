//! Tokens of runs that nobody uses any more are given back to Vault, and with them every lease that they made.
//!
//! An executor gives its token up at its end. What died before that is found here, from the records on the disk alone
//! ([`Tokens`]), so that it makes no difference whether executor, agent or host went down. While Vault cannot be
//! reached the records stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Agent;
use crate::host::disk;
use crate::ledger::Tokens;
use crate::vault::{SessionState, Vault, jittered};

/// While there are records, they are looked at so often: an executor that dies before its claim tells nobody.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// What has just ended gets so long to give its token up itself.
const OWN_END: Duration = Duration::from_secs(2);

impl Agent {
    /// Gives tokens back beside the loop, with the Vault that counts from now on.
    pub(super) fn keep_giving_back(&mut self) {
        self.vault.giving_back.take().inspect(AbortHandle::abort);
        if let Some(vault) = &self.vault.client {
            let tokens = Tokens::of(&self.config.settings.state_dir);
            let work = give_back(Arc::clone(vault), tokens, Arc::clone(&self.vault.give_back));
            self.vault.giving_back = Some(tokio::spawn(work).abort_handle());
        }
    }
}

async fn give_back(vault: Arc<Vault>, tokens: Tokens, ended: Arc<Notify>) {
    let mut standing = vault.watch();
    loop {
        let ready = *standing.borrow_and_update() == SessionState::Ready;
        let left = if ready { once(&vault, &tokens).await } else { true };
        tokio::select! {
            () = ended.notified() => sleep(OWN_END).await,
            changed = standing.changed() => if changed.is_err() {
                return;
            },
            () = sleep(jittered(RETRY_INTERVAL)), if left && ready => {}
        }
    }
}

/// Revokes each token that is due; whether any record is left.
async fn once(vault: &Vault, tokens: &Tokens) -> bool {
    let all = match tokens.all() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!("cannot list the tokens of runs, so none is revoked: {error}");
            return true;
        }
    };
    vault.keep_made(|accessor| all.iter().any(|token| token.accessor == accessor));
    let mut left = false;
    for token in &all {
        if !tokens.is_due(token) {
            left = true;
            continue;
        }
        match vault.revoke(&token.accessor).await {
            Ok(()) => {
                if let Err(error) = disk::remove(&token.path) {
                    tracing::warn!("{error}");
                }
                tracing::info!(run = %token.run, "revoked the token of epoch {}", token.epoch);
            }
            Err(error) => {
                left = true;
                tracing::warn!(run = %token.run, "cannot revoke the token of epoch {} yet: {error}", token.epoch);
                if error.may_pass() {
                    break;
                }
            }
        }
    }
    left
}
