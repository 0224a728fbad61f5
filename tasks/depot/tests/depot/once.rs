//! Short streams, such as WAL segments, go by one request: which they are, that it is checked like any other, and what
//! becomes of it when something breaks.

use std::sync::{Arc, Mutex};

use age::secrecy::ExposeSecret;

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::servers::{BUCKET, Strict};

const MIB: usize = 1 << 20;

/// A configuration that says nothing of parts but these lines.
fn configure(depot: &Depot, proxy: &Proxy, more: &str) {
    let (server, state) = (proxy.address, depot.state().display().to_string());
    let text = format!(
        "endpoint: http://{server}\nregion: us-east-1\nbucket: {BUCKET}\nstate_dir: {state}\n{more}\n"
    );
    std::fs::write(depot.path("depot.yml"), text).unwrap();
}

/// Notes each request, and lets it pass.
fn noted(proxy: &Proxy) -> Arc<Mutex<Vec<Seen>>> {
    let all: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let note = Arc::clone(&all);
    proxy.rule(move |seen| {
        note.lock().unwrap().push(seen.clone());
        Fate::Pass
    });
    all
}

#[test]
fn a_wal_segment_goes_by_one_request_whatever_is_done_with_it() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    let all = noted(&proxy);
    let identity = age::x25519::Identity::generate();
    let key = depot.path("key.txt");
    std::fs::write(&key, identity.to_string().expose_secret()).unwrap();
    let age =
        format!("encrypt: {{recipients: [{}], identity_file: {}}}", identity.to_public(), key.display());
    let segment = noise(11, 16 * MIB);
    for (name, more) in [
        ("plain", String::new()),
        ("zstd", "compress: 3".to_owned()),
        ("age", age.clone()),
        ("both", format!("compress: 1\n{age}")),
        ("md5", "checksums: md5".to_owned()),
        ("none", "checksums: none".to_owned()),
        ("even", "parts: even".to_owned()),
    ] {
        configure(&depot, &proxy, &more);
        all.lock().unwrap().clear();
        let put = depot.feed(&["put", &format!("wal/{name}"), "--json"], &segment).ok().json();
        let asked = all.lock().unwrap().clone();
        let methods: Vec<&str> = asked.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(methods, ["HEAD", "PUT", "HEAD", "PUT", "GET"], "{name}: no request more than these");
        let sent = asked.iter().find(|seen| seen.is_data()).unwrap();
        let has = |header: &str| sent.headers.contains_key(header);
        assert_eq!(
            (has("x-amz-checksum-crc32c"), has("content-md5")),
            (!matches!(name, "md5" | "none"), name == "md5")
        );
        assert_eq!(
            sent.headers["x-amz-content-sha256"].len(),
            64,
            "{name}: without TLS the bytes are signed"
        );
        assert_eq!(put["verified"], "checksums", "{name}");
        let stored = &put["backup"]["stored"];
        assert_eq!(stored["parts"], serde_json::json!([[1, stored["size"]]]), "{name}");
        assert!(depot.run(&["get", &format!("wal/{name}")]).ok().out == segment, "{name}");
        depot.run(&["verify", &format!("wal/{name}")]).ok();
    }
    assert!(server.leftovers().is_empty());
    assert_eq!(depot.begun(), 0);
}

