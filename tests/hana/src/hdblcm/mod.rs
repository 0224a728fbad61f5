//! `hdblcm`: installs, updates, checks and removes systems, in phases that it resumes.
//!
//! Install and update are the business of the hdblcm of the media, all else of the resident one. 0 when it is done, 1 when
//! not; then stderr holds a tree of causes.

mod layout;
mod options;
mod passwords;
mod state;
mod users;

use crate::clock;
use crate::database::{Content, Volume, kept};
use crate::files;
use crate::halt::{Ended, Halt};
use crate::media;
use crate::root::Root;
use crate::system::{self, Replication, System, Tenant};
use options::Options;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Phases of an installation with their nominal seconds.
const INSTALL: [(&str, f64); 4] = [("extract", 20.0), ("create", 20.0), ("start", 1.0), ("finish", 5.0)];
/// Phases of an update.
const UPDATE: [(&str, f64); 5] =
    [("prepare", 20.0), ("stop", 1.0), ("switch", 10.0), ("start", 1.0), ("finish", 5.0)];

const STARS: &str = "************************************************************************";

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let own = std::env::current_exe()?;
    let folder = own.parent().map(Path::to_path_buf).unwrap_or_default();
    let of_media = folder.join("server/manifest").is_file();
    if arguments.iter().any(|argument| argument == "--list_systems" || argument == "-L") {
        return list(root);
    }
    let version =
        if of_media { media::version(&folder.join("server/manifest"))?.0 } else { resident(root)?.version };
    println!("SAP HANA Lifecycle Management - SAP HANA Database {version}\n{STARS}\n");
    let options = Options::read(root, arguments)?;
    if options.yes("version") {
        return Ok(0);
    }
    if let Some(file) = options.get("dump_configfile_template") {
        return template(root, &file);
    }
    let action = match options.get("action") {
        _ if options.yes("uninstall") => "uninstall".to_string(),
        None if options.yes("prepare_update") => "update".to_string(),
        other => other.unwrap_or_else(|| "exit".into()),
    };
    match (action.as_str(), of_media) {
        ("install", true) => act(root, &options, "install", |log| install(root, &options, &folder, log)),
        ("update", true) => act(root, &options, "update", |log| update(root, &options, &folder, log)),
        ("check_installation", false) => check(root, &options),
        ("uninstall", false) => {
            act(root, &options, "uninstall", |log| uninstall(root, &options, &resident(root)?, log))
        }
        ("exit", _) => Err(Halt::new(1, "No action was chosen")),
        _ => Err(Halt::new(1, format!("Action '{action}' is not possible with this hdblcm"))),
    }
}

/// Writes the template of a configuration file, and beside it that of the passwords.
fn template(root: &Root, file: &str) -> Ended {
    let place = root.at(file);
    files::write(root, &place, include_bytes!("template.ini"))?;
    let passwords = root.at(format!("{file}.xml"));
    files::write(root, &passwords, include_bytes!("template.xml"))?;
    println!("Config file template '{}' written", place.display());
    println!("Password file template '{}' written", passwords.display());
    Ok(0)
}

/// The system of a resident hdblcm.
fn resident(root: &Root) -> Result<System, Halt> {
    let own = std::env::current_exe()?;
    let found = system::all(root)?.into_iter().find(|system| own.starts_with(layout::shared(root, system)));
    found.ok_or_else(|| Halt::new(1, "This hdblcm belongs to no media and to no system"))
}

fn list(root: &Root) -> Ended {
    println!("SAP HANA Lifecycle Management\n");
    for system in system::all(root)? {
        // The patch level has one digit here, and two in the manifest.
        let version = system.version.rsplit_once('.').map_or(String::new(), |(head, patch)| {
            format!("{head}.{}", patch.parse::<u32>().unwrap_or_default())
        });
        println!("{} (HDB{})\n", layout::shared(root, &system).display(), system.number);
        println!("\tHDB_ALONE\n\tversion: {version}.{}", system.build);
        println!("\thost(s): {} (Database Worker (worker))\n", root.host());
    }
    Ok(0)
}

