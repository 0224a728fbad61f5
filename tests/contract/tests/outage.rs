//! Servers that go away: killed, stopped in order, frozen, without a leader. What was seen is never shown
//! as absent, and what comes back is seen again.

use std::sync::Arc;
use std::time::Instant;

use hostler::store::watch::WatchState;
use hostler::store::{Read, Store, StoreError};
use hostler_contract::{LONG, TIMEOUTS, Watching, block, client};
use hostler_testkit::{Consul, cluster, eventually};

fn trouble(sight: &WatchState) -> bool {
    matches!(sight, WatchState::Failed(_))
}

fn filled() -> Consul {
    let consul = Consul::disk();
    consul.put("p/_hostler", "");
    consul.put("p/a", "1");
    consul
}

#[test]
fn a_killed_server_is_trouble_until_it_is_back() {
    let mut consul = filled();
    let watching = Watching::start(Arc::new(client(&consul.address())), "p/");
    watching.until_value("p/a", "1");
    consul.kill();
    let seen = watching.until("trouble", trouble);
    assert_eq!(seen.last.unwrap().entries.len(), 1);
    consul.start();
    consul.put("p/a", "2");
    watching.until_value("p/a", "2");
    watching.never_without("p/a");
    assert!(watching.shown().iter().all(|seen| seen.state != WatchState::NoMarker));
}

#[test]
fn a_server_that_is_stopped_in_order_is_trouble_until_it_is_back() {
    let mut consul = filled();
    let watching = Watching::start(Arc::new(client(&consul.address())), "p/");
    watching.until_value("p/a", "1");
    consul.stop();
    watching.until("trouble", trouble);
    consul.start();
    watching.until_value("p/a", "1");
    watching.never_without("p/a");
    assert!(watching.shown().iter().all(|seen| seen.state != WatchState::NoMarker));
}

#[test]
fn a_frozen_server_that_accepts_and_never_answers_is_trouble_by_the_deadline() {
    let consul = filled();
    let store = Arc::new(client(&consul.address()));
    let watching = Watching::start(store.clone(), "p/");
    watching.until_value("p/a", "1");
    consul.freeze();
    let start = Instant::now();
    let answer = block(store.list("p/"));
    assert!(matches!(answer, Err(StoreError::Unreachable { .. })), "{answer:?}");
    assert!(start.elapsed() < TIMEOUTS.request * 2);
    watching.until("trouble", trouble);
    consul.thaw();
    watching.until_value("p/a", "1");
    watching.never_without("p/a");
}

#[test]
fn a_cluster_that_lost_its_leader_never_shows_an_empty_listing() {
    let mut servers = cluster();
    servers[0].put("p/_hostler", "");
    servers[0].put("p/a", "1");
    let store = Arc::new(client(&servers[0].address()));
    let watching = Watching::start(store.clone(), "p/");
    watching.until_value("p/a", "1");

    servers[1].kill();
    servers[2].kill();
    // For a moment the old leader may not know yet that it is alone; then it must say so, each way.
    eventually(LONG, || {
        let listed = block(store.list("p/"));
        match listed {
            Err(StoreError::NoLeader { .. }) => Ok(()),
            Ok(listing) => {
                assert_eq!(listing.entries.len(), 2, "an empty answer without a leader");
                Err("still answers".to_owned())
            }
            Err(other) => Err(other.to_string()),
        }
    });
    let looked = block(store.look(&[Read::Key("p/a".to_owned())]));
    assert!(matches!(looked, Err(StoreError::NoLeader { .. })), "{looked:?}");
    let seen = watching.until("trouble", trouble);
    assert_eq!(seen.last.unwrap().entries.len(), 1);

    servers[1].launch();
    servers[2].launch();
    eventually(LONG, || block(store.list("p/")).map(drop).map_err(|error| error.to_string()));
    servers[0].put("p/a", "2");
    watching.until_value("p/a", "2");
    watching.never_without("p/a");
    assert!(watching.shown().iter().all(|seen| seen.state != WatchState::NoMarker));
}

#[test]
fn a_cluster_keeps_answering_when_one_server_dies() {
    let mut servers = cluster();
    servers[0].put("p/_hostler", "");
    servers[0].put("p/a", "1");
    let watching = Watching::start(Arc::new(client(&servers[0].address())), "p/");
    watching.until_value("p/a", "1");
    servers[2].kill();
    eventually(LONG, || match servers[0].try_api("PUT", "/v1/kv/p/a", b"2") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    watching.until_value("p/a", "2");
    watching.never_without("p/a");
}
