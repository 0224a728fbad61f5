//! The upgrade where clients come by the port of the cluster itself: it is the new cluster's after the switch, and the
//! clients, whose sessions end once, come back at the same port.

use hostler_postgres::crash::CrashPoint;

use crate::kit::Lab;
use crate::load::Load;
use crate::upgrade::{LEFT, bare, good, killed, refused};

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

/// As long as anybody may be held: `--max-hold` and a second, in milliseconds.
const HELD: u64 = 11_000;

/// Lets a step die, then lets clients go by the words of a guard or an operator; nobody may have waited too long.
#[track_caller]
fn dies(lab: &Lab, load: &Load, step: &[&str], spare: u16, point: CrashPoint, cure: &[&str]) {
    load.gap();
    killed(lab, step, spare, point);
    good(lab, cure, spare);
    load.goes_on();
    let gap = load.gap();
    assert!(gap <= HELD, "{step:?} killed at {}: held for {gap} ms", point.name());
}

/// Before the decision, in either direction.
const BEFORE: [CrashPoint; 4] =
    [CrashPoint::FenceWritten, CrashPoint::Drained, CrashPoint::SequencesSet, CrashPoint::SubscriptionOff];

#[test]
fn clients_come_back_at_their_port_whatever_dies_and_no_row_is_lost_or_doubled() {
    let (lab, port, spare) = bare();
    let load = Load::at(&lab, port);
    let version = || lab.sql(port, "shop", "show server_version_num")[..2].to_owned();
    let begin = || {
        good(&lab, &["prepare"], spare);
        good(&lab, &["follow"], spare);
    };
    let end = || {
        assert_eq!(version(), "13");
        good(&lab, &["undo", "prepare"], spare);
        assert_eq!((lab.sql(port, "shop", LEFT).as_str(), lab.conf(15).exists()), ("0", false));
    };
    good(&lab, &["release"], spare);
    begin();
    good(&lab, &["release"], spare);
    refused(&lab, &["done", "switch"], spare, 1, "not done");
    for point in BEFORE.into_iter().chain([CrashPoint::Fenced, CrashPoint::WayBackKept]) {
        let cure: &[&str] = if point == CrashPoint::Drained { &["undo", "switch"] } else { &["release"] };
        dies(&lab, &load, &["switch"], spare, point, cure);
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
        dies(&lab, &load, &["switch-back"], spare, point, &["release"]);
        assert_eq!(version(), "15", "{}", point.name());
    }
    load.gap();
    good(&lab, &["undo", "switch"], spare);
    load.goes_on();
    let back = load.gap();
    end();
    // The host boots just after the decision: both servers are to have the clients' port, and the wrong one is first.
    begin();
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
    dies(&lab, &load, &["switch-back"], spare, CrashPoint::Turned, &["release"]);
    end();
    begin();
    dies(&lab, &load, &["switch"], spare, CrashPoint::Stopped, &["release"]);
    assert_eq!(version(), "15");
    dies(&lab, &load, &["undo", "switch"], spare, CrashPoint::Restarted, &["undo", "switch"]);
    end();
    // And for good.
    begin();
    dies(&lab, &load, &["switch"], spare, CrashPoint::Opened, &["switch"]);
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
    assert_eq!(std::fs::read_dir(lab.path("state")).expect("the state").count(), 1, "the lock");
    let (rows, errors) = load.prove(&lab, port);
    only_ends_of_sessions(&errors);
    println!("{rows} rows, {} errors, longest gap there {there} ms, back {back} ms", errors.len());
}
