//! `hostler executor`: one epoch of a run; started by the agent.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::{Failure, log_to_journal, runtime};
use crate::app::executor::{SecretSource, execute, question};
use crate::exec::step;
use crate::host::process;

/// What the agent starts.
#[derive(Parser)]
#[command(name = "hostler")]
pub(super) struct Executor {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Carry out one epoch of a run.
    Executor(Arguments),
}

impl Executor {
    pub(super) fn arguments(self) -> Arguments {
        let Command::Executor(arguments) = self.command;
        arguments
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    /// The run's folder.
    folder: PathBuf,
    /// Which epoch.
    epoch: u32,
    /// Where the agent left what the run needs for Vault
    #[arg(long, value_name = "fd:N|FILE")]
    handed: Option<String>,
    /// The folder is that of a question, not of a run
    #[arg(long)]
    question: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    process::usual_signals()?;
    process::keep_out_of_dumps();
    // Beside an agent on a terminal, as with `hostler dev`, only what is wrong is worth a line.
    log_to_journal(if std::io::stderr().is_terminal() { "warn" } else { "info" });
    // What ends the agent's session or group must not end this process, too. A unit of systemd has both already.
    let _ = step::stand_alone();
    let runtime = runtime()?;
    if arguments.question {
        runtime.block_on(question::answer(&arguments.folder))?;
        runtime.shutdown_background();
        return Ok(ExitCode::SUCCESS);
    }
    let handed = arguments.handed.as_deref().map_or(SecretSource::Nothing, SecretSource::ByAgent);
    runtime.block_on(execute(&arguments.folder, arguments.epoch, handed))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
