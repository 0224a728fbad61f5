//! A backup that is reported can be restored: nothing is no backup, a child has its whole chain, and what was stored is
//! what was read. One bad object hides no other.

use std::process::Stdio;

use crate::support::depot::{Depot, ended, feed};
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::servers::{Moto, Strict};

#[test]
fn nothing_is_no_backup_whatever_it_came_from() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "databases: {db: {keep: {daily: 1}}}");
    depot.put("db/real", b"something");
    for command in [vec!["true"], vec!["sh", "-c", "exec >&-; exit 0"], vec!["cat", "/dev/null"]] {
        let arguments = [vec!["put", "db/none", "--"], command].concat();
        depot.run(&arguments).fails(8, "the stream was empty");
    }
    depot.feed(&["put", "db/none"], b"").fails(8, "the stream was empty");
    depot.feed(&["put", "db/none", "--compress", "3"], b"").fails(8, "the stream was empty");
    let shell = format!("'{}' put db/none <&-", env!("CARGO_BIN_EXE_hostler-depot"));
    ended(depot.program("/bin/sh".as_ref(), &["-c", &shell]).spawn().unwrap())
        .fails(8, "the stream was empty");
    assert_eq!(server.keys().len(), 2, "{:?}", server.keys());
    // Who asks for it gets it, and it pushes out nothing.
    depot.feed(&["put", "db/asked", "--empty"], b"").ok();
    depot.run(&["prune"]).ok();
    assert_eq!(depot.names(), ["db/real", "db/asked"]);
    depot.run(&["verify"]).ok();
}

#[test]
fn a_backup_without_its_whole_chain_is_good_nowhere() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    depot.put("db/full", b"full");
    depot.feed(&["put", "db/one", "--parent", "db/full"], b"one").ok();
    depot.feed(&["put", "db/two", "--parent", "db/one"], b"two").ok();
    depot.run(&["verify"]).ok();
    let data = server.keys().into_iter().find(|key| key.contains("db/full/data.")).unwrap();
    let (data, aside) = (server.bucket().join(data), depot.path("aside"));
    std::fs::rename(&data, &aside).unwrap();
    for command in [&["verify"][..], &["verify", "db/two"], &["verify", "db/two", "--sample", "1"]] {
        depot.run(command).fails(7, "base is missing");
    }
    for command in [&["list"][..], &["list", "db/two"], &["status"], &["status", "db/one"]] {
        depot.run(command).fails(7, "base is missing");
    }
    let listed = depot.run(&["list", "--json"]).fails(7, "of 3 backups are damaged").json();
    let states: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["bytes are missing", "base is missing", "base is missing"]);
    // Its own bytes are given, with a warning; nothing more is built on it.
    assert!(depot.run(&["get", "db/two"]).ok().err.contains("base is missing"));
    depot.feed(&["put", "db/three", "--parent", "db/two"], b"three").fails(7, "base is missing");
    std::fs::rename(&aside, &data).unwrap();
    depot.run(&["verify"]).ok();
    assert_eq!(server.keys().len(), 6, "{:?}", server.keys());
}

#[test]
fn bytes_that_change_on_the_way_up_are_noticed_where_the_server_checks_nothing() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2");
    for length in [1000, 12 << 20] {
        let flips = std::sync::atomic::AtomicUsize::new(0);
        proxy.rule(move |seen| {
            let hit = seen.is_data() && flips.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            if hit { Fate::FlipSent } else { Fate::Pass }
        });
        depot.feed(&["put", "db/a"], &noise(7, length)).fails(7, "other bytes than were sent");
        proxy.rule(|_| Fate::Pass);
        assert!(depot.names().is_empty());
    }
    // An answer that proves nothing costs reading back; none that is wrong is ever success.
    for (name, value) in [("etag", "\"opaque\""), ("etag", "\"0123456789abcdef0123456789abcdef\"")] {
        proxy.rule(move |seen| if seen.is_data() { Fate::With(name, value) } else { Fate::Pass });
        let put = depot.feed(&["put", "db/a", "--json"], b"few").ok().json();
        assert_eq!(put["verified"], "sample");
        depot.run(&["delete", "db/a"]).ok();
    }
    proxy.rule(|_| Fate::Pass);
    let put = depot.feed(&["put", "db/a", "--json"], &noise(8, 12 << 20)).ok().json();
    assert_eq!(put["verified"], "checksums");
    proxy.rule(|seen| match seen {
        _ if seen.is_data() => Fate::With("etag", "\"opaque\""),
        _ if seen.is_range() => Fate::Answer(403, "AccessDenied"),
        _ => Fate::Pass,
    });
    let put = depot.feed(&["put", "db/b", "--json"], b"few").ok();
    assert_eq!(put.json()["verified"], "unverified");
    assert!(put.err.contains("unverified"), "{}", put.err);
}

