//! `hostler cancel`, `release`, `retry`, `acknowledge`, `undo`, `accept`: one action on an order of some hosts, or of each
//! host of a group where it stands so.
//!
//! Each is a document of its own in the store, which names the very run or instruction that the host reports now:
//! one that comes late does nothing. The command waits for the host's answer and takes the document away again;
//! without an answer it stays, and counts for a week.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::confirm::confirm_number;
use super::connection::{Connection, ConnectionArgs, said};
use super::document::user;
use super::exit::{Exit, end_of_phase, fault};
use super::fleet::{Fleet, reports};
use super::status::next;
use super::status::rows::Question;
use super::status::watch::Watch;
use super::watch::WatchArgs;
use super::{Failure, block, show};
use crate::domain::control::{Control, ControlAction, ControlId, Settled, Target};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::span::Span;
use crate::domain::state::End;
use crate::host::clock;
use crate::report::document::{self, AgentReport, OrderReport};
use crate::store::{MAX_READS, Read, When};

/// How often the hosts are asked for their answer.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// What every act needs beside its order.
#[derive(Args)]
pub(super) struct Act {
    /// The hosts, separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',', required_unless_present = "group")]
    host: Vec<Name>,
    /// The known hosts of this group
    #[arg(long, value_name = "GROUP", conflicts_with = "host")]
    group: Option<Name>,
    /// Not these hosts of the group, separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',', requires = "group")]
    except: Vec<Name>,
    /// Only where the order is over and did not succeed
    #[arg(long)]
    failed: bool,
    /// Only where it is held
    #[arg(long)]
    held: bool,
    /// Only where it waits
    #[arg(long)]
    waiting: bool,
    /// Who wants it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for the hosts' answers
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    answer_timeout: Span,
    /// With a group: the number of hosts that it is for, so that no question is asked
    #[arg(long, value_name = "N")]
    confirm_hosts: Option<usize>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// An act on one order.
#[derive(Args)]
pub(super) struct Arguments {
    /// The order's name
    order: Name,
    #[command(flatten)]
    act: Act,
}

/// `retry` of a group takes what failed.
#[derive(Args)]
pub(super) struct Retry {
    /// With a group: also where it succeeded; otherwise only where it is over and did not succeed
    #[arg(long, conflicts_with_all = ["failed", "held", "waiting"])]
    all: bool,
    #[command(flatten)]
    arguments: Arguments,
}

/// `accept` also takes whatever is held on a host, such as the history that a new host finds.
#[derive(Args)]
pub(super) struct Accept {
    /// The order's name
    #[arg(required_unless_present = "all_orders")]
    order: Option<Name>,
    /// Every order that is held there, in place of one
    #[arg(long, conflicts_with_all = ["order", "watch"])]
    all_orders: bool,
    #[command(flatten)]
    act: Act,
}

/// `acknowledge` alone says more.
#[derive(Args)]
pub(super) struct Acknowledge {
    /// What is true on the host now
    #[arg(long = "as", value_name = "WHAT")]
    settled: Word,
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Word {
    /// What the order wants holds
    Done,
    /// It does not
    Failed,
    /// The step that was interrupted is done: the run goes on with the next one
    StepDone,
}

pub(super) fn acknowledge(arguments: &Acknowledge) -> Result<ExitCode, Failure> {
    let settled = match arguments.settled {
        Word::Done => Settled::Done,
        Word::Failed => Settled::Failed,
        Word::StepDone => Settled::StepDone,
    };
    let Arguments { order, act } = &arguments.arguments;
    Wanted::new(act, ControlAction::Acknowledge, Some(order)).settled(settled).carry_out()
}

pub(super) fn retry(arguments: &Retry) -> Result<ExitCode, Failure> {
    let Arguments { order, act } = &arguments.arguments;
    let wanted = Wanted::new(act, ControlAction::Retry, Some(order));
    Wanted { all: arguments.all, ..wanted }.carry_out()
}

pub(super) fn accept(arguments: &Accept) -> Result<ExitCode, Failure> {
    Wanted::new(&arguments.act, ControlAction::Accept, arguments.order.as_ref()).carry_out()
}

pub(super) fn run(arguments: &Arguments, action: ControlAction) -> Result<ExitCode, Failure> {
    Wanted::new(&arguments.act, action, Some(&arguments.order)).carry_out()
}

/// An order on a host.
type Pair = (Name, Name);

/// What is wanted, of which orders on which hosts.
struct Wanted<'a> {
    act: &'a Act,
    action: ControlAction,
    /// `None`: every order that the action applies to.
    order: Option<&'a Name>,
    settled: Option<Settled>,
    /// With `retry` of a group: also what succeeded.
    all: bool,
}

impl<'a> Wanted<'a> {
    fn new(act: &'a Act, action: ControlAction, order: Option<&'a Name>) -> Self {
        Self { act, action, order, settled: None, all: false }
    }

