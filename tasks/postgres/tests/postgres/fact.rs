//! `fact`: what the fleet sees of a primary, of its standby, and of servers and stores that do not answer.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use hostler_testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::backup::back_up;
use crate::kit::{Lab, SOON, as_postgres, output};
use crate::store::Store;

/// What `docs/postgres.md` promises, with what a busy machine takes to start the program.
const WITHIN: Duration = Duration::from_secs(9);

/// The fact as the agent would take it, of one cluster.
#[track_caller]
fn read(mut program: Command, title: &str) -> Value {
    let begun = Instant::now();
    let (status, text, said) = output(program.arg("fact"));
    assert!(status == 0 && begun.elapsed() < WITHIN, "{status} after {:?}: {said}", begun.elapsed());
    assert!(text.len() <= 4096 && text.lines().count() == 1, "{text}");
    let fact: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    fact["clusters"][title].clone()
}

/// What a value holds, or why it holds nothing.
#[track_caller]
fn unclear(entry: &Value, name: &str, reason: &str, why: &str) {
    let said = entry["unclear"][reason].as_str().unwrap_or_default();
    assert!(entry.get(name) == Some(&Value::Null) && said.contains(why), "{name}: {entry}");
}

/// A standby of version 15 that streams from a cluster of another lab, with these settings; its port.
pub(crate) fn standby(of: &Lab, port: u16, settings: &str) -> (Lab, u16) {
    let lab = Lab::new();
    let data = lab.data("15");
    fs::create_dir_all(data.parent().expect("a parent")).expect("a folder");
    crate::kit::own(data.parent().expect("a parent"));
    let mut copy = as_postgres("/usr/lib/postgresql/15/bin/pg_basebackup");
    copy.arg("-h")
        .arg(of.path("run"))
        .args(["-p", &port.to_string(), "-w", "-R", "-c", "fast", "-D"])
        .arg(&data);
    let (status, _, said) = output(&mut copy);
    assert_eq!(status, 0, "{said}");
    // Debian's tool takes these from the data.
    for file in ["pg_hba.conf", "pg_ident.conf"] {
        fs::copy(of.conf(15).join(file), data.join(file)).expect("the file");
    }
    fs::write(data.join("postgresql.conf"), "").expect("the file");
    for file in ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"] {
        crate::kit::own(&data.join(file));
    }
    let port = lab.start_cluster(15, &format!("shared_buffers = 8MB\nhot_standby = on\n{settings}"));
    (lab, port)
}

#[test]
fn the_fleet_sees_what_is_so_and_what_cannot_be_told() {
    let mut store = Store::new();
    let port = store.cluster(15, "");
    let title = format!("15/{}", store.lab.name());
    let entry = read(store.program(&[]), &title);
    assert_eq!(
        (&entry["version"], &entry["port"], &entry["running"], &entry["role"]),
        (&json!(15), &json!(port), &json!(true), &json!("primary")),
        "{entry}"
    );
    assert_eq!(entry["running_version"], entry["installed_version"], "{entry}");
    assert_eq!(entry["replication"], json!({"receivers": 0, "lag_bytes": null}), "{entry}");
    assert_eq!((&entry["backup"], &entry["pending_restart"]), (&json!({"good": 0}), &json!([])), "{entry}");
    assert!(
        entry["size_bytes"].as_u64() > Some(1 << 20) && entry["wraparound_age"].as_u64().is_some(),
        "{entry}"
    );
    assert!(entry.get("unclear").is_none(), "{entry}");
    let stamp = back_up(&store);
    let (second, second_port) = standby(&store.lab, port, "");
    let sql = "alter system set max_connections = 50; select pg_reload_conf()";
    store.lab.sql(port, "postgres", sql);
    eventually(SOON, || {
        let entry = read(store.program(&[]), &title);
        let waits = entry["pending_restart"] == json!(["max_connections"]) && entry["archiving"] == "working";
        let followed = entry["replication"] == json!({"receivers": 1, "lag_bytes": 0});
        let kept = entry["backup"]["newest"] == *stamp && entry["backup"]["good"] == 1;
        let age = entry["backup"]["age_seconds"].as_u64();
        (waits && followed && kept && age < Some(600)).then_some(()).ok_or_else(|| entry.to_string())
    });
    let of_standby = || read(second.program(&[]), &format!("15/{}", second.name()));
    eventually(SOON, || {
        let entry = of_standby();
        let follows = json!({"streaming": true, "lag_bytes": 0, "lag_seconds": 0});
        (entry["role"] == "standby" && entry["replication"] == follows)
            .then_some(())
            .ok_or_else(|| entry.to_string())
    });
    unclear(&of_standby(), "backup", "backup", "archive_command");
    second.sql(second_port, "postgres", "select pg_wal_replay_pause()");
    store.lab.sql(port, "postgres", "create table t as select generate_series(1, 1000) as i");
    eventually(SOON, || {
        let entry = of_standby();
        (entry["replication"]["lag_bytes"].as_u64() > Some(0)).then_some(()).ok_or_else(|| entry.to_string())
    });
    // An archive that fails, and a store that is away.
    store.lab.sql(
        port,
        "postgres",
        &format!(
            "alter system set archive_command = 'false; {}'; select pg_reload_conf()",
            store.hook("archive", "%p").replace('\'', "''")
        ),
    );
    store.close();
    store.lab.sql(port, "postgres", "select pg_switch_wal()");
    eventually(SOON, || {
        let entry = read(store.program(&[]), &title);
        (entry["archiving"] == "failing").then_some(()).ok_or_else(|| entry.to_string())
    });
    let entry = read(store.program(&[]), &title);
    assert!(entry["backup"].is_null() && entry["unclear"]["backup"].is_string(), "{entry}");
    assert_eq!(entry["role"], "primary", "{entry}");
    // The disk of a cluster is away: of this one nothing can be told, and everything of the other.
    let (away, folder) = (format!("{}away", second.name()), second.path("data").join("away"));
    second.run(
        "pg_createcluster",
        &["15", &away, "-d", folder.to_str().expect("a path"), "--start-conf=manual"],
    );
    fs::rename(&folder, second.path("elsewhere")).expect("the folder");
    let entry = read(second.program(&[]), &format!("15/{away}"));
    unclear(&entry, "running", "server", &format!("does {} exist?", folder.display()));
    assert_eq!(of_standby()["role"], "standby");
    let (status, _, said) = output(&mut second.program(&["health", "--cluster", &away]));
    assert!(status == 3 && said.contains("owneruid"), "{status} {said}");
    // One that does not run, and one that does not answer: the host still says so in time.
    second.run("pg_ctlcluster", &["-m", "immediate", "15", second.name(), "stop"]);
    let entry = of_standby();
    assert_eq!(entry["running"], false, "{entry}");
    unclear(&entry, "role", "server", "does not run");
    let pid = fs::read_to_string(store.lab.data("15").join("postmaster.pid")).expect("the pid");
    let pid = Pid::from_raw(pid.lines().next().and_then(|line| line.parse().ok()).expect("a number"));
    kill(pid, Signal::SIGSTOP).expect("the server");
    let entry = read(store.program(&[]), &title);
    kill(pid, Signal::SIGCONT).expect("the server");
    unclear(&entry, "role", "server", "in time");
    assert_eq!((&entry["running"], &entry["port"]), (&json!(true), &json!(port)), "{entry}");
}
