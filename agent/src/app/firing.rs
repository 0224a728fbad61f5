//! Carries out a guard: once for each arming, under its lock, again and again until its command has succeeded.
//!
//! The executor and the watcher use the same code; which of them comes first does it. The command gets no secrets: it
//! has to work when nothing else does.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::place::Place;
use crate::domain::plan::{Guard, Plan};
use crate::domain::run::ExitKind;
use crate::domain::span::Span;
use crate::exec::output::Output;
use crate::exec::processes::{self, ProcessSelector};
use crate::exec::step::{self, CommandSpec, Interrupt, StepError, StepEvent, Surroundings};
use crate::exec::user::User;
use crate::host::clock;
use crate::host::crash::{CrashPoint, here};
use crate::host::log::LogError;
use crate::ledger::folder::Progress;
use crate::ledger::{ArmingFolder, ArmingLock, FiringEvent, Folder};

/// How long a guard is tried that does not succeed.
const TRIED_FOR: Duration = Duration::from_secs(3600);
/// The pause after the first attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// What the command gets between TERM and KILL when its time is up.
const GRACE: Duration = Duration::from_secs(1);
/// How often a lock that somebody has is asked for.
const ASK_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// A guard that is to be carried out.
pub(super) struct Firing<'a> {
    pub(super) plan: &'a Plan,
    pub(super) folder: &'a Folder,
    /// The step that it guards, counted from 0.
    pub(super) step: usize,
    pub(super) guard: &'a Guard,
    pub(super) arming: ArmingFolder,
    /// The epoch for which it is.
    pub(super) epoch: u32,
    /// Why it fires.
    pub(super) why: &'a str,
}

/// What has come of it.
pub(super) enum Fired {
    /// The command has succeeded, with this attempt.
    Succeeded(u32),
    /// It was tried for long enough; says how it failed.
    GivenUp(String),
    /// The host is stopping.
    Stopped,
}

