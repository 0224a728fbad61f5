//! The executor's part in guards: it arms them, keeps a watcher for each, disarms them, and fires those that a run leaves
//! behind. What is written when stands in `domain::run::guards`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::{Executor, ExecutorError, millis, not_started, silent};
use crate::app::firing::{Fired, Firing};
use crate::app::watcher_link::{OVER, WATCHES, link};
use crate::domain::plan::Plan;
use crate::domain::run::{Event, ExitKind, Operation, Phase, State, StepResult};
use crate::exec::launcher::{Epoch, Launcher};
use crate::exec::output;
use crate::exec::processes::{self, ProcessId};
use crate::exec::step::WatcherNews;
use crate::host::crash::{CrashPoint, here};
use crate::host::{clock, disk, process};
use crate::ledger::{ArmingFolder, ArmingLock, Folder, Journal};

/// A watcher says that it watches within this.
const WATCHES_WITHIN: Duration = Duration::from_secs(30);
/// So often a watcher is started anew before its step is ended in its place.
const MAX_RESTARTS: u32 = 3;
/// Between two looks at an arming that somebody else has.
const ASK_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How much of what a guard printed goes to the run's output, in bytes.
const TAIL: usize = 4096;

/// The watchers of the guards that stand.
pub(super) struct Watchers {
    standing: BTreeMap<usize, AbortHandle>,
    sender: mpsc::UnboundedSender<WatcherNews>,
    heard: mpsc::UnboundedReceiver<WatcherNews>,
}

impl Watchers {
    pub(super) fn new() -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        Self { standing: BTreeMap::new(), sender, heard }
    }

    /// What is heard of them.
    pub(super) fn news(&mut self) -> &mut mpsc::UnboundedReceiver<WatcherNews> {
        &mut self.heard
    }

    /// Lets those go whose guard does not stand any more.
    pub(super) fn keep_only(&mut self, state: &State) {
        self.standing.retain(|step, link| {
            let stands = state.armed().any(|(armed, _)| armed == *step);
            if !stands {
                link.abort();
            }
            stands
        });
    }
}

/// What starting a watcher needs.
#[derive(Clone)]
struct Start {
    plan: Plan,
    folder: Folder,
    epoch: u32,
    step: usize,
}

impl Start {
    /// Starts a watcher, another if that one ends, and returns when it watches.
    async fn watcher(&self, news: &mpsc::UnboundedSender<WatcherNews>) -> io::Result<UnixStream> {
        let mut tried = 1;
        loop {
            match self.watcher_once(news).await {
                Err(error) if tried < MAX_RESTARTS => tracing::warn!("a watcher did not start: {error}"),
                watcher => return watcher,
            }
            tried += 1;
        }
    }

    async fn watcher_once(&self, news: &mpsc::UnboundedSender<WatcherNews>) -> io::Result<UnixStream> {
        let path = link(&self.plan, self.epoch, self.step);
        let all = disk::parent(&path);
        std::fs::create_dir_all(all)?;
        for folder in [self.plan.place.runtime_dir.as_path(), all] {
            process::pass_through(folder).map_err(|error| error.source)?;
        }
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let launcher = if self.plan.place.systemd { Launcher::Systemd } else { Launcher::Detached };
        let program: PathBuf = std::env::current_exe()?;
        let folder = self.folder.path();
        let epoch = Epoch { program: &program, folder, number: self.epoch, plan: &self.plan };
        let started = launcher.watch(epoch, self.step).await;
        let started = started.map_err(io::Error::other)?;
        if let Some(id) = started {
            // It is a child of this process, and no part of any step.
            processes::list(&self.folder.path().join("left"), id)?;
            let _ = news.send(WatcherNews::Started(id));
        }
        let watches = async {
            let (mut watcher, _) = listener.accept().await?;
            match watcher.read_u8().await? {
                WATCHES => Ok(watcher),
                other => Err(io::Error::other(format!("it says {other}"))),
            }
        };
        let watches = timeout(WATCHES_WITHIN, async {
            tokio::select! {
                watches = watches => watches,
                () = ended(started) => Err(io::Error::other("it has ended")),
            }
        });
        let watches = watches.await;
        let _ = std::fs::remove_file(&path);
        watches.unwrap_or_else(|_| Err(io::Error::other("it does not say that it watches")))
    }

