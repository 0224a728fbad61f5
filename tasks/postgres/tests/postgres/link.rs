//! The upgrade in place: whatever dies before its decision leaves the old cluster, and after it there is only the new one.

use std::fs;

use hostler_postgres::crash::CrashPoint;

use crate::kit::{Lab, output};
use crate::load::Load;
use crate::upgrade::bare;

fn step(lab: &Lab, words: &[&str], point: Option<CrashPoint>) -> (i32, String) {
    let all: Vec<_> =
        ["link"].iter().chain(words).chain(&["--cluster", lab.name(), "--to", "15"]).copied().collect();
    let mut program = lab.program(&all);
    if let Some(point) = point {
        let wish = lab.path("wish");
        fs::write(&wish, point.name()).expect("a wish");
        program.env("HOSTLER_CRASH_FILE", &wish);
    }
    let (status, _, said) = output(&mut program);
    (status, said)
}

#[track_caller]
fn ends(lab: &Lab, words: &[&str], status: i32, why: &str) {
    let (ended, said) = step(lab, words, None);
    assert!(ended == status && said.contains(why), "{words:?} {why}: {ended} {said}");
}

#[track_caller]
fn killed(lab: &Lab, words: &[&str], point: CrashPoint) {
    let (ended, said) = step(lab, words, Some(point));
    assert_eq!(ended, -1, "{}: {said}", point.name());
}

#[test]
fn files_are_linked_and_whatever_dies_one_side_serves_with_every_row() {
    let (lab, port, _) = bare();
    let load = Load::at(&lab, port);
    let version = || lab.sql(port, "shop", "show server_version_num")[..2].to_owned();
    let gone = || !lab.conf(15).exists() && !lab.data("15").exists();
    ends(&lab, &["run"], 6, "`link prepare` comes first");
    ends(&lab, &["done", "prepare"], 1, "not done");
    ends(&lab, &["done", "finish"], 1, "not done");
    ends(&lab, &["statistics"], 1, "not done");
    ends(&lab, &["undo"], 0, "");
    lab.sql(port, "postgres", "select pg_create_physical_replication_slot('kept')");
    ends(&lab, &["prepare"], 6, "replication slots");
    lab.sql(port, "postgres", "select pg_drop_replication_slot('kept')");
    // A tablespace has a folder for each version; one that is somebody else's is not touched.
    let space = lab.path("space");
    let folders = || {
        let names = fs::read_dir(&space).expect("the space").flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy()[..5].to_owned()).collect();
        names.sort();
        names
    };
    fs::create_dir(&space).expect("a folder");
    crate::kit::own(&space);
    lab.sql(port, "shop", &format!("create tablespace far location '{}'", space.display()));
    lab.sql(
        port,
        "shop",
        "create table far (i int primary key) tablespace far; insert into far values (1), (2)",
    );
    fs::create_dir(space.join("PG_15_202209061")).expect("a folder");
    ends(&lab, &["prepare"], 6, "PG_15_202209061 exists");
    fs::remove_dir(space.join("PG_15_202209061")).expect("the folder");
    // What only pg_upgrade finds is found while clients work.
    lab.sql(port, "shop", "create table handlers (id int primary key, f regproc)");
    ends(&lab, &["prepare"], 8, "reg* data types");
    ends(&lab, &["undo"], 0, "is removed");
    lab.sql(port, "shop", "drop table handlers");
    for point in [CrashPoint::LinkIntended, CrashPoint::LinkPrepared] {
        killed(&lab, &["prepare"], point);
        ends(&lab, &["done", "prepare"], 1, "not done");
        ends(&lab, &["prepare"], 6, "an upgrade was begun");
        ends(&lab, &["undo"], 0, "");
        assert!(gone(), "{}", point.name());
    }
    assert_eq!(load.gap() / 2000, 0, "nobody was held");
    ends(&lab, &["prepare"], 0, "can be upgraded");
    ends(&lab, &["done", "prepare"], 0, "");
    killed(&lab, &["run"], CrashPoint::LinkStopped);
    ends(&lab, &["release"], 0, "clients are served");
    load.goes_on();
    ends(&lab, &["done", "run"], 1, "not done");
    killed(&lab, &["run"], CrashPoint::Linked);
    ends(&lab, &["undo"], 0, "is removed");
    load.goes_on();
    assert_eq!((version().as_str(), gone()), ("13", true));
    assert_eq!(folders(), ["PG_13"]);
    ends(&lab, &["prepare"], 0, "can be upgraded");
    killed(&lab, &["run"], CrashPoint::LinkDecided);
    ends(&lab, &["undo"], 6, "there is no way back");
    ends(&lab, &["release"], 0, "clients are served");
    load.goes_on();
    assert_eq!(version(), "15");
    // Whoever brings clients there also has the host start it.
    let starts = |version| {
        fs::read_to_string(lab.conf(version).join("start.conf")).expect("start.conf").trim().to_owned()
    };
    assert_eq!((starts(13).as_str(), starts(15).as_str()), ("manual", "auto"));
    ends(&lab, &["release"], 0, "clients are served");
    ends(&lab, &["run"], 0, "clients are at");
    ends(&lab, &["done", "run"], 0, "");
    ends(&lab, &["statistics"], 0, "has statistics");
    assert_eq!(lab.sql(port, "shop", "select n from totals"), "20000");
    let statistics = "select count(*) > 0 from pg_stats where tablename = 'goods'";
    assert_eq!(lab.sql(port, "shop", statistics), "t");
    ends(&lab, &["done", "finish"], 1, "not done");
    let (_, said) = step(&lab, &["finish"], Some(CrashPoint::LinkOldDropped));
    assert!(!lab.conf(13).exists() && !lab.data("13").exists(), "{said}");
    assert_eq!(
        (folders(), lab.sql(port, "shop", "select sum(i) from far")),
        (vec!["PG_15".to_owned()], "3".to_owned())
    );
    ends(&lab, &["finish"], 0, "the old cluster is dropped");
    ends(&lab, &["finish"], 0, "");
    ends(&lab, &["done", "finish"], 0, "");
    load.goes_on();
    let (rows, _) = load.prove(&lab, port);
    println!("{rows} rows");
}

#[test]
fn an_upgrade_in_place_is_measured() {
    let (lab, port, _) = bare();
    let load = Load::at(&lab, port);
    ends(&lab, &["prepare"], 0, "can be upgraded");
    load.gap();
    let report = lab.path("report");
    fs::write(&report, "").expect("a report");
    let all = ["link", "run", "--cluster", lab.name(), "--to", "15"];
    assert_eq!(output(lab.program(&all).env("HOSTLER_REPORT", &report)).0, 0);
    load.goes_on();
    let held = load.gap();
    let report = fs::read_to_string(&report).expect("the report");
    let service = format!("\"service\":\"postgres:{}\"", lab.name());
    assert!(report.contains("\"downtime\":{") && report.contains(&service), "{report}");
    let (rows, _) = load.prove(&lab, port);
    println!("{rows} rows, held for {held} ms");
}
