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

use crate::app::executor::{SecretSource, execute};
use crate::catalog::copy;
use crate::catalog::trust::OwnerRule;
use crate::cli::connection::{Connection, ConnectionArgs};
use crate::cli::document::params;
use crate::cli::exit::{Exit, fault};
use crate::cli::follow::Follower;
use crate::cli::history::{this_host, this_host_or_node};
use crate::cli::{Failure, block, show};
use crate::config::Settings;
use crate::domain::name::Name;
use crate::domain::order::{Document, MAX_ORDER};
use crate::domain::plan::{Action, Plan, RunPaths, Trigger};
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
    /// Leave the run's folder in place
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: ConnectionArgs,
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
        let Document::Order(order) = read.map_err(|error| fault(Exit::ConfigError, error.to_string()))?
        else {
            return Err(fault(Exit::ConfigError, "the parameters make no order"));
        };
        let handed = match &arguments.secrets {
            Some(path) => SecretSource::Given(secrets(path)?),
            None => {
                if !task.secrets.is_empty() {
                    show::note("the task needs secrets: name a file with --secrets");
                }
                SecretSource::Nothing
            }
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
        let mut plan = plan(&order, task, &about).map_err(|why| fault(Exit::Refused, why))?;
        if let Some(step) = &arguments.fail_at {
            fail_at(&mut plan, step)?;
        }
        let folder = Folder::new(&at("runs"), run);
        folder.create(text.as_bytes(), &plan)?;
        carry_out(&folder, handed).await?;
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

/// What a step that is to fail runs: its own command, then its failure.
const FAILS: &str = "\"$@\"; echo 'the step fails as asked: --fail-at' >&2; exit 1";

/// Has a step fail behind its own command.
fn fail_at(plan: &mut Plan, name: &str) -> Result<(), Failure> {
    let names: Vec<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
    let Some(step) = plan.steps.iter_mut().find(|step| step.name == name) else {
        let message = format!("the task has no step {name}: it has {}", names.join(", "));
        return Err(fault(Exit::NotFound, message));
    };
    let Action::Run(argv) = &mut step.action else {
        return Err(fault(
            Exit::Usage,
            format!("the step {name} is a playbook, which cannot be made to fail"),
        ));
    };
    let shell = ["/bin/sh", "-c", FAILS, name].map(str::to_owned);
    argv.splice(0..0, shell);
    // Its check would say that it is done after all.
    step.check = None;
    Ok(())
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
    let missing = || fault(Exit::NotFound, format!("there is no file {}", path.display()));
    let text = disk::read(path, MAX_ORDER as u64 + 1)?.ok_or_else(missing)?;
    let wrong = |error: yaml::YamlError| fault(Exit::ConfigError, format!("{}:{error}", path.display()));
    let values: BTreeMap<Name, String> = yaml::parse(&text, MAX_ORDER).map_err(wrong)?;
    Ok(values.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}

fn all_params(arguments: &Arguments) -> Result<Value, Failure> {
    let mut all = serde_json::Map::new();
    if let Some(path) = &arguments.params {
        let missing = || fault(Exit::NotFound, format!("there is no file {}", path.display()));
        let text = disk::read(path, MAX_ORDER as u64 + 1)?.ok_or_else(missing)?;
        let wrong = |error: yaml::YamlError| fault(Exit::ConfigError, format!("{}:{error}", path.display()));
        all = yaml::parse(&text, MAX_ORDER).map_err(wrong)?;
    }
    all.extend(params(&arguments.param)?);
    Ok(all.into())
}

/// Runs the executor and prints what it prints. The first Ctrl-C cancels, as an operator would; a second one stops
/// the run as a host that goes down does.
async fn carry_out(folder: &Folder, handed: SecretSource<'_>) -> Result<(), Failure> {
    let mut follower = Follower::new(folder.path());
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = false;
    let executor = execute(folder.path(), 1, handed);
    tokio::pin!(executor);
    loop {
        tokio::select! {
            done = &mut executor => {
                follower.end()?;
                return Ok(done?);
            }
            // Nobody who reads: the run goes on to its end, and only then this is told.
            _ = look.tick() => if let Err(error) = follower.print() {
                executor.as_mut().await?;
                return Err(error.into());
            },
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
