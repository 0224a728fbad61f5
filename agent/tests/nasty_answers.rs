//! What the client for Consul makes of answers that a healthy Consul never gives.

#![expect(clippy::unwrap_used, reason = "a helper of tests that fails must fail its test at once")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hostler::domain::secret::Secret;
use hostler::store::budget::Budget;
use hostler::store::consul::{Consul, ConsulSettings, PartialConsul, Timeouts};
use hostler::store::watch::{Snapshot, WatchState, watch};
use hostler::store::{Read, Store, StoreError, When};
use hostler_testkit::{Fake, Reply};
use tokio::sync::Notify;

const TOKEN: &str = "s3cret-token";

fn settings(fake: &Fake) -> ConsulSettings {
    let address = format!("http://127.0.0.1:{}", fake.port()).parse().unwrap();
    let token = Some(Secret::new(TOKEN.to_owned()));
    let layer = PartialConsul { address: Some(address), token, ..PartialConsul::default() };
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { connect: second, request: 2 * second, wait: second, margin: second };
    ConsulSettings { timeouts, ..layer.build().unwrap() }
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.unwrap() })
}

fn http(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Reply::Http(status, headers, body.as_bytes().to_vec())
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unreachable { .. } => "unreachable",
        StoreError::NoLeader { .. } => "no leader",
        StoreError::Busy { .. } => "busy",
        StoreError::Denied { .. } => "denied",
        StoreError::Refused { .. } => "refused",
        StoreError::TooLarge { .. } => "too large",
        StoreError::Unreadable { .. } => "unreadable",
    }
}

const LEADER: (&str, &str) = ("X-Consul-KnownLeader", "true");
const INDEX: (&str, &str) = ("X-Consul-Index", "7");

