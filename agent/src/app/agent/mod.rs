//! The agent: receives what happens, applies it, decides, dispatches what was decided, and shows the result.
//!
//! ```text
//!  watches ──┐                                          ┌─> ledger (before anything else)
//!  folders ──┼─> receive -> apply -> decide -> dispatch ┼─> prepare.rs: check, make, launch, end leftovers
//!  prepare.rs┘                                  |       └─> a moment later: an Event again
//!                                               └─> publish -> report writer
//! ```
//!
//! One task owns all state; whatever takes time is done elsewhere and comes back as an [`Event`]. Nothing here
//! decides: that is `domain::decide`.
//!
//! ```text
//!  mod.rs      the agent's state, and its loop
//!  build.rs    how it is put together, or why there is none
//!  event.rs    what can happen, and what each of it changes
//!  dispatch.rs from all that is known to a decision, and each action on its way
//!  actions.rs  how a run comes to be; launch.rs: how it gets its executor
//! ```
//!
//! Every other file has one subject of its own, and what the agent does about it.

mod actions;
mod build;
mod check_order;
mod consul_service;
mod disk_guard;
mod dispatch;
mod early;
mod event;
mod forget;
mod formats;
mod giveback;
pub mod identity;
mod launch;
mod pre_start_check;
mod prepare;
mod prior_reports;
mod publish;
mod recurring;
pub mod reload;
mod remember;
mod run_watcher;
mod runs;
mod secrets;
mod status;
mod telemetry;
mod tidy;
mod unready;
mod vault;
mod warnings;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::Flock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify as Notified, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::config::Settings;
use crate::domain::audit::Head;
use crate::domain::decide::{CheckedOrder, Decision};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::plan::Lock;
use crate::domain::source::{OrderKey, Source};
use crate::exec::launcher::Launcher;
use crate::exec::step;
use crate::host::notify::{self, Notify};
use crate::host::{allocator, clock};
use crate::ledger::audit::AuditError;
use crate::ledger::orders::LedgerError;
use crate::ledger::{Audit, Ledger};
use crate::report::agent_key::NameConflict;
use crate::report::desired::{DesiredReports, RenderQueue};
use crate::store::Store;
use crate::store::consul::Consul;
use crate::telemetry::counters::RunCounters;
use crate::vault::Vault;

pub use build::AgentError;
pub use event::{Event, PrepareError};

/// While a run executes, its folder is looked at so often, should a notice of the kernel be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A start that a last look or a full disk kept from happening is tried again after this.
const START_AGAIN: Duration = Duration::from_secs(1);
/// Nobody sleeps longer for an instant: the clock may be set, and the host may sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The agent.
pub struct Agent {
    settings: Settings,
    host: Name,
    who: identity::Who,
    boot: String,
    program: PathBuf,
    rule: OwnerRule,
    launcher: Launcher,
    reload_context: reload::ReloadContext,
    /// The configuration on the disk is not the one in force: one line for the operator.
    pending_config: Option<String>,
    store: Arc<dyn Store>,
    /// The same, where it is Consul.
    consul: Option<Arc<Consul>>,
    consul_service: Option<consul_service::ConsulService>,
    sources: Vec<Source>,
    /// The runs that the host's own reports named before this agent wrote any; none: they are not read yet.
    prior_reports: Option<prior_reports::PriorReports>,
    name_conflicts: watch::Receiver<Option<NameConflict>>,
    /// Reports that the store refuses: one line for the operator.
    refused_reports: watch::Receiver<Option<String>>,
    watches: Vec<watches::PrefixWatch>,
    /// Has the watches read plainly: somebody saw something else there.
    reread: Arc<Notified>,
    sync: watches::SyncStatus,
    snapshot_count: u64,
    desired: watches::Desired,
    /// When to look again at what could not be taken in at once.
    desired_retry_at: Option<Instant>,
    ledger: Result<Ledger, LedgerError>,
    audit: Result<Audit, AuditError>,
    /// The newest line of the audit that this host reported before.
    reported_audit: Head,
    ledger_full: Option<String>,
    /// Entries of the audit whose record the ledger could not take.
    audited: remember::Audited,
    disk_guard: disk_guard::DiskGuard,
    catalog: Catalog,
    checked_orders: BTreeMap<OrderKey, CheckedOrder>,
    runs: runs::Runs,
    starting: BTreeMap<RunId, Vec<Lock>>,
    copying: Arc<Mutex<()>>,
    ending: BTreeSet<RunId>,
    rebooting: bool,
    quiet_until: Option<Timestamp>,
    recurring: recurring::RecurringOrders,
    secrets: secrets::Secrets,
    rollback_window: formats::RollbackWindow,
    vault: Option<Arc<Vault>>,
    vault_keeper: Option<JoinHandle<()>>,
    unready: unready::Waiting,
    /// Something may have ended whose token for Vault is to be given back.
    give_back: Arc<Notified>,
    giving_back: Option<AbortHandle>,
    listening: telemetry::Listening,
    /// When this process started, in seconds since the epoch.
    started: f64,
    counters: RunCounters,
    shown: telemetry::PhaseCounts,
    warnings: warnings::Warnings,
    /// When the store last took what this host has to report.
    reported: watch::Sender<Option<Timestamp>>,
    /// The same, of the agent before this one, as far as its own report says it.
    told_before: Option<Timestamp>,
    leaving: forget::Leaving,
    /// How many names the store has no report of any more.
    dropped_count: usize,
    closed_since_trim: usize,
    decision: Decision,
    /// How many decisions were made without an end since one last led to nothing more.
    decisions_in_a_row: usize,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    wanted: watch::Sender<Arc<DesiredReports>>,
    texts: RenderQueue,
    notify: Notify,
    _lock: Flock<File>,
}

