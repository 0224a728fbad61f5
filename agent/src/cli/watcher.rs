//! `hostler watcher`: watches over an armed guard; started by an executor.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::{Failure, log_to_journal, runtime};
use crate::app::watcher::watch;
use crate::exec::step;
use crate::host::{allocator, process};

/// What an executor starts.
#[derive(Parser)]
#[command(name = "hostler")]
pub(super) struct Watcher {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch over the guard of a step.
    Watcher(Arguments),
}

impl Watcher {
    pub(super) fn arguments(self) -> Arguments {
        let Command::Watcher(arguments) = self.command;
        arguments
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    /// The run's folder.
    folder: PathBuf,
    /// The epoch in which the guard was armed.
    epoch: u32,
    /// Which step it guards, counted from 0.
    step: usize,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    process::usual_signals()?;
    process::usual_umask();
    log_to_journal(if std::io::stderr().is_terminal() { "warn" } else { "info" });
    // What ends the executor's session or group must not end this process, too.
    let _ = step::stand_alone();
    step::stand_last();
    let runtime = runtime()?;
    // It may wait for hours, in which it does nothing.
    allocator::trim();
    runtime.block_on(watch(&arguments.folder, arguments.epoch, arguments.step))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