    fn settled(self, settled: Settled) -> Self {
        Self { settled: Some(settled), ..self }
    }

    fn carry_out(&self) -> Result<ExitCode, Failure> {
        block(async {
            let place = self.act.place.open()?;
            let targets = self.targets(&place).await?;
            let waiting = self.write(&place, targets).await?;
            let answers = answers(&place, &waiting, self.act.answer_timeout.0).await.map_err(|error| {
                let written = some(waiting.keys());
                let word = self.action.as_str();
                fault(
                    Exit::of_failure(&error),
                    format!("{word} is written for {written}; the answers cannot be read: {error}"),
                )
            })?;
            for (pair, (_, key)) in &waiting {
                if answers.contains_key(pair)
                    && let Err(error) = place.store.delete(key).await
                {
                    // The host has answered, and an answered control counts for nothing any more.
                    show::note(format!("{key} is left in the store: {error}"));
                }
            }
            let exit = self.conclude(&waiting, &answers)?;
            match self.order {
                Some(order) if exit == Exit::Success && self.act.watch.watch => {
                    let hosts = waiting.keys().map(|(host, _)| host.clone()).collect();
                    let question = Question { order: Some(order.clone()), hosts, group: None };
                    let (exit, rows) = Watch::new(&place, &question).watch(self.act.watch.most()).await?;
                    if let Some(rows) = rows.filter(|rows| rows.rows.len() > 1) {
                        show::raw(next::of_rows(&rows, &question).as_bytes())?;
                    }
                    Ok(exit.into())
                }
                _ => Ok(exit.into()),
            }
        })
    }

    /// The place as the command names it.
    fn words(&self) -> String {
        match &self.act.group {
            Some(group) => format!("--group {group}"),
            None => {
                let hosts: Vec<&str> = self.act.host.iter().map(Name::as_str).collect();
                format!("--host {}", hosts.join(","))
            }
        }
    }

    /// The place for people.
    fn place(&self) -> String {
        let names = |hosts: &[Name]| hosts.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        match (&self.act.group, &*self.act.host) {
            (Some(group), _) if self.act.except.is_empty() => format!("groups/{group}"),
            (Some(group), _) => format!("groups/{group} except {}", names(&self.act.except)),
            (None, [host]) => format!("hosts/{host}"),
            (None, hosts) => format!("hosts {}", names(hosts)),
        }
    }

    /// Whether only what is over and did not succeed is meant.
    fn only_failed(&self) -> bool {
        let said = self.act.failed || self.act.held || self.act.waiting;
        let default = self.action == ControlAction::Retry && self.act.group.is_some() && !self.all;
        self.act.failed || (default && !said)
    }

    /// Whether an order stands so that it is meant.
    fn chooses(&self, report: &OrderReport) -> bool {
        let (failed, held, waiting) = (self.only_failed(), self.act.held, self.act.waiting);
        let any = !failed && !held && !waiting;
        any || (failed && end_of_phase(&report.phase).is_some_and(|end| !end.is_good()))
            || (held && report.phase == "held")
            || (waiting && report.phase == "waiting")
    }

