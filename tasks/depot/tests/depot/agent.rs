//! The tasks `depot-backup` and `depot-restore` as orders, carried out by the real agent (`HOSTLER_BIN`).
//!
//! They are installed as they are shipped, but for the program's path, the folder of commands and the pause between
//! tries, which a test has no time for.

use std::fs;
use std::path::{Path, PathBuf};

use hostler_testkit::{Host, ROLE_ID, SECRET_ID, Vault, eventually, shipped_task};
use serde_json::{Value, json};

use crate::support::depot::Depot;
use crate::support::servers::{KEY, KEY_ID, Moto, Strict};

const HOUR: i64 = 3600;
/// As long as a run may take on a machine with much else to do.
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

/// Installs a task, with more lines of its file.
fn install(host: &Host, depot: &Depot, name: &str, more: &str) {
    let mut files = shipped_task(name);
    let yaml = files.remove("task.yml").unwrap().replace("initial: 2m, max_delay: 15m", "initial: 1s");
    let program = depot.path("program").display().to_string();
    let commands = depot.path("commands").display().to_string();
    let all = depot.path("");
    let admit = host.admit(&format!("places: {{backup: [{0}], restore: [{0}]}}\n", all.display()));
    for text in files.values_mut() {
        *text = text
            .replace("${HOSTLER_DEPOT:-hostler-depot}", &program)
            .replace("${HOSTLER_ADMIT:-/usr/bin/hostler admit}", &format!("\"{admit}\""))
            .replace("${HOSTLER_DEPOT_COMMANDS:-/etc/hostler/depot.d}", &commands);
    }
    let scripts: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    host.task(name, &format!("{yaml}{more}"), &scripts);
}

