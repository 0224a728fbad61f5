//! `systemReplicationStatus.py` and `landscapeHostConfiguration.py`, with their exit codes.

use crate::clock;
use crate::database::Volume;
use crate::halt::{Ended, Halt};
use crate::hdb;
use crate::replication::{self, ACTIVE, NONE};
use crate::root::Root;
use crate::system::{Site, System};

fn by_script(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument.trim_start_matches('-') == "sapcontrol=1")
}

/// What is known of the shipping of one database to one site.
pub(crate) struct Row {
    pub(crate) database: String,
    pub(crate) port: String,
    pub(crate) service: &'static str,
    pub(crate) volume: u32,
    pub(crate) site: Site,
    pub(crate) status: i32,
    pub(crate) position: u64,
    pub(crate) time: i64,
}

/// A row for each database and site of a primary.
pub(crate) fn rows(root: &Root, system: &System) -> Result<Vec<Row>, Halt> {
    let mut rows = Vec::new();
    for site in &system.replication.sites {
        let status = replication::status(root, system, site)?;
        for database in system.databases() {
            let content = Volume::of(root, system, &database).content()?;
            let (service, last) =
                if database.name == "SYSTEMDB" { ("nameserver", "01") } else { ("indexserver", "03") };
            rows.push(Row {
                port: format!("3{}{last}", system.number),
                database: database.name,
                service,
                volume: database.volume,
                site: site.clone(),
                status,
                position: content.position,
                time: content.time,
            });
        }
    }
    Ok(rows)
}

/// 10 none, 11 error, 12 unknown, 13 initializing, 14 syncing, 15 active: the worst of all sites. 10 also where the system
/// is a secondary, or does not run.
pub(crate) fn status(root: &Root, arguments: &[String]) -> Ended {
    let system = hdb::own(root)?;
    let script = by_script(arguments);
    let wanted = arguments.iter().find_map(|argument| argument.strip_prefix("--site="));
    let runs = system.connectable(root, "SYSTEMDB") && system.replication.mode == "primary";
    let mut rows = if runs { rows(root, &system)? } else { Vec::new() };
    rows.retain(|row| wanted.is_none_or(|wanted| wanted == row.site.name));
    let overall = rows.iter().map(|row| row.status).min().unwrap_or(NONE);
    let own = &system.replication;
    let host = root.host();
    if script {
        println!("SAPCONTROL-OK: <begin>");
        for row in &rows {
            let at = format!("service/{host}/{}", row.port);
            let active = if row.status == replication::ERROR { "CONNECTION TIMEOUT" } else { "YES" };
            for (key, value) in [
                ("DATABASE", row.database.clone()),
                ("HOST", host.clone()),
                ("PORT", row.port.clone()),
                ("SERVICE_NAME", row.service.into()),
                ("VOLUME_ID", row.volume.to_string()),
                ("SITE_ID", own.site_id.to_string()),
                ("SITE_NAME", own.site_name.clone()),
                ("SECONDARY_HOST", row.site.host.clone()),
                ("SECONDARY_PORT", row.port.clone()),
                ("SECONDARY_SITE_ID", row.site.id.to_string()),
                ("SECONDARY_SITE_NAME", row.site.name.clone()),
                ("SECONDARY_ACTIVE_STATUS", active.into()),
                ("REPLICATION_MODE", row.site.mode.to_uppercase()),
                ("OPERATION_MODE", "logreplay".into()),
                ("REPLICATION_STATUS", replication::name(row.status).into()),
                ("REPLICATION_STATUS_DETAILS", String::new()),
                ("LAST_LOG_POSITION", row.position.to_string()),
                ("SHIPPED_LOG_POSITION", row.position.to_string()),
                ("SHIPPED_LOG_POSITION_TIME", clock::form(row.time, "%Y-%m-%d %H:%M:%S.%6f")),
                ("SECONDARY_FULLY_SYNCED", if row.status == ACTIVE { "True" } else { "False" }.into()),
            ] {
                println!("{at}/{key}={value}");
            }
        }
        for row in rows.iter().filter(|row| row.database == "SYSTEMDB") {
            let at = format!("site/{}", row.site.id);
            println!("{at}/SITE_NAME={}\n{at}/SOURCE_SITE_ID={}", row.site.name, own.site_id);
            println!("{at}/REPLICATION_MODE={}", row.site.mode.to_uppercase());
            println!("{at}/REPLICATION_STATUS={}", replication::name(row.status));
        }
        if !rows.is_empty() {
            println!("overall_replication_status={}", replication::name(overall));
        }
        if own.mode() != "none" {
            let at = format!("site/{}", own.site_id);
            println!("{at}/REPLICATION_MODE={}\n{at}/SITE_NAME={}", own.mode().to_uppercase(), own.site_name);
            println!("local_site_id={}", own.site_id);
        }
        println!("SAPCONTROL-OK: <end>");
        return Ok(overall);
    }
    if rows.is_empty() {
        println!(
            "{}",
            match runs {
                true => "there are no secondary sites attached",
                false => "this system is either not running or not primary system replication site",
            }
        );
    } else {
        println!(
            "| Database | Host | Port | Service Name | Volume ID | Site ID | Site Name | Secondary Host | Secondary Port | Secondary Site ID | Secondary Site Name | Secondary Active Status | Replication Mode | Replication Status | Replication Status Details | Secondary Fully Synced |"
        );
        for row in &rows {
            println!(
                "| {} | {host} | {} | {} | {} | {} | {} | {} | {} | {} | {} | YES | {} | {} |  | {} |",
                row.database,
                row.port,
                row.service,
                row.volume,
                own.site_id,
                own.site_name,
                row.site.host,
                row.port,
                row.site.id,
                row.site.name,
                row.site.mode.to_uppercase(),
                replication::name(row.status),
                if row.status == ACTIVE { "True" } else { "False" },
            );
        }
        println!();
        for row in rows.iter().filter(|row| row.database == "SYSTEMDB") {
            println!("status system replication site \"{}\": {}", row.site.id, replication::name(row.status));
        }
        println!("overall system replication status: {}", replication::name(overall));
    }
    println!(
        "\nLocal System Replication State\n~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n\nmode: {}",
        own.mode().to_uppercase()
    );
    if own.mode() != "none" {
        println!("site id: {}\nsite name: {}", own.site_id, own.site_name);
    }
    Ok(overall)
}

/// 4 OK, 1 down. A landscape of one host has no failover, so no 2 and 3.
pub(crate) fn landscape(root: &Root, arguments: &[String]) -> Ended {
    let system = hdb::own(root)?;
    let active = system.processes(root).iter().all(|process| process.light == "GREEN");
    let host = root.host();
    let (text, status) = if active { ("yes", "ok") } else { ("no", "error") };
    if by_script(arguments) {
        println!("SAPCONTROL-OK: <begin>");
        for (key, value) in [
            ("host", host.as_str()),
            ("hostActive", text),
            ("hostStatus", status),
            ("hostConfigRoles", "worker"),
            ("nameServerActualRole", if active { "master" } else { "slave" }),
            ("indexServerConfigRole", "worker"),
        ] {
            println!("host/{host}/{key}={value}");
        }
        println!("SAPCONTROL-OK: <end>");
    } else {
        println!("| Host | Host   | Host   | NameServer  |\n|      | Active | Status | Actual Role |");
        println!("| {host} | {text} | {status} | {} |", if active { "master" } else { "slave" });
        println!("\noverall host status: {status}");
    }
    Ok(if active { 4 } else { 1 })
}
