//! Recovery of one database: the newest data backup before an instant, and its logs up to it.

use crate::backint::{self, Backint};
use crate::backup::{self, Topology, unseal};
use crate::catalog::{Catalog, Entry, Piece};
use crate::clock;
use crate::database::{self, Content, Volume, kept};
use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use crate::sql::SqlError;
use crate::sql::words::Cursor;
use crate::system::{self, System};
use serde::de::DeserializeOwned;
use std::fs;
use std::path::PathBuf;

/// What a statement RECOVER asks for.
#[derive(Default)]
pub(crate) struct Request {
    /// `None`: the system's own database.
    pub(crate) tenant: Option<String>,
    /// Replay logs up to this instant; `None`: the data alone.
    until: Option<i64>,
    backup_id: Option<i64>,
    /// Prefix of the files of a recovery of data alone.
    data: Option<String>,
    catalog: Option<Place>,
    log_path: Option<String>,
    data_path: Option<String>,
    /// The database whose backups these are, and its system, where it is another one.
    source: Option<(String, String)>,
    clear_log: bool,
}

enum Place {
    Path(String),
    Backint,
}

/// Reads what follows RECOVER.
pub(crate) fn parse(cursor: &mut Cursor) -> Result<Request, SqlError> {
    let mut request = Request::default();
    let data_alone = cursor.take("DATA");
    if !data_alone {
        cursor.expect("DATABASE")?;
    }
    if cursor.take("FOR") {
        request.tenant = Some(cursor.name()?);
    }
    if !data_alone {
        cursor.expect("UNTIL TIMESTAMP")?;
        let text = cursor.text()?;
        request.until = Some(clock::parse(&text).ok_or_else(|| SqlError::syntax(&text))?);
    }
    while cursor.peek().is_some() {
        if cursor.take("CLEAR LOG") {
            request.clear_log = true;
        } else if cursor.take("USING SOURCE") {
            // DB@SID; a copy from another system has its SID here.
            let text = cursor.text()?;
            let (database, sid) = text.split_once('@').ok_or_else(|| SqlError::syntax(&text))?;
            request.source = Some((database.to_string(), sid.to_string()));
        } else if cursor.take("USING CATALOG BACKINT") {
            request.catalog = Some(Place::Backint);
        } else if cursor.take("USING CATALOG PATH") {
            request.catalog = Some(Place::Path(bracketed(cursor)?));
        } else if cursor.take("USING LOG PATH") {
            request.log_path = Some(bracketed(cursor)?);
        } else if cursor.take("USING DATA PATH") {
            request.data_path = Some(bracketed(cursor)?);
        } else if cursor.take("USING BACKUP_ID") || cursor.take("BACKUP_ID") {
            request.backup_id = i64::try_from(cursor.number()?).ok();
        } else if data_alone && cursor.take("USING FILE") {
            request.data = Some(bracketed(cursor)?);
        } else if !cursor.take("CHECK ACCESS USING FILE")
            && !cursor.take("CHECK ACCESS USING BACKINT")
            && !cursor.take("CHECK ACCESS ALL")
        {
            return Err(cursor.wrong());
        }
    }
    if data_alone && request.data.is_none() {
        return Err(cursor.wrong());
    }
    Ok(request)
}

/// `('/dir/prefix')`, or `('/dir/','prefix')` joined.
pub(crate) fn bracketed(cursor: &mut Cursor) -> Result<String, SqlError> {
    cursor.expect("(")?;
    let mut text = cursor.text()?;
    while cursor.take(",") {
        text += &cursor.text()?;
    }
    cursor.expect(")")?;
    Ok(text)
}

/// What was reached: the instant and the position of the last change.
pub(crate) struct Reached {
    pub(crate) time: i64,
    pub(crate) position: u64,
}

