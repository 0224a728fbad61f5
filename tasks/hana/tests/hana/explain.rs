//! Every command line that the program can produce, with its source: a snapshot for a reviewer who has a HANA.

use hostler_hana::explain::{Task, calls, text};
use hostler_hana::system::System;

use crate::host::Host;

fn system() -> System {
    System {
        sid: "HDB".parse().unwrap(),
        number: "07".parse().unwrap(),
        root: "/".into(),
        sapmnt: "/hana/shared".into(),
    }
}

#[test]
fn every_command_line() {
    let key = "HOSTLER".parse().unwrap();
    let since = "2026-11-21T00:00:00Z".parse().unwrap();
    let of = |task| text(&system(), &calls(task, &system(), &key, "east1", since));
    insta::assert_snapshot!("check", of(Task::Check));
    insta::assert_snapshot!("fact", of(Task::Fact));
    insta::assert_snapshot!("install", of(Task::Install));
    insta::assert_snapshot!("update", of(Task::Update));
    insta::assert_snapshot!("backup", of(Task::Backup));
    insta::assert_snapshot!("backup_setup", of(Task::BackupSetup));
    insta::assert_snapshot!("restore", of(Task::Restore));
    insta::assert_snapshot!("drill", of(Task::Drill));
    insta::assert_snapshot!("housekeeping", of(Task::Housekeeping));
    insta::assert_snapshot!("replication", of(Task::Replication));
    insta::assert_snapshot!("rotate", of(Task::Rotate));
}

#[test]
fn it_explains_on_a_host_without_hana() {
    let host = Host::empty();
    let answer = host.run(&["explain", "check", "--sid", "QA1"]);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert!(answer.out().contains("/usr/sap/QA1/HDB00/exe/sapcontrol -nr 00 -function GetProcessList"));
    assert!(answer.out().contains("(as qa1adm, at most 30 s)"));
    assert_eq!(host.calls(), "", "nothing is started");
    assert_eq!(host.run(&["explain", "check", "--sid", "SAP"]).code(), 2);
    let mut bare = std::process::Command::new(env!("CARGO_BIN_EXE_hostler-hana"));
    assert_eq!(
        bare.args(["explain", "check"]).output().unwrap().status.code(),
        Some(3),
        "no system is guessed"
    );
}
