//! Runs, from the folders on the host itself or, from afar, from what the host reported of the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::SignedDuration;
use serde::Serialize;

use super::Failure;
use super::connection::Connection;
use super::exit::{Exit, fault};
use super::fleet::UNREADABLE;
use super::show;
use crate::config::Settings;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::text::head;
use crate::ledger::identity::HostIdentity;
use crate::ledger::{ClaimState, Folder, FolderError, trim};
use crate::report::compose;
use crate::report::document::{self, RUN_TAIL, RunReport};
use crate::store::{Listing, MAX_READS, Read, StoreError};

/// A run, wherever it is known from.
#[derive(Serialize)]
pub(super) struct Known {
    /// Which.
    pub(super) run: RunId,
    /// Where.
    pub(super) host: String,
    /// What is known of it.
    #[serde(flatten)]
    pub(super) report: RunReport,
}

/// A run as people name it: by its id, or by at least six characters of its beginning or its end.
#[derive(Clone, Debug)]
pub(super) struct RunPart(String);

/// The fewest characters of a run's id that name it; as many as tables show.
const LEAST_PART: usize = 6;

impl FromStr for RunPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As typed from a page: letters of either case, and the sign that tables put before a short form.
        let part = text.trim_start_matches('…').to_ascii_uppercase();
        let good = part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if good && (LEAST_PART..=RUN_LENGTH).contains(&part.len()) {
            return Ok(Self(part));
        }
        Err(format!(
            "{:?} names no run: write its id, or at least {LEAST_PART} characters of its beginning or its end",
            head(text, 40)
        ))
    }
}

/// The length of a run's id.
const RUN_LENGTH: usize = 26;

impl fmt::Display for RunPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RunPart {
    /// Whether this is a name of the run.
    pub(super) fn names(&self, run: RunId) -> bool {
        let id = run.to_string();
        id.starts_with(&self.0) || id.ends_with(&self.0)
    }

    /// The one run that it names among these; `None`: it names none of them.
    pub(super) fn one_of(&self, runs: impl Iterator<Item = RunId>) -> Result<Option<RunId>, Failure> {
        let named: BTreeSet<RunId> = runs.filter(|run| self.names(*run)).collect();
        let mut named = named.into_iter();
        match (named.next(), named.next()) {
            (Some(first), Some(second)) => {
                let others = match named.count() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let message = format!("{self} names {first} and {second}{others}: give more characters");
                Err(fault(Exit::Usage, message))
            }
            (one, _) => Ok(one),
        }
    }
}

/// The short form of a run's id, which names it in commands: its end, since the beginning is the time.
pub(super) fn short(run: RunId) -> String {
    run.to_string().chars().skip(RUN_LENGTH.saturating_sub(LEAST_PART)).collect()
}

/// The folder of the run that is named; `None`: it is not on this host.
pub(super) fn folder_of(dir: &Path, part: &RunPart) -> Result<Option<Folder>, Failure> {
    let run = part.one_of(trim::folders(dir)?.into_iter())?;
    Ok(run.map(|run| Folder::new(dir, run)))
}

/// The run that is named among those that hosts reported.
pub(super) async fn reported_one(
    place: &Connection,
    host: Option<&Name>,
    part: &RunPart,
) -> Result<Known, Failure> {
    let mut all = ReportedRun::all(place, host).await?;
    let run = part.one_of(all.iter().map(|one| one.run))?;
    all.retain(|one| Some(one.run) == run);
    let mut found = newest_of(place, &all, 1, |_| true).await?;
    found.pop().ok_or_else(|| {
        let message = format!(
            "run {part} is neither on this host nor among the newest that hosts reported: hostler runs"
        );
        fault(Exit::NotFound, message)
    })
}

/// This host, as far as it is known without a store: as it is configured, or as the agent fixed it at its first start.
pub(super) fn this_host(settings: &Settings) -> Option<Name> {
    let fixed = || HostIdentity::read(&settings.state_dir).ok().flatten().map(|identity| identity.host);
    settings.host.clone().or_else(fixed)
}

/// This host, as the agent would name it: what is not known here is asked of the store. `None`: it is not known.
pub(super) async fn this_host_or_node(settings: &Settings, place: &Connection) -> Option<Name> {
    match this_host(settings) {
        Some(host) => Some(host),
        None => place.store.node().await.ok()?.to_ascii_lowercase().parse().ok(),
    }
}

