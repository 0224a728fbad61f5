//! Orders for shipped tasks that name more than root admits: folders, ports, sockets. A local user helps the attacker, with
//! links, listeners and folders that he renames while the task works.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use hostler_testkit::{Host, Postgres, Vault};
use serde_json::json;

/// Runs `hostler admit` as the scripts of the tasks do.
fn admit(host: &Host, policy: &str, words: &[&str]) -> Output {
    let line = host.admit(policy);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{line} \"$@\""), "admit"]).args(words);
    command.stdin(Stdio::null()).output().expect("the program")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn list(folders: &[&Path]) -> String {
    json!(folders).to_string()
}

#[test]
fn p7_a_backup_never_holds_what_is_hostlers_own() {
    let host = Host::on_dir("backup");
    let all = host.path("");
    let policy = format!("places: {{backup: [{}]}}\n", all.display());
    for folder in ["state/runs", "run/secrets", "store/hostler"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
        fs::write(host.path(folder).join("value"), "a-secret-value").expect("a file");
    }
    fs::create_dir_all(host.path("data/below")).expect("a folder");
    fs::write(host.path("data/below/file, & with \\ more"), "text").expect("a file");
    fs::hard_link(host.path("data/below/file, & with \\ more"), host.path("data/hard")).expect("a link");
    symlink(host.path("run/secrets"), host.path("data/link")).expect("a link");
    let root = Path::new("/proc/self/root").join(host.path("run").strip_prefix("/").expect("a full path"));
    for folder in [
        host.path("state"),
        host.path("state/runs"),
        host.path("run/secrets"),
        host.path("store"),
        host.path("data/../run"),
        host.path("data/link"),
        root,
        "/dev/shm".into(),
        "/etc/hostler".into(),
    ] {
        for act in ["readable", "archive"] {
            let output = admit(&host, &policy, &[act, &list(&[&folder])]);
            assert_eq!(output.status.code(), Some(2), "{}: {}", folder.display(), said(&output));
            assert!(output.stdout.is_empty(), "{}", folder.display());
        }
    }
    // The whole, in which they are: the rest of it, by the names that were asked for.
    let output = admit(&host, &policy, &["archive", &list(&[&host.path("data"), &all])]);
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", said(&output));
    assert!(!output.stdout.windows(14).any(|part| part == b"a-secret-value"), "a secret is in the archive");
    let into = host.path("unpacked");
    fs::create_dir(&into).expect("a folder");
    let mut tar = Command::new("tar")
        .args(["--extract", "--file=-", "--directory"])
        .arg(&into)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tar");
    tar.stdin.take().expect("its input").write_all(&output.stdout).expect("the archive");
    assert!(tar.wait().expect("tar").success());
    let there = |name: &str| into.join(host.path(name).strip_prefix("/").expect("a full path"));
    assert_eq!(fs::read_to_string(there("data/below/file, & with \\ more")).expect("a file"), "text");
    assert_eq!(fs::read_to_string(there("data/hard")).expect("a hard link"), "text");
    assert_eq!(fs::read_link(there("data/link")).expect("a link"), host.path("run/secrets"));
    for own in ["state", "run", "store"] {
        assert!(!there(own).exists(), "{own} is in the archive");
    }
}