#[test]
fn nothing_but_a_good_answer_is_a_listing() {
    let huge = [("X-Consul-Index", "99999999999999999999999"), LEADER];
    let table = [
        ("silence", Reply::Silence, "unreachable"),
        ("the end", Reply::Close, "unreachable"),
        ("garbage", Reply::Raw(b"\x16\x03\x01 what?".to_vec()), "unreachable"),
        ("half an answer", Reply::Raw(b"HTTP/1.1 200 OK\r\nX-Consul-Ind".to_vec()), "unreachable"),
        (
            "half a body",
            Reply::Raw(
                b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nX-Consul-KnownLeader: true\r\nContent-Length: 9\r\n\r\n[]"
                    .to_vec(),
            ),
            "unreachable",
        ),
        ("429", http(429, &[], "too many"), "busy"),
        ("500", http(500, &[], "rpc error"), "busy"),
        ("500 without leader", http(500, &[], "No cluster leader"), "no leader"),
        ("403", http(403, &[], "ACL not found"), "denied"),
        ("a redirect", http(301, &[("Location", "http://127.0.0.1:1/")], ""), "unreadable"),
        ("no headers", http(200, &[], "[]"), "unreadable"),
        ("a 404 of something else", http(404, &[], "not here"), "unreadable"),
        ("no index", http(404, &[LEADER], ""), "unreadable"),
        ("no word of a leader", http(404, &[INDEX], ""), "unreadable"),
        ("no leader", http(404, &[INDEX, ("X-Consul-KnownLeader", "false")], ""), "no leader"),
        ("no leader and a list", http(200, &[INDEX, ("X-Consul-KnownLeader", "false")], "[]"), "no leader"),
        ("index 0", http(404, &[("X-Consul-Index", "0"), LEADER], ""), "unreadable"),
        ("an index that is too large", http(404, &huge, ""), "unreadable"),
        ("no JSON", http(200, &[INDEX, LEADER], "<html>"), "unreadable"),
        ("no content", http(204, &[INDEX, LEADER], ""), "unreadable"),
        (
            "a key of another prefix",
            http(200, &[INDEX, LEADER], r#"[{"Key":"q/a","Value":null,"ModifyIndex":1}]"#),
            "unreadable",
        ),
    ];
    for (what, reply, expected) in table {
        let fake = Fake::start(vec![reply]);
        let store = Consul::new(settings(&fake)).unwrap();
        let start = Instant::now();
        let list = block(store.list("p/")).unwrap_err();
        assert_eq!(kind(&list), expected, "{what}: {list}");
        let changed = block(store.changed("p/", Some(5), Duration::from_secs(60))).unwrap_err();
        assert_eq!(kind(&changed), expected, "{what}: {changed}");
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        assert_eq!(fake.requests().len(), 2, "{what}: nothing is asked twice");
    }
}

#[test]
fn a_body_without_end_is_cut_off() {
    let headers = [LEADER, INDEX].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    for reply in [Reply::Endless(headers.clone()), Reply::Pieces(headers)] {
        let fake = Fake::start(vec![reply]);
        let store = Consul::new(settings(&fake)).unwrap();
        let error = block(store.list("p/")).unwrap_err();
        assert!(matches!(kind(&error), "too large" | "unreachable"), "{error}");
    }
}

/// The client waits 2 s for an answer to begin.
#[test]
fn a_large_body_has_the_time_that_it_needs_and_a_drip_has_not() {
    let headers = || [LEADER, INDEX].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    let value = "A".repeat(1_000_000);
    let entry = |n: usize| format!(r#"{{"Key":"p/{n}","Value":"{value}","ModifyIndex":1}}"#);
    let large = format!("[{}]", (0..6).map(entry).collect::<Vec<_>>().join(","));
    let drip = format!("[{}]", " ".repeat(1000));
    // (the body, bytes at a time, milliseconds behind each, whether it is taken): 3 s for 6 MB, and 100 s for 1 KB.
    for (body, piece, pause, taken) in [(large, 200_000, 100, true), (drip, 1, 100, false)] {
        let reply = Reply::Paced(headers(), body.into_bytes(), piece, Duration::from_millis(pause));
        let fake = Fake::start(vec![reply]);
        let start = Instant::now();
        match block(Consul::new(settings(&fake)).unwrap().list("p/")) {
            Ok(listing) => {
                assert!(taken && listing.entries.iter().all(|entry| entry.too_large), "{listing:?}");
                assert_eq!(listing.entries.len(), 6);
                assert!(
                    start.elapsed() > Duration::from_secs(2),
                    "it took no longer than an answer that is small"
                );
            }
            Err(error) => {
                assert!(!taken && error.to_string().contains("too slowly"), "{error}");
                assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
            }
        }
    }
}

#[test]
fn a_body_without_end_that_refuses_is_cut_off_too() {
    let mut head = b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    head.extend([b'x'; 100_000]);
    let fake = Fake::start(vec![Reply::Raw(head)]);
    let error = block(Consul::new(settings(&fake)).unwrap().list("p/")).unwrap_err();
    assert_eq!(kind(&error), "busy", "{error}");
    assert!(error.to_string().len() < 400, "{error}");
}

#[test]
fn no_message_shows_the_token_even_when_the_server_does() {
    for status in [400, 403, 404, 429, 500] {
        let fake = Fake::start(vec![http(status, &[], &format!("token {TOKEN} is bad"))]);
        let store = Consul::new(settings(&fake)).unwrap();
        let error = block(store.put("p/a", vec![], When::Always)).unwrap_err();
        assert!(!error.to_string().contains(TOKEN) && !format!("{error:?}").contains(TOKEN), "{error}");
        assert!(fake.requests()[0].to_lowercase().contains(&format!("x-consul-token: {TOKEN}")));
    }
}

#[test]
fn a_write_that_is_not_confirmed_is_an_error() {
    let fake = Fake::start(vec![http(200, &[], "maybe")]);
    let store = Consul::new(settings(&fake)).unwrap();
    assert!(block(store.put("p/a", vec![], When::Always)).is_err());
    assert!(block(store.delete("p/a")).is_err());
    let fake = Fake::start(vec![http(200, &[], "false")]);
    let store = Consul::new(settings(&fake)).unwrap();
    assert!(block(store.put("p/a", vec![], When::Always)).is_err());
    assert!(!block(store.put("p/a", vec![], When::Unchanged(5))).unwrap());
}

#[test]
fn datacenter_and_namespace_go_with_every_request() {
    let fake = Fake::start(vec![Reply::consul(404, 7, "")]);
    let scope = ConsulSettings {
        datacenter: Some("dc 1".to_owned()),
        namespace: Some("team/a".to_owned()),
        ..settings(&fake)
    };
    let store = Consul::new(scope).unwrap();
    block(async {
        drop(store.list("p/").await);
        drop(store.changed("p/", Some(3), Duration::from_secs(60)).await);
        drop(store.look(&[Read::Key("p/a".to_owned())]).await);
        drop(store.put("p/a", vec![], When::Always).await);
        drop(store.put("p/a", vec![], When::Unchanged(3)).await);
        drop(store.delete("p/a").await);
    });
    let lines: Vec<String> =
        fake.requests().iter().filter_map(|head| head.lines().next().map(str::to_owned)).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/kv/p/?recurse&consistent&dc=dc%201&ns=team%2Fa HTTP/1.1",
            "GET /v1/kv/p/?recurse&consistent&index=3&wait=1s&dc=dc%201&ns=team%2Fa HTTP/1.1",
            "PUT /v1/txn?consistent&dc=dc%201&ns=team%2Fa HTTP/1.1",
            "PUT /v1/kv/p/a?&dc=dc%201&ns=team%2Fa HTTP/1.1",
            "PUT /v1/kv/p/a?cas=3&dc=dc%201&ns=team%2Fa HTTP/1.1",
            "DELETE /v1/kv/p/a?&dc=dc%201&ns=team%2Fa HTTP/1.1",
        ]
    );
}

#[test]
fn the_watch_starts_again_when_the_index_goes_backwards_or_an_answer_is_bad() {
    let listing = |index: u64, value: &str| {
        let marker = r#"{"Key":"p/_hostler","Value":null,"ModifyIndex":1}"#;
        let order = format!(r#"{{"Key":"p/a","Value":"{value}","ModifyIndex":{index}}}"#);
        Reply::consul(200, index, &format!("[{marker},{order}]"))
    };
    let fake = Fake::start(vec![
        listing(50, "MQ=="),
        listing(20, "Mg=="),
        listing(20, "Mg=="),
        http(500, &[], "oops"),
        listing(21, "Mw=="),
        Reply::Silence,
    ]);
    let store: Arc<dyn Store> = Arc::new(Consul::new(settings(&fake)).unwrap());
    block(async {
        let (budget, (sender, mut receiver)) =
            (Budget::new(1), tokio::sync::watch::channel(Snapshot::default()));
        let last = async {
            let three =
                |seen: &Snapshot| matches!(&seen.state, WatchState::Current(l) if l.entries[0].value == b"3");
            receiver.wait_for(three).await.map(drop)
        };
        let doubt = Notify::new();
        tokio::select! {
            () = watch(store, "p/", &doubt, &budget, &sender) => panic!("the watch ended"),
            seen = last => seen.unwrap(),
        }
    });
    let asked: Vec<Option<String>> = fake
        .requests()
        .iter()
        .map(|head| Some(head.split_once("index=")?.1.split('&').next()?.to_owned()))
        .take(5)
        .collect();
    let index = |index: &str| Some(index.to_owned());
    assert_eq!(asked, [None, index("50"), None, index("20"), None]);
}