/// What follows from what woke the agent.
#[derive(Default)]
enum Due {
    /// A question changes nothing.
    Nothing,
    /// The writer of reports needs texts of what is shown already.
    Texts,
    /// Something may have changed.
    #[default]
    All,
}

impl Agent {
    /// The host that this agent acts for.
    pub fn host(&self) -> &Name {
        &self.host
    }

    /// Works until `shutdown` is done. Runs go on without the agent.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        // What a shell had open when the agent was started from it is no business of executors.
        step::close_on_exec();
        self.audit_start();
        self.tidy();
        self.load_runs();
        self.end_questions();
        self.sweep_secrets();
        self.keep_vault();
        self.know_tasks();
        self.listening.listen_locally(&self.settings.runtime_dir);
        self.listening.listen(self.settings.listen);
        self.keep_presence();
        let life = early::AgentLifetime::begin(&self.settings.runtime_dir);
        let watching = watches::Watching {
            store: &self.store,
            keys: &self.settings.keys,
            events: &self.events,
            reread: &self.reread,
            pause: life.pause(),
        };
        self.watches = watching.watch(&self.sources);
        self.read_prior_reports();
        let mut reload = signal(SignalKind::hangup())?;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        let watchdog = notify::watchdog_interval();
        let mut alive = watchdog.map(|every| Instant::now() + every);
        let (mut was_busy, mut stirred) = (true, true);
        let mut rests_at = None;
        let mut due = Due::All;
        loop {
            if self.desired_retry_at.is_some_and(|at| at <= Instant::now()) {
                self.apply(Event::StoreChanged);
                due = Due::All;
            }
            match std::mem::take(&mut due) {
                Due::Nothing => {}
                Due::Texts => self.publish_asked(),
                Due::All => {
                    self.decide_and_dispatch();
                    if self.look_at_formats() {
                        self.decide_and_dispatch();
                    }
                    self.watch_over_left_guards();
                    self.watch_secrets();
                    self.publish();
                    self.forget_names();
                    self.trim_sometimes();
                    self.tell_systemd();
                }
            }
            let busy = self.runs.any() || !self.starting.is_empty();
            stirred |= std::mem::replace(&mut was_busy, busy) != busy;
            if std::mem::take(&mut stirred) {
                rests_at = Some(Instant::now() + allocator::IDLE_BEFORE_TRIM);
                allocator::mark_active();
            }
            if rests_at.is_some_and(|at| at <= Instant::now()) {
                rests_at = None;
                allocator::trim();
            }
            let wake = self.decision.wake.map(|at| until(at).min(Instant::now() + LONGEST_SLEEP));
            let wakes = [
                wake,
                self.rollback_window_ends().map(until),
                rests_at,
                self.leaving.again,
                self.desired_retry_at,
            ];
            let wake = wakes.into_iter().flatten().min();
            // Each arm is cancel-safe: a queue, signals and timers lose nothing when another arm is chosen.
            tokio::select! {
                event = self.inbox.recv() => if let Some(event) = event {
                    stirred = true;
                    self.apply(event);
                    while let Ok(event) = self.inbox.try_recv() {
                        self.apply(event);
                    }
                },
                () = wake_up(wake) => {}
                () = wake_up(alive) => {
                    self.notify.alive();
                    alive = watchdog.map(|every| Instant::now() + every);
                }
                _ = look.tick(), if self.runs.any() => self.runs.look(),
                () = self.texts.asked() => due = Due::Texts,
                Ok(()) = self.name_conflicts.changed() => {}
                Ok(()) = self.refused_reports.changed() => {}
                Ok(()) = self.listening.troubles.changed() => {}
                Some(question) = self.listening.questions.recv() => {
                    self.answer(question);
                    due = Due::Nothing;
                }
                _ = reload.recv() => self.reload(),
                () = &mut shutdown => {
                    life.ends_in_order();
                    self.notify.stopping();
                    if let Some(consul_service) = self.consul_service {
                        consul_service.leave().await;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn load_runs(&mut self) {
        let Ok(ledger) = &self.ledger else { return };
        let kept = self.kept_open();
        for run in kept {
            self.runs.load(run);
        }
        let prepared: Vec<RunId> = ledger.state().prepared().map(|(_, activation)| activation.run).collect();
        for run in prepared {
            self.runs.load(run);
        }
        self.runs.load_newest();
    }
}

fn until(at: Timestamp) -> Instant {
    let left = at.duration_since(clock::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

async fn wake_up(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
