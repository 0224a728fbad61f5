//! What breaks between the program and the server, and bits that flip where the bytes lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::servers::Strict;
use crate::support::until;

const MIB: usize = 1 << 20;
const FAST: &str = "timeout: 3\ntries: 4";

/// A rule that hits the first `times` requests that match.
fn first(times: usize, matches: fn(&Seen) -> bool, fate: Fate) -> impl Fn(&Seen) -> Fate + Send + Sync {
    let hit = AtomicUsize::new(0);
    move |seen| {
        if matches(seen) && hit.fetch_add(1, Ordering::SeqCst) < times { fate.clone() } else { Fate::Pass }
    }
}

#[test]
fn a_put_survives_what_passes_and_says_how_often_it_tried() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, FAST);
    let bytes = noise(1, 12 * MIB);
    let fates = [
        ("reset", Fate::Reset),
        ("lost", Fate::LoseAnswer),
        ("500", Fate::Answer(500, "InternalError")),
        ("slow-down", Fate::Answer(503, "SlowDown")),
        ("flipped", Fate::FlipSent),
        ("stall", Fate::Stall),
        ("expired", Fate::Answer(400, "ExpiredToken")),
    ];
    for (name, fate) in fates {
        proxy.rule(first(2, Seen::is_part, fate));
        let put = depot.feed(&["put", &format!("db/{name}"), "--json"], &bytes).ok().json();
        assert_eq!(put["figures"]["retries"], 2, "{name}");
        proxy.rule(|_| Fate::Pass);
        assert!(depot.run(&["get", &format!("db/{name}")]).ok().out == bytes, "{name}");
    }
    depot.run(&["verify"]).ok();
    assert!(server.leftovers().is_empty());
}

#[test]
fn any_single_request_of_a_put_may_fail_or_lose_its_answer() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, FAST);
    let bytes = noise(2, 6 * MIB);
    depot.put("db/quiet", &bytes);
    let requests = proxy.count();
    assert!(requests >= 6, "look, begin, two parts, complete, look, manifest");
    for fate in [Fate::Reset, Fate::LoseAnswer, Fate::Answer(503, "SlowDown")] {
        for at in 1..=requests {
            let wanted = fate.clone();
            proxy.rule(move |seen| if seen.number == at { wanted.clone() } else { Fate::Pass });
            let name = format!("db/{at}");
            let ended = depot.feed(&["put", &name], &bytes);
            proxy.rule(|_| Fate::Pass);
            // A completion of s3s-fs whose answer is lost cannot be asked for again: it may be an error, never a lie.
            if ended.code == Some(0) {
                depot.run(&["verify", &name]).ok();
                depot.run(&["delete", &name]).ok();
            } else {
                depot.run(&["get", &name]).fails(5, "no backup");
            }
        }
    }
    depot.run(&["prune"]).ok();
    assert_eq!(server.keys().len(), 2, "{:?}", server.keys());
    assert!(server.leftovers().is_empty(), "{:?}", server.leftovers());
    assert_eq!(depot.begun(), 0);
}

#[test]
fn a_put_that_cannot_succeed_says_why_and_leaves_nothing() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 1\ntries: 2");
    let bytes = noise(3, 12 * MIB);
    let cases = [
        (Fate::Answer(503, "SlowDown"), "SlowDown"),
        (Fate::Answer(403, "AccessDenied"), "AccessDenied"),
        (Fate::Answer(400, "ExpiredToken"), "renew the credentials"),
        (Fate::FlipSent, "(tried 2 times)"),
        (Fate::Stall, "no answer within"),
    ];
    for (fate, text) in cases {
        proxy.rule(first(usize::MAX, Seen::is_part, fate));
        depot.feed(&["put", "db/a"], &bytes).fails(4, text);
        assert!(
            server.keys().is_empty() && server.leftovers().is_empty(),
            "{text}: {:?}",
            server.leftovers()
        );
        assert_eq!(depot.begun(), 0, "{text}");
    }
}

#[test]
fn a_get_survives_what_passes() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, FAST);
    let bytes = noise(4, 17 * MIB);
    depot.put("db/a", &bytes);
    let fates = [
        Fate::Reset,
        Fate::Truncate,
        Fate::FlipAnswer,
        Fate::Stall,
        Fate::Answer(500, "InternalError"),
        Fate::Answer(503, "SlowDown"),
    ];
    for fate in fates {
        proxy.rule(first(1, Seen::is_range, fate.clone()));
        let got = depot.run(&["get", "db/a"]).ok();
        assert!(got.out == bytes, "{fate:?}");
        assert!(got.err.contains("1 retries"), "{}", got.err);
    }
}

