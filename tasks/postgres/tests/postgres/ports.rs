//! The upgrade where clients come by the port of the cluster itself: it is the new cluster's after the switch, and the
//! clients, whose sessions end once, come back at the same port.

use hostler_postgres::crash::CrashPoint;

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

#[test]
fn clients_come_back_at_their_port_there_and_back_and_there_again() {
    let (lab, port, spare) = bare();
    let load = Load::at(&lab, port);
    let version = || lab.sql(port, "shop", "show server_version_num")[..2].to_owned();
    for step in ["prepare", "follow"] {
        good(&lab, &[step], spare);
    }
    good(&lab, &["release"], spare);
    refused(&lab, &["done", "switch"], spare, 1, "not done");
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
    load.goes_on();
    load.gap();
    good(&lab, &["undo", "switch"], spare);
    load.goes_on();
    let back = load.gap();
    assert_eq!(version(), "13");
    good(&lab, &["undo", "prepare"], spare);
    assert_eq!(lab.sql(port, "shop", LEFT), "0");
    assert!(!lab.conf(15).exists());
    for step in ["prepare", "follow", "switch", "follow-back", "verify"] {
        good(&lab, &[step], spare);
    }
    load.goes_on();
    refused(&lab, &["done", "finish"], spare, 1, "still there");
    for point in [CrashPoint::WayBackEnded, CrashPoint::Finishing, CrashPoint::OldDropped] {
        killed(&lab, &["finish"], spare, point);
        refused(&lab, &["done", "finish"], spare, 1, "still there");
    }
    good(&lab, &["finish"], spare);
    good(&lab, &["done", "finish"], spare);
    good(&lab, &["finish"], spare);
    load.goes_on();
    assert!(!lab.conf(13).exists() && !lab.data("13").exists());
    assert_eq!((version().as_str(), lab.sql(port, "shop", LEFT).as_str()), ("15", "0"));
    assert_eq!(std::fs::read_dir(lab.path("state")).expect("the state").count(), 1, "the lock");
    let (rows, errors) = load.prove(&lab, port);
    only_ends_of_sessions(&errors);
    println!("{rows} rows, {} errors, longest gap there {there} ms, back {back} ms", errors.len());
    // Twelve sessions ended: four clients, three switches; and some logins that came too early.
    assert!(errors.len() <= 24, "{errors:?}");
}