#[test]
fn longer_streams_go_in_parts_and_so_do_all_where_parts_or_memory_or_a_rate_are_said() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    let all = noted(&proxy);
    let bytes = noise(12, 41 * MIB);
    for (number, (length, more, options, parts)) in [
        (5 * MIB + 1, "", &[][..], 0),
        (20 * MIB, "", &[], 0),
        (20 * MIB + 1, "", &[], 5),
        (41 * MIB, "", &[], 9),
        (6 * MIB, "part_mib: 5", &[], 2),
        (6 * MIB, "", &["--part", "5242880"], 2),
        (6 * MIB, "limit: 500000000", &[], 2),
        (6 * MIB, "", &["--limit", "500000000"], 2),
        (9 * MIB, "memory_mib: 10", &[], 0),
        (11 * MIB, "memory_mib: 10", &[], 3),
        (16 * MIB, "memory_mib: 20", &[], 0),
        (21 * MIB, "memory_mib: 20", &[], 5),
        (16 * MIB, "memory_mib: 1", &[], 4),
    ]
    .into_iter()
    .enumerate()
    {
        configure(&depot, &proxy, more);
        all.lock().unwrap().clear();
        let name = format!("db/{number}");
        let arguments: Vec<&str> = ["put", &name].into_iter().chain(options.iter().copied()).collect();
        depot.feed(&arguments, &bytes[..length]).ok();
        let sent = all.lock().unwrap().iter().filter(|seen| seen.is_part()).count();
        assert_eq!(sent, parts, "{length} bytes, {more:?}, {options:?}");
        assert!(depot.run(&["get", &name]).ok().out == bytes[..length], "{length}, {more:?}");
    }
    depot.run(&["verify"]).ok();
}

#[test]
fn the_one_request_is_tried_again_until_the_server_has_the_bytes() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    let segment = noise(13, 16 * MIB);
    for (name, fate) in [
        ("reset", Fate::Reset),
        ("lost", Fate::LoseAnswer),
        ("busy", Fate::Answer(503, "SlowDown")),
        ("flipped", Fate::FlipSent),
    ] {
        for more in ["", "compress: 3", "checksums: md5"] {
            configure(&depot, &proxy, &format!("timeout: 2\n{more}"));
            let failed = Mutex::new(0);
            let fate = fate.clone();
            proxy.rule(move |seen| {
                let mut failed = failed.lock().unwrap();
                if seen.is_data() && *failed < 2 {
                    *failed += 1;
                    return fate.clone();
                }
                Fate::Pass
            });
            let name = format!("{name}/{}", if more.is_empty() { "plain" } else { &more[..3] });
            let put = depot.feed(&["put", &name, "--json"], &segment).ok().json();
            assert_eq!(
                (&put["verified"], &put["figures"]["retries"]),
                (&"checksums".into(), &2.into()),
                "{name}"
            );
            assert!(depot.run(&["get", &name]).ok().out == segment, "{name}");
        }
    }
}

#[test]
fn a_server_that_proves_nothing_is_read_back_and_one_that_changes_the_bytes_is_found_out() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    configure(&depot, &proxy, "tries: 2");
    let segment = noise(14, 16 * MIB);
    let silent = |seen: &Seen| seen.method == "PUT" && seen.is_of_data();
    proxy.rule(move |seen| if silent(seen) { Fate::With("etag", "\"no-md5\"") } else { Fate::Pass });
    let put = depot.feed(&["put", "wal/1", "--json"], &segment).ok().json();
    assert_eq!(put["verified"], "sample");
    proxy.rule(move |seen| match seen {
        _ if silent(seen) => Fate::With("etag", "\"no-md5\""),
        _ if seen.is_range() => Fate::FlipAnswer,
        _ => Fate::Pass,
    });
    depot.feed(&["put", "wal/2"], &segment).fails(7, "the server has other bytes than were sent");
    proxy.rule(|_| Fate::Pass);
    assert_eq!(depot.names(), ["wal/1"]);
    assert_eq!(server.keys().len(), 2, "nothing was kept of the other");
}

#[test]
fn what_fails_before_its_end_leaves_nothing_and_sends_nothing() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    configure(&depot, &proxy, "");
    let all = noted(&proxy);
    depot
        .run(&["put", "db/a", "--", "sh", "-c", "head -c 15000000 /dev/zero; exit 3"])
        .fails(8, "exit status: 3");
    assert!(!all.lock().unwrap().iter().any(Seen::is_data), "the end was not good, so nothing was sent");
    assert_eq!(server.keys(), Vec::<String>::new());
    assert_eq!(depot.begun(), 0);
}
