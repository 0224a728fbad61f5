//! Storing and getting back, against both servers: bytes, manifests, compression, encryption, and what is refused.

use std::sync::{Arc, Mutex};

use age::secrecy::ExposeSecret;

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::{Moto, Strict};

const MIB: usize = 1 << 20;

#[test]
fn what_was_put_comes_back_byte_for_byte() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    for (name, length) in
        [("empty", 0), ("one", 1), ("part", 5 * MIB), ("more", 5 * MIB + 1), ("many", 23 * MIB + 7)]
    {
        let bytes = noise(length as u64, length);
        depot.feed(&["put", "--empty", &format!("db/{name}")], &bytes).ok();
        let got = depot.run(&["get", &format!("db/{name}")]).ok();
        assert!(got.out == bytes, "{name}");
        let file = depot.path(name);
        depot.run(&["get", &format!("db/{name}"), "-o", file.to_str().unwrap()]).ok();
        assert!(std::fs::read(file).unwrap() == bytes, "{name} as a file");
    }
    assert_eq!(depot.names(), ["db/empty", "db/one", "db/part", "db/more", "db/many"]);
    depot.run(&["verify"]).ok();
    depot.run(&["verify", "--sample", "10"]).ok();
    assert_eq!(depot.begun(), 0, "nothing is open");
    assert!(server.leftovers().is_empty());
}

#[test]
fn moto_gives_it_back_too_with_all_parameters() {
    let server = Moto::start();
    server.bucket(&[("x-amz-bucket-object-lock-enabled", "true")]);
    let more = "storage_class: STANDARD_IA\nsse: {algorithm: 'aws:kms', kms_key: key-1}\ntags: {owner: dba team}\nlock: {mode: GOVERNANCE, days: 3}\ncompress: 3";
    let proxy = Proxy::start(server.address);
    let wanted = Arc::new(Mutex::new(0));
    let count = Arc::clone(&wanted);
    proxy.rule(move |seen| {
        if !seen.is_part() && (seen.method == "PUT" || seen.query.starts_with("uploads")) {
            assert_eq!(seen.headers["x-amz-object-lock-mode"], "GOVERNANCE");
            assert_eq!(seen.headers["x-amz-server-side-encryption-aws-kms-key-id"], "key-1");
            *count.lock().unwrap() += 1;
        }
        Fate::Pass
    });
    let depot = Depot::new(proxy.address, more);
    let bytes = noise(3, 12 * MIB);
    depot.put("db/large", &bytes);
    depot.put("db/small", b"small");
    assert!(depot.run(&["get", "db/large"]).ok().out == bytes);
    for name in ["db/large", "db/small"] {
        let shown = depot.run(&["show", "--json", name]).ok().json();
        assert_eq!(shown["state"]["class"], "STANDARD_IA");
        assert_eq!(shown["backup"]["stored"]["compression"], "zstd");
        let key = shown["backup"]["stored"]["key"].as_str().unwrap().to_owned();
        let (status, tags) = server.ask("GET", &format!("/vault/prod/{key}?tagging"), &[], "");
        assert!(tags.contains("<Key>owner</Key><Value>dba team</Value>"), "{status} {tags}");
        depot.run(&["delete", name]).fails(6, "is locked until");
        depot.run(&["verify", name]).ok();
    }
    // moto holds the lock of an object that came at once, and forgets that of an upload in parts.
    let shown = depot.run(&["show", "--json", "db/small"]).ok().json();
    let key = shown["backup"]["stored"]["key"].as_str().unwrap();
    let version = shown["backup"]["stored"]["object_version"].as_str().unwrap();
    let (status, text) = server.ask("DELETE", &format!("/vault/prod/{key}?versionId={version}"), &[], "");
    assert_eq!(status, 403, "the server itself holds the lock: {text}");
    assert_eq!(*wanted.lock().unwrap(), 4, "two manifests, one object, one upload, all locked");
}

#[test]
fn compressed_and_encrypted_it_is_smaller_and_unreadable_without_the_key() {
    let server = Strict::start();
    let identity = age::x25519::Identity::generate();
    let depot = Depot::new(server.address, "");
    let key = depot.path("key.txt");
    std::fs::write(&key, format!("# a comment\n{}\n", identity.to_string().expose_secret())).unwrap();
    let encrypt =
        format!("encrypt: {{recipients: [{}], identity_file: {}}}", identity.to_public(), key.display());
    let text = b"a line that is repeated many times\n".repeat(500_000);
    for (name, more) in [
        ("zstd", "compress: 3".to_owned()),
        ("age", encrypt.clone()),
        ("both", format!("compress: 3\n{encrypt}")),
    ] {
        depot.configure(server.address, &more);
        depot.put(name, &text);
        assert!(depot.run(&["get", name]).ok().out == text, "{name}");
        depot.run(&["verify", name]).ok();
    }
    let stored = |name: &str| {
        depot.run(&["show", name, "--json"]).ok().json()["backup"]["stored"]["size"].as_u64().unwrap()
    };
    assert!(stored("zstd") < text.len() as u64 / 50);
    assert!(stored("both") < text.len() as u64 / 50);
    assert!(stored("age") > text.len() as u64);
    depot.configure(server.address, "");
    depot.run(&["get", "both"]).fails(3, "identity_file");
    let answer = depot.run(&["verify", "both"]).ok();
    assert!(String::from_utf8_lossy(&answer.out).contains("not decrypted"));
}

#[test]
fn a_name_is_given_once() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    depot.put("db/a", b"first");
    depot.feed(&["put", "db/a"], b"second").fails(6, "use another name");
    assert_eq!(depot.run(&["get", "db/a"]).ok().out, b"first");
    depot.run(&["get", "db/b"]).fails(5, "no backup `db/b`");
    depot.feed(&["put", "db/../a"], b"").fails(2, "no `..`");
    depot.run(&["delete", "db/a"]).ok();
    assert_eq!(server.keys(), Vec::<String>::new(), "nothing is left of it");
}

#[test]
fn a_command_that_fails_leaves_no_backup_and_one_that_is_fed_sees_a_good_end_only() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    depot.run(&["put", "db/a", "--", "sh", "-c", "echo half; exit 3"]).fails(8, "exit status: 3");
    depot.run(&["put", "db/a", "--", "/no/such/program"]).fails(8, "/no/such/program");
    assert_eq!(server.keys(), Vec::<String>::new());
    depot.run(&["put", "db/a", "--good", "1", "--", "sh", "-c", "echo whole; exit 1"]).ok();
    let target = depot.path("out");
    let copy = format!("cat >{}", target.display());
    depot.run(&["get", "db/a", "--", "sh", "-c", &copy]).ok();
    assert_eq!(std::fs::read(&target).unwrap(), b"whole\n");
    depot.run(&["get", "db/a", "--", "sh", "-c", "cat >/dev/null; exit 4"]).fails(8, "exit status: 4");
}
