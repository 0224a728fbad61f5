//! Backups: of data by a process of the server, of logs by the server itself when their time has come.
//!
//! A data backup goes on when the hdbsql that asked for it is killed, as with the real server. Names are those of HANA:
//! `PREFIX_databackup_VOLUME_PART`, `log_backup_VOLUME_0_FIRST_LAST`, `log_backup_0_0_0_0` for the catalog.

use crate::backint::{self, Backint};
use crate::catalog::{Catalog, Entry, Piece};
use crate::clock;
use crate::database::{self, Content, Volume, kept};
use crate::files;
use crate::halt::{Ended, Halt};
use crate::leftovers;
use crate::root::Root;
use crate::system::{self, Database, System, Tenant};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Nominal seconds that a data backup takes.
const DURATION: f64 = 10.0;

/// What a data backup shall do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) sid: String,
    pub(crate) database: String,
    pub(crate) entry_id: i64,
    /// `COMPLETE`, `INCREMENTAL`, `DIFFERENTIAL`.
    pub(crate) level: String,
    pub(crate) backint: bool,
    /// Path of the files or streams, up to `_databackup`.
    pub(crate) prefix: String,
    pub(crate) option: String,
}

/// The topology in a backup: which databases the system has.
#[derive(Serialize, Deserialize)]
pub(crate) struct Topology {
    pub(crate) sid: String,
    pub(crate) tenants: Vec<Tenant>,
}

/// A backup's bytes: a line with their sum, then JSON.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, Halt> {
    let text = serde_json::to_string(value)?;
    Ok(format!("HDBBACKUP {}\n{text}", kept(&text)).into_bytes())
}

/// Reads what `seal` made; `None` where a byte is wrong.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once('\n')?;
    (head.strip_prefix("HDBBACKUP ")? == kept(body)).then(|| serde_json::from_str(body).ok()).flatten()
}

/// Notes a backup as running and starts the process that makes it.
///
/// # Errors
/// The text behind SQL error 447.
pub(crate) fn begin(root: &Root, system: &System, job: &mut Job, comment: &str) -> Result<Child, String> {
    let told = |halt: Halt| halt.said;
    {
        let _held = system::lock(root, &system.sid).map_err(told)?;
        let mut catalog = Catalog::load(root, system).map_err(told)?;
        let busy = catalog
            .of(&job.database)
            .any(|entry| entry.is_data() && ["running", "prepared"].contains(&entry.state.as_str()));
        if busy {
            return Err("[1] another data backup or snapshot of the database is at work".into());
        }
        let id = catalog.free_id();
        job.entry_id = id;
        let kind = match job.level.as_str() {
            "COMPLETE" => "complete data backup".to_string(),
            level => format!("{} data backup", level.to_lowercase()),
        };
        let complete = |entry: &Entry| entry.kind == "complete data backup" && entry.state == "successful";
        if job.level != "COMPLETE" && !catalog.of(&job.database).any(complete) {
            return Err("[2] a delta backup needs a complete data backup".into());
        }
        let begun = Entry::begun(id, id, &job.database, &kind, "running");
        catalog.entries.push(Entry { comment: comment.into(), ..begun });
        catalog.save(root, system).map_err(told)?;
    }
    files::crash_point(root, "backup.noted");
    let mut server = Command::new(root.state("program"));
    server.arg0("hdb.backup").arg(serde_json::to_string(job).map_err(|error| error.to_string())?);
    server.env("HANA_STANDINS_ROOT", root.at("/"));
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    server.spawn().map_err(|error| error.to_string())
}

