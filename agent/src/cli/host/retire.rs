//! `hostler host retire`: takes out of the store whatever is meant for a host or was reported by it.
//!
//! The marker goes last: until then the host is known, and an interrupted command can be repeated.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::connection::{Connection, ConnectionArgs};
use crate::cli::exit::{Exit, fault};
use crate::cli::fleet::{Fleet, is_late};
use crate::cli::{Failure, block, confirm, show};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::host::clock;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The host
    #[arg(value_name = "HOST")]
    host: Name,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Retire a host whose agent still reports
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let host = &arguments.host;
        let fleet = Fleet::read(&place).await?;
        fleet.check_host(host)?;
        let reports = fleet.agents.get(host).filter(|agent| !is_late(agent.next_report_by, clock::now()));
        if let (Some(agent), false) = (reports, arguments.force) {
            let message = format!(
                "the agent of {host} reported at {}: stop it first (there: systemctl disable --now hostler); \
                 nothing was removed",
                show::time(agent.updated)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        let keys = keys_of(&place, host).await?;
        let what = format!("{host} has {} keys in {}", keys.len(), place.store.place());
        if !arguments.yes {
            confirm::confirm_removal(&what)?;
        }
        for key in &keys {
            place.store.delete(key).await?;
        }
        if arguments.json {
            show::json(&json!({"host": host, "removed": keys}))?;
        } else {
            show::line(format!("{host} is retired: {} keys were removed", keys.len()))?;
            show::note(format!(
                "next, where Consul has ACLs: delete its token, and consul acl policy delete -name hostler-{host}"
            ));
        }
        Ok(Exit::Success.into())
    })
}

/// All keys of a host, its marker last.
async fn keys_of(place: &Connection, host: &Name) -> Result<Vec<String>, Failure> {
    let Connection { store, keys } = place;
    let own = Source::Host(host.clone());
    let mut found = Vec::new();
    for prefix in prefixes(keys, host) {
        let mut open = vec![prefix];
        while let Some(prefix) = open.pop() {
            for name in store.names(&prefix).await? {
                let key = format!("{prefix}{name}");
                if key.ends_with('/') { open.push(key) } else { found.push(key) }
            }
        }
    }
    let marker = keys.marker(&own);
    found.retain(|key| *key != marker);
    let single = [keys.agent_report(host), keys.facts_report(host), keys.audit_report(host), marker];
    for key in single {
        if store.list(&key).await?.entries.iter().any(|entry| entry.key == key) {
            found.push(key);
        }
    }
    Ok(found)
}

/// The trees of a host. What is meant for it goes first, so that nothing of it starts any more.
fn prefixes(keys: &Keys, host: &Name) -> [String; 4] {
    let own = Source::Host(host.clone());
    [keys.source(&own), keys.former_of(&own), keys.order_reports(host), keys.run_reports(host)]
}
