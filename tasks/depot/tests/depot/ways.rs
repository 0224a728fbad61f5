//! The ways to servers of every kind, and what is said when one is configured wrongly.

use std::sync::{Arc, Mutex};

use crate::support::depot::{Depot, feed};
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::{BUCKET, Moto, Strict};

/// A configuration with this endpoint.
fn at(depot: &Depot, endpoint: &str, more: &str) {
    let state = depot.state().display().to_string();
    let text = format!(
        "endpoint: {endpoint}\nregion: us-east-1\nbucket: {BUCKET}\nprefix: prod\nstate_dir: {state}\ntimeout: 5\n{more}\n"
    );
    std::fs::write(depot.path("depot.yml"), text).unwrap();
}

#[test]
fn what_is_configured_wrongly_is_said_at_once_by_its_name() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    let (empty, words) = (depot.path("empty.pem"), depot.path("words.pem"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&words, "only words\n").unwrap();
    for (endpoint, more, code, text) in [
        ("s3.example.com", String::new(), 3, "write https://s3.example.com"),
        ("localhost:9000", String::new(), 3, "no scheme"),
        ("http://", String::new(), 3, "not a URL"),
        ("https:/s3.example.com", String::new(), 3, "not a URL"),
        (&format!("https://{}", proxy.address), String::new(), 3, "does not speak TLS"),
        ("https://localhost:1", format!("ca_file: {}", empty.display()), 3, "holds no certificate"),
        ("https://localhost:1", format!("ca_file: {}", words.display()), 3, "ca_file"),
        ("https://localhost:1", "ca_file: /no/such.pem".to_owned(), 3, "ca_file"),
    ] {
        at(&depot, endpoint, &more);
        let ended = depot.run(&["list"]).fails(code, text);
        assert!(!ended.err.contains("tried"), "at once: {}", ended.err);
    }
    at(&depot, "https://localhost:1", "");
    let mut command = depot.command(&["list"]);
    command.env("AWS_CA_BUNDLE", &words);
    feed(command, b"").fails(3, "AWS_CA_BUNDLE");
    // Keys that are wrong or may not do it: at once, and which.
    depot.configure(proxy.address, "tries: 5");
    for (status, code, text) in [
        (403, "InvalidAccessKeyId", "key's id is unknown"),
        (403, "SignatureDoesNotMatch", "secret access key"),
        (403, "AccessDenied", "lack a permission"),
        (404, "NoSuchBucket", "create it"),
    ] {
        proxy.rule(move |_| Fate::Answer(status, code));
        depot.run(&["list"]).fails(4, text);
        assert_eq!(proxy.count(), 1, "{code}");
    }
}

#[test]
fn the_region_that_a_redirect_names_is_followed_and_said() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "tries: 3");
    proxy.rule(|seen| {
        let there = seen.headers["authorization"].to_str().unwrap().contains("/eu-central-1/s3/");
        if there { Fate::Pass } else { Fate::Region("eu-central-1") }
    });
    let put = depot.feed(&["put", "db/a"], b"x").ok();
    assert!(put.err.contains("set `region: eu-central-1`"), "{}", put.err);
    proxy.rule(|_| Fate::Region("eu-central-1"));
    depot.run(&["list"]).fails(3, "the bucket is in eu-central-1");
}

#[test]
fn keys_that_are_new_are_waited_for_and_an_explicit_profile_goes_before_the_environment() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "tries: 6");
    let secrets = depot.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("s3_access_key_id"), crate::support::servers::KEY_ID).unwrap();
    std::fs::write(secrets.join("s3_secret_access_key"), crate::support::servers::KEY).unwrap();
    proxy.rule(|seen| if seen.number <= 3 { Fate::Answer(403, "InvalidAccessKeyId") } else { Fate::Pass });
    depot.feed(&["put", "db/a", "--credentials-dir", secrets.to_str().unwrap()], b"x").ok();
    let aws = depot.path("aws");
    std::fs::write(&aws, "[other]\naws_access_key_id=AKIDOTHER\naws_secret_access_key=other\n").unwrap();
    depot.configure(proxy.address, "profile: other");
    let seen = Arc::new(Mutex::new(String::new()));
    let who = Arc::clone(&seen);
    proxy.rule(move |seen| {
        *who.lock().unwrap() = seen.headers["authorization"].to_str().unwrap().to_owned();
        Fate::Answer(403, "AccessDenied")
    });
    let mut command = depot.command(&["list"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &aws);
    feed(command, b"").fails(4, "AccessDenied");
    assert!(seen.lock().unwrap().contains("AKIDOTHER"), "{}", seen.lock().unwrap());
}