/// The process of a data backup.
pub(crate) fn serve(root: &Root, job: &str) -> Ended {
    let _ = nix::unistd::setsid();
    let job: Job = serde_json::from_str(job)?;
    let system = system::load(root, &job.sid)?.ok_or_else(|| Halt::new(1, "no system"))?;
    let change = |how: &dyn Fn(&mut Entry)| -> Result<(), Halt> {
        let _held = system::lock(root, &job.sid)?;
        let mut catalog = Catalog::load(root, &system)?;
        let entry = catalog.entries.iter_mut().find(|entry| entry.entry_id == job.entry_id);
        entry.into_iter().for_each(how);
        catalog.save(root, &system)
    };
    change(&|entry| entry.pid = std::process::id())?;
    match data(root, &system, &job) {
        Ok((content, pieces)) => {
            files::crash_point(root, "backup.written");
            let lost = root.faults().find("tenant-not-in-backup", |tenant| tenant == job.database);
            change(&|entry| {
                if entry.state != "running" {
                    return;
                }
                entry.state = "successful".into();
                entry.end = Some(clock::now());
                entry.branch = content.branch;
                (entry.first, entry.last) = (content.position, content.position);
                entry.pieces = pieces.clone();
            })?;
            if lost.is_some() {
                let _held = system::lock(root, &job.sid)?;
                let mut catalog = Catalog::load(root, &system)?;
                catalog.entries.retain(|entry| entry.entry_id != job.entry_id);
                catalog.save(root, &system)?;
            }
            files::crash_point(root, "backup.recorded");
            if let Err(text) = send_catalog(root, &system, &job.database) {
                trace(root, &system, &text);
            }
            Ok(0)
        }
        Err(text) => {
            trace(root, &system, &text);
            change(&|entry| {
                if entry.state == "running" {
                    entry.state = "failed".into();
                    entry.message = text.clone();
                    entry.end = Some(clock::now());
                }
            })?;
            Ok(1)
        }
    }
}

/// A line in backup.log.
fn trace(root: &Root, system: &System, text: &str) {
    let place = system.instance(root).join(root.host()).join("trace/backup.log");
    let line = format!("{} ERROR   BACKUP   {text}\n", clock::form(clock::now(), "%Y-%m-%dT%H:%M:%S+00:00"));
    // A log that cannot be written changes nothing of the backup.
    let _ = files::append(root, &place, line.as_bytes());
}

fn found(system: &System, name: &str) -> Result<Database, String> {
    let database = system.databases().into_iter().find(|database| database.name == name);
    database.ok_or_else(|| format!("database {name} does not exist"))
}

/// Writes the pieces of a data backup.
fn data(root: &Root, system: &System, job: &Job) -> Result<(Content, Vec<Piece>), String> {
    let told = |halt: Halt| halt.said;
    let database = found(system, &job.database)?;
    let content = {
        let _held = system::lock(root, &system.sid).map_err(told)?;
        Volume::of(root, system, &database).content().map_err(told)?
    };
    root.sleep(DURATION);
    if !system.lives(root) {
        return Err("the service was stopped".into());
    }
    let topology = Topology { sid: system.sid.clone(), tenants: system.tenants.clone() };
    let name = |volume: u32, part: usize| format!("{}_databackup_{volume}_{part}", job.prefix);
    let whole = seal(&content).map_err(told)?;
    let channels = if job.backint { channels(system, &job.database, whole.len()) } else { 1 };
    let parts = whole.chunks(whole.len().div_ceil(channels)).zip(1..);
    let volume = database.volume;
    let streams: Vec<(String, Vec<u8>)> =
        parts.map(|(part, place)| (name(volume, place), part.to_vec())).collect();
    let mut pieces = Vec::new();
    let topology = vec![(name(0, 1), seal(&topology).map_err(told)?)];
    for (kind, volume, streams) in [("topology", 0, topology), ("volume", volume, streams)] {
        let target = Target { root, system, database: &job.database, backint: job.backint, purpose: "data" };
        let job = JobName { id: job.entry_id, level: &job.level, option: &job.option };
        pieces.extend(target.send(kind, volume, &job, streams)?);
        files::crash_point(root, if kind == "topology" { "backup.topology" } else { "backup.volume" });
    }
    Ok((content, pieces))
}

