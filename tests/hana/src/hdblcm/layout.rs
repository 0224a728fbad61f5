//! The files of a system below `/hana/shared` and `/usr/sap`.

use crate::files;
use crate::halt::Halt;
use crate::media;
use crate::root::Root;
use crate::scripts;
use crate::system::System;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Tools in the folder `exe` of an instance.
const TOOLS: [&str; 6] =
    ["sapcontrol", "hdbsql", "hdbuserstore", "hdbnsutil", "hdbbackupcheck", "hdbbackupdiag"];

/// The system's folder below the shared mount.
pub(crate) fn shared(root: &Root, system: &System) -> PathBuf {
    root.at(&system.sapmnt).join(&system.sid)
}

/// Lays out the programs, links and folders. Repeatable.
pub(crate) fn binaries(root: &Root, system: &System) -> Result<(), Halt> {
    let shared = shared(root, system);
    let instance = shared.join(format!("HDB{}", system.number));
    let own = root.at("/usr/sap").join(&system.sid);
    for folder in [
        instance.join("backup/data"),
        instance.join("backup/log"),
        instance.join(root.host()).join("trace"),
        shared.join("global/hdb/custom/config"),
        shared.join("profile"),
        own.join("SYS"),
        own.join("home"),
    ] {
        files::folder(&folder)?;
    }
    link(&instance, &own.join(format!("HDB{}", system.number)))?;
    link(&shared.join("global"), &own.join("SYS/global"))?;
    link(&shared.join("profile"), &own.join("SYS/profile"))?;
    for tool in TOOLS {
        root.link(instance.join("exe").join(tool))?;
    }
    for (script, _) in scripts::SCRIPTS {
        root.link(instance.join("exe/python_support").join(script))?;
    }
    root.link(instance.join("HDBSettings.sh"))?;
    root.link(instance.join("HDB"))
}

fn link(to: &Path, at: &Path) -> Result<(), Halt> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at)?;
    }
    Ok(symlink(to, at)?)
}

/// Puts the manifest of the version that is installed: the instant at which the version changes.
pub(crate) fn manifest(root: &Root, system: &System) -> Result<(), Halt> {
    let place = shared(root, system).join(format!("HDB{}/exe/manifest", system.number));
    files::write(root, &place, media::manifest(&system.version, &system.build).as_bytes())
}

/// Adds the instance to `/usr/sap/sapservices`, which ListInstances reads, or takes it out.
pub(crate) fn services(root: &Root, system: &System, there: bool) -> Result<(), Halt> {
    let place = root.at("/usr/sap/sapservices");
    let profile = format!("pf=/usr/sap/{0}/SYS/profile/{0}_HDB{1}_", system.sid, system.number);
    let text = fs::read_to_string(&place).unwrap_or_else(|_| "#!/bin/sh\n".into());
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.contains(&profile)).map(str::to_string).collect();
    if there {
        lines.push(format!(
            "/usr/sap/{0}/HDB{1}/exe/sapstartsrv {profile}{2} -D -u {3}adm",
            system.sid,
            system.number,
            root.host(),
            system.sid.to_lowercase()
        ));
    }
    files::write(root, &place, (lines.join("\n") + "\n").as_bytes())
}

/// The list of databases, as the trento agent reads it.
pub(crate) fn databases(root: &Root, system: &System) -> Result<(), Halt> {
    let mut text = String::from("# DATABASE:CONTAINER:USER:GROUP:UID:GID:HOST:SQLPORT:ACTIVE\n");
    for tenant in &system.tenants {
        let active = if tenant.active { "yes" } else { "no" };
        text += &format!("{}::::::{}::{active}\n", tenant.name, root.host());
    }
    files::write(root, &shared(root, system).join("global/hdb/mdc/databases.lst"), text.as_bytes())
}

/// Removes everything of the system.
pub(crate) fn remove(root: &Root, system: &System) -> Result<(), Halt> {
    for place in [root.at("/usr/sap").join(&system.sid), root.at(&system.datapath), root.at(&system.logpath)]
    {
        gone(&place)?;
    }
    services(root, system, false)?;
    gone(&shared(root, system))
}

fn gone(place: &Path) -> Result<(), Halt> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
