//! Statements of administration: parameters, tenants, backups, recovery.

use crate::backint::{Backint, folder};
use crate::backup::{self, Job};
use crate::catalog::{Catalog, Entry, Piece};
use crate::clock;
use crate::database::{Content, Volume, kept};
use crate::files;
use crate::leftovers;
use crate::recovery::{self, bracketed};
use crate::scripts;
use crate::session::Session;
use crate::sql::words::{Cursor, Word};
use crate::sql::{Answer, SqlError};
use crate::system::{self, Database, System, Tenant};

/// Carries out a statement of administration; `None`: it is none.
pub(crate) fn carry_out(
    session: &Session,
    system: &System,
    cursor: &mut Cursor,
) -> Result<Option<Answer>, SqlError> {
    if cursor.take("ALTER SYSTEM ALTER CONFIGURATION") {
        configure(session, cursor)?;
    } else if cursor.take("CREATE DATABASE") {
        create_database(session, system, cursor)?;
    } else if cursor.take("DROP DATABASE") {
        let name = tenant(session, system, cursor)?;
        if system.tenants.iter().any(|tenant| tenant.name == name && tenant.active) {
            return Err(SqlError::new(
                2,
                format!("general error: database {name} is running: stop it first"),
            ));
        }
        system::change(&session.root, &session.sid, |system| {
            system.tenants.retain(|tenant| tenant.name != name);
        })?;
    } else if cursor.take("BACKUP DATA") {
        back_up(session, system, cursor)?;
    } else if cursor.take("BACKUP CATALOG DELETE") {
        delete(session, system, cursor)?;
    } else if cursor.take("RECOVER") {
        recover(session, system, cursor)?;
    } else if cursor.take("ALTER SYSTEM START DATABASE") {
        activate(session, system, cursor, true)?;
    } else if cursor.take("ALTER SYSTEM STOP DATABASE") {
        activate(session, system, cursor, false)?;
    } else if cursor.take("ALTER SYSTEM RECLAIM LOG") {
        cursor.end()?;
        leftovers::reclaim(&session.root, system, &session.database)?;
    } else if cursor.take("ALTER SYSTEM CLEAR TRACES") {
        let (kinds, until) = leftovers::kinds(cursor)?;
        leftovers::clear_traces(&session.root, system, &session.database, &kinds, until)?;
    } else if cursor.take("ALTER SYSTEM CLEAR AUDIT LOG UNTIL") {
        let text = cursor.text()?;
        cursor.end()?;
        let until = clock::parse(&text).ok_or_else(|| SqlError::syntax(&text))?;
        leftovers::clear_audit(&session.root, system, &session.database, until)?;
    } else {
        return Ok(None);
    }
    Ok(Some(Answer::Changed(0)))
}

/// The name of a tenant; only SYSTEMDB knows them.
fn tenant(session: &Session, system: &System, cursor: &mut Cursor) -> Result<String, SqlError> {
    let name = cursor.name()?;
    let known = system.tenants.iter().any(|tenant| tenant.name == name);
    if session.database != "SYSTEMDB" {
        return Err(SqlError::new(258, "insufficient privilege: Not authorized"));
    }
    if !known {
        return Err(SqlError::new(2, format!("general error: database {name} does not exist")));
    }
    Ok(name)
}

fn activate(session: &Session, system: &System, cursor: &mut Cursor, active: bool) -> Result<(), SqlError> {
    let name = tenant(session, system, cursor)?;
    let _at_once = cursor.take("IMMEDIATE");
    cursor.end()?;
    session.root.sleep(1.0);
    Ok(scripts::activate(&session.root, &session.sid, &name, active)?)
}

