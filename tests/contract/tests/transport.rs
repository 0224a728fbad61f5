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
    // However the files were saved.
    let dir = tempfile::tempdir().expect("a folder");
    let marked = |from: &std::path::Path| {
        let to = dir.path().join(from.file_name().expect("a name"));
        let text = std::fs::read_to_string(from).expect("a certificate");
        std::fs::write(&to, format!("\u{feff}{}", text.replace('\n', "\r\n")))
            .expect("the same, otherwise saved");
        to
    };
    let saved_elsewhere = ConsulSettings {
        ca_file: Some(marked(&files.ca)),
        client: Some(ClientCert { cert: marked(&files.client_cert), key: marked(&files.client_key) }),
        ..full()
    };
    assert_eq!(list(saved_elsewhere).unwrap(), 1, "with byte order marks");
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

#[test]
fn a_wrong_scheme_and_an_unknown_datacenter_are_named_with_their_setting() {
    let consul = Consul::with(Options { tls: true, ..Options::default() });
    let said = |settings: ConsulSettings| match list(settings) {
        Err(error @ StoreError::Unreachable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let plain = said(settings(&consul.address().replace("http://", "https://")));
    assert!(plain.contains("it speaks plain HTTP there") && plain.contains("`consul.address`"), "{plain}");
    let secure = said(settings(&consul.https_address().replace("https://", "http://")));
    assert!(secure.contains("it speaks HTTPS there") && secure.contains("`consul.address`"), "{secure}");
    let elsewhere = ConsulSettings { datacenter: Some("moon".to_owned()), ..settings(&consul.address()) };
    let elsewhere = said(elsewhere);
    assert!(elsewhere.contains("\"moon\"") && elsewhere.contains("`consul.datacenter`"), "{elsewhere}");
}
