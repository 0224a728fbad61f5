//! `install` and `update`: when hdblcm may begin, and when it is done.
//!
//! Both decisions are pure. hdblcm goes on by itself where an earlier one was interrupted, so an update may be
//! repeated; an installation that failed half-way is left to an operator. A change is done when the exit code is 0,
//! the manifest has the version of the media, and all processes run: never by what hdblcm prints.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};

use crate::backup::Run;
use crate::check::{self, Before, Finding, Observed, Seen, Weight, Wish};
use crate::error::Error;
use crate::neighbours::hdblcm::{self, Choices, Exit, Part, Unfinished};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media::{self, Media};
use crate::neighbours::nsutil::Role;
use crate::neighbours::sapcontrol::{self, State};
use crate::notes::Note;
use crate::power;
use crate::report;
use crate::runner::{End, Runner};
use crate::system::{System, Version};

/// How long processes may take to run after hdblcm has ended.
const START: Duration = Duration::from_secs(900);
/// How long something that an earlier attempt started may still be at work.
const ALONE: Duration = Duration::from_secs(3 * 3600);
/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the version of the media is installed, complete, and as it should be.
    Already,
    /// hdblcm.
    Go,
    /// Nothing: something forbids it.
    Refuse(String),
    /// Nothing: it cannot be told.
    Unclear(String),
}

/// What the operator allows an update.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How old the newest complete backups may be.
    pub age: Duration,
    /// Pacemaker is in maintenance.
    pub maintained: bool,
    /// Which part is wanted.
    pub part: Part,
    /// The operator says that it is a former primary, which will be registered: it may be stopped or suspended.
    pub former: bool,
}

fn versions(seen: &Observed) -> Result<(Option<Version>, Version), Step> {
    let unclear = |what: &str, why: &String| Step::Unclear(format!("{what}: {why}"));
    let installed = seen.installed.value.as_ref().map_err(|why| unclear("installed version", why))?;
    let media = seen.media.as_ref().ok_or_else(|| Step::Unclear("no media was named".to_owned()))?;
    let media = media.value.as_ref().map_err(|why| unclear("media", why))?;
    Ok((*installed, *media))
}

/// The first finding that forbids the change.
fn forbidding(findings: &[Finding], ignored: &[&str]) -> Option<Step> {
    let counts = |finding: &&Finding| !ignored.iter().any(|prefix| finding.subject.starts_with(prefix));
    findings.iter().filter(counts).find_map(|finding| match finding.weight {
        Weight::Forbids => {
            Some(Step::Refuse(format!("{}: {}; {}", finding.subject, finding.understood, finding.fix)))
        }
        Weight::Unclear => Some(Step::Unclear(format!("{}: {}", finding.subject, finding.understood))),
        Weight::Unknown | Weight::Warns | Weight::Fine => None,
    })
}

/// What of the host, and of other changes on it, concerns every change of a system that is installed.
const OF_THE_HOST: [&str; 4] = ["other hdblcm", "unfinished hdblcm", "Pacemaker", "disk "];

/// Looks for what forbids a change that is neither an installation nor an update: another hdblcm at work, an unfinished
/// one, Pacemaker outside of maintenance, a full disk, and the `more` subjects.
///
/// # Errors
/// `Refused` or `Unclear`, and nothing is begun.
pub fn allow(
    runner: &Runner,
    key: &Key,
    before: Before,
    maintained: bool,
    more: &[&str],
) -> Result<(), Error> {
    let wish = Wish { media: None, key: key.clone(), age: Duration::ZERO, parts: None };
    let mut findings = check::judge(&check::gather(runner, &wish)?, Some(before), Duration::ZERO, maintained);
    findings.retain(|finding| {
        let wanted = |subject: &&str| finding.subject.starts_with(*subject);
        OF_THE_HOST.iter().any(wanted) || more.iter().any(wanted)
    });
    match forbidding(&findings, &[]) {
        Some(Step::Refuse(why)) => Err(Error::Refused(why)),
        Some(Step::Unclear(why)) => Err(Error::Unclear(why)),
        Some(Step::Already | Step::Go) | None => Ok(()),
    }
}

