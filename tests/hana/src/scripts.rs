//! `HDBSettings.sh` and the scripts of `python_support` that it starts.

use crate::clock;
use crate::halt::{Ended, Halt};
use crate::hdb;
use crate::recovery;
use crate::replication_scripts;
use crate::root::Root;
use crate::sql::words::Cursor;
use crate::system;
use std::path::Path;

/// The scripts by name.
pub(crate) const SCRIPTS: [(&str, crate::Tool); 3] = [
    ("recoverSys.py", recover_sys),
    ("systemReplicationStatus.py", replication_scripts::status),
    ("landscapeHostConfiguration.py", replication_scripts::landscape),
];

/// `HDBSettings.sh SCRIPT …`: the script with HANA's environment.
pub(crate) fn settings(root: &Root, arguments: &[String]) -> Ended {
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    let name = Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match SCRIPTS.iter().find(|(script, _)| *script == name) {
        Some((_, script)) => script(root, arguments.get(1..).unwrap_or_default()),
        None => Err(Halt::new(127, format!("HDBSettings.sh: {first}: command not found"))),
    }
}

/// `recoverSys.py --command="RECOVER …"`: recovers SYSTEMDB of a system that is down, and starts it.
pub(crate) fn recover_sys(root: &Root, arguments: &[String]) -> Ended {
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let Some(command) = option("--command=") else {
        return Err(Halt::new(1, "recoverSys.py: --command is missing"));
    };
    let timeout: f64 = option("--timeout=").and_then(|text| text.parse().ok()).unwrap_or(3600.0);
    let system = hdb::own(root)?;
    let begun = clock::now();
    let stamp = || clock::form(clock::now(), "%Y-%m-%dT%H:%M:%S+00:00");
    let pid = std::process::id();
    let log = system.instance(root).join(root.host()).join("trace/backup.log");
    println!("[{pid}] >> starting recoverSys (at {})", clock::form(begun, "%a %b %e %H:%M:%S %Y"));
    println!("[{pid}] args: ()\n[{pid}] keys: {{'command': {command:?}}}");
    println!("using logfile {}", log.display());
    println!("recoverSys started: ============{}============", clock::form(begun, "%Y-%m-%d %H:%M:%S"));
    println!("testing master: {0}\n{0} is master\nshutdown database, timeout is 120", root.host());
    let ended = (|| -> Result<recovery::Reached, String> {
        if system.lives(root) {
            return Err("the database is running: stop it first".into());
        }
        println!(
            "stop system\nstop system: {}\ncreating file recoverInstance.sql\nrestart database",
            root.host()
        );
        let mut cursor = Cursor::new(command).map_err(|error| error.text)?;
        cursor.expect("RECOVER").map_err(|error| error.text)?;
        let request = recovery::parse(&mut cursor).map_err(|error| error.text)?;
        let reached = recovery::recover(root, &system, "SYSTEMDB", &request)?;
        system.start(root).map_err(|halt| halt.said)?;
        match system.wait_up(root, timeout).map_err(|halt| halt.said)? {
            true => Ok(reached),
            false => Err("the database did not start in time".into()),
        }
    })();
    let seconds = (clock::now() - begun) as f64 / 1e6;
    let (code, meaning) = match ended {
        Ok(reached) => {
            let time = clock::form(reached.time, "%Y-%m-%dT%H:%M:%S+00:00");
            println!(
                "{}  P{pid}  INFO    RECOVERY RECOVER DATA finished successfully, reached timestamp {time}, reached log position {}",
                stamp(),
                reached.position
            );
            println!("recoverSys finished successfully: {}", clock::form(clock::now(), "%Y-%m-%d %H:%M:%S"));
            (0, "RC_TEST_OK")
        }
        Err(text) => {
            println!("{}  P{pid}  ERROR   RECOVERY RECOVER DATA finished with error: [448] {text}", stamp());
            println!("recoverSys failed: {}", clock::form(clock::now(), "%Y-%m-%d %H:%M:%S"));
            (1, "RC_TEST_ERR")
        }
    };
    println!("[{pid}] << ending recoverSys, rc = {code} ({meaning}), after {seconds:.3} secs");
    Ok(code)
}

/// Changes the record of a tenant.
pub(crate) fn activate(root: &Root, sid: &str, name: &str, active: bool) -> Result<(), Halt> {
    system::change(root, sid, |system| {
        for tenant in system.tenants.iter_mut().filter(|tenant| tenant.name == name) {
            tenant.active = active;
        }
    })
}
