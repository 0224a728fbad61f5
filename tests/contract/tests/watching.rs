//! What blocking queries of a real Consul do, and what the watch makes of it.

use std::sync::Arc;
use std::time::Instant;

use hostler::store::watch::WatchState;
use hostler::store::{MAX_WAIT, Store, StoreError, When};
use hostler_contract::{LONG, TIMEOUTS, Watching, block, client};
use hostler_testkit::{Consul, Proxy, eventually};

#[test]
fn a_prefix_without_its_slash_wakes_for_a_neighbour_and_one_with_it_does_not() {
    let consul = Consul::dev();
    let store = client(&consul.address());
    consul.put("p/db1/a", "1");
    block(async {
        let seen = store.list("p/db1/").await.unwrap().index;
        consul.put("p/db10/a", "1");
        let start = Instant::now();
        assert_eq!(store.changed("p/db1/", Some(seen), MAX_WAIT).await.unwrap().index, seen);
        assert!(start.elapsed() >= TIMEOUTS.wait, "it waited to the end");
        let start = Instant::now();
        assert!(store.changed("p/db1", Some(seen), MAX_WAIT).await.unwrap().index > seen);
        assert!(start.elapsed() < TIMEOUTS.wait, "without the slash it is woken");
    });
}

#[test]
fn the_same_value_again_wakes_nobody_and_the_same_with_other_flags_does() {
    let consul = Consul::dev();
    let store = client(&consul.address());
    consul.put("p/a", "1");
    block(async {
        let seen = store.list("p/").await.unwrap();
        consul.put("p/a", "1");
        assert_eq!(store.changed("p/", Some(seen.index), MAX_WAIT).await.unwrap(), seen);
        consul.api("PUT", "/v1/kv/p/a?flags=7", b"1");
        let touched = store.changed("p/", Some(seen.index), MAX_WAIT).await.unwrap();
        assert!(touched.index > seen.index);
        assert_eq!(touched.entries[0].value, seen.entries[0].value);
    });
}

#[test]
fn a_missing_prefix_answers_404_with_an_index_that_can_be_waited_on() {
    let consul = Consul::dev();
    let store = client(&consul.address());
    let raw = consul.try_api("GET", "/v1/kv/none/?recurse&consistent", b"").unwrap();
    assert_eq!(raw.status, 404);
    let index: u64 = raw.header("X-Consul-Index").unwrap().parse().unwrap();
    block(async {
        let listing = store.list("none/").await.unwrap();
        assert!(listing.entries.is_empty());
        assert!(listing.index >= index && index >= 1);
        let start = Instant::now();
        let held = store.changed("none/", Some(listing.index), MAX_WAIT).await.unwrap();
        assert!(start.elapsed() >= TIMEOUTS.wait || held.index > listing.index);
    });
}

#[test]
fn a_watch_on_an_empty_prefix_does_not_spin_while_others_write() {
    let consul = Consul::dev();
    let proxy = Proxy::start(consul.port());
    let store = client(&format!("http://127.0.0.1:{}", proxy.port()));
    let watching = Watching::start(Arc::new(store), "mine/");
    watching.until("an answer without marker", |sight| *sight == WatchState::NoMarker);
    let start = Instant::now();
    for round in 0..300 {
        consul.put("others/a", &format!("{round}"));
    }
    consul.put("mine/_hostler", "");
    watching.until("the marker", |sight| matches!(sight, WatchState::Current(_)));
    let most = 3 + start.elapsed().as_secs() / 2;
    let requests = proxy.requests() as u64;
    assert!(requests <= most, "{requests} requests in {:?}", start.elapsed());
}

#[test]
fn a_quiet_watch_uses_one_connection_and_asks_once_a_wait() {
    let consul = Consul::dev();
    consul.put("p/_hostler", "");
    let proxy = Proxy::start(consul.port());
    let store = client(&format!("http://127.0.0.1:{}", proxy.port()));
    let watching = Watching::start(Arc::new(store), "p/");
    watching.until("the marker", |sight| matches!(sight, WatchState::Current(_)));
    let start = Instant::now();
    eventually(LONG, || match proxy.requests() {
        4.. => Ok(()),
        few => Err(format!("{few} requests")),
    });
    assert!(start.elapsed() >= TIMEOUTS.wait, "four requests within {:?}", start.elapsed());
    assert_eq!(proxy.connections(), 1);
    assert_eq!(watching.shown().len(), 1, "no news: {:?}", watching.shown());
}