fn create_database(session: &Session, system: &System, cursor: &mut Cursor) -> Result<(), SqlError> {
    let name = cursor.name()?;
    while cursor.take("ADD") {
        cursor.text()?;
    }
    cursor.expect("SYSTEM USER PASSWORD")?;
    let password = match cursor.next() {
        Some(Word::Quoted(password)) => password,
        _ => return Err(cursor.wrong()),
    };
    cursor.end()?;
    if system.databases().iter().any(|database| database.name == name) {
        return Err(SqlError::new(2, format!("general error: database {name} exists")));
    }
    let volume = system.databases().iter().map(|database| database.volume).max().unwrap_or(1) + 1;
    fresh(session, system, &name, volume, &password)?;
    files::crash_point(&session.root, "database.volume-made");
    system::change(&session.root, &session.sid, |system| {
        system.tenants.push(Tenant { name: name.clone(), volume, active: true });
    })?;
    Ok(())
}

fn fresh(
    session: &Session,
    system: &System,
    name: &str,
    volume: u32,
    password: &str,
) -> Result<(), SqlError> {
    let database = Database { name: name.to_string(), volume };
    let mut content = Content::default();
    content.users.insert("SYSTEM".into(), kept(password));
    Volume::of(&session.root, system, &database).savepoint(&session.root, &content, &[])?;
    Ok(())
}

/// `('global.ini','SYSTEM') SET ('section','key')='value', … [COMMENT '…'] [WITH RECONFIGURE]`, or UNSET.
fn configure(session: &Session, cursor: &mut Cursor) -> Result<(), SqlError> {
    cursor.expect("(")?;
    let file = cursor.text()?;
    cursor.expect(",")?;
    let mut layer = cursor.text()?.to_uppercase();
    if cursor.take(",") {
        layer = format!("{layer}:{}", cursor.text()?);
    }
    cursor.expect(")")?;
    let set = cursor.take("SET");
    if !set {
        cursor.expect("UNSET")?;
    }
    let mut changes = Vec::new();
    loop {
        cursor.expect("(")?;
        let section = cursor.text()?;
        cursor.expect(",")?;
        let key = cursor.text()?;
        cursor.expect(")")?;
        let value = if set {
            cursor.expect("=")?;
            Some(cursor.text()?)
        } else {
            None
        };
        changes.push((format!("{file}/{layer}/{section}/{key}"), value));
        if !cursor.take(",") {
            break;
        }
    }
    if cursor.take("COMMENT") {
        cursor.text()?;
    }
    let _at_once = cursor.take("WITH RECONFIGURE");
    cursor.end()?;
    system::change(&session.root, &session.sid, |system| {
        for (path, value) in changes {
            match value {
                Some(value) => system.ini.insert(path, value),
                None => system.ini.remove(&path),
            };
        }
    })?;
    files::crash_point(&session.root, "configuration.set");
    Ok(())
}

fn failed(text: impl std::fmt::Display) -> SqlError {
    SqlError::new(447, format!("backup could not be completed: {text}"))
}

/// Which databases a statement means: `FOR FULL SYSTEM` all that are active, `FOR X` one, nothing the session's own.
fn meant(session: &Session, system: &System, cursor: &mut Cursor) -> Result<Vec<String>, SqlError> {
    if !cursor.take("FOR") {
        return Ok(vec![session.database.clone()]);
    }
    if session.database != "SYSTEMDB" {
        return Err(SqlError::new(258, "insufficient privilege: Not authorized"));
    }
    if cursor.take("FULL SYSTEM") {
        let active = system.tenants.iter().filter(|tenant| tenant.active).map(|tenant| tenant.name.clone());
        return Ok(std::iter::once("SYSTEMDB".to_string()).chain(active).collect());
    }
    let name = cursor.name()?;
    if !system.databases().iter().any(|database| database.name == name) {
        return Err(failed(format!("database {name} does not exist")));
    }
    Ok(vec![name])
}

