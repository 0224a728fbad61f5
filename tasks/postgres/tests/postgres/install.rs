//! `install`: a cluster as it was asked for, and nothing where that cannot be.

use std::fs;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::free_ports;

use crate::kit::{Lab, output};

fn install(lab: &Lab, name: &str, port: u16, words: &[&str]) -> (i32, String) {
    let (port, run) = (port.to_string(), lab.path("run").display().to_string());
    let all = ["install", "run", "--cluster", name, "--port", &port, "--socket", &run];
    let all: Vec<_> = all.iter().chain(words).copied().collect();
    let (status, _, said) = output(&mut lab.program(&all));
    (status, said)
}

#[test]
fn a_cluster_is_as_it_was_asked_for_and_what_exists_is_not_touched() {
    let lab = Lab::new();
    let [port, other] = free_ports();
    let name = lab.name();
    let words = [
        "--version",
        "15",
        "--segment",
        "1",
        "--set",
        "max_connections=33",
        "--set",
        "log_line_prefix=it's %m",
    ];
    // Killed, it is not gone on with, and taken back.
    for point in [CrashPoint::InstallIntended, CrashPoint::Installed] {
        let wish = lab.path("wish");
        fs::write(&wish, point.name()).expect("a wish");
        let (text, run) = (port.to_string(), lab.path("run").display().to_string());
        let all = ["install", "run", "--cluster", name, "--port", &text, "--socket", &run];
        let all: Vec<_> = all.iter().chain(&words).copied().collect();
        assert_eq!(output(lab.program(&all).env("HOSTLER_CRASH_FILE", &wish)).0, -1, "{}", point.name());
        assert_eq!(output(&mut lab.program(&["install", "done", "--cluster", name])).0, 1);
        if point == CrashPoint::Installed {
            let (status, said) = install(&lab, name, port, &words);
            assert!(status == 6 && said.contains("install undo"), "{status} {said}");
        }
        assert_eq!(output(&mut lab.program(&["install", "undo", "--cluster", name])).0, 0);
        assert!(!lab.conf(15).exists() && !lab.path("data/15").join(name).exists());
    }
    // What the server does not take is found before, and what only a start shows is taken back.
    for (setting, status, why) in [
        ("max_connections=many", 6, "max_connections"),
        ("no_such_setting=1", 6, "no_such_setting"),
        ("port=1", 2, "decided by"),
        ("shared_buffers=900GB", 8, "does not start"),
    ] {
        let (ended, said) = install(&lab, name, port, &["--version", "15", "--set", setting]);
        assert!(ended == status && said.contains(why), "{setting}: {ended} {said}");
        assert_eq!(output(&mut lab.program(&["install", "undo", "--cluster", name])).0, 0);
        assert!(!lab.conf(15).exists());
    }
    assert_eq!(install(&lab, name, port, &["--version", "97"]).0, 6);
    assert_eq!(install(&lab, "a-b", port, &["--version", "15"]).0, 2);
    let (status, said) = install(&lab, name, port, &words);
    assert_eq!(status, 0, "{said}");
    let show = |setting: &str| lab.sql(port, "postgres", &format!("show {setting}"));
    assert_eq!(
        [show("max_connections"), show("log_line_prefix"), show("data_checksums"), show("wal_segment_size")],
        ["33", "it's %m", "on", "1MB"]
    );
    assert_eq!(fs::read_to_string(lab.conf(15).join("start.conf")).expect("the file").trim(), "auto");
    assert_eq!(output(&mut lab.program(&["install", "done", "--cluster", name])).0, 0);
    lab.sql(port, "postgres", "create table t as select 1 as i");
    // Neither a second order nor a hand removes it.
    for (more, status) in [(Some("another"), 0), (None, 6)] {
        let mut undo = lab.program(&["install", "undo", "--cluster", name]);
        if let Some(run) = more {
            undo.env("HOSTLER_RUN", run);
        }
        assert_eq!(output(&mut undo).0, status);
    }
    assert_eq!(install(&lab, name, other, &words).0, 6);
    let (status, said) = install(&lab, name, port, &["--version", "13"]);
    assert!(status == 6, "{status} {said}");
    assert_eq!(lab.sql(port, "postgres", "select i from t"), "1");
}