#[test]
fn a_wait_is_stretched_by_a_sixteenth_at_most() {
    let consul = Consul::dev();
    consul.put("p/a", "1");
    let store = client(&consul.address());
    block(async {
        let seen = store.list("p/").await.unwrap().index;
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(store.changed("p/", Some(seen), MAX_WAIT).await.unwrap().index, seen);
            let waited = start.elapsed();
            assert!(waited >= TIMEOUTS.wait, "{waited:?}");
            assert!(waited < TIMEOUTS.wait + TIMEOUTS.wait / 16 + TIMEOUTS.margin / 2, "{waited:?}");
        }
    });
}

#[test]
fn an_index_above_the_present_one_hides_changes_until_the_wait_ends() {
    let consul = Consul::dev();
    consul.put("p/a", "1");
    let store = client(&consul.address());
    block(async {
        let seen = store.list("p/").await.unwrap().index;
        let start = Instant::now();
        let change = async { consul.put("p/a", "2") };
        let (answer, ()) = tokio::join!(store.changed("p/", Some(seen + 1000), MAX_WAIT), change);
        let answer = answer.unwrap();
        assert!(start.elapsed() >= TIMEOUTS.wait, "the change did not wake it");
        assert!(answer.index < seen + 1000, "the index goes backwards, which the watch starts again on");
        assert_eq!(answer.entries[0].value, b"2");
    });
}

#[test]
fn an_index_of_nothing_or_one_answers_at_once() {
    let consul = Consul::dev();
    consul.put("p/a", "1");
    let store = client(&consul.address());
    block(async {
        for seen in [0, 1] {
            let start = Instant::now();
            store.changed("p/", Some(seen), MAX_WAIT).await.unwrap();
            assert!(start.elapsed() < TIMEOUTS.wait);
        }
    });
    for bad in ["-1", "x"] {
        let answer = consul.try_api("GET", &format!("/v1/kv/p/?recurse&index={bad}"), b"").unwrap();
        assert_eq!(answer.status, 400);
    }
}

#[test]
fn a_removal_wakes_and_a_removed_prefix_is_not_visible_instead_of_empty() {
    let consul = Consul::dev();
    for key in ["p/_hostler", "p/a", "p/b"] {
        consul.put(key, "1");
    }
    let watching = Watching::start(Arc::new(client(&consul.address())), "p/");
    let count =
        |count| move |sight: &WatchState| matches!(sight, WatchState::Current(l) if l.entries.len() == count);
    watching.until("two keys", count(2));
    consul.delete("p/a");
    watching.until("one key", count(1));
    consul.api("DELETE", "/v1/kv/p/?recurse", b"");
    let seen = watching.until("no marker", |sight| *sight == WatchState::NoMarker);
    assert_eq!(seen.last.unwrap().entries.len(), 1, "the last listing is kept");
}

#[test]
fn many_flips_end_with_the_last_value() {
    let consul = Consul::dev();
    consul.put("p/_hostler", "");
    let watching = Watching::start(Arc::new(client(&consul.address())), "p/");
    for round in 0..100 {
        consul.put("p/a", &format!("{round}"));
    }
    watching.until_value("p/a", "99");
}

#[test]
fn a_transaction_has_sixty_four_operations_at_most() {
    let consul = Consul::dev();
    let ops = |count: usize| {
        let op = r#"{"KV":{"Verb":"get-tree","Key":"p/"}}"#;
        format!("[{}]", vec![op; count].join(","))
    };
    let status = |count| consul.try_api("PUT", "/v1/txn", ops(count).as_bytes()).unwrap().status;
    assert_eq!((status(64), status(65)), (200, 413));
}

#[test]
fn a_value_above_512_kib_is_refused_and_the_former_one_stays() {
    let consul = Consul::dev();
    consul.put("p/a", "1");
    let raw = consul.try_api("PUT", "/v1/kv/p/a", &vec![b'x'; 600_000]).unwrap();
    assert_eq!(raw.status, 413);
    let store = client(&consul.address());
    let refused = block(store.put("p/a", vec![b'x'; 600_000], When::Always));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(consul.get("p/a").as_deref(), Some("1"));
}

#[test]
fn keys_are_encoded_once() {
    let consul = Consul::dev();
    let store = client(&consul.address());
    let key = "p/sp ace/100%20?#&+ü";
    assert!(block(store.put(key, b"1".to_vec(), When::Unchanged(0))).unwrap());
    assert_eq!(consul.list("p/"), [key]);
    assert_eq!(block(store.list("p/sp ace/")).unwrap().entries[0].key, key);
    block(store.delete(key)).unwrap();
    assert!(consul.list("p/").is_empty());
}
