//! Starts executors so that they outlive the agent: as units of systemd, or as sessions of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::handoff::{self, HandoffArg};
use super::processes::{self, Process, ProcessId, ProcessSelector, unit_name};
use super::question::{MEMORY, Question, TASKS};
use crate::domain::ids::RunId;
use crate::domain::plan::Plan;
use crate::domain::task::Limits;
use crate::domain::text::head;

/// The command of this program that is started for each epoch of a run. It is no command for people, and is set up apart
/// from theirs: to set up all of those takes longer than what it has to do before a step.
pub const EXECUTOR: &str = "executor";

/// The command of this program that watches over an armed guard; no command for people either.
pub const WATCHER: &str = "watcher";

/// How long systemd may take to start a unit or to answer.
const SYSTEMD_ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a unit that has ended may keep its name.
const UNIT_GOES_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to move a process into a scope.
const ASK_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Added to the longest grace of a step before systemd kills the unit of a stopping host.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// Variables of the agent that hold a secret.
const OWN_SECRETS: [&str; 3] = ["VAULT_TOKEN", "CONSUL_HTTP_TOKEN", "CREDENTIALS_DIRECTORY"];

/// How executors are started on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `hostler-run-<run>.service`, a transient unit in `hostler.slice`.
    Systemd,
    /// A process in a session of its own; for containers and development.
    Detached,
}

/// An executor could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the executor of run {run} could not be started: {why}")]
pub struct LaunchError {
    /// Whose.
    pub run: RunId,
    /// What the system said.
    pub why: String,
}

/// Which epoch of a run, and by which program.
#[derive(Clone, Copy)]
pub struct Epoch<'a> {
    /// Hostler itself, in the version that carries out this epoch.
    pub program: &'a Path,
    /// The run's own folder.
    pub folder: &'a Path,
    /// Its number, from 1.
    pub number: u32,
    /// What the run is to do.
    pub plan: &'a Plan,
}

impl Launcher {
    /// Starts the executor for one epoch of a run and returns as soon as it was started.
    pub async fn launch(&self, of: Epoch<'_>, handed: Option<&[u8]>) -> Result<(), LaunchError> {
        let Epoch { program, folder, number: epoch, plan } = of;
        let failed = |why: String| LaunchError { run: plan.run, why };
        let arguments = [EXECUTOR.into(), folder.to_owned(), PathBuf::from(epoch.to_string())];
        let word = |word: HandoffArg| ["--handed".to_owned(), word.0];
        match self {
            Self::Detached => {
                let mut command = detached(program, folder, epoch);
                if let Some(bytes) = handed {
                    let handed =
                        handoff::inherit(&mut command, bytes).map_err(|error| failed(error.to_string()))?;
                    command.args(word(handed));
                }
                let child = Command::from(command).kill_on_drop(false).spawn();
                reap(child.map_err(|error| failed(error.to_string()))?);
                Ok(())
            }
            Self::Systemd => {
                let mut command = Command::new("systemd-run");
                command
                    .args(unit_arguments(plan, systemd_version().await))
                    .arg("--")
                    .arg(program)
                    .args(&arguments);
                let offer = match handed {
                    None => None,
                    Some(bytes) => {
                        let name = format!("{}.{epoch}", plan.run);
                        let offered = handoff::offer(&plan.place.runtime_dir, &name, bytes);
                        let (handed, offer) = offered.map_err(|error| failed(error.to_string()))?;
                        command.args(word(handed));
                        Some(offer)
                    }
                };
                let asked = ask(command).await.map(drop).map_err(failed);
                if let (Err(_), Some(offer)) = (&asked, offer) {
                    offer.take_back();
                }
                asked
            }
        }
    }

