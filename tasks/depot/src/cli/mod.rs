//! The command line: what can be asked for, and how an answer ends.

mod back;
mod check;
mod show;
mod table;
mod tend;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Options, Settings};
use crate::error::Error;
use crate::journal::Journal;
use crate::message::{complain, print, print_json};
use crate::store::Store;

/// Backups in object storage: hot on S3, cold on Glacier, and Backint for SAP HANA
#[derive(Parser)]
#[command(name = "hostler-depot", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Test the bucket and the keys, and suggest settings
    Check(check::Check),
    /// Store standard input or the output of a command
    Put(back::Put),
    /// Restore a backup to standard output, a file or a command
    Get(back::Get),
    /// List backups, oldest first
    List(show::List),
    /// Show the details of one backup
    Show(show::Show),
    /// Read backups and compare them with their checksums
    Verify(show::Verify),
    /// Show where backups are and how long a restore takes to start
    Status(show::Status),
    /// Request a cold backup from its archive
    Thaw(tend::Thaw),
    /// Move a backup to another storage class
    Move(tend::Move),
    /// Delete backups
    Delete(tend::Delete),
    /// Apply the retention rules and clean up
    Prune(tend::Prune),
    /// Remove what interrupted operations left; touches no backup
    Clean(tend::Clean),
    /// Serve SAP HANA as its Backint agent (also as `hdbbackint`)
    Backint(crate::backint::Arguments),
}

/// The definitions of the commands, for man pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The environment of every command.
struct Context {
    settings: Settings,
    store: Store,
    journal: Journal,
}

impl Context {
    async fn new(options: &Options) -> Result<Self, Error> {
        let settings = Settings::load(options)?;
        let store = Store::new(settings.place.clone()).await?;
        let journal = Journal::new(&settings.state_dir, store.id());
        Ok(Self { settings, store, journal })
    }

    /// Cleans up after interrupted operations of this host. A failure is reported and stops nothing.
    async fn clean(&self) {
        for why in crate::clean::abandoned(&self.store, &self.journal).await.1 {
            complain(&format!("an interrupted operation could not be cleaned up: {why}"));
        }
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // SAP HANA calls a fixed path, mostly a link.
    let called = arguments.first().map(std::path::PathBuf::from);
    if called.as_ref().and_then(|path| path.file_name()).is_some_and(|name| name == "hdbbackint") {
        arguments.insert(1, "backint".into());
    }
    let arguments = match Arguments::try_parse_from(crate::backint::spelled(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8)))
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no threads: {error}"));
            return ExitCode::from(9);
        }
    };
    let code = runtime.block_on(until_signal(arguments));
    // A thread may wait for a pipe; it is told to stop and given a moment.
    runtime.shutdown_timeout(Duration::from_millis(500));
    code
}

async fn until_signal(arguments: Arguments) -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        complain("no signals");
        return ExitCode::from(9);
    };
    let options = arguments.options.clone();
    let code = tokio::select! {
        code = run(arguments) => return code,
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    // The interrupted command is dropped, and with it the lock of its entry: it is cleaned up like any other.
    if let Ok(context) = Context::new(&options).await {
        let _ = tokio::time::timeout(Duration::from_secs(20), context.clean()).await;
    }
    ExitCode::from(code)
}

async fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Backint(backint) => return crate::backint::main(&arguments.options, &backint).await,
        command => ask(&arguments.options, command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

async fn ask(options: &Options, command: Command) -> Result<(), Error> {
    let context = Arc::new(Context::new(options).await?);
    match command {
        Command::Check(check) => check.run(&context).await,
        Command::Put(put) => put.run(&context).await,
        Command::Get(get) => get.run(&context).await,
        Command::List(list) => list.run(&context).await,
        Command::Show(show) => show.run(&context).await,
        Command::Verify(verify) => verify.run(&context).await,
        Command::Status(status) => status.run(&context).await,
        Command::Thaw(thaw) => thaw.run(&context).await,
        Command::Move(moving) => moving.run(&context).await,
        Command::Delete(delete) => delete.run(&context).await,
        Command::Prune(prune) => prune.run(&context).await,
        Command::Clean(clean) => clean.run(&context).await,
        // Dealt with before, because its answer is a file.
        Command::Backint(_) => Ok(()),
    }
}

/// Reads times such as `90s`, `15m`, `36h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 90s, 15m, 36h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}
