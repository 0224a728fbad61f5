//! A run that waits for its secrets has begun nothing, with a real Vault that is sealed or whose database is away:
//! whatever ends its order meanwhile ends it, nothing is carried out too late, and people can read what it waits for.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::time::{Duration, Instant};

use hostler_testkit::{DEFAULT_TIMEOUT, Host, Vault, eventually};
use jiff::Timestamp;
use serde_json::json;

const FINE: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

/// The orders, each of which ends in another way while it waits.
const ORDERS: [&str; 7] = ["window", "late", "replaced", "deleted", "cancelled", "frozen", "stays"];

fn vault() -> Vault {
    let vault = Vault::start_with_database();
    vault.policy(
        "agent",
        &[
            ("secret/data/app/*", &["read"]),
            ("secret/metadata/app/*", &["read"]),
            ("database/creds/*", &["read"]),
            ("auth/token/create", &["update"]),
        ],
    );
    vault
}

fn task(host: &Host) {
    let yaml = "name: t\nversion: 1\ntimeout: 60s\nparams: {type: object, properties: {x: {type: integer}}}\nsecrets:\n  \
                a: {path: database/creds/app, field: password}\nsteps:\n  - {name: a, run: [./say, '{{ params.x }}']}\n";
    host.task("t", yaml, &[("say", "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN $1\" >>EFFECTS\n")]);
}

/// A time of the day so many minutes from now, and a moment.
fn in_minutes(minutes: i64) -> (String, Timestamp) {
    let at = Timestamp::now() + Duration::from_secs(60) * u32::try_from(minutes).expect("later");
    (at.strftime("%H:%M").to_string(), at)
}

fn meets_every_end(name: &str, word: &str, fail: impl Fn(&Vault, bool)) {
    let vault = vault();
    let mut host = Host::on_vault(name, &vault, "");
    task(&host);
    host.set_clock(0, true);
    host.start();
    // The agent has nothing to do, and thinks that all is well.
    eventually(DEFAULT_TIMEOUT, || if vault.tokens() == 1 { Ok(()) } else { Err("no login".into()) });
    fail(&vault, true);
    let ((begin, _), (end, late)) = (in_minutes(0), in_minutes(10));
    let late = late.strftime("%Y-%m-%dT%H:%M:%SZ");
    for order in ORDERS {
        let more = match order {
            "window" => format!("\nwindow: {begin}-{end}"),
            "late" => format!("\nnot_after: {late}"),
            "frozen" => format!("\nnot_after: {late}\nwindow: {begin}-{end}"),
            _ => String::new(),
        };
        host.order(order, &format!("task: t\nparams: {{x: 1}}{more}"));
    }
    for order in ORDERS {
        host.wait_until(order, "to wait for Vault, and why", |report| {
            report["reason"] == "vault" && report["message"].to_string().contains(word)
        });
    }
    // Each of them is ended in its way, and nobody has to wait for Vault to see it.
    host.order("replaced", "task: t\nparams: {x: 2}");
    host.delete(&format!("hostler/hosts/{name}/orders/deleted"));
    let (status, said) = host.hostler(&["cancel", "cancelled", "--host", name, "--reason", "CHG4"]);
    assert_eq!(status, 0, "{said}; {}", host.log_tail());
    host.wait_for("cancelled", &["cancelled"]);
    host.put("hostler/groups/all/freeze", "by: bob\nreason: year end");
    host.wait_for("frozen", &["waiting freeze"]);
    host.set_clock(20 * 60, true);
    host.wait_for("late", &["expired"]);
    host.wait_for("frozen", &["expired"]);
    // What was frozen over the end of its time does not begin with the thaw.
    host.delete("hostler/groups/all/freeze");
    host.wait_for("window", &["waiting window"]);
    for order in ["stays", "replaced"] {
        host.wait_until(order, "to wait for Vault", |report| report["reason"] == "vault");
    }
    fail(&vault, false);
    for order in ["stays", "replaced"] {
        // The look at Vault and after it the next attempt are up to a minute away each.
        eventually(DEFAULT_TIMEOUT * 3, || match host.report(order) {
            Some(report) if report["phase"] == "succeeded" => Ok(()),
            report => Err(format!("{order}: {report:?}; {}", host.log_tail())),
        });
    }
    assert_eq!(host.effects("replaced"), ["2"], "only the newer one");
    assert_eq!(host.effects("stays"), ["1"]);
    // Nothing of the others comes later, after one more look at all of them.
    host.order("after", "task: t\nparams: {x: 1}");
    host.wait_for("after", &["succeeded"]);
    for order in ORDERS.into_iter().filter(|order| !["stays", "replaced"].contains(order)) {
        assert_eq!(host.effects(order), Vec::<String>::new(), "{order}; {}", host.log_tail());
    }
}

#[test]
fn p7_nothing_is_carried_out_too_late_while_vault_is_sealed() {
    meets_every_end("w1", "is sealed", |vault, fails| vault.seal(fails));
}

#[test]
fn p7_nothing_is_carried_out_too_late_while_the_database_behind_vault_is_away() {
    meets_every_end("w2", "syntax error", |vault, fails| {
        vault.database_role("app", if fails { "NOT SQL" } else { FINE });
    });
}

