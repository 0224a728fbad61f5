//! The executor: carries out one epoch of a run, and needs the agent for nothing.
//!
//! ```text
//! claim -> journal: begun -> [ next? -> journal: intended -> command -> journal: outcome ]* -> result
//! ```
//!
//! What to do next is decided by `domain::run`, from the journal alone. Without the claim it leaves silently:
//! somebody else has the epoch.

mod guards;
pub mod question;
mod secrets;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use self::guards::Watchers;
pub use self::secrets::SecretSource;
use self::secrets::{Fetched, Secrets};
use super::place::Place;
use crate::domain::downtime::Downtime;
use crate::domain::plan::{Action, Command, Plan};
use crate::domain::run::{Event, ExitKind, Next, Operation, Outcome, Phase, StepResult, Suspension, next};
use crate::domain::state::RunRequest;
use crate::domain::task::{Effect, OnCancel, OnTimeout};
use crate::exec::ansible;
use crate::exec::feedback::StepReportReader;
use crate::exec::launcher::Launcher;
use crate::exec::oom;
use crate::exec::output::Output;
use crate::exec::processes::{self, ProcessSelector};
use crate::exec::secret_mount::Files;
use crate::exec::step::{self, CommandResult, CommandSpec, Interrupt, StepError, StepEvent};
use crate::exec::user::User;
use crate::host::crash::{CrashPoint, here};
use crate::host::{clock, disk, machine, process};
use crate::ledger::claim::Holder;
use crate::ledger::folder::Progress;
use crate::ledger::journal::JournalError;
use crate::ledger::{Claim, Folder, FolderError, Journal};

/// How often the folder is looked at for a request of the agent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a command gets between TERM and KILL when the system does not say how it ended.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// Why an epoch ended before its time. The journal stands as it is, and a later epoch goes on.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The run's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] disk::DiskError),
    /// The journal could not be written: nothing more is done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something of the system.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Carries out one epoch of the run in `folder`.
///
/// `handed` says where its secrets come from.
pub async fn execute(folder: &Path, epoch: u32, handed: SecretSource<'_>) -> Result<(), ExecutorError> {
    // No core dump can hold what this process knows; its steps inherit that.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(io::Error::from)?;
    // Nor do they inherit the umask of whoever started the agent.
    process::usual_umask();
    here(CrashPoint::ExecutorStarted);
    let folder = Folder::at(folder)?;
    let plan = folder.plan()?;
    // A unit has the limits that this host's systemd gives it.
    if !plan.place.systemd {
        process::usual_files()?;
    }
    // Before the claim: without its secrets nothing has happened, and the agent decides when they are asked for again.
    let mut secrets = match Secrets::fetch(&plan, &folder, handed).await? {
        Fetched::Ready(secrets) => secrets,
        Fetched::NotNow(why) => {
            // The agent may have taken the run back meanwhile: then nobody wants to know.
            if let Err(error) = folder.set_unready(epoch, &why) {
                tracing::warn!(run = %plan.run, "the executor was not released by the agent: {error}");
            }
            return Ok(());
        }
    };
    if !plan.secrets.is_empty() {
        here(CrashPoint::SecretsRead);
    }
    let ended = carry_out(&plan, &folder, epoch, &mut secrets).await;
    // Whichever way it ended, what was read is given back.
    secrets.give_up().await;
    let Some(Carried { outcome, worked, claim: _claim }) = ended? else { return Ok(()) };
    if let Some(outcome) = &outcome {
        write_result(&folder, outcome);
        here(CrashPoint::ResultWritten);
    }
    worked
}

/// What an epoch has come to.
struct Carried {
    outcome: Option<Outcome>,
    worked: Result<(), ExecutorError>,
    claim: Claim,
}

