//! Completion in shells, of the commands and of the names that the store knows.
//!
//! The shell asks the program itself (`COMPLETE=bash hostler -- words`), so that what is offered is what this version
//! understands and what stands in the store now. Whoever waits for a key press waits a second at most; without a
//! store nothing is offered, and nothing is said.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Arg;
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use tokio::time::timeout;

use super::connection::{Connection, ConnectionArgs};
use super::downtime;
use super::facts;
use super::fleet::Fleet;
use super::history::{ReportedRun, folders, newest_here};
use super::{command, runtime};
use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::Document;

/// The variable by which a shell asks.
const ASKS: &str = "COMPLETE";
/// How long a person waits for a store.
const WITHIN: Duration = Duration::from_secs(1);
/// So many of the newest runs are offered.
const RUNS: usize = 50;

/// Answers a shell and ends the process, if a shell asks.
pub(super) fn answer() {
    CompleteEnv::with_factory(|| with_names(command())).var(ASKS).complete();
}

/// Writes what makes each shell ask into a folder, one file a shell under the name that it looks for.
pub fn registrations(folder: &Path) -> io::Result<()> {
    for (shell, file) in [("bash", "hostler.bash"), ("zsh", "_hostler"), ("fish", "hostler.fish")] {
        let shells = Shells::builtins();
        let shell = shells.completer(shell).ok_or_else(|| io::Error::other(shell))?;
        let mut script = Vec::new();
        shell.write_registration(ASKS, "hostler", "hostler", "hostler", &mut script)?;
        fs::write(folder.join(file), script)?;
    }
    Ok(())
}

/// What an argument names, by the word that stands for it in the help.
#[derive(Clone, Copy)]
enum Names {
    Hosts,
    Groups,
    Orders,
    Tasks,
    Runs,
    RunsAndOrders,
    Facts,
    Services,
    /// The parameters of the task that the command line names, each with its `=`.
    Params,
}

impl Names {
    fn of(arg: &Arg) -> Option<Self> {
        match arg.get_value_names()?.first()?.as_str() {
            "HOST" => Some(Self::Hosts),
            "GROUP" => Some(Self::Groups),
            "ORDER" => Some(Self::Orders),
            "TASK" | "NAME|FOLDER" | "FOLDER|NAME" => Some(Self::Tasks),
            "RUN" => Some(Self::Runs),
            "RUN|ORDER" => Some(Self::RunsAndOrders),
            "EXPR" => Some(Self::Facts),
            "SERVICE" => Some(Self::Services),
            "NAME=VALUE" => Some(Self::Params),
            _ => None,
        }
    }
}

/// The commands, each argument that is a name with what it may be.
fn with_names(command: clap::Command) -> clap::Command {
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match Names::of(&arg) {
        Some(names) => arg.add(ArgValueCandidates::new(move || known(names))),
        None => arg,
    });
    subcommands.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_names))
}

fn known(names: Names) -> Vec<CompletionCandidate> {
    let place = ConnectionArgs::of_words(std::env::args_os());
    let Ok(runtime) = runtime() else { return Vec::new() };
    let asked = runtime.block_on(async { timeout(WITHIN, ask(names, &place)).await });
    // Whatever still waits for an answer does not keep the shell.
    runtime.shutdown_background();
    asked.ok().flatten().unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
}

