//! What the agent sees of the runs' folders: of those that an executor may have, and of the newest for the reports.

use crate::domain::plan::Lock;
use crate::exec::launcher::Launcher;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use super::run_watcher::RunWatcher;
use crate::domain::decide::{ExecutorState, Leftovers, RunView, UnreadablePlan};
use crate::domain::ids::RunId;
use crate::domain::plan::Plan;
use crate::domain::run::{Outcome, Phase};
use crate::domain::state::RunRequest;
use crate::exec::output;
use crate::ledger::{ArmingFolder, ClaimState, Folder, FolderError, NotReady, trim};
use crate::report::compose;
use crate::report::document::{RunReport, TAIL};
use crate::report::writer::NEWEST_RUNS;

/// The host's runs, and what is under way to begin or to end them.
pub(super) struct RunTable {
    pub(super) runs: Runs,
    /// Runs that are being started, with what they lock.
    pub(super) starting: BTreeMap<RunId, Vec<Lock>>,
    /// Runs whose leftovers are being ended.
    pub(super) ending: BTreeSet<RunId>,
    /// Held while a task is copied.
    pub(super) copying: Arc<Mutex<()>>,
    pub(super) launcher: Launcher,
    pub(super) rebooting: bool,
    pub(super) closed_since_trim: usize,
}

/// The end of the output of a run that executes is read, and so reported, at most so often.
const TAIL_INTERVAL: Duration = Duration::from_secs(2);

/// A guard for which no watcher is seen to act is given another after this.
const WATCHED_RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// A guard whose executor is gone.
pub(super) struct LeftGuard {
    pub(super) plan: Arc<Plan>,
    pub(super) folder: Folder,
    pub(super) epoch: u32,
    pub(super) step: usize,
}

/// The runs of this host.
pub(super) struct Runs {
    dir: PathBuf,
    views: BTreeMap<RunId, RunView>,
    /// Those whose plan cannot be read.
    unread: BTreeMap<RunId, UnreadablePlan>,
    /// The epoch that this agent launched last.
    epochs: BTreeMap<RunId, u32>,
    /// Runs that are over and keep their place.
    kept: BTreeSet<RunId>,
    /// What keeps a run's folder from being read, as it was said last.
    trouble: BTreeMap<RunId, String>,
    reports: BTreeMap<RunId, RunReport>,
    /// When the end of the output of a run was read last.
    tails: BTreeMap<RunId, Instant>,
    /// When a watcher was started for a guard that an executor left: run, epoch, step.
    watched: BTreeMap<(RunId, u32, usize), Instant>,
    notice: Option<RunWatcher>,
}

impl Runs {
    /// Looks at nothing yet.
    pub(super) fn open(dir: &Path, events: mpsc::Sender<Event>) -> Self {
        let notice = RunWatcher::open(events)
            .inspect_err(|error| tracing::warn!("inotify unavailable, polling runs once a second: {error}"))
            .ok();
        let (views, epochs, kept) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (unread, reports, trouble) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (tails, watched) = (BTreeMap::new(), BTreeMap::new());
        Self { dir: dir.to_owned(), views, unread, epochs, kept, trouble, reports, tails, watched, notice }
    }

    /// The runs that an executor may have, and those that keep their place.
    pub(super) fn views(&self) -> &BTreeMap<RunId, RunView> {
        &self.views
    }

    /// Those whose plan cannot be read: nothing is done with them.
    pub(super) fn unread(&self) -> &BTreeMap<RunId, UnreadablePlan> {
        &self.unread
    }

    /// Why nothing may be started beside a run of a newer program: what it does and locks is not known.
    pub(super) fn newer(&self) -> Option<&str> {
        self.unread.values().find(|unread| unread.newer).map(|unread| unread.why.as_str())
    }

    /// The guards that stand although no executor of their run lives, and that nobody is known to have fired: each once,
    /// and again after a while.
    pub(super) fn left_guards(&mut self) -> Vec<LeftGuard> {
        let lost = self.views.iter().filter(|(_, view)| view.executor != ExecutorState::Alive);
        let mut left = Vec::new();
        let mut standing = BTreeSet::new();
        for (run, view) in lost {
            let Ok(state) = &view.state else { continue };
            for (step, arming) in state.armed() {
                let folder = Folder::new(&self.dir, *run);
                let key = (*run, arming.epoch, step);
                standing.insert(key);
                let lately = self.watched.get(&key).is_some_and(|at| at.elapsed() < WATCHED_RETRY_INTERVAL);
                if !lately && !ArmingFolder::of(&folder, arming.epoch, step).has_fired() {
                    left.push(LeftGuard { plan: Arc::clone(&view.plan), folder, epoch: arming.epoch, step });
                }
            }
        }
        self.watched.retain(|key, _| standing.contains(key));
        let now = Instant::now();
        self.watched.extend(left.iter().map(|guard| ((guard.plan.run, guard.epoch, guard.step), now)));
        left
    }

