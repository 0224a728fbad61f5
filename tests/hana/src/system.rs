//! One HANA system of a host: its record, its places, and its server, a real process.
//!
//! The record is `.hana-standins/systems/SID/system.json`; who changes it holds the lock beside it. The server is a process
//! `hdb.sapSID_HDBNN` which holds `server.lock` as long as it lives: a system runs exactly if that lock is held, so that
//! SIGKILL and a power cut end it as they end the real one.

use crate::clock;
use crate::files;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A tenant database.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    /// Number of its volume's folder.
    pub(crate) volume: u32,
    /// Is it started with the system?
    pub(crate) active: bool,
}

/// The record of a system.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct System {
    pub(crate) sid: String,
    /// Two digits.
    pub(crate) number: String,
    /// As in `fullversion`, without the build: `2.00.077.00`.
    pub(crate) version: String,
    pub(crate) build: String,
    pub(crate) sapmnt: PathBuf,
    pub(crate) datapath: PathBuf,
    pub(crate) logpath: PathBuf,
    pub(crate) tenants: Vec<Tenant>,
    /// Parameters that were set: `file/layer/section/key`, layer `SYSTEM`, `HOST:h` or `DATABASE:d`.
    pub(crate) ini: BTreeMap<String, String>,
    pub(crate) installed_at: i64,
    /// Does sapstartsrv run?
    pub(crate) service: bool,
    /// When the server that runs, or ran last, was started.
    pub(crate) started: i64,
    /// When it was asked to stop; `None`: it was not.
    pub(crate) stopping: Option<i64>,
    /// Replication, as hdbnsutil keeps it.
    #[serde(default)]
    pub(crate) replication: Replication,
}

/// The place of a system in a replication.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Replication {
    /// `primary`, or the mode of a secondary: `sync`, `syncmem`, `async`; empty means none.
    pub(crate) mode: String,
    pub(crate) operation_mode: String,
    pub(crate) site_id: u32,
    pub(crate) site_name: String,
    /// Of a secondary: host and site of its primary.
    pub(crate) remote_host: String,
    pub(crate) remote_site: u32,
    /// Of a primary: was it suspended for a takeover?
    pub(crate) suspended: bool,
    /// Of a primary: its secondaries.
    pub(crate) sites: Vec<Site>,
}

/// A secondary, as its primary knows it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) mode: String,
}

impl Replication {
    pub(crate) fn primary(site_id: u32, name: &str) -> Self {
        let mode = "primary".to_string();
        Self { mode: mode.clone(), operation_mode: mode, site_id, site_name: name.into(), ..Self::default() }
    }

    /// The mode as hdbnsutil shows it.
    pub(crate) fn mode(&self) -> &str {
        if self.mode.is_empty() { "none" } else { &self.mode }
    }
}

/// One of the system's databases: its name, its volume, its service.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) volume: u32,
}

/// Nominal seconds from the first process to the last, when a system starts.
const START: f64 = 20.0;
/// The same when it stops.
const STOP: f64 = 10.0;

/// What GetProcessList shows of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) light: &'static str,
    pub(crate) text: &'static str,
    /// When it was started; `None` of one that is stopped.
    pub(crate) started: Option<i64>,
}

/// The processes in the order of their start.
pub(crate) const PROCESSES: [(&str, &str); 7] = [
    ("hdbdaemon", "HDB Daemon"),
    ("hdbcompileserver", "HDB Compileserver"),
    ("hdbnameserver", "HDB Nameserver"),
    ("hdbpreprocessor", "HDB Preprocessor"),
    ("hdbindexserver", "HDB Indexserver"),
    ("hdbwebdispatcher", "HDB Web Dispatcher"),
    ("hdbxsengine", "HDB XSEngine"),
];

