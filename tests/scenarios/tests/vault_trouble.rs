//! What a Vault can go through while a run holds secrets of it: the run goes on, its leases are kept as long as Vault
//! lets them be, nothing is revoked because of an outage, and the end of a run waits for nobody.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use hostler_testkit::{Certificates, DEFAULT_TIMEOUT, Fake, FaultMode, Host, Reply, Vault, eventually};
use serde_json::json;

/// Ends when it is told to; its deadline only reports, so that it outlives the lease that it began with.
const WAITS: &str = "#!/bin/sh\ncat $HOSTLER_SECRETS/password > EFFECTS.read.$HOSTLER_ORDER\n\
                     until [ -e EFFECTS.go ]; do sleep 0.05; done\n";

/// A task that holds database credentials, with the time that its run may take.
fn with_lease(host: &Host, timeout: &str) {
    let yaml = format!(
        "name: t\nversion: 1\ntimeout: {timeout}\nsecrets:\n  password: {{path: database/creds/app, field: password}}\n\
         steps:\n  - {{name: wait, run: [./wait], effect: final}}\n"
    );
    host.task("t", &yaml, &[("wait", WAITS)]);
}

fn up(host: &Host, order: &str) {
    let read = host.path(&format!("effects.read.{order}"));
    eventually(DEFAULT_TIMEOUT, || if read.exists() { Ok(()) } else { Err(host.log_tail()) });
}

fn go(host: &Host) {
    fs::write(host.path("effects.go"), "").expect("the word");
}

fn log(host: &Host) -> String {
    fs::read_to_string(host.path("log")).unwrap_or_default()
}

#[test]
fn p7_leases_are_renewed_for_as_long_as_a_run_takes() {
    let vault = Vault::start_with_database();
    vault.lease_ttl(3, None);
    let mut host = Host::on_vault("t1", &vault, "");
    with_lease(&host, "3s");
    host.order("o", "task: t");
    host.start();
    up(&host, "o");
    // Three times its first life, also when the agent is gone.
    host.kill();
    eventually(DEFAULT_TIMEOUT, || match vault.renewals() {
        4.. => Ok(()),
        n => Err(format!("{n} renewals; {:?}", vault.leases())),
    });
    assert_eq!(vault.leases().len(), 1);
    go(&host);
    host.start();
    host.wait_for("o", &["succeeded"]);
    eventually(DEFAULT_TIMEOUT, || {
        if vault.leases().is_empty() { Ok(()) } else { Err("the lease lives".into()) }
    });
}

#[test]
fn p7_whatever_vault_goes_through_during_a_run_and_at_its_end_the_run_ends_by_its_own_word() {
    let ailments = [
        ("down", FaultMode::None),
        ("sealed", FaultMode::None),
        ("restarted", FaultMode::None),
        ("forgotten", FaultMode::None),
        ("busy", FaultMode::Status(429, "rate limit quota exceeded".into())),
        ("later", FaultMode::TooMany(2)),
        ("broken", FaultMode::Status(500, "local node not active but active cluster node not found".into())),
        ("half", FaultMode::Half),
        ("garbage", FaultMode::Garbage),
        ("silent", FaultMode::Silent),
    ];
    std::thread::scope(|scope| {
        for (name, ailment) in ailments {
            scope.spawn(move || ails_during_a_run(name, ailment));
        }
    });
}

fn ails_during_a_run(name: &str, ailment: FaultMode) {
    let mut vault = Vault::start_with_database();
    vault.lease_ttl(4, None);
    let mut host = Host::on_vault(name, &vault, "");
    with_lease(&host, "4s");
    host.order("o", "task: t");
    host.start();
    up(&host, "o");
    let before = vault.renewals();
    match name {
        "down" => vault.stop(),
        "restarted" => {
            vault.stop();
            vault.start_again();
        }
        "forgotten" => vault.revoke_all(),
        "sealed" => vault.seal(true),
        _ => vault.ail(ailment),
    }
    // In the middle: the next renewal meets it. A server that is down notes no request.
    let tried = |log: &str| {
        ["cannot renew", "giving up the renewal", "the run's token has expired"]
            .iter()
            .any(|word| log.contains(word))
    };
    eventually(DEFAULT_TIMEOUT, || match (vault.renewals() > before, tried(&log(&host))) {
        (true, _) if name == "restarted" => Ok(()),
        (_, true) => Ok(()),
        _ => Err(host.log_tail()),
    });
    let revoked = |line: &String| line.ends_with("/revoke") || line.ends_with("/revoke-self");
    assert!(!vault.requests().iter().any(revoked), "{name}: nothing is revoked because of an outage");
    // At its end: the run ends within what giving the token up may take.
    go(&host);
    let asked = Instant::now();
    let report = host.wait_for("o", &["succeeded"]);
    assert!(asked.elapsed() < Duration::from_secs(15), "{name}: {report}");
    if name == "down" {
        vault.start_again();
    }
    vault.seal(false);
    vault.ail(FaultMode::None);
    // And afterwards the next run has secrets again.
    host.order("p", "task: t\nrevision: again");
    host.wait_for("p", &["succeeded"]);
}

