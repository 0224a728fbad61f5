//! What takes time: done beside the loop, and back in it as an event.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::pre_start_check::{PreStartCheck, PreStartError};
use super::{Event, PrepareError};
use crate::catalog::trust::OwnerRule;
use crate::catalog::{TASK_FILE, copy};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::{Document, Order};
use crate::domain::plan::{Plan, RunPaths, Trigger};
use crate::domain::plan_builder;
use crate::domain::source::OrderKey;
use crate::domain::task::Task;
use crate::exec::launcher::{Epoch, Launcher};
use crate::exec::processes::{self, ProcessSelector, unit_name};
use crate::exec::secret_mount;
use crate::host::crash::{CrashPoint, here};
use crate::host::{clock, disk, machine};
use crate::ledger::claim::Holder;
use crate::ledger::{Claim, Folder, FolderError, NotReady, Tokens};
use crate::vault::Vault;

/// The largest `task.yml` in a copy, in bytes.
const MAX_TASK: u64 = 1 << 20;
/// What a dead executor left running gets between TERM and KILL.
const SURVIVORS_GRACE: Duration = Duration::from_secs(10);
/// A run's token outlives the run's time by this.
const TOKEN_MARGIN: Duration = Duration::from_secs(600);
/// Why a task with secrets waits on a host without Vault.
pub(super) const NO_VAULT: &str = "this host has no Vault: set `vault:` in its configuration";
/// How long systemd may take to see that a unit is over.
const UNIT_ENDS_WITHIN: Duration = Duration::from_secs(30);

/// What a plan says besides order and task.
pub(super) struct RunContext<'a> {
    pub(super) key: &'a OrderKey,
    pub(super) host: &'a Name,
    pub(super) run: RunId,
    pub(super) trigger: Trigger,
    pub(super) place: RunPaths,
}

impl RunContext<'_> {
    /// The plan, or one line on why the order is refused.
    pub(super) fn plan(&self, order: &Order, task: &Task, digest: String) -> Result<Plan, String> {
        let (run, key, host, place) = (self.run, self.key, self.host, self.place.clone());
        let trigger = self.trigger.clone();
        plan_builder::plan(order, task, &plan_builder::PlanContext { run, key, trigger, host, digest, place })
    }
}

/// Everything that making a run needs.
pub(super) struct PrepareRun {
    pub(super) last: PreStartCheck,
    pub(super) host: Name,
    pub(super) key: OrderKey,
    pub(super) run: RunId,
    pub(super) trigger: Trigger,
    /// The document that counts if the store gives no answer at all.
    pub(super) copy: Option<String>,
    pub(super) task_folder: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) place: RunPaths,
    pub(super) rule: OwnerRule,
    /// The plan that was examined had this version; one of a newer has to be asked for anew.
    pub(super) version: u32,
    /// Held while a task is copied: two starts at once may want the same copy.
    pub(super) copying: Arc<Mutex<()>>,
}

impl PrepareRun {
    /// Looks once more, copies the task, and makes the run's folder. The run may start as soon as it is in the ledger.
    pub(super) async fn make(&self) -> Result<Arc<Plan>, PrepareError> {
        let not_now = |why: String| PrepareError::NotNow(why);
        let document = match (self.last.look().await, &self.copy) {
            (Ok(entry), _) => entry.value,
            (Err(PreStartError::Trouble(error)), Some(copy)) if error.is_away() => copy.clone().into_bytes(),
            (Err(look), _) => return Err(not_now(look.to_string())),
        };
        here(CrashPoint::Looked);
        let (folder, tasks) = (self.task_folder.clone(), self.state_dir.join("tasks"));
        let (runs, key, host) = (self.state_dir.join("runs"), self.key.clone(), self.host.clone());
        let (run, rule, place, trigger) = (self.run, self.rule, self.place.clone(), self.trigger.clone());
        let (version, copying) = (self.version, Arc::clone(&self.copying));
        let disk_work = move || {
            let (task, copied) = copy_of(&folder, &tasks, rule, &copying)?;
            let Ok(Document::Order(order)) = Document::read(&document) else {
                return Err(not_now("the order cannot be read".into()));
            };
            let place = RunPaths { task_dir: copied.path, ..place };
            let about = RunContext { key: &key, host: &host, run, trigger, place };
            let plan = about.plan(&order, &task, copied.digest).map_err(PrepareError::Refused)?;
            if plan.version > version {
                return Err(PrepareError::Unexamined("its task was replaced".into()));
            }
            Folder::new(&runs, run).create(&document, &plan).map_err(|e| not_now(e.to_string()))?;
            Ok(Arc::new(plan))
        };
        let plan = tokio::task::spawn_blocking(disk_work).await;
        plan.unwrap_or_else(|error| Err(PrepareError::NotNow(error.to_string())))
    }
}

