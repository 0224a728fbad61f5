//! `restart`: only with a reason, and only where the start is known to succeed.

use std::fs;

use hostler_postgres::crash::CrashPoint;

use crate::kit::output;
use crate::store::Store;

#[test]
fn a_restart_is_measured_and_refused_where_the_server_would_not_come_back() {
    for version in [13, 15] {
        let store = Store::new();
        let lab = &store.lab;
        let port = store.cluster(version, "");
        let begun = || lab.sql(port, "postgres", "select pg_postmaster_start_time()");
        let restart = |words: &[&str], status: i32, why: &str| {
            let all: Vec<_> = ["restart", "--cluster", lab.name()].iter().chain(words).copied().collect();
            let (ended, _, said) = output(&mut lab.program(&all));
            assert!(ended == status && said.contains(why), "{words:?} {why}: {ended} {said}");
        };
        let first = begun();
        restart(&[], 0, "nothing waits");
        lab.sql(port, "postgres", "alter system set max_connections = 50; select pg_reload_conf()");
        hostler_testkit::eventually(crate::kit::SOON, || {
            let waits = lab.sql(
                port,
                "postgres",
                "select pending_restart from pg_settings where name = 'max_connections'",
            );
            (waits == "t").then_some(()).ok_or(waits)
        });
        restart(&[], 6, "would also change max_connections");
        // What would only be found when the old server is gone.
        for (file, text, why) in [
            ("postgresql.conf", "\nwork_mem = many\n", "work_mem"),
            ("postgresql.conf", "\nno_such = 1\n", "no_such"),
            ("pg_hba.conf", "\nnonsense\n", "pg_hba.conf"),
        ] {
            let path = lab.conf(version).join(file);
            let good = fs::read_to_string(&path).expect("the file");
            fs::write(&path, format!("{good}{text}")).expect("the file");
            let why = if file == "pg_hba.conf" { "line " } else { why };
            restart(&["--settings", "--always"], 6, why);
            fs::write(&path, good).expect("the file");
        }
        assert_eq!(begun(), first, "it still runs");
        restart(&["--settings"], 0, "did not answer for");
        assert_ne!(begun(), first);
        assert_eq!(lab.sql(port, "postgres", "show max_connections"), "50");
        let second = begun();
        let report = lab.path("report");
        fs::write(&report, "").expect("a report");
        let mut reporting = lab.program(&["restart", "--cluster", lab.name(), "--always"]);
        assert_eq!(output(reporting.env("HOSTLER_REPORT", &report)).0, 0);
        assert_ne!(begun(), second);
        let report = fs::read_to_string(&report).expect("the report");
        let service = format!("\"service\":\"postgres:{}\"", lab.name());
        assert!(report.contains("\"downtime\":{") && report.contains(&service), "{report}");
        // One that somebody has stopped is left alone; one that a dead restart has stopped is not.
        let by_hand = |action: &str| lab.run("pg_ctlcluster", &[&version.to_string(), lab.name(), action]);
        by_hand("stop");
        restart(&["--always"], 4, "no login");
        by_hand("start");
        let wish = lab.path("wish");
        fs::write(&wish, CrashPoint::RestartIntended.name()).expect("a wish");
        let mut killed = lab.program(&["restart", "--cluster", lab.name(), "--always"]);
        assert_eq!(output(killed.env("HOSTLER_CRASH_FILE", &wish)).0, -1);
        by_hand("stop");
        restart(&[], 0, "nothing waits");
        assert_eq!(lab.sql(port, "postgres", "show max_connections"), "50");
        by_hand("stop");
        restart(&[], 4, "no login");
    }
}
