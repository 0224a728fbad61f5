//! Asks host, media and system for everything that is judged. Nothing here changes anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use super::glance::{Glance, answers, glance, is_there};
use super::{Observed, Seen};
use crate::call::Call;
use crate::error::Error;
use crate::neighbours::catalog::{self, Database, Entry};
use crate::neighbours::hdbsql::{self, Key};
use crate::neighbours::media::{self, Media};
use crate::neighbours::{hdblcm, host, scripts};
use crate::parts::{Files, Parts};
use crate::proof::proof;
use crate::runner::{Outcome, Runner};
use crate::system::System;

/// Most processes that are looked at.
const MAX_PROCESSES: usize = 100_000;

/// What the check needs to know from its caller.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The folder of the media, as the host names it.
    pub media: Option<PathBuf>,
    /// The key in the user store that logs on to SYSTEMDB.
    pub key: Key,
    /// How far back the backup catalog is read.
    pub age: Duration,
    /// Where the parts of the newest backups are looked for; `None`: they are not.
    pub parts: Option<Files>,
}

/// Starts a program and reads its answer.
pub(super) fn ask<T>(
    runner: &Runner,
    call: &Call,
    read: impl FnOnce(&Outcome) -> Result<T, Error>,
) -> Seen<T> {
    match runner.run(call) {
        Ok(outcome) => {
            let text = if outcome.out.trim().is_empty() { &outcome.err } else { &outcome.out };
            Seen::new(&format!("{}: {}", outcome.end, text.trim()), read(&outcome))
        }
        Err(error) => Seen::new("", Err(error)),
    }
}

