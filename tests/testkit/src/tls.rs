//! A certificate authority of a test's own, with one certificate for a server and one for a client.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// PEM files of one authority.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate: for `localhost`, 127.0.0.1 and `server.dc1.consul`.
    pub server_cert: PathBuf,
    /// The server's key.
    pub server_key: PathBuf,
    /// The client's certificate.
    pub client_cert: PathBuf,
    /// The client's key.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes an authority and its certificates in `folder`.
    pub fn make(folder: &Path) -> Self {
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            CertificateParams::new(names).expect("names for a certificate")
        };
        let mut params = names(&["Test CA"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a certificate authority");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).expect("to write a certificate");
            path
        };
        let leaf = |name: &str, names: CertificateParams| {
            let mut params = names;
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("a key");
            let cert = params.signed_by(&key, &ca).expect("a signed certificate");
            (write(&format!("{name}.pem"), &cert.pem()), write(&format!("{name}.key"), &key.serialize_pem()))
        };
        let (server_cert, server_key) =
            leaf("server", names(&["localhost", "127.0.0.1", "server.dc1.consul"]));
        let (client_cert, client_key) = leaf("client", names(&["client.dc1.consul"]));
        Self { ca: write("ca.pem", &ca.pem()), server_cert, server_key, client_cert, client_key }
    }
}
