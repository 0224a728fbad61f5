//! `hostler logs`: what runs printed. On the host the whole of what is kept, from afar the end; it says which.
//!
//! A run is named by its id or a part of it; or an order is named with its hosts, and its newest run there is meant.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::connection::{Connection, ConnectionArgs, said};
use super::exit::{Exit, end_of_phase, fault};
use super::fleet::{Fleet, reports};
use super::follow::Follower;
use super::history::{Known, RunPart, folder_of, folders, newest_here, of_folder, reported_one, short};
use super::{Failure, block, show};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::ledger::Folder;
use crate::report::document::{self, OrderReport, RunReport};
use crate::store::{MAX_READS, Read};

/// How often a growing output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a report is asked for more; the host writes it at most that often.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How many of the last lines of each host are shown where there are several.
const LINES: usize = 10;

#[derive(Args)]
pub(super) struct Arguments {
    /// The run, by its id or at least six characters of its beginning or end; or an order, for its newest run
    #[arg(value_name = "RUN|ORDER")]
    what: What,
    /// Go on until the run is over; from afar with what its host reports
    #[arg(long, short)]
    follow: bool,
    /// The host; with an order several, separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<Name>,
    /// With an order: the known hosts of this group
    #[arg(long, value_name = "GROUP", conflicts_with = "host")]
    group: Option<Name>,
    /// With an order: only the hosts where its newest run is over and did not succeed
    #[arg(long)]
    failed: bool,
    /// With several hosts: how many of the last lines of each
    #[arg(long, short = 'n', value_name = "N", default_value_t = LINES)]
    lines: usize,
    /// Print JSON
    #[arg(long, conflicts_with = "follow")]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// A run or an order. Ids of runs have capitals, as they are printed, and names of orders have none.
#[derive(Clone, Debug)]
enum What {
    Run(RunPart),
    Order(Name),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(name) if !digits => Ok(Self::Order(name)),
            _ => text.parse().map(Self::Run),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        let host = match (&*arguments.host, &arguments.group) {
            ([], None) => Some(None),
            ([host], None) => Some(Some(host)),
            _ => None,
        };
        let here = match host {
            Some(host) => folders(&settings, host).await.filter(|_| !arguments.place.is_folder_only()),
            None => None,
        };
        match (&arguments.what, here) {
            (What::Run(part), here) => {
                if arguments.group.is_some() || arguments.host.len() > 1 || arguments.failed {
                    let message = "--group, --failed and several hosts go with the name of an order";
                    return Err(fault(Exit::Usage, message));
                }
                let folder = here.map(|dir| folder_of(&dir, part)).transpose()?.flatten();
                match folder {
                    Some(folder) => whole(arguments, &folder).await?,
                    None => afar(arguments, &Connection::existing(&settings)?, part).await?,
                }
            }
            (What::Order(order), Some(dir)) if !arguments.failed => {
                let of_order = |known: &Known| known.report.order == order.as_str();
                match newest_here(&dir, 1, of_order)?.first() {
                    Some(known) => whole(arguments, &Folder::new(&dir, known.run)).await?,
                    None => {
                        let message = format!("no run of order {order} is kept on this host: hostler runs");
                        return Err(fault(Exit::NotFound, message));
                    }
                }
            }
            (What::Order(order), _) => of_order(arguments, &Connection::existing(&settings)?, order).await?,
        }
        Ok(Exit::Success.into())
    })
}

async fn whole(arguments: &Arguments, folder: &Folder) -> Result<(), Failure> {
    if arguments.json {
        let known = of_folder(folder)?;
        let output = text(folder.path())?;
        show::json(&json!({"run": known, "from": "folder", "output": output}))?;
        return Ok(());
    }
    show::note(format!("the complete stored output, from {}", folder.path().display()));
    let mut follower = Follower::new(folder.path());
    let plan = folder.plan()?;
    // Whether it is over is asked before what is new is printed: then nothing comes after it.
    while arguments.follow && folder.state(&plan)?.outcome().is_none() {
        follower.print()?;
        sleep(LOOK_EVERY).await;
    }
    follower.end()?;
    Ok(())
}