    /// Which of them are meant, for a message.
    fn chosen(&self) -> String {
        let words = [(self.only_failed(), "failed"), (self.act.held, "held"), (self.act.waiting, "waiting")];
        words.iter().filter(|(said, _)| *said).map(|(_, word)| *word).collect::<Vec<_>>().join(" or ")
    }

    /// The orders that are meant, for a message.
    fn subject(&self) -> String {
        self.order.map_or_else(|| "any order".to_owned(), |order| format!("order {order}"))
    }

    /// Writes one control for each order on a host; gives its id and key. An error says which hosts have theirs: a host acts
    /// as soon as it sees its own, so what was written is not taken back.
    async fn write(
        &self,
        place: &Connection,
        targets: Vec<(Pair, Target)>,
    ) -> Result<BTreeMap<Pair, (ControlId, String)>, Failure> {
        let (action, act) = (self.action, self.act);
        let mut written = BTreeMap::new();
        let mut targets = targets.into_iter();
        while let Some((pair, target)) = targets.next() {
            let by = act.by.clone().or_else(user).unwrap_or_else(|| "not said".to_owned());
            let reason = act.reason.clone().unwrap_or_else(|| "not said".to_owned());
            let control = Control { action, target, settled: self.settled, by, reason };
            let (id, now) = (clock::new_run(), clock::now());
            let key = place.keys.control(&pair.0, &pair.1, id);
            let text = control.write(now)?.to_string();
            match place.store.put(&key, text.into_bytes(), When::Unchanged(0)).await {
                // The id is new, so a key that is there already is this very control.
                Ok(_) => drop(written.insert(pair, (id, key))),
                Err(error) if written.is_empty() => return Err(error.into()),
                Err(error) => {
                    let left: Vec<Pair> =
                        std::iter::once(pair).chain(targets.map(|(pair, _)| pair)).collect();
                    let message = format!(
                        "{} is written for {}, which carry it out, and not for {}: {error}; repeat it for each of the \
                         latter with --host",
                        action.as_str(),
                        some(written.keys()),
                        some(left.iter()),
                    );
                    return Err(fault(Exit::Store, message));
                }
            }
        }
        Ok(written)
    }

    /// The hosts that were named.
    fn hosts(&self, fleet: &Fleet) -> Result<Vec<Name>, Failure> {
        let Some(group) = &self.act.group else {
            self.act.host.iter().try_for_each(|host| fleet.check_host(host))?;
            let hosts: BTreeSet<&Name> = self.act.host.iter().collect();
            return Ok(hosts.into_iter().cloned().collect());
        };
        fleet.check(&Source::Group(group.clone()))?;
        fleet.note_claimants(group);
        let members = fleet.members(group);
        if let Some(host) = self.act.except.iter().find(|host| !members.contains(host)) {
            let message = format!("--except {host}: group {group} has no such host; nothing was written");
            return Err(fault(Exit::NotFound, message));
        }
        Ok(members.into_iter().filter(|host| !self.act.except.contains(host)).cloned().collect())
    }