fn file(system: &System, path: &str) -> Result<String, Error> {
    let place = system.at(path);
    let bytes = fs::read(&place).map_err(Error::local(place.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_file<T>(system: &System, path: &str, read: impl FnOnce(&str) -> Result<T, Error>) -> Seen<T> {
    match file(system, path) {
        Ok(text) => Seen::new(text.lines().next().unwrap_or_default(), read(&text)),
        Err(error) => Seen::new("", Err(error)),
    }
}

/// Looks at everything.
///
/// # Errors
/// Only when a signal asks this program to stop; all else is part of what was seen.
pub fn gather(runner: &Runner, wish: &Wish) -> Result<Observed, Error> {
    let system = runner.system();
    let now = Timestamp::now();
    let since =
        now.checked_sub(wish.age.max(Duration::from_secs(35 * 24 * 3600))).unwrap_or(Timestamp::UNIX_EPOCH);
    let Glance { installed, processes, replication, secondaries, databases, backups } =
        glance(runner, &wish.key, since, now);
    let there = is_there(&installed);
    let answers = answers(&installed, replication.as_ref());
    let (media, signature) = media_of(system, wish.media.as_deref());
    let name = nix::unistd::gethostname();
    let name = name.ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let license: Query = (catalog::license(system, &wish.key), &["VALID"]);
    let unfinished = unfinished(system);
    // An update that is prepared was proved a while ago: its files are not read twice.
    let files = match (wish.parts, &unfinished.value) {
        (Some(Files::Read(_)), Ok(Some(hdblcm::Unfinished::Update))) => Some(Files::Here),
        (files, _) => files,
    };
    let value = databases.as_ref().and_then(|seen| seen.value.as_ref().ok());
    let known = value.zip(backups.as_ref().and_then(|seen| seen.value.as_ref().ok()));
    let kept = match (files, known) {
        (Some(files), Some((databases, entries))) => kept(runner, wish, files, databases, (entries, now)),
        _ => Vec::new(),
    };
    let seen = Observed {
        sid: system.sid.clone(),
        kept,
        number: system.number,
        now,
        memory: read_file(system, "/proc/meminfo", |text| Ok(host::memory(text)?)),
        huge_pages: read_file(system, "/sys/kernel/mm/transparent_hugepage/enabled", |text| {
            Ok(host::huge_pages(text)?)
        }),
        clock: ask(runner, &host::clock_call(), |outcome| Ok(host::clock(outcome.code()?, &outcome.out)?)),
        addresses: ask(runner, &host::resolve_call(&name), |outcome| {
            Ok(host::addresses(outcome.code()?.into(), &outcome.out)?)
        }),
        ports: ports(system),
        disks: disks(system),
        user: user(system),
        hdblcm: hdblcm_at_work(system),
        pacemaker: {
            let found = at_work(system, |_, name| (name == "pacemakerd").then(|| name.to_owned()));
            Seen { raw: found.raw, value: found.value.map(|found| !found.is_empty()) }
        },
        folders: folders(system),
        unfinished,
        instances: instances(runner),
        media,
        signature,
        listed: there.then(|| {
            ask(runner, &hdblcm::list_systems(system), |outcome| {
                Ok(hdblcm::listed(outcome.code()?.into(), &outcome.out)?)
            })
        }),
        processes,
        secondaries,
        landscape: there.then(|| {
            ask(runner, &scripts::landscape(system), |outcome| {
                Ok(scripts::hosts(outcome.code()?, &outcome.out)?)
            })
        }),
        databases,
        backups,
        license: answers.then(|| rows(runner, &license, |rows| Ok(catalog::read_license(rows)?))),
        installed,
        replication,
    };
    runner.stopped()?;
    Ok(seen)
}

/// What the newest backup of each active database lacks, where the catalog calls it a proof.
fn kept(
    runner: &Runner,
    wish: &Wish,
    files: Files,
    databases: &[(Database, bool)],
    (entries, now): (&[Entry], Timestamp),
) -> Vec<(Database, Seen<Vec<String>>)> {
    let parts = Parts::new(runner, &wish.key);
    let active = databases.iter().filter(|(_, active)| *active).map(|(database, _)| database);
    let proved = active.filter_map(|database| {
        proof(database, entries, now, wish.age).ok().map(|data| (database.clone(), data))
    });
    proved.map(|(database, data)| (database, Seen::new("", parts.lacks(data, now, files)))).collect()
}

/// A query, and the columns that its answer must have.
pub(super) type Query = (Call, &'static [&'static str]);

pub(super) fn rows<T>(
    runner: &Runner,
    (call, columns): &Query,
    read: impl FnOnce(&[hdbsql::Row]) -> Result<T, Error>,
) -> Seen<T> {
    ask(runner, call, |outcome| read(&hdbsql::rows(outcome, columns)?))
}

fn media_of(
    system: &System,
    folder: Option<&Path>,
) -> (Option<Seen<crate::system::Version>>, Option<Seen<bool>>) {
    let Some(folder) = folder else { return (None, None) };
    let media = match Media::find(&system.root, folder) {
        Ok(media) => media,
        Err(error) => return (Some(Seen::new("", Err(error))), None),
    };
    let place = media.manifest.display().to_string();
    let version = media::version_at(&system.at(&media.manifest))
        .and_then(|version| version.ok_or_else(|| Error::Unclear(format!("{place} is not there"))));
    let signature = system.at(&media.signature).is_file();
    (Some(Seen::new(&place, version)), Some(Seen::new(&media.signature.display().to_string(), Ok(signature))))
}

fn ports(system: &System) -> Seen<Vec<u16>> {
    let both = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| match file(system, path) {
        Ok(text) => Ok(host::listening(&text)?),
        // A kernel without IPv6.
        Err(_) if path.ends_with('6') && !system.at(path).exists() => Ok(Vec::new()),
        Err(error) => Err(error),
    });
    let [four, six] = both;
    let ports = four.and_then(|mut ports| {
        six.map(|more| {
            ports.extend(more);
            ports
        })
    });
    Seen::new("/proc/net/tcp, /proc/net/tcp6", ports)
}

/// How many percent of each disk of a system are used.
pub fn disks(system: &System) -> Vec<(String, Seen<u64>)> {
    let paths = [
        system.sapmnt.clone(),
        "/hana/data".into(),
        "/hana/log".into(),
        "/usr/sap".into(),
        "/var/tmp".into(),
    ];
    let mut seen = Vec::new();
    for path in paths {
        let place = system.at(&path);
        let percent = match statvfs(&place) {
            Ok(disk) if disk.blocks() > 0 => {
                let used = disk.blocks().saturating_sub(disk.blocks_free());
                // As df(1) counts: what only root may use is not free.
                let usable = used + disk.blocks_available();
                Ok((used * 100).div_ceil(usable.max(1)))
            }
            Ok(_) => Err(Error::Unclear("the file system has no size".to_owned())),
            Err(nix::errno::Errno::ENOENT) => continue,
            Err(errno) => Err(Error::Local(format!("{}: {errno}", place.display()))),
        };
        seen.push((path.display().to_string(), Seen::new("", percent)));
    }
    seen
}

fn user(system: &System) -> Seen<Option<u32>> {
    let name = system.adm();
    let found = nix::unistd::User::from_name(&name);
    let found = found.map_err(|errno| Error::Local(format!("user {name} cannot be looked up: {errno}")));
    Seen::new(&name, found.map(|user| user.map(|user| user.uid.as_raw())))
}

/// Each hdblcm that is at work on the host.
pub fn hdblcm_at_work(system: &System) -> Seen<Vec<String>> {
    at_work(system, |cmdline, _| host::hdblcm(cmdline))
}

/// Each extraction of an archive that is at work on the host.
pub fn extractions_at_work(system: &System) -> Seen<Vec<String>> {
    at_work(system, |cmdline, _| host::extraction(cmdline))
}

/// Each recovery that is at work on the host: its client lives on when what started it is killed.
pub fn recoveries_at_work(system: &System) -> Seen<Vec<String>> {
    at_work(system, |cmdline, _| host::recovery(cmdline, &system.sid))
}

/// What a look at each process finds.
fn at_work(system: &System, look: impl Fn(&[u8], &str) -> Option<String>) -> Seen<Vec<String>> {
    let mut found = Vec::new();
    let proc = system.at("/proc");
    let entries = match fs::read_dir(&proc) {
        Ok(entries) => entries,
        Err(error) => return Seen::new("", Err(Error::local(proc.display())(error))),
    };
    for entry in entries.take(MAX_PROCESSES) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Seen::new("", Err(Error::local(proc.display())(error))),
        };
        let path = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that ended since is none.
        let (Ok(cmdline), Ok(name)) = (fs::read(path.join("cmdline")), fs::read_to_string(path.join("comm")))
        else {
            continue;
        };
        found.extend(look(&cmdline, name.trim_end()));
    }
    Seen::new(&found.join(" | "), Ok(found.clone()))
}