/// Whether all that is installed is whole and runs. `Err`: why not, or why it cannot be told.
fn whole(seen: &Observed, version: Version) -> Result<(), Step> {
    match &seen.unfinished.value {
        Ok(None) => {}
        Ok(Some(_)) => return Err(Step::Refuse("an hdblcm did not come to its end".to_owned())),
        Err(why) => return Err(Step::Unclear(format!("unfinished hdblcm: {why}"))),
    }
    match seen.listed.as_ref().map(|listed| &listed.value) {
        Some(Ok(systems)) if systems.iter().any(|one| one.sid == seen.sid && one.version == version) => {}
        Some(Ok(_)) => {
            return Err(Step::Refuse("hdblcm does not list this system in this version".to_owned()));
        }
        Some(Err(why)) => return Err(Step::Unclear(format!("hdblcm list: {why}"))),
        None => return Err(Step::Unclear("hdblcm was not asked for its list".to_owned())),
    }
    match seen.processes.as_ref().map(|processes| &processes.value) {
        Some(Ok(State::Running(_))) => Ok(()),
        Some(Ok(_)) => Err(Step::Refuse("not all of its processes run".to_owned())),
        Some(Err(why)) => Err(Step::Unclear(format!("processes: {why}"))),
        None => Err(Step::Unclear("its processes were not asked for".to_owned())),
    }
}

/// Decides for an installation.
pub fn install(seen: &Observed) -> Step {
    let (installed, media) = match versions(seen) {
        Ok(versions) => versions,
        Err(step) => return step,
    };
    match installed {
        Some(installed) if installed != media => {
            Step::Refuse(format!("{} {installed} is installed: update it, or choose another SID", seen.sid))
        }
        // Listed or not, with a manifest or not: only what is whole and runs is installed.
        Some(installed) => match whole(seen, installed) {
            Ok(()) => Step::Already,
            Err(Step::Refuse(why)) => Step::Refuse(format!(
                "{} {installed} is here and is not whole: {why}; read the log in /var/tmp, then repair or uninstall it",
                seen.sid
            )),
            Err(step) => step,
        },
        None => {
            let findings = check::judge(seen, Some(Before::Install), Duration::ZERO, false);
            forbidding(&findings, &[]).unwrap_or(Step::Go)
        }
    }
}

/// Decides for an update, or for the preparation of one.
pub fn update(seen: &Observed, terms: Terms) -> Step {
    let (installed, media) = match versions(seen) {
        Ok(versions) => versions,
        Err(step) => return step,
    };
    let Some(installed) = installed else {
        return Step::Refuse(format!("{} is not installed here", seen.sid));
    };
    let interrupted = match &seen.unfinished.value {
        Ok(unfinished) => *unfinished == Some(Unfinished::Update),
        Err(why) => return Step::Unclear(format!("unfinished hdblcm: {why}")),
    };
    let running = matches!(seen.processes.as_ref().map(|seen| &seen.value), Some(Ok(State::Running(_))));
    if media == installed && !interrupted {
        let stopped = matches!(seen.processes.as_ref().map(|seen| &seen.value), Some(Ok(State::Stopped)));
        // A former primary is left stopped on purpose.
        if stopped && terms.part == (Part::Finish { start: false }) {
            return Step::Already;
        }
        return match whole(seen, installed) {
            Ok(()) => Step::Already,
            Err(Step::Refuse(why)) => {
                Step::Refuse(format!("{installed} is installed, and {why}: look at it first"))
            }
            Err(step) => step,
        };
    }
    let stopped = matches!(seen.processes.as_ref().map(|seen| &seen.value), Some(Ok(State::Stopped)));
    let state = seen.replication.as_ref().and_then(|seen| seen.value.as_ref().ok());
    let suspended = state.is_some_and(|state| state.role == Role::Primary && state.suspended == Some(true));
    let retired = terms.former && (stopped || suspended);
    // Nobody uses it, so there is no downtime that a preparation could save.
    if retired && terms.part == Part::Prepare {
        return Step::Already;
    }
    let findings = check::judge(seen, Some(Before::Update), terms.age, terms.maintained);
    // One that was interrupted may have left the system stopped: nothing in it can be asked, and only the rest of
    // the update brings it back. While it runs, an update is only prepared, and everything is asked. A former primary
    // answers nobody either.
    let unanswered: &[&str] = if interrupted && !running || retired {
        &["processes", "hosts", "replication", "secondaries", "license", "databases", "backup"]
    } else {
        &[]
    };
    forbidding(&findings, unanswered).unwrap_or(Step::Go)
}