    /// Starts the watcher of a guard, which is no part of the run: no limit and no end of it touches the watcher. Returns
    /// the process, where it is a child of this one.
    ///
    /// # Errors
    /// Where it could not be started.
    pub async fn watch(&self, of: Epoch<'_>, step: usize) -> Result<Option<ProcessId>, String> {
        let Epoch { program, folder, number: epoch, plan } = of;
        let words = [epoch.to_string(), step.to_string()];
        match self {
            Self::Detached => {
                let mut command = detached_command(program, WATCHER, folder);
                command.args(words).env_remove("HOSTLER_RUN");
                let child = Command::from(command).kill_on_drop(false).spawn();
                let child = child.map_err(|error| error.to_string())?;
                let id = child.id().and_then(|pid| processes::process(pid).ok().flatten());
                reap(child);
                id.map(|process| Some(process.id)).ok_or_else(|| "it ended at once".to_owned())
            }
            Self::Systemd => {
                let asked = Instant::now();
                loop {
                    let mut command = Command::new("systemd-run");
                    command.args(watcher_arguments(plan, step, systemd_version().await)).arg("--");
                    command.arg(program).arg(WATCHER).arg(folder).args(&words);
                    match ask(command).await {
                        Ok(_) => return Ok(None),
                        // The unit of the watcher before this one goes away a moment after its process.
                        Err(why) if asked.elapsed() > UNIT_GOES_WITHIN => return Err(why),
                        Err(_) => sleep(ASK_RETRY_INTERVAL).await,
                    }
                }
            }
        }
    }

    /// Starts the executor of a question, which is a unit of its own as that of a run, with limits of its own.
    ///
    /// # Errors
    /// Where it could not be started.
    pub async fn question(&self, program: &Path, folder: &Path, question: &Question) -> Result<(), String> {
        match self {
            Self::Detached => {
                let mut command = detached(program, folder, 1);
                command.arg("--question");
                let child = Command::from(command).kill_on_drop(false).spawn();
                reap(child.map_err(|error| error.to_string())?);
                Ok(())
            }
            Self::Systemd => {
                let mut command = Command::new("systemd-run");
                command.args(question_arguments(question, systemd_version().await)).arg("--").arg(program);
                command.arg(EXECUTOR).arg(folder).args(["1", "--question"]);
                ask(command).await.map(drop)
            }
        }
    }

    /// Whether the launcher still holds anything of a run, beside its processes: a unit that is not yet inactive.
    ///
    /// # Errors
    /// Where systemd does not say: that is never taken for a unit that has ended.
    pub async fn is_active(&self, run: RunId) -> Result<bool, String> {
        if *self == Self::Detached {
            return Ok(false);
        }
        let mut command = Command::new("systemctl");
        command.args(["show", "--property=ActiveState", "--value", &unit_name(run)]);
        match ask(command).await?.trim() {
            "inactive" | "failed" => Ok(false),
            "active" | "reloading" | "refreshing" | "activating" | "deactivating" | "maintenance" => Ok(true),
            other => Err(format!("systemctl says that {} is {:?}", unit_name(run), head(other, 100))),
        }
    }

    /// Lets processes that a step may leave behind go on after the run: under systemd in a scope of their own.
    ///
    /// They fork and end while they are moved, so each is moved by itself, until none is in the run's unit.
    pub async fn let_go(&self, mark: &ProcessSelector, step: usize) -> Result<(), String> {
        if *self == Self::Detached {
            return Ok(()); // They are told from others by `ProcessSelector::left`.
        }
        // All that is in the unit: what has been started meanwhile as well.
        let mark = ProcessSelector { left: BTreeSet::new(), ..mark.clone() };
        let scope = format!("hostler-left-{}-{step}.scope", mark.run);
        let asked = Instant::now();
        let mut has_scope = false;
        loop {
            let mut here = mark.find().await.map_err(|error| error.to_string())?;
            if here.is_empty() {
                return Ok(());
            }
            // The oldest first: what a moved parent starts is in the scope from its beginning.
            here.sort_by_key(|process| process.id.start);
            for Process { id, .. } in here {
                match ask(into_scope(&scope, has_scope, id.pid)).await {
                    Ok(_) => has_scope = true,
                    Err(_) if has_ended(id) => {}
                    Err(why) if asked.elapsed() > SYSTEMD_ANSWERS_WITHIN => return Err(why),
                    // A scope goes away with the last process in it, and is there if an earlier epoch made it.
                    Err(_) => {
                        has_scope = !has_scope;
                        sleep(ASK_RETRY_INTERVAL).await;
                    }
                }
            }
        }
    }

    /// Reboots the host in order. Without systemd this is a person's work: the executor's host may be a container.
    pub async fn reboot(&self) -> Result<(), String> {
        match self {
            Self::Detached => Err("the host is not run by systemd: reboot it by hand".to_owned()),
            Self::Systemd => {
                let mut command = Command::new("systemctl");
                command.arg("reboot");
                ask(command).await.map(drop)
            }
        }
    }
}