#[test]
fn cleaning_stays_in_its_place_whatever_is_renamed_meanwhile() {
    let host = Host::on_dir("clean");
    let policy = format!("places: {{clean: [{}]}}\n", host.path("user").display());
    for folder in ["user/a/b", "user/c", "other/b", "state"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
    }
    fs::write(host.path("other/b/kept"), "root's").expect("a file");
    fs::write(host.path("state/ledger"), "kept").expect("a file");
    for folder in ["/var/lib/dpkg", "/etc", "/var/log/../lib", "/"] {
        let output = admit(&host, &policy, &["clean", "remove", "0", "0", &list(&[Path::new(folder)])]);
        assert_eq!(output.status.code(), Some(2), "{folder}: {}", said(&output));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The user swaps a folder for a link to another's, as fast as he can.
        scope.spawn(|| {
            let (here, aside) = (host.path("user/a"), host.path("user/aside"));
            while !done.load(Ordering::Relaxed) {
                let _ = fs::rename(&here, &aside);
                let _ = symlink(host.path("other"), &here);
                let _ = fs::remove_file(&here);
                let _ = fs::rename(&aside, &here);
            }
        });
        for n in 0..200 {
            let _ = fs::write(host.path("user/c").join(n.to_string()), "x");
            for place in ["user", "user/a/b"] {
                admit(&host, &policy, &["clean", "remove", "0", "0", &list(&[&host.path(place)])]);
            }
            if !host.path("other/b/kept").exists() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(host.path("other/b/kept").exists(), "a file outside of the place was removed");
    assert_eq!(fs::read_dir(host.path("user/c")).expect("the folder").count(), 0, "it does clean");
    // Hostler's own folder in a place of root's.
    let policy = format!("places: {{clean: [{}]}}\n", host.path("").display());
    admit(&host, &policy, &["clean", "remove", "0", "0", &list(&[&host.path("")])]);
    assert!(host.path("state/ledger").exists() && !host.path("other/b/kept").exists());
}

#[test]
fn a_restore_makes_its_folder_only_where_nobody_else_can_make_a_name() {
    let host = Host::on_dir("restore");
    let place = host.path("place");
    let policy = format!("places: {{restore: [{}]}}\n", place.display());
    fs::create_dir_all(place.join("open")).expect("a folder");
    fs::set_permissions(place.join("open"), fs::Permissions::from_mode(0o1777)).expect("its mode");
    fs::create_dir(host.path("victim")).expect("a folder");
    symlink(host.path("victim"), place.join("link")).expect("a link");
    symlink(host.path("victim"), place.join("db.hostler-new")).expect("a link");
    let restore = |target: &Path, command: &[&str]| {
        let mut words = vec!["restore", target.to_str().expect("a path"), "--"];
        words.extend(command);
        admit(&host, &policy, &words)
    };
    for target in [
        place.join("open/db"),
        place.join("link/db"),
        place.join("../db"),
        host.path("db"),
        "/etc/systemd/system/x.service.d".into(),
        "/var/tmp/x".into(),
        place.join("link"),
        place.clone(),
    ] {
        let output = restore(&target, &["touch", "{}/written"]);
        assert_eq!(output.status.code(), Some(2), "{}: {}", target.display(), said(&output));
    }
    assert_eq!(fs::read_dir(host.path("victim")).expect("the folder").count(), 0);
    // Fails half-way: no folder, and the command's own status.
    let output = restore(&place.join("db"), &["sh", "-c", "touch {}/written; exit 75"]);
    assert_eq!(output.status.code(), Some(75));
    assert!(!place.join("db").exists());
    let output = restore(&place.join("db"), &["touch", "{}/written"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(place.join("db/written").exists());
    assert_eq!(fs::read_dir(host.path("victim")).expect("the folder").count(), 0);
    let names: Vec<_> = fs::read_dir(&place).expect("the place").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 4, "nothing is left beside it: {names:?}");
}

/// Speaks the protocol of PostgreSQL as far as the password, which it asks for as it is, and keeps what it hears.
fn ask_in_the_clear(mut stream: TcpStream, heard: &Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        let said = buffer.get(..n).unwrap_or_default();
        let _ = heard.send(said.to_vec());
        // To be encrypted, by TLS or by GSS, is refused; whoever says who he is is asked for his password.
        let encrypted = matches!(said.get(4..8), Some([4, 210, 22, 47 | 48])) && n == 8;
        let answer: &[u8] = if encrypted { b"N" } else { b"R\0\0\0\x08\0\0\0\x03" };
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

#[test]
fn p7_a_password_is_sent_to_no_other_process_than_the_database() {
    const PASSWORD: &str = "the-password-of-the-role";
    let (vault, database) = (Vault::start(), Postgres::start());
    database.sql("create role app login");
    vault.put("postgres/thief/app", json!({"password": PASSWORD}));
    vault.policy(
        "agent",
        &[
            ("secret/data/postgres/thief/*", &["read"]),
            ("secret/metadata/postgres/thief/*", &["read"]),
            ("auth/token/create", &["update"]),
        ],
    );
    let mut host = Host::on_vault("thief", &vault, "");
    // A process that asks whoever comes for the password in the clear.
    let thief = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = thief.local_addr().expect("its address").port();
    let (heard, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in thief.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || ask_in_the_clear(stream, &heard));
        }
    });
    // Root admits the server's port only; and, worse, also the thief's, with the server's socket under that name.
    let ports = |ports: &str| format!("postgres: {{sockets: [{}], ports: [{ports}]}}\n", database.socket());
    let socket = format!("{}/.s.PGSQL", database.socket());
    symlink(format!("{socket}.{}", database.port()), format!("{socket}.{port}")).expect("a link");
    let order = |port: u16, socket: &str| {
        format!(
            "task: postgres-rotate-password\nparams: {{role: app, mount: secret, socket: {socket}, port: {port}, first: true}}\n"
        )
    };
    host.shipped("postgres-rotate-password", &ports(&database.port().to_string()));
    host.start();
    let not_sent = |order: &str| {
        let heard: Vec<u8> = hears.try_iter().flatten().collect();
        let sent = heard.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes());
        assert!(!sent, "{order}: the password was sent; {}", host.log_tail());
    };
    host.order("other-port", &order(port, &database.socket()));
    let report = host.wait_for("other-port", &["failed"]);
    not_sent("other-port");
    assert!(report.to_string().contains("postgres.ports"), "{report}");
    host.order("other-socket", &order(database.port(), "/tmp"));
    let report = host.wait_for("other-socket", &["failed"]);
    not_sent("other-socket");
    assert!(report.to_string().contains("postgres.sockets"), "{report}");
    host.shipped("postgres-rotate-password", &ports(&format!("{}, {port}", database.port())));
    host.order("admitted", &order(port, &database.socket()));
    let report = host.wait_for("admitted", &["failed"]);
    not_sent("admitted");
    assert!(report.to_string().contains("is not PostgreSQL"), "{report}");
    host.order("right", &order(database.port(), &database.socket()));
    host.wait_for("right", &["succeeded"]);
    assert!(database.enters("app", PASSWORD));
    not_sent("right");
}
