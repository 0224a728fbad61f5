//! Nothing that must be kept can be lost: locks, wrong clocks, and two hosts that work on one bucket.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::servers::{Moto, Strict};

const DAY: i64 = 86_400;

#[test]
fn what_the_server_keeps_stays_a_backup() {
    let server = Moto::start();
    server.bucket(&[("x-amz-bucket-object-lock-enabled", "true")]);
    let depot = Depot::new(server.address, "databases: {db: {keep: {hourly: 1}}}");
    for name in ["db/held", "db/retained", "db/free"] {
        depot.put(name, name.as_bytes());
    }
    let key = |name: &str| {
        let shown = depot.run(&["show", "--json", name]).ok().json();
        shown["backup"]["stored"]["key"].as_str().unwrap().to_owned()
    };
    let hold = "<LegalHold><Status>ON</Status></LegalHold>";
    let (status, text) = server.ask("PUT", &format!("/vault/prod/{}?legal-hold", key("db/held")), &[], hold);
    assert_eq!(status, 200, "{text}");
    let until =
        (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(72)).strftime("%Y-%m-%dT%H:%M:%SZ");
    let retain =
        format!("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    let path = format!("/vault/prod/{}?retention", key("db/retained"));
    let (status, text) = server.ask("PUT", &path, &[], &retain);
    assert_eq!(status, 200, "{text}");
    depot.run(&["delete", "db/held"]).fails(6, "legal hold");
    depot.run(&["delete", "db/retained"]).fails(6, "locked until");
    depot.run(&["delete", "--force", "db/held", "db/retained"]).fails(1, "2 of 2");
    depot.run(&["prune"]).fails(1, "legal hold");
    depot.run(&["clean", "--stale", "0s"]).ok();
    assert_eq!(depot.names(), ["db/held", "db/retained", "db/free"]);
    depot.run(&["verify"]).ok();
    assert_eq!(depot.run(&["get", "db/held"]).ok().out, b"db/held");
    assert_eq!(depot.begun(), 0);
    depot.run(&["delete", "db/free"]).ok();
}

#[test]
fn a_move_takes_locks_along_and_a_locked_leftover_does_not_disappear_behind_a_marker() {
    let server = Moto::start();
    server.bucket(&[("x-amz-bucket-object-lock-enabled", "true")]);
    let proxy = Proxy::start(server.address);
    // moto asks for this header of copies with a lock too.
    proxy.rule(|seen| {
        let copied = seen.headers.contains_key("x-amz-copy-source");
        if copied { Fate::Sent("x-amz-sdk-checksum-algorithm", "CRC32C") } else { Fate::Pass }
    });
    let depot = Depot::new(
        proxy.address,
        "databases: {db: {keep: {hourly: 1}, cold: {after_days: 0, class: GLACIER}}}",
    );
    for name in ["other/held", "other/retained", "db/held", "db/newest"] {
        depot.put(name, name.as_bytes());
    }
    let path = |name: &str, question: &str| {
        let shown = depot.run(&["show", "--json", name]).ok().json();
        format!("/vault/prod/{}?{question}", shown["backup"]["stored"]["key"].as_str().unwrap())
    };
    for name in ["other/held", "db/held"] {
        let hold = "<LegalHold><Status>ON</Status></LegalHold>";
        assert_eq!(server.ask("PUT", &path(name, "legal-hold"), &[], hold).0, 200);
    }
    let until = |hours| {
        (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours))
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    let retain = format!(
        "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
        until(72)
    );
    assert_eq!(server.ask("PUT", &path("other/retained", "retention"), &[], &retain).0, 200);
    for (name, why) in [("other/held", "legal hold"), ("other/retained", "locked until")] {
        let old = path(name, "");
        depot.run(&["move", name, "--to", "STANDARD_IA"]).ok();
        assert_ne!(path(name, ""), old);
        depot.run(&["delete", "--force", name]).fails(6, why);
        assert_eq!(depot.run(&["get", name]).ok().out, name.as_bytes());
    }
    let shown = depot.run(&["show", "--json", "other/retained"]).ok().json();
    let locked: jiff::Timestamp =
        shown["backup"]["stored"]["locked_until"].as_str().unwrap().parse().unwrap();
    assert!(locked.duration_since(jiff::Timestamp::now()).as_hours() >= 71, "{shown}");
    // Also what the rules move, once they are kept from deleting it.
    depot.run(&["prune"]).fails(1, "legal hold");
    assert!(depot.names().contains(&"db/held".to_owned()));
    // Bytes that belong to no backup, under a lock, and a note about a thaw that belongs to none.
    let locks = [
        ("x-amz-sdk-checksum-algorithm", "CRC32C"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-retain-until-date", &until(24)),
    ];
    assert_eq!(server.ask("PUT", "/vault/prod/db/lost/data.X", &locks, "bytes").0, 200);
    assert_eq!(server.ask("PUT", "/vault/prod/db/lost/thaw.json", &[], "{}").0, 200);
    let cleaned = depot.run(&["clean", "--stale", "0s", "--json"]).ok();
    assert!(cleaned.err.contains("a leftover stays: db/lost/data.X"), "{}", cleaned.err);
    assert_eq!(cleaned.json()["stale_objects"], 1, "the note alone");
    assert_eq!(server.ask("GET", "/vault/prod/db/lost/data.X", &[], "").0, 200);
    assert_eq!(server.ask("GET", "/vault/prod/db/lost/thaw.json", &[], "").0, 404);
    depot.run(&["verify", "other/held", "other/retained"]).ok();
}

#[test]
fn a_deletion_that_the_server_refuses_leaves_the_backup_also_when_it_is_finished_later() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 3\ntries: 1");
    depot.put("db/a", b"kept");
    let denied = |seen: &Seen| seen.method == "DELETE" && seen.is_of_data();
    proxy.rule(move |seen| if denied(seen) { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    depot.run(&["delete", "db/a"]).fails(6, "s3:DeleteObject");
    assert_eq!((depot.begun(), depot.names()), (0, vec!["db/a".to_owned()]));
    // It dies before the server has answered; then the server refuses.
    proxy.rule(move |seen| if denied(seen) { Fate::Reset } else { Fate::Pass });
    depot.run(&["delete", "db/a"]).fails(4, "deleting");
    assert_eq!(depot.begun(), 1);
    proxy.rule(move |seen| if denied(seen) { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    depot.run(&["clean"]).ok();
    proxy.rule(|_| Fate::Pass);
    assert_eq!(depot.run(&["get", "db/a"]).ok().out, b"kept");
    assert_eq!((depot.begun(), server.keys().len()), (0, 2));
}

#[test]
fn a_host_whose_clock_is_wrong_says_so_and_neither_prunes_cleans_nor_dates() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "databases: {db: {keep: {hourly: 1}}}");
    let (status, _) = server.ask("POST", "/vault/prod/db/lost/data.X?uploads", &[], "");
    assert_eq!(status, 200);
    for (ahead, way) in [(-8 * DAY, "ahead of"), (8 * DAY, "behind"), (-301, "ahead of")] {
        proxy.rule(move |_| Fate::Dated(ahead));
        let name = format!("db/{}", ahead + 9 * DAY);
        let put = depot.feed(&["put", &name, "--json"], b"x").ok();
        assert!(put.err.contains(way), "{}", put.err);
        let time: jiff::Timestamp = put.json()["backup"]["time"].as_str().unwrap().parse().unwrap();
        let off = time.duration_since(jiff::Timestamp::now()).as_secs() - ahead;
        assert!(off.abs() < 120, "dated by the server: {off}");
        for command in [&["prune"][..], &["prune", "--dry-run"], &["clean"], &["clean", "--stale", "0s"]] {
            depot.run(command).fails(6, way);
        }
        assert!(depot.run(&["list"]).ok().err.contains(way));
    }
    let (_, uploads) = server.ask("GET", "/vault?uploads", &[], "");
    assert!(uploads.contains("db/lost"), "nothing was cleared away: {uploads}");
    // One of them is dated a week ahead: it counts for no rule, and is said.
    proxy.rule(|_| Fate::Pass);
    for name in ["db/old", "db/today"] {
        depot.put(name, name.as_bytes());
    }
    let pruned = depot.run(&["prune"]).ok();
    assert!(pruned.err.contains("dated in the future"), "{}", pruned.err);
    let names = depot.names();
    assert!(names.contains(&"db/today".to_owned()) && names.len() == 2, "{names:?}");
}

/// Two puts of one name whose manifests meet at the server.
fn meet(rule: fn(&Seen) -> Fate) {
    // It holds no signature against its key, so that headers can be taken away.
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let barrier = Arc::new(Barrier::new(2));
    let first = AtomicUsize::new(0);
    proxy.rule(move |seen| {
        if seen.is_manifest() && first.fetch_add(1, Ordering::SeqCst) < 2 {
            barrier.wait();
        }
        rule(seen)
    });
    let hosts = [Depot::new(proxy.address, "timeout: 20"), Depot::new(proxy.address, "timeout: 20")];
    let contents = [b"one".to_vec(), b"the other".to_vec()];
    let codes: Vec<Option<i32>> = std::thread::scope(|scope| {
        let puts: Vec<_> = hosts
            .iter()
            .zip(&contents)
            .map(|(host, bytes)| scope.spawn(|| host.feed(&["put", "db/a"], bytes).code))
            .collect();
        puts.into_iter().map(|put| put.join().unwrap()).collect()
    });
    let winner = codes.iter().position(|code| *code == Some(0)).unwrap();
    assert_eq!(codes[1 - winner], Some(6), "{codes:?}");
    proxy.rule(|_| Fate::Pass);
    assert_eq!(hosts[0].run(&["get", "db/a"]).ok().out, contents[winner]);
    let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
    assert_eq!(keys.matches("<Key>").count(), 2, "{keys}");
}

#[test]
fn of_two_puts_of_one_name_one_wins_where_the_server_knows_conditions() {
    meet(|_| Fate::Pass);
}

#[test]
fn of_two_puts_of_one_name_one_wins_where_the_server_ignores_conditions() {
    meet(|_| Fate::Without("if-none-match"));
}

#[test]
fn of_two_puts_of_one_name_one_wins_where_the_server_refuses_conditions() {
    meet(|seen| {
        let asked = seen.headers.contains_key("if-none-match");
        if asked { Fate::Answer(501, "NotImplemented") } else { Fate::Pass }
    });
}

#[test]
fn a_base_is_not_deleted_while_something_is_stored_on_it() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let rules = "databases: {db: {keep: {hourly: 1}}}";
    let host = Depot::new(proxy.address, rules);
    let other = Arc::new(Depot::new(server.address, rules));
    host.put("db/base", b"base");
    host.put("db/newer", b"newer");
    for (command, forced) in
        [(&["prune"][..], false), (&["delete", "db/base"], false), (&["delete", "--force", "db/base"], true)]
    {
        let (once, beside) = (AtomicBool::new(true), Arc::clone(&other));
        let answer = Arc::new(Mutex::new(None));
        let told = Arc::clone(&answer);
        proxy.rule(move |seen| {
            // The child's bytes are on their way.
            if seen.is_data() && once.swap(false, Ordering::SeqCst) {
                *told.lock().unwrap() = Some(beside.run(command));
            }
            Fate::Pass
        });
        let put = host.feed(&["put", "db/child", "--parent", "db/base"], &noise(3, 6 << 20));
        proxy.rule(|_| Fate::Pass);
        let answer = answer.lock().unwrap().take().unwrap();
        if forced {
            answer.ok();
            put.fails(7, "base is missing");
        } else {
            assert!(answer.err.contains("is being stored"), "{command:?}: {}", answer.err);
            put.ok();
            host.run(&["verify"]).ok();
            // Published by now, it is seen by its manifest.
            other.run(&["delete", "db/base"]).fails(6, "builds on");
            host.run(&["delete", "db/child"]).ok();
        }
    }
    assert_eq!(host.names(), ["db/newer"]);
    assert_eq!(server.keys().len(), 2, "{:?}", server.keys());
}

#[test]
fn of_a_move_and_a_delete_that_meet_one_wins() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let host = Depot::new(proxy.address, "");
    let other = Arc::new(Depot::new(server.address, ""));
    type When = fn(&Seen) -> bool;
    let at: [(&str, When); 2] = [
        ("the copy", |seen| seen.headers.contains_key("x-amz-copy-source")),
        ("the manifest", Seen::is_manifest),
    ];
    for (what, when) in at {
        for command in [&["delete", "db/a"][..], &["move", "db/a", "--to", "ONEZONE_IA"]] {
            other.put("db/a", b"contents");
            let (once, beside) = (AtomicBool::new(true), Arc::clone(&other));
            proxy.rule(move |seen| {
                if when(seen) && once.swap(false, Ordering::SeqCst) {
                    beside.run(command).ok();
                }
                Fate::Pass
            });
            host.run(&["move", "db/a", "--to", "STANDARD_IA"]).fails(6, "nothing was changed");
            proxy.rule(|_| Fate::Pass);
            let there = command[0] == "move";
            assert_eq!(host.names().len(), usize::from(there), "{what} {command:?}");
            if there {
                host.run(&["verify"]).ok();
                host.run(&["delete", "db/a"]).ok();
            }
            let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
            assert_eq!(keys.matches("<Key>").count(), 0, "{what} {command:?}: {keys}");
            assert_eq!(host.begun() + other.begun(), 0);
        }
    }
}