#[test]
fn proxies_of_the_environment_and_of_the_configuration_are_used() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(server.address, "");
    let url = format!("http://{}", proxy.address);
    // No such host: only a proxy reaches it.
    let away = "http://s3.invalid";
    let list = |more: &str, environment: &[(&str, &str)]| {
        at(&depot, away, &format!("tries: 1\n{more}"));
        let mut command = depot.command(&["list"]);
        command.envs(environment.iter().copied());
        feed(command, b"")
    };
    list("", &[]).fails(4, "listing");
    list("", &[("HTTP_PROXY", &url)]).ok();
    list("", &[("http_proxy", &url)]).ok();
    list("", &[("HTTP_PROXY", &url), ("NO_PROXY", "s3.invalid")]).fails(4, "listing");
    list(&format!("proxy: {url}"), &[]).ok();
    list(&format!("proxy: {url}\nno_proxy: s3.invalid"), &[]).fails(4, "listing");
    list("proxy: none", &[("HTTP_PROXY", &url)]).fails(4, "listing");
    list("proxy: no url", &[]).fails(3, "proxy");
}

#[test]
fn parts_can_be_even_and_sums_can_be_others_or_none() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let seen: Arc<Mutex<Vec<(u64, bool, bool)>>> = Arc::default();
    let note = Arc::clone(&seen);
    proxy.rule(move |seen| {
        if seen.is_part() {
            let length = seen.headers["content-length"].to_str().unwrap().parse().unwrap();
            let has = |name: &str| seen.headers.contains_key(name);
            note.lock().unwrap().push((length, has("x-amz-checksum-crc32c"), has("content-md5")));
        }
        Fate::Pass
    });
    let depot = Depot::new(proxy.address, "");
    let bytes = noise(6, 33 << 20);
    let part = 7 << 20;
    for (sums, crc, md5) in [("crc32c", true, false), ("md5", false, true), ("none", false, false)] {
        seen.lock().unwrap().clear();
        let text = std::fs::read_to_string(depot.path("depot.yml")).unwrap();
        let text = text.lines().filter(|line| !line.starts_with("part") && !line.starts_with("checksums"));
        let text = text.collect::<Vec<_>>().join("\n");
        std::fs::write(
            depot.path("depot.yml"),
            format!("{text}\npart_mib: 7\nparts: even\nchecksums: {sums}\n"),
        )
        .unwrap();
        let put = depot.feed(&["put", &format!("db/{sums}"), "--json"], &bytes).ok().json();
        assert_eq!(put["verified"], "checksums", "by the ETag where there is no other");
        let mut all = seen.lock().unwrap().clone();
        all.sort_unstable();
        assert_eq!(all.iter().map(|one| one.0).collect::<Vec<_>>(), [5 << 20, part, part, part, part]);
        assert!(all.iter().all(|one| (one.1, one.2) == (crc, md5)), "{sums}: {all:?}");
        assert!(depot.run(&["get", &format!("db/{sums}")]).ok().out == bytes);
    }
    depot.run(&["verify"]).ok();
}

