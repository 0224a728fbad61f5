//! `hostler order`: writes, shows, lists, edits and removes orders.
//!
//! A document is checked here before it is written, so that a mistake costs the operator a line and no host
//! anything. What is replaced is what was looked at: a change in between is never overwritten.

mod change;
mod edit;
pub(super) mod former;
mod next;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::former::{Fate, Former};
use crate::cli::confirm::{confirm_number, confirm_yes};
use crate::cli::connection::{Connection, ConnectionArgs, SourceArgs, said};
use crate::cli::document::{OrderArgs, user};
use crate::cli::exit::{Exit, fault};
use crate::cli::fleet::{Fleet, Placed, reports};
use crate::cli::table::Table;
use crate::cli::watch::{WatchArgs, endless};
use crate::cli::{Failure, block, screen, show};
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::order::{DEFAULT_SPREAD, Document, MAX_ORDER, Order};
use crate::domain::source::{OrderKey, Source};
use crate::domain::span::Span;
use crate::host::{clock, disk};
use crate::store::{MAX_READS, When};

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
    /// Change an order in your editor (VISUAL, EDITOR)
    Edit(edit::Edit),
    /// Write a former document of an order again
    Revert(edit::Revert),
    /// Show when an order fires next
    Next(next::Next),
    /// Remove an order; what was done stays done, and a run under way goes on
    Delete(Delete),
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
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    writing: Writing,
}

/// Terms that only an order that stays has.
#[derive(Args)]
struct Terms {
    /// When it fires: a cron expression, or @daily
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    schedule: Option<String>,
    /// When it may start, such as "Sat,Sun 01:00-05:00"
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    window: Option<String>,
    /// The zone of schedule and window, such as Europe/Berlin; default UTC
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    timezone: Option<String>,
    /// How late a firing that was missed may come
    #[arg(long, value_name = "SPAN", requires = "task", help_heading = "Order")]
    catch_up: Option<Span>,
    /// With --schedule: how often a run has to succeed, such as 26h; otherwise the host reports a condition
    #[arg(long, value_name = "SPAN", requires = "schedule", help_heading = "Order")]
    expect_every: Option<Span>,
    /// How often to ask whether the wanted state holds
    #[arg(long, value_name = "SPAN", requires = "task", help_heading = "Order")]
    reconcile: Option<Span>,
    /// With --reconcile: report that the state does not hold, and carry nothing out
    #[arg(long, requires = "reconcile", help_heading = "Order")]
    report_only: bool,
    /// A secret of which each new version carries it out once more; may be repeated
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    on_secret_change: Vec<String>,
    /// What a host does that finds it there when it joins: hold or run
    #[arg(long, value_name = "TEXT", requires = "task", help_heading = "Order")]
    on_preexisting: Option<String>,
}

impl Terms {
    fn reconcile(&self, every: Span) -> Value {
        let every = every.to_string();
        if self.report_only { json!({"every": every, "only": "report"}) } else { json!(every) }
    }

    /// As lines of the document.
    fn text(&self) -> String {
        let span = |span: &Option<Span>| span.map(|span| Value::from(span.to_string()));
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let secrets = Some(&self.on_secret_change).filter(|secrets| !secrets.is_empty());
        let fields = [
            ("schedule", text(&self.schedule)),
            ("window", text(&self.window)),
            ("timezone", text(&self.timezone)),
            ("catch_up", span(&self.catch_up)),
            ("expect_every", span(&self.expect_every)),
            ("reconcile", self.reconcile.map(|every| self.reconcile(every))),
            ("on_secret_change", secrets.map(|secrets| json!(secrets))),
            ("on_preexisting", text(&self.on_preexisting)),
        ];
        let line = |(name, value): (&str, Option<Value>)| value.map(|value| format!("{name}: {value}\n"));
        fields.into_iter().filter_map(line).collect()
    }
}