/// Starts hdblcm for an installation and judges its end.
///
/// `run`: what it may take away again, because nothing of the system was here when it began.
pub fn carry_out_install(
    runner: &Runner,
    media: &Media,
    version: Version,
    choices: &Choices,
    run: Option<&Run>,
) -> Result<(), Error> {
    let call = hdblcm::install(runner.system(), media, &version, choices);
    if let Some(run) = run {
        Note::of(runner.system(), run, "install").write(&version)?;
    }
    begin(runner, &call)?;
    is_installed(runner, version)?;
    runs(runner, START)
}

/// Takes away what this run has installed, or has begun to. It may be repeated.
///
/// Without the run's note hdblcm was never started by it, and what is here is of somebody else.
pub fn undo_install(runner: &Runner, run: &Run) -> Result<(), Error> {
    let system = runner.system();
    let note = Note::of(system, run, "install");
    if note.read::<serde_json::Value>()?.is_none() {
        return Ok(());
    }
    // One whose caller died goes on by itself: what it makes would come behind the uninstallation.
    wait_alone(runner, "hdblcm", check::hdblcm_at_work)?;
    let call = hdblcm::uninstall(system);
    if system.at(&call.program).is_file() {
        begin(runner, &call)?;
    }
    for folder in [system.shared(), system.home()] {
        let place = system.at(folder);
        match std::fs::read_dir(&place).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(Error::Tool(format!(
                    "{} is not empty: hdblcm came not far enough to uninstall itself; look at its log in /var/tmp",
                    place.display()
                )));
            }
            Ok(false) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::local(place.display())(error)),
        }
    }
    note.remove()
}

/// Waits until none of these processes is at work here.
///
/// # Errors
/// `Unclear` when one still is after [`ALONE`], or the processes cannot be read.
pub fn wait_alone(
    runner: &Runner,
    what: &str,
    working: fn(&System) -> Seen<Vec<String>>,
) -> Result<(), Error> {
    let (begun, mut said) = (Instant::now(), false);
    loop {
        let found = working(runner.system()).value;
        let found = found.map_err(|why| Error::Unclear(format!("whether {what} is at work: {why}")))?;
        let Some(first) = found.first() else { return Ok(()) };
        if begun.elapsed() >= ALONE {
            return Err(Error::Unclear(format!(
                "{what} is still at work: {first}; wait for its end, then repeat"
            )));
        }
        runner.stopped()?;
        if !said {
            report::message(&format!("waiting for the end of {first}, which an earlier attempt began"))?;
            said = true;
        }
        thread::sleep(LOOK.min(Duration::from_millis(200)));
    }
}

/// Notes that this run's update will stop the system and is to start it again.
pub fn note_update(runner: &Runner, part: Part, run: Option<&Run>) -> Result<(), Error> {
    match run {
        Some(run) if part == (Part::Finish { start: true }) => {
            Note::of(runner.system(), run, "update").write(&true)
        }
        _ => Ok(()),
    }
}

/// Forgets the note: the update has come to its end.
pub fn forget_update(runner: &Runner, run: Option<&Run>) -> Result<(), Error> {
    run.map_or(Ok(()), |run| Note::of(runner.system(), run, "update").remove())
}

/// Whether this run's update has left the system not running, whole and in the version of the media: what it started may
/// have ended with its executor, or is still coming up. Without the run's note somebody else has stopped it.
pub fn left_stopped(runner: &Runner, seen: &Observed, part: Part, run: Option<&Run>) -> Result<bool, Error> {
    let state = seen.processes.as_ref().and_then(|seen| seen.value.as_ref().ok());
    let stopped = state.is_some_and(|state| !matches!(state, State::Running(_)));
    let whole = matches!(seen.unfinished.value, Ok(None));
    let updated = versions(seen).is_ok_and(|(installed, media)| installed == Some(media));
    match run {
        Some(run) if stopped && whole && updated && part == (Part::Finish { start: true }) => {
            Ok(Note::of(runner.system(), run, "update").read::<bool>()?.is_some())
        }
        _ => Ok(false),
    }
}

