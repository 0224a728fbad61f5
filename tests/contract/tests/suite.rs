//! Both adapters behave like a store.

use std::time::Duration;

use hostler::store::Store;
use hostler::store::dir::Dir;
use hostler_contract::{behaves_like_a_store, block, client};
use hostler_testkit::Consul;

const PAUSE: Duration = Duration::from_millis(500);

#[test]
fn consul_behaves_like_a_store() {
    let consul = Consul::dev();
    block(behaves_like_a_store(&client(&consul.address()), PAUSE));
}

#[test]
fn a_folder_behaves_like_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::new(&folder.path().join("store"));
    store.make().unwrap();
    assert!(store.place().contains("store"));
    block(behaves_like_a_store(&store, PAUSE));
}