fn folders(system: &System) -> Seen<Vec<String>> {
    let mut full = Vec::new();
    for path in [system.shared(), system.home()] {
        let place = system.at(&path);
        match fs::read_dir(&place).map(|mut entries| entries.next().is_some()) {
            Ok(true) => full.push(path.display().to_string()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Seen::new("", Err(Error::local(place.display())(error))),
        }
    }
    Seen::new(&full.join(" | "), Ok(full.clone()))
}

fn unfinished(system: &System) -> Seen<Option<hdblcm::Unfinished>> {
    let place = system.at(system.shared());
    let names: Result<Vec<_>, io::Error> = match fs::read_dir(&place) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let names = names.map_err(Error::local(place.display()));
    let raw = names.as_ref().map(|names| names.join(" ")).unwrap_or_default();
    let found =
        names.and_then(|names| Ok(hdblcm::unfinished(&system.sid, names.iter().map(String::as_str))?));
    Seen::new(&raw, found)
}

fn instances(runner: &Runner) -> Seen<Option<Vec<host::Instance>>> {
    let call = host::instances_call();
    match fs::symlink_metadata(runner.system().at(&call.program)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::new("", Ok(None)),
        _ => ask(runner, &call, |outcome| Ok(Some(host::instances(outcome.code()?, &outcome.out)?))),
    }
}
