//! `hostler order`: writes, shows, lists and removes orders.
//!
//! A document is checked here before it is written, so that a mistake costs the operator a line and no host
//! anything. What is replaced is what was looked at: a change in between is never overwritten.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::confirm::confirm_number;
use super::connection::{Connection, ConnectionArgs, SourceArgs};
use super::document::{OrderArgs, user};
use super::exit::{Exit, fault};
use super::fleet::{Fleet, Placed};
use super::table::Table;
use super::watch::{WatchArgs, endless};
use super::{Failure, block, screen, show};
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::order::{DEFAULT_SPREAD, Document, MAX_ORDER, Order};
use crate::domain::source::{OrderKey, Source};
use crate::domain::span::Span;
use crate::host::{clock, disk};
use crate::store::When;

/// What becomes of an order whose identity stays as it was.
const SAME: &str = "same instruction, other terms at most";

/// What is said in place of an empty table.
const NONE: &str = "there are no orders, or the token may not see them: hostler order put writes one";

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: OrderCommand,
}

#[derive(Subcommand)]
enum OrderCommand {
    /// Write an order, from a file or from options
    Put(Box<Put>),
    /// Print an order as it is stored
    Get(One),
    /// List the orders
    List(List),
    /// Remove an order; what was done stays done, and a run under way goes on
    Delete(One),
}