/// `BACKUP DATA …`, to files, Backint, or as a snapshot.
fn back_up(session: &Session, system: &System, cursor: &mut Cursor) -> Result<(), SqlError> {
    let level = match () {
        () if cursor.take("INCREMENTAL") => "INCREMENTAL",
        () if cursor.take("DIFFERENTIAL") => "DIFFERENTIAL",
        () => "COMPLETE",
    };
    let names = meant(session, system, cursor)?;
    if cursor.take("CREATE SNAPSHOT") {
        let comment = if cursor.take("COMMENT") { cursor.text()? } else { String::new() };
        cursor.end()?;
        return snapshot(session, system, &names, &comment);
    }
    if cursor.take("CLOSE SNAPSHOT BACKUP_ID") {
        let id = i64::try_from(cursor.number()?).unwrap_or(0);
        let good = cursor.take("SUCCESSFUL");
        if !good {
            cursor.expect("UNSUCCESSFUL")?;
        }
        let note = cursor.text()?;
        cursor.end()?;
        return close_snapshot(session, system, id, good, &note);
    }
    cursor.expect("USING")?;
    let by_backint = cursor.take("BACKINT");
    if !by_backint {
        cursor.expect("FILE")?;
    }
    let prefix = bracketed(cursor)?;
    let asynchronous = cursor.take("ASYNCHRONOUS");
    let option = if cursor.take("TOOLOPTION") { cursor.text()? } else { String::new() };
    let comment = if cursor.take("COMMENT") { cursor.text()? } else { String::new() };
    cursor.end()?;
    if option.len() > 512 {
        return Err(failed("[3] the tool option is longer than 512 bytes"));
    }
    let mut children = Vec::new();
    for name in names {
        let prefix = place(session, system, &name, &prefix, by_backint)?;
        let mut job = Job {
            sid: session.sid.clone(),
            database: name,
            entry_id: 0,
            level: level.into(),
            backint: by_backint,
            prefix,
            option: option.clone(),
        };
        let mut child = backup::begin(&session.root, system, &mut job, &comment).map_err(failed)?;
        if asynchronous {
            continue;
        }
        let status = child.wait().map_err(failed)?;
        children.push((job.entry_id, status.success()));
    }
    if let Some((id, _)) = children.into_iter().find(|(_, good)| !good) {
        let catalog = Catalog::load(&session.root, system)?;
        let entry = catalog.entries.iter().find(|entry| entry.entry_id == id);
        let text = entry.map(|entry| entry.message.clone()).filter(|text| !text.is_empty());
        return Err(failed(text.unwrap_or_else(|| "the service was stopped".into())));
    }
    Ok(())
}

/// The full path of a prefix.
fn place(
    session: &Session,
    system: &System,
    name: &str,
    prefix: &str,
    by_backint: bool,
) -> Result<String, SqlError> {
    let path = std::path::Path::new(prefix);
    let default = match by_backint {
        true => folder(&session.root, system, name),
        false => backup::base(&session.root, system, name, "data"),
    };
    let full = if path.is_absolute() { session.root.at(path) } else { default.join(path) };
    if by_backint && !full.starts_with(&default) {
        let text = format!(
            "[110091] Invalid path selection for data backup using backint: {prefix} must be below {}",
            default.display()
        );
        return Err(failed(text));
    }
    Ok(full.display().to_string())
}

fn snapshot(session: &Session, system: &System, names: &[String], comment: &str) -> Result<(), SqlError> {
    let _held = system::lock(&session.root, &session.sid)?;
    let mut catalog = Catalog::load(&session.root, system)?;
    if catalog.entries.iter().any(|entry| entry.state == "prepared") {
        return Err(failed("[4] a prepared snapshot exists: close it first"));
    }
    let id = catalog.free_id();
    for (name, place) in names.iter().zip(0..) {
        let begun = Entry::begun(id + place, id, name, "data snapshot", "prepared");
        catalog.entries.push(Entry { comment: comment.into(), ..begun });
    }
    catalog.save(&session.root, system)?;
    files::crash_point(&session.root, "snapshot.prepared");
    Ok(())
}

