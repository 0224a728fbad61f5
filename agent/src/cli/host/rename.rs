//! `hostler host rename`: the new name of a host gets what the former one has in the store.
//!
//! The former name keeps everything until `hostler host retire`: the agent goes on under it until it is told its new
//! name on the host itself.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::connection::ConnectionArgs;
use crate::cli::exit::{Exit, fault};
use crate::cli::fleet::Fleet;
use crate::cli::{Failure, block, enroll, show};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::store::When;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The former name
    #[arg(value_name = "HOST")]
    old: Name,
    /// The new name
    #[arg(value_name = "NEW")]
    new: Name,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let (old, new) = (&arguments.old, &arguments.new);
        let (from, to) = (Source::Host(old.clone()), Source::Host(new.clone()));
        let fleet = Fleet::read(&place).await?;
        fleet.check_host(old)?;
        if old == new || fleet.agents.contains_key(new) {
            let message = format!("{new} is the name of a host that reports; nothing was written");
            return Err(fault(Exit::NotConfirmed, message));
        }
        let own =
            fleet.groups_of(old).iter().filter(|group| **group != Name::all()).cloned().collect::<Vec<_>>();
        // Orders before the marker: the agent looks at nothing below a prefix without one.
        let mut copied = Vec::new();
        for prefix in [place.keys.orders(&from), place.keys.freeze(&from)] {
            for entry in place.store.list(&prefix).await?.entries {
                let Some(rest) = entry.key.strip_prefix(&place.keys.source(&from)) else { continue };
                let key = format!("{}{rest}", place.keys.source(&to));
                let read = entry.read().map_err(|why| fault(Exit::Store, format!("{}: {why}", entry.key)))?;
                place.store.put(&key, read.to_vec(), When::Always).await?;
                copied.push(key);
            }
        }
        let enrolled = enroll::write(&place, new.clone(), &own).await?;
        if arguments.json {
            show::json(&json!({"host": enrolled, "copied": copied}))?;
        } else {
            copied.iter().for_each(|key| show::note(format!("wrote {key}")));
            enrolled.show()?;
            show::note(format!(
                "next, on the host: set `host: {new}`, place a token with this policy, hostler adopt, systemctl restart \
                 hostler; then here, where its orders are held: hostler release or accept --host {new}, hostler host \
                 retire {old}"
            ));
        }
        Ok(Exit::Success.into())
    })
}