#[test]
fn what_intelligent_tiering_has_archived_is_cold() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "storage_class: INTELLIGENT_TIERING");
    depot.put("db/a", b"archived");
    for (archive, hours) in [("ARCHIVE_ACCESS", 5), ("DEEP_ARCHIVE_ACCESS", 12)] {
        proxy.rule(move |seen| match seen {
            _ if seen.method == "HEAD" && seen.is_of_data() => Fate::With("x-amz-archive-status", archive),
            _ if seen.query.starts_with("restore") => Fate::Answer(409, "RestoreAlreadyInProgress"),
            _ => Fate::Pass,
        });
        let told = depot.run(&["status", "--json"]).ok().json();
        assert_eq!(told[0]["state"]["state"], "cold");
        assert_eq!(told[0]["state"]["seconds"], hours * 3600);
        depot.run(&["verify"]).ok();
        depot.run(&["thaw", "db/a"]).ok();
        depot.run(&["get", "db/a"]).fails(75, "is being thawed");
    }
    depot.run(&["thaw", "db/a", "--tier", "expedited"]).fails(6, "no Expedited thaw");
}

#[test]
fn a_thaw_is_made_faster_or_longer_or_says_that_it_is_not() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    depot.put("db/a", b"cold");
    depot.run(&["move", "db/a", "--to", "GLACIER"]).ok();
    server.held(100);
    depot.run(&["thaw", "db/a", "--tier", "bulk"]).ok();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    proxy.rule(move |seen| {
        if seen.query.starts_with("restore") {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return Fate::Answer(409, "RestoreAlreadyInProgress");
        }
        if seen.method == "HEAD" && seen.is_of_data() {
            return Fate::With("x-amz-restore", "ongoing-request=\"true\"");
        }
        Fate::Pass
    });
    depot.run(&["thaw", "db/a", "--tier", "bulk"]).ok();
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0, "as was asked before");
    depot.run(&["thaw", "db/a", "--tier", "expedited"]).fails(6, "not changed");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_thaw_on_its_way_becomes_faster_and_a_thawed_copy_stays_longer() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    depot.put("db/full", b"cold");
    depot.feed(&["put", "db/child", "--parent", "db/full"], b"cold too").ok();
    for name in ["db/full", "db/child"] {
        depot.run(&["move", name, "--to", "GLACIER"]).ok();
    }
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let thaw = |arguments: &[&str]| {
        let count = Arc::clone(&asked);
        count.store(0, std::sync::atomic::Ordering::SeqCst);
        proxy.rule(move |seen| {
            if seen.query.starts_with("restore") {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            Fate::Pass
        });
        let told = depot.run(&[&["thaw", "db/child", "--json"], arguments].concat()).ok().json();
        (told, asked.load(std::sync::atomic::Ordering::SeqCst))
    };
    // The server counts questions: so many until a thaw is under way, and as many until it is over.
    server.held(40);
    for name in ["db/full", "db/child"] {
        let shown = depot.run(&["show", name, "--json"]).ok().json();
        let path = format!("/vault/prod/{}", shown["backup"]["stored"]["key"].as_str().unwrap());
        for _ in 0..40 {
            assert_eq!(server.ask("HEAD", &path, &[], "").0, 200);
        }
    }
    for (tier, requests, seconds) in [
        ("bulk", 2, 12 * 3600),
        ("standard", 2, 5 * 3600),
        // No slower one takes the place of a faster one.
        ("bulk", 0, 5 * 3600),
        ("expedited", 2, 5 * 60),
        ("expedited", 0, 5 * 60),
    ] {
        let (told, count) = thaw(&["--tier", tier, "--days", "2"]);
        server.held(100_000);
        assert_eq!(count, requests, "{tier}: of the child and of what it builds on: {told}");
        for one in told.as_array().unwrap() {
            assert_eq!(one["state"]["state"], "thawing", "{tier}");
            let left = one["state"]["seconds"].as_i64().unwrap();
            assert!(left <= seconds && left > seconds - 240, "{tier}: {left}");
        }
    }
    server.held(1);
    crate::support::until("it is thawed", || {
        let told = depot.run(&["status", "--json"]).ok().json();
        told.as_array().unwrap().iter().all(|one| one["state"]["state"] == "thawed")
    });
    let until = |told: &serde_json::Value| {
        let text = told[0]["state"]["until"].as_str().unwrap();
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).unwrap();
        time.duration_since(jiff::Timestamp::now()).as_hours()
    };
    let (before, count) = thaw(&["--days", "1"]);
    assert_eq!(count, 0, "{before}");
    let (longer, count) = thaw(&["--days", "9"]);
    assert_eq!(count, 2, "{longer}");
    assert!(until(&longer) > until(&before) + 24 * 6 && until(&longer) <= 9 * 24, "{before} {longer}");
    assert_eq!(thaw(&["--days", "9"]).1, 0, "it stays that long already");
    proxy.rule(|seen| {
        let asked = seen.query.starts_with("restore");
        if asked { Fate::Answer(409, "RestoreAlreadyInProgress") } else { Fate::Pass }
    });
    depot.run(&["thaw", "db/full", "--days", "30"]).fails(6, "not changed");
}