/// Recovers the database. The caller has seen to it that it is stopped.
///
/// # Errors
/// What failed, as text behind SQL error 448; then nothing was changed.
pub(crate) fn recover(
    root: &Root,
    system: &System,
    name: &str,
    request: &Request,
) -> Result<Reached, String> {
    let told = |halt: Halt| halt.said;
    let of = request.source.as_ref().map_or(name, |(database, _)| database);
    let source = Source { root, system, name: of, request };
    let (mut content, topology, known) = match (&request.data, request.until) {
        (Some(prefix), _) => {
            let (content, topology) = source.files(prefix)?;
            (content, topology, Catalog::default())
        }
        (None, until) => source.by_catalog(until.unwrap_or(i64::MAX))?,
    };
    let database = system.databases().into_iter().find(|database| database.name == name);
    let database = database.ok_or_else(|| format!("database {name} does not exist"))?;
    let volume = Volume::of(root, system, &database);
    if request.clear_log {
        content.branch = clock::now();
    } else {
        for entry in volume.entries() {
            let wanted = request.until.is_none_or(|until| entry.time <= until);
            if wanted && entry.position == content.position + 1 {
                content.apply(&entry);
            }
        }
    }
    root.sleep(20.0);
    files::crash_point(root, "recovery.read");
    let _held = system::lock(root, &system.sid).map_err(told)?;
    volume.savepoint(root, &content, &[]).map_err(told)?;
    files::crash_point(root, "recovery.written");
    if name == "SYSTEMDB" {
        tenants(root, system, &topology)?;
    }
    let mut catalog = Catalog::load(root, system).map_err(told)?;
    let new = known
        .entries
        .into_iter()
        .filter(|entry| !catalog.entries.iter().any(|other| other.entry_id == entry.entry_id));
    let new: Vec<Entry> = new.collect();
    catalog.entries.extend(new);
    catalog.entries.sort_by_key(|entry| entry.entry_id);
    catalog.save(root, system).map_err(told)?;
    Ok(Reached { time: content.time, position: content.position })
}

/// A recovered SYSTEMDB knows the tenants of its backup; those that are new to the host are empty and stopped.
fn tenants(root: &Root, system: &System, topology: &Topology) -> Result<(), String> {
    let told = |halt: Halt| halt.said;
    let mut now = system::load(root, &system.sid).map_err(told)?.unwrap_or_else(|| system.clone());
    for tenant in &topology.tenants {
        if !now.tenants.iter().any(|known| known.name == tenant.name) {
            now.tenants.push(system::Tenant { active: false, ..tenant.clone() });
            let database = system::Database { name: tenant.name.clone(), volume: tenant.volume };
            Volume::of(root, &now, &database).savepoint(root, &Content::default(), &[]).map_err(told)?;
        }
    }
    now.save(root).map_err(told)
}

struct Source<'a> {
    root: &'a Root,
    system: &'a System,
    name: &'a str,
    request: &'a Request,
}

