//! Where credentials come from, and that they go nowhere else.

use std::process::Command;

use crate::support::depot::{Depot, Ended, feed};
use crate::support::imds::{Imds, ROLE, TOKEN};
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::{KEY, KEY_ID, Strict};

/// A command that finds no credentials but by what is added.
fn without(depot: &Depot, arguments: &[&str]) -> Command {
    let mut command = depot.command(arguments);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command
}

#[test]
fn credentials_come_from_a_folder_of_secrets_and_are_never_printed() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "tries: 2");
    let secrets = depot.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("s3_access_key_id"), KEY_ID).unwrap();
    std::fs::write(secrets.join("s3_secret_access_key"), format!("{}\n", KEY)).unwrap();
    let without = |arguments: &[&str]| without(&depot, arguments);
    let list = feed(without(&["list"]), b"");
    list.fails(4, "credential");
    let mut command = without(&["put", "db/a"]);
    command.env("HOSTLER_SECRETS", &secrets);
    feed(command, b"x").ok();
    let folder = secrets.to_str().unwrap();
    feed(without(&["verify", "--credentials-dir", folder]), b"").ok();
    std::fs::write(secrets.join("s3_secret_access_key"), "wrong").unwrap();
    let denied = feed(without(&["list", "--credentials-dir", folder]), b"");
    denied.fails(4, "SignatureDoesNotMatch");
    // A profile of the AWS configuration.
    let aws = depot.path("aws");
    std::fs::write(&aws, format!("[backup]\naws_access_key_id={KEY_ID}\naws_secret_access_key={KEY}\n"))
        .unwrap();
    depot.configure(server.address, "profile: backup");
    let mut command = without(&["verify"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &aws);
    feed(command, b"").ok();
}

/// A command whose only credentials are those of the instance's role.
fn by_role(depot: &Depot, imds: &Imds, arguments: &[&str]) -> Command {
    let mut command = without(depot, arguments);
    command
        .env_remove("AWS_EC2_METADATA_DISABLED")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", imds.address));
    command
}

#[test]
fn credentials_come_from_the_instances_role_by_version_two_of_its_service() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "tries: 2");
    let imds = Imds::start();
    // The session's token goes with each request, signed.
    proxy.rule(|seen| {
        let token = seen.headers.get("x-amz-security-token").and_then(|token| token.to_str().ok());
        let signed = seen.headers["authorization"].to_str().unwrap().contains("x-amz-security-token");
        if token == Some(TOKEN) && signed { Fate::Pass } else { Fate::Answer(403, "NoToken") }
    });
    feed(by_role(&depot, &imds, &["put", "db/a"]), b"by role").ok();
    assert_eq!(feed(by_role(&depot, &imds, &["get", "db/a"]), b"").ok().out, b"by role");
    let seen = imds.seen();
    assert!(seen.iter().any(|line| line.starts_with("PUT /latest/api/token")), "{seen:?}");
    assert!(seen.iter().any(|line| line.ends_with(ROLE)), "{seen:?}");
    // A role that gives nothing is said so, in one line.
    imds.breaks();
    let denied = feed(by_role(&depot, &imds, &["list"]), b"").fails(4, "credential");
    assert_eq!(denied.err.lines().count(), 1, "{}", denied.err);
}

/// The secrets in the shapes in which text carries them.
fn shapes() -> Vec<String> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let of = |text: &str| {
        // Somewhere in a longer text, base64 shows it in one of three ways; the ends depend on what is beside it.
        let shifted = (0..3).map(|at| {
            let text = engine.encode(format!("{}{text}", "x".repeat(at)));
            text[4..text.len() - 4].to_owned()
        });
        shifted.chain([text.to_owned(), hex::encode(text), text[..20].to_owned()]).collect::<Vec<_>>()
    };
    [KEY, TOKEN].iter().flat_map(|text| of(text)).collect()
}

#[track_caller]
fn holds_none(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for shape in shapes() {
        assert!(!text.contains(&shape), "{what} holds {shape}: {text}");
    }
}

#[track_caller]
fn silent(what: &str, ended: Ended) -> Ended {
    holds_none(what, ended.err.as_bytes());
    holds_none(what, &ended.out);
    ended
}

#[test]
fn no_output_no_error_and_no_file_holds_a_secret() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "tries: 2\ntimeout: 2");
    let imds = Imds::start();
    std::fs::write(depot.path("report"), "").unwrap();
    // Whoever debugs turns on all that programs of this kind listen to.
    let loud = |arguments: &[&str]| {
        let mut command = by_role(&depot, &imds, arguments);
        command.env("RUST_LOG", "trace").env("AWS_LOG_LEVEL", "trace").env("RUST_BACKTRACE", "full");
        command.env("HOSTLER_REPORT", depot.path("report"));
        command
    };
    silent("put", feed(loud(&["put", "db/a", "--json"]), b"x").ok());
    for arguments in
        [&["list", "--json"][..], &["show", "db/a"], &["verify"], &["status"], &["clean"], &["get", "db/a"]]
    {
        silent(arguments[0], feed(loud(arguments), b"").ok());
    }
    for fate in [
        Fate::Answer(403, "SignatureDoesNotMatch"),
        Fate::Answer(400, "ExpiredToken"),
        Fate::Answer(500, "InternalError"),
        Fate::Stall,
        Fate::Reset,
        Fate::Truncate,
        Fate::FlipAnswer,
    ] {
        proxy.rule(move |_| fate.clone());
        silent("a failed put", feed(loud(&["put", "db/b"]), b"x"));
        silent("a failed get", feed(loud(&["get", "db/a"]), b""));
    }
    proxy.rule(|_| Fate::Pass);
    // Sources that are broken in a way that brings the secret close to an error's text.
    imds.breaks();
    silent("a broken role", feed(loud(&["list"]), b"").fails(4, ""));
    let secrets = depot.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("s3_access_key_id"), KEY_ID).unwrap();
    for text in [format!("{KEY}\n{KEY}"), format!("{KEY}\u{7}\u{f6}"), KEY.repeat(3000)] {
        std::fs::write(secrets.join("s3_secret_access_key"), &text).unwrap();
        std::fs::write(secrets.join("s3_session_token"), format!("{TOKEN}\n{TOKEN}")).unwrap();
        let folder = secrets.to_str().unwrap();
        silent("broken secrets", feed(without(&depot, &["list", "--credentials-dir", folder]), b""));
    }
    let aws = depot.path("aws");
    for text in [
        format!("[backup]\naws_access_key_id={KEY_ID}\naws_secret_access_key={KEY}\n{KEY}\n"),
        format!("[backup\naws_secret_access_key={KEY}\n"),
        format!("[backup]\naws_secret_access_key={KEY}\n"),
        format!("aws_secret_access_key={KEY}\n[backup]\n = {KEY}\n"),
    ] {
        std::fs::write(&aws, text).unwrap();
        depot.configure(proxy.address, "profile: backup\ntries: 1");
        let mut command = without(&depot, &["list"]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", &aws).env("RUST_LOG", "trace");
        silent("a broken profile", feed(command, b""));
    }
    // Nothing of it went into the store, the journal or the report.
    let mut folders = vec![server.bucket(), depot.state()];
    let mut files = vec![depot.path("report")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let list = if entry.path().is_dir() { &mut folders } else { &mut files };
            list.push(entry.path());
        }
    }
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        holds_none(&file.display().to_string(), &std::fs::read(&file).unwrap());
    }
}