#[derive(Args)]
struct Put {
    /// The order's name
    #[arg(value_name = "ORDER")]
    name: Name,
    /// The document, YAML or JSON; - reads standard input
    #[arg(value_name = "FILE", required_unless_present = "task", conflicts_with = "task")]
    file: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// The task, in place of a file
    #[arg(long, value_name = "TASK", help_heading = "Order")]
    task: Option<Name>,
    /// Change this string to run the same order again
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    revision: Option<String>,
    /// Spread the starts of a group's hosts over this period, such as 10m
    #[arg(long, value_name = "SPAN", requires = "task", help_heading = "Order")]
    spread: Option<Span>,
    #[command(flatten)]
    order: OrderArgs,
    /// Write over an order of this name that is for another task
    #[arg(long)]
    replace: bool,
    /// The number of known hosts of the group, so that no question is asked
    #[arg(long, value_name = "N")]
    confirm_hosts: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
struct One {
    /// The order's name
    #[arg(value_name = "ORDER")]
    name: Name,
    #[command(flatten)]
    source: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
struct List {
    /// Of this host only
    #[arg(long, value_name = "HOST", conflicts_with = "group")]
    host: Option<Name>,
    /// Of this group only
    #[arg(long, value_name = "GROUP")]
    group: Option<Name>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.act {
        OrderCommand::Put(put) => block(self::put(put)),
        OrderCommand::Get(one) => block(get(one)),
        OrderCommand::List(list) => block(self::list(list)),
        OrderCommand::Delete(one) => block(delete(one)),
    }
}

async fn put(put: &Put) -> Result<ExitCode, Failure> {
    let (text, origin) = text(put)?;
    let document =
        Document::read(&text).map_err(|error| fault(Exit::ConfigError, format!("{origin}{error}")))?;
    let (text, document) = signed(text, document, put.order.by.as_deref())?;
    let key = OrderKey { source: put.source.source()?, order: put.name.clone() };
    let place = put.place.open()?;
    let fleet = Fleet::read(&place).await?;
    fleet.check(&key.source)?;
    if let Document::Order(order) = &document {
        in_time(order)?;
        if order.spread.is_some_and(|spread| !spread.0.is_zero()) && matches!(key.source, Source::Host(_)) {
            show::note("`spread` has no effect in the order of a single host");
        }
        fleet.doubt_task(&order.task).into_iter().for_each(show::note);
    }
    let other = |placed: &&Placed| match (&placed.document, &document) {
        (Ok(Document::Order(old)), Document::Order(new)) => old.task != new.task,
        _ => false,
    };
    if let Some(Ok(Document::Order(old))) =
        fleet.orders.get(&key).filter(other).map(|placed| &placed.document)
        && !put.replace
    {
        let by = old.by.as_deref().map(|by| format!(" by {}", show::inline(by))).unwrap_or_default();
        let message = format!(
            "{key} is there{by} for task {}; nothing was written: take another name, or --replace",
            old.task
        );
        return Err(fault(Exit::NotConfirmed, message));
    }
    if let Source::Group(group) = &key.source {
        fleet.note_claimants(group);
        confirm(&key, &document, fleet.members(group).len(), put.confirm_hosts)?;
    }
    let before = fleet.orders.get(&key);
    write(&place, &key, text, before).await?;
    let did = match (before.map(Placed::identity), identity(&document)) {
        (None, _) => "created",
        (Some(old), new) if old == new && old.is_some() => SAME,
        (Some(_), _) => "changed",
    };
    if put.json {
        show::json(&json!({"order": key, "did": did, "identity": identity(&document)}))?;
    } else {
        show::say(format!("{key}: {did}"))?;
        if did == SAME {
            show::say(
                "a host that has carried it out does so again only with another revision, or hostler retry",
            )?;
        }
        show::say(format!("hostler status {} shows its progress", key.order))?;
    }
    Ok(Exit::Success.into())
}

/// An order that can never start is a mistake of whoever writes it.
pub(super) fn in_time(order: &Order) -> Result<(), Failure> {
    match order.not_after.filter(|end| *end <= clock::now()) {
        Some(end) => {
            let message =
                format!("`not_after` {} has passed: the order would expire at once", show::time(Some(end)));
            Err(fault(Exit::Usage, message))
        }
        None => Ok(()),
    }
}

/// A document that says who wrote it; one that says so itself stays as it is.
fn signed(text: Vec<u8>, document: Document, by: Option<&str>) -> Result<(Vec<u8>, Document), Failure> {
    let Document::Order(order) = &document else { return Ok((text, document)) };
    match (&order.by, by) {
        (Some(said), Some(by)) if said != by => {
            let message = format!("the document says `by: {}`: leave --by out", show::inline(said));
            return Err(fault(Exit::Usage, message));
        }
        (Some(_), _) => return Ok((text, document)),
        (None, _) => {}
    }
    let Some(by) = by.map(str::to_owned).or_else(user) else { return Ok((text, document)) };
    // As a line behind a block of YAML, or as a member of a JSON object; whichever reads as the same order.
    let mut line = text.clone();
    line.extend_from_slice(format!("\nby: {}\n", Value::from(by.as_str())).as_bytes());
    let member = serde_json::from_slice::<Value>(&text).ok().and_then(|mut value| {
        value.as_object_mut()?.insert("by".to_owned(), by.as_str().into());
        serde_json::to_vec(&value).ok()
    });
    let mut wanted = order.as_ref().clone();
    wanted.by = Some(by);
    let same = |text: &Vec<u8>| matches!(Document::read(text), Ok(Document::Order(read)) if *read == wanted);
    let signed = [Some(line), member].into_iter().flatten().find(same);
    Ok(match signed {
        Some(signed) => (signed, Document::Order(Box::new(wanted))),
        None => (text, document),
    })
}

fn identity(document: &Document) -> Option<crate::domain::ids::InstructionHash> {
    match document {
        Document::Order(order) => Some(order.identity),
        Document::Skip => None,
    }
}

/// The document, and what to put before a fault in it.
fn text(put: &Put) -> Result<(Vec<u8>, String), Failure> {
    if let Some(task) = &put.task {
        let text = put.order.text(task, put.revision.as_deref(), put.spread)?;
        return Ok((text.into_bytes(), "the options make no order: ".to_owned()));
    }
    if put.order.any() {
        return Err(fault(Exit::Usage, "options that make an order go with --task, not with a file"));
    }
    let Some(file) = put.file.as_deref() else {
        return Err(fault(Exit::Usage, "say --task or a file"));
    };
    // One byte too many is enough for the reader of orders to refuse the rest.
    let limit = MAX_ORDER as u64 + 1;
    if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().take(limit).read_to_end(&mut text)?;
        return Ok((text, "-:".to_owned()));
    }
    let missing = || fault(Exit::NotFound, format!("there is no file {}", file.display()));
    let text = disk::read(file, limit)?.ok_or_else(missing)?;
    Ok((text, format!("{}:", file.display())))
}

/// Writes an order over what was seen in its place, and over nothing else.
pub(super) async fn write(
    place: &Connection,
    key: &OrderKey,
    text: Vec<u8>,
    before: Option<&Placed>,
) -> Result<(), Failure> {
    let when = When::Unchanged(before.map_or(0, |placed| placed.index));
    if place.store.put(&place.keys.order(key), text, when).await? {
        return Ok(());
    }
    let message =
        format!("{key} was changed by somebody else just now; nothing was written: look, and try again");
    Err(fault(Exit::NotConfirmed, message))
}

/// An order for a group is confirmed by the number of the hosts that it is for.
fn confirm(
    key: &OrderKey,
    document: &Document,
    hosts: usize,
    confirm_hosts: Option<usize>,
) -> Result<(), Failure> {
    let spread = match document {
        Document::Order(order) => format!(", spread over {}", order.spread.unwrap_or(DEFAULT_SPREAD)),
        Document::Skip => String::new(),
    };
    confirm_number(&format!("{key}{spread}"), &key.source.to_string(), hosts, confirm_hosts)
}

async fn get(one: &One) -> Result<ExitCode, Failure> {
    let (_, key, _, placed) = find(one).await?;
    let text = String::from_utf8_lossy(&placed.value);
    if one.json {
        let mut document = described(&key, &placed);
        document["document"] = text.into();
        show::json(&document)?;
    } else if screen::terminal() {
        show::line(show::lines(text.trim_end()))?;
    } else {
        show::raw(&placed.value)?;
    }
    Ok(Exit::Success.into())
}

async fn find(one: &One) -> Result<(Connection, OrderKey, String, Placed), Failure> {
    let key = OrderKey { source: one.source.source()?, order: one.name.clone() };
    let place = one.place.open()?;
    let mut fleet = Fleet::read(&place).await?;
    let store_key = place.keys.order(&key);
    match fleet.orders.remove(&key) {
        Some(placed) => Ok((place, key, store_key, placed)),
        None => {
            fleet.check(&key.source)?;
            Err(fleet.no_order(&key.order, Some(&key.source)))
        }
    }
}

async fn delete(one: &One) -> Result<ExitCode, Failure> {
    let (place, key, store_key, _) = find(one).await?;
    place.store.delete(&store_key).await?;
    if one.json {
        show::json(&json!({"order": key, "did": "deleted"}))?;
    } else {
        show::say(format!("{key}: deleted; completed work is not undone, and a run in progress continues"))?;
    }
    Ok(Exit::Success.into())
}

fn described(key: &OrderKey, placed: &Placed) -> Value {
    let mut described = json!({"order": key, "index": placed.index, "identity": placed.identity()});
    match &placed.document {
        Ok(Document::Order(order)) => {
            described["task"] = order.task.as_str().into();
            described["dry_run"] = order.dry_run.into();
            described["by"] = order.by.clone().into();
            described["reason"] = order.reason.clone().into();
        }
        Ok(Document::Skip) => described["skip"] = true.into(),
        Err(error) => described["fault"] = error.to_string().into(),
    }
    described
}

async fn list(list: &List) -> Result<ExitCode, Failure> {
    let place = list.place.open()?;
    let wanted = match (&list.host, &list.group) {
        (Some(host), _) => Some(Source::Host(host.clone())),
        (None, Some(group)) => Some(Source::Group(group.clone())),
        (None, None) => None,
    };
    let read = async || {
        let mut fleet = Fleet::read(&place).await?;
        if let Some(source) = &wanted {
            fleet.check(source)?;
            fleet.orders.retain(|key, _| key.source == *source);
            fleet.odd.retain(|(path, _)| path.starts_with(&format!("{source}/")));
        }
        Ok::<_, Failure>((fleet.orders, fleet.odd))
    };
    if list.watch.watch {
        let look = async || {
            let (orders, odd) = read().await?;
            Ok(if orders.is_empty() && odd.is_empty() { format!("{NONE}\n") } else { table(&orders, &odd) })
        };
        return Ok(endless(&list.watch, look).await?.into());
    }
    let (orders, odd) = read().await?;
    if list.json {
        let all: Vec<Value> = orders.iter().map(|(key, placed)| described(key, placed)).collect();
        show::json(&all)?;
        odd.iter().for_each(|(path, why)| show::note(format!("{} (broken): {why}", odd::shown(path))));
    } else if orders.is_empty() && odd.is_empty() {
        show::note(NONE);
    } else {
        show::page(&table(&orders, &odd))?;
    }
    Ok(Exit::Success.into())
}

/// A line for each order.
fn table(orders: &BTreeMap<OrderKey, Placed>, odd: &[(String, String)]) -> String {
    let mut table = Table::new(&["PLACE", "ORDER", "TASK", "INSTRUCTION", "BY", "REASON"]);
    for (key, placed) in orders {
        let (task, by, reason) = match &placed.document {
            Ok(Document::Order(order)) => {
                (order.task.to_string(), order.by.clone(), order.reason.clone().unwrap_or_default())
            }
            Ok(Document::Skip) => ("(skip)".to_owned(), None, String::new()),
            Err(error) => ("(broken)".to_owned(), None, error.to_string()),
        };
        let identity = placed.identity().map_or_else(|| "-".to_owned(), |identity| identity.short());
        let by = by.unwrap_or_else(|| "-".to_owned());
        table.row([key.source.to_string(), key.order.to_string(), task, identity, by, reason]);
    }
    for (path, why) in odd {
        // The place is what is before the second slash.
        let cut = path.match_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        let (source, name) = path.split_at(cut);
        let source = odd::shown(source.trim_end_matches('/'));
        table.row([source, odd::shown(name), "(broken)".into(), "-".into(), "-".into(), why.clone()]);
    }
    table.shown()
}
