//! `hostler run`: places an order for one host, waits for its end and ends with its exit status.
//!
//! Whatever happens to this command, the order stays in place and the host carries it out; only a report of the
//! very instruction that was placed counts as an answer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::document::OrderArgs;
use super::exit::{Exit, end_of_phase, fault};
use super::fleet::Standing;
use super::fleet::{Fleet, Placed, is_late, report_of, reports, standing};
use super::live::Live;
use super::order::write;
use super::place::{Place, PlaceArgs};
use super::status::detail_of;
use super::{Failure, block, show};
use crate::domain::ids::Identity;
use crate::domain::memory::End;
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::domain::span::Span;
use crate::host::clock;
use crate::report::document::{AgentReport, OrderReport};
use crate::store::{Listing, StoreError};

/// How often the agent's own report is looked at.
const AGENT_EVERY: Duration = Duration::from_secs(15);
/// After trouble with the store.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two questions: a store that answers at once, for whatever reason, is not asked without end.
const REST: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(super) struct Arguments {
    /// The task
    task: Name,
    /// The host
    #[arg(long, value_name = "HOST")]
    host: Name,
    /// The order's name; the task's when not said
    #[arg(long = "order", value_name = "NAME")]
    name: Option<Name>,
    /// Write over another order of this name
    #[arg(long)]
    replace: bool,
    /// How long to wait for the end; the order stays in place
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    wait: Span,
    #[command(flatten)]
    order: OrderArgs,
    /// Print the last report for programs, and no progress
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let (key, identity, before) = put(arguments, &place).await?;
        let mut waiting = Waiting {
            place: &place,
            host: &arguments.host,
            key: &key,
            identity,
            before,
            live: (!arguments.json).then(Live::new),
            report: None,
            agent: None,
        };
        let exit = waiting.wait(arguments.wait.0).await?;
        let report = waiting.report.take();
        if let Some(live) = &mut waiting.live {
            live.end()?;
        }
        conclude(arguments, &key, exit, report.as_ref())?;
        Ok(exit.into())
    })
}

/// Places the order; gives the index of the report that the host had before.
async fn put(arguments: &Arguments, place: &Place) -> Result<(OrderKey, Identity, u64), Failure> {
    let host = &arguments.host;
    let order = arguments.name.clone().unwrap_or_else(|| arguments.task.clone());
    let key = OrderKey { source: Source::Host(host.clone()), order: order.clone() };
    // The time makes it an instruction that was never given before.
    let text = arguments.order.text(&arguments.task, Some(&clock::now().to_string()), None)?;
    let document = Document::read(text.as_bytes());
    let document =
        document.map_err(|error| fault(Exit::Trouble, format!("the options make no order: {error}")))?;
    let Document::Order(new) = document else {
        return Err(fault(Exit::Trouble, "the options make no order"));
    };
    let fleet = Fleet::read(place).await?;
    fleet.check(&key.source)?;
    let before = fleet.orders.get(&key);
    if let Some(placed) = before.filter(|_| !arguments.replace) {
        may_replace(arguments, place, &fleet, &key, placed).await?;
    }
    if before.is_none()
        && let Some((covered, _)) = fleet.effective(host, &order)
    {
        show::note(format!("{key} now counts on {host} in place of {covered}, until it is deleted"));
    }
    let prefix = place.keys.order_reports(host);
    let listing = place.store.list(&prefix).await?;
    let report_key = place.keys.order_report(host, &order);
    let index =
        listing.entries.iter().find(|entry| entry.key == report_key).map_or(0, |entry| entry.modify_index);
    write(place, &key, text.into_bytes(), before).await?;
    Ok((key, new.identity, index))
}

/// An order that somebody else placed for another task, or that is not over, is not written over unasked.
async fn may_replace(
    arguments: &Arguments,
    place: &Place,
    fleet: &Fleet,
    key: &OrderKey,
    placed: &Placed,
) -> Result<(), Failure> {
    let pair = (arguments.host.clone(), key.order.clone());
    let report = reports(place, std::slice::from_ref(&pair)).await?.remove(&pair);
    let standing = standing(Some(placed), report.as_ref(), fleet.agents.get(&arguments.host), clock::now());
    let same_task = matches!(&placed.document, Ok(Document::Order(order)) if order.task == arguments.task);
    let over = matches!(standing, Standing::Done | Standing::Failed);
    if same_task && over {
        return Ok(());
    }
    let why =
        if same_task { format!("is {}", standing.as_str()) } else { "is for something else".to_owned() };
    let message = format!(
        "{key} is there and {why}; nothing was written: say --order NAME for a new one, or --replace"
    );
    Err(fault(Exit::NotConfirmed, message))
}

struct Waiting<'a> {
    place: &'a Place,
    host: &'a Name,
    key: &'a OrderKey,
    identity: Identity,
    /// The index of the report before the order was placed.
    before: u64,
    live: Option<Live>,
    report: Option<OrderReport>,
    /// What was said of the agent last.
    agent: Option<String>,
}

