//! What the port promises, as one suite for every adapter.

use std::time::Duration;

use hostler::store::{
    Listing, MAX_READ_VALUE, MAX_READS, MAX_VALUE, MAX_WAIT, Read, Store, StoreError, When,
};

/// Goes through every promise of the port on an empty prefix `suite/`. `pause` is longer than a change takes
/// to be noticed and shorter than the store's wait.
pub async fn behaves_like_a_store(store: &dyn Store, pause: Duration) {
    an_empty_prefix_has_an_index(store).await;
    listings_are_sorted_whole_and_of_their_prefix_alone(store).await;
    a_write_happens_on_its_condition_only(store).await;
    an_index_grows_with_each_change_and_with_nothing_else(store).await;
    a_change_wakes_its_prefix_alone(store, pause).await;
    a_look_sees_everything_asked_in_its_order(store).await;
    what_no_store_takes_is_refused(store).await;
    values_of_every_kind_come_back(store).await;
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    assert!(store.put(key, value.as_bytes().to_vec(), When::Always).await.unwrap());
}

async fn an_empty_prefix_has_an_index(store: &dyn Store) {
    let listing = store.list("suite/none/").await.unwrap();
    assert!(listing.entries.is_empty() && listing.index >= 1, "{listing:?}");
    let answer =
        tokio::time::timeout(Duration::from_secs(1), store.changed("suite/none/", None, MAX_WAIT)).await;
    assert!(answer.expect("without an index it answers at once").unwrap().index >= 1);
}

async fn listings_are_sorted_whole_and_of_their_prefix_alone(store: &dyn Store) {
    for key in ["suite/l/b", "suite/l/a/x", "suite/l/a/y", "suite/l2/a", "suite/l/sp ace"] {
        put(store, key, key).await;
    }
    let listing = store.list("suite/l/").await.unwrap();
    assert_eq!(keys(&listing), ["suite/l/a/x", "suite/l/a/y", "suite/l/b", "suite/l/sp ace"]);
    assert!(listing.entries.iter().all(|entry| entry.value == entry.key.as_bytes()));
    assert!(listing.entries.iter().all(|entry| (1..=listing.index).contains(&entry.modify_index)));
    assert_eq!(keys(&store.list("suite/l/a").await.unwrap()), ["suite/l/a/x", "suite/l/a/y"]);
    store.delete("suite/l/a/x").await.unwrap();
    store.delete("suite/l/a/x").await.unwrap();
    assert_eq!(keys(&store.list("suite/l/a/").await.unwrap()), ["suite/l/a/y"]);
}

async fn a_write_happens_on_its_condition_only(store: &dyn Store) {
    let key = "suite/c/k";
    let write = |value: &'static [u8], when| store.put(key, value.to_vec(), when);
    assert!(!write(b"0", When::Unchanged(7)).await.unwrap(), "nothing stands there");
    assert!(write(b"1", When::Unchanged(0)).await.unwrap());
    assert!(!write(b"2", When::Unchanged(0)).await.unwrap(), "it exists");
    let first = store.list("suite/c/").await.unwrap().entries.remove(0);
    assert_eq!(first.value, b"1");
    assert!(write(b"2", When::Unchanged(first.modify_index)).await.unwrap());
    assert!(!write(b"3", When::Unchanged(first.modify_index)).await.unwrap(), "somebody was faster");
    let second = store.list("suite/c/").await.unwrap().entries.remove(0);
    assert_eq!(second.value, b"2");
    assert!(second.modify_index > first.modify_index);
    store.delete(key).await.unwrap();
    assert!(!write(b"4", When::Unchanged(second.modify_index)).await.unwrap(), "it is gone");
}

async fn an_index_grows_with_each_change_and_with_nothing_else(store: &dyn Store) {
    let mut last = store.list("suite/i/").await.unwrap().index;
    for value in ["1", "2", "1"] {
        put(store, "suite/i/k", value).await;
        let listing = store.list("suite/i/").await.unwrap();
        let entry = &listing.entries[0];
        assert!(listing.index > last && entry.modify_index > last, "{value}: {last}, {listing:?}");
        last = listing.index;
    }
    put(store, "suite/i/k", "1").await;
    assert_eq!(store.list("suite/i/").await.unwrap().index, last, "the same value is no change");
    put(store, "suite/i/other", "1").await;
    let before = store.list("suite/i/").await.unwrap().index;
    store.delete("suite/i/other").await.unwrap();
    assert!(store.list("suite/i/").await.unwrap().index > before, "a removal is a change");
}