#[test]
fn a_get_that_breaks_off_is_no_success_and_leaves_no_file() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 1\ntries: 2");
    depot.put("db/a", &noise(5, 17 * MIB));
    let target = depot.path("target");
    for (fate, code, text) in
        [(Fate::Truncate, 4, "broke off"), (Fate::FlipAnswer, 7, "not what was written")]
    {
        proxy.rule(first(
            usize::MAX,
            |seen| seen.is_range() && seen.headers["range"] != "bytes=0-5242879",
            fate,
        ));
        depot.run(&["get", "db/a", "-o", target.to_str().unwrap()]).fails(code, text);
        assert!(!target.exists());
        let seen = depot.path("seen");
        let command = format!("cat >{0} && mv {0} {0}.whole", seen.display());
        depot.run(&["get", "db/a", "--", "sh", "-c", &command]).fails(code, text);
        assert!(!depot.path("seen.whole").exists(), "the command was ended before it could see an end");
    }
    assert_eq!(
        std::fs::read_dir(depot.folder.path())
            .unwrap()
            .filter(|file| {
                file.as_ref().unwrap().file_name().to_str().unwrap().starts_with(".hostler-depot")
            })
            .count(),
        0
    );
}

#[test]
fn a_clock_that_is_wrong_is_corrected_by_the_servers() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, FAST);
    // The proxy plays a server that is an hour ahead: it refuses what is signed with an older time.
    let ahead = jiff::SignedDuration::from_hours(1);
    let signed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&signed);
    proxy.rule(move |seen| {
        let date = seen.headers["x-amz-date"].to_str().unwrap();
        let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap();
        let date = date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        let theirs = jiff::Timestamp::now() + ahead;
        if theirs.duration_since(date).as_secs() > 900 {
            return Fate::Skewed(theirs);
        }
        count.fetch_add(1, Ordering::SeqCst);
        Fate::Answer(404, "NoSuchKey")
    });
    depot.run(&["get", "db/a"]).fails(5, "no backup");
    assert_eq!(signed.load(Ordering::SeqCst), 1, "the second try was signed with the server's time");
}

#[test]
fn keys_that_are_renewed_on_the_way_are_taken_up() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 12");
    let secrets = depot.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("s3_access_key_id"), "AKIDOLD").unwrap();
    std::fs::write(secrets.join("s3_secret_access_key"), crate::support::servers::KEY).unwrap();
    proxy.rule(|seen| {
        let who = seen.headers["authorization"].to_str().unwrap();
        if who.contains("AKIDOLD") { Fate::Answer(400, "ExpiredToken") } else { Fate::Pass }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the old keys are refused", || proxy.count() >= 2);
            std::fs::write(secrets.join("s3_access_key_id"), crate::support::servers::KEY_ID).unwrap();
        });
        let folder = secrets.to_str().unwrap();
        depot.feed(&["put", "db/a", "--credentials-dir", folder], b"x").ok();
    });
    depot.run(&["verify"]).ok();
}

#[test]
fn one_flipped_bit_anywhere_is_found_by_verify_and_by_get() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "timeout: 5\ntries: 3");
    let bytes = noise(6, 11 * MIB);
    depot.put("db/a", &bytes);
    depot.put("db/good", &bytes);
    let data = server.keys().into_iter().find(|key| key.contains("db/a/data.")).unwrap();
    let data = server.bucket().join(data);
    let manifest = server.bucket().join("prod/db/a/manifest.json");
    let last = bytes.len() - 1;
    for (file, at) in [
        (&data, 0),
        (&data, 5 * MIB - 1),
        (&data, 5 * MIB),
        (&data, 7 * MIB + 1234),
        (&data, last),
        (&manifest, 0),
        (&manifest, 40),
        (&manifest, 300),
    ] {
        let good = std::fs::read(file).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(file, bad).unwrap();
        depot.run(&["verify"]).fails(7, "1 of 2 backups");
        let got = depot.run(&["get", "db/a"]).fails(7, "`db/a` is damaged");
        assert!(
            got.out.len() <= at.min(bytes.len()) && bytes.starts_with(&got.out),
            "no wrong byte is handed on"
        );
        std::fs::write(file, good).unwrap();
    }
    // A manifest of another backup, a cut object, and none at all.
    let good = std::fs::read(&manifest).unwrap();
    std::fs::copy(server.bucket().join("prod/db/good/manifest.json"), &manifest).unwrap();
    depot.run(&["get", "db/a"]).fails(7, "is that of `db/good`");
    depot.run(&["verify", "db/a"]).fails(7, "damaged");
    std::fs::write(&manifest, good).unwrap();
    std::fs::write(&data, &bytes[..last]).unwrap();
    depot.run(&["get", "db/a"]).fails(7, "bytes are stored");
    std::fs::remove_file(&data).unwrap();
    depot.run(&["get", "db/a"]).fails(7, "its bytes are missing");
    depot.run(&["verify", "db/good"]).ok();
}
