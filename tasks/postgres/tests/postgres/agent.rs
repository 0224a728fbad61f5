//! The tasks `postgres-health` and `postgres-upgrade` as orders, carried out by the real agent (`HOSTLER_BIN`).
//!
//! They are installed as they are, but for the program's path, which leads to a test's own clusters, and the folder of
//! pgbouncer's file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::{Host, eventually, free_ports, signal};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::kit::Lab;
use crate::load::Load;
use crate::store::{ID, Store};
use crate::switchover::pair;
use crate::upgrade::{LEFT, bare, host as clusters};

/// As long as a run may take on a machine with much else to do.
const LONG: Duration = Duration::from_secs(400);

fn install(host: &Host, lab: &Lab, name: &str) {
    install_with(host, lab, name, "");
}

/// `more` are lines of the shell that change what the program is told.
fn install_with(host: &Host, lab: &Lab, name: &str, more: &str) {
    let program = lab.path("program");
    if !program.exists() {
        let text = format!(
            "#!/bin/sh\nexport PG_CLUSTER_CONF_ROOT={} HOSTLER_POSTGRES_STATE={}\n{more}\nexec {} \"$@\"\n",
            lab.path("conf").display(),
            lab.path("state").display(),
            env!("CARGO_BIN_EXE_hostler-postgres")
        );
        fs::write(&program, text).expect("the program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the program");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let yaml = fs::read_to_string(folder.join("task.yml")).expect("the task");
    // The program of a checkout may be where the user postgres cannot go.
    let yaml = yaml.replace("    user: postgres\n", "");
    let script = name.split('-').next_back().unwrap_or(name);
    let text = fs::read_to_string(folder.join(script)).expect("the script");
    let text = text.replace("/etc/pgbouncer/", &format!("{}/", lab.path("").display()).replace("//", "/"));
    let text = text.replace("${HOSTLER_POSTGRES:-hostler-postgres}", &program.display().to_string());
    host.task(name, &yaml, &[(script, &text)]);
}

#[track_caller]
fn ends(host: &Host, order: &str, phase: &str) -> Value {
    eventually(LONG, || match host.report(order) {
        Some(report) if report["phase"] == phase => Ok(report),
        other => Err(format!("{order}: wanted {phase}, it says {other:?}; {}", host.log_tail())),
    })
}

#[test]
fn an_order_upgrades_a_cluster_under_load_and_one_that_cannot_changes_nothing() {
    let (lab, old, new) = clusters();
    let load = Load::start(&lab);
    let mut host = Host::on_dir("db1");
    let crash = format!("export HOSTLER_CRASH_FILE={}", lab.path("wish").display());
    install_with(&host, &lab, "postgres-upgrade", &crash);
    install(&host, &lab, "postgres-upgrade-finish");
    install(&host, &lab, "postgres-health");
    host.start();
    let health = json!({"task": "postgres-health", "params": {"cluster": lab.name()}});
    host.order("health", &health.to_string());
    let report = ends(&host, "health", "succeeded");
    assert_eq!(report["outputs"]["bad"], "0", "{report}");
    let params = json!({"cluster": lab.name(), "to": 15, "port": new, "databases": "databases.ini",
        "socket": lab.path("run"), "bouncer": lab.bouncer_port()});
    let order = json!({"task": "postgres-upgrade", "params": params}).to_string();
    let finish = json!({"task": "postgres-upgrade-finish", "params": params}).to_string();
    host.order("too-early", &finish);
    let report = ends(&host, "too-early", "failed");
    assert!(report["message"].to_string().contains("begin with `upgrade prepare`"), "{report}");
    lab.sql(old, "shop", "create table keyless (name text)");
    host.order("blocked", &order);
    let report = ends(&host, "blocked", "failed");
    assert!(report["message"].to_string().contains("public.keyless"), "{report}");
    assert!(!lab.conf(15).exists(), "nothing was changed");
    lab.sql(old, "shop", "drop table keyless");
    host.order("dry", &json!({"task": "postgres-upgrade", "params": params, "dry_run": true}).to_string());
    let report = ends(&host, "dry", "succeeded");
    let (_, logs) = host.hostler(&["logs", report["run"].as_str().expect("a run")]);
    assert!(logs.contains("holds clients for about"), "{logs}");
    assert!(!lab.conf(15).exists(), "nothing was changed");
    // A step that dies after the clients were let in at the new cluster: they are brought back, and nothing is left.
    fs::write(lab.path("wish"), CrashPoint::Opened.name()).expect("the wish");
    host.order("dies", &order);
    let report = ends(&host, "dies", "undone");
    assert!(!lab.path("wish").exists() && !lab.conf(15).exists(), "{report}");
    load.goes_on();
    assert_eq!(lab.sql(old, "shop", LEFT), "0");
    host.order("upgrade", &order);
    let report = ends(&host, "upgrade", "succeeded");
    load.goes_on();
    assert!(report["message"].to_string().contains("are the same on both"), "{report}");
    assert!(report["outputs"]["held_seconds"].to_string().contains('.'), "{report}");
    let downtime = &report["downtime"][0];
    assert_eq!(downtime["service"], json!(format!("postgres:{}", lab.name())), "{report}");
    assert!(downtime["seconds"].as_f64() > Some(0.0), "{report}");
    assert_eq!(lab.sql(new, "shop", "show server_version_num").get(..2), Some("15"));
    let (_, errors) = load.prove(&lab, new);
    assert!(errors.is_empty(), "{errors:?}");
    assert_ne!(lab.sql(new, "shop", LEFT), "0", "the way back is open");
    host.order("again", &order);
    ends(&host, "again", "unchanged");
    host.order("finish", &finish);
    ends(&host, "finish", "succeeded");
    assert!(!lab.conf(13).exists(), "the old cluster is gone");
    assert_eq!(lab.sql(new, "shop", LEFT), "0");
    host.order("finished", &finish);
    ends(&host, "finished", "unchanged");
}

#[test]
fn clients_are_released_when_the_executor_is_killed_in_the_switch() {
    let (lab, old, new) = clusters();
    let load = Load::start(&lab);
    let mut host = Host::on_dir("db3");
    let crash = format!("export HOSTLER_CRASH_FILE={}", lab.path("wish").display());
    install_with(&host, &lab, "postgres-upgrade", &crash);
    host.start();
    // The program hangs while it holds the clients, and nobody is left who could end it.
    fs::write(lab.path("wish"), format!("{} hang", CrashPoint::Fenced.name())).expect("the wish");
    let params = json!({"cluster": lab.name(), "to": 15, "port": new, "databases": "databases.ini",
        "socket": lab.path("run"), "bouncer": lab.bouncer_port(), "max_hold": 300});
    host.order("upgrade", &json!({"task": "postgres-upgrade", "params": params}).to_string());
    eventually(LONG, || match lab.path("wish").exists() {
        true => Err(format!("{:?}; {}", host.report("upgrade"), host.log_tail())),
        false => Ok(()),
    });
    let executors = host.executors();
    host.kill();
    assert!(!executors.is_empty(), "{}", host.log_tail());
    executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
    load.goes_on();
    host.start();
    let report = ends(&host, "upgrade", "undone");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("guard upgrade of step switch has fired: its executor is gone"), "{report}");
    load.goes_on();
    assert!(!lab.conf(15).exists(), "{report}");
    let (_, errors) = load.prove(&lab, old);
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn orders_upgrade_a_cluster_in_place() {
    let (lab, port, _) = bare();
    let mut host = Host::on_dir("db4");
    install(&host, &lab, "postgres-upgrade-link");
    install(&host, &lab, "postgres-upgrade-link-finish");
    host.start();
    let params = json!({"cluster": lab.name(), "to": 15});
    let order = |name: &str, task: &str| {
        host.order(name, &json!({"task": task, "params": params}).to_string());
    };
    lab.sql(port, "shop", "create table handlers (id int primary key, f regproc)");
    order("blocked", "postgres-upgrade-link");
    let report = ends(&host, "blocked", "undone");
    assert!(report["error"].to_string().contains("reg* data types"), "{report}");
    assert!(report["tail"].to_string().contains("public.handlers.f") && !lab.conf(15).exists(), "{report}");
    lab.sql(port, "shop", "drop table handlers");
    order("upgrade", "postgres-upgrade-link");
    let report = ends(&host, "upgrade", "succeeded");
    assert_eq!(report["downtime"][0]["service"], json!(format!("postgres:{}", lab.name())), "{report}");
    assert_eq!(lab.sql(port, "shop", "show server_version_num").get(..2), Some("15"));
    order("finish", "postgres-upgrade-link-finish");
    ends(&host, "finish", "succeeded");
    assert!(!lab.conf(13).exists());
    order("again", "postgres-upgrade-link");
    ends(&host, "again", "unchanged");
}

#[test]
fn two_orders_exchange_a_primary_and_its_standby() {
    let (a, b) = pair();
    let mut hosts = [Host::on_dir("db5"), Host::on_dir("db6")];
    for (host, side) in hosts.iter_mut().zip([&a, &b]) {
        install(host, &side.lab, "postgres-switchover");
        install(host, &side.lab, "postgres-switchover-finish");
        host.start();
    }
    let [first, second] = &hosts;
    let early = json!({"cluster": b.lab.name(), "place": "0/1"});
    let order = json!({"task": "postgres-switchover-finish", "params": early});
    second.order("early", &order.to_string());
    let report = ends(second, "early", "failed");
    assert!(report["message"].to_string().contains("hand-over"), "{report}");
    let params = json!({"cluster": a.lab.name(), "peer": b.lab.path("run"), "peer_port": b.port});
    first.order("over", &json!({"task": "postgres-switchover", "params": params}).to_string());
    let report = ends(first, "over", "succeeded");
    let place = report["outputs"]["place"].as_str().expect("a place");
    let params = json!({"cluster": b.lab.name(), "place": place});
    second.order("take", &json!({"task": "postgres-switchover-finish", "params": params}).to_string());
    let report = ends(second, "take", "succeeded");
    assert_eq!(report["downtime"][0]["service"], json!(format!("postgres:{}", b.lab.name())), "{report}");
    let standby = "select pg_is_in_recovery()";
    assert_eq!((a.sql(standby).as_str(), b.sql(standby).as_str()), ("t", "f"));
}

#[test]
fn orders_make_a_cluster_back_one_up_drill_it_and_restore_it() {
    let store = Store::new();
    let lab = &store.lab;
    let port = store.cluster(15, "");
    lab.sql(port, "postgres", "create table t as select generate_series(1, 100) as i");
    let mut host = Host::on_dir("db2");
    let (config, run) = (lab.path("depot.yml"), lab.path("run"));
    let more = format!(
        "export HOSTLER_DEPOT={0}\nplace=\"--depot-config {1}\"\ncase \"$1 $2\" in\n\
         'restore run') set -- \"$@\" $place --socket {2} ;;\n'install run') set -- \"$@\" --socket {2} ;;\n\
         'drill --id') set -- \"$@\" $place --folder {3} ;;\n'backup '*) set -- \"$@\" $place ;;\nesac",
        lab.path("bin/hostler-depot").display(),
        config.display(),
        run.display(),
        lab.path("data").display()
    );
    for name in ["postgres-install", "postgres-backup", "postgres-drill", "postgres-restore"] {
        install_with(&host, lab, name, &more);
    }
    host.start();
    let order = |name: &str, task: &str, params: Value| {
        host.order(name, &json!({"task": task, "params": params}).to_string());
    };
    order("backup", "postgres-backup", json!({"cluster": lab.name(), "id": ID}));
    let report = ends(&host, "backup", "succeeded");
    let stamp = report["outputs"]["backup"].as_str().expect("a stamp").to_owned();
    lab.sql(port, "postgres", "insert into t values (101)");
    store.switch(port);
    order("drill", "postgres-drill", json!({"id": ID}));
    let report = ends(&host, "drill", "succeeded");
    assert!(report["message"].to_string().contains(&format!("{stamp} can be restored")), "{report}");
    let [free] = free_ports();
    let name = format!("{}r", lab.name());
    let params = |to: &str| json!({"cluster": name, "id": ID, "port": free, "to": to});
    // What cannot be restored leaves nothing; only the server can tell so of a name.
    order("restore", "postgres-restore", params("name=nothing"));
    let report = ends(&host, "restore", "undone");
    assert!(report["message"].to_string().contains("before configured recovery target"), "{report}");
    assert!(!lab.conf(15).with_file_name(&name).exists() && !lab.path("data/15").join(&name).exists());
    order("restore-2", "postgres-restore", params("latest"));
    ends(&host, "restore-2", "succeeded");
    assert_eq!(lab.sql(free, "postgres", "select count(*) from t"), "101");
    assert_eq!(lab.sql(port, "postgres", "select count(*) from t"), "101");
    let [free] = free_ports();
    let name = format!("{}i", lab.name());
    let settings = json!({"max_connections": "33", "log_line_prefix": "it's %m "});
    order(
        "install",
        "postgres-install",
        json!({"cluster": name, "version": 13, "port": free, "settings": settings}),
    );
    ends(&host, "install", "succeeded");
    assert_eq!(
        lab.sql(free, "postgres", "show log_line_prefix; show server_version_num").get(..7),
        Some("it's %m")
    );
}

#[test]
fn an_executor_that_dies_in_a_backup_or_a_restore_costs_nothing() {
    let store = Store::new();
    let lab = &store.lab;
    let port = store.cluster(15, "");
    lab.sql(port, "postgres", "create table t as select generate_series(1, 100) as i");
    let mut host = Host::on_dir("db7");
    let more = format!(
        "export HOSTLER_DEPOT={} HOSTLER_CRASH_FILE={}\nplace=\"--depot-config {}\"\ncase \"$1 $2 $3\" in\n\
         'restore run '*) set -- \"$@\" $place --socket {} ;;\n'restore in-place prepare') set -- \"$@\" $place ;;\n\
         'backup '*) set -- \"$@\" $place ;;\nesac",
        lab.path("bin/hostler-depot").display(),
        lab.path("wish").display(),
        lab.path("depot.yml").display(),
        lab.path("run").display(),
    );
    for name in ["postgres-backup", "postgres-restore", "postgres-restore-in-place"] {
        install_with(&host, lab, name, &more);
    }
    host.start();
    let mut dies = |order: &str, task: &str, point: CrashPoint, params: Value, phase: &str| {
        fs::write(lab.path("wish"), format!("{} hang", point.name())).expect("the wish");
        host.order(order, &json!({"task": task, "params": params}).to_string());
        eventually(LONG, || match lab.path("wish").exists() {
            true => Err(format!("{:?}; {}", host.report(order), host.log_tail())),
            false => Ok(()),
        });
        let executors = host.executors();
        host.kill();
        assert!(!executors.is_empty(), "{}", host.log_tail());
        executors.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
        host.start();
        ends(&host, order, phase)
    };
    let params = json!({"cluster": lab.name(), "id": ID});
    dies("backup", "postgres-backup", CrashPoint::BaseStored, params, "succeeded");
    assert_eq!(store.names(&format!("{ID}/backup/")).len(), 1, "what died is no backup");
    lab.sql(port, "postgres", "delete from t where i > 50");
    store.switch(port);
    let [free] = free_ports();
    let name = format!("{}r", lab.name());
    let params = json!({"cluster": name, "id": ID, "port": free, "to": "latest"});
    dies("restore", "postgres-restore", CrashPoint::Recovering, params, "undone");
    assert!(!lab.path("data/15").join(&name).exists() && !lab.conf(15).with_file_name(&name).exists());
    let params = json!({"cluster": lab.name(), "id": ID, "to": "immediate"});
    dies("place", "postgres-restore-in-place", CrashPoint::InPlaceExchanged, params, "succeeded");
    assert_eq!(lab.sql(port, "postgres", "select count(*) from t"), "100");
}