#[test]
fn a_put_that_failed_is_cleared_up_once_where_the_server_cannot_list_parts() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 1");
    let lists = |seen: &crate::support::proxy::Seen| seen.method == "GET" && seen.query.contains("uploadId=");
    let aborts =
        |seen: &crate::support::proxy::Seen| seen.method == "DELETE" && seen.query.contains("uploadId=");
    // What the server answers to the question for parts, and to the abort.
    for (listing, abort) in [
        ((501, "NotImplemented"), None),
        ((405, "MethodNotAllowed"), None),
        ((501, "NotImplemented"), Some((404, "NoSuchUpload"))),
        ((501, "NotImplemented"), Some((501, "NotImplemented"))),
        ((501, "NotImplemented"), Some((400, "InvalidArgument"))),
    ] {
        proxy.rule(move |seen| match seen {
            _ if seen.is_part() => Fate::Answer(400, "InvalidRequest"),
            _ if lists(seen) => Fate::Answer(listing.0, listing.1),
            _ if aborts(seen) => abort.map_or(Fate::Pass, |(status, code)| Fate::Answer(status, code)),
            _ => Fate::Pass,
        });
        depot.feed(&["put", "db/a"], &noise(1, 12 << 20)).fails(4, "InvalidRequest");
        let next = depot.feed(&["put", "db/b"], b"small").ok();
        assert!(!next.err.contains("interrupted"), "{listing:?} {abort:?}: {}", next.err);
        depot.run(&["clean"]).ok();
        assert_eq!(depot.begun(), 0, "{listing:?} {abort:?}");
        depot.run(&["delete", "db/b"]).ok();
    }
    // Where it cannot be known, the entry stays, and is cleared when the server answers.
    proxy.rule(move |seen| match seen {
        _ if seen.is_part() => Fate::Answer(400, "InvalidRequest"),
        _ if aborts(seen) => Fate::Answer(503, "SlowDown"),
        _ if lists(seen) => Fate::Answer(501, "NotImplemented"),
        _ => Fate::Pass,
    });
    depot.feed(&["put", "db/a"], &noise(1, 12 << 20)).fails(4, "InvalidRequest");
    assert_eq!(depot.begun(), 1);
    proxy.rule(move |seen| if lists(seen) { Fate::Answer(501, "NotImplemented") } else { Fate::Pass });
    depot.run(&["clean"]).ok();
    assert_eq!((depot.begun(), server.leftovers().len()), (0, 0));
}

