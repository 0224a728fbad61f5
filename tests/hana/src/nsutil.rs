//! `hdbnsutil`: the replication of a system, set up and shown.
//!
//! 0 when done, 1 when not, 149 where the secure stores of the two hosts differ. A takeover does not ask whether the former
//! primary rules on: two primaries can be made, as with the real tool.

use crate::catalog::Catalog;
use crate::clock;
use crate::database::Volume;
use crate::files;
use crate::halt::{Ended, Halt};
use crate::hdb;
use crate::root::Root;
use crate::system::{self, Replication, Site, System};
use std::fs;

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let system = hdb::own(root)?;
    let option = |name: &str| {
        let prefix = format!("--{name}=");
        arguments.iter().find_map(|argument| argument.strip_prefix(&prefix)).unwrap_or_default().to_string()
    };
    let has = |name: &str| arguments.iter().any(|argument| argument.trim_start_matches('-') == name);
    match arguments.first().map(String::as_str) {
        Some("-sr_state" | "-sr_stateConfiguration") => {
            let script = arguments.iter().any(|argument| argument.trim_start_matches('-') == "sapcontrol=1");
            if script { state_script(root, &system) } else { state_text(root, &system) }
        }
        Some("-sr_enable") => enable(root, &system, &option("name")),
        Some("-sr_disable") => disable(root, &system),
        Some("-sr_register") => {
            let site =
                Site { id: 2, name: option("name"), host: root.host(), mode: option("replicationMode") };
            let registration = Registration {
                site,
                remote: option("remoteHost"),
                operation: option("operationMode"),
                online: has("online"),
            };
            register(root, &system, registration)
        }
        Some("-sr_takeover") => takeover(root, &system, has("suspendPrimary")),
        Some("-sr_unregister") => unregister(root, &system, &option("name")),
        Some("-sr_changemode") => change_mode(root, &system, &option("mode")),
        Some("-sr_cleanup") => {
            if system.lives(root) {
                return no("nameserver is running: cleanup is possible offline only");
            }
            set(root, &system, Replication::default())
        }
        _ => no("unknown command line option"),
    }
}

fn no(why: &str) -> Ended {
    println!("{why}\nfailed.");
    Ok(1)
}

fn set(root: &Root, system: &System, replication: Replication) -> Ended {
    system::change(root, &system.sid, |system| system.replication = replication)?;
    files::crash_point(root, "replication.set");
    println!("done.");
    Ok(0)
}

fn word(known: bool, truth: bool) -> &'static str {
    match (known, truth) {
        (false, _) => "unknown",
        (true, true) => "true",
        (true, false) => "false",
    }
}

/// Every site with its host, mode and operation mode, as this one knows them.
fn sites(root: &Root, system: &System) -> Result<Vec<(Site, String)>, Halt> {
    let (at, primary) = if system.is_secondary() {
        let Some(at) = root.peer(&system.replication.remote_host) else { return Ok(Vec::new()) };
        let found = system::load(&at, &system.sid)?;
        (at, found)
    } else {
        (root.clone(), Some(system.clone()))
    };
    let Some(primary) = primary else { return Ok(Vec::new()) };
    let own = &primary.replication;
    let first =
        Site { id: own.site_id, name: own.site_name.clone(), host: at.host(), mode: "primary".into() };
    let mut all = vec![(first, "primary".to_string())];
    for site in &own.sites {
        all.push((site.clone(), "logreplay".to_string()));
    }
    Ok(all)
}

