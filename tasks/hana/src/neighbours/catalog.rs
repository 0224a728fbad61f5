//! The backup catalog: what HANA itself knows of its backups. All of it is asked in SYSTEMDB.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::hdbsql::{Key, Row, literal, statement};
use crate::call::Call;
use crate::error::{Reading, quoted, unclear};
use crate::system::{System, Version};

const SOURCE: &str =
    "SAP HANA SQL and System Views Reference, M_BACKUP_CATALOG; sapagent internal/onetime/hanadiskbackup";

/// The columns of [`databases`].
pub const DATABASES: [&str; 2] = ["DATABASE_NAME", "ACTIVE_STATUS"];
/// The columns of [`entries`].
pub const ENTRIES: [&str; 6] =
    ["DATABASE_NAME", "BACKUP_ID", "ENTRY_TYPE_NAME", "STATE_NAME", "UTC_START_TIME", "UTC_END_TIME"];
/// The columns of [`parts`].
pub const PARTS: [&str; 4] =
    ["DESTINATION_TYPE_NAME", "DESTINATION_PATH", "BACKUP_SIZE", "EXTERNAL_BACKUP_ID"];
/// Most entries that one query returns. When there are as many, some may be missing, and nothing is certain.
pub const MAX_ENTRIES: usize = 5000;

/// The databases of the system.
pub fn databases(system: &System, key: &Key) -> Call {
    let sql = "SELECT DATABASE_NAME, ACTIVE_STATUS FROM SYS.M_DATABASES ORDER BY DATABASE_NAME";
    statement(
        system,
        key,
        "list the databases",
        "SAP HANA SQL and System Views Reference, M_DATABASES",
        sql.to_owned(),
    )
}

/// Whether the license is valid.
pub fn license(system: &System, key: &Key) -> Call {
    let sql = "SELECT VALID FROM SYS.M_LICENSE".to_owned();
    statement(system, key, "ask for the license", "SAP HANA SQL and System Views Reference, M_LICENSE", sql)
}

/// Reads the row of [`license`].
pub fn read_license(rows: &[Row]) -> Reading<bool> {
    let [row] = rows else { return unclear(format!("M_LICENSE has {} rows", rows.len())) };
    match cells(row)? {
        ["TRUE"] => Ok(true),
        ["FALSE"] => Ok(false),
        [other] => unclear(format!("VALID is {}", quoted(other))),
    }
}

/// How far back log backups are read: they are many, and only the newest ones say whether they succeed.
const LOGS: Duration = Duration::from_secs(2 * 3600);

/// The rows of SYSTEMDB and of the tenants together, without an order. Connected to SYSTEMDB, `SYS` has its own
/// catalog, and `SYS_DATABASES` that of the tenants; whether it has that of SYSTEMDB too makes no difference.
fn of_all(columns: &[&str], view: &str, condition: &str) -> String {
    let columns = columns.join(", ");
    let mine = columns.replacen("DATABASE_NAME", "'SYSTEMDB' AS DATABASE_NAME", 1);
    format!(
        "SELECT {mine} FROM SYS.{view} WHERE {condition} UNION ALL SELECT {columns} FROM SYS_DATABASES.{view} WHERE \
         DATABASE_NAME <> 'SYSTEMDB' AND ({condition})"
    )
}

/// The rows of one database.
fn of_one(columns: &[&str], view: &str, database: &Database, condition: &str) -> String {
    let columns = columns.join(", ");
    if database.is_system() {
        let columns = columns.replacen("DATABASE_NAME", "'SYSTEMDB' AS DATABASE_NAME", 1);
        return format!("SELECT {columns} FROM SYS.{view} WHERE {condition}");
    }
    let name = literal(database.as_str());
    format!("SELECT {columns} FROM SYS_DATABASES.{view} WHERE DATABASE_NAME = {name} AND {condition}")
}

