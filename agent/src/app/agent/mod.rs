//! The agent: receives what happens, applies it, decides, dispatches what was decided, and shows the result.
//!
//! ```text
//!  watches ──┐                                          ┌─> ledger (before anything else)
//!  folders ──┼─> receive -> apply -> decide -> dispatch ┼─> work.rs: look, make, launch, end survivors
//!  work.rs ──┘                                  |       └─> a moment later: an Event again
//!                                               └─> publish -> report writer
//! ```
//!
//! One task owns all state; whatever takes time is done elsewhere and comes back as an [`Event`]. Nothing here
//! decides: that is `domain::decide`.

mod examine;
mod formats;
pub mod identity;
mod launch;
mod look;
mod notice;
mod past;
mod presence;
mod publish;
pub mod reload;
mod remember;
mod runs;
mod secrets;
mod sights;
mod space;
mod standing;
mod status;
mod telemetry;
mod tidy;
mod vault;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inotify::WatchDescriptor;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::config::{ConfigError, Settings};
use crate::domain::decide::{Action, Decision, Examined, View, decide};
use crate::domain::ids::RunId;
use crate::domain::memory::{Fact, Stage};
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::{Lock, Place, Plan};
use crate::domain::reconcile::Answer;
use crate::domain::source::{OrderKey, Source};
use crate::domain::watched::Version;
use crate::exec::launcher::Launcher;
use crate::host::crash::{CrashPoint, here};
use crate::host::disk::{At, DiskError};
use crate::host::notify::{self, Notify};
use crate::host::{clock, disk, facts, heap};
use crate::ledger::audit::AuditError;
use crate::ledger::identity::IdentityError;
use crate::ledger::orders::LedgerError;
use crate::ledger::{Audit, Folder, Ledger};
use crate::report::own::Rival;
use crate::report::wanted::{Texts, Wanted};
use crate::store::Store;
use crate::store::consul::Consul;
use crate::telemetry::tally::Tally;
use crate::vault::{Vault, VaultError};

use super::open::Opened;

/// While a run executes, its folder is looked at so often, should a notice of the kernel be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A start that a last look or a full disk kept from happening is tried again after this.
const START_AGAIN: Duration = Duration::from_secs(1);
/// What the ledger could not take is decided again after this.
const LEDGER_AGAIN: Duration = Duration::from_secs(10);
/// One decision can lead to the next, but never so often without anything happening between.
const MOST_DECISIONS: usize = 64;
/// An agent that was killed is gone within this, and its lock with it.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Nobody sleeps longer for an instant: the clock may be set, and the host may sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
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
    /// Something of the system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A prefix shows something else.
    Sight,
    /// What the host itself reported before.
    Past(past::Past),
    /// A run's folder has changed.
    Folder(WatchDescriptor),
    /// A run's folder is made, and the order is as it was: the run may start.
    Made {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// The plan; or why there is none.
        result: Result<Arc<Plan>, NotMade>,
    },
    /// The last look at the order of a run without effect found it changed.
    Changed {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// Its epoch that nobody may have any more.
        epoch: u32,
    },
    /// An executor was launched.
    Launched {
        /// Whose.
        run: RunId,
        /// Whether it was.
        launched: bool,
    },
    /// An executor was not launched, because it could not be given what it needs; it may be tried again.
    Unlaunched(RunId),
    /// The agent stands with Vault otherwise than before.
    Vault,
    /// What was kept from happening may be tried again.
    Again(RunId),
    /// A dead executor's processes were ended, but for so many.
    Survivors {
        /// Whose.
        run: RunId,
        /// How many live on.
        count: usize,
    },
    /// Vault told of a secret that an order watches.
    Version {
        /// In which round it was asked.
        round: u64,
        /// Which secret.
        path: String,
        /// Its version, or why there is none.
        told: Result<Version, String>,
    },
    /// A probe was asked whether an order's state holds.
    Answered {
        /// Of this order.
        key: OrderKey,
        /// Under this index.
        index: u64,
        /// When it was asked.
        at: Timestamp,
        /// What it said.
        answer: Answer,
    },
}