/// The program, as a script that finds its configuration; the environment of a step holds nothing of ours.
fn program(depot: &Depot, environment: &str) {
    let config = depot.path("depot.yml").display().to_string();
    let binary = env!("CARGO_BIN_EXE_hostler-depot");
    script(
        &depot.path("program"),
        &format!(
            "#!/bin/sh\nexport HOSTLER_DEPOT_CONFIG={config} AWS_EC2_METADATA_DISABLED=true {environment}\nexec {binary} \"$@\"\n"
        ),
    );
    fs::create_dir(depot.path("commands")).unwrap();
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder with something in it.
fn source(depot: &Depot) -> PathBuf {
    let folder = depot.path("source");
    fs::create_dir_all(folder.join("below")).unwrap();
    fs::write(folder.join("below/file"), "as it was").unwrap();
    folder
}

fn order(host: &Host, name: &str, document: Value) {
    host.order(name, &document.to_string());
}

/// Waits for a phase; a run on a busy machine takes its time.
#[track_caller]
fn wait(host: &Host, name: &str, wanted: &str, good: impl Fn(&Value) -> bool) -> Value {
    eventually(LONG, || match host.report(name) {
        Some(report) if good(&report) => Ok(report),
        other => Err(format!("{name}: wanted {wanted}, it says {other:?}; {}", host.log_tail())),
    })
}

#[track_caller]
fn succeeded(host: &Host, name: &str) -> Value {
    wait(host, name, "succeeded", |report| {
        assert_ne!(report["phase"], "failed", "{report}");
        report["phase"] == "succeeded"
    })
}

#[test]
fn orders_back_up_now_and_on_a_schedule_with_rules_and_cold_storage_and_restore_across_a_thaw() {
    let server = Moto::start();
    server.bucket(&[]);
    let rules =
        "profile: backup\ndatabases: {etc: {keep: {hourly: 1}, cold: {after_days: 0, class: GLACIER}}}";
    let depot = Depot::new(server.address, rules);
    let aws = depot.path("aws");
    fs::write(&aws, format!("[backup]\naws_access_key_id={KEY_ID}\naws_secret_access_key={KEY}\n")).unwrap();
    program(&depot, &format!("AWS_SHARED_CREDENTIALS_FILE={}", aws.display()));
    let mut host = Host::on_dir("db1");
    for task in ["depot-backup", "depot-restore"] {
        install(&host, &depot, task, "");
    }
    host.set_clock(0, true);
    host.start();
    let params = json!({"database": "etc", "folders": [source(&depot)]});

    // Now.
    order(&host, "now", json!({"task": "depot-backup", "params": params}));
    let report = succeeded(&host, "now");
    let first = report["outputs"]["backup"].as_str().unwrap().to_owned();
    assert!(first.starts_with("etc/"), "{report}");
    assert!(report["outputs"]["bytes"].to_string().trim_matches('"').parse::<u64>().unwrap() > 0, "{report}");
    assert_eq!(depot.names(), [first.as_str()]);
    let state = depot.run(&["show", &first, "--json"]).ok().json()["state"].clone();
    assert_eq!((&state["state"], &state["class"]), (&json!("cold"), &json!("GLACIER")), "moved by the rule");

    // On a schedule: nothing when it is placed, one backup when its time comes, and the rule keeps the newer.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let at = format!("{} {} * * *", now.minute(), (i64::from(now.hour()) + 12) % 24);
    order(
        &host,
        "nightly",
        json!({"task": "depot-backup", "params": params, "schedule": at, "spread": "0s", "catch_up": "6h"}),
    );
    wait(&host, "nightly", "its time", |report| {
        report["phase"] == "waiting" && report["reason"] == "schedule"
    });
    assert_eq!(depot.names(), [first.as_str()]);
    host.set_clock(12 * HOUR + 120, true);
    wait(&host, "nightly", "the firing", |report| report["message"].to_string().contains("succeeded"));
    let names = depot.names();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_ne!(names[0], first, "the older one went by the rule");
    let shown = depot.run(&["show", &names[0], "--json"]).ok().json();
    assert_eq!(shown["state"]["state"], "cold", "and this one is moved: {shown}");

    // The way back: the thaw is asked for, the run waits without a process, and the agent may die meanwhile.
    // The server counts questions: so many until a thaw is under way, and as many until it is over.
    let key = format!("/vault/prod/{}", shown["backup"]["stored"]["key"].as_str().unwrap());
    server.held(40);
    for _ in 0..40 {
        assert_eq!(server.ask("HEAD", &key, &[], "").0, 200);
    }
    let target = depot.path("restored");
    let restore = json!({"backup": names[0], "target": target, "tier": "bulk"});
    order(&host, "restore", json!({"task": "depot-restore", "params": restore}));
    let waiting = |report: &Value| report["phase"] == "waiting" && report["reason"] == "retry";
    let report = wait(&host, "restore", "waiting for the thaw", waiting);
    server.held(100_000);
    let run = report["run"].clone();
    assert_eq!(depot.run(&["show", &names[0], "--json"]).ok().json()["state"]["state"], "thawing");
    host.kill();
    assert!(!target.exists());
    host.start();
    // It asks again, is told the same, and waits on.
    wait(&host, "restore", "waiting again, later", |later| {
        waiting(later) && later["updated"] != report["updated"]
    });
    host.stop();
    server.held(1);
    host.start();
    let report = succeeded(&host, "restore");
    assert_eq!(report["run"], run, "one run through all of it");
    let restored = target.join(source(&depot).strip_prefix("/").unwrap()).join("below/file");
    assert_eq!(fs::read_to_string(restored).unwrap(), "as it was");
    assert_eq!(report["outputs"]["backup"], names[0].as_str());
}

#[test]
fn a_task_takes_its_keys_from_its_secrets_and_a_command_that_fails_is_a_failed_run() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    program(&depot, "");
    script(&depot.path("commands/dump"), "#!/bin/sh\necho rows\n");
    script(&depot.path("commands/broken"), "#!/bin/sh\necho half\nexit 3\n");
    let vault = Vault::start();
    vault.put("app/s3", json!({"id": KEY_ID, "key": KEY}));
    let mut host = Host::on_dir("db2");
    fs::write(host.path("role_id"), ROLE_ID).unwrap();
    fs::write(host.path("secret_id"), SECRET_ID).unwrap();
    let at = |name: &str| host.path(name).display().to_string();
    host.configure(&format!(
        "vault: {{address: {}, auth: {{approle: {{role_id_file: {}, secret_id_file: {}}}}}}}",
        vault.address(),
        at("role_id"),
        at("secret_id")
    ));
    let secrets = "secrets:\n  s3_access_key_id: {path: secret/data/app/s3, field: id}\n  s3_secret_access_key: {path: secret/data/app/s3, field: key}\n";
    install(&host, &depot, "depot-backup", secrets);
    host.start();
    order(&host, "dump", json!({"task": "depot-backup", "params": {"database": "hr", "command": "dump"}}));
    let report = succeeded(&host, "dump");
    let name = report["outputs"]["backup"].as_str().unwrap();
    assert_eq!(depot.run(&["get", name]).ok().out, b"rows\n");
    order(
        &host,
        "broken",
        json!({"task": "depot-backup", "params": {"database": "hr", "command": "broken"}}),
    );
    let report = wait(&host, "broken", "failed", |report| report["phase"] == "failed");
    assert_eq!(report["exit_code"], 8, "{report}");
    assert_eq!(depot.names().len(), 1, "half of the rows are no backup");
    // The key is nowhere on the host.
    host.stop();
    let mut folders = vec![host.path(""), depot.state()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let text = fs::read(&path).unwrap();
                let found = text.windows(KEY.len()).any(|piece| piece == KEY.as_bytes());
                assert!(!found, "{} holds the key", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 10, "{files}");
}