    /// What is said of the guards that could not end what a step left, of runs that keep their place.
    pub(super) fn failed_guards(&self) -> impl Iterator<Item = String> {
        let kept = self.kept.iter().filter_map(|run| Some((run, self.views.get(run)?)));
        kept.filter_map(|(run, view)| {
            let state = view.state.as_ref().ok().filter(|state| state.has_failed_guard())?;
            let failure = state.outcome().and_then(Outcome::unsettled)?;
            Some(format!("{}; run {run} of order {} keeps its locks", failure.text, view.plan.order))
        })
    }

    /// Whether there is any run that may change.
    pub(super) fn any(&self) -> bool {
        self.views.keys().any(|run| !self.kept.contains(run))
    }

    /// How many may change.
    pub(super) fn count(&self) -> usize {
        self.views.keys().filter(|run| !self.kept.contains(run)).count()
    }

    /// The reports of the newest runs.
    pub(super) fn reports(&self) -> BTreeMap<RunId, RunReport> {
        self.reports.iter().rev().take(NEWEST_RUNS).map(|(run, report)| (*run, report.clone())).collect()
    }

    /// The plan of a run.
    pub(super) fn plan(&self, run: RunId) -> Option<Arc<Plan>> {
        self.views.get(&run).map(|view| Arc::clone(&view.plan))
    }

    /// Takes a run in that was just made.
    pub(super) fn add(&mut self, run: RunId, plan: Arc<Plan>) {
        let view = RunView {
            state: Ok(crate::domain::run::State::new(plan.steps.len())),
            plan,
            executor: ExecutorState::Unclaimed { epoch: 1 },
            launched: None,
            unready: false,
            launches: 0,
            leftovers: None,
            delivered: None,
            progress: (None, None),
            tail: None,
        };
        self.views.insert(run, view);
        self.look_at(run);
    }

    /// Takes a run in whose folder an earlier agent made.
    pub(super) fn load(&mut self, run: RunId) {
        match Folder::new(&self.dir, run).plan() {
            Ok(plan) => self.add(run, Arc::new(plan)),
            Err(error) => {
                tracing::error!("{error}");
                let newer = matches!(error, FolderError::Newer { .. });
                self.unread.insert(run, UnreadablePlan { newer, why: error.to_string() });
            }
        }
    }

    /// Reads the newest folders for the reports.
    pub(super) fn load_newest(&mut self) {
        let newest = trim::folders(&self.dir).unwrap_or_default();
        for run in newest.into_iter().rev().take(NEWEST_RUNS) {
            let folder = Folder::new(&self.dir, run);
            let Ok(plan) = folder.plan() else { continue };
            let Ok(state) = folder.state(&plan) else { continue };
            if state.epoch > 0 {
                let tail = output::tail(folder.path(), TAIL);
                let alive = self.views.get(&run).is_some_and(|view| view.executor == ExecutorState::Alive);
                let (by, reason) = folder.ordered_by();
                let report = compose::run(&plan, &state, alive, Some(&tail));
                self.reports.insert(run, RunReport { by, reason, ..report });
            }
        }
    }

    /// An epoch is about to be launched.
    pub(super) fn launching(&mut self, run: RunId, epoch: u32) {
        let again = self.epochs.insert(run, epoch) == Some(epoch);
        if let Some(view) = self.views.get_mut(&run) {
            view.launches = if again { view.launches.saturating_add(1) } else { 1 };
            view.leftovers = None;
            view.unready = false;
            view.executor = ExecutorState::Unclaimed { epoch };
            Folder::new(&self.dir, run).forget_unready(epoch);
        }
    }

    /// The launch was made, or failed; either way the next one is due as long after this one.
    pub(super) fn launched(&mut self, run: RunId, at: Timestamp) {
        if let Some(view) = self.views.get_mut(&run) {
            view.launched = Some(at);
        }
        self.look_at(run);
    }

    /// The attempt to begin an epoch is over without a claim: the run stands as before it.
    pub(super) fn not_ready(&mut self, run: RunId) {
        let Some(view) = self.views.get_mut(&run) else { return };
        view.launched = None;
        view.unready = true;
        // One that has begun nothing is taken back; what was begun earlier goes on from its newest claim.
        if !matches!(&view.state, Ok(state) if state.phase == Phase::New) {
            view.unready = false;
            self.epochs.remove(&run);
            self.look_at(run);
        }
    }

    /// The executors that have left without a claim since they were asked for, and what each said.
    pub(super) fn left(&self) -> Vec<(RunId, NotReady)> {
        let waiting = self.views.iter().filter(|(_, view)| !view.unready && view.launched.is_some());
        let left = waiting.filter_map(|(run, view)| {
            let ExecutorState::Unclaimed { epoch } = view.executor else { return None };
            Some((*run, Folder::new(&self.dir, *run).unready(epoch)?))
        });
        left.collect()
    }