fn close_snapshot(
    session: &Session,
    system: &System,
    id: i64,
    good: bool,
    note: &str,
) -> Result<(), SqlError> {
    let _held = system::lock(&session.root, &session.sid)?;
    let mut catalog = Catalog::load(&session.root, system)?;
    let prepared = |entry: &&mut Entry| entry.backup_id == id && entry.state == "prepared";
    let mut closed = 0;
    for entry in catalog.entries.iter_mut().filter(prepared) {
        entry.state = if good { "successful" } else { "failed" }.into();
        entry.message = note.into();
        entry.end = Some(clock::now());
        closed += 1;
    }
    if closed == 0 {
        return Err(failed(format!("[5] there is no prepared snapshot with the id {id}")));
    }
    catalog.save(&session.root, system)?;
    Ok(())
}

/// `BACKUP CATALOG DELETE [FOR db] BACKUP_ID n [COMPLETE]`, `… ALL BEFORE BACKUP_ID n [WITH FILE|WITH BACKINT|COMPLETE]`.
fn delete(session: &Session, system: &System, cursor: &mut Cursor) -> Result<(), SqlError> {
    let names = meant(session, system, cursor)?;
    let before = cursor.take("ALL BEFORE");
    cursor.expect("BACKUP_ID")?;
    let id = i64::try_from(cursor.number()?).unwrap_or(0);
    let all = cursor.take("COMPLETE");
    let only_files = before && cursor.take("WITH FILE");
    let only_backint = before && cursor.take("WITH BACKINT");
    cursor.end()?;
    let catalog = Catalog::load(&session.root, system)?;
    let named = catalog.entries.iter().find(|entry| entry.backup_id == id && names.contains(&entry.database));
    let named = named.ok_or_else(|| failed(format!("[6] there is no backup with the id {id}")))?;
    if before && !named.is_data() {
        return Err(failed(format!("[7] {id} is no data backup")));
    }
    let goes = |entry: &Entry| {
        let of_these =
            names.contains(&entry.database) && !["running", "prepared"].contains(&entry.state.as_str());
        of_these && if before { entry.backup_id < id } else { entry.backup_id == id }
    };
    for entry in catalog.entries.iter().filter(|entry| goes(entry)) {
        let (streams, paths): (Vec<&Piece>, Vec<&Piece>) =
            entry.pieces.iter().partition(|piece| piece.destination == "backint");
        if all || only_files {
            for piece in paths {
                // Another tool may have removed it already.
                let _ = std::fs::remove_file(&piece.path);
            }
        }
        if (all || only_backint) && !streams.is_empty() {
            let purpose = if entry.is_data() { "data" } else { "log" };
            let backint =
                Backint { root: &session.root, system, database: &entry.database, of: &system.sid, purpose };
            backint.delete(&streams).map_err(failed)?;
        }
    }
    files::crash_point(&session.root, "catalog.pieces-deleted");
    let _held = system::lock(&session.root, &session.sid)?;
    let mut catalog = Catalog::load(&session.root, system)?;
    catalog.entries.retain(|entry| !goes(entry));
    catalog.save(&session.root, system)?;
    Ok(())
}

/// `RECOVER DATABASE FOR T …`, on SYSTEMDB; the tenant is stopped before, and started by the recovery.
fn recover(session: &Session, system: &System, cursor: &mut Cursor) -> Result<(), SqlError> {
    let failed = |text: String| SqlError::new(448, format!("recovery could not be completed: {text}"));
    let request = recovery::parse(cursor)?;
    let tenant = system.tenants.iter().find(|tenant| Some(&tenant.name) == request.tenant.as_ref());
    let tenant = tenant.filter(|_| session.database == "SYSTEMDB");
    let tenant = tenant.ok_or_else(|| failed("a tenant must be named, on SYSTEMDB".into()))?;
    if tenant.active {
        return Err(failed(format!("database {} is running: stop it first", tenant.name)));
    }
    recovery::recover(&session.root, system, &tenant.name, &request).map_err(failed)?;
    scripts::activate(&session.root, &session.sid, &tenant.name, true)?;
    files::crash_point(&session.root, "recovery.started");
    Ok(())
}
