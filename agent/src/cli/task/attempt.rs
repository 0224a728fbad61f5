//! `hostler task try`: one run of a task by hand, with the executor that the agent would start.
//!
//! The run has a state folder of its own below the system's temporary folder, which goes with it. What the task
//! does to the host is real, unless it is a dry run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sys::signal::{Signal, raise};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::fault::{self, Interruption};
use crate::app::executor::{SecretSource, execute};
use crate::catalog::copy;
use crate::catalog::trust::OwnerRule;
use crate::cli::connection::{Connection, ConnectionArgs};
use crate::cli::document::params;
use crate::cli::exit::{self, Exit};
use crate::cli::follow::Follower;
use crate::cli::history::{this_host, this_host_or_node};
use crate::cli::{Failure, block, show};
use crate::config::Settings;
use crate::domain::name::Name;
use crate::domain::order::{Document, MAX_ORDER};
use crate::domain::plan::{Action, Plan, RunPaths, Step, Trigger};
use crate::domain::plan_builder::{PlanContext, plan};
use crate::domain::run::Phase;
use crate::domain::secret::Secret;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::{RunRequest, end_of};
use crate::domain::summary::downtime;
use crate::domain::yaml;
use crate::exec::secret_mount;
use crate::host::{clock, disk};
use crate::ledger::Folder;

/// A store that does not say the name of this host within this is not waited for: the task is tried without one.
const NAMED_WITHIN: Duration = Duration::from_secs(3);
/// How often the output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The task's folder, or its name
    #[arg(value_name = "FOLDER|NAME")]
    task: String,
    /// A file with the parameters, YAML or JSON
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
    /// A parameter; wins over the file
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// A file with the secrets that the task wants, a map of names and values
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Probe and plan only
    #[arg(long)]
    dry_run: bool,
    /// Let this step carry out its work and then fail, to see what is taken back
    #[arg(long, value_name = "NAME", conflicts_with = "dry_run")]
    fail_at: Option<String>,
    /// Kill this step and its executor when its work is done and not yet recorded, as a power cut does, then go on
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "fail_at"])]
    interrupt: Option<String>,
    /// Leave the run's folder in place
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// How one epoch came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    ToItsEnd,
    /// Its executor is dropped, and what it started still runs.
    Interrupted,
}

/// A folder that goes with this value.
struct Temporary {
    path: PathBuf,
    keep: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.keep {
            show::note(format!("the run's folder is in {}", self.path.display()));
        } else if let Err(error) = remove(&self.path) {
            show::note(format!("{} is left behind: {error}", self.path.display()));
        }
    }
}

/// Removes a folder with copies of tasks in it, which nobody may write.
fn remove(path: &Path) -> std::io::Result<()> {
    fn open_up(dir: &Path) {
        // What cannot be changed is told by the removal.
        let _ = disk::set_mode(dir, 0o700);
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open_up(&entry.path());
            }
        }
    }
    secret_mount::take_away(&path.join("run"))?;
    open_up(path);
    fs::remove_dir_all(path)
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let loaded = super::find(&arguments.task, || arguments.place.settings())?;
        let task = &loaded.task;
        let settings = arguments.place.settings()?;
        let text = json!({"task": task.name, "params": all_params(arguments)?, "dry_run": arguments.dry_run});
        let text = text.to_string();
        let read = Document::read(text.as_bytes());
        let Document::Order(order) =
            read.map_err(|error| exit::fault(Exit::ConfigError, error.to_string()))?
        else {
            return Err(exit::fault(Exit::ConfigError, "the parameters make no order"));
        };
        if arguments.secrets.is_none() && !task.secrets.is_empty() {
            show::note("the task needs secrets: name a file with --secrets");
        }
        let handed = || -> Result<SecretSource<'_>, Failure> {
            let path = arguments.secrets.as_deref();
            Ok(path.map(secrets).transpose()?.map_or(SecretSource::Nothing, SecretSource::Given))
        };
        let run = clock::new_run();
        let temporary =
            Temporary { path: std::env::temp_dir().join(format!("hostler-try-{run}")), keep: arguments.keep };
        // Its user must be able to go through it to the task's copy.
        disk::make_dir(&temporary.path)?;
        let at = |name: &str| temporary.path.join(name);
        for name in ["tasks", "runs", "run"] {
            disk::make_dir(&at(name))?;
        }
        for dir in [temporary.path.clone(), at("tasks"), at("run")] {
            disk::set_mode(&dir, 0o711)?;
        }
        let copied = copy::store(&loaded.folder, &at("tasks"), OwnerRule::of_process())?;
        let host = host(&settings).await?;
        let key = OrderKey { source: Source::Host(host.clone()), order: task.name.clone() };
        let place = RunPaths { task_dir: copied.path, runtime_dir: at("run"), systemd: false };
        let about = PlanContext {
            run,
            key: &key,
            trigger: Trigger::Placed,
            host: &host,
            digest: copied.digest,
            place,
        };
        let mut plan = plan(&order, task, &about).map_err(|why| exit::fault(Exit::Refused, why))?;
        if let Some(step) = &arguments.fail_at {
            fault::fail_at(&mut plan, step)?;
        }
        let interruption = match &arguments.interrupt {
            Some(step) => Some(Interruption::of(&mut plan, step, &temporary.path)?),
            None => None,
        };
        let folder = Folder::new(&at("runs"), run);
        folder.create(text.as_bytes(), &plan)?;
        let mut follower = Follower::new(folder.path());
        if carry_out(&folder, 1, handed()?, &mut follower, interruption.as_ref()).await? == Came::Interrupted
        {
            fault::kill_all(&folder, run).await?;
            show::note(
                "the step and its executor were killed; another executor goes on, as after a power cut",
            );
            carry_out(&folder, 2, handed()?, &mut follower, None).await?;
        }
        let state = folder.state(&plan)?;
        let Some(outcome) = state.outcome() else {
            let why = match &state.phase {
                Phase::Suspended(rest) => format!("the run rests: {rest:?}"),
                phase => format!("the run was left at {phase:?}"),
            };
            show::note(format!("{why}; an agent would go on with it later"));
            return Ok(Exit::Pending.into());
        };
        for warning in &state.warnings {
            show::note(show::inline(warning));
        }
        let (end, error) = end_of(outcome);
        if arguments.dry_run {
            plan_lines(&plan).iter().try_for_each(show::line)?;
        }
        for (name, value) in &state.outputs {
            show::line(format!("  {} = {}", show::inline(name), show::inline(value)))?;
        }
        for one in downtime(&state) {
            show::line(format!("  downtime: {one}"))?;
        }
        let error = error.map(|error| format!(": {error}")).unwrap_or_default();
        show::line(show::inline(&format!("{}{error}", end.as_str())))?;
        Ok(Exit::of_end(end).into())
    })
}