/// How a document is written.
#[derive(Args)]
struct Writing {
    /// Write over an order for another task, or with another schedule, without a question
    #[arg(long)]
    replace: bool,
    /// Show what would change, and write nothing
    #[arg(long)]
    check: bool,
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
struct Delete {
    #[command(flatten)]
    one: One,
    /// Who deletes it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The number of known hosts of the group, so that no question is asked
    #[arg(long, value_name = "N")]
    confirm_hosts: Option<usize>,
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
        OrderCommand::Edit(edit) => block(edit::edit(edit)),
        OrderCommand::Revert(revert) => block(edit::revert(revert)),
        OrderCommand::Next(next) => block(next::next(next)),
        OrderCommand::Delete(delete) => block(self::delete(delete)),
    }
}

async fn put(put: &Put) -> Result<ExitCode, Failure> {
    let (text, origin) = text(put)?;
    let document =
        Document::read(&text).map_err(|error| fault(Exit::ConfigError, format!("{origin}{error}")))?;
    let (text, document) = signed(text, document, put.order.by.as_deref())?;
    let key = OrderKey { source: put.source.source()?, order: put.name.clone() };
    let place = put.writing.place.open()?;
    let fleet = Fleet::read(&place).await?;
    let by = put.order.by.clone().or_else(user);
    let new = New { key, text, document, by, reason: put.order.reason.clone() };
    Ok(replace(&put.writing, &place, &fleet, new).await?.into())
}

/// A document that is to stand somewhere.
struct New {
    key: OrderKey,
    text: Vec<u8>,
    document: Document,
    /// Who writes it.
    by: Option<String>,
    /// Why.
    reason: Option<String>,
}

