//! The upgrade where clients come by the port of the cluster itself: it is the new cluster's after the switch, and the
//! clients, whose sessions end once, come back at the same port.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::eventually;

use crate::kit::{Lab, SOON, as_postgres};
use crate::load::Load;
use crate::upgrade::{HELD, LEFT, bare, goes_on, good, killed, refused};

/// What a client may see when its session ends or it comes a moment too early.
fn only_ends_of_sessions(errors: &[String]) {
    let known = |error: &&String| {
        ["terminating connection", "connection closed", "shutting down", "starting up", "pg_hba.conf rejects"]
            .iter()
            .any(|known| error.contains(known))
    };
    let other: Vec<_> = errors.iter().filter(|error| !known(error)).collect();
    assert!(other.is_empty(), "{other:?}");
}

/// A cluster under load, and the port of the one that it is upgraded to.
struct Stage<'a> {
    lab: &'a Lab,
    load: &'a Load,
    spare: u16,
}

impl Stage<'_> {
    /// The major version that clients see.
    fn version(&self, port: u16) -> String {
        self.lab.sql(port, "shop", "show server_version_num")[..2].to_owned()
    }

    fn begin(&self) {
        good(self.lab, &["prepare"], self.spare);
        good(self.lab, &["follow"], self.spare);
    }

    /// Clients are at the old cluster, and nothing of the new one is left.
    #[track_caller]
    fn end(&self, port: u16) {
        assert_eq!(self.version(port), "13");
        good(self.lab, &["undo", "prepare"], self.spare);
        assert_eq!((self.lab.sql(port, "shop", LEFT).as_str(), self.lab.conf(15).exists()), ("0", false));
    }

    /// Lets a step die, then lets clients go by the words of a guard or an operator; nobody may have waited too long.
    #[track_caller]
    fn dies(&self, step: &[&str], point: CrashPoint, cure: &[&str]) {
        self.load.gap();
        killed(self.lab, step, self.spare, point);
        good(self.lab, cure, self.spare);
        goes_on(self.load);
    }
}

/// Before the decision, in either direction.
const BEFORE: [CrashPoint; 4] =
    [CrashPoint::FenceWritten, CrashPoint::Drained, CrashPoint::SequencesSet, CrashPoint::SubscriptionOff];

#[test]
fn clients_come_back_at_their_port_whatever_dies_and_no_row_is_lost_or_doubled() {
    let (lab, port, spare) = bare();
    let load = Load::at(&lab, port);
    let stage = Stage { lab: &lab, load: &load, spare };
    let version = || stage.version(port);
    good(&lab, &["release"], spare);
    stage.begin();
    good(&lab, &["release"], spare);
    refused(&lab, &["done", "switch"], spare, 1, "not done");
    for point in BEFORE.into_iter().chain([CrashPoint::Fenced, CrashPoint::WayBackKept]) {
        let cure: &[&str] = if point == CrashPoint::Drained { &["undo", "switch"] } else { &["release"] };
        stage.dies(&["switch"], point, cure);
        assert_eq!(version(), "13", "{}", point.name());
    }
    load.gap();
    good(&lab, &["switch"], spare);
    load.goes_on();
    let there = load.gap();
    assert_eq!(version(), "15");
    assert_eq!(lab.sql(spare, "shop", "show server_version_num")[..2].to_owned(), "13");
    good(&lab, &["done", "switch"], spare);
    good(&lab, &["switch"], spare);
    refused(&lab, &["undo", "prepare"], spare, 6, "clients belong to");
    // The old one is shut.
    let app = lab.psql_as("app", spare, "shop", "select 1");
    assert!(String::from_utf8_lossy(&app.stderr).contains("pg_hba.conf rejects"));
    good(&lab, &["follow-back"], spare);
    good(&lab, &["done", "follow-back"], spare);
    let said = good(&lab, &["verify"], spare);
    assert!(said.contains("are the same on both"), "{said}");
    for point in BEFORE.into_iter().chain([CrashPoint::PortMeant]) {
        stage.dies(&["switch-back"], point, &["release"]);
        assert_eq!(version(), "15", "{}", point.name());
    }
    load.gap();
    good(&lab, &["undo", "switch"], spare);
    load.goes_on();
    let back = load.gap();
    stage.end(port);
    let (rows, errors) = load.prove(&lab, port);
    only_ends_of_sessions(&errors);
    println!("{rows} rows, {} errors, longest gap there {there} ms, back {back} ms", errors.len());
}