    /// The orders on hosts, each with what the act is about there.
    async fn targets(&self, place: &Connection) -> Result<Vec<(Pair, Target)>, Failure> {
        let fleet = Fleet::read(place).await?;
        let hosts = self.hosts(&fleet)?;
        let every: BTreeSet<&Name> = fleet.orders.keys().map(|key| &key.order).collect();
        let orders = |host: &Name| -> Vec<Name> {
            match self.order {
                Some(order) => vec![order.clone()],
                None => {
                    let counts = every.iter().filter(|order| fleet.effective(host, order).is_some());
                    counts.map(|order| (*order).clone()).collect()
                }
            }
        };
        let pairs: Vec<Pair> = hosts
            .iter()
            .flat_map(|host| orders(host).into_iter().map(|order| (host.clone(), order)))
            .collect();
        let reports = reports(place, &pairs).await?;
        if reports.is_empty()
            && let Some(order) = self.order
        {
            let placed = pairs.iter().find_map(|(host, _)| fleet.effective(host, order));
            return Err(match placed {
                Some((key, _)) => fault(
                    Exit::Negative,
                    format!(
                        "order {order} at {key} has no report of {} yet: see hostler status {order}{}",
                        self.place(),
                        said()
                    ),
                ),
                None => fleet.no_order(order, None),
            });
        }
        let target = |(pair, report): (&Pair, &OrderReport)| {
            let target = about(self.action, report).filter(|_| self.chooses(report))?;
            Some((pair.clone(), target))
        };
        let targets: Vec<(Pair, Target)> = reports.iter().filter_map(target).collect();
        if targets.is_empty() {
            return Err(self.nothing(&reports));
        }
        if self.settled == Some(Settled::Done) && !self.act.json {
            targets.iter().filter_map(|(pair, _)| left_out(reports.get(pair)?)).for_each(show::note);
        }
        if self.act.group.is_some() {
            let count = targets.iter().map(|((host, _), _)| host).collect::<BTreeSet<_>>().len();
            let chosen = self.chosen();
            let chosen = if chosen.is_empty() { chosen } else { format!(", only where it is {chosen},") };
            let what = format!("{} of {} in {}{chosen}", self.action.as_str(), self.subject(), self.place());
            confirm_number(&what, &format!("{what} is for"), count, self.act.confirm_hosts)?;
        }
        Ok(targets)
    }

    /// Why there is nothing to do.
    fn nothing(&self, reports: &BTreeMap<Pair, OrderReport>) -> Failure {
        let (word, words, subject) = (self.action.as_str(), self.words(), self.subject());
        let chosen = self.chosen();
        let stands = match reports.values().next() {
            Some(report) if reports.len() == 1 => {
                format!(
                    "{subject} in hosts/{} is {}",
                    show::inline(&report.host),
                    show::inline(&report.phase)
                )
            }
            _ if chosen.is_empty() => format!("{subject} in {} is otherwise on each host", self.place()),
            _ => format!("no host of {} has {subject} {chosen}", self.place()),
        };
        let order = self.order.map(|order| format!("{order} ")).unwrap_or_default();
        fault(
            Exit::Negative,
            format!("nothing to {word}: {stands}; see hostler status {order}{words}{}", said()),
        )
    }

    fn conclude(
        &self,
        waiting: &BTreeMap<Pair, (ControlId, String)>,
        answers: &BTreeMap<Pair, String>,
    ) -> Result<Exit, Failure> {
        let word = self.action.as_str();
        if self.act.json {
            self.json(waiting, answers)?;
        } else {
            for pair in waiting.keys() {
                let (host, order) = pair;
                let answer = answers.get(pair).map_or_else(
                    || {
                        format!(
                            "no answer within {}; it stays in place for a week: hostler status {order} --host {host}{}",
                            self.act.answer_timeout,
                            said()
                        )
                    },
                    |answer| show::inline(answer),
                );
                show::line(format!("{order} on {host}: {word}: {answer}"))?;
            }
        }
        let exit = if answers.values().any(|answer| answer != "done") {
            Exit::Negative
        } else if answers.len() < waiting.len() {
            Exit::Silent
        } else {
            Exit::Success
        };
        // The host has taken it up: what comes of it is another question.
        if exit == Exit::Success && !self.act.json && !self.act.watch.watch {
            let order = self.order.map(|order| format!("{order} ")).unwrap_or_default();
            show::say(format!("hostler status {order}{}{} shows its progress", self.words(), said()))?;
        }
        Ok(exit)
    }

