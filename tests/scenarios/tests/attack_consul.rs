//! What whoever writes in Consul, or Consul itself, could do by sheer size: fill the agent's memory, or stop orders that
//! have nothing to do with it (promises P9 and P10).

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Instant;

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Fake, Host, Reply, eventually, free_ports};
use serde_json::{Value, json};

/// What the agent lives in, with everything at its bound, in KiB.
const MOST: u64 = 64 << 10;

/// A line of the agent's `/proc/PID/status`, in KiB.
fn memory(host: &Host, word: &str) -> u64 {
    let pid = host.agent_pid().expect("an agent");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix(word)).expect("the line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[track_caller]
fn small(host: &Host) {
    let most = memory(host, "VmHWM:");
    eprintln!("{}: at most {most} KiB", host.name());
    assert!(most <= MOST, "{most} KiB at most; {}", host.log_tail());
}

/// Processor time that the agent has used, in seconds.
fn processor(host: &Host) -> f64 {
    let pid = host.agent_pid().expect("an agent");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent lives");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}

fn conditions(host: &Host) -> String {
    host.agent_report().map(|report| report["conditions"].to_string()).unwrap_or_default()
}

#[track_caller]
fn condition(host: &Host, parts: &[&str]) {
    eventually(DEFAULT_TIMEOUT, || {
        let conditions = conditions(host);
        let good = parts.iter().all(|part| conditions.contains(part));
        if good { Ok(()) } else { Err(format!("no {parts:?} in {conditions}; {}", host.log_tail())) }
    });
}

/// Does the same with many keys, 64 at a time.
fn transact(consul: &Consul, verb: &str, keys: impl Iterator<Item = String>, value: &str) {
    let operations: Vec<Value> =
        keys.map(|key| json!({"KV": {"Verb": verb, "Key": key, "Value": value}})).collect();
    for operations in operations.chunks(64) {
        consul.api("PUT", "/v1/txn", json!(operations).to_string().as_bytes());
    }
}

fn host(name: &str, consul: &Consul) -> Host {
    let host = Host::on_consul(name, consul);
    host.counting_task("count", "once:x", "0");
    host.configure("groups: [a, b]\nclock: trusted");
    for group in ["a", "b"] {
        consul.put(&format!("hostler/groups/{group}/_hostler"), "{}");
    }
    host
}

#[test]
fn p9_values_of_half_a_megabyte_in_every_prefix_fill_no_memory_and_stop_no_order() {
    let consul = Consul::dev();
    let mut host = host("large", &consul);
    let large = "x".repeat(500_000);
    // 84 MB in all: more than everything that the agent may take.
    let prefixes = [
        "hosts/large/orders/",
        "groups/a/orders/",
        "groups/b/orders/",
        "groups/all/orders/",
        "hosts/large/control/o/",
        "groups/b/other-",
    ];
    for prefix in prefixes {
        for n in 0..28 {
            consul.put(&format!("hostler/{prefix}big{n}"), &large);
        }
    }
    host.order("o", "task: count");
    host.start();
    host.wait_for("o", &["succeeded"]);
    // Nothing is passed over in silence: the order of that name is refused, and its key is named.
    let refused = host.wait_for("big7", &["refused"]);
    assert!(refused["error"].as_str().is_some_and(|why| why.contains("65536")), "{refused}");
    condition(&host, &["ignored: hostler/hosts/large/orders/big", "65536 bytes and was not read"]);
    // Each touch sends all of it again.
    for n in 0..2 {
        host.order("o", &format!("task: count\nrevision: 'r{n}'"));
        host.wait_completed("o", n + 2);
    }
    // One that is too large to be read freezes what it is a freeze of.
    consul.put("hostler/groups/b/freeze", &large);
    host.order("late", "task: count");
    let late = host.wait_for("late", &["waiting freeze"]);
    assert!(late.to_string().contains("65536"), "{late}");
    consul.delete("hostler/groups/b/freeze");
    host.wait_for("late", &["succeeded"]);
    small(&host);
}

#[test]
fn p10_a_flooded_group_holds_its_own_orders_and_no_others() {
    let consul = Consul::dev();
    let mut host = host("flood", &consul);
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    consul.put("hostler/groups/a/orders/waits", "task: count\nspread: 0s\nnot_before: 2999-01-01T00:00:00Z");
    host.wait_for("waits", &["waiting schedule"]);
    // No names of orders: those that are in sight before it is too much would each be refused, and take their time.
    let flood = || (0..40_000).map(|n| format!("hostler/groups/a/orders/N{n}"));
    transact(&consul, "set", flood(), "");
    // And more than one answer may have, in values that nobody reads.
    let large = "x".repeat(500_000);
    let heap = || (0..80).map(|n| format!("hostler/groups/a/orders/_L{n}"));
    heap().for_each(|key| consul.put(&key, &large));
    for order in ["own", "own-anew"] {
        host.order(order, "task: count");
        host.wait_for(order, &["succeeded"]);
        small(&host);
        host.kill();
        host.start();
    }
    condition(&host, &["too much to answer to list", "groups/a/", "have no effect"]);
    consul.put("hostler/groups/a/orders/unseen", "task: count\nspread: 0s");
    // Nearer and farther places go on, also after a restart, when nothing of the flooded one was ever read.
    for round in ["before", "after"] {
        host.order(&format!("own-{round}"), "task: count");
        consul.put(&format!("hostler/groups/b/orders/b-{round}"), "task: count\nspread: 0s");
        consul.put(&format!("hostler/groups/all/orders/all-{round}"), "task: count\nspread: 0s");
        for order in ["own", "b", "all"] {
            host.wait_for(&format!("{order}-{round}"), &["succeeded"]);
        }
        // An order that a nearer one may replace is not started before that is known.
        consul.put(&format!("hostler/groups/a/orders/twice-{round}"), "skip: true");
        consul.put(&format!("hostler/groups/all/orders/twice-{round}"), "task: count\nspread: 0s");
        if round == "before" {
            small(&host);
            host.kill();
            host.start();
            condition(&host, &["too much to answer to list", "groups/a/"]);
        }
    }
    assert!(host.effects("unseen").is_empty() && host.report("unseen").is_none());
    assert_eq!(host.report("waits").map(|report| report["phase"].clone()), Some(json!("waiting")));
    small(&host);
    transact(&consul, "delete", flood().chain(heap()), "");
    host.wait_for("unseen", &["succeeded"]);
    host.wait_for("twice-after", &["skipped"]);
    assert!(host.effects("twice-after").is_empty());
    eventually(DEFAULT_TIMEOUT, || match conditions(&host) {
        conditions if conditions.contains("too much") => Err(conditions),
        _ => Ok(()),
    });
}

/// A host that has never joined begins with what it can read; the flooded group has its turn when it can be read.
#[test]
fn p10_a_host_that_joins_beside_a_flooded_group_begins_with_its_other_orders() {
    let consul = Consul::dev();
    let mut host = host("joins", &consul);
    let flood = || (0..40_000).map(|n| format!("hostler/groups/a/orders/N{n}"));
    transact(&consul, "set", flood(), "");
    consul.put("hostler/groups/a/orders/late", "task: count\nspread: 0s");
    consul.put("hostler/groups/a/orders/twice", "skip: true");
    for order in ["far", "twice"] {
        consul.put(
            &format!("hostler/groups/all/orders/{order}"),
            "task: count\nspread: 0s\non_preexisting: run",
        );
    }
    host.put("hostler/hosts/joins/orders/before", "task: count");
    host.start();
    host.wait_for("far", &["succeeded"]);
    host.wait_for("before", &["held preexisting"]);
    condition(&host, &["too much to answer to list", "groups/a/", "have no effect"]);
    for order in ["own", "own-anew"] {
        host.order(order, "task: count");
        host.wait_for(order, &["succeeded"]);
        host.kill();
        host.start();
    }
    assert!(host.report("late").is_none() && host.effects("twice").is_empty());
    transact(&consul, "delete", flood(), "");
    // What it holds was there before this host, as far as this host can tell.
    host.wait_for("late", &["held preexisting"]);
    host.wait_for("twice", &["skipped"]);
    consul.put("hostler/groups/a/orders/new", "task: count\nspread: 0s");
    host.wait_for("new", &["succeeded"]);
    assert!(host.effects("late").is_empty() && host.effects("twice").is_empty());
}

/// All of it at the same time: prefixes as full as is read, values that are dropped, a group with too many names,
/// telemetry's connections, controls, and runs that print without end.
#[test]
fn p9_everything_at_its_bound_at_once_fits_into_64_mib() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("full", &consul);
    let [port] = free_ports();
    host.configure(&format!(
        "groups: [a, b, c]\nclock: trusted\ntelemetry: {{listen: \"127.0.0.1:{port}\"}}\nruns: {{parallel: 5}}"
    ));
    host.counting_task("count", "once:x", "0");
    host.task(
        "noisy",
        "name: noisy\nversion: 1\nsteps:\n- name: print\n  run: [./print]\n",
        &[(
            "print",
            "#!/bin/sh\nwhile :; do head -c 100000 /dev/zero | tr '\\0' 'n'; echo; sleep 0.05; done\n",
        )],
    );
    for group in ["a", "b", "c"] {
        consul.put(&format!("hostler/groups/{group}/_hostler"), "{}");
    }
    host.start();
    host.order("own", "task: count");
    host.wait_for("own", &["succeeded"]);
    // While it is down: a prefix that grows keeps the room of what was last read of it, and takes it from others.
    host.kill();
    transact(&consul, "set", (0..40_000).map(|n| format!("hostler/groups/c/orders/N{n}")), "");
    for noise in 0..4 {
        host.order(&format!("noisy-{noise}"), "task: noisy");
    }
    host.start();
    for noise in 0..4 {
        host.wait_for(&format!("noisy-{noise}"), &["running"]);
    }
    condition(&host, &["too much to answer to list", "groups/c/"]);
    let full = format!("task: count\nnot_before: 2999-01-01T00:00:00Z\nspread: 0s\n# {}", "x".repeat(55_000));
    let large = "x".repeat(500_000);
    for place in ["hosts/full", "groups/a", "groups/b", "groups/all"] {
        for n in 0..50 {
            let name = place.replace('/', "-");
            consul.put(&format!("hostler/{place}/orders/{name}-{n}"), &full);
        }
        for n in 0..20 {
            consul.put(&format!("hostler/{place}/orders/_L{n}"), &large);
        }
    }
    let id = |n: u32| format!("01M880X0ZG0FH59TKJ1N{n:06}");
    transact(&consul, "set", (0..2_000).map(|n| format!("hostler/hosts/full/control/o/{}", id(n))), "");
    let mut silent = Vec::new();
    let mut connect = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.write_all(b"GET /metri").map_err(|error| error.to_string())?;
        silent.push(stream);
        Ok::<_, String>(())
    };
    eventually(DEFAULT_TIMEOUT, &mut connect);
    for _ in 0..200 {
        connect().expect("a connection");
    }
    host.wait_for("groups-all-49", &["waiting schedule"]);
    // Each touch has all of the host's prefix sent again.
    for n in 0..3 {
        host.order("own", &format!("task: count\nrevision: 'r{n}'"));
        host.wait_completed("own", n + 2);
        small(&host);
    }
    for noise in 0..4 {
        let (exit, said) =
            host.hostler(&["cancel", &format!("noisy-{noise}"), "--host", "full", "--answer-timeout", "60s"]);
        assert_eq!(exit, 0, "{said}");
        host.wait_for(&format!("noisy-{noise}"), &["cancelled"]);
    }
    small(&host);
}