fn text(dir: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    for part in crate::exec::output::parts(dir) {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(part)?));
    }
    Ok(text)
}

async fn afar(arguments: &Arguments, place: &Connection, part: &RunPart) -> Result<(), Failure> {
    let known = reported_one(place, arguments.host.first(), part).await?;
    let run = known.run;
    // The report of the order has more of it, as long as this is its run.
    let names = known.host.parse::<Name>().ok().zip(known.report.order.parse::<Name>().ok());
    if let (true, Some((host, order))) = (arguments.follow, &names) {
        return follow(place, host, order, run).await;
    }
    let found = match &names {
        Some(pair) => reports(place, std::slice::from_ref(pair)).await?.remove(pair),
        None => None,
    };
    let tail = found.filter(|report| report.run == Some(run)).and_then(|report| report.tail);
    let tail = tail.or_else(|| known.report.tail.clone());
    if arguments.json {
        show::json(&json!({"run": known, "from": "report", "output": tail}))?;
        return Ok(());
    }
    let host = show::inline(&known.host);
    let Some(tail) = tail else {
        show::note(format!(
            "run {run} is {} and its report has no output; on {host}: hostler logs {run}",
            show::inline(&known.report.phase)
        ));
        return Ok(());
    };
    show::note(format!(
        "the end of the output only, from the report; the whole, on {host}: hostler logs {run}"
    ));
    show::line(show::lines(tail.trim_end()))?;
    Ok(())
}

/// The newest run of an order on one host.
struct Newest {
    host: Name,
    report: OrderReport,
    tail: Option<String>,
}

/// Shows the newest runs of an order on the hosts that were asked for.
async fn of_order(arguments: &Arguments, place: &Connection, order: &Name) -> Result<(), Failure> {
    let fleet = Fleet::read(place).await?;
    let hosts: Vec<Name> = match &arguments.group {
        Some(group) => {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.note_claimants(group);
            fleet.members(group).into_iter().cloned().collect()
        }
        None if arguments.host.is_empty() => fleet.hosts().into_iter().cloned().collect(),
        None => arguments.host.clone(),
    };
    if arguments.group.is_none() {
        arguments.host.iter().try_for_each(|host| fleet.check_host(host))?;
    }
    let newest = newest(place, &hosts, order, arguments.failed).await?;
    if newest.is_empty() {
        let message = if arguments.failed {
            format!("no newest run of {order} failed there: see hostler status {order}{}", said())
        } else {
            format!("no run of order {order} is reported there: see hostler status {order}{}", said())
        };
        return Err(fault(Exit::NotFound, message));
    }
    match (&*newest, arguments.follow) {
        ([one], true) => {
            let run = one.report.run.unwrap_or_else(|| RunId::new(0, 0));
            return follow(place, &one.host, order, run).await;
        }
        (_, true) => {
            return Err(fault(Exit::Usage, "-f follows one run: name one host"));
        }
        _ => {}
    }
    if arguments.json {
        let all: Vec<Value> = newest
            .iter()
            .map(|one| {
                json!({"host": one.host, "run": one.report.run, "phase": one.report.phase, "output": one.tail})
            })
            .collect();
        show::json(&json!({"order": order, "runs": all}))?;
        return Ok(());
    }
    let most = if newest.len() == 1 { usize::MAX } else { arguments.lines };
    let mut text = String::new();
    for one in &newest {
        text.push_str(&headed(one, most));
    }
    show::page(&text)?;
    show::note(format!(
        "the end of each output only, from the reports; the whole, on the host: hostler logs {order}"
    ));
    Ok(())
}