/// A command for an executor that stands alone. It opens its own session: with nothing to do between fork and exec, no
/// copy of the agent's memory has to be made.
fn detached(program: &Path, folder: &Path, epoch: u32) -> std::process::Command {
    let mut command = detached_command(program, EXECUTOR, folder);
    command.arg(epoch.to_string());
    command
}

fn detached_command(program: &Path, word: &str, folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.arg(word).arg(folder).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    // The agent's own secrets are not the run's.
    for name in OWN_SECRETS {
        command.env_remove(name);
    }
    command
}

/// Whether the kernel says that a process has ended.
fn has_ended(id: ProcessId) -> bool {
    processes::process(id.pid).is_ok_and(|process| process.is_none_or(|now| now.id != id || now.zombie))
}

/// Waits for a child that is not listened to any more.
fn reap(mut child: Child) {
    tokio::spawn(async move { child.wait().await });
}

/// Makes a scope of one process, or moves the process into a scope that is there.
fn into_scope(scope: &str, is_there: bool, pid: u32) -> Command {
    let mut command = Command::new("busctl");
    command.arg("call").args([
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ]);
    let pid = pid.to_string();
    if is_there {
        command.args(["AttachProcessesToUnit", "ssau", scope, "", "1", &pid]);
    } else {
        command.args(["StartTransientUnit", "ssa(sv)a(sa(sv))", scope, "fail", "3", "PIDs", "au", "1", &pid]);
        // systemd moves processes into a unit only if it is delegated.
        command.args(["Delegate", "b", "true"]);
        command.args(["Description", "s", "Processes that a step of Hostler was allowed to leave", "0"]);
    }
    command
}

/// The version of the systemd that is installed; the newest one where it cannot be told.
async fn systemd_version() -> u32 {
    static VERSION: OnceCell<u32> = OnceCell::const_new();
    let version = VERSION.get_or_try_init(|| async {
        let mut command = Command::new("systemctl");
        command.arg("--version");
        parse_version(&ask(command).await?).ok_or_else(|| "it names no version".to_owned())
    });
    version.await.copied().unwrap_or_else(|why| {
        tracing::warn!("cannot determine the version of systemd: {why}");
        u32::MAX
    })
}

/// From `systemd 239 (239-82.el8)`.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.strip_prefix("systemd ")?;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}

/// The properties that depend on the version, because systemd refuses a unit with one that it does not know. Before 243
/// it leaves a unit alone in which the kernel killed a process for memory, as `OOMPolicy=continue` asks for; before 240
/// a program that cannot be executed is noticed by its missing claim.
fn since(systemd: u32) -> Vec<&'static str> {
    let mut properties = vec![if systemd >= 240 { "Type=exec" } else { "Type=simple" }];
    properties.extend((systemd >= 243).then_some("OOMPolicy=continue"));
    properties
}

fn unit_arguments(plan: &Plan, systemd: u32) -> Vec<String> {
    let grace = plan.steps.iter().map(|step| step.grace.0).max().unwrap_or_default() + STOP_MARGIN;
    let mut properties = vec![
        "KillMode=mixed".to_owned(),
        // Last in line; the steps put themselves back to 0.
        "OOMScoreAdjust=-900".to_owned(),
        format!("TimeoutStopSec={}", grace.as_secs()),
        "LimitCORE=0".to_owned(),
        // All that the executor says can be found by them in the journal.
        format!("LogExtraFields=HOSTLER_RUN={}", plan.run),
        format!("LogExtraFields=HOSTLER_ORDER={}", plan.order),
        format!("LogExtraFields=HOSTLER_TASK={}", plan.task),
    ];
    properties.extend(since(systemd).into_iter().map(str::to_owned));
    let Limits { memory, cpu_weight, io_weight, tasks } = &plan.limits;
    properties.extend(memory.map(|bytes| format!("MemoryMax={}", bytes.0)));
    properties.extend(cpu_weight.map(|weight| format!("CPUWeight={weight}")));
    properties.extend(io_weight.map(|weight| format!("IOWeight={weight}")));
    properties.extend(tasks.map(|tasks| format!("TasksMax={tasks}")));
    let unit = unit_name(plan.run);
    let mut arguments: Vec<String> = vec![
        "--quiet".into(),
        "--collect".into(),
        format!("--unit={unit}"),
        "--slice=hostler.slice".into(),
        format!("--description=Hostler run of order {} ({})", plan.order, plan.task),
    ];
    arguments.extend(properties.into_iter().map(|property| format!("--property={property}")));
    arguments
}

