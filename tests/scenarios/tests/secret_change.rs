//! A new version of a watched secret carries its order out once more, and nothing else does: not a restart, not a
//! Vault that is away or was set back, not a secret that was deleted.

use std::fs;
use std::path::{Path, PathBuf};

use hostler_testkit::{DEFAULT_TIMEOUT, FaultMode, Host, Vault, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::json;

const ORDER: &str = "task: t\non_secret_change: ['secret/data/app/watched#password']\n";
const EVERY: &str = "secret_poll_interval: 1s";

fn put(vault: &Vault, password: &str) -> u64 {
    vault.put("app/watched", json!({"password": password, "user": "u"}))
}

/// A host with a task that notes what it reads and why.
fn host(name: &str, vault: &Vault) -> Host {
    let host = Host::on_vault(name, vault, EVERY);
    let yaml = "name: t\nversion: 1\nsecrets: {password: {path: secret/data/app/watched, field: password}}\n\
                steps:\n  - {name: note, run: [./note], effect: repeatable}\n";
    let note = "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN $(cat $HOSTLER_SECRETS/password)\" >> EFFECTS\n\
                while [ -e EFFECTS.hold ]; do sleep 0.05; done\n";
    host.task("t", yaml, &[("note", note)]);
    host
}

fn metadata(vault: &Vault) -> usize {
    vault.requests().iter().filter(|line| *line == "GET /v1/secret/metadata/app/watched").count()
}

/// Waits until the secret was looked at twice more: whatever the last look led to is decided by then.
fn looked_at(vault: &Vault) {
    let before = metadata(vault);
    eventually(DEFAULT_TIMEOUT, || match metadata(vault) {
        now if now >= before + 2 => Ok(()),
        now => Err(format!("{now} looks, {before} before")),
    });
}

fn noted(host: &Host, order: &str, last: &str, count: usize) {
    eventually(DEFAULT_TIMEOUT, || match host.effects(order) {
        all if all.len() == count && all.last().is_some_and(|line| line == last) => Ok(()),
        all => Err(format!("{all:?}\n{}", host.log_tail())),
    });
}

#[test]
fn a_new_version_is_carried_out_once_and_nothing_else_is() {
    let mut vault = Vault::start();
    put(&vault, "the-first");
    let mut host = host("s1", &vault);
    host.start();
    host.order("o", ORDER);
    host.order("p", ORDER);
    host.wait_for("o", &["succeeded"]);
    host.wait_for("p", &["succeeded"]);
    looked_at(&vault);
    put(&vault, "the-second");
    let report = host.wait_until("o", "the new version", |report| {
        report["trigger"] == "secret 2 of secret/data/app/watched"
    });
    assert_eq!(report["host"], "s1");
    noted(&host, "o", "the-second", 2);
    noted(&host, "p", "the-second", 2);
    // Restarted, killed, and with Vault away in each way meanwhile.
    host.kill();
    host.start();
    looked_at(&vault);
    for ailment in [
        FaultMode::Status(429, "rate limit quota exceeded".into()),
        FaultMode::Status(500, "local node not active but active cluster node not found".into()),
        FaultMode::Garbage,
        FaultMode::Half,
        FaultMode::None,
    ] {
        vault.ail(ailment);
        looked_at(&vault);
    }
    vault.stop();
    vault.start_again();
    vault.revoke_all();
    looked_at(&vault);
    // Deleted: metadata does not change by it; the newest version is what cannot be read.
    vault.delete("app/watched");
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains("its newest version was deleted") { Ok(()) } else { Err(report) }
    });
    assert_eq!((host.effects("o").len(), host.effects("p").len()), (2, 2));
    // A version that came while the agent was down is carried out when it is back.
    host.kill();
    put(&vault, "the-third");
    host.start();
    noted(&host, "o", "the-third", 3);
    noted(&host, "p", "the-third", 3);
}

#[test]
fn a_version_that_goes_back_is_told_and_starts_nothing() {
    let vault = Vault::start();
    put(&vault, "the-first");
    put(&vault, "the-second");
    let mut host = host("s2", &vault);
    host.start();
    host.order("o", ORDER);
    host.wait_for("o", &["succeeded"]);
    looked_at(&vault);
    for (what, change) in [("set-back", 0), ("made-anew", 1)] {
        if change == 0 {
            vault.set_back("app/watched", 1);
        } else {
            vault.forget("app/watched");
            put(&vault, "made-anew");
        }
        let report = host.wait_until("o", what, |report| {
            report["message"].to_string().contains("nothing was started for it")
        });
        assert_eq!(report["phase"], "succeeded", "{report}");
        put(&vault, what);
        noted(&host, "o", what, 2 + change);
        host.wait_until("o", "that run's own report", |report| report["message"].is_null());
    }
}

