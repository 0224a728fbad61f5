//! The system views, made from the record of the system when they are read.
//!
//! `SYS_DATABASES.X` is, from SYSTEMDB alone, the view X of every database with a column DATABASE_NAME before it.

use crate::clock;
use crate::session::{LICENSE_DAYS, Session};
use crate::sql::SqlError;
use crate::system::System;
use serde_json::{Value, json};

type Rows = (Vec<String>, Vec<Vec<Value>>);

/// Columns and rows of a view.
///
/// # Errors
/// 259 where there is no such view for this database.
pub(crate) fn read(
    session: &Session,
    system: &System,
    schema: Option<&str>,
    name: &str,
) -> Result<Rows, SqlError> {
    let unknown = || SqlError::new(259, format!("invalid table name:  Could not find table/view {name}"));
    match schema {
        Some("SYS_DATABASES") if session.database == "SYSTEMDB" => {
            let mut all: Rows = (Vec::new(), Vec::new());
            for database in system.databases() {
                let (columns, rows) = view(session, system, &database.name, name)?.ok_or_else(unknown)?;
                all.0 = std::iter::once("DATABASE_NAME".to_string()).chain(columns).collect();
                for row in rows {
                    all.1.push(std::iter::once(json!(database.name)).chain(row).collect());
                }
            }
            Ok(all)
        }
        None | Some("SYS" | "PUBLIC" | "_SYS_STATISTICS") => {
            view(session, system, &session.database, name)?.ok_or_else(unknown)
        }
        Some(_) => Err(unknown()),
    }
}

fn view(session: &Session, system: &System, database: &str, name: &str) -> Result<Option<Rows>, SqlError> {
    let root = &session.root;
    let host = root.host();
    let columns = |names: &str| names.split(' ').map(str::to_string).collect::<Vec<_>>();
    let started = clock::sql(system.started);
    Ok(Some(match name {
        "DUMMY" => (columns("DUMMY"), vec![vec![json!("X")]]),
        "M_DATABASES" => {
            let row = |name: &str, active: bool, description: &str| {
                let status = if active { "YES" } else { "NO" };
                vec![json!(name), json!(description), json!(status)]
            };
            let tenants = system.tenants.iter();
            let tenants = tenants
                .filter(|tenant| database == "SYSTEMDB" || tenant.name == database)
                .map(|tenant| row(&tenant.name, tenant.active, &tenant.name));
            let own = (database == "SYSTEMDB").then(|| row("SYSTEMDB", true, "SystemDB"));
            (columns("DATABASE_NAME DESCRIPTION ACTIVE_STATUS"), own.into_iter().chain(tenants).collect())
        }
        "M_DATABASE" => {
            let version = format!("{}.{}", system.version, system.build);
            let row =
                [&system.sid, database, &host, &started, &version, "Production"].map(|text| json!(text));
            (columns("SYSTEM_ID DATABASE_NAME HOST START_TIME VERSION USAGE"), vec![row.to_vec()])
        }
        "M_LICENSE" => {
            let expires = system.installed_at + LICENSE_DAYS * 86_400_000_000;
            let valid = !root.faults().has("license-expired");
            let until = if valid { expires } else { clock::now() - 86_400_000_000 };
            let form = |instant| json!(clock::sql(instant));
            let row = vec![
                json!("D1234567890"),
                json!(system.sid),
                json!("SAP-HANA"),
                form(system.installed_at),
                form(until),
                json!("FALSE"),
                json!("FALSE"),
                json!(if valid { "TRUE" } else { "FALSE" }),
            ];
            let names =
                "HARDWARE_KEY SYSTEM_ID PRODUCT_NAME START_DATE EXPIRATION_DATE PERMANENT ENFORCED VALID";
            (columns(names), vec![row])
        }
        "M_SERVICES" => {
            let services: &[(&str, &str)] = match database {
                "SYSTEMDB" => &[("daemon", "00"), ("nameserver", "01"), ("compileserver", "10")],
                _ => &[("indexserver", "03"), ("xsengine", "07")],
            };
            let rows = services.iter().map(|(service, last)| {
                let sql = match *service {
                    "nameserver" | "indexserver" => system.sql_port(database).parse().unwrap_or(0),
                    _ => 0_u32,
                };
                let port = format!("3{}{last}", system.number).parse().unwrap_or(0_u32);
                vec![json!(host), json!(port), json!(service), json!("YES"), json!(sql)]
            });
            (columns("HOST PORT SERVICE_NAME ACTIVE_STATUS SQL_PORT"), rows.collect())
        }
        "M_INIFILE_CONTENTS" => {
            (columns("FILE_NAME LAYER_NAME HOST DATABASE_NAME SECTION KEY VALUE"), ini(system))
        }
        "M_CONFIGURATION_PARAMETER_VALUES" => {
            let rows = ini(system).into_iter().filter(|row| row.get(1) == Some(&json!("SYSTEM")));
            let rows = rows.map(|row| {
                let cell = |place: usize| row.get(place).cloned().unwrap_or_default();
                vec![cell(0), cell(4), cell(5), cell(6), cell(1)]
            });
            (columns("FILE_NAME SECTION KEY VALUE LAYER_NAME"), rows.collect())
        }
        _ => return Ok(None),
    }))
}

/// Defaults that the tasks ask for: file, section, key, value.
const DEFAULTS: [(&str, &str, &str, &str); 9] = [
    ("global.ini", "persistence", "log_mode", "normal"),
    ("global.ini", "persistence", "basepath_databackup", "$(DIR_INSTANCE)/backup/data"),
    ("global.ini", "persistence", "basepath_logbackup", "$(DIR_INSTANCE)/backup/log"),
    ("global.ini", "persistence", "basepath_catalogbackup", "$(DIR_INSTANCE)/backup/log"),
    ("global.ini", "persistence", "log_backup_timeout_s", "900"),
    ("global.ini", "backup", "log_backup_using_backint", "false"),
    ("global.ini", "backup", "catalog_backup_using_backint", "false"),
    ("global.ini", "backup", "parallel_data_backup_backint_channels", "1"),
    ("global.ini", "backup", "parallel_data_backup_backint_size_threshold", "128"),
];

fn ini(system: &System) -> Vec<Vec<Value>> {
    let defaults = DEFAULTS.iter().map(|(file, section, key, value)| {
        [file, "DEFAULT", "", "", section, key, value].map(|text| json!(text)).to_vec()
    });
    let set = system.ini.iter().filter_map(|(path, value)| {
        let mut parts = path.splitn(4, '/');
        let (file, layer, section, key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (layer, of) = layer.split_once(':').unwrap_or((layer, ""));
        let (host, database) = if layer == "HOST" { (of, "") } else { ("", of) };
        Some([file, layer, host, database, section, key, value].map(|text| json!(text)).to_vec())
    });
    defaults.chain(set).collect()
}