/// The unit of a question. It comes and goes every few seconds, so the journal hears only of what is wrong with it.
fn question_arguments(question: &Question, systemd: u32) -> Vec<String> {
    let timeout = question.timeout + STOP_MARGIN;
    let mut properties = vec![
        "KillMode=mixed".to_owned(),
        format!("TimeoutStopSec={}", STOP_MARGIN.as_secs()),
        // Whatever becomes of its executor.
        format!("RuntimeMaxSec={}", timeout.as_secs()),
        "LimitCORE=0".to_owned(),
        "LogLevelMax=notice".to_owned(),
        format!("MemoryMax={MEMORY}"),
        format!("TasksMax={TASKS}"),
    ];
    properties.extend(since(systemd).into_iter().map(str::to_owned));
    let mut arguments: Vec<String> = vec![
        "--quiet".into(),
        "--collect".into(),
        format!("--unit={}", unit_name(question.id)),
        "--slice=hostler.slice".into(),
        format!("--description=Hostler asks for the fact {}", question.fact),
    ];
    arguments.extend(properties.into_iter().map(|property| format!("--property={property}")));
    arguments
}

/// The unit of a watcher: beside the run's own, so that neither its limits nor its end touch it.
fn watcher_arguments(plan: &Plan, step: usize, systemd: u32) -> Vec<String> {
    let guard = plan.steps.get(step).and_then(|step| step.guard.as_ref());
    let timeout = guard.map_or(Duration::ZERO, |guard| guard.timeout.0) + STOP_MARGIN;
    let mut properties = vec![
        "KillMode=mixed".to_owned(),
        "OOMScoreAdjust=-900".to_owned(),
        // A host that stops ends the executor first, and then waits for the guard.
        format!("TimeoutStopSec={}", timeout.as_secs()),
        "LimitCORE=0".to_owned(),
        format!("LogExtraFields=HOSTLER_RUN={}", plan.run),
        format!("LogExtraFields=HOSTLER_ORDER={}", plan.order),
        format!("LogExtraFields=HOSTLER_TASK={}", plan.task),
    ];
    properties.extend(since(systemd).into_iter().map(str::to_owned));
    let mut arguments: Vec<String> = vec![
        "--quiet".into(),
        "--collect".into(),
        format!("--unit={}", processes::watcher_unit_name(plan.run, step)),
        "--slice=hostler.slice".into(),
        format!("--description=Hostler guard of order {} ({})", plan.order, plan.task),
    ];
    arguments.extend(properties.into_iter().map(|property| format!("--property={property}")));
    arguments
}

async fn ask(mut command: Command) -> Result<String, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    match timeout(SYSTEMD_ANSWERS_WITHIN, command.output()).await {
        Err(_) => Err(format!("{name} did not answer within {} s", SYSTEMD_ANSWERS_WITHIN.as_secs())),
        Ok(Err(error)) => Err(format!("{name} could not be run: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let said = super::output::clean(&output.stderr, 300).trim().replace('\n', "; ");
            Err(format!("{name} ended with {}: {said}", output.status))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_systemd_gets_no_property_that_it_does_not_know() {
        for (text, version) in [
            ("systemd 239 (239-82.el8_10.3)\n+PAM +AUDIT\n", 239),
            ("systemd 241 (241)\n", 241),
            ("systemd 257 (257.8-1~deb13u2)\n", 257),
            ("systemd 256~rc1\n", 256),
        ] {
            assert_eq!(parse_version(text), Some(version));
        }
        assert!(["", "systemd", "systemd x", "elogind 252"].iter().all(|text| parse_version(text).is_none()));
        assert_eq!(since(239), ["Type=simple"]);
        assert_eq!(since(241), ["Type=exec"]);
        assert_eq!(since(u32::MAX), ["Type=exec", "OOMPolicy=continue"]);
    }
}