/// The entries of all databases: those that began after `since`, log backups of the last two hours only, and all
/// that have not ended.
pub fn entries(system: &System, key: &Key, since: Timestamp, now: Timestamp) -> Call {
    let recent = now.checked_sub(LOGS).unwrap_or(now).as_millisecond();
    let condition = format!(
        "(BACKUP_ID >= {} AND ENTRY_TYPE_NAME <> 'log backup') OR BACKUP_ID >= {recent} OR STATE_NAME IN ('running', \
         'prepared', 'cancel pending')",
        since.as_millisecond()
    );
    let rows = of_all(&ENTRIES, "M_BACKUP_CATALOG", &condition);
    let sql = format!("SELECT * FROM ({rows}) ORDER BY BACKUP_ID LIMIT {MAX_ENTRIES}");
    statement(system, key, "read the backup catalog", SOURCE, sql)
}

/// The entries of one database with exactly this comment.
pub fn commented(system: &System, key: &Key, database: &Database, comment: &str) -> Call {
    let rows = of_one(&ENTRIES, "M_BACKUP_CATALOG", database, &format!("COMMENT = {}", literal(comment)));
    let sql = format!("{rows} ORDER BY BACKUP_ID LIMIT {MAX_ENTRIES}");
    statement(system, key, "find the backup of this run in the catalog", SOURCE, sql)
}

/// The parts of a backup.
pub fn parts(system: &System, key: &Key, database: &Database, backup: u64) -> Call {
    let rows = of_one(&PARTS, "M_BACKUP_CATALOG_FILES", database, &format!("BACKUP_ID = {backup}"));
    let sql = format!("{rows} ORDER BY DESTINATION_PATH LIMIT {MAX_ENTRIES}");
    statement(system, key, "list the parts of the backup", SOURCE, sql)
}

/// The complete data backups of one database that succeeded.
pub fn complete(system: &System, key: &Key, database: &Database) -> Call {
    let condition = "ENTRY_TYPE_NAME = 'complete data backup' AND STATE_NAME = 'successful'";
    let rows = of_one(&ENTRIES, "M_BACKUP_CATALOG", database, condition);
    let sql = format!("{rows} ORDER BY BACKUP_ID LIMIT {MAX_ENTRIES}");
    statement(system, key, "list the complete backups of the database", SOURCE, sql)
}

/// The entries of one database from that backup on.
pub fn since(system: &System, key: &Key, database: &Database, backup: u64) -> Call {
    let rows = of_one(&ENTRIES, "M_BACKUP_CATALOG", database, &format!("BACKUP_ID >= {backup}"));
    let sql = format!("{rows} ORDER BY BACKUP_ID LIMIT {MAX_ENTRIES}");
    statement(system, key, "list what was backed up since", SOURCE, sql)
}

/// The columns of [`pieces`].
pub const PIECES: [&str; 5] =
    ["BACKUP_ID", "DESTINATION_TYPE_NAME", "DESTINATION_PATH", "BACKUP_SIZE", "EXTERNAL_BACKUP_ID"];

/// The parts of all backups of one database from that backup on.
pub fn pieces(system: &System, key: &Key, database: &Database, backup: u64) -> Call {
    let rows = of_one(&PIECES, "M_BACKUP_CATALOG_FILES", database, &format!("BACKUP_ID >= {backup}"));
    let sql = format!("{rows} ORDER BY BACKUP_ID LIMIT {MAX_ENTRIES}");
    statement(system, key, "list the parts of what was backed up since", SOURCE, sql)
}

/// Reads the rows of [`pieces`]: the id of the backup, and the part.
pub fn read_pieces(rows: &[Row]) -> Reading<Vec<(u64, Part)>> {
    let mut pieces = Vec::new();
    for row in rows {
        let Some((Some(id), rest)) = row.split_first() else { return unclear("a part without its backup") };
        let id = id.parse().or_else(|_| unclear(format!("the backup id {}", quoted(id))))?;
        let part = read_parts(&[rest.to_vec()])?.pop();
        pieces.extend(part.map(|part| (id, part)));
    }
    if pieces.len() >= MAX_ENTRIES {
        return unclear(format!("the backups have {MAX_ENTRIES} or more parts in this time"));
    }
    Ok(pieces)
}

/// Deletes all backups of a database before that data backup, from the catalog and from where they are.
pub fn delete_before(
    system: &System,
    key: &Key,
    database: &Database,
    backup: u64,
    timeout: Duration,
) -> Call {
    let target = if database.is_system() { String::new() } else { format!(" FOR {}", database.as_str()) };
    let sql = format!("BACKUP CATALOG DELETE{target} ALL BEFORE BACKUP_ID {backup} COMPLETE");
    let source = "SAP HANA SQL and System Views Reference, BACKUP CATALOG DELETE";
    statement(system, key, "delete the backups before the oldest that is kept", source, sql).within(timeout)
}