#[test]
fn one_bad_object_hides_no_other_and_reading_needs_no_place_to_write() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 2\ntries: 2\ndatabases: {db: {keep: {hourly: 1}}}");
    for name in ["db/a", "db/b", "db/c"] {
        depot.put(name, name.as_bytes());
    }
    for (status, code) in [
        (403, "InvalidObjectState"),
        (403, "AccessDenied"),
        (400, "KMS.DisabledException"),
        (500, "InternalError"),
    ] {
        proxy.rule(move |seen| {
            let bad = seen.method == "GET" && seen.path.ends_with("db/a/manifest.json");
            if bad { Fate::Answer(status, code) } else { Fate::Pass }
        });
        let listed = depot.run(&["list", "--json"]).ok().json();
        let states: Vec<&str> =
            listed.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["good", "good", "unreadable"], "{code}");
        let told = depot.run(&["status", "--json"]).ok().json();
        assert_eq!(told[2]["state"]["state"], "unreadable", "{code}");
        depot.run(&["verify"]).fails(4, code);
        depot.run(&["clean"]).ok();
        depot.run(&["prune", "--dry-run"]).ok();
    }
    depot.run(&["delete", "db/b"]).ok();
    depot.run(&["prune"]).ok();
    proxy.rule(|_| Fate::Pass);
    assert_eq!(depot.names(), ["db/a", "db/c"], "what cannot be read is left alone");
    // No state folder can be made there.
    let nowhere = ["--state-dir", "/proc/nowhere"];
    for command in [&["list"][..], &["show", "db/a"], &["status"], &["verify"], &["get", "db/a"]] {
        depot.run(&[command, &nowhere].concat()).ok();
    }
    // A journal entry that cannot be read keeps nobody from clearing up after others.
    std::fs::create_dir_all(depot.state()).unwrap();
    for end in ["lock", "json"] {
        std::fs::write(depot.state().join(format!("bad.{end}")), "no entry").unwrap();
    }
    depot.feed(&["put", "db/d"], b"d").ok();
    depot.run(&["clean"]).fails(1, "bad.json");
}

#[test]
fn who_looks_down_from_above_calls_the_backups_of_others_neither_damaged_nor_waste() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    depot.put("db/a", b"below");
    depot.run(&["verify", "--prefix", ""]).ok();
    let above = depot.run(&["prune", "--stale", "0s", "--prefix", ""]).ok();
    assert!(!above.err.contains("left alone"), "{}", above.err);
    depot.run(&["clean", "--stale", "0s", "--prefix", ""]).ok();
    assert_eq!(depot.run(&["get", "db/a"]).ok().out, b"below");
}

#[test]
fn a_move_or_a_delete_beside_a_get_is_no_damage() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 10\ntries: 3\nmemory_mib: 10");
    let other = std::sync::Arc::new(Depot::new(server.address, ""));
    let bytes = noise(5, 23 << 20);
    depot.put("db/a", &bytes);
    let during = |arguments: &'static [&'static str], when: fn(&Seen) -> bool| {
        let (once, other) = (std::sync::atomic::AtomicBool::new(true), std::sync::Arc::clone(&other));
        proxy.rule(move |seen| {
            if when(seen) && once.swap(false, std::sync::atomic::Ordering::SeqCst) {
                other.run(arguments).ok();
            }
            Fate::Pass
        });
    };
    let third = |seen: &Seen| {
        seen.is_range() && seen.headers["range"].to_str().unwrap().starts_with("bytes=10485760")
    };
    during(&["move", "db/a", "--to", "STANDARD_IA"], third);
    assert!(depot.run(&["get", "db/a"]).ok().out == bytes);
    during(&["move", "db/a", "--to", "STANDARD"], |seen| seen.method == "HEAD" && seen.is_of_data());
    depot.run(&["verify"]).ok();
    // A manifest that is changed on the way once is read again.
    let once = std::sync::atomic::AtomicBool::new(true);
    proxy.rule(move |seen| {
        let hit = seen.method == "GET"
            && seen.path.ends_with("/manifest.json")
            && once.swap(false, std::sync::atomic::Ordering::SeqCst);
        if hit { Fate::FlipAnswer } else { Fate::Pass }
    });
    depot.run(&["verify"]).ok();
    during(&["delete", "db/a"], third);
    depot.run(&["get", "db/a"]).fails(5, "no backup");
}

#[test]
fn a_wrong_key_is_no_damage() {
    use age::secrecy::ExposeSecret;
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let key = depot.path("key.txt");
    std::fs::write(&key, other.to_string().expose_secret()).unwrap();
    let recipients = ours.to_public();
    depot.configure(
        server.address,
        &format!("encrypt: {{recipients: [{recipients}], identity_file: {}}}", key.display()),
    );
    let mut command = depot.command(&["put", "db/a"]);
    command.stdin(Stdio::piped());
    let put = feed(command, b"secret").ok();
    assert!(put.err.contains("none of the keys"), "{}", put.err);
    depot.run(&["get", "db/a"]).fails(3, "none of the keys");
    depot.run(&["verify"]).fails(3, "none of the keys");
}