    fn json(
        &self,
        waiting: &BTreeMap<Pair, (ControlId, String)>,
        answers: &BTreeMap<Pair, String>,
    ) -> Result<(), Failure> {
        let action = self.action.as_str();
        let by_host = |wanted: &Name| -> BTreeMap<&Name, Option<&String>> {
            let of_order = waiting.keys().filter(|(_, order)| order == wanted);
            of_order.map(|pair| (&pair.0, answers.get(pair))).collect()
        };
        let document = |order: &Name| json!({"order": order, "action": action, "answers": by_host(order)});
        match self.order {
            Some(order) => show::json(&document(order))?,
            None => {
                let orders: BTreeSet<&Name> = waiting.keys().map(|(_, order)| order).collect();
                show::json(&orders.into_iter().map(document).collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}

/// So many hosts are named in a message.
const MAX_NAMED: usize = 20;

/// Names of hosts for one line; a long list ends with a count.
fn some<'a>(pairs: impl Iterator<Item = &'a Pair>) -> String {
    let hosts: BTreeSet<&Name> = pairs.map(|(host, _)| host).collect();
    let count = hosts.len();
    let named = hosts.into_iter().take(MAX_NAMED).map(Name::as_str).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What is not carried out where an order counts as done that was interrupted in one of its steps.
fn left_out(report: &OrderReport) -> Option<String> {
    let step = report.step.as_ref().filter(|step| step.index < step.count)?;
    let first = step.index.saturating_add(1);
    let steps = match step.count {
        last if last == first => format!("step {last} is"),
        last => format!("steps {first} to {last} are"),
    };
    Some(show::inline(&format!(
        "{steps} not carried out on {}: --as step-done goes on behind {}",
        report.host, step.name
    )))
}

/// The target of the action for an order with this report; `None`: the action does not apply to it.
fn about(action: ControlAction, report: &OrderReport) -> Option<Target> {
    let run = report.run.map(Target::Run);
    let identity = report.identity.map(Target::Identity);
    let end = end_of_phase(&report.phase);
    let held = report.phase == "held";
    match action {
        // What waits has no run of its own yet; a run that it names there is an older one.
        ControlAction::Cancel if report.phase == "waiting" && report.epoch == 0 => identity,
        ControlAction::Cancel => run.filter(|_| end.is_none() && !held),
        ControlAction::Release | ControlAction::Accept => identity.filter(|_| held),
        ControlAction::Retry if held => identity,
        // A run of another instruction has no epoch in this report.
        ControlAction::Retry => run.filter(|_| report.epoch > 0).or(identity).filter(|_| end.is_some()),
        ControlAction::Acknowledge | ControlAction::Undo => {
            run.filter(|_| report.epoch == 0 || end.is_some_and(End::keeps_its_place))
        }
    }
}

/// What the hosts answered, as far as they did in time.
async fn answers(
    place: &Connection,
    waiting: &BTreeMap<Pair, (ControlId, String)>,
    span: Duration,
) -> Result<BTreeMap<Pair, String>, Failure> {
    let until = Instant::now() + span;
    let mut answers = BTreeMap::new();
    let hosts: BTreeSet<&Name> = waiting.keys().map(|(host, _)| host).collect();
    let hosts: Vec<&Name> = hosts.into_iter().collect();
    loop {
        for hosts in hosts.chunks(MAX_READS) {
            let reads: Vec<Read> =
                hosts.iter().map(|host| Read::Key(place.keys.agent_report(host))).collect();
            for (host, listing) in hosts.iter().zip(place.store.look(&reads).await?) {
                let report = listing
                    .entries
                    .first()
                    .and_then(|entry| document::read::<AgentReport>(&entry.value).ok());
                let Some(report) = report else { continue };
                for (pair, (id, _)) in waiting.iter().filter(|(pair, _)| pair.0 == **host) {
                    let answer = report.controls.get(id);
                    answers.extend(answer.map(|answer| (pair.clone(), answer.clone())));
                }
            }
        }
        if answers.len() == waiting.len() || Instant::now() >= until {
            return Ok(answers);
        }
        sleep(ASK_EVERY).await;
    }
}