/// The folder of the runs, if this is the host that was asked for and it may be read.
pub(super) async fn folders(settings: &Settings, host: Option<&Name>) -> Option<PathBuf> {
    let dir = settings.state_dir.join("runs");
    std::fs::read_dir(&dir).ok()?;
    let here = match (host, this_host(settings)) {
        (None, _) => true,
        (Some(asked), Some(own)) => own == *asked,
        (Some(asked), None) => match Connection::existing(settings) {
            Ok(place) => this_host_or_node(settings, &place).await.as_ref() == Some(asked),
            Err(_) => false,
        },
    };
    here.then_some(dir)
}

/// A run from its folder.
pub(super) fn of_folder(folder: &Folder) -> Result<Known, FolderError> {
    let plan = folder.plan()?;
    // First who lives, then what is written: an end that came between is not taken for a loss.
    let alive = matches!(folder.newest_claim()?.1, ClaimState::Held);
    let state = folder.state(&plan)?;
    let tail = crate::exec::output::tail(folder.path(), RUN_TAIL);
    let (by, reason) = folder.ordered_by();
    let report = RunReport { by, reason, ..compose::run(&plan, &state, alive, Some(&tail)) };
    Ok(Known { run: folder.run(), host: plan.host.to_string(), report })
}

/// The newest wanted runs from their folders, the newest first; one that cannot be read is told of as such.
pub(super) fn newest_here(
    dir: &Path,
    count: usize,
    wanted: impl Fn(&Known) -> bool,
) -> Result<Vec<Known>, Failure> {
    let runs = trim::folders(dir)?.into_iter().rev();
    let unreadable = |run: RunId, error: FolderError| {
        let report =
            RunReport { phase: UNREADABLE.into(), error: Some(error.to_string()), ..RunReport::default() };
        Known { run, host: String::new(), report }
    };
    let known = |run| of_folder(&Folder::new(dir, run)).unwrap_or_else(|error| unreadable(run, error));
    Ok(runs.map(known).filter(wanted).take(count).collect())
}

/// So many keys of one host are looked at, the newest; its agent keeps twenty.
const MAX_OF_A_HOST: usize = 100;

/// The keys of all reported runs, or of those of one host; by hosts where all are too many for one answer.
async fn run_keys(place: &Connection, host: Option<&Name>) -> Result<Vec<Vec<String>>, Failure> {
    let all = place.keys.all_run_reports();
    let prefixes = match host {
        Some(host) => vec![place.keys.run_reports(host)],
        None => match place.store.keys(&all).await {
            Err(StoreError::TooLarge { .. }) => {
                let names = place.store.names(&all).await?.into_iter();
                names.filter(|name| name.ends_with('/')).map(|name| format!("{all}{name}")).collect()
            }
            keys => return Ok(vec![keys?]),
        },
    };
    let mut found = Vec::new();
    for prefix in prefixes {
        match place.store.keys(&prefix).await {
            Err(error @ StoreError::TooLarge { .. }) => {
                show::note(format!("not read: {}: {error}", odd::shown(&prefix)));
            }
            keys => found.push(keys?),
        }
    }
    Ok(found)
}

/// A run that a host reported, by its key alone.
pub(super) struct ReportedRun {
    pub(super) run: RunId,
    pub(super) host: Name,
    key: String,
}

impl ReportedRun {
    /// The newest of each host, the newest first; what one host has too much of is named, and keeps nobody else's away.
    pub(super) async fn all(place: &Connection, host: Option<&Name>) -> Result<Vec<Self>, Failure> {
        let all = place.keys.all_run_reports();
        let of_key = |key: String| {
            let (host, run) = key.strip_prefix(&all)?.split_once('/')?;
            Some(Self { run: run.parse().ok()?, host: host.parse().ok()?, key })
        };
        let mut found: Vec<Self> = Vec::new();
        for keys in run_keys(place, host).await? {
            found.extend(keys.into_iter().filter_map(of_key));
        }
        found.sort_by_key(|one| std::cmp::Reverse(one.run));
        let mut counts: BTreeMap<Name, usize> = BTreeMap::new();
        found.retain(|one| {
            let count = counts.entry(one.host.clone()).or_default();
            *count += 1;
            *count <= MAX_OF_A_HOST
        });
        for (host, count) in counts.into_iter().filter(|(_, count)| *count > MAX_OF_A_HOST) {
            let prefix = place.keys.run_reports(&host);
            let more = count - MAX_OF_A_HOST;
            show::note(format!(
                "not read: {prefix}: {more} of {count} keys, which are more than an agent keeps"
            ));
        }
        Ok(found)
    }
}