/// The frame of an action: its log folder, its last line, and the tree of causes when it fails.
fn act(
    root: &Root,
    options: &Options,
    action: &str,
    how: impl FnOnce(&mut Log) -> Result<&'static str, Halt>,
) -> Ended {
    let sid = options.get("sid").unwrap_or_else(|| resident(root).map_or(String::new(), |system| system.sid));
    let stamp = clock::form(clock::now(), "%Y-%m-%d_%H.%M.%S");
    let folder = root.at(format!("/var/tmp/hdb_{sid}_hdblcm_{action}_{stamp}"));
    files::folder(&folder)?;
    let mut log = Log { root: root.clone(), file: folder.join("hdblcm.log"), folder };
    // One hdblcm at a time on a host.
    let lock = files::lock_file(&root.state("hdblcm.lock"))?;
    let ended = match lock.try_lock() {
        Ok(()) => how(&mut log),
        Err(_) => Err(Halt::new(1, "  Another instance of hdblcm is running")),
    };
    let what = match action {
        "install" => "Installation of SAP HANA Database",
        "update" => "Update of SAP HANA Database components",
        _ => "Uninstallation of the SAP HANA system",
    };
    let code = match ended {
        Ok(last) => {
            println!("{last}");
            log.note(last)?;
            0
        }
        Err(halt) => {
            let tree = format!("{what} failed.\n  {what} failed\n{}", halt.said);
            eprintln!("{tree}");
            log.note(&tree)?;
            1
        }
    };
    println!("Log file written to '{}' on host '{}'.", log.file.display(), root.host());
    Ok(code)
}

/// The log of an action: lines `HH:MM:SS.mmm - INFO: …`.
struct Log {
    root: Root,
    folder: PathBuf,
    file: PathBuf,
}

impl Log {
    fn note(&self, text: &str) -> Result<(), Halt> {
        let line = format!("{} - INFO: {text}\n", clock::form(clock::now(), "%H:%M:%S.%3f"));
        files::append(&self.root, &self.file, line.as_bytes())
    }

    fn say(&self, text: &str) -> Result<(), Halt> {
        println!("{text}");
        self.note(text.trim())
    }
}

/// What is seen of the media before anything is done.
fn detect(root: &Root, options: &Options, folder: &Path) -> Result<(String, String), Halt> {
    let above = folder.parent().map(Path::to_path_buf).unwrap_or_default();
    let component = options.get("component_root").map_or(above, |place| root.at(place));
    println!("Scanning software locations...");
    let manifest = component.join("SAP_HANA_DATABASE/server/manifest");
    if !manifest.is_file() {
        return Err(Halt::new(1, format!("    No component was detected in '{}'", component.display())));
    }
    let (version, build) = media::version(&manifest)?;
    if options.yes("verify_signature") && !component.join("SAP_HANA_DATABASE/SIGNATURE.SMF").is_file() {
        return Err(Halt::new(1, "    Cannot verify the signature: SIGNATURE.SMF was not found"));
    }
    println!("Detected components:");
    let server = component.join("SAP_HANA_DATABASE/server");
    println!("    SAP HANA Database ({version}.{build}) in {}\n", server.display());
    Ok((version, build))
}

fn summary(log: &Log, system: &System, title: &str, what: &str) {
    println!("Summary before execution:\n=========================\n{title}");
    println!(
        "   Parameters\n      SAP HANA System ID: {}\n      Instance Number: {}",
        system.sid, system.number
    );
    println!("   Software Components\n      SAP HANA Database\n         {what}");
    println!("   Log File Locations\n      Log directory: {}", log.folder.display());
}

/// A new password of the input.
fn password<'a>(options: &'a Options, name: &str) -> Result<&'a str, Halt> {
    let missing = || Halt::new(1, format!("    Mandatory parameter '{name}' is missing"));
    Ok(options.passwords.get(name).ok_or_else(missing)?)
}

