//! The host as a service of Consul, so that Consul's own screen and DNS show which hosts take orders.
//!
//! ```text
//!  publish ──health──┐
//!                    ├──> update: on a change, and when the reports are renewed anyway
//!  writer ──written──┘
//! ```
//!
//! Where all is well it has no timer: the writer renews the agent's report at least every five minutes, and the check lives three times as
//! long. An agent that is gone or hangs is critical by then, one that was stopped in order at once; it stays listed for
//! three days. Nothing waits for any of this, and nobody is bothered where the token may not do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Agent;
use crate::domain::condition::Condition;
use crate::domain::keys::{DEFAULT_PREFIX, Keys};
use crate::domain::name::Name;
use crate::domain::text;
use crate::store::StoreError;
use crate::store::consul::Consul;
use crate::store::consul::service::{self, Health, Service};

/// The check is critical after so much silence: three renewals of the reports.
const TTL: &str = "15m";
/// A host that is silent for so long is no longer listed.
const FORGET: &str = "72h";
/// With the first renewal of the reports after this the check is renewed, too.
const RENEW: Duration = Duration::from_secs(200);
/// Of many changes in a row each second's last is told.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// What was refused or failed is tried again after this, doubled each time: servers without a leader may say for a
/// moment that they do not know a token, and a token that may not do it would be asked about for ever.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// A stopping agent takes leave within this, or without.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// The longest output of the check, in bytes: Consul keeps it with every node's state.
const OUTPUT: usize = 2 << 10;

/// How the host is.
type HealthReport = (Health, String);

/// The service of this host.
pub(super) struct ConsulService {
    consul: Arc<Consul>,
    service: Arc<Service>,
    health: watch::Sender<Option<HealthReport>>,
    /// 0: it is not; else one more than the changes of the token with which it was.
    registered: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
}

impl ConsulService {
    /// Of this host; nothing is told yet.
    pub(super) fn of(consul: Arc<Consul>, keys: &Keys, host: &Name, groups: &[Name]) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        // As a part of a name in DNS.
        let mut tags = vec![service::TAG.to_owned(), format!("v{}", version.replace('.', "-"))];
        tags.extend(groups.iter().map(ToString::to_string));
        let meta = vec![("host", host.to_string()), ("version", version.to_owned())];
        let (ttl, forget) = (TTL, FORGET);
        let name = service::name(host);
        let service = Service { id: id(keys, host), name, tags, meta, port: 0, ttl, forget };
        let (registered, health) = (Arc::default(), watch::channel(None).0);
        Self { consul, service: Arc::new(service), health, registered, task: None }
    }

    /// From now on the service is there, or not. A port is told where others can reach it.
    pub(super) fn keep(&mut self, on: bool, port: u16, written: watch::Receiver<Option<Timestamp>>) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if !on {
            if self.registered.swap(0, Ordering::Relaxed) > 0 {
                let (consul, service) = (Arc::clone(&self.consul), Arc::clone(&self.service));
                tokio::spawn(async move {
                    if let Err(error) = consul.deregister(&service).await {
                        tracing::warn!(
                            "cannot deregister the service {}: {error}; Consul removes it after 72 h",
                            service.name
                        );
                    }
                });
            }
            return;
        }
        if self.service.port != port {
            self.service = Arc::new(Service { port, ..Service::clone(&self.service) });
            self.registered.store(0, Ordering::Relaxed);
        }
        let keeper = Keeper {
            consul: Arc::clone(&self.consul),
            service: Arc::clone(&self.service),
            registered: Arc::clone(&self.registered),
            failures: 0,
        };
        self.task = Some(tokio::spawn(keeper.keep(self.health.subscribe(), written)));
    }

    /// Says how the host is; only a change is told.
    pub(super) fn say(&self, health: Health, output: &str) {
        let told = Some((health, text::head(output, OUTPUT)));
        self.health.send_if_modified(|known| {
            let news = *known != told;
            *known = told;
            news
        });
    }

    /// The agent stops in order: the host is listed, and takes no orders.
    pub(super) async fn leave(mut self) {
        let Some(task) = self.task.take().filter(|_| self.registered.load(Ordering::Relaxed) > 0) else {
            return;
        };
        task.abort();
        let current = self.registered.load(Ordering::Relaxed) == self.consul.token_changes() + 1;
        let said = async {
            if !current {
                self.consul.register(&self.service, Health::Warning).await?;
            }
            self.consul.tell(&self.service, Health::Critical, "the agent was stopped").await
        };
        if !matches!(timeout(LEAVE_WITHIN, said).await, Ok(Ok(_))) {
            tracing::debug!("could not report to Consul that the agent stops");
        }
    }
}