impl Source<'_> {
    /// The system whose backups these are.
    fn sid(&self) -> &str {
        self.request.source.as_ref().map_or(&self.system.sid, |(_, sid)| sid)
    }

    fn backint(&self, purpose: &'static str) -> Backint<'_> {
        Backint { root: self.root, system: self.system, database: self.name, of: self.sid(), purpose }
    }

    /// The backup with this prefix, from files.
    fn files(&self, prefix: &str) -> Result<(Content, Topology), String> {
        let path = PathBuf::from(prefix);
        let path = if path.is_absolute() {
            self.root.at(path)
        } else {
            backup::base(self.root, self.system, self.name, "data").join(path)
        };
        let read = |volume: u32| -> Result<Vec<u8>, String> {
            let file = format!("{}_databackup_{volume}_1", path.display());
            fs::read(&file).map_err(|error| format!("{file}: {error}"))
        };
        // A copy has the volumes of its source.
        let begins = format!("{}_databackup_", path.file_name().unwrap_or_default().to_string_lossy());
        let volume = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let volume = name.strip_prefix(&begins)?.strip_suffix("_1")?.parse::<u32>().ok()?;
            (volume > 0).then_some(volume)
        };
        let folder = path.parent().map(fs::read_dir).and_then(Result::ok);
        let volume = folder.and_then(|folder| folder.flatten().find_map(volume)).unwrap_or(1);
        let broken = || format!("the backup {prefix} is not readable");
        Ok((unseal(&read(volume)?).ok_or_else(broken)?, unseal(&read(0)?).ok_or_else(broken)?))
    }

    /// The newest complete backup before the instant, its logs, and the catalog that says so.
    fn by_catalog(&self, until: i64) -> Result<(Content, Topology, Catalog), String> {
        let catalog = self.catalog()?;
        let fits = |entry: &&Entry| {
            let wanted = self.request.backup_id.is_none_or(|id| entry.backup_id == id);
            entry.kind.ends_with("data backup")
                && entry.state == "successful"
                && wanted
                && entry.end.unwrap_or(i64::MAX) <= until
        };
        let chosen = catalog.of(self.name).filter(fits).max_by_key(|entry| entry.backup_id);
        let chosen = chosen.ok_or("no data backup was found that the recovery can begin with")?;
        let of_kind =
            |kind: &str| chosen.pieces.iter().filter(|piece| piece.kind == kind).collect::<Vec<_>>();
        let mut content: Content = self.read("data", &of_kind("volume"))?;
        let topology: Topology = self.read("data", &of_kind("topology"))?;
        let of_branch =
            |entry: &&Entry| entry.kind == "log backup" && entry.branch == content.branch && entry.last > 0;
        let mut logs: Vec<Entry> = catalog.of(self.name).filter(of_branch).cloned().collect();
        logs.sort_by_key(|entry| entry.first);
        for log in logs.iter().filter(|log| log.last > chosen.last) {
            if log.first > content.position + 1 {
                return Err(format!(
                    "log backups are missing: position {} was not found",
                    content.position + 1
                ));
            }
            let entries: Vec<database::Entry> = self.read("log", &log.pieces.iter().collect::<Vec<_>>())?;
            for entry in &entries {
                if entry.position <= content.position {
                    continue;
                }
                if entry.time > until {
                    return Ok((content, topology, catalog));
                }
                content.apply(entry);
            }
        }
        Ok((content, topology, catalog))
    }

    /// The newest catalog of the place that the statement names, else of the place that the parameters name.
    fn catalog(&self) -> Result<Catalog, String> {
        let default = || match backup::by_backint(self.system, self.name, "catalog") {
            true => Place::Backint,
            false => {
                Place::Path(backup::base(self.root, self.system, self.name, "catalog").display().to_string())
            }
        };
        let named;
        let place = match &self.request.catalog {
            Some(place) => place,
            None => {
                named = default();
                &named
            }
        };
        match place {
            Place::Backint => {
                let theirs = System { sid: self.sid().to_string(), ..self.system.clone() };
                let name = backint::folder(self.root, &theirs, self.name).join("log_backup_0_0_0_0");
                let name = name.display().to_string();
                let backint = self.backint("catalog");
                let id = backint.newest(&name)?.ok_or("no backup catalog was found by Backint")?;
                let bytes = backint.restore(&[(id, name)])?.concat();
                unseal(&bytes).ok_or_else(|| "the backup catalog of Backint is not readable".into())
            }
            Place::Path(folder) => {
                let folder = self.root.at(folder);
                let number = |entry: &fs::DirEntry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    name.strip_prefix("log_backup_0_0_0_0.").and_then(|id| id.parse::<i64>().ok())
                };
                let files =
                    fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                let newest = files.flatten().filter_map(|entry| Some((number(&entry)?, entry.path()))).max();
                let (_, path) =
                    newest.ok_or_else(|| format!("no backup catalog was found in {}", folder.display()))?;
                let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                unseal(&bytes).ok_or_else(|| format!("the backup catalog {} is not readable", path.display()))
            }
        }
    }

    /// Reads pieces that are one value together.
    fn read<T: DeserializeOwned>(&self, purpose: &'static str, pieces: &[&Piece]) -> Result<T, String> {
        let mut bytes = Vec::new();
        let by_backint = pieces.iter().any(|piece| piece.destination == "backint");
        if by_backint {
            let wanted: Vec<(String, String)> = pieces
                .iter()
                .map(|piece| (piece.ebid.clone().unwrap_or_default(), piece.path.clone()))
                .collect();
            bytes = self.backint(purpose).restore(&wanted)?.concat();
        } else {
            for piece in pieces {
                bytes.extend(self.read_file(purpose, piece)?);
            }
        }
        unseal(&bytes).ok_or_else(|| {
            let names: Vec<&str> = pieces.iter().map(|piece| piece.path.as_str()).collect();
            format!("the backup {} is not readable", names.join(", "))
        })
    }

    /// A file, from where the catalog says, or from the path of the statement.
    fn read_file(&self, purpose: &str, piece: &Piece) -> Result<Vec<u8>, String> {
        let own = PathBuf::from(&piece.path);
        let other = if purpose == "log" { &self.request.log_path } else { &self.request.data_path };
        let moved =
            other.as_ref().map(|folder| self.root.at(folder).join(own.file_name().unwrap_or_default()));
        let path = moved.filter(|path| path.exists()).unwrap_or(own);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// `hdbbackupcheck FILE`: is it whole? 0 and a line that says so, else 1.
pub(crate) fn check_file(root: &Root, arguments: &[String]) -> crate::halt::Ended {
    let Some(file) = arguments.iter().find(|argument| !argument.starts_with('-')) else {
        return Err(Halt::new(1, "Usage: hdbbackupcheck [-v] <backup file>"));
    };
    let text = fs::read_to_string(root.at(file)).unwrap_or_default();
    let whole = text.split_once('\n').is_some_and(|(head, body)| head == format!("HDBBACKUP {}", kept(body)));
    if whole {
        println!("Backup '{file}' successfully checked.");
        Ok(0)
    } else {
        Err(Halt::new(1, format!("ERROR: backup '{file}' is not valid")))
    }
}
