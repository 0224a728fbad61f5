//! The commands: one file each.

mod admit;
mod adopt;
mod agent;
mod audit;
mod audit_afar;
mod check;
mod complete;
mod confirm;
mod connection;
mod control;
mod dev;
mod document;
mod downtime;
mod enroll;
mod examples;
mod executor;
mod exit;
mod facts;
mod fleet;
mod follow;
mod freeze;
mod history;
mod host;
mod live;
mod logs;
mod moment;
mod order;
mod progress;
mod run;
mod runs;
mod schema;
mod screen;
mod show;
mod status;
mod table;
mod task;
mod watch;
mod watcher;

pub use complete::registrations;
pub use enroll::policy;
pub use schema::{Document, schema};

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::domain::control::ControlAction;
use crate::domain::name::Name;
use crate::exec::launcher::{EXECUTOR, WATCHER};
use crate::host::allocator;
use crate::host::journald::Journald;
use crate::host::logging::{self, Level};
use exit::Exit;

/// Where whoever has never used it finds the way from here.
const FIRST: &str = "First steps: `hostler dev` shows everything here and now. With Consul:
  hostler check --store-only      what you may do with the store
  hostler enroll HOST             prepares the store for a host
  hostler check                   on the host; then start its agent
  hostler run hello --host HOST   has it carry something out
  hostler status                  hosts and the state of their orders";

/// Carries out orders from Consul on this host, each once, and reports the result.
#[derive(Parser)]
#[command(name = "hostler", version, about, after_help = FIRST)]
struct Cli {
    #[command(flatten)]
    screen: screen::ScreenArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this host (systemd does this).
    Agent(agent::Arguments),
    /// Try Hostler without a server: an agent on a local folder.
    Dev(dev::Arguments),
    /// Check this host's configuration and rights, with a fix each.
    Check(check::Arguments),
    /// Prepare the store for hosts and print their ACL policies.
    Enroll(enroll::Arguments),
    /// Rename a host, or remove one that is gone, in the store.
    Host(host::Arguments),
    /// Write, show, list and remove orders.
    Order(order::Arguments),
    /// Run a task on a host or group now, and wait for its end.
    Run(Box<run::Arguments>),
    /// Cancel a run (undone first) or a waiting order.
    Cancel(Box<control::Arguments>),
    /// Run a held order.
    Release(Box<control::Arguments>),
    /// Run the same instruction once more.
    Retry(Box<control::Retry>),
    /// Record the outcome of a run that needs an operator.
    Acknowledge(Box<control::Acknowledge>),
    /// Undo the undoable steps of a run that needs an operator.
    Undo(Box<control::Arguments>),
    /// Accept a held order as already applied, without running it.
    Accept(Box<control::Accept>),
    /// Block new starts on a host or in a group.
    Freeze(freeze::Arguments),
    /// End a freeze.
    Thaw(freeze::Thaw),
    /// Accept this host's identity after a rename, restore or clone.
    Adopt(adopt::Arguments),
    /// Show or verify this host's audit record, or what others report.
    Audit(audit::Arguments),
    /// Show hosts and orders; exits with 1 unless all are done.
    Status(status::Arguments),
    /// Show what hosts say of themselves; exits with 1 if none matches.
    Facts(facts::Arguments),
    /// List the newest runs.
    Runs(runs::Arguments),
    /// Show downtime of services, error budgets and what spent them.
    Downtime(downtime::Arguments),
    /// Print the output of a run.
    Logs(logs::Arguments),
    /// List, show, check and try tasks.
    Task(task::Arguments),
    /// Commands for the shipped tasks.
    #[command(hide = true)]
    Admit(admit::Arguments),
    /// Print the JSON Schema of a document or of --json output.
    Schema(schema::Arguments),
}

/// The definitions of all commands: man pages and completions are made from them.
pub fn command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// Runs the program.
pub fn main() -> ExitCode {
    allocator::keep_tight();
    let word = std::env::args_os().nth(1).unwrap_or_default();
    if word == EXECUTOR {
        return ended(executor::run(&executor::Executor::parse().arguments()));
    }
    if word == WATCHER {
        return ended(watcher::run(&watcher::Watcher::parse().arguments()));
    }
    // Whatever is more than the service's own line (help, an option of screens, a fault) is read with all commands.
    if word == "agent"
        && let Ok(service) = agent::Service::try_parse()
    {
        return ended(agent::run(&service.arguments()));
    }
    complete::answer();
    let mut matches = command().try_get_matches().unwrap_or_else(|error| helpful(error).exit());
    let cli =
        Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut command()).exit());
    screen::apply(&cli.screen);
    ended(match cli.command {
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Enroll(arguments) => enroll::run(&arguments),
        Command::Host(arguments) => host::run(&arguments),
        Command::Order(arguments) => order::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Cancel(arguments) => control::run(&arguments, ControlAction::Cancel),
        Command::Release(arguments) => control::run(&arguments, ControlAction::Release),
        Command::Retry(arguments) => control::retry(&arguments),
        Command::Acknowledge(arguments) => control::acknowledge(&arguments),
        Command::Undo(arguments) => control::run(&arguments, ControlAction::Undo),
        Command::Accept(arguments) => control::accept(&arguments),
        Command::Freeze(arguments) => freeze::freeze(&arguments),
        Command::Thaw(arguments) => freeze::thaw(&arguments),
        Command::Adopt(arguments) => adopt::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Facts(arguments) => facts::run(&arguments),
        Command::Runs(arguments) => runs::run(&arguments),
        Command::Downtime(arguments) => downtime::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Task(arguments) => task::run(&arguments),
        Command::Admit(arguments) => admit::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
    })
}