/// None: there is nobody who could say.
async fn ask(names: Names, place: &ConnectionArgs) -> Option<BTreeSet<String>> {
    let settings = place.settings().ok()?;
    let open = Connection::existing(&settings).ok();
    let strings = |names: BTreeSet<&Name>| names.into_iter().map(ToString::to_string).collect();
    Some(match names {
        Names::Services => downtime::names(&settings, open.as_ref()).await,
        Names::Hosts => strings(Fleet::read(&open?).await.ok()?.hosts()),
        Names::Groups => strings(Fleet::read(&open?).await.ok()?.groups()),
        Names::Orders => {
            Fleet::read(&open?).await.ok()?.orders.keys().map(|key| key.order.to_string()).collect()
        }
        Names::Tasks => {
            let catalog = Catalog::load(&settings.task_dirs, OwnerRule::of_process());
            let mut tasks: BTreeSet<String> = catalog.iter().map(|(name, _)| name.to_owned()).collect();
            // What is installed elsewhere is known by the orders for it.
            if let Some(place) = open
                && let Ok(fleet) = Fleet::read(&place).await
            {
                tasks.extend(fleet.orders.values().filter_map(|placed| match &placed.document {
                    Ok(Document::Order(order)) => Some(order.task.to_string()),
                    _ => None,
                }));
            }
            tasks
        }
        Names::Params => params(&Catalog::load(&settings.task_dirs, OwnerRule::of_process())),
        Names::Facts => facts::names(&open?).await?.into_iter().collect(),
        Names::Runs | Names::RunsAndOrders => {
            let here = folders(&settings, None).await.filter(|_| !place.is_folder_only());
            let runs: Vec<RunId> = match here {
                Some(dir) => newest_here(&dir, RUNS, |_| true).ok()?.iter().map(|known| known.run).collect(),
                None => ReportedRun::all(&open?, None).await.ok()?.iter().map(|one| one.run).collect(),
            };
            let mut found: BTreeSet<String> =
                runs.into_iter().take(RUNS).map(|run| run.to_string()).collect();
            if matches!(names, Names::RunsAndOrders)
                && let Some(place) = Connection::existing(&settings).ok()
                && let Ok(fleet) = Fleet::read(&place).await
            {
                found.extend(fleet.orders.keys().map(|key| key.order.to_string()));
            }
            found
        }
    })
}

/// The parameters of the first task that a word of the command line names; a task from elsewhere has none here.
fn params(catalog: &Catalog) -> BTreeSet<String> {
    let words = std::env::args_os().filter_map(|word| word.into_string().ok());
    let task = words.filter_map(|word| catalog.get(&word).ok()).next();
    task.into_iter().flat_map(|loaded| loaded.task.schema.names()).map(|name| format!("{name}=")).collect()
}

impl ConnectionArgs {
    /// What the words of an unfinished command line say of where it works.
    fn of_words(words: impl Iterator<Item = std::ffi::OsString>) -> Self {
        let mut args = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(word) = word.to_str() else { continue };
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(PathBuf::from(value))),
                None => (word, words.peek().map(PathBuf::from)),
            };
            match name {
                "--config" | "-c" => args.config = value,
                "--store-dir" => args.store_dir = value,
                _ => {}
            }
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_command_works_is_read_from_an_unfinished_line() {
        let words = |line: &str| {
            ConnectionArgs::of_words(
                line.split(' ').map(std::ffi::OsString::from).collect::<Vec<_>>().into_iter(),
            )
        };
        assert_eq!(words("hostler status --config a.yml --host").config, Some("a.yml".into()));
        assert_eq!(words("hostler status --store-dir=b ").store_dir, Some("b".into()));
        assert_eq!(words("hostler status --config").config, None);
    }

    #[test]
    fn each_name_that_a_command_takes_can_be_completed() {
        // Words that stand for something new, or for no name at all.
        let others = [
            "FILE", "DIR", "WHEN", "SPAN", "TIME", "WHO", "TEXT", "N", "NAME", "DOCUMENT", "WHAT", "STATUS",
            "FOLDER", "COMMAND", "ROLE", "PACKAGE", "VERSION", "KIND", "NEW",
        ];
        fn look(command: &clap::Command, others: &[&str]) {
            for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let word =
                    arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
                let listed = others.contains(&word);
                assert!(
                    Names::of(arg).is_some() != listed,
                    "{}: {} {word}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().filter(|sub| !sub.is_hide_set()).for_each(|sub| look(sub, others));
        }
        let mut command = command();
        command.build();
        look(&command, &others);
    }
}
