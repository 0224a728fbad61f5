//! The agent and Vault: opened from the settings, kept logged in beside the loop, and told of as a condition.

use std::sync::Arc;
use tokio::sync::Notify as Notified;
use tokio::task::AbortHandle;
use tokio::task::JoinHandle;

use super::prepare::NO_VAULT;
use super::{Agent, AgentError, Event};
use crate::config::{ConfigError, Settings};
use crate::exec::{handoff, secret_mount};
use crate::ledger::{ClaimState, Folder};
use crate::vault::{SessionState, Vault};

/// Vault, and what keeps the agent's login and gives back tokens of runs.
pub(super) struct VaultSide {
    pub(super) client: Option<Arc<Vault>>,
    pub(super) keeper: Option<JoinHandle<()>>,
    /// Something may have ended whose token for Vault is to be given back.
    pub(super) give_back: Arc<Notified>,
    pub(super) giving_back: Option<AbortHandle>,
}

/// The host's Vault; `None`: it has none.
pub(super) fn open(settings: &Settings) -> Result<Option<Arc<Vault>>, AgentError> {
    let settings = settings.vault.clone().build().map_err(ConfigError::from)?;
    Ok(settings.map(Vault::new).transpose()?)
}

impl VaultSide {
    /// Why no secrets are to be had.
    pub(super) fn no_vault(&self) -> Option<String> {
        let Some(vault) = &self.client else { return Some(NO_VAULT.to_owned()) };
        match &*vault.watch().borrow() {
            SessionState::Ready => None,
            SessionState::Starting => Some("logging in to Vault".to_owned()),
            SessionState::Unavailable(why) => Some(why.clone()),
        }
    }

    /// What an operator should know of it.
    pub(super) fn vault_condition(&self) -> Option<String> {
        match &*self.client.as_ref()?.watch().borrow() {
            SessionState::Unavailable(why) => Some(format!("vault: {why}")),
            SessionState::Ready | SessionState::Starting => None,
        }
    }
}

impl Agent {
    /// What executors that died left of secrets goes before anything else happens.
    pub(super) fn sweep_secrets(&self) {
        let runtime = &self.config.settings.runtime_dir;
        handoff::sweep(runtime);
        let runs = self.config.runs_dir();
        secret_mount::sweep(runtime, |name| {
            let Ok(run) = name.parse() else { return false };
            let folder = Folder::new(&runs, run);
            match folder.newest_claim() {
                Ok((_, claim)) => matches!(claim, ClaimState::Held),
                // Of a claim that cannot be read nobody can tell that its executor is dead.
                Err(_) => !matches!(folder.path().try_exists(), Ok(false)),
            }
        });
    }

    /// Logs in, and stays so; each change is an event.
    pub(super) fn keep_vault(&mut self) {
        if let Some(former) = self.vault.keeper.take() {
            // Its token is not given up: the tokens of runs are its children.
            former.abort();
        }
        self.keep_watching();
        self.keep_giving_back();
        let Some(vault) = &self.vault.client else { return };
        self.vault.keeper = Some(tokio::spawn(Arc::clone(vault).keep()));
        let (mut standing, events) = (vault.watch(), self.work.events.clone());
        tokio::spawn(async move {
            while standing.changed().await.is_ok() {
                if events.send(Event::Vault).await.is_err() {
                    return;
                }
            }
        });
    }
}
