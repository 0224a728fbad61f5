//! `install` and `update` against an hdblcm that writes a manifest.

use std::fs;

use crate::host::{Answer, Host};

const NEW: &str = "fullversion: 2.00.079.00 Build 1710000000-1530\n";
const CANARY: &str = "Canary-9d1f";

/// Media in 2.00.079.00, whose hdblcm keeps what it reads and its arguments, then does `body`.
fn with_media(host: Host, body: &str) -> Host {
    let root = host.path().display().to_string();
    host.file("media/SAP_HANA_DATABASE/server/manifest", NEW);
    host.file("media/SAP_HANA_DATABASE/SIGNATURE.SMF", "");
    host.script("media/SAP_HANA_DATABASE/hdblcm", &format!("root='{root}'\ncat >\"$root/read\"\n{body}"));
    for name in ["sidadm_password", "system_password", "sapadm_password"] {
        host.file(&format!("secrets/{name}"), &format!("{CANARY}-{name}\n"));
    }
    host
}

/// What a good hdblcm leaves: the manifest, its list, and nothing unfinished.
const GOOD: &str = r#"exe="$root/usr/sap/HDB/HDB00/exe"
mkdir -p "$exe"
cp "$root/media/SAP_HANA_DATABASE/server/manifest" "$exe/manifest"
rm -f "$root/hana/shared/HDB/HDB.hdblcm.update"
printf '%s\n' '#!/bin/sh' "printf '/hana/shared/HDB\\n HDB00\\n version: 2.00.079.0\\n'" >"$root/lister"
chmod 755 "$root/lister"; mkdir -p "$root/hana/shared/HDB/hdblcm"
mv "$root/lister" "$root/hana/shared/HDB/hdblcm/hdblcm""#;

fn run(host: &Host, arguments: &[&str]) -> Answer {
    let mut command = host.command(arguments);
    command.env("HOSTLER_SECRETS", host.path().join("secrets"));
    Answer::of(command.output().unwrap())
}

fn began(host: &Host) -> usize {
    host.calls().lines().filter(|line| line.contains("--action=")).count()
}

const INSTALL: [&str; 5] = ["--number", "00", "install", "--media", "/media"];
const UPDATE: [&str; 3] = ["update", "--media", "/media"];

fn more<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn an_installation_and_its_repetition() {
    let host = with_media(Host::empty(), GOOD);
    assert_eq!(run(&host, &more(&INSTALL, &["--probe"])).code(), 1);
    assert_eq!(began(&host), 0, "a probe changes nothing");
    host.script("usr/sap/HDB/HDB00/exe/sapcontrol", "printf '\\n21.11.2026 04:05:06\\nGetProcessList\\nOK\\nname, description, dispstatus, textstatus, starttime, elapsedtime, pid\\nhdbdaemon, HDB Daemon, GREEN, Running, x, y, 1\\n'; exit 3");
    // What was just made for the test is something of the system, and forbids it.
    assert_eq!(run(&host, &INSTALL).code(), 6);
    let sapcontrol = host.path().join("usr/sap/HDB/HDB00/exe/sapcontrol");
    let kept = host.path().join("kept");
    fs::rename(&sapcontrol, &kept).unwrap();
    fs::remove_dir_all(host.path().join("usr/sap")).unwrap();
    let good = format!("{GOOD}\ncp \"$root/kept\" \"$exe/sapcontrol\"");
    let host = with_media(host, &good);
    let answer = run(&host, &more(&INSTALL, &["--uid", "1001", "--data", "/hana/data/HDB"]));
    assert_eq!(answer.code(), 0, "{}", answer.err());
    let calls = host.calls();
    assert!(
        calls.contains(
            "hdblcm --batch --action=install --component_root=/media --verify_signature --sid=HDB --number=00"
        ),
        "{calls}"
    );
    assert!(
        calls.contains("--datapath=/hana/data/HDB --userid=1001 --read_password_from_stdin=xml"),
        "{calls}"
    );
    // Passwords arrive, and only where they should.
    let read = fs::read_to_string(host.path().join("read")).unwrap();
    assert!(
        read.contains(&format!("<sapadm_password><![CDATA[{CANARY}-sapadm_password]]></sapadm_password>")),
        "{read}"
    );
    assert!(![calls, answer.out(), answer.err()].concat().contains(CANARY));
    // Again: nothing.
    assert_eq!(run(&host, &more(&INSTALL, &["--probe"])).code(), 0);
    assert_eq!((run(&host, &INSTALL).code(), began(&host)), (0, 1));
    // Half of it is gone: it is not installed, whatever the manifest says, and nothing is tried on it.
    host.script(
        "usr/sap/HDB/HDB00/exe/sapcontrol",
        "printf '\\n21.11.2026 04:05:06\\nGetProcessList\\nFAIL: NIECONN_REFUSED\\n'; exit 1",
    );
    assert_eq!(run(&host, &more(&INSTALL, &["--probe"])).code(), 1);
    assert_eq!((run(&host, &INSTALL).code(), began(&host)), (6, 1));
}