#[test]
fn p7_a_lease_or_a_policy_that_is_taken_away_during_a_run_is_told_and_ends_nothing() {
    let vault = Vault::start_with_database();
    vault.lease_ttl(3, None);
    let mut host = Host::on_vault("t3", &vault, "");
    with_lease(&host, "3s");
    host.start();
    host.order("o", "task: t");
    up(&host, "o");
    vault.revoke_leases();
    eventually(DEFAULT_TIMEOUT, || match log(&host) {
        log if log.contains("giving up the renewal of") && log.contains("lease not found") => Ok(()),
        _ => Err(host.log_tail()),
    });
    go(&host);
    host.wait_for("o", &["succeeded"]);
    fs::remove_file(host.path("effects.go")).expect("the word");
    // The policy: what runs goes on, and the next run is told what it lacks before anything is started.
    host.order("p", "task: t\nrevision: again");
    up(&host, "p");
    vault.policy("agent", &[("auth/token/create", &["update"])]);
    vault.policy("default", &[("auth/token/revoke-self", &["update"])]);
    eventually(DEFAULT_TIMEOUT, || match log(&host) {
        log if log.contains("cannot renew")
            && log.contains(" yet: Vault")
            && log.contains("forbids to renew a lease") =>
        {
            Ok(())
        }
        _ => Err(host.log_tail()),
    });
    go(&host);
    host.wait_for("p", &["succeeded"]);
    host.order("q", "task: t\nrevision: once more");
    let report = host.wait_for("q", &["failed"]);
    assert!(report.to_string().contains("forbids to read database/creds/app"), "{report}");
    assert!(!host.path("effects.read.q").exists());
}

#[test]
fn p7_a_token_that_comes_to_its_longest_life_during_a_run_ends_no_run_and_starts_none_that_it_would() {
    let vault = Vault::start_with_database();
    vault.put("app/t4", json!({"password": "correct horse"}));
    vault.token_ttl(3, Some(4));
    let mut host = Host::on_vault("t4", &vault, "");
    let yaml = "name: kv\nversion: 1\ntimeout: 60s\nsecrets: {password: {path: secret/data/app/t4, field: password}}\n\
                steps:\n  - {name: wait, run: [./wait]}\n";
    host.task("kv", yaml, &[("wait", WAITS)]);
    with_lease(&host, "20s");
    host.start();
    host.order("o", "task: kv");
    up(&host, "o");
    let dead = "the run's token has expired";
    let logins = || vault.requests().iter().filter(|line| line.ends_with("/approle/login")).count();
    eventually(DEFAULT_TIMEOUT, || if logins() >= 4 { Ok(()) } else { Err(format!("{} logins", logins())) });
    assert_eq!(host.executors().len(), 1, "the run goes on: {dead}");
    // Leases of the token would end in the middle of this one, whatever Vault says of them.
    vault.lease_ttl(3600, None);
    host.order("p", "task: t");
    let report = host.wait_for("p", &["failed"]).to_string();
    assert!(report.contains(" s, the run may take 20 s: it ends with the run's token"), "{report}");
    assert!(!host.path("effects.read.p").exists(), "told before anything was started");
    go(&host);
    host.wait_for("o", &["succeeded"]);
}

#[test]
fn p7_the_agents_token_is_made_to_outlive_a_run_with_leases_where_vault_allows_it() {
    let vault = Vault::start_with_database();
    vault.token_ttl(5, Some(600));
    vault.lease_ttl(3600, None);
    let mut host = Host::on_vault("t5", &vault, "");
    with_lease(&host, "60s");
    host.start();
    host.order("o", "task: t");
    up(&host, "o");
    // No agent is there to renew it.
    host.kill();
    let since = Instant::now();
    eventually(DEFAULT_TIMEOUT, || {
        assert_eq!(vault.leases().len(), 1, "its parent lives");
        if since.elapsed() > Duration::from_secs(7) { Ok(()) } else { Err("a little longer".into()) }
    });
    go(&host);
    host.start();
    host.wait_for("o", &["succeeded"]);
}