/// Starts hdblcm for a part of an update and judges its end.
pub fn carry_out_update(runner: &Runner, media: &Media, version: Version, part: Part) -> Result<(), Error> {
    let call = hdblcm::update(runner.system(), media, part);
    begin(runner, &call)?;
    match part {
        Part::Prepare => Ok(()),
        Part::Finish { start } => {
            is_installed(runner, version)?;
            if !start {
                return Ok(());
            }
            // hdblcm goes on behind a start that it has done already; what that started may have ended since.
            let outcome = runner.run(&sapcontrol::process_list(runner.system()))?;
            let state = outcome.code().and_then(|code| Ok(sapcontrol::state(code.into(), &outcome.out)?));
            if matches!(state, Ok(State::Stopped)) {
                power::start(runner)?;
            }
            runs(runner, START)
        }
    }
}

fn begin(runner: &Runner, call: &crate::call::Call) -> Result<(), Error> {
    // What it makes must be readable for <sid>adm. Source: Azure/sap-automation roles-db/4.0.0-hdb-install
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let outcome = runner.run(call)?;
    let log = hdblcm::log_file(&outcome.out).map(|path| format!("; its log is {path}")).unwrap_or_default();
    match outcome.end {
        // Its text decides nothing, so it may be cut off.
        End::Code(code) => match Exit::from(code) {
            Exit::Done => Ok(()),
            Exit::Failed => Err(Error::Tool(format!("hdblcm failed: {}{log}", hdblcm::causes(&outcome.err)))),
            Exit::Undocumented(code) => {
                Err(Error::Unclear(format!("hdblcm ended with {code}, which is not documented{log}")))
            }
        },
        end => Err(Error::Unclear(format!("hdblcm: {end}{log}"))),
    }
}

fn is_installed(runner: &Runner, version: Version) -> Result<(), Error> {
    let system = runner.system();
    match media::version_at(&system.at(system.manifest()))? {
        Some(installed) if installed == version => Ok(()),
        Some(installed) => Err(Error::Unclear(format!(
            "hdblcm ended well, and the installed version is {installed} and not {version}"
        ))),
        None => Err(Error::Unclear(format!(
            "hdblcm ended well, and {} is not there",
            system.manifest().display()
        ))),
    }
}