/// Copies a task by its digest, and reads the copy.
pub(super) fn copy_of(
    folder: &Path,
    tasks: &Path,
    rule: OwnerRule,
    copying: &Mutex<()>,
) -> Result<(Task, copy::Copied), PrepareError> {
    let not_now = |why: String| PrepareError::NotNow(why);
    let turn = copying.lock().unwrap_or_else(PoisonError::into_inner);
    let copied = copy::store(folder, tasks, rule).map_err(|error| match error {
        copy::CopyError::Disk(_) | copy::CopyError::Changed(_) => not_now(error.to_string()),
        other => PrepareError::Refused(format!("task {}: {other}", folder.display())),
    })?;
    drop(turn);
    let text = disk::read(&copied.path.join(TASK_FILE), MAX_TASK).map_err(|e| not_now(e.to_string()))?;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let task = Task::read(&text).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        PrepareError::Refused(format!("task {}: {}", folder.display(), faults.join("; ")))
    })?;
    Ok((task, copied))
}

/// Everything that launching an executor needs.
pub(super) struct LaunchRequest {
    pub(super) launcher: Launcher,
    pub(super) program: PathBuf,
    pub(super) folder: Folder,
    pub(super) epoch: u32,
    pub(super) plan: Arc<Plan>,
    pub(super) vault: Option<Arc<Vault>>,
    pub(super) tokens: Tokens,
}

impl LaunchRequest {
    pub(super) async fn launch(self) -> Event {
        let run = self.plan.run;
        let handed = match self.hand_over().await {
            Ok(handed) => handed,
            Err(why) => {
                tracing::warn!(run = %run, order = %self.plan.order, "not started yet: {}", why.why);
                return Event::LaunchDeferred { run, why };
            }
        };
        let handed = handed.as_ref().map(|bytes| bytes.as_slice());
        let (program, folder) = (&*self.program, self.folder.path());
        let epoch = Epoch { program, folder, number: self.epoch, plan: &self.plan };
        let launched = self.launcher.launch(epoch, handed).await;
        if let Err(error) = &launched {
            tracing::error!(run = %run, order = %self.plan.order, "{error}");
        }
        Event::LaunchFinished { run, launched: launched.is_ok() }
    }
}

impl LaunchRequest {
    /// What the executor needs for Vault: nothing, if its task wants no secrets.
    async fn hand_over(&self) -> Result<Option<Zeroizing<Vec<u8>>>, NotReady> {
        if self.plan.secrets.is_empty() {
            return Ok(None);
        }
        let not_ready = |why: String| NotReady { why, after: None };
        let Some(vault) = &self.vault else { return Err(not_ready(NO_VAULT.to_owned())) };
        self.give_back_earlier(vault).await;
        // Undoing has as much time again; the executor gives the token up when it ends.
        let life = self.plan.timeout.0.saturating_mul(2) + TOKEN_MARGIN;
        let record = |accessor: &str| {
            here(CrashPoint::TokenMade);
            self.tokens.record(self.plan.run, self.epoch, accessor)
        };
        let grant = vault.grant(self.plan.run, life, self.plan.timeout.0, record).await;
        let grant = grant.map_err(|error| NotReady {
            after: error.after().map(|after| after.as_secs()),
            ..not_ready(error.to_string())
        })?;
        here(CrashPoint::TokenRecorded);
        Ok(Some(grant.to_bytes()))
    }

    /// An executor of this run that is dead has a token still, and what was read with it.
    async fn give_back_earlier(&self, vault: &Vault) {
        let all = self.tokens.all().unwrap_or_default();
        for token in all.into_iter().filter(|token| token.run == self.plan.run && self.tokens.is_due(token)) {
            if vault.revoke(&token.accessor).await.is_ok() {
                let _ = disk::remove(&token.path);
            }
        }
    }
}

/// Takes an epoch so that no executor can; false: one has it.
pub(super) fn fence(folder: &Folder, epoch: u32) -> Result<bool, FolderError> {
    let me = processes::myself();
    let holder =
        Holder { boot: machine::boot_id(), pid: me.pid, start: me.start, invocation: None, fenced: true };
    Ok(Claim::take(folder.path(), epoch, &holder)?.is_some())
}

/// Ends what a dead executor left running; how many could not be ended.
///
/// # Errors
/// Where it cannot be told whether anything of the run lives: then nothing may start.
pub(super) async fn kill_leftovers(
    launcher: &Launcher,
    folder: &Folder,
    runtime: &Path,
) -> Result<usize, String> {
    let run = folder.run();
    let mark =
        ProcessSelector::of(folder.path(), run, *launcher == Launcher::Systemd).map_err(|e| e.to_string())?;
    let alive = mark.end_all(SURVIVORS_GRACE).await.map_err(|error| error.to_string())?.len();
    let asked = Instant::now();
    let mut pause = Duration::from_millis(10);
    while launcher.is_active(run).await? {
        if asked.elapsed() > UNIT_ENDS_WITHIN {
            return Err(format!(
                "systemd still has {}, although none of its processes is alive",
                unit_name(run)
            ));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    if alive > 0 {
        tracing::error!(run = %run, "{alive} processes of the run are still alive after SIGKILL at {}", clock::now());
    } else {
        secret_mount::sweep_run(runtime, run);
    }
    Ok(alive)
}
