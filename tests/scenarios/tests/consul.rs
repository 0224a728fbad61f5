//! One agent and a real Consul that fails in every way that was measured (promises P2, P3 and P5).

use std::time::{Duration, Instant};

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Fake, Host, Options, Reply, cluster, eventually};

fn host(name: &str, consul: &Consul) -> Host {
    let host = Host::on_consul(name, consul);
    host.counting_task("count", "once:x", "0");
    host.counting_task("slow", "once:a once:b", "1.5");
    host
}

/// An order that comes after everything else: when it is done, what came before has been seen.
fn settle(host: &Host, name: &str) {
    host.order(name, "task: count");
    host.wait_for(name, &["succeeded"]);
}

fn condition(host: &Host, text: &str) {
    eventually(DEFAULT_TIMEOUT, || match host.agent_report() {
        Some(report) if report["conditions"].to_string().contains(text) => Ok(()),
        report => Err(format!("no {text:?} in {report:?}; {}", host.log_tail())),
    });
}

#[test]
fn from_a_flipped_key_to_a_reported_result() {
    let consul = Consul::dev();
    let mut host = host("flip", &consul);
    host.start();
    for n in 1..=3 {
        host.order("o", &format!("task: count\nrevision: '{n}'"));
        host.wait_completed("o", n);
    }
    // The same value again wakes nobody, and starts nothing.
    host.order("o", "task: count\nrevision: '3'");
    settle(&host, "z");
    assert_eq!(host.effects("o").len(), 3);
    eventually(DEFAULT_TIMEOUT, || match consul.list("hostler/reports/runs/flip/").len() {
        4 => Ok(()),
        n => Err(format!("{n} runs are reported")),
    });
}

#[test]
fn p3_what_happened_during_an_outage_is_reported_after_it() {
    let mut consul = Consul::disk();
    let mut host = host("outage", &consul);
    host.start();
    host.order("o", "task: slow");
    host.wait_until("o", "a step", |report| report["step"]["name"] == "a");
    consul.kill();
    eventually(DEFAULT_TIMEOUT, || match host.effects("o").len() {
        2 => Ok(()),
        n => Err(format!("{n} effects")),
    });
    // Also when the agent is restarted meanwhile.
    host.kill();
    host.start();
    consul.start();
    host.wait_for("o", &["succeeded"]);
    settle(&host, "z");
    assert_eq!(host.effects("o"), ["a", "b"]);
}

#[test]
fn p2_a_server_that_lost_everything_starts_nothing_again() {
    let mut consul = Consul::disk();
    let mut host = host("wiped", &consul);
    host.start();
    for n in 0..3 {
        host.order(&format!("o{n}"), "task: count");
    }
    for n in 0..3 {
        host.wait_for(&format!("o{n}"), &["succeeded"]);
    }
    consul.wipe();
    // Its prefixes are empty and without markers: nothing follows from that.
    condition(&host, "not visible");
    // Somebody writes it all again: the same instructions, under other indexes.
    host.enroll();
    for n in 0..3 {
        host.order(&format!("o{n}"), "task: count");
    }
    settle(&host, "z");
    for n in 0..3 {
        assert_eq!(host.effects(&format!("o{n}")), ["x"], "o{n}");
        host.wait_for(&format!("o{n}"), &["succeeded"]);
    }
}

#[test]
fn p2_a_restored_snapshot_starts_nothing_and_an_edit_after_it_does() {
    let consul = Consul::disk();
    let mut host = host("snapshot", &consul);
    host.start();
    host.order("o", "task: count\nrevision: old");
    host.wait_for("o", &["succeeded"]);
    let snapshot = consul.snapshot();
    host.order("o", "task: count\nrevision: new");
    host.wait_until("o", "the new run", |_| host.effects("o").len() == 2);
    host.wait_for("o", &["succeeded"]);
    consul.restore(&snapshot);
    // The watch hangs on an index of the future until its wait ends, as measured; a restart looks at once.
    host.kill();
    host.start();
    host.wait_for("o", &["held index_regressed"]);
    assert_eq!(host.effects("o").len(), 2);
    host.order("o", "task: count\nrevision: newest");
    host.wait_for("o", &["succeeded"]);
    assert_eq!(host.effects("o").len(), 3);
}

#[test]
fn p2_keys_imported_into_a_new_cluster_at_higher_indexes_start_nothing() {
    let (first, second) = (Consul::dev(), Consul::dev());
    let mut host = host("import", &first);
    host.start();
    for n in 0..5 {
        host.order(&format!("o{n}"), "task: count");
    }
    for n in 0..5 {
        host.wait_for(&format!("o{n}"), &["succeeded"]);
    }
    host.stop();
    for n in 0..200 {
        second.put(&format!("noise/{n}"), "x");
    }
    for key in first.list("hostler/") {
        second.put(&key, &first.get(&key).unwrap_or_default());
    }
    host.move_to(&second);
    host.start();
    settle(&host, "z");
    for n in 0..5 {
        assert_eq!(host.effects(&format!("o{n}")), ["x"]);
    }
}