/// Waits until all processes run.
fn runs(runner: &Runner, patience: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let outcome = runner.run(&sapcontrol::process_list(runner.system()))?;
        let state = outcome.code().and_then(|code| Ok(sapcontrol::state(code.into(), &outcome.out)?));
        match state {
            Ok(State::Running(_)) => return Ok(()),
            Ok(state) if begun.elapsed() >= patience => {
                return Err(Error::Tool(format!(
                    "hdblcm ended well, and the processes do not run: {state:?}"
                )));
            }
            Err(error) if begun.elapsed() >= patience => return Err(error),
            Ok(_) | Err(_) => thread::sleep(LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::catalog::{Entry, Kind, State as BackupState};
    use crate::neighbours::hdblcm::Listed;
    use crate::neighbours::host::Instance;
    use crate::neighbours::nsutil;
    use crate::neighbours::sapcontrol::{Light, Process};
    use crate::neighbours::scripts::{Landscape, Replication};

    fn yes<T>(value: T) -> Seen<T> {
        Seen { raw: String::new(), value: Ok(value) }
    }

    fn odd<T>() -> Seen<T> {
        Seen { raw: String::new(), value: Err("not understood".to_owned()) }
    }

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    /// A host without HANA, with media.
    fn empty() -> Observed {
        Observed {
            sid: "HDB".parse().unwrap(),
            number: "00".parse().unwrap(),
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            memory: yes(1 << 38),
            huge_pages: yes("never".to_owned()),
            clock: yes(true),
            addresses: yes(vec!["10.1.2.3".parse().unwrap()]),
            ports: yes(Vec::new()),
            disks: vec![("/usr/sap".to_owned(), yes(10))],
            user: yes(None),
            hdblcm: yes(Vec::new()),
            pacemaker: yes(false),
            folders: yes(Vec::new()),
            unfinished: yes(None),
            instances: yes(None),
            installed: yes(None),
            media: Some(yes(v("2.00.079.00"))),
            signature: Some(yes(true)),
            listed: None,
            processes: None,
            replication: None,
            secondaries: None,
            landscape: None,
            databases: None,
            backups: None,
            kept: Vec::new(),
            license: None,
        }
    }

    fn replicating(role: Role) -> Option<Seen<nsutil::State>> {
        Some(yes(nsutil::State { online: Some(true), role, site: None, suspended: None }))
    }

    fn lists(sid: &str, number: u8) -> Seen<Option<Vec<Instance>>> {
        yes(Some(vec![Instance { sid: sid.to_owned(), number }]))
    }

    /// A healthy system in 2.00.077.00 with a fresh backup.
    fn healthy() -> Observed {
        let database = "SYSTEMDB".parse().unwrap();
        let begun = "2026-11-21T10:00:00Z".parse().unwrap();
        let state = BackupState::Successful;
        let backup = Entry { database, id: 1, kind: Kind::Complete, state, begun, ended: None };
        let daemon = Process { name: "hdbdaemon".to_owned(), light: Light::Green, text: String::new() };
        let listed = Listed { sid: "HDB".parse().unwrap(), number: None, version: v("2.00.077.00") };
        Observed {
            user: yes(Some(1001)),
            folders: yes(vec!["/usr/sap/HDB".to_owned()]),
            instances: lists("HDB", 0),
            installed: yes(Some(v("2.00.077.00"))),
            listed: Some(yes(vec![listed])),
            processes: Some(yes(State::Running(vec![daemon]))),
            replication: replicating(Role::None),
            landscape: Some(yes(Landscape::Ok)),
            databases: Some(yes(vec![("SYSTEMDB".parse().unwrap(), true)])),
            backups: Some(yes(vec![backup])),
            license: Some(yes(true)),
            ..empty()
        }
    }

    fn name(step: &Step) -> &'static str {
        match step {
            Step::Already => "already",
            Step::Go => "go",
            Step::Refuse(_) => "refuse",
            Step::Unclear(_) => "unclear",
        }
    }

    type Change = fn(&mut Observed);
    type Case<'a> = (fn() -> Observed, &'a [Change], &'a str);

    #[test]
    fn when_an_installation_begins() {
        let same: Change = |host| host.media = Some(yes(v("2.00.77.0")));
        let cases: &[Case<'_>] = &[
            (empty, &[], "go"),
            (empty, &[|host| host.media = None], "unclear"),
            (empty, &[|host| host.media = Some(odd())], "unclear"),
            (empty, &[|host| host.installed = odd()], "unclear"),
            (empty, &[|host| host.user = yes(Some(7))], "refuse"),
            (empty, &[|host| host.folders = yes(vec!["/usr/sap/HDB".to_owned()])], "refuse"),
            (empty, &[|host| host.folders = odd()], "unclear"),
            (empty, &[|host| host.ports = yes(vec![50_013])], "refuse"),
            (empty, &[|host| host.ports = yes(vec![50_113])], "go"),
            (empty, &[|host| host.hdblcm = yes(vec!["hdblcm".to_owned()])], "refuse"),
            (empty, &[|host| host.unfinished = yes(Some(Unfinished::Installation))], "refuse"),
            (empty, &[|host| host.signature = Some(yes(false))], "refuse"),
            (empty, &[|host| host.clock = odd()], "go"),
            // The host agent lists what failed half-way too: neither installed nor free.
            (empty, &[|host| host.instances = lists("HDB", 0)], "refuse"),
            (empty, &[|host| host.instances = lists("QA1", 0)], "refuse"),
            (empty, &[|host| host.instances = lists("HDB", 9)], "refuse"),
            (empty, &[|host| host.instances = lists("DAA", 98)], "go"),
            (empty, &[|host| host.instances = odd()], "unclear"),
            (healthy, &[], "refuse"),
            (healthy, &[same], "already"),
            (healthy, &[same, |host| host.processes = Some(yes(State::Stopped))], "refuse"),
            (healthy, &[same, |host| host.processes = Some(odd())], "unclear"),
            (healthy, &[same, |host| host.listed = Some(yes(Vec::new()))], "refuse"),
            (healthy, &[same, |host| host.listed = Some(odd())], "unclear"),
            (healthy, &[same, |host| host.unfinished = yes(Some(Unfinished::Installation))], "refuse"),
            (healthy, &[same, |host| host.unfinished = odd()], "unclear"),
        ];
        for (at, (host, changes, wanted)) in cases.iter().enumerate() {
            let mut host = host();
            changes.iter().for_each(|change| change(&mut host));
            let step = install(&host);
            assert_eq!(name(&step), *wanted, "case {at}: {step:?}");
        }
    }

    #[test]
    fn when_an_update_begins() {
        let same: Change = |host| host.media = Some(yes(v("2.00.077.00")));
        let stopped: Change = |host| host.processes = Some(yes(State::Stopped));
        let interrupted: Change = |host| host.unfinished = yes(Some(Unfinished::Update));
        let secondary: Change = |host| {
            host.replication = replicating(Role::Secondary("sync".to_owned()));
            (host.databases, host.backups, host.license) = (None, None, None);
        };
        let suspended: Change = |host| {
            let state =
                nsutil::State { online: Some(true), role: Role::Primary, site: None, suspended: Some(true) };
            host.replication = Some(yes(state));
            host.secondaries = Some(yes(Replication::Error));
        };
        let mute: Change = |host| {
            (host.databases, host.backups, host.license) = (Some(odd()), Some(odd()), Some(odd()));
        };
        let cases: &[(&[Change], bool, &str)] = &[
            (&[], true, "go"),
            (&[|host| host.installed = yes(None)], true, "refuse"),
            (&[|host| host.installed = odd()], true, "unclear"),
            (&[|host| host.media = Some(yes(v("2.00.76.9")))], true, "refuse"),
            (&[|host| host.media = Some(yes(v("2.00.100.0")))], true, "go"),
            (&[|host| host.backups = Some(yes(Vec::new()))], true, "refuse"),
            (&[|host| host.license = Some(yes(false))], true, "refuse"),
            (&[|host| host.pacemaker = yes(true)], true, "refuse"),
            (&[mute], true, "unclear"),
            (&[stopped], true, "refuse"),
            (&[|host| host.unfinished = odd()], true, "unclear"),
            (&[|host| host.unfinished = yes(Some(Unfinished::Installation))], true, "refuse"),
            // A secondary has no backups of its own.
            (&[secondary], true, "go"),
            // The version of a secondary cannot be seen from its primary.
            (&[|host| host.secondaries = Some(yes(Replication::Active))], true, "unclear"),
            (&[|host| host.secondaries = Some(odd())], true, "unclear"),
            (&[|host| host.secondaries = Some(yes(Replication::None))], true, "go"),
            (&[same], true, "already"),
            (&[same, stopped], true, "refuse"),
            (&[same, stopped], false, "already"),
            (&[same, interrupted], true, "go"),
            // Prepared while it runs: everything is asked all the same.
            (&[interrupted], true, "go"),
            (&[interrupted, |host| host.backups = Some(yes(Vec::new()))], true, "refuse"),
            // Interrupted and stopped: what cannot be asked does not hold up the rest.
            (&[interrupted, stopped, mute], true, "go"),
            (
                &[interrupted, stopped, mute, |host| host.hdblcm = yes(vec!["hdblcm".to_owned()])],
                true,
                "refuse",
            ),
            (&[interrupted, stopped, mute, |host| host.media = Some(yes(v("2.00.001.0")))], true, "refuse"),
            // A former primary answers nobody; one that rules is asked, whatever the operator says.
            (&[stopped, mute], false, "go"),
            (&[stopped, mute], true, "refuse"),
            (&[suspended, mute], false, "go"),
            (&[suspended, mute], true, "unclear"),
            (&[mute], false, "unclear"),
            (&[|host| host.secondaries = Some(yes(Replication::Active))], false, "unclear"),
        ];
        for (at, (changes, start, wanted)) in cases.iter().enumerate() {
            let mut host = healthy();
            changes.iter().for_each(|change| change(&mut host));
            let part = Part::Finish { start: *start };
            let terms =
                Terms { age: Duration::from_secs(24 * 3600), maintained: false, part, former: !start };
            let step = update(&host, terms);
            assert_eq!(name(&step), *wanted, "case {at}: {step:?}");
        }
    }
}