#[test]
fn one_request_a_secret_whatever_the_number_of_orders() {
    let vault = Vault::start();
    put(&vault, "the-first");
    let mut host = host("s3", &vault);
    for n in 0..20 {
        host.order(&format!("o{n}"), ORDER);
    }
    host.start();
    for n in 0..20 {
        host.wait_until(&format!("o{n}"), "its end", |report| {
            report["phase"] == "succeeded" || report["phase"] == "held"
        });
    }
    // From then on one each second, with a tenth more or less.
    let before = metadata(&vault);
    let since = std::time::Instant::now();
    looked_at(&vault);
    looked_at(&vault);
    looked_at(&vault);
    let (asked, most) = (metadata(&vault) - before, since.elapsed().as_secs_f64() / 0.9 + 1.0);
    assert!(asked as f64 <= most, "{asked} requests, {most} at most");
}

/// The settings are read anew: from then on the other Vault is asked, and the former is not any more.
#[test]
fn another_vault_is_watched_from_the_reload_on() {
    let (former, next) = (Vault::start(), Vault::start());
    put(&former, "the-first");
    for _ in 0..3 {
        put(&next, "of-the-other");
    }
    let mut host = host("s7", &former);
    host.start();
    host.order("o", ORDER);
    host.wait_for("o", &["succeeded"]);
    looked_at(&former);
    let config = host.path("hostler.yml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, text.replace(&former.address(), &next.address())).expect("the configuration");
    signal(host.agent_pid().expect("an agent"), Signal::SIGHUP);
    noted(&host, "o", "of-the-other", 2);
    let before = metadata(&former);
    looked_at(&next);
    assert_eq!(metadata(&former), before);
    put(&next, "the-next");
    noted(&host, "o", "the-next", 3);
}

#[test]
fn a_version_that_comes_while_one_runs_waits_for_its_end() {
    let vault = Vault::start();
    put(&vault, "the-first");
    let mut host = host("s4", &vault);
    host.start();
    host.order("o", ORDER);
    host.wait_for("o", &["succeeded"]);
    looked_at(&vault);
    fs::write(host.path("effects.hold"), "").expect("the word");
    put(&vault, "the-second");
    noted(&host, "o", "the-second", 2);
    put(&vault, "the-third");
    put(&vault, "the-fourth");
    looked_at(&vault);
    assert_eq!(host.effects("o").len(), 2);
    fs::remove_file(host.path("effects.hold")).expect("the word");
    noted(&host, "o", "the-fourth", 3);
    looked_at(&vault);
    assert_eq!(host.effects("o").len(), 3);
}

/// Killed at each point between the sight of a version and the run's start.
#[test]
fn p2_a_new_version_starts_one_run_whatever_is_killed() {
    for point in ["activation-recorded", "looked", "folder-made", "prepared", "launched"] {
        let vault = Vault::start();
        put(&vault, "the-first");
        let mut host = host("s5", &vault);
        host.start();
        host.order("o", ORDER);
        host.wait_for("o", &["succeeded"]);
        looked_at(&vault);
        host.kill();
        host.crash_at(point);
        put(&vault, "the-second");
        host.start();
        eventually(DEFAULT_TIMEOUT, || {
            if host.has_crashed() && !host.is_up() { Ok(()) } else { Err(host.log_tail()) }
        });
        host.start();
        noted(&host, "o", "the-second", 2);
        looked_at(&vault);
        assert_eq!(host.effects("o").len(), 2, "{point}");
    }
}

/// A ledger with such facts is one that an older agent cannot read; one without is not.
#[test]
fn only_an_order_that_watches_writes_what_an_older_agent_does_not_know() {
    let vault = Vault::start();
    put(&vault, "the-first");
    let mut host = host("s6", &vault);
    host.order("plain", "task: t\n");
    host.start();
    host.wait_for("plain", &["succeeded", "held preexisting"]);
    let ledger = |host: &Host| fs::read_to_string(host.path("state/ledger")).expect("the ledger");
    assert!(
        !ledger(&host).contains("version\":{") && !ledger(&host).contains("\"secrets\""),
        "{}",
        ledger(&host)
    );
    host.order("o", ORDER);
    host.wait_for("o", &["succeeded"]);
    eventually(DEFAULT_TIMEOUT, || {
        let text = ledger(&host);
        if text.contains("\"fact\":\"version\"") { Ok(()) } else { Err(text) }
    });
    let values = ledger(&host);
    assert!(!values.contains("the-first"), "the number of a version, never its value");
    let audit = folder(&host.path("state/audit"));
    assert!(audit.iter().all(|path| !fs::read_to_string(path).unwrap_or_default().contains("the-first")));
}

fn folder(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