/// The column of [`before`].
pub const COUNT: [&str; 1] = ["ENTRY_COUNT"];

/// How many entries of a database are older than that backup.
pub fn before(system: &System, key: &Key, database: &Database, backup: u64) -> Call {
    let condition = format!("BACKUP_ID < {backup}");
    let sql = of_one(&["COUNT(*) AS ENTRY_COUNT"], "M_BACKUP_CATALOG", database, &condition);
    statement(system, key, "count the entries that would go", SOURCE, sql)
}

/// Reads the row of [`before`].
pub fn read_count(rows: &[Row]) -> Reading<usize> {
    let [row] = rows else { return unclear(format!("a count has {} rows", rows.len())) };
    let [count] = cells(row)?;
    count.parse().or_else(|_| unclear(format!("the count {}", quoted(count))))
}

/// The column of [`parameter`].
pub const PARAMETER: [&str; 1] = ["VALUE"];

/// The value of a parameter in global.ini for the whole system; no row where the default holds.
pub fn parameter(system: &System, key: &Key, section: &str, name: &str) -> Call {
    parameter_of(system, key, "global.ini", section, name)
}

/// The same of any file with parameters.
pub fn parameter_of(system: &System, key: &Key, file: &str, section: &str, name: &str) -> Call {
    let sql = format!(
        "SELECT VALUE FROM SYS.M_INIFILE_CONTENTS WHERE FILE_NAME = {} AND LAYER_NAME = 'SYSTEM' AND SECTION = {} AND \
         KEY = {}",
        literal(file),
        literal(section),
        literal(name)
    );
    let source = "SAP HANA SQL and System Views Reference, M_INIFILE_CONTENTS";
    statement(system, key, "read a parameter", source, sql)
}

/// Reads the row of [`parameter`].
pub fn read_parameter(rows: &[Row]) -> Reading<Option<String>> {
    match rows {
        [] => Ok(None),
        [row] => {
            let [value] = cells(row)?;
            Ok(Some(value.to_owned()))
        }
        rows => unclear(format!("the parameter has {} values", rows.len())),
    }
}

/// The columns of [`identity`].
pub const IDENTITY: [&str; 3] = ["SYSTEM_ID", "HOST", "VERSION"];

/// Which system answers behind a key, on which host and in which version.
pub fn identity(system: &System, key: &Key) -> Call {
    let sql = "SELECT SYSTEM_ID, HOST, VERSION FROM SYS.M_DATABASE".to_owned();
    let source = "SAP HANA SQL and System Views Reference, M_DATABASE";
    statement(system, key, "ask which system answers", source, sql)
}

/// Which system answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub sid: String,
    /// Its host.
    pub host: String,
    /// Its version.
    pub version: Version,
}

/// Reads the row of [`identity`].
pub fn read_identity(rows: &[Row]) -> Reading<Identity> {
    let [row] = rows else { return unclear(format!("M_DATABASE has {} rows", rows.len())) };
    let [sid, host, version] = cells(row)?;
    Ok(Identity { sid: sid.to_owned(), host: host.to_owned(), version: Version::read(version)? })
}

/// The columns of [`secondaries`].
pub const SECONDARIES: [&str; 4] =
    ["DATABASE_NAME", "SECONDARY_HOST", "REPLICATION_STATUS", "SECONDARY_FULLY_RECOVERABLE"];

/// How far each service of each database has come on its secondaries; asked on the primary.
pub fn secondaries(system: &System, key: &Key) -> Call {
    let rows = of_all(&SECONDARIES, "M_SERVICE_REPLICATION", "1 = 1");
    let source = "SAP HANA SQL and System Views Reference, M_SERVICE_REPLICATION";
    statement(system, key, "ask the primary how far its secondaries are", source, rows)
}

/// A service on a secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Whose service.
    pub database: Database,
    /// The host of the secondary.
    pub host: String,
    /// Whether it follows.
    pub active: bool,
    /// Whether the secondary could take over with it.
    pub recoverable: bool,
}

