//! What a database leaves beside its data: free log segments, trace files, and its audit trail.
//!
//! A log backup frees a segment, which stays on the disk to be written again until it is reclaimed. Traces are the files
//! of the trace folder; which kind one is, its name says. CREATE, ALTER and DROP USER are audited, without the statement.

use crate::clock;
use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use crate::sql::SqlError;
use crate::sql::words::Cursor;
use crate::system::System;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a free segment; HANA's have a gigabyte.
const SEGMENT: usize = 1024;

fn log_folder(root: &Root, system: &System, volume: u32) -> PathBuf {
    root.at(&system.logpath).join(format!("mnt00001/hdb{volume:05}"))
}

fn volume(system: &System, database: &str) -> u32 {
    let found = system.databases().into_iter().find(|known| known.name == database);
    found.map_or(0, |database| database.volume)
}

/// A segment is free: its log was sent under this id.
pub(crate) fn freed(root: &Root, system: &System, database: &str, volume: u32, id: i64) -> Result<(), Halt> {
    debug_assert_eq!(self::volume(system, database), volume);
    let place = log_folder(root, system, volume).join(format!("logsegment_000_{id:08}.dat"));
    files::write(root, &place, &[0; SEGMENT])
}

fn names(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<_> =
        files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    names.sort();
    names
}

fn free(root: &Root, system: &System, database: &str) -> Vec<PathBuf> {
    let all = names(&log_folder(root, system, volume(system, database)));
    let segments =
        all.into_iter().filter(|(name, _)| name.starts_with("logsegment_000_") && name.ends_with(".dat"));
    segments.filter(|(name, _)| name != "logsegment_000_00000000.dat").map(|(_, path)| path).collect()
}

/// The rows of M_LOG_SEGMENTS.
pub(crate) fn segments(root: &Root, system: &System, database: &str) -> Vec<Vec<Value>> {
    let volume = volume(system, database);
    let current = log_folder(root, system, volume).join("logsegment_000_00000000.dat");
    let all = std::iter::once((current, "Writing"))
        .chain(free(root, system, database).into_iter().map(|path| (path, "Free")));
    let row = |(number, (path, state)): (usize, (PathBuf, &str))| {
        let size = fs::metadata(&path).map_or(0, |there| there.len());
        let used = if state == "Free" { 0 } else { size };
        let path = path.display().to_string();
        vec![
            json!(root.host()),
            json!(0),
            json!(volume),
            json!(0),
            json!(number),
            json!(path),
            json!(state),
            json!(used),
            json!(size),
        ]
    };
    all.enumerate().map(row).collect()
}

