//! `hostler freeze` and `hostler thaw`: nothing new starts on a host or in a group; running tasks continue.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::connection::{Connection, ConnectionArgs};
use super::document::user;
use super::exit::{Exit, fault};
use super::fleet::Fleet;
use super::{Failure, block, show};
use crate::domain::freeze::Freeze;
use crate::domain::instant;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::host::clock;
use crate::store::When;

/// The host or group that a freeze is for.
#[derive(Args)]
struct Scope {
    /// The group; all is every host
    #[arg(required_unless_present = "host")]
    group: Option<Name>,
    /// One host in place of a group
    #[arg(long, value_name = "HOST", conflicts_with = "group")]
    host: Option<Name>,
}

impl Scope {
    fn source(&self) -> Result<Source, Failure> {
        match (&self.host, &self.group) {
            (Some(host), _) => Ok(Source::Host(host.clone())),
            (None, Some(group)) => Ok(Source::Group(group.clone())),
            (None, None) => Err(fault(Exit::Usage, "name a group or --host HOST".to_owned())),
        }
    }
}

/// A host or group for a message.
fn named(source: &Source) -> String {
    match source {
        Source::Host(host) => format!("host {host}"),
        Source::Group(group) => format!("group {group}"),
    }
}

/// The words that name a host or group to `hostler freeze` and `hostler thaw`.
fn words(source: &Source) -> String {
    match source {
        Source::Host(host) => format!("--host {host}"),
        Source::Group(group) => group.to_string(),
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// Over by itself at this time, such as 2026-11-23T05:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant::read)]
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
    /// Write over a freeze that is in force
    #[arg(long)]
    replace: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
pub(super) struct Thaw {
    #[command(flatten)]
    scope: Scope,
    /// Who thaws; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Also a freeze that somebody else wants
    #[arg(long, alias = "replace")]
    of_others: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn freeze(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let fleet = Fleet::read(&place).await?;
        let source = arguments.scope.source()?;
        fleet.check(&source)?;
        let now = clock::now();
        if let Some(until) = arguments.until.filter(|until| *until <= now) {
            let until = show::time(Some(until));
            return Err(fault(Exit::Usage, format!("--until {until} has passed: nothing would be frozen")));
        }
        let before = standing(&place, &source).await?;
        if let Some((_, freeze)) = &before
            && !arguments.replace
            && freeze.as_ref().is_none_or(|freeze| !freeze.is_over(now))
        {
            let whose = freeze.as_ref().map_or_else(|| UNREADABLE.to_owned(), whose);
            let message = format!(
                "{} is frozen {whose}; nothing was written: --replace writes over it",
                named(&source)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        let freeze = Freeze {
            until: arguments.until,
            reason: arguments.reason.clone(),
            by: arguments.by.clone().or_else(user),
            allow: arguments.allow.clone(),
        };
        let key = place.keys.freeze(&source);
        let seen = When::Unchanged(before.map_or(0, |(index, _)| index));
        if !place.store.put(&key, serde_json::to_vec(&freeze)?, seen).await? {
            let message = format!(
                "{} was frozen or thawed by somebody else just now; nothing was written",
                named(&source)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        let hosts = match &source {
            Source::Host(_) => 1,
            Source::Group(group) => {
                fleet.note_claimants(group);
                fleet.members(group).len()
            }
        };
        if arguments.json {
            show::json(&json!({"source": source, "freeze": freeze, "hosts": hosts}))?;
        } else {
            let until = freeze
                .until
                .map_or_else(|| format!("hostler thaw {}", words(&source)), |until| show::time(Some(until)));
            let hosts = if hosts == 1 { "1 known host".to_owned() } else { format!("{hosts} known hosts") };
            show::line(format!(
                "{} is frozen until {until}: nothing new starts on {hosts}, running tasks continue",
                named(&source)
            ))?;
        }
        Ok(Exit::Success.into())
    })
}

/// What is said of a freeze that cannot be read.
const UNREADABLE: &str = "by a document that cannot be read";

/// The freeze of a host or group with its index; `None` in its place: it cannot be read, and freezes all the same.
async fn standing(place: &Connection, source: &Source) -> Result<Option<(u64, Option<Freeze>)>, Failure> {
    let key = place.keys.freeze(source);
    let listing = place.store.list(&key).await?;
    let entry = listing.entries.into_iter().find(|entry| entry.key == key);
    Ok(entry.map(|entry| (entry.modify_index, Freeze::read(&entry.value).ok())))
}

/// Whose freeze it is, until when, and why.
fn whose(freeze: &Freeze) -> String {
    let by = freeze.by.as_deref().unwrap_or("somebody");
    let until = freeze.until.map(|until| format!(" until {}", show::time(Some(until)))).unwrap_or_default();
    let reason = freeze.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    show::inline(&format!("by {by}{until}{reason}"))
}

pub(super) fn thaw(arguments: &Thaw) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let source = arguments.scope.source()?;
        let key = place.keys.freeze(&source);
        let Some((_, freeze)) = standing(&place, &source).await? else {
            return Err(fault(Exit::NotFound, format!("{} is not frozen", named(&source))));
        };
        let me = arguments.by.clone().or_else(user);
        let of_other =
            |freeze: &&Freeze| freeze.by.is_some() && freeze.by != me && !freeze.is_over(clock::now());
        if let Some(freeze) = freeze.as_ref().filter(of_other).filter(|_| !arguments.of_others) {
            let message = format!(
                "{} is frozen {}; nothing was written: --of-others thaws it",
                named(&source),
                whose(freeze)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        place.store.delete(&key).await?;
        if arguments.json {
            show::json(&json!({"source": source, "did": "thawed"}))?;
        } else {
            show::line(format!("{} is thawed: waiting orders start again", named(&source)))?;
        }
        Ok(Exit::Success.into())
    })
}