#[test]
fn an_installation_that_fails() {
    let failing = "echo \"Log file written to '/var/tmp/x/hdblcm.log' on host 'h'.\"\nprintf 'Installation failed\\n  Upgrade failed\\n    port in use\\n' >&2; exit 1";
    let host = with_media(Host::empty(), failing);
    let answer = run(&host, &INSTALL);
    assert_eq!(answer.code(), 4);
    assert_eq!(
        answer.err(),
        "hostler-hana: hdblcm failed: Installation failed: Upgrade failed: port in use; its log is /var/tmp/x/hdblcm.log\n"
    );
    // An exit code 0 without the version, and a code that nobody documents.
    assert_eq!(run(&with_media(Host::empty(), "exit 0"), &INSTALL).code(), 5);
    assert_eq!(run(&with_media(Host::empty(), "exit 7"), &INSTALL).code(), 5);
    // A secret that is missing: nothing is started.
    let host = with_media(Host::empty(), GOOD);
    fs::remove_file(host.path().join("secrets/system_password")).unwrap();
    assert_eq!((run(&host, &INSTALL).code(), began(&host)), (9, 0));
    // A half-failed one that the host agent lists.
    let host = with_media(Host::empty(), GOOD);
    host.script("usr/sap/hostctrl/exe/saphostctrl", "echo ' Inst Info : HDB - 00 - east1 - 753, patch 1'");
    assert_eq!((run(&host, &INSTALL).code(), began(&host)), (6, 0));
}

#[test]
fn an_update_in_two_parts() {
    let host = with_media(
        Host::healthy(),
        "case $* in *--prepare_update*) touch \"$root/hana/shared/HDB/HDB.hdblcm.update\"; exit 0 ;; esac\n",
    );
    assert_eq!(run(&host, &more(&UPDATE, &["--prepare"])).code(), 0);
    assert!(host.calls().contains("--action=update --component_root=/media --verify_signature --sid=HDB --system_user=SYSTEM --components=all --prepare_update"));
    assert_eq!(run(&host, &more(&UPDATE, &["--probe"])).code(), 1, "what is prepared is not installed");
    let host = with_media(host, GOOD);
    let answer = run(&host, &UPDATE);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    let read = fs::read_to_string(host.path().join("read")).unwrap();
    assert!(read.contains("<system_user_password>") && !read.contains("sapadm_password"), "{read}");
    assert!(!host.calls().contains(CANARY));
    assert_eq!(run(&host, &more(&UPDATE, &["--probe"])).code(), 0);
    assert_eq!((run(&host, &UPDATE).code(), began(&host)), (0, 2));
}

#[test]
fn an_interrupted_update_goes_on_where_nothing_can_be_asked() {
    let stopped = "printf '\\n21.11.2026 04:05:06\\nGetProcessList\\nOK\\nname, description, dispstatus, textstatus, starttime, elapsedtime, pid\\nhdbdaemon, HDB Daemon, GRAY, Stopped, , , 0\\n'; exit 4";
    let host = with_media(Host::healthy(), GOOD);
    host.script("usr/sap/HDB/HDB00/exe/sapcontrol", stopped);
    host.sql("*) echo '* -10709: Connection failed' >&2; exit 1 ;;");
    // Stopped without an update under way: somebody stopped it.
    assert_eq!((run(&host, &UPDATE).code(), began(&host)), (6, 0));
    host.file("hana/shared/HDB/HDB.hdblcm.update", "");
    let answer = run(&host, &more(&UPDATE, &["--no-start"]));
    assert_eq!((answer.code(), began(&host)), (0, 1), "{}", answer.err());
    assert!(host.calls().contains("--hdbupd_server_nostart"));
    assert_eq!(run(&host, &more(&UPDATE, &["--no-start", "--probe"])).code(), 0);
    assert_eq!(run(&host, &more(&UPDATE, &["--probe"])).code(), 1, "it is to run");
}

#[test]
fn what_forbids_an_update_is_not_begun() {
    let host = with_media(Host::healthy(), GOOD);
    host.file("media/SAP_HANA_DATABASE/server/manifest", "fullversion: 2.00.9.00\n");
    assert_eq!(run(&host, &UPDATE).code(), 6, "a downgrade");
    host.file("media/SAP_HANA_DATABASE/server/manifest", "fullversion: new\n");
    assert_eq!(run(&host, &UPDATE).code(), 5, "media that is not understood");
    host.file("media/SAP_HANA_DATABASE/server/manifest", NEW);
    assert_eq!(run(&host, &more(&UPDATE, &["--require-backup", "30m"])).code(), 6, "an old backup");
    host.file("proc/815/cmdline", "pacemakerd\0");
    host.file("proc/815/comm", "pacemakerd\n");
    assert_eq!((run(&host, &UPDATE).code(), began(&host)), (6, 0));
    assert_eq!((run(&host, &more(&UPDATE, &["--cluster-in-maintenance"])).code(), began(&host)), (0, 1));
    assert_eq!(run(&with_media(Host::empty(), GOOD), &more(&["--number", "00"], &UPDATE)).code(), 6);
}