/// Takes the claim and does what there is to do; `None`: somebody else has the epoch.
async fn carry_out(
    plan: &Plan,
    folder: &Folder,
    epoch: u32,
    secrets: &mut Secrets,
) -> Result<Option<Carried>, ExecutorError> {
    // Before anything of the run happens: a run that no stopping host could end in order is not begun.
    let term = signal(SignalKind::terminate())?;
    let Some(claim) = Claim::take(folder.path(), epoch, &holder())? else { return Ok(None) };
    here(CrashPoint::Claimed);
    secrets.redact();
    let secrets: &Secrets = secrets;
    if let Some(versions) = secrets.versions() {
        folder.set_secret_versions(versions)?;
    }
    // Orphans of the steps become this process's children, so that they are found by descent.
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)?;
    let mut journal = Journal::open(&folder.journal(), plan)?;
    let mut first = Vec::new();
    if matches!(journal.state().phase, Phase::Suspended(Suspension::Rebooting { .. }))
        && !journal.state().cancel_is_known()
        && folder.cancel().is_some()
    {
        first.push(cancel_event(folder));
    }
    let path = plan.place.runtime_dir.join("runs").join(plan.run.to_string());
    let place = Place { plan, path, epoch };
    // Of a command that was cut short nothing but its file says it; each other one is in the journal.
    let left = match journal.state().phase {
        Phase::Running(act) if !matches!(act, Operation::Guard(_)) => place.left_behind(secrets.redactor()),
        _ => Vec::new(),
    };
    first.push(Event::Begun { epoch, boot: machine::boot_id() });
    first.extend(downtime_event(left));
    journal.record(clock::now(), first)?;
    here(CrashPoint::Begun);
    // Order and task stand beside it in the journal: they are fields of the unit.
    tracing::info!("epoch {epoch} of run {} begins", plan.run);
    if journal.state().outcome().is_some()
        && let Some(asked) = folder.undo(journal.state().undos)
    {
        let event = match asked {
            RunRequest::StepDone { by, reason, .. } => Event::StepAcknowledged { by, reason },
            RunRequest::Undo { by, reason, .. } | RunRequest::Cancel { by, reason } => {
                Event::UndoAsked { by, reason }
            }
        };
        journal.record(clock::now(), vec![event])?;
    }
    let (sender, interrupts) = watch::channel(Interrupt::None);
    if folder.cancel().is_some() {
        // Asked for before this epoch began: no command is started that would have to be ended again.
        sender.send_replace(Interrupt::Cancel);
    }
    tokio::spawn(listen(term, sender, folder.clone()));
    if !plan.place.systemd {
        // What it starts is younger than it is, and this is how the agent knows.
        processes::list(&folder.path().join("sessions"), processes::myself())?;
    }
    let mark = ProcessSelector {
        executor: true,
        ..ProcessSelector::of(folder.path(), plan.run, plan.place.systemd)?
    };
    let mut executor = Executor {
        mark,
        output: Output::open(folder.path(), secrets.redactor()),
        secrets,
        epoch,
        plan,
        folder,
        place,
        interrupts,
        watchers: Watchers::new(),
        downtime: Vec::new(),
    };
    let renewing = executor.secrets.keep(plan);
    let worked = executor.work(&mut journal).await;
    let outcome = journal.state().outcome().cloned();
    // Tells the agent that there is nothing more to come.
    drop(journal);
    // It would see the token die that is given up below.
    renewing.inspect(AbortHandle::abort);
    let _ = fs::remove_dir_all(&executor.place.path);
    Ok(Some(Carried { outcome, worked, claim }))
}

fn holder() -> Holder {
    let me = processes::myself();
    let invocation = std::env::var("INVOCATION_ID").ok();
    Holder { boot: machine::boot_id(), pid: me.pid, start: me.start, invocation, fenced: false }
}

/// Turns a TERM and the agent's request into interrupts. The channel keeps the latest only; a stop outlives a cancel.
async fn listen(mut term: Signal, sender: watch::Sender<Interrupt>, folder: Folder) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = term.recv() => {
                sender.send_replace(Interrupt::Stop);
                return;
            }
            _ = look.tick(), if *sender.borrow() == Interrupt::None => if folder.cancel().is_some() {
                sender.send_replace(Interrupt::Cancel);
            }
        }
    }
}

struct Executor<'a> {
    plan: &'a Plan,
    folder: &'a Folder,
    epoch: u32,
    place: Place<'a>,
    mark: ProcessSelector,
    output: Output,
    secrets: &'a Secrets,
    interrupts: watch::Receiver<Interrupt>,
    watchers: Watchers,
    /// What the newest command said of downtime, until it is in the journal.
    downtime: Vec<Downtime>,
}