#[test]
fn p5_rights_taken_away_withdraw_nothing_and_start_nothing() {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    let rights = |read: &str| {
        format!(
            "key_prefix \"hostler/hosts/\" {{ policy = \"{read}\" }}\n\
             key_prefix \"hostler/groups/\" {{ policy = \"{read}\" }}\n\
             key_prefix \"hostler/reports/\" {{ policy = \"write\" }}\n"
        )
    };
    let token = consul.token("agent", &rights("read"));
    let mut host = Host::on_port("rights", consul.port(), Some(&token));
    host.counting_task("count", "once:x", "0");
    for prefix in ["hosts/rights", "groups/all"] {
        consul.put(&format!("hostler/{prefix}/_hostler"), "{}");
    }
    let report =
        |order: &str| consul.get(&format!("hostler/reports/orders/rights/{order}")).unwrap_or_default();
    let order = |name: &str, text: &str| consul.put(&format!("hostler/hosts/rights/orders/{name}"), text);
    order("waiting", "task: count\non_preexisting: run\nnot_before: 2999-01-01T00:00:00Z");
    host.start();
    let until = |order: &str, phase: &str| {
        eventually(DEFAULT_TIMEOUT, || {
            let text = report(order);
            if text.contains(&format!("\"phase\":\"{phase}\"")) {
                Ok(())
            } else {
                Err(format!("{text}; {}", host.log_tail()))
            }
        });
    };
    until("waiting", "waiting");
    consul.set_rules("agent", &rights("deny"));
    // A held query keeps the rights that it began with, as measured; a restart asks with the new ones at once.
    host.kill();
    host.start();
    let agent = || consul.get("hostler/reports/agents/rights").unwrap_or_default();
    eventually(DEFAULT_TIMEOUT * 2, || if agent().contains("not visible") { Ok(()) } else { Err(agent()) });
    order("new", "task: count");
    assert!(
        report("waiting").contains("\"phase\":\"waiting\""),
        "withdrawn for an absence: {}",
        report("waiting")
    );
    consul.set_rules("agent", &rights("read"));
    let until = |order: &str, phase: &str| {
        eventually(DEFAULT_TIMEOUT * 2, || {
            let text = report(order);
            if text.contains(&format!("\"phase\":\"{phase}\"")) {
                Ok(())
            } else {
                Err(format!("{text}; {}", host.log_tail()))
            }
        });
    };
    until("new", "succeeded");
    assert!(report("waiting").contains("\"phase\":\"waiting\""));
    assert_eq!(host.effects("new"), ["x"]);
}

#[test]
fn p5_a_cluster_without_a_leader_starts_nothing_and_loses_nothing() {
    let mut servers = cluster();
    let mut host = host("leader", &servers[0]);
    host.start();
    settle(&host, "first");
    host.order("waiting", "task: count\non_preexisting: run\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("waiting", &["waiting schedule"]);
    servers[1].kill();
    servers[2].kill();
    eventually(DEFAULT_TIMEOUT * 2, || {
        let log = std::fs::read_to_string(host.path("log")).unwrap_or_default();
        if log.contains("leader") || log.contains("cannot be reached") {
            Ok(())
        } else {
            Err(host.log_tail())
        }
    });
    servers[1].launch();
    servers[2].launch();
    eventually(DEFAULT_TIMEOUT, || match servers[0].try_api("GET", "/v1/status/leader", b"") {
        Ok(answer) if answer.text().len() > 4 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A leader that was just elected refuses writes for a moment.
    eventually(DEFAULT_TIMEOUT, || {
        match servers[0].try_api("PUT", "/v1/kv/hostler/hosts/leader/orders/last", b"task: count") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    host.wait_for("last", &["succeeded"]);
    assert_eq!(host.report("waiting").expect("a report")["phase"], "waiting");
    assert_eq!(host.effects("first"), ["x"]);
}

#[test]
fn p5_a_server_that_accepts_and_never_answers_starts_nothing_and_is_survived() {
    let consul = Consul::dev();
    let mut host = host("frozen", &consul);
    host.start();
    host.order("o", "task: slow");
    host.wait_until("o", "a step", |report| report["step"]["name"] == "a");
    consul.freeze();
    eventually(
        DEFAULT_TIMEOUT,
        || if host.effects("o").len() == 2 { Ok(()) } else { Err("not over".into()) },
    );
    consul.thaw();
    host.wait_for("o", &["succeeded"]);
    settle(&host, "z");
}

#[test]
fn p10_a_value_that_is_too_large_stops_no_other_order() {
    let consul = Consul::dev();
    let mut host = host("large", &consul);
    host.start();
    host.order("large", &format!("task: count\nreason: {}", "x".repeat(500_000)));
    let report = host.wait_for("large", &["refused"]);
    assert!(
        report.to_string().len() < 8192 && report["error"].as_str().is_some_and(|e| e.contains("65536")),
        "{report}"
    );
    settle(&host, "z");
}

#[test]
fn p9_an_agent_on_an_empty_or_angry_server_does_not_spin() {
    let angry = Fake::start(vec![Reply::consul(429, 1, "too many")]);
    let mut host = Host::on_port("angry", angry.port(), None);
    host.start();
    let begun = Instant::now();
    eventually(DEFAULT_TIMEOUT, || {
        if begun.elapsed() > Duration::from_secs(6) { Ok(()) } else { Err("watching".into()) }
    });
    assert!(angry.requests().len() < 60, "{} requests in 6 s", angry.requests().len());
    assert!(host.is_up(), "{}", host.log_tail());
}
