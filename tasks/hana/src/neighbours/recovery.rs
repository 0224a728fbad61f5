//! Recoveries: `RECOVER DATABASE` for SYSTEMDB by `recoverSys.py`, for tenants by SQL in SYSTEMDB.
//!
//! `CLEAR LOG` always: what is in the log volume of a database that is restored belongs to another history.

use std::time::Duration;

use jiff::Timestamp;

use super::catalog::Database;
use super::hdbsql::{Key, literal, statement};
use crate::call::{As, Call, Input};
use crate::error::{Reading, unclear};
use crate::system::{Sid, System};

const SOURCE: &str = "SAP HANA SQL and System Views Reference, RECOVER DATABASE";

/// Where the backups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum From {
    /// In the hands of Backint
    Backint,
    /// Files, where the catalog says
    File,
}

/// The folder of a database in a folder of backups: `SYSTEMDB` or `DB_TENANT`.
pub fn folder(base: &str, database: &Database) -> String {
    let name =
        if database.is_system() { database.as_str().to_owned() } else { format!("DB_{}", database.as_str()) };
    format!("{}/{name}", base.trim_end_matches('/'))
}

/// The statement that recovers a database to an instant; SYSTEMDB itself is not named. `catalog`: the folder of the
/// catalogs of all databases, where it is not the one that the parameters name.
pub fn sql(database: &Database, to: Timestamp, from: From, catalog: Option<&str>) -> String {
    let target = if database.is_system() { String::new() } else { format!(" FOR {}", database.as_str()) };
    // UTC; an instant in the future means the newest state.
    let to = literal(&to.strftime("%Y-%m-%d %H:%M:%S").to_string());
    let place = match (from, catalog) {
        (From::Backint, _) => " USING CATALOG BACKINT CHECK ACCESS USING BACKINT".to_owned(),
        (From::File, None) => " CHECK ACCESS USING FILE".to_owned(),
        (From::File, Some(base)) => {
            format!(" USING CATALOG PATH ({}) CHECK ACCESS USING FILE", literal(&folder(base, database)))
        }
    };
    format!("RECOVER DATABASE{target} UNTIL TIMESTAMP {to} CLEAR LOG{place}")
}

/// Recovers a tenant that is stopped; it is started by that.
pub fn tenant(system: &System, key: &Key, sql: String, timeout: Duration) -> Call {
    statement(system, key, "recover the tenant", SOURCE, sql).within(timeout)
}

/// Recovers the newest state of a tenant into another one that is stopped; it takes longer than a query. Source of `USING SOURCE`: system copies.
pub fn copy(
    system: &System,
    key: &Key,
    (of, sid): (&Database, &Sid),
    into: &Database,
    to: Timestamp,
) -> Call {
    let to = literal(&to.strftime("%Y-%m-%d %H:%M:%S").to_string());
    let source = literal(&format!("{}@{sid}", of.as_str()));
    let sql = format!(
        "RECOVER DATABASE FOR {} UNTIL TIMESTAMP {to} CLEAR LOG USING SOURCE {source} USING CATALOG BACKINT CHECK ACCESS USING BACKINT",
        into.as_str()
    );
    statement(system, key, "recover the newest backup into the scratch tenant", SOURCE, sql)
}

/// The same from the files of one backup, without its logs.
pub fn copy_file(system: &System, key: &Key, into: &Database, prefix: &str, timeout: Duration) -> Call {
    let sql = format!("RECOVER DATA FOR {} USING FILE ({}) CLEAR LOG", into.as_str(), literal(prefix));
    statement(system, key, "recover the newest backup into the scratch tenant", SOURCE, sql).within(timeout)
}

/// Stops a tenant.
pub fn stop(system: &System, key: &Key, database: &Database) -> Call {
    let sql = format!("ALTER SYSTEM STOP DATABASE {}", database.as_str());
    let source = "SAP HANA SQL and System Views Reference, ALTER SYSTEM STOP DATABASE";
    statement(system, key, "stop the tenant", source, sql).within(Duration::from_secs(1800))
}

/// Drops a tenant that is stopped.
pub fn drop(system: &System, key: &Key, database: &Database) -> Call {
    let sql = format!("DROP DATABASE {}", database.as_str());
    let source = "community.sap_install roles/sap_hana_install post_tasks (recreate tenant)";
    statement(system, key, "drop the scratch tenant", source, sql).within(Duration::from_secs(1800))
}

/// `hdbbackupcheck`: whether a file of a backup is whole. It reads all of it.
pub fn check_file(system: &System, path: &str, timeout: Duration) -> Call {
    Call {
        purpose: "check that a file of the backup is whole",
        source: "SAP Note 1869119, hdbbackupcheck",
        user: As::Adm,
        program: system.exe().join("hdbbackupcheck"),
        arguments: vec![path.to_owned()],
        input: Input::Nothing,
        timeout,
    }
}

/// Whether the file is whole; the tool knows 0 and 1.
pub fn is_whole(exit: i32) -> Reading<bool> {
    match exit {
        0 => Ok(true),
        1 => Ok(false),
        code => unclear(format!("hdbbackupcheck ended with {code}, which is not documented")),
    }
}

/// `hdbbackupdiag --check`: whether all that a recovery needs is there, by the newest catalog in a folder.
pub fn diagnose(system: &System, folder: &str) -> Call {
    Call {
        purpose: "check that everything is there that the recovery needs",
        source: "SAP Note 1873247, hdbbackupdiag --check",
        user: As::Adm,
        program: system.exe().join("hdbbackupdiag"),
        // -d: the folder with the catalogs of one database
        arguments: ["--check", "-d", folder].map(str::to_owned).to_vec(),
        input: Input::Nothing,
        timeout: Duration::from_secs(3600),
    }
}