impl Waiting<'_> {
    async fn wait(&mut self, most: Duration) -> Result<Exit, Failure> {
        let (place, prefix) = (self.place, self.place.keys.order_reports(self.host));
        let deadline = sleep_until(Instant::now() + most);
        let interrupt = tokio::signal::ctrl_c();
        let mut look = interval(AGENT_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(deadline, interrupt);
        let mut seen = None;
        loop {
            let changed = next(place, &prefix, seen);
            tokio::pin!(changed);
            let listing = loop {
                tokio::select! {
                    listing = &mut changed => break listing,
                    _ = look.tick() => self.look_at_agent().await?,
                    _ = &mut interrupt => {
                        if let Some(live) = &mut self.live {
                            live.end()?;
                        }
                        show::note(format!("{} stays in place: hostler status {} --host {}", self.key, self.key.order, self.host));
                        return Ok(Exit::Interrupted);
                    }
                    () = &mut deadline => {
                        self.look_at_agent().await?;
                        return Ok(if self.agent.is_some() { Exit::Silent } else { Exit::GoesOn });
                    }
                }
            };
            match listing {
                Ok(listing) => {
                    if let Some(exit) = self.take(&listing)? {
                        return Ok(exit);
                    }
                    seen = Some(listing.index);
                }
                Err(error @ (StoreError::Denied { .. } | StoreError::Refused { .. })) => {
                    return Err(error.into());
                }
                Err(error) => {
                    self.say(format!("(no view: {error})"))?;
                    seen = None;
                }
            }
        }
    }

    fn say(&mut self, line: String) -> Result<(), Failure> {
        if let Some(live) = &mut self.live {
            live.show(&line)?;
        }
        Ok(())
    }

    /// Takes the reports in; gives the end, if this is it.
    fn take(&mut self, listing: &Listing) -> Result<Option<Exit>, Failure> {
        let key = self.place.keys.order_report(self.host, &self.key.order);
        let Some(entry) = listing.entries.iter().find(|entry| entry.key == key) else { return Ok(None) };
        let report = report_of(&entry.value);
        let end = end_of_phase(&report.phase);
        // An agent that cannot read the document knows no identity, but its word is a new one.
        let unread =
            report.identity.is_none() && end == Some(End::Refused) && entry.modify_index != self.before;
        if report.identity != Some(self.identity) && !unread {
            return Ok(None);
        }
        let held = report.phase == "held";
        self.say(format!("{:<10} {}", report.phase, detail_of(&report)))?;
        self.report = Some(report);
        Ok(if held { Some(Exit::Held) } else { end.map(Exit::of_end) })
    }

    /// Says when the host is silent, and when it is back.
    async fn look_at_agent(&mut self) -> Result<(), Failure> {
        let key = self.place.keys.agent_report(self.host);
        // Trouble with the store is told elsewhere.
        let Ok(listing) = self.place.store.list(&key).await else { return Ok(()) };
        let entry = listing.entries.iter().find(|entry| entry.key == key);
        let agent = entry.and_then(|entry| serde_json::from_slice::<AgentReport>(&entry.value).ok());
        let silent = match agent {
            None => Some(format!("the agent of {} has never reported; the order waits for it", self.host)),
            Some(agent) if is_late(agent.next_by, clock::now()) => Some(format!(
                "host {} is silent since {}; the order waits for it",
                self.host,
                show::time(agent.next_by)
            )),
            Some(_) => None,
        };
        if silent != self.agent {
            if let Some(live) = &mut self.live {
                live.end()?;
            }
            show::note(silent.clone().unwrap_or_else(|| format!("host {} reports again", self.host)));
            self.agent = silent;
        }
        Ok(())
    }
}

/// The next listing; after trouble with a pause before.
async fn next(place: &Place, prefix: &str, seen: Option<u64>) -> Result<Listing, StoreError> {
    if seen.is_some() {
        sleep(REST).await;
    }
    let listing = place.store.changed(prefix, seen).await;
    if listing.is_err() {
        sleep(AGAIN).await;
    }
    listing
}

fn conclude(
    arguments: &Arguments,
    key: &OrderKey,
    exit: Exit,
    report: Option<&OrderReport>,
) -> Result<(), Failure> {
    let run = report.and_then(|report| report.run);
    if arguments.json {
        show::json(&json!({"order": key, "exit": exit.number(), "report": report}))?;
        return Ok(());
    }
    let Some(report) = report else {
        if exit != Exit::Interrupted {
            show::note(format!(
                "no answer yet; {key} stays in place: hostler status {} --host {}",
                key.order, arguments.host
            ));
        }
        return Ok(());
    };
    for (name, value) in &report.outputs {
        show::line(format!("  {} = {}", show::inline(name), show::inline(value)))?;
    }
    if exit != Exit::Good
        && let Some(tail) = &report.tail
    {
        for line in show::lines(tail).lines() {
            show::line(format!("  | {line}"))?;
        }
    }
    match (exit, run) {
        (Exit::Good | Exit::Interrupted, _) => {}
        (Exit::GoesOn | Exit::Silent, _) => show::note(format!(
            "{key} is not over and stays in place: hostler status {} --host {}",
            key.order, arguments.host
        )),
        (_, Some(run)) => show::note(format!("the whole output, on {}: hostler logs {run}", arguments.host)),
        (_, None) => {}
    }
    Ok(())
}
