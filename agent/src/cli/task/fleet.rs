//! `hostler task list` from afar: which hosts have which version of which task, as their agents report.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::cli::exit::Exit;
use crate::cli::fleet::Fleet;
use crate::cli::table::Table;
use crate::cli::{Failure, show};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::text::MORE;

/// So many hosts are named in a line.
const MAX_NAMED: usize = 6;

/// A task with its version and digest, or what else an agent reports of it.
type Variant<'a> = (&'a str, &'a str);

/// Lists the tasks of these hosts, or of the known hosts of a group.
pub(super) async fn list(
    place: &Connection,
    hosts: &[Name],
    group: Option<&Name>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let fleet = Fleet::read(place).await?;
    hosts.iter().try_for_each(|host| fleet.check_host(host))?;
    let wanted: BTreeSet<&Name> = match group {
        Some(group) => {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.note_claimants(group);
            fleet.members(group)
        }
        None => hosts.iter().collect(),
    };
    let mut variants: BTreeMap<Variant<'_>, Vec<&Name>> = BTreeMap::new();
    let (mut silent, mut cut) = (Vec::new(), Vec::new());
    for host in &wanted {
        let Some(agent) = fleet.agents.get(*host).filter(|agent| !agent.tasks.is_empty()) else {
            silent.push(host.as_str());
            continue;
        };
        for (task, what) in &agent.tasks {
            if task == MORE {
                cut.push(host.as_str());
            } else {
                variants.entry((task, what)).or_default().push(host);
            }
        }
    }
    if json {
        let one = |((task, what), hosts): (&Variant<'_>, &Vec<&Name>)| {
            let (version, digest) = parts(what);
            json!({"task": task, "version": version, "digest": digest, "hosts": hosts})
        };
        let tasks: Vec<Value> = variants.iter().map(one).collect();
        show::json(&json!({"tasks": tasks, "no_report": silent, "cut": cut}))?;
        return Ok(Exit::Success.into());
    }
    let mut table = Table::new(&["TASK", "VERSION", "DIGEST", "HOSTS", "WHICH"]).names(1, &["DIGEST"]);
    for ((task, what), hosts) in &variants {
        let (version, digest) = parts(what);
        let (version, digest) = (version.to_owned(), digest.unwrap_or("-").to_owned());
        table.row([(*task).to_owned(), version, digest, hosts.len().to_string(), named(hosts)]);
    }
    if !table.is_empty() {
        show::page(&table.shown())?;
    }
    if let [first, ..] = *silent {
        show::note(format!(
            "{} of {} hosts report no tasks, such as {first}: hostler status",
            silent.len(),
            wanted.len()
        ));
    }
    if let [first, ..] = *cut {
        show::note(format!(
            "the report of {first} has no room for all its tasks; on the host: hostler task list"
        ));
    }
    Ok(Exit::Success.into())
}

/// Version and digest of what an agent reports; a broken task has its word in place of a version.
fn parts(what: &str) -> (&str, Option<&str>) {
    what.split_once(' ').map_or((what, None), |(version, digest)| (version, Some(digest)))
}

fn named(hosts: &[&Name]) -> String {
    let names: Vec<&str> = hosts.iter().take(MAX_NAMED).map(|host| host.as_str()).collect();
    let more = hosts.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}
