//! Statements of administration: parameters, tenants.

use crate::database::{Content, Volume, kept};
use crate::files;
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
    } else if cursor.take("ALTER SYSTEM START DATABASE") {
        activate(session, system, cursor, true)?;
    } else if cursor.take("ALTER SYSTEM STOP DATABASE") {
        activate(session, system, cursor, false)?;
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
    system::change(&session.root, &session.sid, |system| {
        for tenant in system.tenants.iter_mut().filter(|tenant| tenant.name == name) {
            tenant.active = active;
        }
    })?;
    Ok(())
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
    Volume::of(&session.root, system, &database).savepoint(&session.root, &content)?;
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