/// How many streams a volume is split into: `parallel_data_backup_backint_channels`, above the threshold in GB.
fn channels(system: &System, database: &str, bytes: usize) -> usize {
    let number = |key: &str, default: usize| {
        system.parameter(database, "backup", key).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let threshold = number("parallel_data_backup_backint_size_threshold", 128);
    if bytes >> 30 < threshold { 1 } else { number("parallel_data_backup_backint_channels", 1).clamp(1, 32) }
}

/// The backup that pieces belong to, as Backint is told.
struct JobName<'a> {
    /// Id of the backup.
    id: i64,
    /// `COMPLETE`, `LOG` …
    level: &'a str,
    /// What the user added with `TOOLOPTION`; empty for nothing.
    option: &'a str,
}

/// Where pieces go.
struct Target<'a> {
    root: &'a Root,
    system: &'a System,
    database: &'a str,
    backint: bool,
    purpose: &'a str,
}

impl Target<'_> {
    fn send(
        &self,
        kind: &str,
        volume: u32,
        job: &JobName<'_>,
        streams: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<Piece>, String> {
        let destination = if self.backint { "backint" } else { "file" };
        let piece = |path: &String, bytes: &Vec<u8>| Piece {
            kind: kind.into(),
            volume,
            destination: destination.into(),
            path: path.clone(),
            ebid: None,
            size: bytes.len() as u64,
        };
        let mut pieces: Vec<Piece> = streams.iter().map(|(path, bytes)| piece(path, bytes)).collect();
        if self.backint {
            let backint = Backint {
                root: self.root,
                system: self.system,
                database: self.database,
                of: &self.system.sid,
                purpose: self.purpose,
            };
            let ids = backint.backup(job.id, job.level, job.option, streams)?;
            for (piece, id) in pieces.iter_mut().zip(ids) {
                piece.ebid = Some(id);
            }
        } else {
            for (path, bytes) in streams {
                files::write(self.root, &PathBuf::from(path), &bytes).map_err(|halt| halt.said)?;
            }
        }
        Ok(pieces)
    }
}

/// The folder of a kind of backup to files: `data`, `log` or `catalog`.
pub(crate) fn base(root: &Root, system: &System, database: &str, kind: &str) -> PathBuf {
    let own = if kind == "data" { "data" } else { "log" };
    let default = format!("$(DIR_INSTANCE)/backup/{own}");
    let base =
        system.parameter(database, "persistence", &format!("basepath_{kind}backup")).unwrap_or(&default);
    let instance = format!("/usr/sap/{}/HDB{}", system.sid, system.number);
    root.at(base.replace("$(DIR_INSTANCE)", &instance)).join(backint::folder_name(database))
}

/// Does this kind of backup go through Backint?
pub(crate) fn by_backint(system: &System, database: &str, kind: &str) -> bool {
    system.parameter(database, "backup", &format!("{kind}_backup_using_backint")) == Some("true")
}

/// Sends the database's part of the catalog. Nobody waits for it but other backups.
fn send_catalog(root: &Root, system: &System, database: &str) -> Result<(), String> {
    let told = |halt: Halt| halt.said;
    let (id, part) = {
        let _held = system::lock(root, &system.sid).map_err(told)?;
        let catalog = Catalog::load(root, system).map_err(told)?;
        (catalog.free_id(), Catalog { entries: catalog.of(database).cloned().collect() })
    };
    let backint = by_backint(system, database, "catalog");
    // Backint keeps the versions of one name apart, files need a name each.
    let path = match backint {
        true => backint::folder(root, system, database).join("log_backup_0_0_0_0"),
        false => base(root, system, database, "catalog").join(format!("log_backup_0_0_0_0.{id}")),
    };
    let target = Target { root, system, database, backint, purpose: "catalog" };
    let streams = vec![(path.display().to_string(), seal(&part).map_err(told)?)];
    let start = clock::now();
    let pieces = target.send("catalog", 0, &JobName { id, level: "LOG", option: "" }, streams)?;
    files::crash_point(root, "backup.catalog");
    record(root, system, Entry { pieces, ..log_entry(database, id, start) }).map_err(told)
}