/// Why a run was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// Its order is refused: one line for the operator.
    #[error("{0}")]
    Refused(String),
    /// Not now: the store, the order or the disk.
    #[error("{0}")]
    NotNow(String),
    /// The order has to be held against its task once more.
    #[error("{0}")]
    Unexamined(String),
}

/// The agent.
pub struct Agent {
    settings: Settings,
    host: Name,
    who: identity::Who,
    boot: String,
    program: PathBuf,
    rule: OwnerRule,
    launcher: Launcher,
    anew: reload::Anew,
    /// The configuration on the disk is not the one in force: one line for the operator.
    unsettled: Option<String>,
    store: Arc<dyn Store>,
    /// The same, where it is Consul.
    consul: Option<Arc<Consul>>,
    presence: Option<presence::Presence>,
    sources: Vec<Source>,
    /// The runs that the host's own reports named before this agent wrote any; none: they are not read yet.
    past: Option<past::Past>,
    rivals: watch::Receiver<Option<Rival>>,
    sights: Vec<sights::Sight>,
    sighted: sights::Sighted,
    sightings: u64,
    seeing: sights::Seeing,
    ledger: Result<Ledger, LedgerError>,
    audit: Result<Audit, AuditError>,
    ledger_full: Option<String>,
    space: space::Space,
    catalog: Catalog,
    examined: BTreeMap<OrderKey, Examined>,
    runs: runs::Runs,
    starting: BTreeMap<RunId, Vec<Lock>>,
    copying: Arc<Mutex<()>>,
    ending: BTreeSet<RunId>,
    rebooting: bool,
    calm_until: Option<Timestamp>,
    standings: standing::Standings,
    secrets: secrets::Secrets,
    probation: formats::Probation,
    vault: Option<Arc<Vault>>,
    vault_keeper: Option<JoinHandle<()>>,
    listening: telemetry::Listening,
    /// When this process started, in seconds since the epoch.
    started: f64,
    tally: Tally,
    shown: telemetry::Shown,
    /// When the store last took what this host has to report.
    reported: watch::Sender<Option<Timestamp>>,
    closed_since_trim: usize,
    decision: Decision,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    wanted: watch::Sender<Arc<Wanted>>,
    texts: Texts,
    notify: Notify,
    _lock: Flock<File>,
}