    /// Listens to a watcher, and starts another when it is gone.
    async fn keep(self, mut watcher: UnixStream, news: mpsc::UnboundedSender<WatcherNews>) {
        let mut again = 0;
        loop {
            if matches!(watcher.read_u8().await, Ok(OVER)) {
                break;
            }
            again += 1;
            if again > MAX_RESTARTS {
                tracing::error!("the watcher of a guard died repeatedly");
                break;
            }
            tracing::warn!("the watcher of a guard died; starting another");
            watcher = match self.watcher(&news).await {
                Ok(watcher) => watcher,
                Err(error) => {
                    tracing::error!("the guard has no watcher: {error}");
                    break;
                }
            };
        }
        let _ = news.send(WatcherNews::Over(self.step));
    }
}

/// Waits for the end of a process; of one that is not known there is none.
async fn ended(id: Option<ProcessId>) {
    let Some(id) = id else { return std::future::pending().await };
    while processes::process(id.pid).is_ok_and(|now| now.is_some_and(|now| now.id == id && !now.zombie)) {
        sleep(ASK_RETRY_INTERVAL).await;
    }
}

impl Executor<'_> {
    /// Arms the guard of a step; where nobody watches over it, the step is one that could not be started.
    pub(super) async fn arm(&mut self, step: usize, journal: &mut Journal<'_>) -> Result<(), ExecutorError> {
        ArmingFolder::of(self.folder, self.epoch, step).create().map_err(io::Error::other)?;
        let clock_ms = millis(clock::since_boot());
        journal.record(clock::now(), vec![Event::Armed { step, clock_ms }])?;
        here(CrashPoint::GuardRecorded);
        let start = Start { plan: self.plan.clone(), folder: self.folder.clone(), epoch: self.epoch, step };
        let news = self.watchers.sender.clone();
        match start.watcher(&news).await {
            Ok(watcher) => {
                let link = tokio::spawn(start.keep(watcher, news)).abort_handle();
                self.watchers.standing.insert(step, link);
                self.hear_of_watchers();
                here(CrashPoint::GuardArmed);
            }
            Err(error) => {
                let act = Operation::Step(step);
                let why = format!("its guard has no watcher: {error}");
                journal.record(clock::now(), vec![Event::Intended { act }, not_started(act, why)])?;
            }
        }
        Ok(())
    }

    /// Takes in what was heard of the watchers; the guards whose `within` was over.
    fn hear_of_watchers(&mut self) -> Vec<usize> {
        let mut over = Vec::new();
        while let Ok(news) = self.watchers.heard.try_recv() {
            match news {
                WatcherNews::Started(id) => {
                    self.mark.left.insert(id);
                }
                WatcherNews::Over(step) => over.push(step),
            }
        }
        over
    }

    /// A guard that has fired between two commands, if one has.
    pub(super) fn lapsed(&mut self, journal: &Journal<'_>) -> Option<Event> {
        let over = self.hear_of_watchers();
        let state = journal.state();
        let step = over.into_iter().find(|step| state.armed().any(|(armed, _)| armed == *step))?;
        matches!(state.phase, Phase::Next(Operation::Step(_))).then_some(Event::Lapsed { step })
    }

    /// Takes the right to fire away from the guards that a success disarms, until the success is recorded. If one of
    /// them has begun to fire, the success came too late.
    pub(super) async fn before_a_success(
        &mut self,
        event: Event,
        journal: &Journal<'_>,
    ) -> Result<(Event, Vec<ArmingLock>), ExecutorError> {
        let mut held = Vec::new();
        let Event::Finished { act: Operation::Step(ended), ending } = event else { return Ok((event, held)) };
        if ending.exit != ExitKind::Code(0) {
            return Ok((Event::Finished { act: Operation::Step(ended), ending }, held));
        }
        let until = |step: usize| self.plan.steps.get(step)?.guard.as_ref().map(|guard| guard.until);
        let over: Vec<_> = journal.state().armed().filter(|(step, _)| until(*step) == Some(ended)).collect();
        for (step, arming) in over {
            let folder = ArmingFolder::of(self.folder, arming.epoch, step);
            let lock = loop {
                if let Some(lock) = folder.try_lock().map_err(io::Error::other)? {
                    break Some(lock);
                }
                if !folder.records().map_err(io::Error::other)?.is_empty() {
                    break None;
                }
                sleep(ASK_RETRY_INTERVAL).await;
            };
            match lock.filter(|lock| !lock.has_begun()) {
                Some(lock) => held.push(lock),
                None => {
                    let ending = StepResult { exit: ExitKind::Guarded(step), ..ending };
                    return Ok((Event::Finished { act: Operation::Step(ended), ending }, Vec::new()));
                }
            }
        }
        if !held.is_empty() {
            here(CrashPoint::GuardDisarming);
        }
        Ok((Event::Finished { act: Operation::Step(ended), ending }, held))
    }

    /// Carries out the guard of a step.
    pub(super) async fn fire(&mut self, step: usize, journal: &Journal<'_>) -> Result<Event, ExecutorError> {
        let act = Operation::Guard(step);
        let guarded = self.plan.steps.get(step);
        let guard = guarded.and_then(|step| step.guard.as_ref());
        let armed = journal.state().armed().find(|(armed, _)| *armed == step);
        let (Some(guard), Some((_, arming))) = (guard, armed) else {
            return Ok(not_started(act, "the plan has no such guard".to_owned()));
        };
        let why = if arming.epoch == self.epoch { "the run leaves its step" } else { "its executor is gone" };
        let firing = Firing {
            plan: self.plan,
            folder: self.folder,
            step,
            guard,
            arming: ArmingFolder::of(self.folder, arming.epoch, step),
            epoch: self.epoch,
            why,
        };
        let begun = clock::since_boot();
        firing.arming.create().map_err(io::Error::other)?;
        let Some(mut lock) = firing.lock(&self.interrupts).await.map_err(io::Error::other)? else {
            return Ok(Event::Interrupted { act, spent_ms: 0 });
        };
        let fired = firing.fire(&mut lock, &mut self.mark, &mut self.interrupts, &mut || {}).await;
        let fired = fired.map_err(io::Error::other)?;
        let spent_ms = millis(clock::since_boot().saturating_sub(begun));
        let heading = format!("==> {}\n{}", self.heading(act), output::tail(firing.arming.path(), TAIL));
        // A full disk costs the output, not the guard.
        let _ = self.output.write(heading.as_bytes());
        let _ = self.output.flush();
        if self.plan.place.systemd && !self.mark.left.is_empty() {
            let let_go = Launcher::Systemd.let_go(&self.mark, step).await;
            let_go.unwrap_or_else(|error| {
                tracing::error!("cannot move processes that may outlive the run: {error}")
            });
        }
        Ok(match fired {
            Fired::Stopped => Event::Interrupted { act, spent_ms },
            Fired::Succeeded(n) => {
                let (name, why) = (firing.title(), lock.reason().unwrap_or(why));
                let warning = match n {
                    1 => format!("{name} has fired: {why}"),
                    n => format!("{name} has fired with attempt {n}: {why}"),
                };
                let ending = StepResult { spent_ms, warnings: vec![warning], ..silent(ExitKind::Code(0)) };
                Event::Finished { act, ending }
            }
            Fired::GivenUp(how) => {
                let ending = StepResult { spent_ms, message: Some(how), ..silent(ExitKind::Code(1)) };
                Event::Finished { act, ending }
            }
        })
    }
}