fn install(root: &Root, options: &Options, folder: &Path, log: &mut Log) -> Result<&'static str, Halt> {
    let (version, build) = detect(root, options, folder)?;
    let (sid, number) = (options.sid()?, options.number()?);
    for name in ["password", "system_user_password"] {
        if !passwords::acceptable(password(options, name)?) {
            return Err(Halt::new(
                1,
                format!("    Checking value of '{name}' failed: it does not fit the rules"),
            ));
        }
    }
    let sapmnt = options.path(root, "sapmnt", "/hana/shared");
    let place = state::place(&sapmnt.join(&sid), &sid, "install");
    let resumed = place.is_file();
    if !resumed {
        // A record whose folder is gone is what an uninstallation left that died at its end.
        let there = |other: &System| layout::shared(root, other).is_dir();
        let used = system::all(root)?
            .into_iter()
            .find(|other| (other.sid == sid || other.number == number) && there(other));
        if let Some(other) = used {
            let what = format!("{} with instance number {}", other.sid, other.number);
            return Err(Halt::new(1, format!("    SAP HANA system {what} exists on this host")));
        }
    }
    let fresh = System {
        sid: sid.clone(),
        number,
        version: version.clone(),
        build,
        datapath: options.path(root, "datapath", &format!("/hana/data/{sid}")),
        logpath: options.path(root, "logpath", &format!("/hana/log/{sid}")),
        sapmnt,
        tenants: Vec::new(),
        ini: BTreeMap::new(),
        installed_at: clock::now(),
        service: true,
        started: 0,
        stopping: None,
        replication: Replication::default(),
    };
    summary(log, &fresh, "SAP HANA Database System Installation", &format!("Install version {version}"));
    log.say("Installing components...\nInstalling SAP HANA Database...")?;
    let nostart = options.yes("nostart");
    let action =
        state::Action { name: "install", version: &version, place: &place, phases: &INSTALL, only: None };
    state::phases(root, &action, |phase| match phase {
        "extract" => {
            log.say("  Extracting software...\n  Installing package 'Binaries'...")?;
            layout::binaries(root, &fresh)?;
            layout::manifest(root, &fresh)
        }
        "create" => {
            log.say("  Creating System...\n  Creating instance...")?;
            users::make(root, &sid, options)?;
            create(root, options, &fresh)
        }
        "start" if nostart => Ok(()),
        "start" => start(root, &sid, log),
        _ => {
            log.say("Installing Resident hdblcm...\nCreating Component List...")?;
            root.link(layout::shared(root, &fresh).join("hdblcm/hdblcm"))
        }
    })?;
    Ok("SAP HANA Database System installed")
}