/// Adds an entry to the catalog, under the next id that is free.
fn record(root: &Root, system: &System, mut entry: Entry) -> Result<(), Halt> {
    let _held = system::lock(root, &system.sid)?;
    let mut catalog = Catalog::load(root, system)?;
    entry.entry_id = catalog.free_id();
    catalog.entries.push(entry);
    catalog.save(root, system)
}

/// An entry of a log backup that ends now, without positions and pieces.
fn log_entry(database: &str, id: i64, start: i64) -> Entry {
    let begun = Entry::begun(id, id, database, "log backup", "successful");
    Entry { start, end: Some(clock::now()), ..begun }
}

/// Sends the logs of every database whose time has come. Called by the server again and again.
pub(crate) fn logs(root: &Root, system: &System) {
    for database in system.databases() {
        if let Err(text) = log(root, system, &database) {
            trace(root, system, &text);
        }
    }
}

/// Sends the log of a database, if it is older than `log_backup_timeout_s`, and a data backup has been made.
fn log(root: &Root, system: &System, database: &Database) -> Result<(), String> {
    let told = |halt: Halt| halt.said;
    let name = &database.name;
    let seconds = system.parameter(name, "persistence", "log_backup_timeout_s");
    let seconds: f64 = seconds.and_then(|text| text.parse().ok()).unwrap_or(900.0);
    let volume = Volume::of(root, system, database);
    let old = |entries: &[database::Entry]| {
        entries.first().is_some_and(|first| clock::now() - first.time > root.micros(seconds))
    };
    if !old(&volume.entries()) || system.parameter(name, "persistence", "log_mode") == Some("overwrite") {
        return Ok(());
    }
    let (content, catalog) = {
        let _held = system::lock(root, &system.sid).map_err(told)?;
        (volume.content().map_err(told)?, Catalog::load(root, system).map_err(told)?)
    };
    if !catalog.of(name).any(|entry| entry.is_data() && entry.state == "successful") {
        return Ok(());
    }
    let of_branch =
        catalog.of(name).filter(|entry| entry.kind == "log backup" && entry.branch == content.branch);
    let mut sent = of_branch.map(|entry| entry.last).max().unwrap_or(0);
    let entries: Vec<database::Entry> =
        volume.entries().into_iter().filter(|entry| entry.position > sent).collect();
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        let id = catalog.free_id();
        let backint = by_backint(system, name, "log");
        let file = format!("log_backup_{}_0_{}_{}", database.volume, first.position, last.position);
        let path = match backint {
            true => backint::folder(root, system, name).join(file),
            false => base(root, system, name, "log").join(format!("{file}.{id}")),
        };
        let target = Target { root, system, database: name, backint, purpose: "log" };
        let start = clock::now();
        let streams = vec![(path.display().to_string(), seal(&entries).map_err(told)?)];
        let mut pieces =
            target.send("volume", database.volume, &JobName { id, level: "LOG", option: "" }, streams)?;
        if root.faults().find("log-backup-lost", |lost| lost.is_empty() || lost == name.as_str()).is_some() {
            // In the catalog, but not where it says.
            let _ = std::fs::remove_file(&path);
            pieces.iter_mut().for_each(|piece| piece.ebid = piece.ebid.as_ref().map(|_| "0".into()));
        }
        files::crash_point(root, "log-backup.sent");
        let entry = Entry {
            branch: content.branch,
            first: first.position,
            last: last.position,
            pieces,
            ..log_entry(name, id, start)
        };
        record(root, system, entry).map_err(told)?;
        files::crash_point(root, "log-backup.recorded");
        leftovers::freed(root, system, &database.name, database.volume, id).map_err(told)?;
        sent = last.position;
    }
    {
        // What was committed since stays in the log.
        let _held = system::lock(root, &system.sid).map_err(told)?;
        let now = volume.content().map_err(told)?;
        if now.branch == content.branch {
            let mut rest = volume.entries();
            rest.retain(|entry| entry.position > sent);
            volume.savepoint(root, &now, &rest).map_err(told)?;
        }
    }
    send_catalog(root, system, name)
}