#[test]
fn p7_a_certificate_logs_the_agent_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let vault = Vault::start_tls(&certificates);
    vault.put("app/t6", json!({"password": "correct horse"}));
    let mut host = Host::on_dir("t6");
    let configure = |host: &Host, name: &str, client: &str| {
        let ca = certificates.ca.display();
        host.configure(&format!(
            "vault: {{address: \"{}\", ca_file: {ca}, {client} auth: {{cert: {{name: {name}}}}}}}",
            vault.address()
        ));
    };
    let client = format!(
        "client_cert: {}, client_key: {},",
        certificates.client_cert.display(),
        certificates.client_key.display()
    );
    let yaml = "name: kv\nversion: 1\nsecrets: {password: {path: secret/data/app/t6, field: password}}\n\
                steps:\n  - {name: read, run: [./read]}\n";
    host.task("kv", yaml, &[("read", "#!/bin/sh\ncat $HOSTLER_SECRETS/password > EFFECTS.read\n")]);
    for (name, client, word) in [
        ("agent", "", "client certificate must be supplied"),
        ("other", client.as_str(), "invalid certificate"),
    ] {
        configure(&host, name, client);
        host.start();
        host.order("o", "task: kv");
        host.wait_until("o", "to wait, and why", |report| {
            report["reason"] == "vault" && report["message"].to_string().contains(word)
        });
        host.kill();
    }
    configure(&host, "agent", &client);
    host.start();
    host.wait_for("o", &["succeeded"]);
    assert_eq!(fs::read_to_string(host.path("effects.read")).expect("what it read"), "correct horse");
}

#[test]
fn p7_a_standbys_redirect_is_followed_to_configured_servers_only() {
    let active = Vault::start();
    active.put("app/t7", json!({"password": "correct horse"}));
    let standby = Vault::start();
    standby.ail(FaultMode::Standby(active.address()));
    let thief = Fake::start(vec![Reply::Close]);
    let yaml = "name: kv\nversion: 1\nsecrets: {password: {path: secret/data/app/t7, field: password}}\n\
                steps:\n  - {name: a, run: [/bin/true]}\n";
    // Not configured: nobody goes there, and the operator reads why.
    let mut host = Host::on_vault("t7", &standby, "");
    host.task("kv", yaml, &[]);
    host.start();
    host.order("o", "task: kv");
    host.wait_until("o", "to be told", |report| {
        report["message"].to_string().contains("`vault.failover_addresses`")
    });
    assert!(active.requests().is_empty(), "{:?}", active.requests());
    host.kill();
    // Configured: login, token and read go there, from the agent and from the executor.
    let mut host = Host::on_vault("t8", &standby, &format!("failover_addresses: [\"{}\"]", active.address()));
    host.task("kv", yaml, &[]);
    host.start();
    host.order("o", "task: kv");
    host.wait_for("o", &["succeeded"]);
    // The first one down: the other is asked.
    let mut standby = standby;
    standby.stop();
    host.order("p", "task: kv\nrevision: again");
    host.wait_for("p", &["succeeded"]);
    // One that sends everybody to somebody else sees no token go there.
    active.ail(FaultMode::Standby(format!("http://127.0.0.1:{}", thief.port())));
    host.order("q", "task: kv\nrevision: once more");
    host.wait_until("q", "to be told", |report| report["message"].to_string().contains("not followed"));
    assert!(thief.requests().is_empty(), "{:?}", thief.requests());
}

#[test]
fn p7_a_changed_token_file_is_taken_up_at_once() {
    let vault = Vault::start();
    vault.put("app/t9", json!({"password": "correct horse"}));
    vault.token("token-of-the-host-1", &["agent", "default"], 3600);
    let mut host = Host::on_dir("t9");
    let file = host.path("token-of-vault-agent");
    let write = |token: &str| {
        let temp = file.with_extension("tmp");
        fs::write(&temp, format!("{token}\n")).expect("the token");
        fs::set_permissions(&temp, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(&temp, &file).expect("the token");
    };
    write("token-of-the-host-1");
    host.configure(&format!(
        "vault: {{address: \"{}\", auth: {{token_file: {}}}}}",
        vault.address(),
        file.display()
    ));
    host.start();
    let lookups = || vault.requests().iter().filter(|line| line.ends_with("/lookup-self")).count();
    eventually(DEFAULT_TIMEOUT, || if lookups() >= 1 { Ok(()) } else { Err("no login".into()) });
    // By turns it would be looked at after half a minute.
    for round in 2..5 {
        let (before, token) = (lookups(), format!("token-of-the-host-{round}"));
        vault.token(&token, &["agent", "default"], 3600);
        write(&token);
        let since = Instant::now();
        eventually(Duration::from_secs(10), || {
            if lookups() > before { Ok(()) } else { Err("not looked at".into()) }
        });
        assert!(since.elapsed() < Duration::from_secs(10));
    }
    // Reading it is no change: nothing goes round.
    let mut round = 0;
    eventually(DEFAULT_TIMEOUT, || {
        let (before, order) = (lookups(), format!("o{round}"));
        round += 1;
        host.order(&order, "task: none");
        host.wait_for(&order, &["refused"]);
        if lookups() == before { Ok(()) } else { Err(format!("{before} lookups, then {}", lookups())) }
    });
}
