//! An agent is put together, from its settings and what the disk has, or it is said why there is none.
//!
//! To build is not to run: nothing is started and no store is asked yet. A ledger or an audit that cannot be read does
//! not keep the agent away, since it has to tell of that; it only starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{
    Agent, Work, check_order, consul_service, disk_guard, downtime, facts, formats, identity, publish,
    record, recurring, reload, runs, secrets, telemetry, unready, vault, warnings, watches,
};
use crate::app::open::{self, Opened};
use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::config::{ConfigError, Settings};
use crate::domain::audit::Head;
use crate::domain::decide::Decision;
use crate::domain::source::Source;
use crate::host::disk::DiskError;
use crate::host::notify::Notify;
use crate::host::{clock, disk, machine, process};
use crate::ledger::identity::IdentityError;
use crate::ledger::{Audit, Ledger};
use crate::report::desired::{DesiredReports, RenderQueue};
use crate::telemetry::counters::RunCounters;
use crate::vault::VaultError;

/// An agent that was killed is gone within this, and its lock with it.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Events that wait to be applied; a full queue makes whoever has something to say wait.
const EVENTS: usize = 256;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no name for the host.
    #[error("this host has no usable name: set `host:` in the configuration")]
    NoHost,
    /// Who the host is cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another agent has the state folder.
    #[error("another agent runs on {}", .0.display())]
    Running(PathBuf),
    /// The client for Vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// So few files may be open that nothing could be carried out.
    #[error(transparent)]
    TooFewFiles(#[from] process::TooFewFiles),
    /// Something of the system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl Agent {
    /// Puts an agent together: reads the ledger and the tasks, but starts nothing and asks no store yet.
    pub fn build(
        settings: Settings,
        opened: Opened,
        who: identity::Who,
        mut notify: Notify,
        reload_context: reload::ReloadContext,
    ) -> Result<Self, AgentError> {
        let Opened { store, consul } = opened;
        process::usual_umask();
        process::enough_files(process::usual_files()?)?;
        notify.say(false, "reading the ledger and the tasks");
        let host = who.host.clone();
        disk::make_dirs(&settings.state_dir)?;
        // Passed through, not listed: a step's user finds its scripts by their full path in the task's copy.
        disk::set_mode(&settings.state_dir, 0o711)?;
        let lock = only_one(&settings)?;
        let runs_dir = settings.state_dir.join("runs");
        disk::make_dir(&runs_dir)?;
        let (events, inbox) = mpsc::channel(EVENTS);
        let ledger = Ledger::open(&settings.state_dir.join("ledger"));
        if let Err(error) = &ledger {
            tracing::error!("safe mode, the agent starts nothing: {error}");
        }
        let own_format = ledger.as_ref().is_ok_and(Ledger::is_newest);
        let rollback_window = formats::RollbackWindow::of(&settings.state_dir, own_format);
        let audit = Audit::open(&settings.state_dir);
        if let Err(error) = &audit {
            tracing::error!("the agent starts nothing, because it cannot write the audit: {error}");
        }
        let downtime = downtime::DowntimeSide::open(&settings.state_dir);
        let recurring =
            ledger.as_ref().map(|ledger| recurring::RecurringOrders::of(ledger.state())).unwrap_or_default();
        let mut sources = vec![Source::Host(host.clone())];
        sources.extend(settings.groups.iter().cloned().map(Source::Group));
        let rule = OwnerRule::of_process();
        let catalog = Catalog::load(&settings.task_dirs, rule);
        let runs = runs::Runs::open(&runs_dir, events.clone());
        let launcher = open::launcher(settings.launcher);
        let (wanted, _) = watch::channel(Arc::new(DesiredReports::default()));
        let vault = vault::open(&settings)?;
        let since_boot = clock::since_boot().as_secs_f64() - machine::process().started;
        let consul_service = consul
            .clone()
            .map(|consul| consul_service::ConsulService::of(consul, &settings.keys, &host, &settings.groups));
        Ok(Self {
            identity: identity::ThisHost {
                host,
                who,
                boot: machine::boot_id(),
                program: std::env::current_exe()?,
                rule,
                started: clock::now().as_duration().as_secs_f64() - since_boot,
            },
            sync: watches::StoreSync {
                store,
                consul,
                consul_service,
                sources,
                prior_reports: None,
                name_conflicts: watch::channel(None).1,
                refused_reports: watch::channel(None).1,
                watches: Vec::new(),
                reread: Arc::default(),
                status: watches::SyncStatus::default(),
                snapshot_count: 0,
                desired: watches::Desired::default(),
                desired_retry_at: None,
                quiet_until: None,
            },
            durable: record::Durable {
                ledger,
                audit,
                downtime,
                reported_audit: Head::default(),
                ledger_full: None,
                audited: record::Audited::default(),
                disk_guard: disk_guard::DiskGuard::of(&settings.state_dir),
                rollback_window,
                _lock: lock,
            },
            orders: check_order::OrderBook {
                catalog,
                known_tasks: BTreeMap::new(),
                checked: BTreeMap::new(),
                recurring,
                secrets: secrets::Secrets::default(),
                unready: unready::Waiting::default(),
            },
            run_table: runs::RunTable {
                runs,
                starting: BTreeMap::new(),
                ending: BTreeSet::new(),
                copying: Arc::default(),
                launcher,
                rebooting: false,
                closed_since_trim: 0,
            },
            vault: vault::VaultSide {
                client: vault,
                keeper: None,
                give_back: Arc::default(),
                giving_back: None,
            },
            facts: facts::HostFacts::load(&settings.facts_dirs, rule),
            output: publish::Output {
                wanted,
                texts: RenderQueue::default(),
                reported: watch::channel(None).0,
                told_before: None,
                leaving: super::forget::Leaving::default(),
                dropped_count: 0,
                counters: RunCounters::default(),
                shown: telemetry::PhaseCounts::default(),
                warnings: warnings::Warnings::default(),
                listening: telemetry::Listening::new(),
                notify,
            },
            work: Work { decision: Decision::default(), decisions_in_a_row: 0, events, inbox },
            config: reload::Config { settings, reload_context, pending: None },
        })
    }
}

/// Only one agent works on a state folder. One that was just killed may still be about to be gone.
fn only_one(settings: &Settings) -> Result<Flock<File>, AgentError> {
    let path = settings.state_dir.join("lock");
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let file = disk::lock_file(&path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= until => return Err(AgentError::Running(settings.state_dir.clone())),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