impl Executor<'_> {
    async fn work(&mut self, journal: &mut Journal<'_>) -> Result<(), ExecutorError> {
        loop {
            if let Some(lapsed) = self.lapsed(journal) {
                journal.record(clock::now(), vec![lapsed])?;
                continue;
            }
            let to_do = next(self.plan, journal.state());
            let act = match to_do {
                Next::Do(act) => act,
                Next::Arm(step) => Operation::Step(step),
                Next::Expire => {
                    journal.record(clock::now(), vec![Event::Expired])?;
                    continue;
                }
                Next::Suspension | Next::End => return Ok(()),
            };
            let interrupt = *self.interrupts.borrow();
            if interrupt == Interrupt::Stop {
                journal.record(clock::now(), vec![Event::Stopping])?;
                return Ok(());
            }
            let guard = matches!(act, Operation::Guard(_));
            if interrupt == Interrupt::Cancel && !guard && !journal.state().cancel_is_known() {
                journal.record(clock::now(), vec![cancel_event(self.folder)])?;
                continue;
            }
            if let Next::Arm(step) = to_do {
                self.arm(step, journal).await?;
                continue;
            }
            journal.record(clock::now(), vec![Event::Intended { act }])?;
            here(CrashPoint::Intended);
            let event = match act {
                Operation::Guard(step) => self.fire(step, journal).await?,
                act => self.perform(act, journal).await?,
            };
            here(CrashPoint::CommandEnded);
            let (event, held) = self.before_a_success(event, journal).await?;
            let stopped = matches!(event, Event::Interrupted { .. });
            // In one record, so that a crash leaves both or none.
            let mut events: Vec<Event> =
                downtime_event(std::mem::take(&mut self.downtime)).into_iter().collect();
            events.push(event);
            journal.record(clock::now(), events)?;
            here(CrashPoint::Finished);
            drop(held);
            self.watchers.keep_only(journal.state());
            if stopped {
                return Ok(());
            }
        }
    }

    /// Carries out one command and says what to record.
    async fn perform(&mut self, act: Operation, journal: &mut Journal<'_>) -> Result<Event, ExecutorError> {
        let command = self.command(act);
        let prepared = User::look_up(command.user.as_deref()).and_then(|user| {
            let files = self.secrets.files(self.plan, &user)?;
            let secrets = files.as_ref().map(Files::path);
            let feedback = self.place.prepare(&user, secrets, self.secrets.redactor());
            let feedback = feedback.map_err(|e| e.to_string())?;
            Ok((user, feedback, files))
        });
        // The files of the secrets go at the end of this function, whichever way it takes.
        let (user, mut feedback, files) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => return Ok(not_started(act, why)),
        };
        let mut env = self.place.environment(&user, files.as_ref().map(Files::path));
        let mut argv = command.argv.clone();
        if let Some(playbook) = self.playbook(act) {
            match self.prepare_playbook(playbook, &user, files.as_ref().map(Files::path)) {
                Ok(play) => {
                    argv = play.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                    let more = play.env.into_iter();
                    env.extend(
                        more.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())),
                    );
                }
                Err(error) => return Ok(not_started(act, error.to_string())),
            }
        }
        if let Some(files) = &files
            && let Err(error) = files.close(&user)
        {
            return Ok(not_started(act, format!("the secrets cannot be handed to the step: {error}")));
        }
        let final_started = journal.state().final_started;
        let step = if let Operation::Step(i) = act { self.plan.steps.get(i) } else { None };
        let stdin = match step.and_then(|step| step.stdin.as_ref()) {
            None => None,
            Some(template) => match self.secrets.render(template, self.plan) {
                Ok(text) => Some(text),
                Err(why) => return Ok(not_started(act, why)),
            },
        };
        let heading = format!("==> {}\n", self.heading(act));
        let job = CommandSpec {
            heading: &heading,
            argv: &argv,
            stdin: stdin.as_ref().map(|text| text.as_bytes()),
            env: &env,
            cwd: &self.plan.place.task_dir,
            user: &user,
            deadline: self.deadline(act, &command, journal),
            grace: step.map_or(Duration::from_secs(5), |step| step.grace.0),
            ends_on_cancel: !final_started
                && (act.reads_only() || step.is_some_and(|step| step.on_cancel == OnCancel::Kill)),
            keep_processes: step.is_some_and(|step| step.keep_processes),
            no_new_privileges: act
                .step()
                .and_then(|i| self.plan.steps.get(i))
                .is_some_and(|step| step.no_new_privileges),
        };
        let kills_before = oom::kills(self.plan.run);
        let (folder, systemd) = (self.folder, self.plan.place.systemd);
        let mut recorded = Ok(());
        let mut tell = |moment: StepEvent<'_>| match moment {
            StepEvent::Started(id) => {
                here(CrashPoint::Started);
                if !systemd && let Err(error) = processes::list(&folder.path().join("sessions"), id) {
                    tracing::warn!("cannot record the session of a step: {error}");
                }
            }
            StepEvent::Reported(feedback) => {
                let progress = Progress { progress: feedback.progress, message: feedback.message.clone() };
                if let Err(error) = folder.set_progress(&progress) {
                    tracing::warn!("cannot write the progress of a step: {error}");
                }
            }
            StepEvent::Interrupted(Interrupt::Stop) => {
                recorded = journal.record(clock::now(), vec![Event::Stopping]);
            }
            StepEvent::Interrupted(Interrupt::Cancel) if !journal.state().cancel_is_known() => {
                recorded = journal.record(clock::now(), vec![cancel_event(folder)]);
            }
            StepEvent::Interrupted(_) => {}
        };
        let beside = step::Surroundings {
            mark: &mut self.mark,
            output: &mut self.output,
            feedback: &mut feedback,
            interrupts: &mut self.interrupts,
            watchers: Some(self.watchers.news()),
        };
        let ran = step::run(&job, beside, &mut tell).await;
        self.downtime = feedback.downtime();
        recorded?;
        match ran {
            Err(StepError::NotStarted(why)) => Ok(not_started(act, self.secrets.clean(&why))),
            Err(error @ StepError::Lost(_)) => {
                let left = match self.mark.end_all(LOST_GRACE).await {
                    Ok(alive) => format!("{} of its processes are still alive after SIGKILL", alive.len()),
                    Err(error) => format!("cannot tell whether any of its processes is alive: {error}"),
                };
                let why = format!("{error}; {left}");
                Ok(finished(act, ExitKind::Unknown(self.secrets.clean(&why))))
            }
            Ok(ended) if ended.interrupt == Interrupt::Stop => {
                Ok(Event::Interrupted { act, spent_ms: millis(ended.spent) })
            }
            Ok(mut ended) => {
                // A process names itself.
                ended.killed_processes.iter_mut().for_each(|name| *name = self.secrets.clean(name));
                let oom = oom::kills(self.plan.run) > kills_before && !ended.status.success();
                self.let_go(act, &ended).await;
                let warnings = self.warnings(act, &feedback);
                Ok(Event::Finished { act, ending: ending_of(ended, oom, feedback, warnings) })
            }
        }
    }

    /// What a command said that was not taken, for the report and the log.
    fn warnings(&self, act: Operation, feedback: &StepReportReader) -> Vec<String> {
        let what = self.title(act);
        let warnings: Vec<String> =
            feedback.warnings().iter().map(|warning| format!("{what}: {warning}")).collect();
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        warnings
    }

    /// What a step was allowed to leave is let go before anything else is started, or could end it.
    async fn let_go(&mut self, act: Operation, ended: &CommandResult) {
        let Operation::Step(i) = act else { return };
        if ended.left.is_empty() {
            return;
        }
        for id in &ended.left {
            if let Err(error) = processes::list(&self.folder.path().join("left"), *id) {
                tracing::warn!("cannot record a process that may outlive the run: {error}");
            }
        }
        self.mark.left.extend(&ended.left);
        let launcher = if self.plan.place.systemd { Launcher::Systemd } else { Launcher::Detached };
        if let Err(error) = launcher.let_go(&self.mark, i).await {
            tracing::error!("cannot move processes that may outlive the run out of its unit: {error}");
        }
    }

    fn command(&self, act: Operation) -> Command {
        let step = |i: usize| self.plan.steps.get(i);
        let found = match act {
            Operation::Probe | Operation::Reprobe => self.plan.probe.clone(),
            Operation::Verify => self.plan.verify.clone(),
            Operation::Done(i) => step(i).and_then(|step| step.check.clone()),
            Operation::Undo(i) => step(i).and_then(|step| step.undo.clone()),
            Operation::Guard(_) => None, // It is carried out by `fire`.
            Operation::Step(i) => step(i).map(|step| {
                let argv = match &step.action {
                    Action::Run(argv) => argv.clone(),
                    Action::Ansible(_) => Vec::new(),
                };
                Command { argv, timeout: step.timeout, user: step.user.clone() }
            }),
        };
        // The transitions never ask for what the plan does not have; an empty command cannot be started.
        found.unwrap_or(Command { argv: Vec::new(), timeout: None, user: None })
    }

    /// The time that a command has. A final step, and what follows it, is ended only if it says so.
    fn deadline(&self, act: Operation, command: &Command, journal: &Journal<'_>) -> Option<Duration> {
        let own = command.timeout.map(|span| span.0);
        let left = self.plan.timeout.0.saturating_sub(journal.state().spent);
        let step = if let Operation::Step(i) = act { self.plan.steps.get(i) } else { None };
        match act {
            Operation::Undo(_) => Some(own.unwrap_or(self.plan.timeout.0)),
            Operation::Step(_)
                if step.is_some_and(|s| s.effect == Effect::Final && s.on_timeout == OnTimeout::Report) =>
            {
                None
            }
            _ if journal.state().final_started && step.is_none_or(|s| s.effect != Effect::Final) => {
                Some(own.unwrap_or(self.plan.timeout.0))
            }
            _ => Some(own.map_or(left, |own| own.min(left))),
        }
    }

    fn heading(&self, act: Operation) -> String {
        let at = clock::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        format!("{} (epoch {}, {at})", self.title(act), self.epoch)
    }

    fn title(&self, act: Operation) -> String {
        let name = |i: usize| self.plan.steps.get(i).map_or("?", |step| step.name.as_str());
        match act {
            Operation::Probe => "probe".to_owned(),
            Operation::Step(i) => format!("step {} of {}: {}", i + 1, self.plan.steps.len(), name(i)),
            Operation::Done(i) => format!("is step {} done?", name(i)),
            Operation::Undo(i) => format!("undo of step {}", name(i)),
            Operation::Guard(i) => format!("guard of step {}", name(i)),
            Operation::Reprobe => "probe after the last step".to_owned(),
            Operation::Verify => "verify".to_owned(),
        }
    }

    fn playbook(&self, act: Operation) -> Option<&str> {
        let Operation::Step(i) = act else { return None };
        match &self.plan.steps.get(i)?.action {
            Action::Ansible(playbook) => Some(playbook),
            Action::Run(_) => None,
        }
    }

    fn prepare_playbook(
        &self,
        playbook: &str,
        user: &User,
        secrets: Option<&Path>,
    ) -> io::Result<ansible::Play> {
        let vars = secrets.map(|folder| folder.join(secrets::VARS));
        // Ansible writes its modules with their arguments: what may hold secrets stays with them.
        let folder =
            secrets.map_or_else(|| self.place.path.join("ansible"), |folder| folder.join(".ansible"));
        let play = ansible::play(playbook, &self.plan.params, &folder, vars.as_deref());
        for folder in &play.folders {
            fs::DirBuilder::new().mode(0o700).create(folder)?;
        }
        for file in &play.files {
            disk::create(&file.path, file.contents.as_bytes(), 0o400).map_err(|error| error.source)?;
            user.own(&file.path)?;
        }
        play.folders.iter().try_for_each(|folder| user.own(folder))?;
        Ok(play)
    }
}

