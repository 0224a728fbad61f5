//! A Consul whose past was changed: restored or wiped.

use std::sync::Arc;

use hostler::store::Store;
use hostler::store::watch::WatchState;
use hostler_contract::{Watching, block, client};
use hostler_testkit::Consul;

#[test]
fn a_restored_snapshot_gives_keys_their_old_lower_index_back() {
    let consul = Consul::disk();
    let store = Arc::new(client(&consul.address()));
    consul.put("p/_hostler", "");
    consul.put("p/a", "old");
    let old = block(store.list("p/")).unwrap();
    let snapshot = consul.snapshot();
    consul.put("p/a", "new");
    let new = block(store.list("p/")).unwrap();
    let watching = Watching::start(store.clone(), "p/");
    watching.until_value("p/a", "new");

    consul.restore(&snapshot);
    watching.until_value("p/a", "old");
    let restored = block(store.list("p/")).unwrap();
    assert_eq!(restored.entries, old.entries, "values and indexes are the old ones");
    assert!(restored.entries[1].modify_index < new.entries[1].modify_index);
    watching.never_without("p/a");

    consul.put("p/a", "newer");
    watching.until_value("p/a", "newer");
    let newer = block(store.list("p/")).unwrap();
    assert!(newer.entries[1].modify_index > new.entries[1].modify_index, "counting went on");
}

#[test]
fn a_wiped_server_starts_with_small_indexes_and_is_not_an_empty_listing() {
    let mut consul = Consul::disk();
    let store = Arc::new(client(&consul.address()));
    consul.put("p/_hostler", "");
    for round in 0..200 {
        consul.put("p/a", &format!("{round}"));
    }
    let before = block(store.list("p/")).unwrap();
    let watching = Watching::start(store.clone(), "p/");
    watching.until_value("p/a", "199");

    consul.wipe();
    watching.until("a server without our keys", |sight| *sight == WatchState::NoMarker);
    consul.put("p/a", "again");
    consul.put("p/_hostler", "");
    let seen = watching.until_value("p/a", "again");
    assert!(seen.last.unwrap().entries[0].modify_index < before.entries[1].modify_index);
    watching.never_without("p/a");
}