#[test]
fn p7_what_a_run_waits_for_is_told_and_becomes_a_condition_and_attempts_become_rare() {
    let vault = vault();
    vault.database_role("app", "NOT SQL");
    let mut host = Host::on_vault("w3", &vault, "");
    task(&host);
    host.set_clock(0, true);
    host.start();
    host.order("o", "task: t\nparams: {x: 1}");
    host.wait_until("o", "the engine's own words", |report| {
        report["reason"] == "vault" && report["message"].to_string().contains("syntax error at or near")
    });
    let conditions = || host.agent_report().unwrap_or_default()["conditions"].to_string();
    assert!(!conditions().contains("waits for its secrets"), "not at once");
    host.set_clock(61, true);
    eventually(DEFAULT_TIMEOUT, || match conditions() {
        all if all.contains("vault: order o waits for its secrets since") && all.contains("syntax error") => {
            Ok(())
        }
        all => Err(format!("{all}; {}", host.log_tail())),
    });
    // Doubled from a second: of a minute and a half the last half has none or one.
    let attempts = || vault.requests().iter().filter(|line| line.ends_with("/database/creds/app")).count();
    let (mut before, mut since) = (attempts(), Instant::now());
    eventually(Duration::from_secs(240), || {
        if attempts() > before {
            (before, since) = (attempts(), Instant::now());
        }
        if since.elapsed() >= Duration::from_secs(25) { Ok(()) } else { Err(format!("{before} attempts")) }
    });
    assert!(before < 12, "{before} attempts");
    // Repaired, it is found without anybody's help.
    vault.database_role("app", FINE);
    eventually(Duration::from_secs(90), || match host.report("o") {
        Some(report) if report["phase"] == "succeeded" => Ok(()),
        report => Err(format!("{report:?}")),
    });
    eventually(DEFAULT_TIMEOUT, || match conditions() {
        all if all.contains("waits for its secrets") => Err(all),
        _ => Ok(()),
    });
}

#[test]
fn p7_an_idle_agent_knows_within_a_minute_how_vault_is_and_whether_its_token_lives() {
    const WITHIN: Duration = Duration::from_secs(75);
    let kinds = ["sealed", "gone", "revoked"];
    std::thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let mut vault = Vault::start();
                let mut host = Host::on_vault(kind, &vault, "");
                host.start();
                eventually(DEFAULT_TIMEOUT, || {
                    if vault.tokens() == 1 { Ok(()) } else { Err("no login".into()) }
                });
                let logins = |vault: &Vault| {
                    vault.requests().iter().filter(|line| line.ends_with("/approle/login")).count()
                };
                let conditions =
                    |host: &Host| host.agent_report().unwrap_or_default()["conditions"].to_string();
                let asked = vault.requests().len();
                match kind {
                    "sealed" => vault.seal(true),
                    "gone" => vault.stop(),
                    _ => vault.revoke_all(),
                }
                let since = Instant::now();
                eventually(WITHIN, || match (kind, conditions(&host)) {
                    ("sealed", all) if all.contains("vault: ") && all.contains("is sealed") => Ok(()),
                    ("gone", all) if all.contains("vault: ") && all.contains("cannot be reached") => Ok(()),
                    ("revoked", _) if logins(&vault) == 2 => Ok(()),
                    (_, all) => Err(format!("{all}; {:?}", vault.requests())),
                });
                assert!(since.elapsed() < WITHIN);
                // Two small requests a look.
                let more = vault.requests().len() - asked;
                assert!(more <= 6, "{kind}: {:?}", vault.requests());
                if kind == "sealed" {
                    let health = vault.requests().iter().filter(|line| line.contains("/sys/health")).count();
                    assert!(health >= 1, "{:?}", vault.requests());
                }
                if kind == "gone" {
                    vault.start_again();
                }
                vault.seal(false);
                eventually(WITHIN, || match conditions(&host) {
                    all if all.contains("vault: ") => Err(all),
                    _ => Ok(()),
                });
            });
        }
    });
}

#[test]
fn a_mount_may_have_data_in_its_name() {
    let vault = vault();
    vault.mount("team/data/kv");
    vault.policy("agent", &[("team/data/kv/*", &["read"]), ("auth/token/create", &["update"])]);
    vault.write("team/data/kv/data/x", json!({"data": {"password": "correct horse"}}));
    let mut host = Host::on_vault("w5", &vault, "secret_poll_interval: 1s");
    host.task(
        "n",
        "name: n\nversion: 1\nsteps:\n  - {name: a, run: [./say]}\n",
        &[("say", "#!/bin/sh\necho \"$HOSTLER_ORDER $HOSTLER_RUN x\" >>EFFECTS\n")],
    );
    host.start();
    host.order("o", "task: n\non_secret_change: ['team/data/kv/data/x#password']");
    host.wait_completed("o", 1);
    eventually(DEFAULT_TIMEOUT, || {
        let asked = vault.requests().iter().any(|line| line.ends_with("/team/data/kv/metadata/x"));
        if asked { Ok(()) } else { Err(format!("{:?}", vault.requests())) }
    });
    host.wait_until("o", "to watch", |report| report["phase"] == "waiting" || report["phase"] == "succeeded");
    let quiet = || host.agent_report().unwrap_or_default()["conditions"].to_string();
    vault.write("team/data/kv/data/x", json!({"data": {"password": "battery staple"}}));
    host.wait_completed("o", 2);
    assert!(!quiet().contains("which an order watches"), "{}", quiet());
}
