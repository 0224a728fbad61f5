//! The system views, made from the record of the system when they are read.
//!
//! `SYS_DATABASES.X` is, from SYSTEMDB alone, the view X of every database with a column DATABASE_NAME before it.

use crate::catalog::Catalog;
use crate::clock;
use crate::leftovers;
use crate::replication;
use crate::replication_scripts;
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
        "M_LOG_SEGMENTS" => {
            let names = "HOST PORT VOLUME_ID PARTITION_ID SEGMENT_ID FILE_NAME STATE USED_SIZE TOTAL_SIZE";
            (columns(names), leftovers::segments(root, system, database))
        }
        "M_TRACEFILES" => {
            (columns("HOST FILE_NAME FILE_SIZE FILE_MTIME"), leftovers::traces(root, system, database))
        }
        "AUDIT_LOG" => {
            let names = "TIMESTAMP HOST USER_NAME EVENT_ACTION";
            (columns(names), leftovers::audited(root, system, database))
        }
        "M_SERVICE_REPLICATION" => {
            let mut rows = Vec::new();
            for row in replication_scripts::rows(root, system)? {
                if row.database != database {
                    continue;
                }
                let active = row.status == replication::ACTIVE;
                rows.push(vec![
                    json!(host),
                    json!(row.port.parse().unwrap_or(0_u32)),
                    json!(row.volume),
                    json!(system.replication.site_id),
                    json!(system.replication.site_name),
                    json!(row.site.host),
                    json!(row.site.id),
                    json!(row.site.name),
                    json!(if row.status == replication::ERROR { "CONNECTION TIMEOUT" } else { "YES" }),
                    json!(row.site.mode.to_uppercase()),
                    json!(replication::name(row.status)),
                    json!(row.position),
                    json!(if active { "TRUE" } else { "FALSE" }),
                ]);
            }
            let names = "HOST PORT VOLUME_ID SITE_ID SITE_NAME SECONDARY_HOST SECONDARY_SITE_ID SECONDARY_SITE_NAME \
                         SECONDARY_ACTIVE_STATUS REPLICATION_MODE REPLICATION_STATUS SHIPPED_LOG_POSITION \
                         SECONDARY_FULLY_RECOVERABLE";
            (columns(names), rows)
        }
        "M_BACKUP_CATALOG" => {
            let catalog = Catalog::load(root, system)?;
            let rows = catalog.of(database).map(|entry| {
                let end = entry.end.map_or(Value::Null, |end| json!(clock::sql(end)));
                let start = json!(clock::sql(entry.start));
                vec![
                    json!(entry.entry_id),
                    json!(entry.backup_id),
                    json!(entry.kind),
                    json!(entry.state),
                    start.clone(),
                    start,
                    end.clone(),
                    end,
                    json!(entry.comment),
                    json!(entry.message),
                ]
            });
            let names = "ENTRY_ID BACKUP_ID ENTRY_TYPE_NAME STATE_NAME SYS_START_TIME UTC_START_TIME SYS_END_TIME \
                         UTC_END_TIME COMMENT MESSAGE";
            (columns(names), rows.collect())
        }
        "M_BACKUP_CATALOG_FILES" => {
            let catalog = Catalog::load(root, system)?;
            let mut rows = Vec::new();
            for entry in catalog.of(database) {
                for piece in &entry.pieces {
                    rows.push(vec![
                        json!(entry.entry_id),
                        json!(entry.backup_id),
                        json!(piece.volume),
                        json!(piece.kind),
                        json!(piece.destination),
                        json!(piece.path),
                        json!(piece.size),
                        json!(piece.ebid),
                        Value::Null,
                    ]);
                }
            }
            let names = "ENTRY_ID BACKUP_ID SOURCE_ID SOURCE_TYPE_NAME DESTINATION_TYPE_NAME DESTINATION_PATH \
                         BACKUP_SIZE EXTERNAL_BACKUP_ID LAYER_NAME";
            (columns(names), rows)
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