async fn a_change_wakes_its_prefix_alone(store: &dyn Store, pause: Duration) {
    put(store, "suite/w/db1/k", "1").await;
    put(store, "suite/w/db10/k", "1").await;
    let seen = store.list("suite/w/db1/").await.unwrap().index;
    let change = async {
        put(store, "suite/w/db10/k", "2").await;
        put(store, "suite/w/db1/k", "1").await;
    };
    let quiet = tokio::time::timeout(pause, async {
        tokio::join!(store.changed("suite/w/db1/", Some(seen), MAX_WAIT), change).0
    });
    assert!(quiet.await.is_err(), "woken by a neighbour or by the same value");
    let (woken, ()) =
        tokio::join!(store.changed("suite/w/db1/", Some(seen), MAX_WAIT), put(store, "suite/w/db1/k", "2"));
    let woken = woken.unwrap();
    assert!(woken.index > seen);
    assert_eq!(woken.entries[0].value, b"2");
}

async fn a_look_sees_everything_asked_in_its_order(store: &dyn Store) {
    for key in ["suite/t/order", "suite/t/order-2", "suite/t/f/a", "suite/t/f/b"] {
        put(store, key, key).await;
    }
    let reads = [
        Read::Prefix("suite/t/f/".to_owned()),
        Read::Key("suite/t/none".to_owned()),
        Read::Key("suite/t/order".to_owned()),
        Read::Prefix("suite/t/none/".to_owned()),
    ];
    let looked = store.look(&reads).await.unwrap();
    let keys: Vec<Vec<&str>> = looked.iter().map(keys).collect();
    assert_eq!(keys, [vec!["suite/t/f/a", "suite/t/f/b"], vec![], vec!["suite/t/order"], vec![]]);
    let listed = store.list("suite/t/order").await.unwrap();
    assert_eq!(looked[2].entries[0], listed.entries[0], "a look and a listing agree");
    let many = |count| vec![Read::Key("suite/t/order".to_owned()); count];
    assert_eq!(store.look(&many(MAX_READS)).await.unwrap().len(), MAX_READS);
    let refused = store.look(&many(MAX_READS + 1)).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert!(store.look(&[]).await.unwrap().is_empty());
}

async fn what_no_store_takes_is_refused(store: &dyn Store) {
    for key in ["", "/suite/x", "suite//x", "suite/../x", "suite/./x", "suite/x/", "suite/\n"] {
        let answer = store.put(key, b"x".to_vec(), When::Always).await;
        assert!(matches!(answer, Err(StoreError::Refused { .. })), "{key:?}: {answer:?}");
    }
    let large = store.put("suite/large", vec![b'x'; 600_000], When::Always).await;
    assert!(matches!(large, Err(StoreError::Refused { .. })), "{large:?}");
    assert!(store.list("suite/large").await.unwrap().entries.is_empty());
}

async fn values_of_every_kind_come_back(store: &dyn Store) {
    let values = [Vec::new(), (0..=255).collect(), vec![b'x'; MAX_READ_VALUE]];
    for (at, value) in values.iter().enumerate() {
        assert!(store.put(&format!("suite/v/{at}"), value.clone(), When::Always).await.unwrap());
    }
    let listing = store.list("suite/v/").await.unwrap();
    let back: Vec<Vec<u8>> = listing.entries.into_iter().map(|entry| entry.value).collect();
    assert!(back == values, "a value came back changed");
    // What is larger may be written, and comes back as too large.
    assert!(store.put("suite/v/large", vec![b'x'; MAX_VALUE], When::Always).await.unwrap());
    let listing = store.list("suite/v/large").await.unwrap();
    let large: Vec<(usize, bool)> = listing.entries.iter().map(|o| (o.value.len(), o.too_large)).collect();
    assert_eq!(large, [(0, true)]);
}