/// For people who look into the folder; the journal is the truth, so it is not synced.
fn write_result(folder: &Folder, outcome: &Outcome) {
    let path = folder.path().join("result");
    let json = serde_json::to_vec_pretty(outcome).unwrap_or_default();
    if let Err(error) = fs::write(&path, json) {
        tracing::warn!("cannot write {}: {error}", path.display());
    }
}

fn cancel_event(folder: &Folder) -> Event {
    match folder.cancel() {
        Some(RunRequest::Cancel { by, reason }) => Event::CancelAsked { by, reason },
        // Gone again, which nobody does: that it was asked is what counts.
        _ => Event::CancelAsked { by: "somebody".into(), reason: "not said".into() },
    }
}

fn downtime_event(downtime: Vec<Downtime>) -> Option<Event> {
    (!downtime.is_empty()).then_some(Event::Downtime { downtime })
}

fn not_started(act: Operation, why: String) -> Event {
    finished(act, ExitKind::NotStarted(why))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The end of a command that said nothing.
fn finished(act: Operation, exit: ExitKind) -> Event {
    Event::Finished { act, ending: silent(exit) }
}

fn silent(exit: ExitKind) -> StepResult {
    let (outputs, killed_processes, warnings) = (BTreeMap::new(), Vec::new(), Vec::new());
    StepResult { exit, spent_ms: 0, outputs, message: None, killed_processes, warnings }
}

fn ending_of(
    ended: CommandResult,
    oom: bool,
    feedback: StepReportReader,
    warnings: Vec<String>,
) -> StepResult {
    let exit = if let Some(survives) = ended.survives {
        ExitKind::Survived(survives)
    } else if let Some(step) = ended.guarded {
        ExitKind::Guarded(step)
    } else if ended.timed_out {
        ExitKind::TimedOut
    } else if ended.interrupt == Interrupt::Cancel {
        ExitKind::Cancelled
    } else if oom {
        ExitKind::Oom
    } else {
        step::exit_of(ended.status)
    };
    StepResult {
        exit,
        spent_ms: millis(ended.spent),
        outputs: feedback.outputs,
        message: feedback.message,
        killed_processes: ended.killed_processes,
        warnings,
    }
}