/// Reads the rows of [`secondaries`].
pub fn read_secondaries(rows: &[Row]) -> Reading<Vec<Follower>> {
    let mut followers = Vec::new();
    for row in rows {
        let [database, host, status, recoverable] = cells(row)?;
        let database =
            database.parse().or_else(|why| unclear(format!("the database {}: {why}", quoted(database))))?;
        let active = match status {
            "ACTIVE" => true,
            "ERROR" | "UNKNOWN" | "INITIALIZING" | "SYNCING" => false,
            other => return unclear(format!("REPLICATION_STATUS is {}", quoted(other))),
        };
        let recoverable = match recoverable {
            "TRUE" => true,
            "FALSE" => false,
            other => return unclear(format!("SECONDARY_FULLY_RECOVERABLE is {}", quoted(other))),
        };
        followers.push(Follower { database, host: host.to_owned(), active, recoverable });
    }
    Ok(followers)
}

/// The name of a database: SYSTEMDB or a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Database(String);

impl Database {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SYSTEMDB.
    pub fn system() -> Self {
        Self("SYSTEMDB".to_owned())
    }

    /// Whether it is SYSTEMDB.
    pub fn is_system(&self) -> bool {
        self.0 == "SYSTEMDB"
    }
}

impl std::str::FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        if text.len() > 127 || !begins || !text.bytes().all(letter) {
            return Err("the name of a database is capital letters, digits and underscores".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// What an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `complete data backup`
    Complete,
    /// `incremental data backup`
    Incremental,
    /// `differential data backup`
    Differential,
    /// `log backup`
    Log,
    /// `data snapshot`
    Snapshot,
    /// `log missing`: the database itself says that its log has a gap.
    LogMissing,
    /// Any other, such as a recovery: no backup.
    Other,
}

/// The documented states of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Successful,
    /// It is being made.
    Running,
    /// It does not count.
    Failed,
    /// A snapshot that waits for its end.
    Prepared,
    /// It does not count.
    Canceled,
    /// It is being cancelled.
    CancelPending,
}

/// An entry of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub database: Database,
    /// Its id, milliseconds since 1970.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// How far it is.
    pub state: State,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended; `None` while it runs.
    pub ended: Option<Timestamp>,
}

/// Reads the rows of [`databases`]: each name, and whether it is active.
pub fn read_databases(rows: &[Row]) -> Reading<Vec<(Database, bool)>> {
    let mut found = Vec::new();
    for row in rows {
        let [name, active] = cells(row)?;
        let name = name.parse().or_else(|why| unclear(format!("the database {}: {why}", quoted(name))))?;
        let active = match active {
            "YES" => true,
            "NO" => false,
            other => return unclear(format!("ACTIVE_STATUS is {}", quoted(other))),
        };
        found.push((name, active));
    }
    // Without SYSTEMDB it is not the list of M_DATABASES as seen from SYSTEMDB.
    if !found.iter().any(|(name, _): &(Database, bool)| name.is_system()) {
        return unclear("M_DATABASES does not list SYSTEMDB: the key must log on to SYSTEMDB");
    }
    Ok(found)
}

/// Reads the rows of [`entries`] and [`commented`].
pub fn read_entries(rows: &[Row]) -> Reading<Vec<Entry>> {
    if rows.len() >= MAX_ENTRIES {
        return unclear(format!("the catalog has {MAX_ENTRIES} or more entries in this time"));
    }
    rows.iter().map(read_entry).collect()
}

fn read_entry(row: &Row) -> Reading<Entry> {
    let [head @ .., end] = row.as_slice() else { return unclear("an empty row") };
    let [database, id, kind, state, begun] = cells(head)?;
    let kind = match kind {
        "complete data backup" => Kind::Complete,
        "incremental data backup" => Kind::Incremental,
        "differential data backup" => Kind::Differential,
        "log backup" => Kind::Log,
        "data snapshot" => Kind::Snapshot,
        "log missing" => Kind::LogMissing,
        _ => Kind::Other,
    };
    let state = match state {
        "successful" => State::Successful,
        "running" => State::Running,
        "failed" => State::Failed,
        "prepared" => State::Prepared,
        "canceled" => State::Canceled,
        "cancel pending" => State::CancelPending,
        other => return unclear(format!("a backup is in the state {}", quoted(other))),
    };
    Ok(Entry {
        database: database
            .parse()
            .or_else(|why| unclear(format!("the database {}: {why}", quoted(database))))?,
        id: id.parse().or_else(|_| unclear(format!("the backup id {}", quoted(id))))?,
        kind,
        state,
        begun: time(begun)?,
        ended: end.as_deref().filter(|text| !text.is_empty()).map(time).transpose()?,
    })
}