/// What tells this service from another host's or another tenant's at the same Consul agent.
fn id(keys: &Keys, host: &Name) -> String {
    if keys.prefix() == DEFAULT_PREFIX {
        return service::name(host);
    }
    let digest = hex::encode(Sha256::digest(keys.prefix().as_bytes()));
    let tenant = digest.get(..8).unwrap_or(&digest);
    // No name holds a colon.
    format!("{}:{tenant}", service::name(host))
}

struct Keeper {
    consul: Arc<Consul>,
    service: Arc<Service>,
    /// 0: it is not; else one more than the changes of the token with which it was.
    registered: Arc<AtomicU64>,
    /// In a row.
    failures: u32,
}

impl Keeper {
    async fn keep(
        mut self,
        mut health: watch::Receiver<Option<HealthReport>>,
        mut written: watch::Receiver<Option<Timestamp>>,
    ) {
        let mut told: Option<(HealthReport, Instant)> = None;
        let mut again: Option<Instant> = None;
        loop {
            let now = health.borrow_and_update().clone();
            let due =
                told.as_ref().is_none_or(|(told, at)| Some(told) != now.as_ref() || at.elapsed() > RENEW);
            if !due {
                // What could not be told was taken back meanwhile.
                again = None;
            }
            let waits = again.is_some_and(|again| Instant::now() < again);
            if let Some(now) = now.filter(|_| due && !waits) {
                match self.tell(&now).await {
                    Ok(()) => {
                        told = Some((now, Instant::now()));
                        again = None;
                        self.failures = 0;
                    }
                    Err(error) => again = Some(Instant::now() + self.pause(&error)),
                }
                sleep(MIN_INTERVAL).await;
            }
            // All hold what they have when another arm is chosen.
            tokio::select! {
                changed = health.changed() => if changed.is_err() { return },
                changed = written.changed() => if changed.is_err() { return },
                () = super::wake_up(again) => {}
            }
        }
    }

    async fn tell(&self, (health, output): &HealthReport) -> Result<(), StoreError> {
        for _ in 0..2 {
            // Consul's own agent writes into the catalog with the token of the registration: anew with each other one.
            let with = self.consul.token_changes() + 1;
            if self.registered.load(Ordering::Relaxed) != with {
                // Consul takes up to five minutes over an output that comes without a change of the state, and an
                // operator wants to know at once why a host is not well.
                let before = match health {
                    Health::Passing => Health::Passing,
                    Health::Warning => Health::Critical,
                    Health::Critical => Health::Warning,
                };
                self.consul.register(&self.service, before).await?;
                self.registered.store(with, Ordering::Relaxed);
            }
            if self.consul.tell(&self.service, *health, output).await? {
                return Ok(());
            }
            // A Consul agent without a disk, or with a new one: it has forgotten.
            self.registered.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tells of a refusal once, and of what passes by itself not at all; how long to leave it.
    fn pause(&mut self, error: &StoreError) -> Duration {
        if self.failures == 0 && matches!(error, StoreError::Denied { .. }) {
            tracing::info!("cannot register the service in Consul: {error}; or set `consul.register: false`");
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(7)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

impl Agent {
    /// Shows this host as a service, or not any more, as the settings say.
    pub(super) fn keep_presence(&mut self) {
        let port = self.output.listening.at().filter(|at| !at.ip().is_loopback()).map_or(0, |at| at.port());
        let written = self.output.reported.subscribe();
        if let Some(consul_service) = &mut self.sync.consul_service {
            consul_service.keep(self.config.settings.register, port, written);
        }
    }

    /// Says how this host is, once that is known.
    pub(super) fn tell_consul(&self, conditions: &[Condition]) {
        let Some(consul_service) = self.sync.consul_service.as_ref().filter(|_| self.sync.knows_store())
        else {
            return;
        };
        let lines = conditions.iter().map(|condition| condition.text.as_str());
        match self.obstacle() {
            Some(why) => {
                let lines: Vec<&str> = [why.as_str()].into_iter().chain(lines).collect();
                consul_service.say(Health::Critical, &lines.join("\n"));
            }
            None if conditions.is_empty() => consul_service.say(Health::Passing, "takes orders"),
            None => consul_service.say(Health::Warning, &lines.collect::<Vec<_>>().join("\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hosts_or_tenants_have_one_id() {
        let mut ids = Vec::new();
        for prefix in ["hostler/", "a/b/", "a.b/", "hostler-db1/"] {
            for host in ["db1", "db10", "db1-hostler", "db1-"] {
                ids.push(id(&Keys::new(prefix), &host.parse().unwrap()));
            }
        }
        assert_eq!(ids[0], "hostler-db1");
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
