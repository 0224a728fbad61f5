//! `hostler task`: the installed tasks, and what their authors need: faults with their places, and a run by hand.

mod attempt;
mod fault;
mod fleet;
mod here;
mod new;
mod package;
mod page;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::ConnectionArgs;
use super::exit::{Exit, fault};
use super::table::Table;
use super::{Failure, block, show};
use crate::catalog::trust::OwnerRule;
use crate::catalog::{self, Broken, Catalog, Loaded, NoTask};
use crate::config::{Settings, allows};
use crate::domain::name::Name;
use crate::domain::task::Work;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: TaskCommand,
}

#[derive(Subcommand)]
enum TaskCommand {
    /// List the installed tasks, the broken ones too
    List(List),
    /// Show what a task does and which parameters it takes
    Show(Show),
    /// Make the folder of a new task: a small one that works, with its test
    New(new::Arguments),
    /// Look for faults in tasks; ends with 1 if there are any
    Lint(Lint),
    /// Make a deb and an rpm of tasks
    Package(package::Arguments),
    /// Run a task by hand, here and now, without store or agent
    Try(Box<attempt::Arguments>),
}

#[derive(Args)]
struct List {
    /// As these hosts report, separated by commas; which have which version
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<Name>,
    /// As the known hosts of this group report
    #[arg(long, value_name = "GROUP", conflicts_with = "host")]
    group: Option<Name>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
struct Show {
    /// The task's name, or its folder
    #[arg(value_name = "NAME|FOLDER")]
    task: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
struct Lint {
    /// A task's name or folder; all installed ones when not said
    #[arg(value_name = "NAME|FOLDER")]
    task: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.act {
        TaskCommand::List(arguments) => list(arguments),
        TaskCommand::Show(arguments) => show(arguments),
        TaskCommand::Lint(arguments) => lint(arguments),
        TaskCommand::New(arguments) => new::run(arguments),
        TaskCommand::Package(arguments) => package::run(arguments),
        TaskCommand::Try(arguments) => attempt::run(arguments),
    }
}

fn installed(settings: &Settings) -> Catalog {
    let catalog = Catalog::load(&settings.task_dirs, OwnerRule::of_process());
    catalog.unreadable().iter().for_each(|why| show::note(show::inline(why)));
    catalog
}

fn list(arguments: &List) -> Result<ExitCode, Failure> {
    if !arguments.host.is_empty() || arguments.group.is_some() {
        return block(async {
            let place = arguments.place.open()?;
            fleet::list(&place, &arguments.host, arguments.group.as_ref(), arguments.json).await
        });
    }
    let settings = arguments.place.settings()?;
    let catalog = installed(&settings);
    if arguments.json {
        let all: Vec<Value> = catalog
            .iter()
            .map(|(name, task)| match task {
                Ok(loaded) => described(loaded, &settings),
                Err(broken) => json!({"name": name, "folder": broken.folder, "faults": broken.faults}),
            })
            .collect();
        show::json(&all)?;
        return Ok(Exit::Success.into());
    }
    let mut table = Table::new(&["TASK", "VERSION", "STATE", "FOLDER", "DESCRIPTION"]);
    for (name, task) in catalog.iter() {
        table.row(match task {
            Ok(Loaded { task, folder }) => [
                name.to_owned(),
                task.version.to_string(),
                if allows(&settings.allow, &task.name) { "ready" } else { "not allowed" }.to_owned(),
                folder.display().to_string(),
                task.description.clone(),
            ],
            Err(broken) => [
                name.to_owned(),
                "-".to_owned(),
                "broken".to_owned(),
                broken.folder.display().to_string(),
                broken.faults.join("; "),
            ],
        });
    }
    if !table.is_empty() {
        show::page(&table.shown())?;
    } else {
        let dirs: Vec<String> = settings.task_dirs.iter().map(|dir| dir.display().to_string()).collect();
        show::note(format!("no tasks are installed in {}: hostler task new NAME makes one", dirs.join(", ")));
    }
    Ok(Exit::Success.into())
}

fn described(loaded: &Loaded, settings: &Settings) -> Value {
    let task = &loaded.task;
    let step = |step: &crate::domain::task::Step| {
        let work = match &step.work {
            Work::Run(argv) => json!({"run": argv.iter().map(|a| a.source()).collect::<Vec<_>>()}),
            Work::Ansible(playbook) => json!({"ansible": playbook}),
        };
        json!({"name": step.name, "effect": step.effect, "user": step.user, "work": work,
            "check": step.check.is_some(), "undo": step.undo.is_some()})
    };
    json!({
        "name": task.name, "version": task.version, "description": task.description, "folder": loaded.folder,
        "allowed": allows(&settings.allow, &task.name), "params": task.schema.value(), "timeout": task.timeout,
        "probe": task.probe.is_some(), "verify": task.verify.is_some(),
        "steps": task.steps.iter().map(step).collect::<Vec<_>>(), "faults": [],
    })
}

/// A task by its folder, or by its name among those that are installed.
fn find(task: &str, settings: impl FnOnce() -> Result<Settings, Failure>) -> Result<Loaded, Failure> {
    let broken = |broken: Broken| fault(Exit::ConfigError, broken.to_string());
    if let Some(folder) = as_folder(task) {
        return catalog::load_one(&folder, OwnerRule::of_process()).map_err(broken);
    }
    match installed(&settings()?).get(task) {
        Ok(loaded) => Ok(loaded.clone()),
        Err(NoTask::Broken(error)) => Err(broken(error)),
        Err(error @ NoTask::Unknown { .. }) => {
            Err(fault(Exit::NotFound, format!("{error}{}", folder_hint(task))))
        }
    }
}

fn folder_hint(task: &str) -> &'static str {
    if task.contains('/') {
        "; there is no such folder either"
    } else {
        " (a folder is written with a slash)"
    }
}

/// The folder that is meant, if one is; `.` and `..` have names of their own only in full.
fn as_folder(task: &str) -> Option<PathBuf> {
    let path = Path::new(task);
    let meant = task.contains('/') || task == "." || task == ".." || task.parse::<Name>().is_err();
    if meant { path.canonicalize().ok().filter(|path| path.is_dir()) } else { None }
}

fn show(arguments: &Show) -> Result<ExitCode, Failure> {
    let loaded = find(&arguments.task, || arguments.place.settings())?;
    let settings = arguments.place.settings()?;
    if arguments.json {
        show::json(&described(&loaded, &settings))?;
        return Ok(Exit::Success.into());
    }
    let allowed = allows(&settings.allow, &loaded.task.name);
    show::page(&page::page(&loaded, allowed))?;
    Ok(Exit::Success.into())
}

fn lint(arguments: &Lint) -> Result<ExitCode, Failure> {
    let mut looked = Vec::new();
    // A folder is looked at also where no configuration can be read.
    let objectives = arguments.place.settings().ok().map(|settings| settings.objectives);
    let mut add = |name: String, result: Result<&Loaded, &Broken>| {
        let warnings = |loaded: &Loaded| {
            [loaded.task.schema.warnings(), here::warnings(loaded, objectives.as_deref())].concat()
        };
        let warnings = result.map(warnings).unwrap_or_default();
        looked.push((name, result.err().map(|broken| broken.faults.clone()).unwrap_or_default(), warnings));
    };
    match &arguments.task {
        None => {
            let catalog = installed(&arguments.place.settings()?);
            catalog.iter().for_each(|(name, task)| add(name.to_owned(), task));
        }
        Some(task) => match as_folder(task) {
            Some(folder) => {
                let loaded = catalog::load_one(&folder, OwnerRule::of_process());
                add(task.clone(), loaded.as_ref());
            }
            None => match installed(&arguments.place.settings()?).get(task) {
                Ok(loaded) => add(task.clone(), Ok(loaded)),
                Err(NoTask::Broken(broken)) => add(task.clone(), Err(&broken)),
                Err(error) => return Err(fault(Exit::NotFound, format!("{error}{}", folder_hint(task)))),
            },
        },
    }
    let good = looked.iter().all(|(_, faults, _)| faults.is_empty());
    if arguments.json {
        let document =
            |(name, faults, warnings)| json!({"task": name, "faults": faults, "warnings": warnings});
        let all: Vec<Value> = looked.into_iter().map(document).collect();
        show::json(&all)?;
    } else {
        for (name, faults, warnings) in &looked {
            if faults.is_empty() {
                show::line(format!("{}: no faults", show::inline(name)))?;
            }
            for fault in faults {
                show::line(show::inline(fault))?;
            }
            for warning in warnings {
                show::line(format!("{}: warning: {}", show::inline(name), show::inline(warning)))?;
            }
        }
    }
    Ok(if good { Exit::Success } else { Exit::Negative }.into())
}
