//! `hostler run`: places an order for a host or a group, waits for its end and ends with its exit status.
//!
//! Whatever happens to this command, the order stays in place and the hosts carry it out; only a report of the
//! very instruction that was placed counts as an answer.

mod one;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::confirm::confirm_number;
use super::connection::{Connection, ConnectionArgs, SourceArgs, said};
use super::document::OrderArgs;
use super::exit::{Exit, fault};
use super::fleet::{Fleet, OrderStatus, Placed, reports, standing};
use super::order::{in_time, write};
use super::status::next;
use super::status::rows::Question;
use super::status::watch::Watch;
use super::{Failure, block, show};
use crate::domain::ids::InstructionHash;
use crate::domain::name::Name;
use crate::domain::order::{DEFAULT_SPREAD, Document};
use crate::domain::source::{OrderKey, Source};
use crate::domain::span::Span;
use crate::host::clock;

#[derive(Args)]
pub(super) struct Arguments {
    /// The task
    #[arg(value_name = "TASK")]
    task: Name,
    #[command(flatten)]
    source: SourceArgs,
    /// The order's name; the task's when not said
    #[arg(long = "order", value_name = "NAME")]
    name: Option<Name>,
    /// Write over another order of this name
    #[arg(long)]
    replace: bool,
    /// How long to wait for the end; the order stays in place
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    wait: Span,
    /// With a group: the number of its known hosts, so that no question is asked
    #[arg(long, value_name = "N", requires = "group")]
    confirm_hosts: Option<usize>,
    /// With a group: over how long its hosts spread their starts, such as 0s; 10m when not said
    #[arg(long, value_name = "SPAN", requires = "group", help_heading = "Order")]
    spread: Option<Span>,
    #[command(flatten)]
    order: OrderArgs,
    /// Print the last report for programs, and no progress
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let source = arguments.source.source()?;
        let order = arguments.name.clone().unwrap_or_else(|| arguments.task.clone());
        let key = OrderKey { source, order };
        let placed = put(arguments, &place, &key).await?;
        let exit = match &key.source {
            Source::Host(host) => one::wait(arguments, &place, host, &key, placed).await?,
            Source::Group(group) => on_group(arguments, &place, group, &key).await?,
        };
        Ok(exit.into())
    })
}

/// Places the order; gives its identity, and the index of the report that a single host had before.
async fn put(
    arguments: &Arguments,
    place: &Connection,
    key: &OrderKey,
) -> Result<(InstructionHash, u64), Failure> {
    // The time makes it an instruction that was never given before.
    let revision = clock::now().to_string();
    let text = arguments.order.text(&arguments.task, Some(&revision), arguments.spread)?;
    let document = Document::read(text.as_bytes());
    let document =
        document.map_err(|error| fault(Exit::ConfigError, format!("the options make no order: {error}")))?;
    let Document::Order(new) = document else {
        return Err(fault(Exit::ConfigError, "the options make no order"));
    };
    in_time(&new)?;
    let fleet = Fleet::read(place).await?;
    fleet.check(&key.source)?;
    fleet.doubt_task(&arguments.task).into_iter().for_each(show::note);
    let before = fleet.orders.get(key);
    if let Some(placed) = before.filter(|_| !arguments.replace) {
        may_replace(arguments, place, &fleet, key, placed).await?;
    }
    let mut index = 0;
    match &key.source {
        Source::Host(host) => {
            if before.is_none()
                && let Some((covered, _)) = fleet.effective(host, &key.order)
            {
                show::note(format!("{key} now counts on {host} in place of {covered}, until it is deleted"));
            }
            let report = place.keys.order_report(host, &key.order);
            let listing = place.store.list(&place.keys.order_reports(host)).await?;
            let entry = listing.entries.iter().find(|entry| entry.key == report);
            index = entry.map_or(0, |entry| entry.modify_index);
        }
        Source::Group(group) => {
            let what = format!("{key}, spread over {}", new.spread.unwrap_or(DEFAULT_SPREAD));
            fleet.note_claimants(group);
            let hosts = fleet.members(group).len();
            confirm_number(&what, &format!("{} has", key.source), hosts, arguments.confirm_hosts)?;
        }
    }
    write(place, key, text.into_bytes(), before).await?;
    Ok((new.identity, index))
}

/// Watches the order on all hosts of the group.
async fn on_group(
    arguments: &Arguments,
    place: &Connection,
    group: &Name,
    key: &OrderKey,
) -> Result<Exit, Failure> {
    let order = &key.order;
    let question =
        Question { order: Some(order.clone()), hosts: BTreeSet::new(), group: Some(group.clone()) };
    let watch = Watch::new(place, &question);
    let watch = if arguments.json { watch.without_view() } else { watch };
    let (exit, rows) = watch.watch(Some(arguments.wait.0)).await?;
    if arguments.json {
        let document = rows.map(|rows| rows.document());
        show::json(&json!({"order": key, "exit": exit.number(), "status": document}))?;
        return Ok(exit);
    }
    if let Some(rows) = rows.filter(|_| exit == Exit::Negative) {
        show::raw(next::of_rows(&rows, &question).as_bytes())?;
    }
    if matches!(exit, Exit::Interrupted | Exit::Pending) {
        show::note(format!("{key} stays in place: hostler status {order} --group {group} --watch{}", said()));
        show::note(format!("to end it: hostler cancel {order} --group {group}{}", said()));
    }
    Ok(exit)
}

/// An order that somebody else placed for another task, or that is not over, is not written over unasked.
async fn may_replace(
    arguments: &Arguments,
    place: &Connection,
    fleet: &Fleet,
    key: &OrderKey,
    placed: &Placed,
) -> Result<(), Failure> {
    let hosts = match &key.source {
        Source::Host(host) => BTreeSet::from([host]),
        Source::Group(group) => fleet.members(group),
    };
    let pairs: Vec<(Name, Name)> = hosts.into_iter().map(|host| (host.clone(), key.order.clone())).collect();
    let reports = reports(place, &pairs).await?;
    let stands = |pair: &(Name, Name)| {
        standing(Some(placed), reports.get(pair), fleet.agents.get(&pair.0), clock::now())
    };
    let not_over = |standing: &OrderStatus| !matches!(standing, OrderStatus::Done | OrderStatus::Failed);
    let open: Vec<OrderStatus> = pairs.iter().map(stands).filter(not_over).collect();
    let same_task = matches!(&placed.document, Ok(Document::Order(order)) if order.task == arguments.task);
    let why = match open.first() {
        _ if !same_task => "is for something else".to_owned(),
        None => return Ok(()),
        Some(standing) if pairs.len() == 1 => format!("is {}", standing.as_str()),
        Some(standing) => format!("is {} on {} of {} hosts", standing.as_str(), open.len(), pairs.len()),
    };
    let message = format!(
        "{key} is there and {why}; nothing was written: say --order NAME for a new one, or --replace"
    );
    Err(fault(Exit::NotConfirmed, message))
}