/// `ALTER SYSTEM RECLAIM LOG`.
pub(crate) fn reclaim(root: &Root, system: &System, database: &str) -> Result<(), Halt> {
    for path in free(root, system, database) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The folder of a database's traces.
fn trace_folder(root: &Root, system: &System, database: &str) -> PathBuf {
    let folder = system.instance(root).join(root.host()).join("trace");
    if database == "SYSTEMDB" { folder } else { folder.join(format!("DB_{database}")) }
}

/// When the file was changed last.
fn changed(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|there| there.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The rows of M_TRACEFILES.
pub(crate) fn traces(root: &Root, system: &System, database: &str) -> Vec<Vec<Value>> {
    let row = |(name, path): (String, PathBuf)| {
        let size = fs::metadata(&path).map_or(0, |there| there.len());
        vec![json!(root.host()), json!(name), json!(size), json!(clock::sql(changed(&path)))]
    };
    names(&trace_folder(root, system, database)).into_iter().map(row).collect()
}

/// Which kind of trace a file is, by its name. `*` are the other traces of services; any other file is none.
fn kind(name: &str) -> &'static str {
    match name {
        _ if name.contains("crashdump") => "CRASHDUMP",
        _ if name.contains("emergencydump") => "EMERGENCYDUMP",
        _ if name.contains("rtedump") => "RTEDUMP",
        _ if name.starts_with("sqltrace") => "SQLTRACE",
        _ if !name.ends_with(".trc") => "",
        _ if name.contains("alert") => "ALERT",
        _ if name.starts_with("localclient") => "CLIENT",
        _ if name.contains("unloads") => "UNLOAD",
        _ if name.contains("row_store_reorg") => "ROWSTOREREORG",
        _ if name.contains("expensive_statements") => "EXPENSIVESTATEMENT",
        _ => "*",
    }
}

/// Reads `('ALERT',…) [WITH BACKUP] [UNTIL '…']`.
pub(crate) fn kinds(cursor: &mut Cursor) -> Result<(Vec<String>, i64), SqlError> {
    const KNOWN: [&str; 10] = [
        "ALERT",
        "CLIENT",
        "CRASHDUMP",
        "EMERGENCYDUMP",
        "EXPENSIVESTATEMENT",
        "RTEDUMP",
        "UNLOAD",
        "ROWSTOREREORG",
        "SQLTRACE",
        "*",
    ];
    cursor.expect("(")?;
    let mut kinds = vec![cursor.text()?];
    while cursor.take(",") {
        kinds.push(cursor.text()?);
    }
    cursor.expect(")")?;
    let _kept = cursor.take("WITH BACKUP");
    let mut until = i64::MAX;
    if cursor.take("UNTIL") {
        let text = cursor.text()?;
        until = clock::parse(&text).ok_or_else(|| SqlError::syntax(&text))?;
    }
    cursor.end()?;
    match kinds.iter().find(|kind| !KNOWN.contains(&kind.as_str())) {
        Some(odd) => Err(SqlError::syntax(odd)),
        None => Ok((kinds, until)),
    }
}

/// `ALTER SYSTEM CLEAR TRACES`: the files of these kinds that were changed before the instant.
pub(crate) fn clear_traces(
    root: &Root,
    system: &System,
    database: &str,
    kinds: &[String],
    until: i64,
) -> Result<(), Halt> {
    for (name, path) in names(&trace_folder(root, system, database)) {
        if kinds.iter().any(|of| of == kind(&name)) && changed(&path) < until {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn trail(root: &Root, system: &System, database: &str) -> PathBuf {
    system.state(root, &format!("audit.{database}"))
}

/// Notes a change of a user: instant, who, and the first words of the statement, a line each.
pub(crate) fn audit(
    root: &Root,
    system: &System,
    database: &str,
    user: &str,
    statement: &str,
) -> Result<(), Halt> {
    let words: Vec<String> = statement.split_whitespace().take(2).map(str::to_uppercase).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [action @ ("CREATE" | "ALTER" | "DROP"), "USER"] => {
            let line = format!("{} {user} {action} USER\n", clock::now());
            files::append(root, &trail(root, system, database), line.as_bytes())
        }
        _ => Ok(()),
    }
}

/// The lines of the trail: instant, user, action.
fn lines(root: &Root, system: &System, database: &str) -> Vec<(i64, String, String)> {
    let text = fs::read_to_string(trail(root, system, database)).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        Some((words.next()?.parse().ok()?, words.next()?.to_owned(), words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// The rows of AUDIT_LOG.
pub(crate) fn audited(root: &Root, system: &System, database: &str) -> Vec<Vec<Value>> {
    let row = |(instant, user, action): (i64, String, String)| {
        vec![json!(clock::sql(instant)), json!(root.host()), json!(user), json!(action)]
    };
    lines(root, system, database).into_iter().map(row).collect()
}

/// `ALTER SYSTEM CLEAR AUDIT LOG UNTIL`.
pub(crate) fn clear_audit(root: &Root, system: &System, database: &str, until: i64) -> Result<(), Halt> {
    let kept = lines(root, system, database).into_iter().filter(|(instant, ..)| *instant >= until);
    let text: String = kept.map(|(instant, user, action)| format!("{instant} {user} {action}\n")).collect();
    files::write(root, &trail(root, system, database), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_kind_of_trace_it_is() {
        for (name, wanted) in [
            ("indexserver_h1.30003.000.trc", "*"),
            ("indexserver_h1.30003.crashdump.20261121-010203.trc", "CRASHDUMP"),
            ("indexserver_h1.30003.rtedump.20261121.trc", "RTEDUMP"),
            ("indexserver_alert_h1.trc", "ALERT"),
            ("localclient_17.trc", "CLIENT"),
            ("backup.log", ""),
        ] {
            assert_eq!(kind(name), wanted, "{name}");
        }
    }
}
