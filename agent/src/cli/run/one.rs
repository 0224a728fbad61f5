//! Waiting for one host's answer to the very instruction that was placed, with its progress.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::Arguments;
use crate::cli::connection::{Connection, said};
use crate::cli::exit::{Exit, end_of_phase};
use crate::cli::fleet::{agent_of, conditions_line, is_late, report_of};
use crate::cli::history::usual;
use crate::cli::live::StatusLine;
use crate::cli::progress::{detail, live};
use crate::cli::{Failure, screen, show};
use crate::domain::ids::InstructionHash;
use crate::domain::name::Name;
use crate::domain::source::OrderKey;
use crate::domain::state::End;
use crate::host::clock;
use crate::report::document::OrderReport;
use crate::store::{Listing, MAX_WAIT, StoreError};

/// How often the agent's own report is looked at.
const AGENT_EVERY: Duration = Duration::from_secs(15);
/// How often the time that has gone by is shown anew, on a terminal.
const TICK: Duration = Duration::from_secs(1);
/// After trouble with the store.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two questions: a store that answers at once, for whatever reason, is not asked without end.
const REST: Duration = Duration::from_millis(100);

/// Waits for the end and says what came of it.
pub(super) async fn wait(
    arguments: &Arguments,
    place: &Connection,
    host: &Name,
    key: &OrderKey,
    placed: (InstructionHash, u64),
) -> Result<Exit, Failure> {
    let (identity, before) = placed;
    let mut waiting = Waiting {
        place,
        host,
        key,
        identity,
        before,
        live: (!arguments.json).then(StatusLine::new),
        report: None,
        usual: None,
        agent: None,
    };
    let exit = waiting.wait(arguments.wait.0).await?;
    let report = waiting.report.take();
    if let Some(live) = &mut waiting.live {
        live.end()?;
    }
    conclude(arguments, host, key, exit, report.as_ref())?;
    Ok(exit)
}

struct Waiting<'a> {
    place: &'a Connection,
    host: &'a Name,
    key: &'a OrderKey,
    identity: InstructionHash,
    /// The index of the report before the order was placed.
    before: u64,
    live: Option<StatusLine>,
    report: Option<OrderReport>,
    /// How long it usually takes; asked once.
    usual: Option<Option<SignedDuration>>,
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
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(deadline, interrupt);
        let mut seen = None;
        loop {
            let changed = next(place, &prefix, seen);
            tokio::pin!(changed);
            let listing = loop {
                tokio::select! {
                    listing = &mut changed => break listing,
                    _ = look.tick() => self.look_at_agent().await?,
                    _ = tick.tick(), if screen::terminal() => self.show()?,
                    _ = &mut interrupt => {
                        if let Some(live) = &mut self.live {
                            live.end()?;
                        }
                        let (key, order, host) = (self.key, &self.key.order, self.host);
                        show::note(format!("{key} stays in place: hostler status {order} --host {host} --watch{}", said()));
                        show::note(format!("to end it: hostler cancel {order} --host {host}{}", said()));
                        return Ok(Exit::Interrupted);
                    }
                    () = &mut deadline => {
                        self.look_at_agent().await?;
                        return Ok(if self.agent.is_some() { Exit::Silent } else { Exit::Pending });
                    }
                }
            };
            match listing {
                Ok(listing) => {
                    if let Some(exit) = self.take(&listing)? {
                        return Ok(exit);
                    }
                    self.learn().await;
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

    /// Shows the report. What changes with the clock alone is for terminals, where a line replaces the one before.
    fn show(&mut self) -> Result<(), Failure> {
        let Some(report) = &self.report else { return Ok(()) };
        let line = if screen::terminal() {
            live(report, self.usual.flatten(), clock::now())
        } else {
            format!("{:<10} {}", report.phase, detail(report))
        };
        self.say(line)
    }

    /// Asks how long the task usually takes here. It is a comfort: trouble with it is none of the order's.
    async fn learn(&mut self) {
        let task = self.report.as_ref().and_then(|report| report.task.as_deref());
        if let Some(task) = task
            && self.usual.is_none()
            && screen::terminal()
        {
            self.usual = Some(usual(self.place, self.host, task).await.unwrap_or_default());
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
        self.report = Some(report);
        self.show()?;
        Ok(if held { Some(Exit::Held) } else { end.map(Exit::of_end) })
    }

    /// Says when the host is silent, and when it is back.
    async fn look_at_agent(&mut self) -> Result<(), Failure> {
        let key = self.place.keys.agent_report(self.host);
        // Trouble with the store is told elsewhere.
        let Ok(listing) = self.place.store.list(&key).await else { return Ok(()) };
        let entry = listing.entries.iter().find(|entry| entry.key == key);
        let silent = match entry.map(|entry| agent_of(&entry.value)) {
            None => Some(format!("the agent of {} has never reported; the order waits for it", self.host)),
            Some(agent) if is_late(agent.next_report_by, clock::now()) => Some(format!(
                "host {} is stale since {}; the order waits for it",
                self.host,
                show::time(agent.next_report_by)
            )),
            // Whatever it says is not understood, so that its end would not be seen.
            Some(agent) if agent.version == 0 => {
                Some(format!("host {}: {}", self.host, conditions_line(&agent)))
            }
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
async fn next(place: &Connection, prefix: &str, seen: Option<u64>) -> Result<Listing, StoreError> {
    if seen.is_some() {
        sleep(REST).await;
    }
    let listing = place.store.changed(prefix, seen, MAX_WAIT).await;
    if listing.is_err() {
        sleep(RETRY_INTERVAL).await;
    }
    listing
}

fn conclude(
    arguments: &Arguments,
    host: &Name,
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
                "no answer yet; {key} stays in place: hostler status {} --host {}{}",
                key.order,
                host,
                said()
            ));
        }
        return Ok(());
    };
    for (name, value) in &report.outputs {
        show::line(format!("  {} = {}", show::inline(name), show::inline(value)))?;
    }
    for one in &report.downtime {
        show::line(format!("  downtime: {one}"))?;
    }
    if exit != Exit::Success
        && let Some(tail) = &report.tail
    {
        for line in show::lines(tail).lines() {
            show::line(format!("  | {line}"))?;
        }
    }
    match (exit, run) {
        (Exit::Success | Exit::Interrupted, _) => {}
        (Exit::Pending | Exit::Silent, _) => show::note(format!(
            "{key} is not over and stays in place: hostler status {} --host {}{}",
            key.order,
            host,
            said()
        )),
        (_, Some(run)) => show::note(format!("the whole output, on {}: hostler logs {run}", host)),
        (_, None) => {}
    }
    Ok(())
}
