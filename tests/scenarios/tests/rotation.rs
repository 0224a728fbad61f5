//! The installed task `postgres-rotate-password` on a real PostgreSQL: a new version of the secret becomes the role's
//! password, and no password is seen on the way.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use hostler_testkit::{Host, Postgres, Vault};
use serde_json::json;

/// With everything that a passfile, a shell, SQL or JSON takes for its own.
const FIRST: &str = "first-Aq3'x:\\ \"$y";
const SECOND: &str = "second-%s`{b}'; drop role app; --";
const THIRD: &str = "third-one-of-them";

fn put(vault: &Vault, host: &str, password: &str) {
    vault.put(&format!("postgres/{host}/app"), json!({"password": password}));
}

/// The installed task, which may work on this server; `more` is put behind its step.
fn install(host: &Host, database: &Postgres, more: &str) {
    let policy = format!("postgres: {{sockets: [{}], ports: [{}]}}\n", database.socket(), database.port());
    host.shipped("postgres-rotate-password", &policy);
    let file = host.path("tasks/postgres-rotate-password/task.yml");
    let yaml = fs::read_to_string(&file).expect("the task");
    fs::write(file, yaml.replace("\nverify:", &format!("{more}\nverify:"))).expect("the task");
}

fn host(name: &str, vault: &Vault) -> Host {
    vault.policy(
        "agent",
        &[
            (&format!("secret/data/postgres/{name}/*"), &["read"]),
            (&format!("secret/metadata/postgres/{name}/*"), &["read"]),
            ("auth/token/create", &["update"]),
        ],
    );
    Host::on_vault(name, vault, "secret_poll_interval: 1s")
}

fn order(database: &Postgres, more: &str) -> String {
    format!(
        "task: postgres-rotate-password\nparams: {{role: app, mount: secret, socket: {}, port: {}{more}}}\n",
        database.socket(),
        database.port()
    )
}

/// Whether any process shows one of these texts in its arguments or environment.
fn shown(secrets: &[&str]) -> Option<String> {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            let holds = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            if secrets.iter().any(holds) {
                return Some(format!("{}: {}", entry.path().display(), String::from_utf8_lossy(&bytes)));
            }
        }
    }
    None
}

#[test]
fn p7_a_password_follows_its_secret_and_is_seen_nowhere_on_the_way() {
    let (vault, database) = (Vault::start(), Postgres::start());
    database.sql("create role app login");
    put(&vault, "r1", FIRST);
    let mut host = host("r1", &vault);
    install(&host, &database, "");
    host.start();
    // Nothing to go back to, and nobody said that this is meant.
    host.order("o", &order(&database, ""));
    let report = host.wait_for("o", &["failed"]);
    assert!(report.to_string().contains("no version before to go back to"), "{report}");
    assert!(!database.enters("app", FIRST));
    let watched = "on_secret_change: ['secret/data/postgres/r1/app#password']\n";
    host.order("p", &(order(&database, ", first: true") + watched));
    host.wait_for("p", &["succeeded"]);
    assert!(database.enters("app", FIRST));
    // A new version, while all processes are looked at.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                looks += 1;
                if let Some(what) = shown(&[FIRST, SECOND]) {
                    return Err(what);
                }
            }
            Ok(looks)
        });
        put(&vault, "r1", SECOND);
        let report = host.wait_until("p", "the new version", |report| {
            report["trigger"].to_string().contains("secret 2 of") && report["phase"] == "succeeded"
        });
        assert_eq!(report["message"], "the password of app was changed", "{report}");
        done.store(true, Ordering::Relaxed);
        let looks = looking.join().expect("the look-out").expect("no process shows a password");
        assert!(looks > 3, "{looks} looks");
    });
    assert!(database.enters("app", SECOND) && !database.enters("app", FIRST));
    // The log of the server has each statement, with the verifier, which lets nobody in.
    let log = database.log();
    assert!(log.contains("SCRAM-SHA-256$"), "{log}");
    for part in ["Aq3", "{b}"] {
        assert!(!log.contains(part), "{log}");
    }
    // Placed once more, it holds.
    host.order("q", &order(&database, ", first: false"));
    host.wait_for("q", &["unchanged"]);
}

#[test]
fn what_fails_behind_the_change_brings_the_version_before_back() {
    let (vault, database) = (Vault::start(), Postgres::start());
    database.sql("create role app login");
    put(&vault, "r2", FIRST);
    put(&vault, "r2", SECOND);
    put(&vault, "r2", THIRD);
    let mut host = host("r2", &vault);
    install(&host, &database, "\n  - {name: break, run: [/bin/false]}");
    host.start();
    host.order("o", &order(&database, ""));
    host.wait_for("o", &["undone"]);
    assert!(database.enters("app", SECOND) && !database.enters("app", THIRD), "the one before the newest");
    let record = fs::read_to_string(host.runs()[0].join("secrets")).expect("the record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["versions"], json!({"password": 3, "previous": 2}));
}

#[test]
fn a_server_that_is_away_or_lets_everybody_in_is_no_proof() {
    let (vault, database) = (Vault::start(), Postgres::start());
    database.sql("create role app login");
    put(&vault, "r3", FIRST);
    let mut host = host("r3", &vault);
    install(&host, &database, "");
    host.start();
    let hba = Path::new(&database.socket()).join("data/pg_hba.conf");
    let text = fs::read_to_string(&hba).expect("pg_hba.conf").replace("scram-sha-256", "trust");
    fs::write(&hba, text).expect("pg_hba.conf");
    database.sql("select pg_reload_conf()");
    host.order("o", &order(&database, ", first: true"));
    let report = host.wait_for("o", &["failed"]);
    assert!(report.to_string().contains("with any password"), "{report}");
    drop(database);
    let database = Postgres::start();
    let away = order(&database, ", first: true");
    install(&host, &database, "");
    drop(database);
    host.order("p", &away);
    let report = host.wait_for("p", &["failed"]);
    assert!(report.to_string().contains("does not answer"), "{report}");
}

#[test]
fn a_version_that_is_no_password_is_named_and_so_is_the_way_past_it() {
    let (vault, database) = (Vault::start(), Postgres::start());
    database.sql("create role app login");
    put(&vault, "r4", FIRST);
    let mut host = host("r4", &vault);
    install(&host, &database, "");
    host.start();
    host.order("o", &order(&database, ", first: true"));
    host.wait_for("o", &["succeeded"]);
    put(&vault, "r4", "two\nlines");
    host.order("p", &order(&database, ""));
    host.wait_for("p", &["failed"]);
    put(&vault, "r4", SECOND);
    host.order("q", &order(&database, ""));
    let report = host.wait_for("q", &["failed"]);
    assert!(report.to_string().contains("the version before is no password"), "{report}");
    assert!(report.to_string().contains("write the new password to Vault once more"), "{report}");
    // As it says.
    put(&vault, "r4", SECOND);
    host.order("r", &(order(&database, "") + "revision: again\n"));
    host.wait_for("r", &["succeeded"]);
    assert!(database.enters("app", SECOND) && !database.enters("app", FIRST));
}