/// Removes what is kept of a system beside its record.
fn forget(root: &Root, system: &System) -> Result<(), Halt> {
    for name in ["catalog.json", "synced.json"] {
        match std::fs::remove_file(system.state(root, name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// The empty databases, the instance, and its record.
fn create(root: &Root, options: &Options, fresh: &System) -> Result<(), Halt> {
    let mut system = fresh.clone();
    forget(root, &system)?;
    if options.or("create_initial_tenant", "y") == "y" {
        system.tenants.push(Tenant { name: system.sid.clone(), volume: 2, active: true });
    }
    let password = kept(password(options, "system_user_password")?);
    for database in system.databases() {
        let mut content = Content::default();
        content.users.insert("SYSTEM".into(), password.clone());
        Volume::of(root, &system, &database).savepoint(root, &content, &[])?;
    }
    for file in crate::nsutil::secure_store(root, &system.sid) {
        // Each system has a store of its own.
        files::write(root, &file, kept(&format!("{}{}", file.display(), clock::now())).as_bytes())?;
    }
    layout::databases(root, &system)?;
    layout::services(root, &system, true)?;
    system.save(root)
}

fn start(root: &Root, sid: &str, log: &Log) -> Result<(), Halt> {
    let host = root.host();
    log.say("  Starting SAP HANA Database system...")?;
    log.say(&format!("  Starting 7 processes on host '{host}' (worker):"))?;
    let Some(system) = system::load(root, sid)? else {
        return Err(Halt::new(1, format!("    SAP HANA system {sid} is not there")));
    };
    system::change(root, sid, |system| system.service = true)?;
    system.start(root)?;
    if !system.wait_up(root, 600.0)? {
        return Err(Halt::new(1, "    Start of the system failed: timeout reached (600)"));
    }
    log.say(&format!("  All server processes started on host '{host}' (worker)."))
}

fn update(root: &Root, options: &Options, folder: &Path, log: &mut Log) -> Result<&'static str, Halt> {
    let (version, build) = detect(root, options, folder)?;
    let sid = options.sid()?;
    let Some(system) = system::load(root, &sid)? else {
        return Err(Halt::new(1, format!("    SAP HANA system {sid} does not exist on this host")));
    };
    let shared = layout::shared(root, &system);
    let place = state::place(&shared, &sid, "update");
    if state::place(&shared, &sid, "install").is_file() {
        return Err(Halt::new(1, "    A pending installation was found: finish or remove it first"));
    }
    let resumed = place.is_file();
    let (new, old) = (numbers(&version), numbers(&system.version));
    if new < old || (new == old && !resumed) {
        let text = format!("    Update from version {} to {version} is not possible", system.version);
        return Err(Halt::new(1, text));
    }
    let content = Volume::of(root, &system, &system.systemdb()).content()?;
    let given = kept(password(options, "system_user_password")?);
    if content.users.get("SYSTEM") != Some(&given) {
        return Err(Halt::new(1, "    Checking system user credentials failed: authentication failed"));
    }
    let what = format!("Update from version {} to {version}", system.version);
    summary(log, &system, "SAP HANA Database System Update", &what);
    let prepare = options.yes("prepare_update");
    log.say(if prepare { "Preparing update of SAP HANA Database..." } else { "Updating components..." })?;
    let nostart = options.yes("hdbupd_server_nostart");
    let only = prepare.then_some("prepare");
    let action = state::Action { name: "update", version: &version, place: &place, phases: &UPDATE, only };
    state::phases(root, &action, |phase| {
        let now = system::load(root, &sid)?.unwrap_or_else(|| system.clone());
        match phase {
            "prepare" => log.say("  Extracting software...\n  Preparing package 'Binaries'..."),
            "stop" => {
                log.say("  Stopping system...")?;
                now.stop(root)?;
                if now.wait_down(root, 600.0) {
                    Ok(())
                } else {
                    Err(Halt::new(1, "    Stop of the system failed"))
                }
            }
            "switch" => {
                log.say("  Installing package 'Binaries'...")?;
                layout::binaries(root, &now)?;
                let new = System { version: version.clone(), build: build.clone(), ..now };
                layout::manifest(root, &new)?;
                files::crash_point(root, "hdblcm.update.manifest");
                system::change(root, &sid, |system| {
                    system.version = version.clone();
                    system.build = build.clone();
                })
            }
            "start" if nostart => Ok(()),
            "start" => start(root, &sid, log),
            _ => log.say("Updating Resident hdblcm...\nUpdating Component List..."),
        }
    })?;
    Ok(if prepare {
        "SAP HANA Database components prepared for update"
    } else {
        "SAP HANA Database components updated"
    })
}

/// A version as numbers, to compare.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').take(4).map(|part| part.parse().unwrap_or_default()).collect()
}

/// Is the installation whole? What `check_installation` finds is not what ListInstances shows.
fn check(root: &Root, options: &Options) -> Ended {
    let system = resident(root)?;
    let shared = layout::shared(root, &system);
    password(options, "password")?;
    for action in ["install", "update"] {
        let place = state::place(&shared, &system.sid, action);
        if place.is_file() {
            let text = format!("Check of installation failed\n  Pending {action}: '{}'", place.display());
            return Err(Halt::new(1, text));
        }
    }
    let manifest = system.instance(root).join("exe/manifest");
    let (version, _) = media::version(&manifest)?;
    if version != system.version {
        return Err(Halt::new(1, "Check of installation failed\n  The versions of the components differ"));
    }
    println!("Checking installation of system {}...", system.sid);
    println!("SAP HANA Database installation checked successfully.");
    Ok(0)
}

fn uninstall(root: &Root, options: &Options, system: &System, log: &mut Log) -> Result<&'static str, Halt> {
    summary(
        log,
        system,
        "SAP HANA Database Uninstallation",
        &format!("Uninstall version {}", system.version),
    );
    log.say("Uninstalling SAP HANA Database...\n  Stopping system...")?;
    system.stop(root)?;
    if !system.wait_down(root, 600.0) {
        system.kill(root);
    }
    files::crash_point(root, "hdblcm.uninstall.stopped");
    users::remove(root, &system.sid, options)?;
    layout::remove(root, system)?;
    files::crash_point(root, "hdblcm.uninstall.files");
    forget(root, system)?;
    std::fs::remove_file(system.state(root, "system.json"))?;
    Ok("Uninstallation of the SAP HANA Database System finished")
}