#[test]
fn check_says_what_the_server_can_do_and_what_the_keys_may_not() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 20");
    let rows =
        |ended: &crate::support::depot::Ended| -> std::collections::BTreeMap<String, (String, String)> {
            let all = ended.json();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let row =
                |one: &serde_json::Value| (text(&one["what"]), (text(&one["result"]), text(&one["text"])));
            all.as_array().unwrap().iter().map(row).collect()
        };
    let good = depot.run(&["check", "--json"]).ok();
    for what in [
        "list",
        "clock",
        "write",
        "checksums in answers",
        "read",
        "conditions",
        "multipart",
        "parts that grow",
        "delete",
    ] {
        assert_eq!(rows(&good)[what].0, "yes", "{what}: {:?}", rows(&good));
    }
    assert!(server.keys().is_empty() && server.leftovers().is_empty(), "{:?}", server.keys());
    proxy.rule(|seen| if seen.method == "DELETE" { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    let bad = depot.run(&["check", "--json"]).fails(4, "delete");
    assert!(rows(&bad)["delete"].1.contains("s3:DeleteObject"), "{:?}", rows(&bad));
    proxy.rule(|seen| match seen {
        _ if seen.headers.contains_key("if-none-match") => Fate::Answer(501, "NotImplemented"),
        _ if seen.method == "POST" && seen.query.starts_with("uploadId") => Fate::Answer(400, "InvalidPart"),
        _ => Fate::Dated(900),
    });
    let odd = depot.run(&["check", "--json"]).fails(4, "clock");
    assert_eq!(rows(&odd)["conditions"].0, "no");
    assert!(rows(&odd)["parts that grow"].1.contains("parts: even"), "{:?}", rows(&odd));
}

#[test]
fn check_names_the_setting_and_the_permission_that_a_refused_write_needs() {
    let server = Moto::start();
    server.bucket(&[("x-amz-bucket-object-lock-enabled", "true")]);
    let proxy = Proxy::start(server.address);
    let more =
        "tags: {owner: dba}\nsse: {algorithm: 'aws:kms', kms_key: key-1}\nlock: {mode: GOVERNANCE, days: 3}";
    let depot = Depot::new(proxy.address, &format!("timeout: 20\ntries: 2\n{more}"));
    type Refused = fn(&crate::support::proxy::Seen) -> bool;
    let put = |seen: &crate::support::proxy::Seen| seen.method == "PUT";
    let cases: [(Refused, u16, &'static str, &str, &str); 6] = [
        (
            |seen| seen.headers.contains_key("x-amz-checksum-crc32c"),
            501,
            "NotImplemented",
            "write",
            "set `checksums: md5`",
        ),
        (
            |seen| {
                seen.headers.contains_key("x-amz-checksum-crc32c") || seen.headers.contains_key("content-md5")
            },
            400,
            "InvalidRequest",
            "write",
            "set `checksums: none`",
        ),
        (
            |seen| seen.headers.contains_key("x-amz-tagging"),
            403,
            "AccessDenied",
            "write",
            "s3:PutObjectTagging",
        ),
        (
            |seen| seen.headers.contains_key("x-amz-server-side-encryption"),
            403,
            "AccessDenied",
            "write",
            "kms:GenerateDataKey",
        ),
        (|_| true, 403, "AccessDenied", "write", "s3:PutObject"),
        (
            |seen| seen.headers.contains_key("x-amz-object-lock-mode"),
            403,
            "AccessDenied",
            "object lock",
            "s3:PutObjectRetention",
        ),
    ];
    for (refused, status, code, what, text) in cases {
        proxy.rule(
            move |seen| if put(seen) && refused(seen) { Fate::Answer(status, code) } else { Fate::Pass },
        );
        let told = depot.run(&["check", "--json"]).fails(4, what).json();
        let row = told.as_array().unwrap().iter().find(|row| row["what"] == what).unwrap().clone();
        assert!(row["text"].as_str().unwrap().contains(text), "{text}: {row}");
    }
    // A lock is tried for some seconds, and nothing is left: moto keeps what was removed as a version.
    proxy.rule(|_| Fate::Pass);
    let good = depot.run(&["check", "--json"]).ok().json();
    let lock = good.as_array().unwrap().iter().find(|row| row["what"] == "object lock").unwrap().clone();
    assert_eq!(lock["result"], "yes", "{lock}");
    let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
    assert_eq!(keys.matches("<Key>").count(), 0, "{keys}");
}