/// The processes at an instant: GRAY before their turn, YELLOW during it, GREEN after it.
///
/// `began` and `length` are in microseconds; `stuck` names processes that never come further than YELLOW.
fn rising(began: i64, length: i64, now: i64, stuck: impl Fn(&str) -> bool) -> Vec<Process> {
    let turn = length / PROCESSES.len() as i64;
    let list = PROCESSES.iter().zip(0..);
    list.map(|((name, description), place)| {
        let age = now - began - turn * place;
        let (light, text) = match () {
            () if age < 0 => ("GRAY", "Stopped"),
            () if age < turn => ("YELLOW", "Initializing"),
            () if stuck(name) => ("YELLOW", "Initializing"),
            () => ("GREEN", "Running"),
        };
        let started = (light != "GRAY").then_some(began + turn * place);
        Process { name, description, light, text, started }
    })
    .collect()
}

/// The processes while the system stops: the last started goes first.
fn setting(began: i64, asked: i64, length: i64, now: i64) -> Vec<Process> {
    let turn = length / PROCESSES.len() as i64;
    let list = PROCESSES.iter().zip(0..);
    list.map(|((name, description), place)| {
        let over = now - asked > turn * (PROCESSES.len() as i64 - place);
        let (light, text) = if over { ("GRAY", "Stopped") } else { ("YELLOW", "Stopping") };
        Process { name, description, light, text, started: (!over).then_some(began) }
    })
    .collect()
}

/// The folder of the system's own state.
fn folder(root: &Root, sid: &str) -> PathBuf {
    root.state("systems").join(sid)
}

/// All systems of the host, by SID.
pub(crate) fn all(root: &Root) -> Result<Vec<System>, Halt> {
    let mut systems = Vec::new();
    for entry in fs::read_dir(root.state("systems")).into_iter().flatten().flatten() {
        if let Some(system) = files::load::<System>(&entry.path().join("system.json"))? {
            systems.push(system);
        }
    }
    systems.sort_by(|one, other| one.sid.cmp(&other.sid));
    Ok(systems)
}

/// The system of this SID.
pub(crate) fn load(root: &Root, sid: &str) -> Result<Option<System>, Halt> {
    files::load(&folder(root, sid).join("system.json"))
}

/// The system with this instance number.
pub(crate) fn numbered(root: &Root, number: &str) -> Result<Option<System>, Halt> {
    Ok(all(root)?.into_iter().find(|system| system.number == number))
}

/// Waits for the lock of everything that belongs to the SID.
pub(crate) fn lock(root: &Root, sid: &str) -> Result<File, Halt> {
    Ok(files::lock(&folder(root, sid).join("lock"))?)
}

/// Changes the record under its lock.
pub(crate) fn change(root: &Root, sid: &str, how: impl FnOnce(&mut System)) -> Result<(), Halt> {
    let _held = lock(root, sid)?;
    let mut system =
        load(root, sid)?.ok_or_else(|| Halt::new(1, format!("there is no system {sid} on this host")))?;
    how(&mut system);
    system.save(root)
}

impl System {
    pub(crate) fn save(&self, root: &Root) -> Result<(), Halt> {
        files::save(root, &self.state(root, "system.json"), self)
    }

    /// A file of the system's own state.
    pub(crate) fn state(&self, root: &Root, name: &str) -> PathBuf {
        folder(root, &self.sid).join(name)
    }

    /// `/usr/sap/SID/HDBNN`, where it lies on this host.
    pub(crate) fn instance(&self, root: &Root) -> PathBuf {
        root.at(format!("/usr/sap/{}/HDB{}", self.sid, self.number))
    }

    /// Does it follow a primary?
    pub(crate) fn is_secondary(&self) -> bool {
        !["", "primary"].contains(&self.replication.mode.as_str())
    }

    /// The database that knows the tenants.
    pub(crate) fn systemdb(&self) -> Database {
        Database { name: "SYSTEMDB".into(), volume: 1 }
    }

    /// SYSTEMDB and the tenants.
    pub(crate) fn databases(&self) -> Vec<Database> {
        let tenants =
            self.tenants.iter().map(|tenant| Database { name: tenant.name.clone(), volume: tenant.volume });
        std::iter::once(self.systemdb()).chain(tenants).collect()
    }

    /// The SQL port of a database: 3NN13, the first tenant 3NN15, later ones from 3NN40 in steps of three.
    pub(crate) fn sql_port(&self, database: &str) -> String {
        let place = self.tenants.iter().position(|tenant| tenant.name == database);
        let last = match place {
            None => 13,
            Some(0) => 15,
            Some(place) => 41 + 3 * (place - 1),
        };
        format!("3{}{last:02}", self.number)
    }

