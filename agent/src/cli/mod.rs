//! The commands: one file each.

mod adopt;
mod agent;
mod audit;
mod check;
mod confirm;
mod control;
mod dev;
mod document;
mod enroll;
mod executor;
mod exit;
mod fleet;
mod follow;
mod freeze;
mod history;
mod live;
mod logs;
mod order;
mod place;
mod run;
mod runs;
mod show;
mod status;
mod table;
mod task;

pub use enroll::policy;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::domain::control::Act;
use crate::host::heap;
use crate::host::journald::Journald;
use crate::host::logging::{self, Level};
use exit::Exit;

/// Carries out orders from Consul on this host, each once, and reports the result.
#[derive(Parser)]
#[command(name = "hostler", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this host (systemd does this).
    Agent(agent::Arguments),
    /// Try Hostler here and now: an agent on a folder, with an order for the task hello.
    Dev(dev::Arguments),
    /// Say everything that is wrong with this host, each with its cure.
    Check(check::Arguments),
    /// Prepare the store for a host, and print the rights that its agent needs.
    Enroll(enroll::Arguments),
    /// Write, show, list and remove orders.
    Order(order::Arguments),
    /// Have a task carried out on a host now, and wait for its end.
    Run(Box<run::Arguments>),
    /// End a run, undone first; or keep one that waits from starting.
    Cancel(Box<control::Arguments>),
    /// Carry out what a host holds back.
    Release(Box<control::Arguments>),
    /// Carry the same instruction out once more.
    Retry(Box<control::Arguments>),
    /// Settle a run of which only a person can tell what is true: as done or as failed.
    Acknowledge(Box<control::Acknowledge>),
    /// Take back what can be taken back of such a run.
    Undo(Box<control::Arguments>),
    /// Accept what a host holds back as what stands, without carrying it out.
    Rebase(Box<control::Arguments>),
    /// Keep anything new from starting in a group; what runs goes on.
    Freeze(freeze::Arguments),
    /// End a freeze.
    Thaw(freeze::Thaw),
    /// Say on a renamed, restored or cloned host that it is who it seems to be now.
    Adopt(adopt::Arguments),
    /// Show what this host was asked for, what it decided and did; or prove that nothing of it was changed.
    Audit(audit::Arguments),
    /// Show hosts and where orders stand.
    Status(status::Arguments),
    /// List the newest runs.
    Runs(runs::Arguments),
    /// Print what a run printed.
    Logs(logs::Arguments),
    /// List, show, check and try tasks.
    Task(task::Arguments),
    /// Carry out one epoch of a run; started by the agent only.
    #[command(hide = true)]
    Executor(executor::Arguments),
}

/// The definitions of all commands: man pages and completions are made from them.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    heap::share();
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Agent(arguments) => agent::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Enroll(arguments) => enroll::run(&arguments),
        Command::Order(arguments) => order::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Cancel(arguments) => control::run(&arguments, Act::Cancel, None),
        Command::Release(arguments) => control::run(&arguments, Act::Release, None),
        Command::Retry(arguments) => control::run(&arguments, Act::Retry, None),
        Command::Acknowledge(arguments) => control::acknowledge(&arguments),
        Command::Undo(arguments) => control::run(&arguments, Act::Undo, None),
        Command::Rebase(arguments) => control::run(&arguments, Act::Rebase, None),
        Command::Freeze(arguments) => freeze::freeze(&arguments),
        Command::Thaw(arguments) => freeze::thaw(&arguments),
        Command::Adopt(arguments) => adopt::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Runs(arguments) => runs::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Task(arguments) => task::run(&arguments),
        Command::Executor(arguments) => executor::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let exit = Exit::of_failure(&error);
            if exit != Exit::Pipe {
                show::note(show::inline(&error.to_string()));
            }
            exit.into()
        }
    }
}

/// What a command that failed says: one line.
type Failure = Box<dyn std::error::Error>;

/// A runtime of one thread; blocking work goes to others.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
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
