//! Tokens: what a lack of rights looks like, and that it never looks like an empty prefix.

use std::sync::Arc;

use hostler::domain::secret::Secret;
use hostler::store::watch::WatchState;
use hostler::store::{Read, Store, StoreError, When};
use hostler_contract::{Watching, block, client, client_with};
use hostler_testkit::{Consul, Options};

const READ: &str = r#"key_prefix "p/" { policy = "read" }"#;
const OTHER: &str = r#"key_prefix "q/" { policy = "read" }"#;

fn server() -> Consul {
    let consul = Consul::with(Options { acl: true, ..Options::default() });
    consul.put("p/_hostler", "");
    consul.put("p/a", "1");
    consul
}

#[test]
fn lost_rights_look_empty_to_a_client_and_not_visible_to_the_watch() {
    let consul = server();
    let store = Arc::new(client_with(&consul.address(), &consul.token("agent", READ)));
    let watching = Watching::start(store.clone(), "p/");
    watching.until_value("p/a", "1");

    consul.set_rules("agent", OTHER);
    let seen = watching.until("lost rights", |sight| *sight == WatchState::NoMarker);
    assert_eq!(seen.last.unwrap().entries.len(), 1);
    assert!(block(store.list("p/")).unwrap().entries.is_empty(), "Consul filters without a word");
    let reads = [Read::Prefix("p/".to_owned()), Read::Key("p/a".to_owned())];
    let looked = block(store.look(&reads)).unwrap();
    assert!(looked.iter().all(|listing| listing.entries.is_empty()), "and so in a transaction");

    consul.set_rules("agent", READ);
    watching.until_value("p/a", "1");
    watching.never_without("p/a");
}

#[test]
fn a_missing_right_to_write_is_denied_and_nothing_is_written() {
    let consul = server();
    let store = client_with(&consul.address(), &consul.token("agent", READ));
    let answers = [
        block(store.put("p/a", b"2".to_vec(), When::Always)).map(drop),
        block(store.put("p/a", b"2".to_vec(), When::Unchanged(0))).map(drop),
        block(store.delete("p/a")),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(StoreError::Denied { .. })), "{answer:?}");
    }
    assert_eq!(consul.get("p/a").as_deref(), Some("1"));
}

#[test]
fn a_token_that_nobody_knows_is_denied_without_showing_it() {
    let consul = server();
    let token = "0badf00d-0000-0000-0000-000000000000";
    let store = client_with(&consul.address(), token);
    let error = block(store.list("p/")).unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(!error.to_string().contains(token), "{error}");
}

#[test]
fn without_a_token_everything_looks_empty_and_a_later_token_is_taken() {
    let consul = server();
    let store = Arc::new(client(&consul.address()));
    let watching = Watching::start(store.clone(), "p/");
    watching.until("nothing", |sight| *sight == WatchState::NoMarker);
    // As it stands in a file: with a newline at its end.
    store.set_token(Some(Secret::new(format!("{}\n", consul.token("agent", READ))))).unwrap();
    watching.until_value("p/a", "1");
    watching.never_without("p/a");
}
