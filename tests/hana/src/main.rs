//! Stand-ins of SAP HANA's tools: one program that plays each tool under its name.
//!
//! `hana-standins install ROOT` makes a folder a host; see README.md.

mod backint;
mod backup;
mod backupdiag;
mod catalog;
mod clock;
mod database;
mod faults;
mod files;
mod halt;
mod hdb;
mod hdblcm;
mod hdbsql;
mod leftovers;
mod media;
mod nsutil;
mod recovery;
mod replication;
mod replication_scripts;
mod root;
mod sapcontrol;
mod saphostctrl;
mod scripts;
mod session;
mod sql;
mod statements;
mod system;
mod userstore;
mod views;

use halt::{Ended, Halt};
use root::{MARKER, Root, Settings};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A tool: plays one call on a host.
type Tool = fn(&Root, &[String]) -> Ended;

/// The tools by name.
const TOOLS: [(&str, Tool); 11] = [
    ("hdblcm", hdblcm::run),
    ("sapcontrol", sapcontrol::run),
    ("HDB", hdb::run),
    ("hdbsql", hdbsql::run),
    ("hdbuserstore", userstore::run),
    ("hdbnsutil", nsutil::run),
    ("HDBSettings.sh", scripts::settings),
    ("hdbbackupcheck", recovery::check_file),
    ("hdbbackupdiag", backupdiag::run),
    ("SAPCAR", media::sapcar),
    ("saphostctrl", saphostctrl::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let ended = play(&arguments);
    let code = match ended {
        Ok(code) => code,
        Err(Halt { code, said }) => {
            if !said.is_empty() {
                eprintln!("{said}");
            }
            code
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn play(arguments: &[String]) -> Ended {
    let called = arguments.first().map(String::as_str).unwrap_or_default();
    let name = Path::new(called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rest = arguments.get(1..).unwrap_or_default();
    if name.starts_with("hdb.sap") {
        return system::serve(&Root::find()?, &name);
    }
    if name == "hdb.backup" {
        return backup::serve(&Root::find()?, rest.first().map(String::as_str).unwrap_or_default());
    }
    let tools = TOOLS.iter().chain(&scripts::SCRIPTS);
    let Some((_, tool)) = tools.into_iter().find(|(tool, _)| *tool == name) else { return own(rest) };
    let root = Root::find()?;
    root.note_call(arguments);
    if ["hdblcm", "SAPCAR"].contains(&name.as_str())
        || arguments.iter().any(|argument| argument.contains("RECOVER "))
    {
        root.show_process();
    }
    root.faults().check()?;
    tool(&root, rest)
}

const USAGE: &str = "Usage:
  hana-standins install ROOT [--host NAME] [--factor SECONDS] [--peer NAME=ROOT]
  hana-standins media ROOT VERSION FOLDER     media of a version, as SAPCAR extracts it
  hana-standins archive ROOT VERSION FILE     a SAR archive of a version
  hana-standins faults | crash-points         what can be asked for";

/// The program's own commands.
fn own(arguments: &[String]) -> Ended {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["install", root, options @ ..] => install(&fs::canonicalize(root)?, options),
        ["media", root, version, folder] => {
            let root = Root::new(&fs::canonicalize(root)?);
            media::extract(&root, version, &root.at(folder))?;
            Ok(0)
        }
        ["archive", root, version, file] => {
            let root = Root::new(&fs::canonicalize(root)?);
            media::archive(&root, version, &root.at(file))?;
            Ok(0)
        }
        ["faults"] => {
            for (name, argument, effect) in faults::LIST {
                println!("{name} {argument}\n    {effect}");
            }
            Ok(0)
        }
        ["crash-points"] => {
            println!("{}", files::CRASH_POINTS.join("\n"));
            Ok(0)
        }
        _ => Err(Halt::new(2, USAGE)),
    }
}

/// Makes the folder a host without a system: the marker, the settings, and the tools of the host.
fn install(path: &Path, options: &[&str]) -> Ended {
    let mut settings = Settings { host: None, factor: 1.0, peers: BTreeMap::new() };
    for option in options.chunks(2) {
        match option {
            ["--host", name] => settings.host = Some((*name).to_string()),
            ["--factor", factor] => {
                settings.factor = factor.parse().map_err(|_| Halt::new(2, "--factor needs a number"))?;
            }
            ["--peer", peer] => {
                let (name, root) = peer.split_once('=').ok_or_else(|| Halt::new(2, USAGE))?;
                settings.peers.insert(name.to_string(), PathBuf::from(root));
            }
            _ => return Err(Halt::new(2, USAGE)),
        }
    }
    let root = Root::new(path);
    files::folder(&path.join(MARKER))?;
    let program = root.state("program");
    let beside = root.state("program.new");
    fs::copy(std::env::current_exe()?, &beside)?;
    fs::rename(&beside, &program)?;
    files::save(&root, &root.state("settings.json"), &settings)?;
    files::folder(&root.at("/var/tmp"))?;
    for tool in ["saphostctrl", "sapcontrol", "SAPCAR"] {
        root.link(format!("/usr/sap/hostctrl/exe/{tool}"))?;
    }
    Ok(0)
}
