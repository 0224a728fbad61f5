//! Who the agent acts for, and whether it may.
//!
//! The name of the host is fixed at the first start: what the configuration says, or else the name of Consul's node.
//! Without either the agent waits. Two agents under one name find one another by the report that both write.

use super::watches::StoreSync;
use crate::catalog::trust::OwnerRule;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::{Agent, AgentError};
use crate::config::Settings;
use crate::domain::name::Name;
use crate::host::notify::Notify;
use crate::host::{disk, machine};
use crate::ledger::identity::{HostIdentity, IdentityError};
use crate::report::agent_key::NameConflict;
use crate::store::{Store, StoreError};

/// The host that this process acts for, and the process.
pub(super) struct ThisHost {
    pub(super) host: Name,
    pub(super) who: Who,
    /// The boot id.
    pub(super) boot: String,
    /// This program's file, by which executors are started.
    pub(super) program: PathBuf,
    /// Who may own tasks.
    pub(super) rule: OwnerRule,
    /// When this process started, in seconds since the epoch.
    pub(super) started: f64,
}

/// The store is asked for the host's name again after this.
const ASK_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What systemd is told while the store does not answer.
const WAITS: &str = "waiting for Consul to say the name of this host; `host:` is not configured";
/// The same while it refuses to.
const DENIED: &str =
    "Consul does not let this host ask for its name: let the token read the agent, or set `host:`";

/// Who this agent acts for.
#[derive(Clone, Debug)]
pub struct Who {
    /// The name.
    pub(super) host: Name,
    /// What tells this agent from another under the same name.
    pub(super) id: String,
    /// How it differs from who it was: nothing may start.
    pub(super) differs: Option<String>,
}

/// Finds out who this host is, and fixes it at the first start.
pub async fn resolve(settings: &Settings, store: &dyn Store, notify: &mut Notify) -> Result<Who, AgentError> {
    disk::make_dirs(&settings.state_dir)?;
    let fixed = match (HostIdentity::read(&settings.state_dir), settings.host.clone()) {
        (Ok(Some(fixed)), _) => fixed,
        // It may be a newer program's: told under the configured name, and nothing starts.
        (Err(error @ IdentityError::Unreadable { .. }), Some(host)) => {
            return Ok(Who { host, id: String::new(), differs: Some(error.to_string()) });
        }
        (Err(error), _) => return Err(error.into()),
        (Ok(None), _) => {
            let host = match settings.host.clone() {
                Some(host) => host,
                None => node(store, notify).await?,
            };
            let new = HostIdentity::new(host);
            new.write(&settings.state_dir)?;
            new
        }
    };
    let differs = fixed.difference(settings.host.as_ref(), &machine::machine_id());
    // Under a new name nothing is taken for the old one's, and under the old name nothing is written by a copy.
    let host = settings.host.clone().unwrap_or(fixed.host);
    Ok(Who { host, id: fixed.id, differs })
}

/// The name that the store knows this host by.
///
/// Ready for systemd meanwhile: nobody's installation or boot hangs on a Consul that is away.
async fn node(store: &dyn Store, notify: &mut Notify) -> Result<Name, AgentError> {
    let mut told = None;
    loop {
        match store.node().await {
            Ok(name) => return name.to_ascii_lowercase().parse().map_err(|_| AgentError::NoHost),
            // A right may come later, as a server may.
            Err(error) => {
                let denied = matches!(error, StoreError::Denied { .. } | StoreError::Refused { .. });
                notify.say(true, if denied { DENIED } else { WAITS });
                notify.alive();
                // An outage may last for days: what is told once is not told again.
                let why = error.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::warn!("waiting for the name of this host, `host:` is not configured: {why}");
                    told = Some(why);
                }
                sleep(ASK_RETRY_INTERVAL).await;
            }
        }
    }
}

impl StoreSync {
    /// When what bars this host may be over.
    pub(super) fn start_blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.name_conflicts.borrow().as_ref().map(|rival| rival.until).filter(|until| *until > now)
    }
}

impl Agent {
    /// Why nothing may start on this host at all.
    pub(super) fn start_block(&self, now: Timestamp) -> Option<String> {
        let rival = self.sync.name_conflicts.borrow().clone().filter(|rival| rival.until > now);
        self.identity.who.differs.clone().or_else(|| rival.map(|rival| rival_line(&rival)))
    }
}

fn rival_line(rival: &NameConflict) -> String {
    format!(
        "host name also used by {}: set a unique `host:` on each host; nothing starts until the other host stops reporting",
        rival.who
    )
}