impl Agent {
    /// Puts an agent together: reads the ledger and the tasks, but starts nothing and asks no store yet.
    pub fn build(
        settings: Settings,
        opened: Opened,
        who: identity::Who,
        mut notify: Notify,
        anew: reload::Anew,
    ) -> Result<Self, AgentError> {
        let Opened { store, consul } = opened;
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
            tracing::error!("safe mode, nothing is started: {error}");
        }
        let own_format = ledger.as_ref().is_ok_and(Ledger::is_newest);
        let probation = formats::Probation::of(&settings.state_dir, own_format);
        let audit = Audit::open(&settings.state_dir);
        if let Err(error) = &audit {
            tracing::error!("nothing is started, since the audit cannot be kept: {error}");
        }
        let standings =
            ledger.as_ref().map(|ledger| standing::Standings::of(ledger.memory())).unwrap_or_default();
        let mut sources = vec![Source::Host(host.clone())];
        sources.extend(settings.groups.iter().cloned().map(Source::Group));
        let rule = OwnerRule::of_process();
        let catalog = Catalog::load(&settings.task_dirs, rule);
        let runs = runs::Runs::open(&runs_dir, events.clone());
        let launcher = super::open::launcher(settings.launcher);
        let (wanted, _) = watch::channel(Arc::new(Wanted::default()));
        let vault = vault::open(&settings)?;
        let since_boot = clock::since_boot().as_secs_f64() - facts::process().started;
        let presence = consul
            .clone()
            .map(|consul| presence::Presence::of(consul, &settings.keys, &host, &settings.groups));
        Ok(Self {
            anew,
            unsettled: None,
            consul,
            presence,
            vault_keeper: None,
            listening: telemetry::Listening::new(),
            started: clock::now().as_duration().as_secs_f64() - since_boot,
            tally: Tally::default(),
            shown: telemetry::Shown::default(),
            reported: watch::channel(None).0,
            host,
            who,
            past: None,
            rivals: watch::channel(None).1,
            boot: facts::boot_id(),
            program: std::env::current_exe()?,
            rule,
            launcher,
            store,
            sources,
            sights: Vec::new(),
            sighted: sights::Sighted::default(),
            sightings: 0,
            seeing: sights::Seeing::default(),
            ledger,
            audit,
            ledger_full: None,
            space: space::Space::of(&settings.state_dir),
            catalog,
            examined: BTreeMap::new(),
            runs,
            starting: BTreeMap::new(),
            copying: Arc::default(),
            ending: BTreeSet::new(),
            rebooting: false,
            calm_until: None,
            standings,
            secrets: secrets::Secrets::default(),
            probation,
            vault,
            closed_since_trim: 0,
            decision: Decision::default(),
            events,
            inbox,
            wanted,
            texts: Texts::default(),
            notify,
            settings,
            _lock: lock,
        })
    }

    /// The host that this agent acts for.
    pub fn host(&self) -> &Name {
        &self.host
    }

    /// Works until `shutdown` is done. Runs go on without the agent.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        self.audit_start();
        self.tidy();
        self.load_runs();
        self.end_questions();
        self.sweep_secrets();
        self.keep_vault();
        self.know_tasks();
        self.listening.listen(self.settings.listen);
        self.keep_presence();
        self.sights =
            sights::watch(&self.store, &self.settings.keys, &self.host, &self.sources, &self.events);
        self.read_past();
        let mut reload = signal(SignalKind::hangup())?;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        let watchdog = notify::watchdog_interval();
        let mut alive = watchdog.map(|every| Instant::now() + every);
        let mut was_busy = true;
        let mut rests_at = None;
        let mut only_asked = false;
        loop {
            // A question changes nothing, so nothing follows from it.
            if !std::mem::take(&mut only_asked) {
                self.decide_and_dispatch();
                if self.look_at_formats() {
                    self.decide_and_dispatch();
                }
                self.watch_secrets();
                self.publish();
                self.trim_sometimes();
                self.tell_systemd();
            }
            let busy = self.runs.any() || !self.starting.is_empty();
            if std::mem::replace(&mut was_busy, busy) != busy {
                rests_at = (!busy).then(|| Instant::now() + heap::REST);
            }
            if rests_at.is_some_and(|at| at <= Instant::now()) {
                rests_at = None;
                heap::give_back();
            }
            let wake = self.decision.wake.map(|at| until(at).min(Instant::now() + LONGEST_SLEEP));
            let wake = [wake, self.probation_ends().map(until), rests_at].into_iter().flatten().min();
            // Each arm is cancel-safe: a queue, signals and timers lose nothing when another arm is chosen.
            tokio::select! {
                event = self.inbox.recv() => if let Some(event) = event {
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
                () = self.texts.asked() => {}
                Ok(()) = self.rivals.changed() => {}
                Ok(()) = self.listening.troubles.changed() => {}
                Some(question) = self.listening.questions.recv() => {
                    self.answer(question);
                    only_asked = true;
                }
                _ = reload.recv() => self.reload(),
                () = &mut shutdown => {
                    self.notify.stopping();
                    if let Some(presence) = self.presence {
                        presence.leave().await;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Sight => {
                let sighted = sights::Sighted::of(&self.sights);
                self.sightings += u64::from(sighted.visible && !self.sighted.visible);
                self.sighted = sighted;
                if sights::take(&self.sights, &mut self.seeing) {
                    here(CrashPoint::OrderSeen);
                    self.examined.retain(|key, seen| {
                        self.seeing.orders.get(key).is_some_and(|order| order.index == seen.index)
                    });
                    self.forget_answers();
                }
            }
            Event::Past(past) => self.begin_reports(past),
            Event::Folder(watch) => self.runs.noticed(&watch),
            Event::Made { key, run, result } => self.made(&key, run, result),
            Event::Changed { key, run, epoch } => {
                self.starting.remove(&run);
                self.void(&key, run, epoch);
            }
            Event::Launched { run, launched } => {
                self.starting.remove(&run);
                here(CrashPoint::Launched);
                self.runs.launched(run, launched.then(clock::now));
            }
            Event::Again(run) => {
                self.starting.remove(&run);
            }
            Event::Unlaunched(run) => {
                self.starting.remove(&run);
                self.runs.unlaunched(run);
            }
            Event::Vault => {}
            Event::Version { round, path, told } => self.told(round, path, told),
            Event::Survivors { run, count } => {
                self.ending.remove(&run);
                self.runs.survivors(run, count);
            }
            Event::Answered { key, index, at, answer } => self.answered(key, index, at, answer),
        }
    }

    /// Decides and does what was decided, until nothing more is to be remembered.
    fn decide_and_dispatch(&mut self) {
        self.look_at_space();
        for _ in 0..MOST_DECISIONS {
            let Ok(ledger) = &self.ledger else { return };
            let now = clock::now();
            let barred = self.barred(now);
            let unread = BTreeMap::new();
            let no_vault = self.no_vault();
            // On a host that is not who it was, nothing follows from what is or is not there.
            let judges = self.past.is_some() && self.sighted.visible && self.who.differs.is_none();
            let view = View {
                now,
                boot: &self.boot,
                host: &self.host,
                sources: &self.sources,
                orders: judges.then_some(&self.seeing.orders),
                past: self.past.as_ref().unwrap_or(&unread),
                barred: barred.as_deref(),
                full: self.space.full.as_deref(),
                controls: &self.seeing.controls,
                freezes: &self.seeing.freezes,
                indexes: &self.sighted.indexes,
                memory: ledger.memory(),
                examined: &self.examined,
                runs: self.runs.views(),
                unread: self.runs.unread(),
                former: self.former(),
                starting: &self.starting,
                parallel: self.settings.runs.parallel,
                calm_until: self.calm_until,
                clock: self.clock(),
                unreachable: self.sighted.away,
                vault: no_vault.as_deref(),
                confirmed: &self.standings.copies,
                answers: &self.standings.answers,
                versions: &self.secrets.versions,
            };
            let mut decision = decide(&view, &mut clock::new_run);
            decision.wake =
                decision.wake.into_iter().chain(self.barred_until(now)).chain(self.space.wake(now)).min();
            let actions = std::mem::take(&mut decision.actions);
            let again = self.dispatch(actions, &mut decision);
            self.decision = decision;
            if !again {
                return;
            }
        }
        tracing::error!("decisions lead in a circle; going on at the next event");
    }

    /// Does what was decided; true if that changes what is to be decided.
    fn dispatch(&mut self, actions: Vec<Action>, decision: &mut Decision) -> bool {
        let mut facts = Vec::new();
        let mut again = false;
        for action in actions {
            match action {
                Action::Remember(fact) => facts.push(fact),
                Action::Examine(key) => again |= self.examine(&key),
                Action::Start { key, run, locks } => self.start(&key, run, locks),
                Action::Launch { key, run, epoch, look } => self.launch(&key, run, epoch, look),
                Action::Tell { run, asked } => again |= self.tell(run, asked),
                Action::EndSurvivors { run } => self.end_survivors(run),
                Action::Reboot { run } => self.reboot(run),
                Action::Ask(key) => self.ask(&key),
                Action::Confirm(key) => facts.extend(self.confirmation(&key)),
            }
        }
        if facts.is_empty() {
            return again;
        }
        match self.remember(facts) {
            true => true,
            false => {
                let later = clock::now() + LEDGER_AGAIN;
                decision.wake = Some(decision.wake.map_or(later, |wake| wake.min(later)));
                false
            }
        }
    }

    fn place(&self, task_dir: PathBuf) -> Place {
        let systemd = self.launcher == Launcher::Systemd;
        Place { task_dir, runtime_dir: self.settings.runtime_dir.clone(), systemd }
    }

    fn start(&mut self, key: &OrderKey, run: RunId, locks: Vec<Lock>) {
        self.make_room_to_start(key);
        let Some(seen) = self.known(key) else { return };
        let Ok(Document::Order(order)) = &seen.document else { return };
        let Ok(loaded) = self.catalog.get(order.task.as_str()) else { return };
        let Some(Ok(needs)) = self.examined.get(key).map(|examined| &examined.finding) else { return };
        let Ok(ledger) = &self.ledger else { return };
        let remembered = ledger.memory().orders.get(key);
        let Some(occasion) = remembered.and_then(|order| order.current.as_ref()) else { return };
        // The last look is tried in any case; the copy counts only if the store gives no answer at all.
        let away = self.sighted.away && loaded.task.offline;
        let copy = remembered.and_then(|order| order.standing.confirmed.as_ref()).filter(|_| away);
        let job = work::Making {
            host: self.host.clone(),
            key: key.clone(),
            last: self.last_look(key, seen.index, &order.task),
            run,
            cause: occasion.cause.clone(),
            copy: copy.map(|copy| copy.document.clone()),
            task_folder: loaded.folder.clone(),
            state_dir: self.settings.state_dir.clone(),
            place: self.place(PathBuf::new()),
            rule: self.rule,
            version: needs.plan,
            copying: Arc::clone(&self.copying),
        };
        self.starting.insert(run, locks);
        self.send(async move {
            let result = job.make().await;
            Event::Made { key: job.key, run, result }
        });
    }

    fn made(&mut self, key: &OrderKey, run: RunId, result: Result<Arc<Plan>, NotMade>) {
        let still_open = self.ledger.as_ref().ok().and_then(|ledger| {
            let occasion = ledger.memory().orders.get(key)?.current.as_ref()?;
            (occasion.run == run && occasion.stage == Stage::Open).then_some(())
        });
        match result {
            Ok(plan) if still_open.is_some() => {
                here(CrashPoint::FolderMade);
                if self.remember(vec![Fact::Prepared { key: key.clone(), run }]) {
                    here(CrashPoint::Prepared);
                    tracing::info!(order = %key, run = %run, task = %plan.task, "starting");
                    self.runs.add(run, Arc::clone(&plan));
                    self.send_launch(plan, 1);
                } else {
                    self.again_later(run);
                }
            }
            Ok(_) => {
                self.starting.remove(&run);
                // A newer order came first; nobody knows of the folder.
                if let Err(error) = Folder::new(&self.settings.state_dir.join("runs"), run).remove() {
                    tracing::warn!(order = %key, run = %run, "{error}");
                }
            }
            Err(NotMade::Refused(why)) => {
                self.starting.remove(&run);
                if let Some(index) = self.known(key).map(|seen| seen.index) {
                    self.examined.insert(key.clone(), Examined { index, finding: Err(why) });
                }
            }
            Err(NotMade::Unexamined(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.starting.remove(&run);
                self.examined.remove(key);
            }
            Err(NotMade::NotNow(why)) => {
                tracing::info!(order = %key, run = %run, "not started yet: {why}");
                self.again_later(run);
            }
        }
    }

    fn again_later(&self, run: RunId) {
        self.send(async move {
            sleep(START_AGAIN).await;
            Event::Again(run)
        });
    }

    /// Does something elsewhere, and takes its end as an event.
    fn send(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let event = work.await;
            // A closed queue means that the agent is stopping.
            let _ = events.send(event).await;
        });
    }

    fn load_runs(&mut self) {
        let Ok(ledger) = &self.ledger else { return };
        let kept = self.kept_open();
        for run in kept {
            self.runs.load(run);
        }
        let prepared: Vec<RunId> = ledger.memory().prepared().map(|(_, occasion)| occasion.run).collect();
        for run in prepared {
            self.runs.load(run);
        }
        self.runs.load_newest();
    }
}

/// Only one agent works on a state folder. One that was just killed may still be about to be gone.
fn only_one(settings: &Settings) -> Result<Flock<File>, AgentError> {
    let path = settings.state_dir.join("lock");
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let file = File::create(&path).at("create", &path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= until => return Err(AgentError::Running(settings.state_dir.clone())),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
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
