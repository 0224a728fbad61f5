//! The tasks as orders, carried out by the real agent (`HOSTLER_BIN`) against the stand-ins of SAP's tools.
//!
//! They are installed as they are, but for the program's path, which leads to a test's own root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_testkit::{Host, Vault, eventually};
use serde_json::{Value, json};

use crate::media::sha256;
use crate::played::{PASSWORD, Played};

/// As long as a run may take on a machine with much else to do.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Every task of this crate.
const TASKS: [&str; 14] = [
    "hana-check",
    "hana-install",
    "hana-update",
    "hana-backup",
    "hana-backup-setup",
    "hana-restore",
    "hana-drill",
    "hana-housekeeping",
    "hana-rotate-password",
    "hana-enable",
    "hana-takeover",
    "hana-register",
    "hana-start",
    "hana-stop",
];

fn folder(task: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(task)
}

/// Puts the tasks on a host whose SAP tools are the played ones.
pub(crate) fn install(host: &Host, played: &Played) {
    let program = host.path("hostler-hana");
    let binary = env!("CARGO_BIN_EXE_hostler-hana");
    fs::write(&program, format!("#!/bin/sh\nexec {binary} --root {} \"$@\"\n", played.root())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for task in TASKS {
        let yaml = fs::read_to_string(folder(task).join("task.yml")).unwrap();
        host.task(
            task,
            &yaml
                .replace("[hostler-hana,", &format!("[{},", program.display()))
                .replace("initial: 2m, max_delay: 15m", "initial: 1s"),
            &[],
        );
    }
}

/// Places an order and waits for the phase.
#[track_caller]
pub(crate) fn order(host: &Host, name: &str, task: &str, params: Value, phase: &str) -> Value {
    host.order(name, &json!({"task": task, "params": params}).to_string());
    eventually(LONG, || match host.report(name) {
        Some(report) if report["phase"] == phase => Ok(report),
        // Where it came to another end, nothing is to be waited for.
        Some(report) if !report["ended"].is_null() => {
            panic!("{name}: wanted {phase}: {report}; {}", host.log_tail())
        }
        other => Err(format!("{name}: wanted {phase}, it says {other:?}; {}", host.log_tail())),
    })
}

/// Every file below a folder that holds the text.
pub(crate) fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            // A report may be replaced while it is looked for.
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_tasks_have_no_fault() {
    let host = Host::on_dir("lint");
    for task in TASKS {
        let (code, text) = host.hostler(&["task", "lint", &folder(task).display().to_string()]);
        assert_eq!(code, 0, "{text}");
    }
}

/// The orders in docs/hana.md are taken as they stand there; none begins, because its time has not come.
#[test]
fn the_orders_of_the_guide_are_good() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hana.md");
    let guide = fs::read_to_string(guide).unwrap();
    let orders: Vec<_> = guide.lines().filter(|line| line.starts_with("{task: ")).collect();
    assert!(
        TASKS.iter().all(|task| orders.iter().any(|order| order.starts_with(&format!("{{task: {task},"))))
    );
    let (played, mut host) = (Played::new("h1"), Host::on_dir("db1"));
    install(&host, &played);
    host.start();
    for (at, order) in orders.iter().enumerate() {
        let later = order.strip_suffix('}').unwrap();
        host.order(&format!("o{at}"), &format!("{later}, not_before: 2099-01-01T00:00:00Z}}"));
    }
    for (at, order) in orders.iter().enumerate() {
        let report = host.wait_until(&format!("o{at}"), "a phase", |report| !report["phase"].is_null());
        assert_eq!(report["phase"], "waiting", "{order}: {report}");
    }
}