/// A server that never ends an answer, and each time in another way: what is read of it has a bound in bytes, pieces and
/// memory, and the next question comes later and later.
#[test]
fn p9_a_server_without_measure_costs_neither_memory_nor_the_processor() {
    let good = |body: &str| Reply::consul(200, 7, body);
    let keys: Vec<String> = (0..400_000)
        .map(|n| {
            format!("{{\"Key\":\"hostler/hosts/measure/orders/k{n}\",\"Value\":null,\"ModifyIndex\":9}}")
        })
        .collect();
    let headers = || {
        vec![
            ("X-Consul-Index".to_owned(), "7".to_owned()),
            ("X-Consul-KnownLeader".to_owned(), "true".to_owned()),
        ]
    };
    let rows = [
        ("keys", good(&format!("[{}]", keys.join(",")))),
        ("endless", Reply::Endless(headers())),
        ("pieces", Reply::Pieces(headers())),
        ("text", good(&format!("[{{\"Key\":\"{}", "x".repeat(80 << 20)))),
        ("continue", Reply::Continue),
    ];
    for (name, reply) in rows {
        let fake = Fake::start(vec![reply]);
        let mut host = Host::on_port("measure", fake.port(), None);
        host.start();
        let begun = Instant::now();
        // Each of the two watches, and the reader of the reports, asks some times.
        eventually(DEFAULT_TIMEOUT * 2, || match fake.requests().len() {
            0..12 if name != "continue" => Err(format!("{name}: {}", fake.requests().len())),
            // Each watch, once: a core for the time of a request is what SECURITY.md grants to this one.
            0..2 => Err(format!("{name}: {}", fake.requests().len())),
            _ => Ok(()),
        });
        let (spent, took) = (processor(&host), begun.elapsed().as_secs_f64());
        eprintln!("{name}: {spent} s of the processor in {took} s");
        assert!(spent < took / 2.0 + 2.0, "{name}: {spent} s of the processor in {took} s");
        assert!(host.is_up(), "{name}: {}", host.log_tail());
        small(&host);
    }
}

