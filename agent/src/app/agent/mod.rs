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
mod downtime;
mod early;
mod event;
mod expected;
mod facts;
mod forget;
mod formats;
mod gates;
mod giveback;
pub mod identity;
mod launch;
mod pre_start_check;
mod prepare;
mod prior_reports;
mod publish;
mod record;
mod recurring;
pub mod reload;
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

use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::domain::decide::Decision;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::exec::step;
use crate::host::notify;
use crate::host::{allocator, clock};

pub use build::AgentError;
pub use event::{Event, PrepareError};

/// While a run executes, its folder is looked at so often, should a notice of the kernel be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A start that a last look or a full disk kept from happening is tried again after this.
const START_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Nobody sleeps longer for an instant: the clock may be set, and the host may sleep.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// The agent: each group of its state belongs to the file that declares it.
pub struct Agent {
    identity: identity::ThisHost,
    config: reload::Config,
    sync: watches::StoreSync,
    durable: record::Durable,
    orders: check_order::OrderBook,
    run_table: runs::RunTable,
    vault: vault::VaultSide,
    facts: facts::HostFacts,
    output: publish::Output,
    work: Work,
}

/// What the agent is about to do.
struct Work {
    /// The newest decision.
    decision: Decision,
    /// How many decisions were made without an end since one last led to nothing more.
    decisions_in_a_row: usize,
    /// Where those who work elsewhere say what has happened.
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
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
        &self.identity.host
    }

    /// Works until `shutdown` is done. Runs go on without the agent.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        // What a shell had open when the agent was started from it is no business of executors.
        step::close_on_exec();
        self.audit_start();
        self.tidy();
        self.load_runs();
        self.end_questions();
        self.end_fact_questions();
        self.sweep_secrets();
        self.keep_vault();
        self.know_tasks();
        self.output.listening.listen_locally(&self.config.settings.runtime_dir);
        self.output.listening.listen(self.config.settings.listen);
        self.keep_presence();
        let life = early::AgentLifetime::begin(&self.config.settings.runtime_dir);
        let watching = watches::Watching {
            store: &self.sync.store,
            keys: &self.config.settings.keys,
            events: &self.work.events,
            reread: &self.sync.reread,
            pause: life.pause(),
        };
        self.sync.watches = watching.watch(&self.sync.sources);
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
            if self.sync.desired_retry_at.is_some_and(|at| at <= Instant::now()) {
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
                    self.ask_facts();
                    self.audit_freezes();
                    self.publish();
                    self.forget_names();
                    self.trim_sometimes();
                    self.tell_systemd();
                }
            }
            let busy = self.run_table.runs.any() || !self.run_table.starting.is_empty();
            stirred |= std::mem::replace(&mut was_busy, busy) != busy;
            if std::mem::take(&mut stirred) {
                rests_at = Some(Instant::now() + allocator::IDLE_BEFORE_TRIM);
                allocator::mark_active();
            }
            if rests_at.is_some_and(|at| at <= Instant::now()) {
                rests_at = None;
                self.pack();
                allocator::trim();
            }
            let wake = self.work.decision.wake.map(|at| until(at).min(Instant::now() + MAX_SLEEP));
            let wakes = [
                wake,
                self.durable.rollback_window_ends().map(until),
                rests_at,
                self.output.leaving.again,
                self.sync.desired_retry_at,
                self.facts.wake(),
            ];
            let wake = wakes.into_iter().flatten().min();
            // Each arm is cancel-safe: a queue, signals and timers lose nothing when another arm is chosen.
            tokio::select! {
                event = self.work.inbox.recv() => if let Some(event) = event {
                    stirred = true;
                    self.apply(event);
                    while let Ok(event) = self.work.inbox.try_recv() {
                        self.apply(event);
                    }
                },
                () = wake_up(wake) => {}
                () = wake_up(alive) => {
                    self.output.notify.alive();
                    alive = watchdog.map(|every| Instant::now() + every);
                }
                _ = look.tick(), if self.run_table.runs.any() => self.run_table.runs.look(),
                () = self.output.texts.asked() => due = Due::Texts,
                Ok(()) = self.sync.name_conflicts.changed() => {}
                Ok(()) = self.sync.refused_reports.changed() => {}
                Ok(()) = self.output.listening.troubles.changed() => {}
                Some(question) = self.output.listening.questions.recv() => {
                    self.answer(question);
                    due = Due::Nothing;
                }
                _ = reload.recv() => self.reload(),
                () = &mut shutdown => {
                    life.ends_in_order();
                    self.output.notify.stopping();
                    if let Some(consul_service) = self.sync.consul_service {
                        consul_service.leave().await;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn load_runs(&mut self) {
        let Ok(ledger) = &self.durable.ledger else { return };
        let kept = self.durable.kept_open();
        for run in kept {
            self.run_table.runs.load(run);
        }
        let prepared: Vec<RunId> = ledger.state().prepared().map(|(_, activation)| activation.run).collect();
        for run in prepared {
            self.run_table.runs.load(run);
        }
        self.run_table.runs.load_newest();
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
