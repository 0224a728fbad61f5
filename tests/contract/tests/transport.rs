//! The ways to a real Consul: a socket with a token, TLS with certificates on both sides.

use hostler::domain::secret::Secret;
use hostler::store::consul::{ClientCert, ConsulSettings};
use hostler::store::{Store, StoreError};
use hostler_contract::{block, open, settings};
use hostler_testkit::{Consul, Options};

fn list(settings: ConsulSettings) -> Result<usize, StoreError> {
    let store = open(settings);
    block(store.list("p/")).map(|listing| listing.entries.len())
}

#[test]
fn a_socket_with_a_token() {
    let consul = Consul::with(Options { acl: true, unix: true, ..Options::default() });
    consul.put("p/a", "1");
    let address = format!("unix://{}", consul.socket().display());
    let token = consul.token("agent", r#"key_prefix "p/" { policy = "read" }"#);
    let token = Some(Secret::new(token));
    assert_eq!(list(ConsulSettings { token, ..settings(&address) }).unwrap(), 1);
    assert_eq!(list(settings(&address)).unwrap(), 0, "without the token it is filtered");
    let away = list(settings("unix:///nonexistent/consul.sock"));
    assert!(matches!(away, Err(StoreError::Unreachable { .. })), "{away:?}");
}

#[test]
fn tls_with_certificates_on_both_sides() {
    let consul = Consul::with(Options { tls: true, ..Options::default() });
    consul.put("p/a", "1");
    let files = consul.certificates();
    let full = || ConsulSettings {
        ca_file: Some(files.ca.clone()),
        client: Some(ClientCert { cert: files.client_cert.clone(), key: files.client_key.clone() }),
        ..settings(&consul.https_address())
    };
    assert_eq!(list(full()).unwrap(), 1);
    let unverified = ConsulSettings { ca_file: None, verify: false, ..full() };
    assert_eq!(list(unverified).unwrap(), 1, "verification is off");
    let strangers = [
        ("no client certificate", ConsulSettings { client: None, ..full() }),
        ("an authority that we do not know", ConsulSettings { ca_file: None, ..full() }),
        ("another authority", ConsulSettings { ca_file: Some(files.client_cert.clone()), ..full() }),
    ];
    for (why, settings) in strangers {
        let answer = list(settings);
        assert!(matches!(answer, Err(StoreError::Unreachable { .. })), "{why}: {answer:?}");
    }
}
