//! `hostler agent`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, env, log, runtime};
use crate::app::agent::{Agent, identity};
use crate::app::open;
use crate::config;
use crate::host::notify::Notify;

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let settings = config::load(arguments.config.as_deref(), &env)?;
    log(&settings.log_level);
    let runtime = runtime()?;
    runtime.block_on(async {
        let store = open::store(&settings)?;
        let place = store.place();
        let stopped = stopped();
        tokio::pin!(stopped);
        let mut notify = Notify::from_env();
        let who = tokio::select! {
            who = identity::settle(&settings, &*store, &mut notify) => who?,
            () = &mut stopped => return Ok(()),
        };
        let agent = Agent::build(settings, Arc::clone(&store), who, notify)?;
        tracing::info!("agent of {} watches {place}", agent.host());
        agent.run(stopped).await?;
        tracing::info!("agent stops; runs go on without it");
        Ok::<_, Failure>(())
    })?;
    // Whatever still waits in a thread must not keep the agent from stopping.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Done when the process is asked to stop.
pub(super) async fn stopped() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
