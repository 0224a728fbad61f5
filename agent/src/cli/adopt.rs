//! `hostler adopt`: says on a host that it is who it seems to be now.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::connection::config_file;
use super::exit::{Exit, fault};
use super::{Failure, env, show};
use crate::config;
use crate::host::machine;
use crate::ledger::identity::HostIdentity;

#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file (HOSTLER_CONFIG); default /etc/hostler/hostler.yml
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept an audit that lacks lines which were reported, too; the gap is named in it
    #[arg(long)]
    audit: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let settings = config::load(config_file(arguments.config.as_deref()).as_deref(), &env)?;
    // One that cannot be read is what adopting mends.
    let before = HostIdentity::read(&settings.state_dir).unwrap_or_default();
    let host = settings.host.clone().or_else(|| before.as_ref().map(|before| before.host.clone()));
    // Without a state folder no agent has ever been here.
    let Some(host) = host.filter(|_| settings.state_dir.is_dir()) else {
        let message = "there is nothing to adopt: the agent fixes who this host is when it first starts";
        return Err(fault(Exit::NotFound, message));
    };
    // Another identity is one that reported nothing yet: the agent names the gap in the audit, and goes on.
    let differs = arguments.audit
        || before
            .as_ref()
            .is_none_or(|before| before.difference(settings.host.as_ref(), &machine::machine_id()).is_some());
    if differs {
        HostIdentity::new(host.clone()).write(&settings.state_dir)?;
    }
    if arguments.json {
        show::json(&json!({"host": host, "adopted": differs}))?;
    } else if differs {
        show::line(format!(
            "this machine is {host} from now on: restart the agent (systemctl restart hostler)"
        ))?;
    } else {
        show::line(format!("this machine is {host} already"))?;
    }
    Ok(Exit::Success.into())
}