    /// A parameter: of the database, else of the system, else `None`.
    pub(crate) fn parameter(&self, database: &str, section: &str, key: &str) -> Option<&str> {
        let layers = [format!("DATABASE:{database}"), "SYSTEM".to_string()];
        layers
            .iter()
            .find_map(|layer| self.ini.get(&format!("global.ini/{layer}/{section}/{key}")))
            .map(String::as_str)
    }

    /// Does the server live?
    pub(crate) fn lives(&self, root: &Root) -> bool {
        let Ok(file) = files::lock_file(&self.state(root, "server.lock")) else { return false };
        matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }

    /// The pid of the server that lives, as it noted it.
    pub(crate) fn pid(&self, root: &Root) -> Option<i32> {
        fs::read_to_string(self.state(root, "server.pid")).ok()?.trim().parse().ok()
    }

    /// The processes as GetProcessList shows them now.
    pub(crate) fn processes(&self, root: &Root) -> Vec<Process> {
        let now = clock::now();
        if !self.lives(root) {
            return rising(i64::MAX / 2, 7, 0, |_| false);
        }
        if let Some(asked) = self.stopping {
            return setting(self.started, asked, root.micros(STOP), now);
        }
        let faults = root.faults();
        let stuck = |name: &str| faults.find("process-yellow", |process| process == name).is_some();
        rising(self.started, root.micros(START), now, stuck)
    }

    /// Does the database take connections? SYSTEMDB as soon as its nameserver is GREEN, an active tenant as soon as its
    /// indexserver is.
    pub(crate) fn connectable(&self, root: &Root, database: &str) -> bool {
        let service = match database {
            "SYSTEMDB" => "hdbnameserver",
            _ => "hdbindexserver",
        };
        if self.is_secondary() || self.replication.suspended {
            return false;
        }
        let active = self.tenants.iter().all(|tenant| tenant.name != database || tenant.active);
        let processes = self.processes(root);
        active && processes.iter().any(|process| process.name == service && process.light == "GREEN")
    }

