//! `hostler freeze` and `hostler thaw`: nothing new starts in a group; what runs goes on.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::document::user;
use super::exit::{Exit, fault};
use super::fleet::Fleet;
use super::place::PlaceArgs;
use super::{Failure, block, show};
use crate::domain::freeze::Freeze;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::store::When;

#[derive(Args)]
pub(super) struct Arguments {
    /// The group; all is every host
    group: Name,
    /// Over by itself at this time, such as 2026-11-23T05:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<jiff::Timestamp>,
    /// A task that starts all the same
    #[arg(long, value_name = "TASK")]
    allow: Vec<Name>,
    /// Who wants it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print a document for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
pub(super) struct Thaw {
    /// The group
    group: Name,
    /// Print a document for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn freeze(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let fleet = Fleet::read(&place).await?;
        fleet.check(&Source::Group(arguments.group.clone()))?;
        let freeze = Freeze {
            until: arguments.until,
            reason: arguments.reason.clone(),
            by: arguments.by.clone().or_else(user),
            allow: arguments.allow.clone(),
        };
        let key = place.keys.freeze(&arguments.group);
        place.store.put(&key, serde_json::to_vec(&freeze)?, When::Always).await?;
        let hosts = fleet.members(&arguments.group).len();
        if arguments.json {
            show::json(&json!({"group": arguments.group, "freeze": freeze, "hosts": hosts}))?;
        } else {
            let until = freeze
                .until
                .map_or_else(|| format!("hostler thaw {}", arguments.group), |until| show::time(Some(until)));
            show::line(format!(
                "{}: frozen until {until}; nothing new starts on {hosts} known hosts, what runs goes on",
                arguments.group
            ))?;
        }
        Ok(Exit::Good.into())
    })
}

pub(super) fn thaw(arguments: &Thaw) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let prefix = place.keys.freezes();
        let key = place.keys.freeze(&arguments.group);
        if !place.store.list(&prefix).await?.entries.iter().any(|entry| entry.key == key) {
            return Err(fault(Exit::NotFound, format!("group {} is not frozen", arguments.group)));
        }
        place.store.delete(&key).await?;
        if arguments.json {
            show::json(&json!({"group": arguments.group, "did": "thawed"}))?;
        } else {
            show::line(format!("{}: thawed; what waited starts again", arguments.group))?;
        }
        Ok(Exit::Good.into())
    })
}