/// What one host's token can write stops no question about the others.
#[test]
fn p10_what_one_host_reports_without_measure_keeps_no_other_from_being_read() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("good", &consul);
    host.counting_task("count", "once:x", "0");
    host.start();
    host.order("o", "task: count");
    let run = host.wait_for("o", &["succeeded"])["run"].as_str().expect("a run").to_owned();
    let id = |n: u32| format!("01M880X0ZG0FH59TKJ1N{n:06}");
    let large =
        format!("{{\"version\": 1, \"phase\": \"succeeded\", \"tail\": \"{}\"}}", "x".repeat(512_000));
    for n in 0..80 {
        consul.put(&format!("hostler/reports/runs/bad/{}", id(n)), &large);
    }
    // 12 MB in values that are small enough to be read each.
    let middle = large.get(..60_000).expect("a part of it");
    for n in 0..200 {
        consul.put(&format!("hostler/reports/runs/worse/{}", id(n)), middle);
    }
    transact(&consul, "set", (0..40_000).map(|n| format!("hostler/reports/runs/worst/{}", id(n))), "");
    consul.put("hostler/reports/orders/bad/o", &large);
    consul.put("hostler/reports/agents/bad", &large);
    consul.put("hostler/hosts/bad/_hostler", "{}");
    let elsewhere = Host::on_port("desk", consul.port(), None);
    let said = |words: &[&str], code: i32| {
        let (exit, said) = elsewhere.hostler(words);
        assert_eq!(exit, code, "{words:?}: {said}");
        said
    };
    let runs = said(&["runs", "-n", "500"], 0);
    assert!(runs.contains(&run) && runs.contains("unreadable"), "{runs}");
    assert!(runs.contains("not read: hostler/reports/runs/worst/"), "{runs}");
    said(&["logs", &run], 0);
    let status = said(&["status", "o", "--host", "good"], 0);
    assert!(status.contains("done"), "{status}");
    let all = said(&["status", "--json"], 0);
    assert!(all.contains("good"), "{all}");
    said(&["order", "list"], 0);
}