/// Puts a document in its place, as far as that is wanted by whoever sees what it changes.
async fn replace(writing: &Writing, place: &Connection, fleet: &Fleet, new: New) -> Result<Exit, Failure> {
    let New { key, text, document, by, reason } = new;
    fleet.check(&key.source)?;
    if let Document::Order(order) = &document {
        in_time(order)?;
        if order.spread.is_some_and(|spread| !spread.0.is_zero()) && matches!(key.source, Source::Host(_)) {
            show::note("`spread` has no effect in the order of a single host");
        }
        fleet.doubt_task(&order.task).into_iter().for_each(show::note);
    }
    let before = fleet.orders.get(&key);
    let identity = identity(&document);
    let did = match before.map(Placed::identity) {
        None => "created",
        Some(old) if old == identity && old.is_some() => SAME,
        Some(_) => "changed",
    };
    let differences = change::differences(before.map(|placed| &*placed.value), &text);
    let consequences = change::consequences(fleet, &key, &document, clock::now());
    let tell = |did: &str| -> Result<(), Failure> {
        let change = json!({"order": key, "did": did, "identity": identity, "differences": differences, "consequences": consequences});
        if writing.json {
            return Ok(show::json(&change)?);
        }
        show::say(format!("{key}: {did}"))?;
        for line in differences.iter().chain(&consequences) {
            show::say(format!("  {}", show::inline(line)))?;
        }
        Ok(())
    };
    if writing.check {
        tell(match did {
            "created" => "would be created",
            "changed" => "would be changed",
            _ => "same instruction, other terms at most; nothing is written",
        })?;
        return Ok(Exit::Success);
    }
    if let Some(Ok(Document::Order(old))) = before.map(|placed| &placed.document)
        && let Some(what) = change::takes_over(old, &document)
        && !writing.replace
    {
        let by = old.by.as_deref().map(|by| format!(" by {}", show::inline(by))).unwrap_or_default();
        confirm_yes(&format!("{key} is there{by}, {what}"), "take another name, or --replace")?;
    }
    if let Source::Group(group) = &key.source {
        fleet.note_claimants(group);
        confirm(&key, &document, fleet.members(group).len(), writing.confirm_hosts)?;
    }
    write(place, &key, text, before).await?;
    if let Some(placed) = before.filter(|_| !differences.is_empty()) {
        let text = String::from_utf8_lossy(&placed.value).into_owned();
        let former = Former { at: clock::now(), did: Fate::Replaced, by, reason, text };
        former::keep(place, &key, &former).await;
    }
    tell(did)?;
    if !writing.json {
        if did == SAME {
            show::say(
                "a host that has carried it out does so again only with another revision, or hostler retry",
            )?;
        }
        show::say(format!("hostler status {}{} shows its progress", key.order, said()))?;
    }
    Ok(Exit::Success)
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
        let mut text = put.order.text(task, put.revision.as_deref(), put.spread)?;
        text.push_str(&put.terms.text());
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
    confirm_number(&format!("{key}{spread}"), &format!("{} has", key.source), hosts, confirm_hosts)
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

async fn delete(delete: &Delete) -> Result<ExitCode, Failure> {
    let (place, key, store_key, placed) = find(&delete.one).await?;
    if let Source::Group(group) = &key.source {
        let fleet = Fleet::read(&place).await?;
        fleet.note_claimants(group);
        let hosts = fleet.members(group).len();
        confirm_number(
            &format!("delete {key}"),
            &format!("{} has", key.source),
            hosts,
            delete.confirm_hosts,
        )?;
    }
    place.store.delete(&store_key).await?;
    let by = delete.by.clone().or_else(user);
    let text = String::from_utf8_lossy(&placed.value).into_owned();
    let reason = delete.reason.clone();
    former::keep(&place, &key, &Former { at: clock::now(), did: Fate::Deleted, by, reason, text }).await;
    if delete.one.json {
        show::json(&json!({"order": key, "did": "deleted"}))?;
    } else {
        show::say(format!("{key}: deleted; completed work is not undone, and a run in progress continues"))?;
        show::say(format!(
            "hostler order revert {} {}{} puts it back",
            key.order,
            option(&key.source),
            said()
        ))?;
    }
    Ok(Exit::Success.into())
}

/// A place as commands name it.
fn option(source: &Source) -> String {
    match source {
        Source::Host(host) => format!("--host {host}"),
        Source::Group(group) => format!("--group {group}"),
    }
}

fn described(key: &OrderKey, placed: &Placed) -> Value {
    let mut described = json!({"order": key, "index": placed.index, "identity": placed.identity()});
    match &placed.document {
        Ok(Document::Order(order)) => {
            described["task"] = order.task.as_str().into();
            described["schedule"] = order.standing_terms().into();
            let next = order.schedule.as_ref().and_then(|schedule| schedule.next(clock::now()));
            described["next"] = next.map(|at| at.to_string()).into();
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
        let last = last_successes(&place, &fleet, wanted.as_ref()).await?;
        if let Some(source) = &wanted {
            fleet.check(source)?;
            fleet.orders.retain(|key, _| key.source == *source);
            fleet.odd.retain(|(path, _)| path.starts_with(&format!("{source}/")));
        }
        Ok::<_, Failure>(Listed { orders: fleet.orders, odd: fleet.odd, last })
    };
    if list.watch.watch {
        let look = async || {
            let listed = read().await?;
            Ok(if listed.is_empty() { format!("{NONE}\n") } else { table(&listed) })
        };
        return Ok(endless(&list.watch, look).await?.into());
    }
    let listed = read().await?;
    if list.json {
        let one = |(key, placed): (&OrderKey, &Placed)| {
            let mut described = described(key, placed);
            if let Some(Some(at)) = listed.last.get(key) {
                described["last_success"] = at.to_string().into();
            }
            described
        };
        let all: Vec<Value> = listed.orders.iter().map(one).collect();
        show::json(&all)?;
        listed.odd.iter().for_each(|(path, why)| show::note(format!("{} (broken): {why}", odd::shown(path))));
    } else if listed.is_empty() {
        show::note(NONE);
    } else {
        show::page(&table(&listed))?;
    }
    Ok(Exit::Success.into())
}

/// What is listed.
struct Listed {
    orders: BTreeMap<OrderKey, Placed>,
    /// Keys that are no orders, each with the reason.
    odd: Vec<(String, String)>,
    /// Of orders with a schedule: the last success on the host where it is the oldest; `None`: a host has none.
    last: BTreeMap<OrderKey, Option<Timestamp>>,
}

impl Listed {
    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.odd.is_empty()
    }
}

/// The most reports that are read for a list of orders: thirty questions to the store.
const MAX_REPORTS: usize = 30 * MAX_READS;

/// The last success of each order with a schedule, over the hosts that follow it; of a fleet with more hosts than there is
/// time to ask, only the first orders have one.
async fn last_successes(
    place: &Connection,
    fleet: &Fleet,
    source: Option<&Source>,
) -> Result<BTreeMap<OrderKey, Option<Timestamp>>, Failure> {
    let mut wanted = Vec::new();
    let mut last = BTreeMap::new();
    for (key, placed) in fleet.orders.iter().filter(|(key, _)| source.is_none_or(|one| key.source == *one)) {
        let scheduled = matches!(&placed.document, Ok(Document::Order(order)) if order.schedule.is_some());
        let (hosts, _) = if scheduled { fleet.followers(key) } else { continue };
        if wanted.len().saturating_add(hosts.len()) > MAX_REPORTS {
            break;
        }
        wanted.extend(hosts.into_iter().map(|host| (key, (host.clone(), key.order.clone()))));
    }
    let pairs: Vec<(Name, Name)> = wanted.iter().map(|(_, pair)| pair.clone()).collect();
    let found = reports(place, &pairs).await?;
    for (key, pair) in wanted {
        let success = found.get(&pair).and_then(|report| report.last_success);
        let oldest = last.entry(key.clone()).or_insert(success);
        *oldest = (*oldest).min(success);
    }
    Ok(last)
}

/// A line for each order.
fn table(listed: &Listed) -> String {
    let Listed { orders, odd, last } = listed;
    let headings = ["PLACE", "ORDER", "TASK", "SCHEDULE", "NEXT", "LAST", "INSTRUCTION", "BY", "REASON"];
    let mut table = Table::new(&headings).names(2, &["INSTRUCTION", "BY", "LAST", "NEXT"]);
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
        let [schedule, next, last] = standing(placed, last.get(key));
        let (source, order) = (key.source.to_string(), key.order.to_string());
        table.row([source, order, task, schedule, next, last, identity, by, reason]);
    }
    for (path, why) in odd {
        // The place is what is before the second slash.
        let cut = path.match_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        let (source, name) = path.split_at(cut);
        let source = odd::shown(source.trim_end_matches('/'));
        let [schedule, next, last, identity, by] = ["-"; 5].map(str::to_owned);
        let order = odd::shown(name);
        table.row([source, order, "(broken)".into(), schedule, next, last, identity, by, why.clone()]);
    }
    table.shown()
}

/// What makes an order come again, when it fires next and when it last succeeded, on the clock of its zone.
fn standing(placed: &Placed, last: Option<&Option<Timestamp>>) -> [String; 3] {
    let none = || "-".to_owned();
    let Ok(Document::Order(order)) = &placed.document else { return [none(), none(), none()] };
    let local = |at: Timestamp| {
        let zone = order.schedule.as_ref().map(|schedule| schedule.zone());
        zone.map_or_else(none, |zone| zone.local(at).strftime("%Y-%m-%d %H:%M").to_string())
    };
    let next = order.schedule.as_ref().and_then(|schedule| schedule.next(clock::now()));
    let last = last.map_or_else(none, |last| last.map_or_else(|| "never".to_owned(), local));
    [order.standing_terms().unwrap_or_else(none), next.map_or_else(none, local), last]
}