/// A part of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub place: Place,
    /// Its bytes.
    pub size: u64,
}

/// Where a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file with this path.
    File(String),
    /// In the hands of Backint, under this name and id.
    Backint {
        /// The path that HANA names it by.
        name: String,
        /// The id that Backint gave it.
        id: String,
    },
}

/// Reads the rows of [`parts`].
pub fn read_parts(rows: &[Row]) -> Reading<Vec<Part>> {
    if rows.len() >= MAX_ENTRIES {
        return unclear(format!("the backup has {MAX_ENTRIES} or more parts"));
    }
    let mut parts = Vec::new();
    for row in rows {
        let [head @ .., id] = row.as_slice() else { return unclear("an empty row") };
        let [kind, path, size] = cells(head)?;
        let size = size.parse().or_else(|_| unclear(format!("the size {}", quoted(size))))?;
        let place = match (kind, id) {
            ("file", _) => Place::File(path.to_owned()),
            ("backint", Some(id)) => Place::Backint { name: path.to_owned(), id: id.clone() },
            _ => return unclear(format!("a part is at {}", quoted(kind))),
        };
        parts.push(Part { place, size });
    }
    Ok(parts)
}

fn cells<const COUNT: usize>(row: &[Option<String>]) -> Reading<[&str; COUNT]> {
    let values: Vec<_> = row.iter().filter_map(|cell| cell.as_deref()).collect();
    if row.len() != COUNT {
        return unclear(format!("a row of {} cells and not {COUNT}", row.len()));
    }
    values.try_into().or_else(|_| unclear("a cell is NULL that has a value always"))
}

