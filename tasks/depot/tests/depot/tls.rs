//! Servers with TLS: whom to trust, what is said of a certificate that is wrong, and proxies on the way.

use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::depot::{Depot, Ended, feed};
use crate::support::servers::{BUCKET, Strict};
use crate::support::tunnel::Tunnel;

/// An authority of a test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("Test CA")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, and its key.
    fn leaf(&self, names: &[&str], change: fn(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A place to run in, with the authority in `ca.pem`.
fn place(authority: &Authority) -> (Depot, PathBuf) {
    let depot = Depot::new("127.0.0.1:1".parse().unwrap(), "");
    let ca = depot.path("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    (depot, ca)
}

/// The command, with this endpoint and more lines of the configuration.
fn at(depot: &Depot, endpoint: &str, more: &str, arguments: &[&str]) -> Command {
    let state = depot.state().display().to_string();
    let text = format!(
        "endpoint: {endpoint}\nregion: us-east-1\nbucket: {BUCKET}\nstate_dir: {state}\ntimeout: 20\n{more}\n"
    );
    std::fs::write(depot.path("depot.yml"), text).unwrap();
    depot.command(arguments)
}

#[test]
fn an_authority_of_ones_own_is_trusted_by_the_configuration_or_the_environment() {
    let authority = Authority::new();
    let (certificate, key) = authority.leaf(&["localhost", "127.0.0.1"], |_| {});
    let server = Strict::start_tls(&certificate, &key);
    let (depot, ca) = place(&authority);
    let port = server.address.port();
    let bytes = crate::support::noise(1, 12 << 20);
    for (name, endpoint, more, variable) in [
        ("db/file", format!("https://localhost:{port}"), format!("ca_file: {}", ca.display()), false),
        ("db/address", format!("https://127.0.0.1:{port}"), format!("ca_file: {}", ca.display()), false),
        ("db/variable", format!("https://localhost:{port}"), String::new(), true),
    ] {
        let run = |arguments: &[&str], input: &[u8]| -> Ended {
            let mut command = at(&depot, &endpoint, &more, arguments);
            if variable {
                command.env("AWS_CA_BUNDLE", &ca);
            }
            feed(command, input)
        };
        let put = run(&["put", name, "--json"], &bytes).ok().json();
        assert_eq!(
            put["verified"], "checksums",
            "the bytes are compared over TLS too, where no signature covers them"
        );
        assert!(run(&["get", name], b"").ok().out == bytes);
        run(&["verify"], b"").ok();
    }
    // What the configuration says goes before the environment.
    let other = depot.path("other.pem");
    std::fs::write(&other, Authority::new().pem()).unwrap();
    let mut command =
        at(&depot, &format!("https://localhost:{port}"), &format!("ca_file: {}", ca.display()), &["list"]);
    command.env("AWS_CA_BUNDLE", &other);
    feed(command, b"").ok();
    // Several authorities in one file.
    std::fs::write(&other, format!("# two\n{}\n{}", Authority::new().pem(), authority.pem())).unwrap();
    let more = format!("ca_file: {}", other.display());
    feed(at(&depot, &format!("https://localhost:{port}"), &more, &["list"]), b"").ok();
}

#[test]
fn a_certificate_that_is_wrong_is_named_at_once() {
    let (authority, other, namesake) = (Authority::new(), Authority::named("Other CA"), Authority::new());
    let (depot, ca) = place(&authority);
    let trusted = format!("ca_file: {}", ca.display());
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    };
    let early = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2120, 1, 1);
    let authority_too =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let localhost = &["localhost"];
    for (what, (certificate, key), more, text) in [
        ("no authority", authority.leaf(localhost, |_| {}), "", "unknown authority"),
        ("another authority", other.leaf(localhost, |_| {}), trusted.as_str(), "unknown authority"),
        ("another of that name", namesake.leaf(localhost, |_| {}), trusted.as_str(), "of the same name"),
        ("another name", authority.leaf(&["s3.example.com"], |_| {}), &trusted, "for another name"),
        ("expired", authority.leaf(localhost, expired), &trusted, "has expired"),
        ("not yet", authority.leaf(localhost, early), &trusted, "not valid yet"),
        ("an authority's own", authority.leaf(localhost, authority_too), &trusted, "authority's certificate"),
    ] {
        let server = Strict::start_tls(&certificate, &key);
        let endpoint = format!("https://localhost:{}", server.address.port());
        let ended = feed(at(&depot, &endpoint, more, &["put", "db/a"]), b"x");
        assert_eq!(ended.code, Some(3), "{what}: {}", ended.err);
        assert!(ended.err.contains(text) && !ended.err.contains("tried"), "{what}: {}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{what}: {}", ended.err);
    }
    // Plain HTTP to a port of TLS.
    let (certificate, key) = authority.leaf(localhost, |_| {});
    let server = Strict::start_tls(&certificate, &key);
    let ended = feed(at(&depot, &format!("http://{}", server.address), "tries: 2", &["list"]), b"");
    assert!(matches!(ended.code, Some(3 | 4)), "{}", ended.err);
}

#[test]
fn a_proxy_tunnels_tls_and_what_needs_none_goes_past_it() {
    let authority = Authority::new();
    let (certificate, key) = authority.leaf(&["s3.invalid", "localhost"], |_| {});
    let server = Strict::start_tls(&certificate, &key);
    let (depot, ca) = place(&authority);
    let tunnel = Tunnel::start(server.address, None);
    let url = format!("http://{}", tunnel.address);
    let run = |host: &str, more: &str, environment: &[(&str, &str)], arguments: &[&str], input: &[u8]| {
        let more = format!("ca_file: {}\ntries: 1\n{more}", ca.display());
        let mut command = at(&depot, &format!("https://{host}"), &more, arguments);
        command.envs(environment.iter().copied());
        feed(command, input)
    };
    let bytes = crate::support::noise(2, 12 << 20);
    // No such host: only a proxy reaches it.
    run("s3.invalid", "", &[], &["list"], b"").fails(4, "listing");
    run("s3.invalid", "", &[("HTTP_PROXY", &url)], &["list"], b"").fails(4, "listing");
    assert!(tunnel.seen().is_empty(), "HTTP_PROXY is for http:// alone");
    let bare = tunnel.address.to_string();
    for environment in [
        ("HTTPS_PROXY", &url),
        ("https_proxy", &url),
        ("ALL_PROXY", &url),
        ("all_proxy", &url),
        ("HTTPS_PROXY", &bare),
    ] {
        run("s3.invalid", "", &[(environment.0, environment.1.as_str())], &["list"], b"").ok();
        assert!(tunnel.seen().iter().all(|host| host == "s3.invalid:443"), "{environment:?}");
    }
    run("s3.invalid", "", &[("HTTPS_PROXY", &url)], &["put", "db/a"], &bytes).ok();
    assert!(run("s3.invalid:443", &format!("proxy: {url}"), &[], &["get", "db/a"], b"").ok().out == bytes);
    assert!(!tunnel.seen().is_empty());
    // What is reached without it: there is no such host.
    for direct in
        ["s3.invalid", ".invalid", "*.invalid", "invalid", "localhost, s3.invalid", "s3.invalid:443", "*"]
    {
        for name in ["NO_PROXY", "no_proxy"] {
            run("s3.invalid", "", &[("HTTPS_PROXY", &url), (name, direct)], &["list"], b"")
                .fails(4, "listing");
        }
        let more = format!("proxy: {url}\nno_proxy: '{direct}'");
        run("s3.invalid", &more, &[], &["list"], b"").fails(4, "listing");
        assert!(tunnel.seen().is_empty(), "{direct}");
    }
    for other in ["3.invalid", "s3.invalid.example.com", "127.0.0.0/8", "localhost", "nvalid"] {
        run("s3.invalid", "", &[("HTTPS_PROXY", &url), ("NO_PROXY", other)], &["list"], b"").ok();
        assert!(!tunnel.seen().is_empty(), "{other}");
    }
    let host = format!("localhost:{}", server.address.port());
    run(&host, "", &[("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "localhost")], &["list"], b"").ok();
    run(&host, "proxy: none", &[("HTTPS_PROXY", "http://127.0.0.1:1")], &["list"], b"").ok();
    assert!(tunnel.seen().is_empty());
}

#[test]
fn a_proxy_that_cannot_be_used_is_named_at_once_without_its_password() {
    let authority = Authority::new();
    let (certificate, key) = authority.leaf(&["s3.invalid"], |_| {});
    let server = Strict::start_tls(&certificate, &key);
    let (depot, ca) = place(&authority);
    // "user:hush" in base64.
    let tunnel = Tunnel::start(server.address, Some("dXNlcjpodXNo"));
    let run = |name: &str, value: &str| {
        let mut command =
            at(&depot, "https://s3.invalid", &format!("ca_file: {}\ntries: 3", ca.display()), &["list"]);
        command.env(name, value);
        feed(command, b"")
    };
    let good = format!("http://user:hush@{}", tunnel.address);
    run("HTTPS_PROXY", &good).ok();
    assert_eq!(tunnel.seen(), ["s3.invalid:443"]);
    let asked = run("HTTPS_PROXY", &format!("http://{}", tunnel.address)).fails(3, "user and a password");
    assert!(!asked.err.contains("tried"), "{}", asked.err);
    assert_eq!(tunnel.seen().len(), 1, "asked once");
    let wrong = run("HTTPS_PROXY", &format!("http://user:otherwise@{}", tunnel.address)).fails(3, "proxy");
    assert!(!wrong.err.contains("otherwise"), "{}", wrong.err);
    for url in ["socks5://user:hush@127.0.0.1:1080", "ftp://user:hush@127.0.0.1"] {
        for name in ["HTTPS_PROXY", "ALL_PROXY"] {
            let ended = run(name, url).fails(3, name);
            assert!(!ended.err.contains("hush"), "{}", ended.err);
        }
    }
    // One that is down is said to be one.
    let down = run("HTTPS_PROXY", "http://user:hush@127.0.0.1:1").fails(4, "proxy");
    assert!(!down.err.contains("hush"), "{}", down.err);
}
