//! A primary and its standby change their places, there and back, while clients write; and the death of either part at each
//! of its points.

use std::fs;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::free_ports;

use crate::fact::standby;
use crate::kit::{Lab, output};
use crate::load::{Load, TABLES};

/// A server of the pair, and how the other one reaches it.
pub(crate) struct Side {
    pub(crate) lab: Lab,
    pub(crate) port: u16,
}

impl Side {
    /// A part of a switchover: its exit status, and what it says.
    fn part(&self, words: &[&str]) -> (i32, String) {
        let all: Vec<_> =
            ["switchover"].iter().chain(words).chain(&["--cluster", self.lab.name()]).copied().collect();
        let (status, _, said) = output(&mut self.lab.program(&all));
        (status, said)
    }

    #[track_caller]
    fn good(&self, words: &[&str]) -> String {
        let (status, said) = self.part(words);
        assert_eq!(status, 0, "{words:?}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, words: &[&str], status: i32, why: &str) {
        let (ended, said) = self.part(words);
        assert!(ended == status && said.contains(why), "{words:?} {why}: {ended} {said}");
    }

    #[track_caller]
    fn killed(&self, words: &[&str], point: CrashPoint) {
        let wish = self.lab.path("wish");
        fs::write(&wish, point.name()).expect("a wish");
        let all: Vec<_> =
            ["switchover"].iter().chain(words).chain(&["--cluster", self.lab.name()]).copied().collect();
        let (status, _, said) = output(self.lab.program(&all).env("HOSTLER_CRASH_FILE", &wish));
        assert_eq!(status, -1, "{}: {said}", point.name());
    }

    pub(crate) fn sql(&self, statement: &str) -> String {
        self.lab.sql(self.port, "postgres", statement)
    }

    /// The words of a hand-over to this server.
    fn named(&self) -> Vec<String> {
        let (run, port) = (self.lab.path("run").display().to_string(), self.port.to_string());
        ["hand-over", "--peer", &run, "--peer-port", &port].map(str::to_owned).into()
    }
}

/// Where a hand-over says that the other server goes on.
fn place(said: &str) -> String {
    let (_, rest) = said.split_once("--place ").unwrap_or_else(|| panic!("{said}"));
    rest.split('`').next().unwrap_or_default().to_owned()
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// A primary and a standby that streams from it.
pub(crate) fn pair() -> (Side, Side) {
    let lab = Lab::new();
    // A standby comes back within a tenth of a second.
    let port = lab.cluster(15, "wal_retrieve_retry_interval = 100\n");
    let hba = "local all postgres peer\nlocal replication postgres peer\nlocal all all trust\n";
    fs::write(lab.conf(15).join("pg_hba.conf"), hba).expect("pg_hba.conf");
    let a = Side { lab, port };
    a.sql("select pg_reload_conf()");
    a.sql("create database shop");
    a.lab.sql(port, "shop", TABLES);
    a.sql("select pg_create_physical_replication_slot('for_b', true)");
    let (lab, port) =
        standby(&a.lab, a.port, "primary_slot_name = 'for_b'\nwal_retrieve_retry_interval = 100\n");
    let b = Side { lab, port };
    hostler_testkit::eventually(crate::kit::SOON, || {
        let streams = a.sql("select count(*) from pg_stat_replication where state = 'streaming'");
        (streams == "1").then_some(()).ok_or(streams)
    });
    (a, b)
}

#[test]
fn a_primary_and_its_standby_change_places_whatever_dies_and_no_row_is_lost_or_doubled() {
    let (a, b) = pair();
    let load = Load::between(&[(&a.lab, a.port), (&b.lab, b.port)]);
    let (to_a, to_b) = (a.named(), b.named());
    let (to_a, to_b) = (words(&to_a), words(&to_b));

    // What cannot be is refused before anything is changed.
    let begun = a.sql("select pg_postmaster_start_time()");
    let [free] = free_ports();
    let (free, run) = (free.to_string(), b.lab.path("run").display().to_string());
    a.refused(&["hand-over", "--peer", &run, "--peer-port", &free], 4, "does not answer");
    a.refused(&["hand-over", "--peer", "a b"], 2, "a name, an address, or a folder");
    a.refused(&to_a, 6, "it accepts writes");
    b.refused(&to_a, 6, "give the order on its primary");
    b.refused(&["take-over", "--place", "0/1"], 6, "accepts writes: `hand-over` there comes first");
    b.refused(&["take-over", "--place", "nowhere"], 2, "no place in the WAL");
    a.refused(&["done", "hand-over"], 1, "not done");
    b.refused(&["done", "take-over"], 1, "is a standby");
    b.refused(&["verify"], 1, "is a standby");
    a.sql("select pg_create_physical_replication_slot('other')");
    for (set, reset, why) in [
        (
            "select pg_create_logical_replication_slot('feed', 'pgoutput')",
            "select pg_drop_replication_slot('feed')",
            "logical replication slots",
        ),
        (
            "alter system set recovery_target_timeline = 'current'",
            "alter system set recovery_target_timeline = 'latest'",
            "recovery_target_timeline",
        ),
    ] {
        a.sql(set);
        a.sql("select pg_reload_conf()");
        a.refused(&to_b, 6, why);
        a.sql(reset);
        a.sql("select pg_reload_conf()");
    }
    let stranger = Lab::new();
    stranger.copy_template(15, "archiving", &["--data-checksums", "--wal-segsize=1"]);
    let port = stranger.start_cluster(15, "");
    let stranger = Side { lab: stranger, port };
    let to_stranger = stranger.named();
    a.refused(&words(&to_stranger), 6, "another system identifier");
    drop(stranger);
    let checking: Vec<_> = to_b.iter().copied().chain(["--check"]).collect();
    a.good(&checking);
    a.good(&["undo"]);
    assert_eq!(a.sql("select pg_postmaster_start_time()"), begun, "nothing was changed");

    // Whatever dies in the hand-over, it is the primary again.
    for point in [
        CrashPoint::HandOverIntended,
        CrashPoint::HandOverStopped,
        CrashPoint::HandOverProved,
        CrashPoint::HandOverSignalled,
        CrashPoint::HandOverStarted,
    ] {
        hostler_testkit::eventually(crate::kit::SOON, || {
            let (status, said) = a.part(&checking);
            (status == 0).then_some(()).ok_or(said)
        });
        a.killed(&to_b, point);
        if point == CrashPoint::HandOverSignalled {
            // The other server may be the primary, for all that can be known.
            b.lab.run("pg_ctlcluster", &["15", b.lab.name(), "stop"]);
            a.refused(&["undo"], 3, "stays a standby, since it is not known");
            b.lab.run("pg_ctlcluster", &["15", b.lab.name(), "start"]);
        }
        if point != CrashPoint::HandOverStarted {
            a.refused(&["done", "hand-over"], 1, "not done");
        }
        a.good(&["undo"]);
        load.goes_on();
        assert_eq!(a.sql("select pg_is_in_recovery()"), "f", "{}", point.name());
        hostler_testkit::eventually(crate::kit::SOON, || {
            let conninfo = a.sql("select current_setting('primary_conninfo')");
            conninfo.is_empty().then_some(()).ok_or(conninfo)
        });
        let slots = "select count(*) from pg_replication_slots";
        assert_eq!((a.sql(slots).as_str(), b.sql(slots).as_str()), ("2", "0"), "{}", point.name());
    }
    hostler_testkit::eventually(crate::kit::SOON, || {
        let (status, said) = a.part(&checking);
        (status == 0).then_some(()).ok_or(said)
    });

    // There.
    let said = a.good(&to_b);
    let stopped = place(&said);
    a.good(&["done", "hand-over"]);
    assert_eq!(place(&a.good(&to_b)), stopped, "repeated it says the same");
    assert!(!a.lab.psql(a.port, "shop", "insert into counters values (99, 0)").status.success());
    b.refused(&["take-over", "--place", "0/1"], 6, "has gone on since");
    b.killed(&["take-over", "--place", &stopped], CrashPoint::TakeOverReady);
    b.refused(&["done", "take-over"], 1, "is a standby");
    b.killed(&["take-over", "--place", &stopped], CrashPoint::Promoted);
    b.good(&["take-over", "--place", &stopped]);
    load.goes_on();
    b.good(&["verify"]);
    b.good(&["done", "take-over"]);
    a.refused(&["undo"], 3, "is the primary by now");
    assert_eq!(a.sql("select pg_is_in_recovery()"), "t");
    assert_eq!(
        a.sql("select string_agg(slot_name, ',') from pg_replication_slots"),
        "other",
        "its slot is gone"
    );
    assert_eq!(b.sql("select count(*) from pg_replication_slots where active"), "1");

    // And back.
    load.gap();
    let report = b.lab.path("report");
    fs::write(&report, "").expect("a report");
    let said = b.good(&to_a);
    let stopped = place(&said);
    let all = ["switchover", "take-over", "--cluster", a.lab.name(), "--place", &stopped];
    let (status, _, said) = output(a.lab.program(&all).env("HOSTLER_REPORT", &report));
    assert_eq!(status, 0, "{said}");
    let report = fs::read_to_string(&report).expect("the report");
    let service = format!("\"service\":\"postgres:{}\"", a.lab.name());
    assert!(report.contains("\"downtime\":{") && report.contains(&service), "{report}");
    load.goes_on();
    let back = load.gap();
    a.good(&["verify"]);
    assert_eq!(b.sql("select count(*) from pg_replication_slots"), "0");
    let (rows, errors) = load.prove(&a.lab, a.port);
    println!("{rows} rows, {} errors, longest gap back {back} ms", errors.len());
}