impl Firing<'_> {
    /// Waits for the lock of the arming; `None`: the host is stopping.
    pub(super) async fn lock(
        &self,
        interrupts: &watch::Receiver<Interrupt>,
    ) -> Result<Option<ArmingLock>, LogError> {
        loop {
            if let Some(lock) = self.arming.try_lock()? {
                return Ok(Some(lock));
            }
            if *interrupts.borrow() == Interrupt::Stop {
                return Ok(None);
            }
            sleep(ASK_RETRY_INTERVAL).await;
        }
    }

    /// Carries it out, unless somebody has done so. The report names each attempt that fails, whoever makes it: what the
    /// guard holds is held until then. `on_attempt` is called when one has ended.
    pub(super) async fn fire(
        &self,
        lock: &mut ArmingLock,
        mark: &mut ProcessSelector,
        interrupts: &mut watch::Receiver<Interrupt>,
        on_attempt: &mut dyn FnMut(),
    ) -> Result<Fired, LogError> {
        if let Some(n) = lock.fired() {
            return Ok(Fired::Succeeded(n));
        }
        if let Some(how) = self.given_up(lock) {
            return Ok(Fired::GivenUp(how));
        }
        lock.record(clock::now(), FiringEvent::Firing { epoch: self.epoch, why: self.why.to_owned() })?;
        here(CrashPoint::GuardFiring);
        tracing::warn!("{} fires: {}", self.title(), self.why);
        let begun = clock::since_boot();
        let mut pause = FIRST_PAUSE;
        let mut n = 0_u32;
        loop {
            n = n.saturating_add(1);
            let how = match self.attempt(mark, interrupts).await {
                Ok(()) => None,
                Err(Some(how)) => Some(how),
                Err(None) => return Ok(Fired::Stopped),
            };
            here(CrashPoint::GuardAttempted);
            let Some(how) = how else {
                lock.record(clock::now(), FiringEvent::Fired { n })?;
                here(CrashPoint::GuardFired);
                on_attempt();
                return Ok(Fired::Succeeded(n));
            };
            tracing::error!("{} {how}", self.title());
            lock.record(clock::now(), FiringEvent::Attempt { n, how: how.clone() })?;
            self.report_failure(n, &how);
            on_attempt();
            if clock::since_boot().saturating_sub(begun).saturating_add(pause) >= tried_for() {
                lock.record(clock::now(), FiringEvent::GivenUp { n, epoch: self.epoch, how })?;
                return Ok(Fired::GivenUp(self.given_up(lock).unwrap_or_default()));
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = interrupts.wait_for(|interrupt| *interrupt == Interrupt::Stop) => return Ok(Fired::Stopped),
            }
            pause = pause.saturating_mul(2).min(MAX_BACKOFF);
        }
    }

    /// How it failed, if somebody has given it up for this epoch.
    fn given_up(&self, lock: &ArmingLock) -> Option<String> {
        lock.records().iter().rev().find_map(|record| match &record.event {
            FiringEvent::GivenUp { n, epoch, how } if *epoch == self.epoch => {
                Some(format!("tried {n} times in {}, it {how}", Span(tried_for())))
            }
            _ => None,
        })
    }

    /// How messages name it.
    pub(super) fn title(&self) -> String {
        let step = self.plan.steps.get(self.step).map_or("?", |step| step.name.as_str());
        format!("guard {} of step {step}", self.guard.name())
    }

    fn report_failure(&self, n: u32, how: &str) {
        let message = Some(format!("{} fires: attempt {n} {how}", self.title()));
        if let Err(error) = self.folder.set_progress(&Progress { progress: None, message }) {
            tracing::warn!("cannot write the progress of a guard: {error}");
        }
    }

    /// One attempt; an error says how it failed, or nothing, when the host is stopping.
    async fn attempt(
        &self,
        mark: &mut ProcessSelector,
        interrupts: &mut watch::Receiver<Interrupt>,
    ) -> Result<(), Option<String>> {
        let not_started = |why: String| Some(format!("could not be started: {why}"));
        let guarded = self.plan.steps.get(self.step);
        let user = User::look_up(self.guard.user.as_deref()).map_err(not_started)?;
        let name = format!("{}-{}", self.plan.run, self.step);
        let path = self.plan.place.runtime_dir.join("guards").join(name);
        let place = Place { plan: self.plan, path, epoch: self.epoch };
        let feedback = place.prepare(&user, None, None).map_err(|error| not_started(error.to_string()))?;
        let mut feedback = feedback;
        let env = place.environment(&user, None);
        let heading = format!("==> {} at {}\n", self.guard.name(), clock::now());
        let job = CommandSpec {
            heading: &heading,
            argv: &self.guard.argv,
            stdin: None,
            env: &env,
            cwd: &self.plan.place.task_dir,
            user: &user,
            deadline: Some(self.guard.timeout.0),
            grace: GRACE,
            ends_on_cancel: false,
            keep_processes: guarded.is_some_and(|step| step.keep_processes),
            no_new_privileges: guarded.is_some_and(|step| step.no_new_privileges),
        };
        let mut output = Output::open(self.arming.path(), None);
        let listed = self.folder.path().join("sessions");
        let mut on_event = |event: StepEvent<'_>| {
            if let StepEvent::Started(id) = event
                && !self.plan.place.systemd
                && let Err(error) = processes::list(&listed, id)
            {
                tracing::warn!("cannot record the session of a guard: {error}");
            }
        };
        let beside =
            Surroundings { mark, output: &mut output, feedback: &mut feedback, interrupts, watchers: None };
        let ran = step::run(&job, beside, &mut on_event).await;
        let _ = std::fs::remove_dir_all(&place.path);
        let ended = match ran {
            Ok(ended) => ended,
            Err(StepError::NotStarted(why)) => return Err(not_started(why)),
            Err(error @ StepError::Lost(_)) => return Err(Some(error.to_string())),
        };
        for id in &ended.left {
            // As what its step may leave: neither this process nor the agent ends it.
            mark.left.insert(*id);
            if let Err(error) = processes::list(&self.folder.path().join("left"), *id) {
                tracing::warn!("cannot record a process that may outlive the run: {error}");
            }
        }
        let said = feedback.message.map(|message| format!(" ({message})")).unwrap_or_default();
        match step::exit_of(ended.status) {
            _ if ended.survives.is_some() => {
                Err(Some(format!("could not be ended: {}", ended.survives.unwrap_or_default())))
            }
            _ if ended.interrupt == Interrupt::Stop => Err(None),
            _ if ended.timed_out => {
                Err(Some(format!("took longer than its `timeout` of {}{said}", self.guard.timeout)))
            }
            ExitKind::Code(0) => Ok(()),
            ExitKind::Code(code) => Err(Some(format!("ended with status {code}{said}"))),
            _ => Err(Some(format!("was ended by a signal{said}"))),
        }
    }
}

/// How long a guard is tried.
#[cfg(not(feature = "crash-points"))]
fn tried_for() -> Duration {
    TRIED_FOR
}

/// How long a guard is tried: so many seconds as a test wishes.
#[cfg(feature = "crash-points")]
fn tried_for() -> Duration {
    let wish = std::env::var("HOSTLER_GUARD_TRIED_FOR").ok().and_then(|seconds| seconds.parse().ok());
    wish.map_or(TRIED_FOR, Duration::from_secs)
}