/// A heading, and so many of the last lines.
fn headed(one: &Newest, most: usize) -> String {
    let run = one.report.run.map(|run| format!(", run {}", short(run))).unwrap_or_default();
    let error = one.report.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let mut text =
        format!("==> {} <== {}{run}{error}\n", one.host, show::inline(&one.report.phase)).replace('\t', " ");
    match &one.tail {
        None => text.push_str("(no output is reported)\n"),
        Some(tail) => {
            let shown = show::lines(tail.trim_end());
            let lines: Vec<&str> = shown.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(most)) {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// The newest run of an order on each of these hosts, with its output as far as it is reported.
async fn newest(
    place: &Connection,
    hosts: &[Name],
    order: &Name,
    failed: bool,
) -> Result<Vec<Newest>, Failure> {
    let pairs: Vec<(Name, Name)> = hosts.iter().map(|host| (host.clone(), order.clone())).collect();
    let found = reports(place, &pairs).await?;
    let wanted = |report: &OrderReport| {
        report.run.is_some() && (!failed || end_of_phase(&report.phase).is_some_and(|end| !end.is_good()))
    };
    let mut newest: Vec<Newest> = found
        .into_iter()
        .filter(|(_, report)| wanted(report))
        .map(|((host, _), report)| Newest { host, tail: report.tail.clone(), report })
        .collect();
    // Of a run that succeeded the report of the run has the end.
    let mut missing: Vec<&mut Newest> = newest.iter_mut().filter(|one| one.tail.is_none()).collect();
    for some in missing.chunks_mut(MAX_READS) {
        let key = |one: &&mut Newest| {
            let run = one.report.run.unwrap_or_else(|| RunId::new(0, 0));
            Read::Key(place.keys.run_report(&one.host, run))
        };
        let reads: Vec<Read> = some.iter().map(key).collect();
        for (one, listing) in some.iter_mut().zip(place.store.look(&reads).await?) {
            let report = listing.entries.first();
            let report = report.and_then(|entry| document::read::<RunReport>(&entry.value).ok());
            one.tail = report.and_then(|report| report.tail);
        }
    }
    Ok(newest)
}

/// Prints what the host reports of a run until it is over.
async fn follow(place: &Connection, host: &Name, order: &Name, run: RunId) -> Result<(), Failure> {
    show::note(format!("what {host} reports of run {run}, at most every two seconds; there may be gaps"));
    let mut seen = String::new();
    loop {
        let found = newest(place, std::slice::from_ref(host), order, false).await?.pop();
        let Some(one) = found.filter(|one| one.report.run == Some(run)) else {
            let known = reported_one(place, Some(host), &run.to_string().parse::<RunPart>()?).await?;
            return print_new(&mut seen, known.report.tail.as_deref().unwrap_or_default());
        };
        print_new(&mut seen, one.tail.as_deref().unwrap_or_default())?;
        if one.report.ended.is_some() {
            if !seen.is_empty() && !seen.ends_with('\n') {
                show::raw(b"\n")?;
            }
            return Ok(());
        }
        sleep(ASK_EVERY).await;
    }
}

/// Prints what a tail has behind what was seen of it before.
fn print_new(seen: &mut String, tail: &str) -> Result<(), Failure> {
    show::raw(show::lines(behind(seen, tail)).as_bytes())?;
    tail.clone_into(seen);
    Ok(())
}

/// The part of a newer tail that comes after an older one; all of it where they have nothing in common.
fn behind<'a>(seen: &str, tail: &'a str) -> &'a str {
    let ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]).rev();
    let common = ends.filter_map(|at| tail.split_at_checked(at)).find(|(head, _)| seen.ends_with(head));
    common.map_or(tail, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_printed() {
        for (seen, tail, expected) in [
            ("", "a\nb\n", "a\nb\n"),
            ("a\nb\n", "a\nb\nc\n", "c\n"),
            ("a\nb\n", "b\nc\n", "c\n"),
            ("a\nb\n", "a\nb\n", ""),
            ("a\nb\n", "x\ny\n", "x\ny\n"),
            ("ä", "äö", "ö"),
        ] {
            assert_eq!(behind(seen, tail), expected, "{seen:?} {tail:?}");
        }
    }

    #[test]
    fn a_run_has_capitals_or_digits_alone_and_an_order_has_not() {
        assert!(matches!("backup".parse(), Ok(What::Order(_))));
        assert!(matches!("8Q2F7K".parse(), Ok(What::Run(_))));
        assert!(matches!("000000".parse(), Ok(What::Run(_))));
        assert!("Backups!".parse::<What>().is_err());
    }
}
