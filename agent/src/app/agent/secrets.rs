//! The secrets that orders watch: which ones are looked at, and what Vault said of them last.
//!
//! ```text
//!  orders that stand -> paths -> one task asks for each, at an interval with jitter -> Event::Version, if it is news
//! ```
//!
//! One request a secret, whatever the number of orders. When an order begins to count, all answers from before are
//! forgotten: they say nothing of what came after. Vault away is no answer, and its own condition tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::prepare::NO_VAULT;
use super::{Agent, Event};
use crate::domain::decide::SeenOrder;
use crate::domain::order::{Document, Order};
use crate::domain::secret_watch::SecretVersion;
use crate::domain::source::OrderKey;
use crate::domain::state::LedgerEntry;
use crate::vault::{Vault, VaultError, jittered};

/// What Vault said of a secret: its version, or one line on why there is none.
pub(super) type VersionResult = Result<SecretVersion, String>;

/// What is looked at. The round goes with each answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SecretQuery {
    round: u64,
    paths: BTreeSet<String>,
}

/// What the agent knows of watched secrets.
#[derive(Default)]
pub(super) struct Secrets {
    /// Their versions, by their paths.
    pub(super) versions: BTreeMap<String, SecretVersion>,
    /// Why some have none.
    trouble: BTreeMap<String, String>,
    wanted: watch::Sender<SecretQuery>,
    /// Who asks.
    asking: Option<AbortHandle>,
    /// An order has begun to count since the last look.
    begun: bool,
}

fn order(seen: &SeenOrder) -> Option<&Order> {
    match &seen.document {
        Ok(Document::Order(order)) if !order.on_secret_change.is_empty() => Some(order),
        _ => None,
    }
}

impl Secrets {
    /// Follows what was put into the ledger.
    pub(super) fn follow(&mut self, facts: &[LedgerEntry], orders: &BTreeMap<OrderKey, SeenOrder>) {
        let begins = |fact: &LedgerEntry| match fact {
            LedgerEntry::ScheduleArmed { key, .. } => orders.get(key).and_then(order).is_some(),
            _ => false,
        };
        if facts.iter().any(begins) {
            self.forget();
        }
    }

    /// No answer from before counts.
    fn forget(&mut self) {
        self.versions.clear();
        self.begun = true;
    }

    /// Takes an answer in, unless something has begun since it was asked for.
    pub(super) fn take(&mut self, round: u64, path: String, told: VersionResult) {
        if self.begun || self.wanted.borrow().round != round {
            return;
        }
        match told {
            Ok(version) => {
                self.trouble.remove(&path);
                self.versions.insert(path, version);
            }
            Err(why) => {
                self.versions.remove(&path);
                self.trouble.insert(path, why);
            }
        }
    }

    fn want(&mut self, paths: BTreeSet<String>) {
        if std::mem::take(&mut self.begun) || self.wanted.borrow().paths != paths {
            self.versions.retain(|path, _| paths.contains(path));
            self.trouble.retain(|path, _| paths.contains(path));
            self.wanted.send_modify(|wanted| *wanted = SecretQuery { round: wanted.round + 1, paths });
        }
    }
}

impl Agent {
    /// Looks after what is watched, in the Vault that counts from now on.
    pub(super) fn keep_watching(&mut self) {
        self.orders.secrets.asking.take().inspect(AbortHandle::abort);
        // What another one told says nothing of this one.
        self.orders.secrets.forget();
        if let Some(vault) = &self.vault.client {
            let (vault, wanted) = (Arc::clone(vault), self.orders.secrets.wanted.subscribe());
            self.orders.secrets.asking =
                Some(tokio::spawn(ask(vault, wanted, self.work.events.clone())).abort_handle());
        }
    }

    /// What the orders that count now watch.
    pub(super) fn watch_secrets(&mut self) {
        let Ok(ledger) = &self.durable.ledger else { return };
        let memory = ledger.state();
        let counts = |(key, seen): (&OrderKey, &SeenOrder)| {
            let order = order(seen)?;
            let terms = memory.orders.get(key)?.recurrence.terms.as_ref()?;
            let paths = order.on_secret_change.iter().map(|one| one.path().to_owned());
            (Some(terms) == order.standing_terms().as_ref()).then(|| paths.collect::<Vec<_>>())
        };
        let paths = self.sync.desired.orders.iter().filter_map(counts).flatten().collect();
        self.orders.secrets.want(paths);
    }

    /// What an operator should know of it.
    pub(super) fn watch_conditions(&self) -> Vec<String> {
        let said = |path: &str, why: &str| format!("secret {path}, which an order watches: {why}");
        if self.vault.client.is_none() {
            return self
                .orders
                .secrets
                .wanted
                .borrow()
                .paths
                .iter()
                .map(|path| said(path, NO_VAULT))
                .collect();
        }
        self.orders.secrets.trouble.iter().map(|(path, why)| said(path, why)).collect()
    }
}

/// Asks for the version of each secret, again and again, and tells what is news.
async fn ask(vault: Arc<Vault>, mut wanted: watch::Receiver<SecretQuery>, events: mpsc::Sender<Event>) {
    let mut recurrence = vault.watch();
    let (mut round, mut last) = (0, BTreeMap::new());
    loop {
        let now = wanted.borrow_and_update().clone();
        recurrence.mark_unchanged();
        if now.round != round {
            (round, last) = (now.round, BTreeMap::new());
        }
        for path in &now.paths {
            let told: VersionResult = match vault.version(path).await {
                Ok(version) => Ok(version),
                // Nobody answers for the others either.
                Err(VaultError::Away { .. } | VaultError::Sealed { .. } | VaultError::TokenDead { .. }) => {
                    break;
                }
                Err(error) if error.may_pass() => continue,
                Err(error) => Err(error.to_string()),
            };
            if last.get(path) != Some(&told) {
                let event = Event::Version { round, path: path.clone(), told: told.clone() };
                if events.send(event).await.is_err() {
                    return;
                }
                last.insert(path.clone(), told);
            }
        }
        let pause = jittered(vault.secret_poll_interval());
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            // Logged in, for the first time or again.
            Ok(()) = recurrence.changed() => {}
            () = sleep(pause), if !now.paths.is_empty() => {}
        }
    }
}