/// The first wanted ones of these runs: they are read in turn, and no further than to so many that are wanted. Of 20,000
/// reports a list of twenty takes one answer.
pub(super) async fn newest_of(
    place: &Connection,
    runs: &[ReportedRun],
    count: usize,
    wanted: impl Fn(&Known) -> bool,
) -> Result<Vec<Known>, Failure> {
    let mut found = Vec::new();
    for some in runs.chunks(MAX_READS) {
        let reads: Vec<Read> = some.iter().map(|one| Read::Key(one.key.clone())).collect();
        let listings = match place.store.look(&reads).await {
            Err(StoreError::TooLarge { .. }) => one_by_one(place, &reads).await?,
            answer => answer?,
        };
        for (one, listing) in some.iter().zip(listings) {
            let Some(entry) = listing.entries.into_iter().find(|entry| entry.key == one.key) else {
                continue;
            };
            let unreadable = |error: document::Unreadable| RunReport {
                phase: UNREADABLE.into(),
                error: Some(error.to_string()),
                ..RunReport::default()
            };
            let report = document::read(&entry.value).unwrap_or_else(unreadable);
            let known = Known { run: one.run, host: one.host.to_string(), report };
            if wanted(&known) {
                found.push(known);
            }
        }
        if found.len() >= count {
            break;
        }
    }
    found.truncate(count);
    Ok(found)
}

/// The same reads, each in an answer of its own; one that is too large even so is named, and empty.
async fn one_by_one(place: &Connection, reads: &[Read]) -> Result<Vec<Listing>, Failure> {
    let mut all = Vec::new();
    for read in reads {
        match place.store.look(std::slice::from_ref(read)).await {
            Ok(listings) => all.extend(listings),
            Err(error @ StoreError::TooLarge { .. }) => {
                show::note(format!("not read: {error}"));
                all.push(Listing::default());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// How long a task usually takes on a host: the median of its newest successes there, whatever their parameters.
pub(super) async fn usual(
    place: &Connection,
    host: &Name,
    task: &str,
) -> Result<Option<SignedDuration>, Failure> {
    let all = ReportedRun::all(place, Some(host)).await?;
    let runs = newest_of(place, &all, usize::MAX, |_| true).await?;
    Ok(median(runs.iter().map(|known| &known.report), task))
}

fn median<'a>(runs: impl Iterator<Item = &'a RunReport>, task: &str) -> Option<SignedDuration> {
    // `name@version`: another version is another program.
    let successes = runs.filter(|report| report.task == task && report.phase == "succeeded");
    let mut took: Vec<SignedDuration> =
        successes.filter_map(|report| Some(report.ended?.duration_since(report.started?))).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_either_end_if_that_is_one() {
        let run = |text: &str| text.parse::<RunId>().unwrap();
        let (one, other) = (run("01JD8000000000000000ABCDEF"), run("01JD8000000000000000FBCDEF"));
        let part = |text: &str| text.parse::<RunPart>().unwrap();
        assert_eq!(part("abcdef").one_of([one, other].into_iter()).unwrap(), Some(one));
        assert_eq!(part(&short(one)).one_of([one, other].into_iter()).unwrap(), Some(one));
        assert_eq!(part(&other.to_string()).one_of([one, other, other].into_iter()).unwrap(), Some(other));
        assert_eq!(part("ABCDEE").one_of([one, other].into_iter()).unwrap(), None);
        let both = part("01JD80").one_of([one, other].into_iter()).unwrap_err().to_string();
        assert!(both.contains("ABCDEF") && both.contains("give more characters"), "{both}");
        for bad in ["", "ABCDE", "ABC DEF", "../../", "01JD8000000000000000ABCDEFG"] {
            assert!(bad.parse::<RunPart>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_successes_of_this_very_task_tell_how_long_it_takes() {
        let run = |task: &str, phase: &str, secs: i64| RunReport {
            task: task.into(),
            phase: phase.into(),
            started: jiff::Timestamp::from_second(1_000).ok(),
            ended: jiff::Timestamp::from_second(1_000 + secs).ok(),
            ..RunReport::default()
        };
        let runs = [
            run("a@1", "succeeded", 10),
            run("a@1", "succeeded", 1_000),
            run("a@1", "succeeded", 20),
            run("a@1", "failed", 1),
            run("a@2", "succeeded", 2),
            RunReport { ended: None, ..run("a@1", "succeeded", 3) },
        ];
        assert_eq!(median(runs.iter(), "a@1"), Some(SignedDuration::from_secs(20)));
        assert_eq!(median(runs.iter(), "b@1"), None);
    }
}