fn state_script(root: &Root, system: &System) -> Ended {
    let own = &system.replication;
    let online = system.lives(root);
    println!("SAPCONTROL-OK: <begin>\nonline={online}\nmode={}", own.mode());
    if own.mode() != "none" {
        let operation = if online { own.operation_mode.as_str() } else { "unknown" };
        println!("operation mode={operation}\nsite id={}\nsite name={}", own.site_id, own.site_name);
        let secondary = system.is_secondary();
        println!("isSource={}\nisConsumer={secondary}", word(online, !secondary));
        println!("hasConsumers={}\nisTakeoverActive=false", word(online, !own.sites.is_empty()));
        println!("isPrimarySuspended={}", word(online, own.suspended));
        if secondary {
            println!("isTimetravelEnabled=false\nreplayMode=auto");
            println!("active primary site={}\nprimary masters={}", own.remote_site, own.remote_host);
        }
        if online {
            let sites = sites(root, system)?;
            for (site, _) in sites.iter().rev() {
                println!("mapping/{}={}/{}", root.host(), site.name, site.host);
            }
            for (site, _) in &sites {
                println!("siteTier/{}={}", site.name, if site.mode == "primary" { 1 } else { 2 });
            }
            for (site, _) in &sites {
                println!("siteReplicationMode/{}={}", site.name, site.mode);
            }
            for (site, operation) in &sites {
                println!("siteOperationMode/{}={operation}", site.name);
            }
            if let [(first, _), (second, _), ..] = sites.as_slice() {
                println!("siteMapping/{}={}", first.name, second.name);
            }
        }
    }
    println!("SAPCONTROL-OK: <end>\ndone.");
    Ok(0)
}

fn state_text(root: &Root, system: &System) -> Ended {
    let own = &system.replication;
    let online = system.lives(root);
    println!(
        "\nSystem Replication State\n~~~~~~~~~~~~~~~~~~~~~~~~\n\nonline: {online}\n\nmode: {}",
        own.mode()
    );
    if own.mode() != "none" {
        let operation = if online { own.operation_mode.as_str() } else { "unknown" };
        println!("operation mode: {operation}\nsite id: {}\nsite name: {}\n", own.site_id, own.site_name);
        let secondary = system.is_secondary();
        println!("is source system: {}", word(online, !secondary));
        println!("is secondary/consumer system: {secondary}");
        println!("has secondaries/consumers attached: {}", word(online, !own.sites.is_empty()));
        println!("is a takeover active: false\nis primary suspended: {}", word(online, own.suspended));
        if secondary {
            println!("active primary site: {}\nprimary masters: {}", own.remote_site, own.remote_host);
        }
        if online {
            println!("\nHost Mappings:\n~~~~~~~~~~~~~~\n");
            for (site, _) in sites(root, system)?.iter().rev() {
                println!("{} -> [{}] {}", root.host(), site.name, site.host);
            }
        }
    }
    println!("\ndone.");
    Ok(0)
}

fn enable(root: &Root, system: &System, name: &str) -> Ended {
    println!("checking for active nameserver ...");
    if !system.connectable(root, "SYSTEMDB") {
        return no("nameserver is not active");
    }
    println!("nameserver is active, proceeding ...");
    if system.parameter("SYSTEMDB", "persistence", "log_mode") == Some("overwrite") {
        return no("log_mode must be normal");
    }
    let catalog = Catalog::load(root, system)?;
    for database in system.databases() {
        let mut data =
            catalog.of(&database.name).filter(|entry| entry.is_data() && entry.state == "successful");
        if data.next().is_none() {
            return no(&format!(
                "unable to enable system as system replication source site: no data backup of {}",
                database.name
            ));
        }
    }
    println!("successfully enabled system as system replication source site");
    let id = system.replication.site_id.max(1);
    set(root, system, Replication::primary(id, name))
}

fn disable(root: &Root, system: &System) -> Ended {
    if !system.replication.sites.is_empty() {
        return no("secondary sites are registered: unregister them first");
    }
    set(root, system, Replication::default())
}

/// The files of the secure store, of which both hosts need the same.
pub(crate) fn secure_store(root: &Root, sid: &str) -> [std::path::PathBuf; 2] {
    let folder = root.at(format!("/usr/sap/{sid}/SYS/global/security/rsecssfs"));
    [folder.join(format!("data/SSFS_{sid}.DAT")), folder.join(format!("key/SSFS_{sid}.KEY"))]
}

/// What `-sr_register` is told.
struct Registration {
    /// The secondary; its id is given by the primary.
    site: Site,
    /// Host of the primary.
    remote: String,
    /// Mode of operation; empty for the default.
    operation: String,
    /// Registers although the nameserver runs.
    online: bool,
}