#[test]
fn orders_install_a_system_back_it_up_and_update_it() {
    let vault = Vault::double();
    vault.policy("agent", &[("secret/data/hana/*", &["read"]), ("auth/token/create", &["update"])]);
    let played = Played::new("h1");
    let mut host = Host::on_vault("db1", &vault, "");
    let passwords =
        json!({"sidadm_password": PASSWORD, "system_password": PASSWORD, "sapadm_password": PASSWORD});
    vault.put("hana/db1/HDB", passwords);
    install(&host, &played);
    host.start();

    let media = |version: &str| json!({"sid": "HDB", "number": "00", "media": format!("/media/{version}"), "mount": "secret"});
    // What fails behind the installation takes it away again: nothing of the system was here before.
    played.fault("hdbsql-refuses");
    played.own(&["archive", &played.root(), "2.00.077.00", "/media/IMDB.SAR"]);
    let mut new = media("new");
    let more = json!({"archive": "/media/IMDB.SAR", "sha256": sha256(&played, "/media/IMDB.SAR"), "version": "2.00.077.00"});
    new.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut bare = new.clone();
    bare.as_object_mut().unwrap().insert("first_backup".to_owned(), json!("none"));
    order(&host, "first", "hana-install", bare.clone(), "undone");
    assert!(!played.path("/hana/shared/HDB").exists() && !played.path("/usr/sap/HDB").exists());
    played.fault("");
    order(&host, "install", "hana-install", bare, "succeeded");
    assert_eq!(played.calls().matches("SAPCAR").count(), 1, "what is extracted is not extracted again");
    let report = order(&host, "check", "hana-check", json!({"sid": "HDB"}), "succeeded");
    assert_eq!(report["outputs"]["forbids"], "0", "{report}");
    // Without a backup nothing is updated, and the message says what is missing.
    let report = order(&host, "early", "hana-update", media("2.00.079.00"), "failed");
    assert!(report["message"].to_string().contains("no complete backup"), "{report}");
    let before = json!({"sid": "HDB", "before": "update", "media": "/media/2.00.079.00"});
    let report = order(&host, "forbidden", "hana-check", before, "failed");
    assert!(report["message"].to_string().contains("no complete backup"), "{report}");

    let report = order(&host, "backup", "hana-backup", json!({"sid": "HDB", "to": "file"}), "succeeded");
    let ids = report["outputs"]["backup_ids"].as_str().unwrap().to_owned();
    assert!(ids.contains("SYSTEMDB:") && ids.contains(" HDB:") || ids.contains("HDB:"), "{report}");
    let run = report["run"].as_str().unwrap();
    let comment = played
        .sql("HDB", "SELECT COMMENT FROM M_BACKUP_CATALOG WHERE ENTRY_TYPE_NAME = 'complete data backup'");
    assert_eq!(comment, format!("\"hostler run {run}\""));

    let report = order(&host, "update", "hana-update", media("2.00.079.00"), "succeeded");
    let downtime: Vec<_> = report["downtime"].as_array().unwrap().iter().collect();
    for service in ["hana:hdb:systemdb", "hana:hdb:hdb"] {
        let of = downtime.iter().find(|of| of["service"] == service);
        assert!(of.is_some_and(|of| of["seconds"].as_f64() > Some(0.0)), "{report}");
    }
    assert!(played.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").contains("2.00.079.00"));
    // What holds already is not done again.
    order(&host, "again", "hana-update", media("2.00.079.00"), "unchanged");
    let updates = played.calls().lines().filter(|line| line.contains("--action=update")).count();
    assert_eq!(updates, 2, "prepared once, finished once");

    care_for(&host, &played, &vault);
    host.stop();
    for place in [host.path("state"), host.path("store"), played.path("/var"), played.path("/hana")] {
        for password in [PASSWORD, ROTATED] {
            assert_eq!(files_with(&place, password), Vec::<PathBuf>::new());
        }
    }
    let own = |line: &&str| !line.contains("\"-p\"");
    assert!(
        !played.calls().lines().filter(own).any(|line| line.contains(PASSWORD) || line.contains(ROTATED))
    );
}

const ROTATED: &str = "Rotated77c0#";

/// A drill, a restore, housekeeping and a new password, each as an order.
fn care_for(host: &Host, played: &Played, vault: &Vault) {
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    let file = |more: Value| {
        let mut params = json!({"sid": "HDB", "from": "file"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    order(host, "second", "hana-backup", json!({"sid": "HDB", "to": "file"}), "succeeded");
    let drill = file(json!({"tenant": "HDB", "count": "T", "tenant_key": "HOSTLER", "at_least": 1}));
    let report = order(host, "drill", "hana-drill", drill, "succeeded");
    assert_eq!(report["outputs"]["rows"], "1", "{report}");
    let drill = file(json!({"tenant": "HDB", "count": "T", "tenant_key": "HOSTLER", "at_least": 2}));
    order(host, "short", "hana-drill", drill, "undone");
    assert_eq!(played.sql("SYSTEMDB", "SELECT COUNT(*) FROM M_DATABASES"), "2", "no scratch tenant is left");
    // Its log is in no backup by then, however long the order takes.
    played.set("persistence", "log_backup_timeout_s", "9000000");
    played.sql("HDB", "INSERT INTO T VALUES (2)");
    let restore = file(json!({"to": "latest", "databases": ["HDB"]}));
    order(host, "restore", "hana-restore", restore, "succeeded");
    assert_eq!(played.rows(), "1", "what was not saved is gone");
    let rule = json!({"sid": "HDB", "keep": 1, "window": "0s"});
    let report = order(host, "keep", "hana-housekeeping", rule, "succeeded");
    assert_ne!(report["outputs"]["deleted"], "0", "{report}");

    let user = format!("CREATE USER BACKUP PASSWORD \"{PASSWORD}\" NO FORCE_FIRST_PASSWORD_CHANGE");
    played.sql("SYSTEMDB", &user);
    let set = ["-i", "SET", "BACKUP", "localhost:30013", "BACKUP"];
    let store = "/usr/sap/HDB/HDB00/exe/hdbuserstore";
    assert_eq!(played.tool(store, &set, &format!("{PASSWORD}\n")).code, Some(0));
    vault.put("hana/db1/HDB/BACKUP", json!({"password": ROTATED}));
    let rotate = json!({"sid": "HDB", "user": "BACKUP", "key": "BACKUP", "mount": "secret"});
    order(host, "rotate", "hana-rotate-password", rotate.clone(), "succeeded");
    for (name, task) in [("down", "hana-stop"), ("down-again", "hana-stop"), ("up", "hana-start")] {
        let phase = if name == "down-again" { "unchanged" } else { "succeeded" };
        order(host, name, task, json!({"sid": "HDB"}), phase);
    }
    order(host, "rotated", "hana-rotate-password", rotate, "unchanged");
}

/// hdblcm is killed behind the point of no return: an operator is asked, and the order goes on when it is repeated.
#[test]
fn an_interrupted_update_goes_on_when_an_operator_says_so() {
    let vault = Vault::double();
    vault.policy("agent", &[("secret/data/hana/*", &["read"]), ("auth/token/create", &["update"])]);
    vault.put("hana/db1/HDB", json!({"sidadm_password": PASSWORD, "system_password": PASSWORD}));
    let played = Played::with_system("h1");
    played.sql("HDB", "CREATE TABLE T (N INTEGER)");
    played.sql("HDB", "INSERT INTO T VALUES (1)");
    assert_eq!(played.run(&["backup", "--run", "B1", "--to", "file"]).code(), 0);
    let mut host = Host::on_vault("db1", &vault, "");
    install(&host, &played);
    host.start();
    played.fault("crash*1 hdblcm.update.switch");
    let params = json!({"sid": "HDB", "media": "/media/2.00.079.00", "mount": "secret"});
    let report = order(&host, "update", "hana-update", params, "needs_operator");
    assert!(report["tail"].to_string().contains("hdblcm: signal 9"), "{report}");
    let (code, text) = host.hostler(&["retry", "update", "--host", host.name()]);
    assert_eq!(code, 0, "{text}");
    eventually(LONG, || match host.report("update") {
        Some(report) if report["phase"] == "succeeded" => Ok(()),
        other => Err(format!("{other:?}; {}", host.log_tail())),
    });
    assert!(played.sql("SYSTEMDB", "SELECT VERSION FROM M_DATABASE").contains("2.00.079.00"));
    assert_eq!(played.rows(), "1");
}