/// Commands that have something carried out.
const ACTS: [&str; 4] = ["run", "release", "retry", "undo"];

/// An error as it helps: with a way to name a host where only a word stands, and without suggestions that would have
/// something carried out (`delete` is spelled almost as `release`).
fn helpful(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(all)) = error.remove(ContextKind::SuggestedSubcommand) {
        let rest: Vec<String> = all.into_iter().filter(|name| !ACTS.contains(&name.as_str())).collect();
        if !rest.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(rest));
        }
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && word.parse::<Name>().is_ok()
        && names_hosts()
    {
        let way = format!("a host is named by --host {word}, a group by --group {word}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![way.into()]));
    }
    error
}

/// Whether the command that was typed has an option `--host`.
fn names_hosts() -> bool {
    let mut typed = command();
    // Resolved, so that options which all commands share are in it.
    typed.build();
    let mut command = &typed;
    for word in std::env::args().skip(1) {
        command = command.find_subcommand(&word).unwrap_or(command);
    }
    command.get_arguments().any(|argument| argument.get_long() == Some("host"))
}

fn ended(done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            let exit = Exit::of_failure(&error);
            if exit != Exit::BrokenPipe {
                show::error(show::inline(&error.to_string()));
            }
            exit.into()
        }
    }
}

/// What a command that failed says: one line.
type Failure = Box<dyn std::error::Error>;

/// A runtime of one thread; blocking work goes to others.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .on_thread_park(allocator::parked)
        .build()
}

/// Runs one command's work to its end; whatever still waits in a thread does not keep it.
fn block(work: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    log("warn");
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// The environment, as the configuration reads it.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Logs to standard error; what changes the level later.
fn log(level: &str) -> Level {
    logging::start(level, None, env("HOSTLER_LOG").as_deref())
}

/// Logs to the journal, where standard error leads to it.
fn log_to_journal(level: &str) -> Level {
    let journal = Journald::behind_stderr(env("JOURNAL_STREAM").as_deref());
    logging::start(level, journal, env("HOSTLER_LOG").as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that a page tells its reader to type, with the line that they stand in.
    fn commands(page: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut block = false;
        for line in page.lines() {
            if line.trim_start().starts_with("```") {
                block = !block;
                continue;
            }
            if block {
                let typed = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
                found.extend(typed.starts_with("hostler ").then(|| typed.to_owned()));
            } else {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.filter(|span| span.starts_with("hostler ")).map(str::to_owned));
            }
        }
        found
    }

    #[test]
    fn what_the_guides_tell_their_readers_to_type_is_understood() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut pages = vec![root.join("README.md")];
        let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(docs.filter(|path| path.is_file()));
        let mut count = 0;
        for page in pages {
            for typed in commands(&std::fs::read_to_string(&page).unwrap()) {
                // What stands in quotes is one word.
                let quoted = |(i, part): (usize, &str)| {
                    if i % 2 == 1 { part.replace(' ', "_") } else { part.to_owned() }
                };
                let typed: String = typed.split('"').enumerate().map(quoted).collect();
                // Up to a comment, a pipe, or what the shell does with the output.
                let words: Vec<&str> = typed
                    .split_whitespace()
                    .take_while(|word| !["#", "|", "&", "&&", ";"].contains(word) && !word.starts_with('>'))
                    .map(|word| word.trim_matches(['"', '\'', ',', ';']))
                    .collect();
                count += 1;
                // A command that is only named is not written out, and HOST is no name: neither misleads anybody.
                if let Err(error) = Cli::try_parse_from(&words) {
                    use clap::error::ErrorKind::{InvalidSubcommand, UnknownArgument};
                    let wrong = matches!(error.kind(), UnknownArgument | InvalidSubcommand);
                    assert!(!wrong, "{}: {typed}\n{error}", page.display());
                }
            }
        }
        assert!(count > 30, "{count} commands were found");
    }
}
