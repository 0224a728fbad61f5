//! A connection to a database, and what it makes of a statement.

use crate::database::{Volume, kept};
use crate::root::Root;
use crate::sql::words::Cursor;
use crate::sql::{Answer, Answered, SqlError, change, parse, select};
use crate::system::{self, Database, System};
use crate::{leftovers, replication, statements, views};

/// A user connected to a database of a system.
pub(crate) struct Session {
    pub(crate) root: Root,
    pub(crate) sid: String,
    /// Name of the database.
    pub(crate) database: String,
    pub(crate) user: String,
}

/// Nominal days that the temporary license of an installation is valid.
pub(crate) const LICENSE_DAYS: i64 = 90;

impl Session {
    /// The system as it is now.
    pub(crate) fn system(&self) -> Result<System, SqlError> {
        system::load(&self.root, &self.sid)?.ok_or_else(lost)
    }

    /// Files of the session's database.
    pub(crate) fn volume(&self, system: &System) -> Result<Volume, SqlError> {
        Ok(Volume::of(&self.root, system, &self.found(system)?))
    }

    fn found(&self, system: &System) -> Result<Database, SqlError> {
        system.databases().into_iter().find(|database| database.name == self.database).ok_or_else(lost)
    }

    /// Carries out one statement.
    pub(crate) fn carry_out(&self, statement: &str) -> Answered {
        let mut cursor = Cursor::new(statement)?;
        let system = self.system()?;
        if !system.connectable(&self.root, &self.database) {
            return Err(lost());
        }
        let licensed = !self.root.faults().has("license-expired");
        if cursor.take("SELECT") {
            let select = parse::select(&mut cursor)?;
            let _held = system::lock(&self.root, &self.sid)?;
            let content = self.volume(&system)?.content()?;
            return select::run(&select, &|schema, name| match content.tables.get(name) {
                Some(_) if !licensed => {
                    Err(SqlError::new(19, "general license error: only license management is allowed"))
                }
                Some(table) => Ok((table.columns.clone(), table.rows.clone())),
                None => views::read(self, &system, schema, name),
            });
        }
        if !licensed {
            return Err(SqlError::new(19, "general license error: only license management is allowed"));
        }
        if let Some(answer) = statements::carry_out(self, &system, &mut cursor)? {
            return Ok(answer);
        }
        let _held = system::lock(&self.root, &self.sid)?;
        let content = self.volume(&system)?.content()?;
        match change::understand(&mut cursor, &content)? {
            Some((change, rows)) => {
                // Asked again under the lock: it may have been suspended.
                let system = self.system()?;
                if !system.connectable(&self.root, &self.database) {
                    return Err(lost());
                }
                replication::commit(&self.root, &system, &self.found(&system)?, change)?;
                leftovers::audit(&self.root, &system, &self.database, &self.user, statement)?;
                Ok(Answer::Changed(rows))
            }
            None => Err(cursor.wrong()),
        }
    }
}

/// Connects: the system is up, the database takes connections, the password is right.
pub(crate) fn connect(
    root: &Root,
    number: &str,
    database: &str,
    user: &str,
    password: &Password,
) -> Result<Session, SqlError> {
    let refused = || {
        let text = format!(
            "Connection failed (RTE:[89006] System call 'connect' failed, rc=111:Connection refused {{127.0.0.1:3{number}13}})"
        );
        SqlError::new(-10709, text)
    };
    let system = system::numbered(root, number)?.ok_or_else(refused)?;
    if !system.connectable(root, "SYSTEMDB") {
        return Err(refused());
    }
    let session = Session {
        root: root.clone(),
        sid: system.sid.clone(),
        database: database.to_string(),
        user: user.to_uppercase(),
    };
    if !system.databases().iter().any(|known| known.name == database) {
        return Err(SqlError::new(
            -10709,
            format!("Connection failed (RTE:[89008] database {database} does not exist)"),
        ));
    }
    if !system.connectable(root, database) {
        return Err(refused());
    }
    let content = session.volume(&system)?.content()?;
    let given = match password {
        Password::Text(text) => kept(text),
        Password::Kept(kept) => kept.clone(),
    };
    if content.users.get(&session.user) != Some(&given) {
        let text = "authentication failed: Detailed info for this error can be found with correlation ID '6A1F5B0D2C' SQLSTATE: 28000";
        return Err(SqlError::new(10, text));
    }
    Ok(session)
}

/// A password as given, or as the user store keeps it.
pub(crate) enum Password {
    Text(String),
    Kept(String),
}

/// The connection is lost.
pub(crate) fn lost() -> SqlError {
    SqlError::new(-10807, "Connection down: [89013] Socket closed by peer")
}