#[test]
fn a_boot_or_a_death_in_the_exchange_leaves_one_side_with_every_row() {
    let (lab, port, spare) = bare();
    let load = Load::at(&lab, port);
    let stage = Stage { lab: &lab, load: &load, spare };
    let version = || stage.version(port);
    // The host boots just after the decision: both servers are to have the clients' port, and the wrong one is first.
    stage.begin();
    killed(&lab, &["switch"], spare, CrashPoint::Turned);
    for version in ["13", "15"] {
        lab.run("pg_ctlcluster", &["-m", "immediate", version, lab.name(), "stop"]);
    }
    lab.run("pg_ctlcluster", &["13", lab.name(), "start"]);
    refused(&lab, &["done", "switch"], spare, 1, "not done");
    good(&lab, &["release"], spare);
    load.goes_on();
    assert_eq!(version(), "15");
    good(&lab, &["done", "switch"], spare);
    good(&lab, &["follow-back"], spare);
    stage.dies(&["switch-back"], CrashPoint::Turned, &["release"]);
    stage.end(port);
    stage.begin();
    stage.dies(&["switch"], CrashPoint::Stopped, &["release"]);
    assert_eq!(version(), "15");
    stage.dies(&["undo", "switch"], CrashPoint::Restarted, &["undo", "switch"]);
    stage.end(port);
    // And for good.
    stage.begin();
    stage.dies(&["switch"], CrashPoint::Opened, &["switch"]);
    good(&lab, &["follow-back"], spare);
    refused(&lab, &["done", "finish"], spare, 1, "still there");
    good(&lab, &["finish", "--check"], spare);
    for point in [CrashPoint::WayBackEnded, CrashPoint::Finishing, CrashPoint::OldDropped] {
        killed(&lab, &["finish"], spare, point);
        refused(&lab, &["done", "finish"], spare, 1, "still there");
    }
    for words in [&["finish", "--check"][..], &["finish"], &["done", "finish"], &["finish"]] {
        good(&lab, words, spare);
    }
    load.goes_on();
    assert!(!lab.conf(13).exists() && !lab.data("13").exists());
    assert_eq!((version().as_str(), lab.sql(port, "shop", LEFT).as_str()), ("15", "0"));
    assert_eq!(fs::read_dir(lab.path("state")).expect("the state").count(), 1, "the lock");
    let (rows, errors) = load.prove(&lab, port);
    only_ends_of_sessions(&errors);
    println!("{rows} rows, {} errors", errors.len());
}

#[test]
fn a_window_that_comes_to_nothing_lets_clients_go_where_they_were() {
    let (lab, port, spare) = bare();
    let load = Load::at(&lab, port);
    let version = || lab.sql(port, "shop", "show server_version_num")[..2].to_owned();
    good(&lab, &["prepare"], spare);
    good(&lab, &["follow"], spare);
    // A process that hangs while it holds clients is ended by whoever lets them go.
    let wish = lab.path("crash");
    fs::write(&wish, format!("{} hang", CrashPoint::Drained.name())).expect("the wish");
    let words = lab.plan(&["switch"], spare);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut hanging = lab.program(&words);
    let mut hanging =
        hanging.env("HOSTLER_CRASH_FILE", &wish).stderr(Stdio::null()).spawn().expect("the program");
    eventually(SOON, || if wish.exists() { Err("it does not come so far".to_owned()) } else { Ok(()) });
    refused(&lab, &["switch"], spare, 6, "works at ");
    refused(&lab, &["undo", "prepare"], spare, 6, "works at ");
    good(&lab, &["release"], spare);
    load.goes_on();
    assert_eq!(hanging.wait().expect("the program").signal(), Some(9));
    assert_eq!(version(), "13");
    // What takes too long is given up: here the new cluster cannot apply what was written.
    let mut blocking = as_postgres("/usr/lib/postgresql/15/bin/psql");
    blocking.arg("-h").arg(lab.path("run")).args(["-p", &spare.to_string(), "-XqAt", "-d", "shop"]);
    blocking.args(["-c", "begin; lock table counters in exclusive mode; select pg_sleep(600)"]);
    let mut blocking = blocking.stderr(Stdio::null()).spawn().expect("psql");
    eventually(SOON, || {
        let held =
            "select count(*) from pg_locks where mode = 'ExclusiveLock' and relation = 'counters'::regclass";
        if lab.sql(spare, "shop", held) == "1" { Ok(()) } else { Err("no lock".to_owned()) }
    });
    load.gap();
    let words = lab.plan(&["switch", "--max-hold", "5"], spare);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut giving_up = lab.program(&words).stderr(Stdio::null()).spawn().expect("the program");
    let hba = lab.conf(13).join("pg_hba.conf");
    eventually(SOON, || {
        let rules = fs::read_to_string(&hba).expect("the rules");
        if rules.starts_with("# Fenced") { Ok(()) } else { Err("no fence".to_owned()) }
    });
    // Who is told to end lets clients go first.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(giving_up.id()).expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the program");
    assert_eq!(giving_up.wait().expect("the program").code(), Some(6), "it is given up, and not broken off");
    load.goes_on();
    let gap = load.gap();
    assert!(gap <= 6000, "held for {gap} ms");
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where query ~ '^begin; lock'";
    lab.sql(spare, "shop", end);
    blocking.wait().expect("psql");
    assert_eq!(version(), "13");
    // A new server that does not start any more, after the decision.
    let bad = lab.conf(15).join("conf.d/99-too-much.conf");
    fs::write(&bad, "shared_buffers = '900GB'\n").expect("the setting");
    good(&lab, &["undo", "switch"], spare);
    load.gap();
    refused(&lab, &["switch"], spare, 8, "does not start");
    load.goes_on();
    let gap = load.gap();
    assert!(gap <= HELD, "held for {gap} ms");
    assert_eq!(version(), "13");
    good(&lab, &["undo", "switch"], spare);
    refused(&lab, &["switch"], spare, 8, "does not start");
    // Nothing was lost by all that.
    fs::remove_file(&bad).expect("the setting");
    good(&lab, &["switch"], spare);
    load.goes_on();
    assert_eq!(version(), "15");
    good(&lab, &["follow-back"], spare);
    good(&lab, &["verify"], spare);
    let (_, errors) = load.prove(&lab, port);
    only_ends_of_sessions(&errors);
}