/// Names that are used and gone cost neither the host nor the store anything in the long run, across restarts too.
#[test]
fn p9_names_of_orders_that_are_gone_are_forgotten() {
    let consul = Consul::dev();
    let mut host = host("names", &consul);
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    let prefix = "hostler/hosts/names/orders/";
    let reports = || consul.list("hostler/reports/orders/names/").len();
    let ledger = |host: &Host| fs::metadata(host.path("state/ledger")).map_or(0, |file| file.len());
    let (waits, count) = ("dGFzazogY291bnQKbm90X2JlZm9yZTogMjk5OS0wMS0wMVQwMDowMDowMFo=", 1_500);
    for round in 0..2 {
        let names = || (0..count).map(|n| format!("{prefix}r{round}-{n}"));
        transact(&consul, "set", names(), waits);
        eventually(DEFAULT_TIMEOUT * 3, || match reports() {
            n if n > count => Ok(()),
            n => Err(format!("{n} reports; {}", host.log_tail())),
        });
        if round == 1 {
            host.kill();
            host.start();
        }
        transact(&consul, "delete", names(), "");
        // The last hundred are still told, and the one that is there.
        eventually(DEFAULT_TIMEOUT * 3, || match reports() {
            ..=101 => Ok(()),
            n => Err(format!("{n} reports; {}", host.log_tail())),
        });
    }
    // All but the newest thousand, in as many goes as that takes.
    eventually(DEFAULT_TIMEOUT * 2, || {
        let log = fs::read_to_string(host.path("log")).unwrap_or_default();
        let goes = log.lines().filter_map(|line| {
            let line = line.strip_suffix(" names of orders that were deleted long ago from the ledger")?;
            line.rsplit(' ').next()?.parse::<usize>().ok()
        });
        let forgotten: usize = goes.sum();
        if forgotten >= 2 * count - 1_000 { Ok(()) } else { Err(format!("{forgotten}; {}", host.log_tail())) }
    });
    assert_eq!(host.report("first").map(|report| report["phase"].clone()), Some(json!("succeeded")));
    // It is written anew at the next start, and says no more than the newest thousand.
    host.kill();
    host.start();
    host.order("last", "task: count");
    host.wait_for("last", &["succeeded"]);
    assert!(ledger(&host) < 3 << 19, "{} bytes", ledger(&host));
    assert!(reports() <= 102, "{} reports after a restart", reports());
    // One that is back is not started a second time as long as it is remembered, and is told of again.
    host.order("first", "task: count");
    host.delete("hostler/hosts/names/orders/first");
    host.order("first", "task: count");
    assert_eq!(host.effects("first").len(), 1);
}
