//! Base backups: the files as one stream into the depot, and the proof that the archive has all WAL that they need.
//!
//! ```text
//!  the archive works  →  files  →  histories, WAL from start to stop  →  manifest, configuration  →  record
//! ```
//! A death anywhere leaves files without a record, which are no backup and are removed a week later by [`prune`].

pub mod prune;
pub mod reach;
pub mod record;
pub mod setup;
pub mod stream;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::archive;
use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Put, Source};
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Row, Session, literal};
use crate::wal::{Lsn, Name, Segment, Size};
use record::{Backup, Record};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);

/// What the server says before anything is done.
struct Facts {
    system: String,
    server: u32,
    size: Size,
    redo: Lsn,
    bytes: u64,
    summarizes: bool,
}

/// The first version that makes incremental backups, as `server_version_num`.
const INCREMENTAL: u32 = 170_000;

const FACTS: &str = "select pg_is_in_recovery(), (select system_identifier from pg_control_system()), \
    current_setting('server_version_num'), (select setting from pg_settings where name = 'wal_segment_size'), \
    (select redo_lsn from pg_control_checkpoint()), (select sum(pg_database_size(oid)) from pg_database)::bigint, \
    current_setting('archive_mode'), (select count(*) from pg_tablespace where spcname !~ '^pg_'), \
    current_setting('full_page_writes'), current_setting('summarize_wal', true)";

fn facts(cluster: &Cluster, row: Option<&Row>) -> Result<Facts, Error> {
    let refused = |why: &str| Err(Error::Refused(format!("{}: {why}", cluster.title())));
    let Some(
        [
            Some(standby),
            Some(system),
            Some(server),
            Some(size),
            Some(redo),
            Some(bytes),
            Some(mode),
            Some(spaces),
            Some(pages),
            ..,
        ],
    ) = row.map(Vec::as_slice)
    else {
        return Err(Error::Server(format!("{}: it does not say what it is", cluster.title())));
    };
    if standby == "t" {
        return refused("this is a standby: back up its primary");
    }
    if mode == "off" {
        return refused(
            "archive_mode is off, and files without WAL are no backup: set up the archive (docs/postgres.md)",
        );
    }
    if spaces != "0" {
        return refused(
            "it has tablespaces, which are not backed up yet: move their tables to pg_default, or use another tool",
        );
    }
    if pages == "off" {
        return refused(
            "full_page_writes is off: pages that are written during the backup could be torn; set it on",
        );
    }
    let size = size.parse().ok().and_then(Size::new);
    let (Some(size), Ok(server), Ok(redo), Ok(bytes)) = (size, server.parse(), redo.parse(), bytes.parse())
    else {
        return Err(Error::Server(format!("{}: it says of itself what cannot be read", cluster.title())));
    };
    let summarizes = row.and_then(|row| row.last()?.as_deref()) == Some("on");
    Ok(Facts { system: system.clone(), server, size, redo, bytes, summarizes })
}

/// The backup that a new one builds on: the newest good one of the system, if the one that stands for itself below it is
/// younger than `days`. `None`: the new one has to stand for itself.
///
/// # Errors
/// If the server cannot say what was changed since, or the store does not answer.
async fn parent(depot: &Depot, facts: &Facts, days: u32) -> Result<Option<Backup>, Error> {
    let refused = |why: &str| Err(Error::Refused(format!("no incremental backup: {why}")));
    if facts.server < INCREMENTAL {
        return refused("they begin with version 17: leave --incremental away, or upgrade the cluster");
    }
    if !facts.summarizes {
        return refused(
            "summarize_wal is off: `alter system set summarize_wal = on`, `select pg_reload_conf()`, then a backup without \
             --incremental",
        );
    }
    let backups = record::all(depot).await?;
    let of_system = |backup: &&Backup| backup.record.system == facts.system && backup.damage.is_none();
    let Some(newest) = backups.iter().rfind(of_system) else { return Ok(None) };
    let chain = record::chain(&backups, newest)?;
    let age = chain.first().map(|full| Timestamp::now().duration_since(full.record.stopped));
    let young = age.is_some_and(|age| age < SignedDuration::from_hours(24 * i64::from(days)));
    Ok(young.then(|| newest.clone()))
}

