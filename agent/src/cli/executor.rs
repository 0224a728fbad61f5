//! `hostler executor`: one epoch of a run; started by the agent.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, log_to_journal, runtime};
use crate::app::executor::execute;

#[derive(Args)]
pub(super) struct Arguments {
    /// The run's folder.
    folder: PathBuf,
    /// Which epoch.
    epoch: u32,
    /// Where the agent left what the run needs for Vault
    #[arg(long, value_name = "fd:N|FILE")]
    handed: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    log_to_journal("info");
    let runtime = runtime()?;
    runtime.block_on(execute(&arguments.folder, arguments.epoch, arguments.handed.as_deref()))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