    /// Starts the server, if it does not live. The system is up later, by the clock.
    pub(crate) fn start(&self, root: &Root) -> Result<(), Halt> {
        {
            let _held = lock(root, &self.sid)?;
            if self.lives(root) {
                return Ok(());
            }
            let mut system = load(root, &self.sid)?.unwrap_or_else(|| self.clone());
            system.started = clock::now();
            system.stopping = None;
            system.save(root)?;
        }
        files::crash_point(root, "start.noted");
        let mut server = Command::new(root.state("program"));
        server.arg0(self.server_name()).env("HANA_STANDINS_ROOT", root.at("/"));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        let mut child = server.spawn()?;
        let begun = Instant::now();
        while !self.lives(root) {
            // Another start may have won: then this server ends, and that one lives.
            let ended = child.try_wait()?.is_some();
            if (ended && !self.lives(root)) || begun.elapsed() > Duration::from_secs(30) {
                return Err(Halt::new(1, "the server of the stand-ins does not start"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Asks the server to stop. It ends later, by the clock.
    pub(crate) fn stop(&self, root: &Root) -> Result<(), Halt> {
        if self.lives(root) {
            change(root, &self.sid, |system| {
                system.stopping.get_or_insert(clock::now());
            })?;
            files::crash_point(root, "stop.noted");
        }
        Ok(())
    }

    /// Kills the server.
    pub(crate) fn kill(&self, root: &Root) {
        let Some(pid) = self.pid(root).filter(|_| self.lives(root)) else { return };
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        let begun = Instant::now();
        while self.lives(root) && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the server lives no more, at most so many nominal seconds.
    ///
    /// A server whose time to stop is over within them is waited for, however slow the machine is.
    pub(crate) fn wait_down(&self, root: &Root, nominal: f64) -> bool {
        let until = clock::now().saturating_add(root.micros(nominal));
        let begun = Instant::now();
        while self.lives(root) {
            let asked = load(root, &self.sid).ok().flatten().and_then(|system| system.stopping);
            let ends = asked.is_some_and(|asked| asked.saturating_add(root.micros(STOP)) < until);
            let slow = ends && begun.elapsed() < Duration::from_secs(30);
            if clock::now() > until && !slow {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until every process is GREEN, at most so many nominal seconds.
    pub(crate) fn wait_up(&self, root: &Root, nominal: f64) -> Result<bool, Halt> {
        let until = clock::now().saturating_add(root.micros(nominal));
        loop {
            // Asked before the look, so that a slow machine looks once more behind the deadline.
            let late = clock::now() > until;
            let now = load(root, &self.sid)?.unwrap_or_else(|| self.clone());
            if now.processes(root).iter().all(|process| process.light == "GREEN") {
                return Ok(true);
            }
            if late {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server's name in the list of processes.
    pub(crate) fn server_name(&self) -> String {
        format!("hdb.sap{}_HDB{}", self.sid, self.number)
    }
}

/// The server: lives until it was asked to stop and the time of a stop has passed, or its root is gone.
pub(crate) fn serve(root: &Root, name: &str) -> Ended {
    let Some((sid, _)) = name.strip_prefix("hdb.sap").and_then(|rest| rest.split_once("_HDB")) else {
        return Err(Halt::new(70, "hana-standins: a server without a SID"));
    };
    // Out of the terminal and the process group of the tool that started it.
    let _ = nix::unistd::setsid();
    let file = files::lock_file(&folder(root, sid).join("server.lock"))?;
    // A reader holds the lock for an instant; another server holds it for long.
    let begun = Instant::now();
    while file.try_lock().is_err() {
        if begun.elapsed() > Duration::from_secs(1) {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    files::write(root, &folder(root, sid).join("server.pid"), std::process::id().to_string().as_bytes())?;
    for tick in 0_u64.. {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(Some(system)) = load(root, sid) else { return Ok(0) };
        if tick % 5 == 4 && system.stopping.is_none() {
            if system.is_secondary() {
                // What fails is tried again in the next turn; the primary shows how far it came.
                let _ = crate::replication::fetch(root, &system);
            } else {
                crate::backup::logs(root, &system);
            }
        }
        if system.stopping.is_some_and(|asked| clock::now() - asked > root.micros(STOP)) {
            return Ok(0);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lights(processes: &[Process]) -> Vec<&'static str> {
        processes.iter().map(|process| process.light).collect()
    }

    #[test]
    fn processes_turn_green_one_by_one() {
        let at = |now| lights(&rising(0, 700, now, |_| false));
        assert_eq!(at(-1), ["GRAY"; 7]);
        assert_eq!(at(250), ["GREEN", "GREEN", "YELLOW", "GRAY", "GRAY", "GRAY", "GRAY"]);
        assert_eq!(at(700), ["GREEN"; 7]);
        let stuck = rising(0, 700, 9_999, |name| name == "hdbindexserver");
        assert_eq!(lights(&stuck).iter().filter(|light| **light == "YELLOW").count(), 1);
    }

    #[test]
    fn processes_stop_from_the_last_to_the_first() {
        let at = |now| lights(&setting(0, 0, 700, now));
        assert_eq!(at(0), ["YELLOW"; 7]);
        assert_eq!(at(101), ["YELLOW", "YELLOW", "YELLOW", "YELLOW", "YELLOW", "YELLOW", "GRAY"]);
        assert_eq!(at(701), ["GRAY"; 7]);
    }

    #[test]
    fn ports_are_those_of_the_instance() {
        let text = r#"{"sid":"HA1","number":"10","version":"","build":"","sapmnt":"","datapath":"","logpath":"",
            "tenants":[{"name":"HA1","volume":2,"active":true},{"name":"T2","volume":3,"active":true}],
            "ini":{},"installed_at":0,"service":true,"started":0,"stopping":null}"#;
        let system: System = serde_json::from_str(text).unwrap();
        let ports = ["SYSTEMDB", "HA1", "T2"].map(|database| system.sql_port(database));
        assert_eq!(ports, ["31013", "31015", "31041"]);
    }
}