/// What would be carried out: a line for each step, with what may happen to it.
fn plan_lines(plan: &Plan) -> Vec<String> {
    let words = |argv: &[String]| argv.iter().map(|word| show::quoted(word)).collect::<Vec<_>>().join(" ");
    let one = |(i, step): (usize, &Step)| {
        let action = match &step.action {
            Action::Run(argv) => words(argv),
            _ => "a playbook".to_owned(),
        };
        let effect = step.effect.as_str();
        let user = step.user.as_ref().map(|user| format!(", as {user}")).unwrap_or_default();
        let guard = if step.guard.is_some() { ", guarded" } else { "" };
        let undo =
            step.undo.as_ref().map(|undo| format!("; undo: {}", words(&undo.argv))).unwrap_or_default();
        let place = format!("{}/{} {}", i + 1, plan.steps.len(), step.name);
        show::inline(&format!("  {place} ({effect}{user}{guard}): {action}{undo}"))
    };
    plan.steps.iter().enumerate().map(one).collect()
}

/// The host that the task sees: this one, as its agent would name it; where that is not known, `localhost`.
async fn host(settings: &Settings) -> Result<Name, Failure> {
    let named = async {
        match this_host(settings) {
            Some(host) => Some(host),
            None => this_host_or_node(settings, &Connection::existing(settings).ok()?).await,
        }
    };
    match timeout(NAMED_WITHIN, named).await.ok().flatten() {
        Some(host) => Ok(host),
        None => {
            show::note("the name of this host is not known, so the task sees `localhost`: set `host:`");
            Ok("localhost".parse()?)
        }
    }
}

/// The values that are to be tried with. They are an author's own; those of Vault never lie in a file.
fn secrets(path: &Path) -> Result<BTreeMap<Name, Secret>, Failure> {
    let missing = || exit::fault(Exit::NotFound, format!("there is no file {}", path.display()));
    let text = disk::read(path, MAX_ORDER as u64 + 1)?.ok_or_else(missing)?;
    let wrong =
        |error: yaml::YamlError| exit::fault(Exit::ConfigError, format!("{}:{error}", path.display()));
    let values: BTreeMap<Name, String> = yaml::parse(&text, MAX_ORDER).map_err(wrong)?;
    Ok(values.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}

fn all_params(arguments: &Arguments) -> Result<Value, Failure> {
    let mut all = serde_json::Map::new();
    if let Some(path) = &arguments.params {
        let missing = || exit::fault(Exit::NotFound, format!("there is no file {}", path.display()));
        let text = disk::read(path, MAX_ORDER as u64 + 1)?.ok_or_else(missing)?;
        let wrong =
            |error: yaml::YamlError| exit::fault(Exit::ConfigError, format!("{}:{error}", path.display()));
        all = yaml::parse(&text, MAX_ORDER).map_err(wrong)?;
    }
    all.extend(params(&arguments.param)?);
    Ok(all.into())
}

/// Runs the executor and prints what it prints. The first Ctrl-C cancels, as an operator would; a second one stops
/// the run as a host that goes down does.
async fn carry_out(
    folder: &Folder,
    epoch: u32,
    handed: SecretSource<'_>,
    follower: &mut Follower,
    interruption: Option<&Interruption>,
) -> Result<Came, Failure> {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = false;
    let executor = execute(folder.path(), epoch, handed);
    tokio::pin!(executor);
    loop {
        tokio::select! {
            done = &mut executor => {
                follower.end()?;
                done?;
                return Ok(Came::ToItsEnd);
            }
            // Nobody who reads: the run goes on to its end, and only then this is told.
            _ = look.tick() => {
                if let Err(error) = follower.print() {
                    executor.as_mut().await?;
                    return Err(error.into());
                }
                if interruption.is_some_and(Interruption::is_due) {
                    return Ok(Came::Interrupted);
                }
            }
            _ = tokio::signal::ctrl_c() => {
                if std::mem::replace(&mut asked, true) {
                    raise(Signal::SIGTERM)?;
                } else {
                    show::note("cancelling; press Ctrl-C again to stop it immediately");
                    folder.request(&RunRequest::Cancel { by: "hostler task try".into(), reason: "Ctrl-C".into() })?;
                }
            }
        }
    }
}