fn register(root: &Root, system: &System, registration: Registration) -> Ended {
    let Registration { mut site, remote, operation, online } = registration;
    println!("adding site ...");
    if !["sync", "syncmem", "async"].contains(&site.mode.as_str())
        || site.name.is_empty()
        || remote.is_empty()
    {
        return no("--name, --remoteHost and --replicationMode=sync|syncmem|async are needed");
    }
    println!("checking for inactive nameserver ...");
    if system.lives(root) && !online {
        return no(&format!(
            "nameserver {}:3{}01 is responding: stop the system first",
            root.host(),
            system.number
        ));
    }
    println!("nameserver {}:3{}01 not responding.", root.host(), system.number);
    println!("collecting information ...");
    let there = root.peer(&remote);
    let primary = match &there {
        Some(there) => system::load(there, &system.sid)?.filter(|found| found.lives(there)),
        None => None,
    };
    let (Some(there), Some(primary)) = (there, primary) else {
        return no(&format!("unable to contact primary site; to {remote}:3{}01", system.number));
    };
    if primary.replication.mode != "primary" {
        return no(&format!("{remote} is no primary of a system replication"));
    }
    let numbers =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    if numbers(&system.version) < numbers(&primary.version) {
        return no("the version of the secondary is older than that of the primary");
    }
    for (own, theirs) in secure_store(root, &system.sid).iter().zip(secure_store(&there, &system.sid)) {
        if fs::read(own)? != fs::read(theirs)? {
            println!("unable to register: the secure stores in the file system (SSFS) of the sites differ");
            return Ok(149);
        }
    }
    println!("updating local ini files ...");
    let first = primary.replication.site_id;
    site.id = if first == 1 { 2 } else { 1 };
    let own = Replication {
        mode: site.mode.clone(),
        operation_mode: if operation.is_empty() { "logreplay".into() } else { operation },
        site_id: site.id,
        site_name: site.name.clone(),
        remote_host: remote,
        remote_site: first,
        suspended: false,
        sites: Vec::new(),
    };
    // The primary knows of it first: a secondary that nobody knows of would never be active.
    system::change(&there, &primary.sid, |primary| {
        primary.replication.sites.retain(|known| known.host != site.host);
        primary.replication.sites.push(site);
    })?;
    files::crash_point(root, "replication.registered");
    set(root, system, own)
}

fn takeover(root: &Root, system: &System, suspend: bool) -> Ended {
    if !system.is_secondary() {
        return no("this system is no secondary of a system replication");
    }
    let synced: Option<i64> = files::load(&system.state(root, "synced.json"))?;
    if synced.is_none() {
        return no("the secondary has no consistent data yet: takeover is not possible");
    }
    if suspend {
        let there = root.peer(&system.replication.remote_host);
        let Some(there) = there else { return no("unable to contact primary site") };
        let primary = system::load(&there, &system.sid)?.filter(|found| found.lives(&there));
        if primary.is_none() {
            return no("unable to contact primary site");
        }
        system::change(&there, &system.sid, |primary| primary.replication.suspended = true)?;
        files::crash_point(root, "replication.suspended");
        // What the primary committed until then is fetched.
        crate::replication::fetch(root, system)?;
    }
    root.sleep(5.0);
    let held = system::lock(root, &system.sid)?;
    for database in system.databases() {
        // A new history: what the former primary goes on to write is not part of it.
        let volume = Volume::of(root, system, &database);
        let mut content = volume.content()?;
        content.branch = clock::now();
        volume.savepoint(root, &content, &[])?;
    }
    drop(held);
    files::crash_point(root, "replication.taken");
    let own = &system.replication;
    set(root, system, Replication::primary(own.site_id, &own.site_name))
}

fn unregister(root: &Root, system: &System, name: &str) -> Ended {
    if system.is_secondary() {
        println!("unregistering site ...");
        return set(root, system, Replication::default());
    }
    if !system.replication.sites.iter().any(|site| site.name == name) {
        return no(&format!("there is no site {name}"));
    }
    let mut own = system.replication.clone();
    own.sites.retain(|site| site.name != name);
    set(root, system, own)
}

fn change_mode(root: &Root, system: &System, mode: &str) -> Ended {
    if !system.is_secondary() || !["sync", "syncmem", "async"].contains(&mode) {
        return no("a secondary and one of sync, syncmem, async are needed");
    }
    if let Some(there) = root.peer(&system.replication.remote_host) {
        system::change(&there, &system.sid, |primary| {
            for site in primary.replication.sites.iter_mut().filter(|site| site.host == root.host()) {
                site.mode = mode.into();
            }
        })?;
    }
    set(root, system, Replication { mode: mode.into(), ..system.replication.clone() })
}