    /// The run's folder holds the request: its executor finds it there.
    pub(super) fn delivered(&mut self, run: RunId, request: RunRequest) {
        if let Some(view) = self.views.get_mut(&run) {
            view.delivered = Some(request);
            // A run that is to be undone is looked at again.
            self.kept.remove(&run);
        }
    }

    /// A dead executor's processes were ended, but for so many; or that cannot be told.
    pub(super) fn leftovers(&mut self, run: RunId, found: Result<usize, String>) {
        if let Some(view) = self.views.get_mut(&run) {
            view.leftovers = Some(match found {
                Ok(count) => Leftovers::Counted(count),
                Err(why) => {
                    let before = match &view.leftovers {
                        Some(Leftovers::Unknown { times, .. }) => *times,
                        _ => 0,
                    };
                    Leftovers::Unknown { why, at: crate::host::clock::now(), times: before + 1 }
                }
            });
        }
    }

    /// A run is over; it is looked at no more, unless it keeps its place.
    pub(super) fn close(&mut self, run: RunId, kept: &BTreeSet<RunId>) {
        self.look_at(run);
        self.epochs.remove(&run);
        self.trouble.remove(&run);
        self.tails.remove(&run);
        if let Some(notice) = &mut self.notice {
            notice.leave(run, Folder::new(&self.dir, run).path());
        }
        if kept.contains(&run) {
            self.kept.insert(run);
        } else {
            self.views.remove(&run);
        }
        let settled: Vec<RunId> = self.kept.iter().filter(|run| !kept.contains(run)).copied().collect();
        for run in settled {
            self.kept.remove(&run);
            self.views.remove(&run);
        }
        while self.reports.len() > NEWEST_RUNS {
            self.reports.pop_first();
        }
    }

    /// Looks at all runs.
    pub(super) fn look(&mut self) {
        let runs: Vec<RunId> = self.views.keys().filter(|run| !self.kept.contains(run)).copied().collect();
        runs.into_iter().for_each(|run| self.look_at(run));
    }

    /// Looks at the run whose folder has changed.
    pub(super) fn noticed(&mut self, run: RunId) {
        if let Some(notice) = &self.notice {
            notice.looked_at(run);
        }
        self.look_at(run);
    }

    /// Looks at one run.
    pub(super) fn look_at(&mut self, run: RunId) {
        let Some(view) = self.views.get_mut(&run) else { return };
        let folder = Folder::new(&self.dir, run);
        if let Some(notice) = &mut self.notice {
            notice.watch(run, folder.path());
        }
        let launched = self.epochs.get(&run).copied().unwrap_or(0);
        // First who lives, then what is written: a result that came between is not taken for a loss.
        match life(&folder, launched) {
            Ok(life) => {
                if view.executor != life {
                    view.leftovers = None;
                }
                view.executor = life;
                self.trouble.remove(&run);
            }
            Err(error) => {
                // Once, and not with each look, as long as it is the same.
                let error = error.to_string();
                if self.trouble.get(&run) != Some(&error) {
                    tracing::error!(run = %run, order = %view.plan.order, "{error}");
                    self.trouble.insert(run, error);
                }
            }
        }
        view.state = folder.state(&view.plan).map_err(|error| error.to_string());
        let progress = folder.progress();
        view.progress = (progress.progress, progress.message);
        if let Ok(state) = &view.state {
            let due = self.tails.get(&run).is_none_or(|at| at.elapsed() >= TAIL_INTERVAL);
            if state.outcome().is_some() || (state.epoch > 0 && due) {
                view.tail = Some(output::tail(folder.path(), TAIL)).filter(|tail| !tail.is_empty());
                self.tails.insert(run, Instant::now());
            }
            if state.epoch > 0 {
                let alive = view.executor == ExecutorState::Alive;
                // The order in the folder never changes: it is read once.
                let (by, reason) = match self.reports.remove(&run) {
                    Some(report) => (report.by, report.reason),
                    None => folder.ordered_by(),
                };
                let report = compose::run(&view.plan, state, alive, view.tail.as_deref());
                self.reports.insert(run, RunReport { by, reason, ..report });
            }
        }
    }
}

fn life(folder: &Folder, launched: u32) -> Result<ExecutorState, FolderError> {
    let (epoch, claim) = folder.newest_claim()?;
    Ok(match claim {
        ClaimState::Held => ExecutorState::Alive,
        ClaimState::None => ExecutorState::Unclaimed { epoch: launched.max(1) },
        ClaimState::Dead if launched > epoch => ExecutorState::Unclaimed { epoch: launched },
        ClaimState::Dead => ExecutorState::Lost { epoch },
    })
}
