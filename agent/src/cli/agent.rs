//! `hostler agent`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::connection::config_file;
use super::{Failure, env, log, log_to_journal, runtime};
use crate::app::agent::reload::ReloadContext;
use crate::app::agent::{Agent, identity};
use crate::app::open;
use crate::config::{self, LogFormat};
use crate::exec::init;
use crate::host::notify::Notify;
use crate::host::process;

/// The agent's own command line. To define those of all commands takes code and stack that an agent would keep mapped for
/// as long as it lives.
#[derive(Parser)]
#[command(name = "hostler")]
pub(super) struct Service {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this host.
    Agent(Arguments),
}

impl Service {
    pub(super) fn arguments(self) -> Arguments {
        let Command::Agent(arguments) = self.command;
        arguments
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file (HOSTLER_CONFIG); default /etc/hostler/hostler.yml
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(status) = init::instead_of_first()? {
        return Ok(status.into());
    }
    process::usual_signals()?;
    process::keep_out_of_dumps();
    let file = config_file(arguments.config.as_deref());
    let settings = config::load(file.as_deref(), &env)?;
    let level = match settings.log_format {
        LogFormat::Journald => log_to_journal(&settings.log_level),
        LogFormat::Text => log(&settings.log_level),
    };
    let reload_context = ReloadContext { load: Box::new(move || config::load(file.as_deref(), &env)), level };
    let runtime = runtime()?;
    runtime.block_on(async {
        let opened = open::opened(&settings)?;
        let place = opened.store.place();
        let stopped = stopped();
        tokio::pin!(stopped);
        let mut notify = Notify::from_env();
        let who = tokio::select! {
            who = identity::resolve(&settings, &*opened.store, &mut notify) => who?,
            () = &mut stopped => return Ok(()),
        };
        let agent = Agent::build(settings, opened, who, notify, reload_context)?;
        tracing::info!("agent of {} watches {place}", agent.host());
        agent.run(stopped).await?;
        tracing::info!("agent stops; running tasks continue");
        Ok::<_, Failure>(())
    })?;
    // Whatever still waits in a thread must not keep the agent from stopping.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Done when the process is asked to stop. From the call on, and not from the first poll, a signal ends nothing by itself:
/// one that comes while the agent is still put together stops it in order.
pub(super) fn stopped() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut term), Ok(mut int)) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}