/// Backs a cluster up. `wait` is how long the archive may take for what is asked of it. It builds on an earlier backup as
/// long as the one below, which stands for itself, is younger than `incremental` days.
///
/// # Errors
/// If it cannot be, or something that the backup needs does not come to the archive: then it is none.
pub async fn run(
    cluster: &Cluster,
    depot: &Depot,
    wait: Duration,
    incremental: u32,
) -> Result<Record, Error> {
    let place = &depot.place;
    let admin = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    let facts = facts(cluster, admin.rows(FACTS).await?.first())?;
    let parent = if incremental == 0 { None } else { parent(depot, &facts, incremental).await? };
    let began = Timestamp::now();
    let stamp = stamp(began);
    report::progress(1, "looking whether the archive takes WAL");
    let archived = switch_segment(depot, &admin, &facts, &stamp).await?;
    await_archived(cluster, depot, &admin, &archived, wait).await?;
    let folder = tempfile::tempdir().map_err(Error::local("a temporary folder"))?;
    cluster.owner.give(folder.path())?;
    report::progress(3, &format!("storing the files of {}", cluster.title()));
    let base = record::name(place, "base", &stamp);
    let mut command = basebackup(cluster, &stamp, folder.path())?;
    let built_on = parent.as_ref().map(|parent| parent.record.stamp.clone());
    if let Some(parent) = &built_on {
        report::message(&format!("only what was changed since {parent}"));
        let manifest = folder.path().join("parent");
        depot.get(&record::name(place, "manifest", parent), &manifest).await?;
        let mut word = OsString::from("--incremental=");
        word.push(manifest);
        command.push(word);
    }
    let put = |label| Put { database: place.id.clone(), parent: Some(base.clone()), label, ..Put::default() };
    let label = json!({"system": facts.system, "floor": facts.redo.to_string(), "segment": facts.size.bytes(),
        "parent": built_on});
    let below = built_on.as_ref().map(|parent| record::name(place, "base", parent));
    let wish = Put { parent: below, expect: Some(facts.bytes), large: true, ..put(Some(label)) };
    let stored = depot.put(&base, Source::Command(&command), wish).await?;
    here(CrashPoint::BaseStored);
    let bytes = stored.pointer("/backup/size").and_then(serde_json::Value::as_u64).unwrap_or_default();
    let stopped = admin
        .text("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await?;
    let stopped: Timestamp = stopped.parse().map_err(|_| Error::Server(format!("no time: {stopped}")))?;
    let range = range(folder.path())?;
    report::progress(90, "looking whether the archive has all WAL that they need");
    histories(cluster, depot).await?;
    let segments = prove_range(depot, &facts, &range, wait).await?;
    store_rest(cluster, depot, &stamp, folder.path(), put).await?;
    here(CrashPoint::BackupProved);
    let record = Record {
        format: record::format(built_on.is_some()),
        stamp: stamp.clone(),
        cluster: cluster.title(),
        system: facts.system,
        server: facts.server,
        timeline: range.timeline,
        start: range.start.to_string(),
        stop: range.stop.to_string(),
        segment: facts.size.bytes(),
        began,
        stopped,
        bytes,
        parent: built_on,
    };
    let label = serde_json::to_value(&record).map_err(|error| Error::Local(error.to_string()))?;
    let text = in_file(&format!("{label}\n"))?;
    depot.put(&record::name(place, "backup", &stamp), Source::File(text), put(Some(label))).await?;
    for (name, value) in [("backup", &stamp), ("start_lsn", &record.start), ("stop_lsn", &record.stop)] {
        report::output(name, value.as_str());
    }
    report::output("timeline", record.timeline);
    report::output("segments", segments);
    if let Some(parent) = &record.parent {
        report::output("builds_on", parent.as_str());
    }
    report::progress(
        100,
        &format!("backup {stamp} of {}: {} MiB, {segments} segments", cluster.title(), bytes >> 20),
    );
    Ok(record)
}

/// A name that no other backup has.
fn stamp(now: Timestamp) -> String {
    let run = std::env::var("HOSTLER_RUN").unwrap_or_default().to_lowercase();
    let run: String = run.chars().filter(char::is_ascii_alphanumeric).collect();
    let run = match run.len().checked_sub(6).and_then(|from| run.get(from..)) {
        Some(end) => end.to_owned(),
        None => format!("p{}", std::process::id()),
    };
    let epoch = std::env::var("HOSTLER_EPOCH").ok().and_then(|epoch| epoch.parse::<u32>().ok()).unwrap_or(1);
    format!("{}-{run}-{epoch}", now.strftime("%Y-%m-%dT%H%M%SZ"))
}

/// Ends a segment; gives its key in the archive.
async fn switch_segment(depot: &Depot, admin: &Session, facts: &Facts, stamp: &str) -> Result<String, Error> {
    let point = literal(&format!("hostler {stamp}"));
    admin.text(&format!("select pg_create_restore_point({point})")).await?;
    let name = admin.text("select pg_walfile_name(pg_switch_wal())").await?;
    let system =
        facts.system.parse().map_err(|_| Error::Server(format!("no identifier: {}", facts.system)))?;
    let key = archive::key(&depot.place, system, &name);
    key.ok_or_else(|| Error::Server(format!("no name of a segment: {name}")))
}

/// Waits until the archive that the backup relies on has this segment.
async fn await_archived(
    cluster: &Cluster,
    depot: &Depot,
    admin: &Session,
    key: &str,
    wait: Duration,
) -> Result<(), Error> {
    let until = Instant::now() + wait;
    while !depot.names(key).await?.iter().any(|name| name == key) {
        if Instant::now() > until {
            let why = admin.value(
                "select format('%s failed %s times, the last time for %s', current_setting('archive_command'), \
                 failed_count, last_failed_wal) from pg_stat_archiver where last_failed_time > coalesce(last_archived_time, '-infinity')",
            );
            let why = why.await?.unwrap_or_else(|| {
                "the server says that it archives, so archive_command leads to another place or --id"
                    .to_owned()
            });
            return Err(Error::Refused(format!(
                "{}: {key} has not come to the archive within {} s: {why}",
                cluster.title(),
                wait.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The command whose output is the tar: our own filter around `pg_basebackup`.
fn basebackup(cluster: &Cluster, stamp: &str, folder: &Path) -> Result<Vec<OsString>, Error> {
    let ours = std::env::current_exe().map_err(Error::local("this program"))?;
    let program = layout::program(cluster.version, "pg_basebackup");
    let mut words: Vec<OsString> =
        vec![ours.into(), "backup".into(), "stream".into(), folder.into(), "--".into()];
    words.push(program.into());
    // The end of -X none waits until the server has archived what is needed; that it came to our archive is proved apart.
    words.extend(["-D", "-", "-Ft", "-X", "none", "-c", "fast", "-w", "-U", "postgres"].map(OsString::from));
    words.extend(["--manifest-checksums=SHA256".into(), format!("--label=hostler {stamp}").into()]);
    words.extend(["-h".into(), cluster.socket.clone().into(), "-p".into(), cluster.port.to_string().into()]);
    Ok(words)
}

/// What a recovery of the files has to replay.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    timeline: u32,
    start: Lsn,
    stop: Lsn,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

/// Reads it from label and manifest, which have to agree.
fn range(folder: &Path) -> Result<Range, Error> {
    let unclear =
        |what: &str| Error::Unclear(format!("the base backup does not say which WAL it needs: {what}"));
    let label = folder.join(stream::LABEL);
    let label = std::fs::read_to_string(&label).map_err(Error::local(label.display()))?;
    let word = |line: &str| {
        let mut lines = label.lines().filter_map(|it| it.strip_prefix(line));
        lines.next().and_then(|rest| rest.split_ascii_whitespace().next())
    };
    let start: Option<Lsn> = word("START WAL LOCATION:").and_then(|lsn| lsn.parse().ok());
    let timeline: Option<u32> = word("START TIMELINE:").and_then(|number| number.parse().ok());
    let path = folder.join(stream::MANIFEST);
    let file = File::open(&path).map_err(Error::local(path.display()))?;
    let manifest: Manifest = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| unclear(&format!("manifest: {error}")))?;
    let [part] = manifest.ranges.as_slice() else { return Err(unclear("the manifest has not one range")) };
    let (from, stop) = (part.start.parse::<Lsn>().ok(), part.end.parse().ok());
    match (start, timeline, from, stop) {
        (Some(start), Some(timeline), Some(from), Some(stop))
            if start == from && timeline == part.timeline && start < stop =>
        {
            Ok(Range { timeline, start, stop })
        }
        _ => Err(unclear("label and manifest do not agree")),
    }
}

/// Archives every history that the server has: one from before its archive was set up would be missing for ever.
async fn histories(cluster: &Cluster, depot: &Depot) -> Result<(), Error> {
    let folder = cluster.data.join("pg_wal");
    let local = |error| Error::local(folder.display())(error);
    for entry in std::fs::read_dir(&folder).map_err(local)? {
        let path = entry.map_err(local)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if matches!(Name::parse(name), Some(Name::History { .. })) {
            archive::put(depot, &path).await?;
        }
    }
    Ok(())
}

/// Waits until every segment of the range is in the archive, whole; how many there are.
async fn prove_range(depot: &Depot, facts: &Facts, range: &Range, wait: Duration) -> Result<u64, Error> {
    let size = facts.size;
    let numbers = size.number(range.start)..=size.number_before(range.stop);
    let folder = format!("{}/{}/{:08X}/", depot.place.wal(), facts.system, range.timeline);
    let name = |number| size.name(Segment { timeline: range.timeline, number });
    let mut wanted: Vec<String> = numbers.map(name).collect();
    let count = wanted.len() as u64;
    let until = Instant::now() + wait;
    loop {
        let mut missing = Vec::new();
        // A list of what has the same first sixteen digits has a few hundred entries.
        for part in wanted.chunk_by(|one, other| one.get(..16) == other.get(..16)) {
            let prefix = part.first().and_then(|name| name.get(..16)).unwrap_or_default();
            let stored = depot.list(&format!("{folder}{prefix}")).await?;
            for name in part {
                let key = format!("{folder}{name}");
                match stored.iter().find(|stored| stored.name == key) {
                    None => missing.push(name.clone()),
                    Some(stored) if stored.good() && stored.size == size.bytes() => {}
                    Some(stored) => {
                        return Err(Error::Damaged(format!("{key} is {}: this is no backup", stored.state)));
                    }
                }
            }
        }
        let Some(first) = missing.first() else { return Ok(count) };
        if Instant::now() > until {
            return Err(Error::Damaged(format!(
                "{} of {count} segments have not come to the archive within {} s, the first {folder}{first}: this is no backup",
                missing.len(),
                wait.as_secs()
            )));
        }
        wanted = missing;
        sleep(LOOK).await;
    }
}

/// Stores the manifest and the configuration, which build on the files.
async fn store_rest(
    cluster: &Cluster,
    depot: &Depot,
    stamp: &str,
    folder: &Path,
    put: impl Fn(Option<serde_json::Value>) -> Put,
) -> Result<(), Error> {
    let manifest = folder.join(stream::MANIFEST);
    let manifest = File::open(&manifest).map_err(Error::local(manifest.display()))?;
    depot.put(&record::name(&depot.place, "manifest", stamp), Source::File(manifest), put(None)).await?;
    let mut tar: Vec<OsString> =
        vec!["tar".into(), "--create".into(), "--file=-".into(), "-C".into(), cluster.conf.clone().into()];
    tar.extend(layout::configuration(cluster).into_iter().map(OsString::from));
    depot.put(&record::name(&depot.place, "conf", stamp), Source::Command(&tar), put(None)).await?;
    Ok(())
}

/// A file without a name that holds this text.
fn in_file(text: &str) -> Result<File, Error> {
    use std::io::Seek;
    let mut file = tempfile::tempfile().map_err(Error::local("a temporary file"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(Error::local("a temporary file"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{Range, range};
    use crate::wal::Lsn;

    #[test]
    fn label_and_manifest_have_to_agree() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "backup_label",
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nSTART TIMELINE: 1\n",
        );
        let manifest = |start: &str| {
            format!(
                "{{\"Files\": [{{\"Path\": \"a\"}}], \"WAL-Ranges\": [{{\"Timeline\": 1, \"Start-LSN\": \"{start}\", \"End-LSN\": \"0/2000138\"}}]}}"
            )
        };
        write("backup_manifest", &manifest("0/2000028"));
        let good = range(folder.path()).unwrap();
        assert_eq!(good, Range { timeline: 1, start: Lsn(0x0200_0028), stop: Lsn(0x0200_0138) });
        for wrong in [manifest("0/2000029"), "{}".to_owned(), String::new()] {
            write("backup_manifest", &wrong);
            assert!(range(folder.path()).is_err());
        }
    }
}