/// `2026-11-21 01:02:03.123000000`, in UTC.
fn time(text: &str) -> Reading<Timestamp> {
    let parsed: Result<DateTime, _> = text.trim().parse();
    match parsed.and_then(|time| time.to_zoned(TimeZone::UTC)) {
        Ok(time) => Ok(time.timestamp()),
        Err(_) => unclear(format!("the time {}", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hdbsql::table;
    use super::*;

    fn entries_of(text: &str) -> Reading<Vec<Entry>> {
        read_entries(&table(&format!("{}\n{text}", ENTRIES.join(",")), &ENTRIES)?)
    }

    #[test]
    fn entries_of_every_kind_and_state() {
        for (name, kind) in [
            ("complete data backup", Kind::Complete),
            ("incremental data backup", Kind::Incremental),
            ("differential data backup", Kind::Differential),
            ("log backup", Kind::Log),
            ("data snapshot", Kind::Snapshot),
            ("log missing", Kind::LogMissing),
            ("data recovery", Kind::Other),
        ] {
            for (word, state) in [
                ("successful", State::Successful),
                ("running", State::Running),
                ("failed", State::Failed),
                ("prepared", State::Prepared),
                ("canceled", State::Canceled),
                ("cancel pending", State::CancelPending),
            ] {
                let line = format!(
                    "\"HDB\",1700000000123,\"{name}\",\"{word}\",\"2026-11-21 01:02:03.123000000\",?\n"
                );
                let read = entries_of(&line).unwrap();
                assert_eq!((read[0].kind, read[0].state, read[0].ended), (kind, state, None));
                assert_eq!(read[0].begun.to_string(), "2026-11-21T01:02:03.123Z");
            }
        }
        let good =
            "\"HDB\",17,\"log backup\",\"successful\",\"2026-11-21 01:02:03\",\"2026-11-21 01:02:04\"\n";
        assert!(entries_of(good).unwrap()[0].ended.is_some());
        for (from, to) in [
            ("17", "x"),
            ("17", "-1"),
            ("successful", "done"),
            ("01:02:03", "yesterday"),
            ("\"HDB\"", "?"),
            ("HDB", "a b"),
        ] {
            assert!(entries_of(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(entries_of(&good.repeat(MAX_ENTRIES)).is_err());
    }

    #[test]
    fn databases_and_parts() {
        let rows = |text: &str| table(&format!("DATABASE_NAME,ACTIVE_STATUS\n{text}"), &DATABASES).unwrap();
        let found = read_databases(&rows("\"HDB\",\"YES\"\n\"OLD\",\"NO\"\n\"SYSTEMDB\",\"YES\"\n")).unwrap();
        assert_eq!(found.iter().filter(|(_, active)| *active).count(), 2);
        assert!(read_databases(&rows("\"HDB\",\"YES\"\n")).is_err(), "a tenant's own view");
        assert!(read_databases(&rows("\"SYSTEMDB\",\"STARTING\"\n")).is_err());
        let parts = |text: &str| read_parts(&table(&format!("{}\n{text}", PARTS.join(",")), &PARTS).unwrap());
        let two = parts("\"file\",\"/b/x_databackup_1_1\",4096,?\n\"backint\",\"/b/y\",1,\"e1\"\n").unwrap();
        assert_eq!(two[0], Part { place: Place::File("/b/x_databackup_1_1".to_owned()), size: 4096 });
        assert_eq!(two[1].place, Place::Backint { name: "/b/y".to_owned(), id: "e1".to_owned() });
        assert!(parts("\"tape\",\"/b/x\",1,?\n").is_err());
        assert!(parts("\"backint\",\"/b/x\",1,?\n").is_err());
        assert!(parts("\"file\",\"/b/x\",-1,?\n").is_err());
    }

    #[test]
    fn pieces_parameters_and_who_answers() {
        let of =
            |columns: &[&str], text: &str| table(&format!("{}\n{text}", columns.join(",")), columns).unwrap();
        let pieces =
            read_pieces(&of(&PIECES, "17,\"file\",\"/b/x\",1,?\n18,\"backint\",\"/b/y\",2,\"e\"\n")).unwrap();
        assert_eq!(pieces.iter().map(|(id, part)| (*id, part.size)).collect::<Vec<_>>(), [(17, 1), (18, 2)]);
        assert!(read_pieces(&of(&PIECES, "?,\"file\",\"/b/x\",1,?\n")).is_err());
        assert!(read_pieces(&of(&PIECES, "x,\"file\",\"/b/x\",1,?\n")).is_err());
        assert_eq!(read_parameter(&[]), Ok(None));
        assert_eq!(read_parameter(&of(&PARAMETER, "\"/etc/x\"\n")), Ok(Some("/etc/x".to_owned())));
        assert!(read_parameter(&of(&PARAMETER, "\"a\"\n\"b\"\n")).is_err());
        let who = read_identity(&of(&IDENTITY, "\"HDB\",\"east1\",\"2.00.077.00.17\"\n")).unwrap();
        assert_eq!((who.host.as_str(), who.version), ("east1", "2.00.077.00".parse().unwrap()));
        assert!(read_identity(&[]).is_err());
        let follows = |text: &str| read_secondaries(&of(&SECONDARIES, text));
        let one = follows("\"HDB\",\"west1\",\"ACTIVE\",\"TRUE\"\n").unwrap();
        assert!(one[0].active && one[0].recoverable);
        assert!(!follows("\"HDB\",\"west1\",\"SYNCING\",\"FALSE\"\n").unwrap()[0].active);
        assert!(follows("\"HDB\",\"west1\",\"GOOD\",\"TRUE\"\n").is_err());
        assert!(follows("\"HDB\",\"west1\",\"ACTIVE\",\"YES\"\n").is_err());
    }

    #[test]
    fn licenses() {
        let read = |text: &str| read_license(&table(&format!("VALID\n{text}"), &["VALID"]).unwrap());
        assert_eq!(read("\"TRUE\"\n"), Ok(true));
        assert_eq!(read("\"FALSE\"\n"), Ok(false));
        for odd in ["", "\"YES\"\n", "?\n", "\"TRUE\"\n\"FALSE\"\n"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn names_of_databases() {
        for good in ["HDB", "SYSTEMDB", "A_1"] {
            assert!(good.parse::<Database>().is_ok());
        }
        for bad in ["", "hdb", "1A", "A-B", "A'B", "A B", "A;B"] {
            assert!(bad.parse::<Database>().is_err());
        }
    }
}
