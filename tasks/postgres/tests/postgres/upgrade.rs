//! The upgrade from 13 to 15 behind a pgbouncer, while clients write: there, back, and there again; and the death of
//! the program at each of its crash points.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;

use hostler_postgres::crash::CrashPoint;
use hostler_testkit::free_ports;

use crate::kit::{Lab, SOON, output};
use crate::load::{Load, TABLES};

/// A host with a 13 that has rows of all kinds, a pgbouncer in front, and two ports: the old one's, the new one's.
pub(crate) fn host() -> (Lab, u16, u16) {
    let (mut lab, old, new) = bare();
    lab.bouncer(&["shop"], old, "transaction");
    (lab, old, new)
}

/// The same without a pgbouncer.
pub(crate) fn bare() -> (Lab, u16, u16) {
    let lab = Lab::new();
    // A worker that lost its connection is back at once, so that no step waits for it; the new cluster has half a second.
    let old = lab.cluster(
        13,
        "max_logical_replication_workers = 8\nvacuum_cleanup_index_scale_factor = 0.1\nwal_retrieve_retry_interval = 200",
    );
    let hba = lab.conf(13).join("pg_hba.conf");
    fs::write(&hba, "local all postgres peer\nlocal all all trust\n").expect("pg_hba.conf");
    lab.sql(old, "postgres", "select pg_reload_conf()");
    lab.sql(old, "postgres", "create database shop; create database \"odd 'name\"");
    lab.sql(old, "shop", TABLES);
    lab.sql(
        old,
        "shop",
        r#"create table goods (id int primary key, price numeric, seen timestamptz, data jsonb, raw bytea, tags text[]);
        insert into goods select i, i / 3.0, now(), jsonb_build_object('a', i), decode(md5(i::text), 'hex'),
            array['x', 'it''s', null] from generate_series(1, 20000) i;
        create materialized view totals as select count(*) as n from goods;
        create sequence never_used; create sequence counted increment 5; select nextval('counted'), nextval('counted');
        create function f() returns int language plpgsql as $$ begin /*
CREATE ROLE postgres;
*/ return 1; end $$"#,
    );
    lab.sql(
        old,
        "odd 'name",
        r#"create schema "S""x"; create table "S""x"."T t" ("C c" int primary key, d text);
        insert into "S""x"."T t" values (1, 'one'), (2, null)"#,
    );
    lab.sql(
        old,
        "postgres",
        "create role reader login password 'secret'; alter role reader set work_mem = '8MB'",
    );
    let [new] = free_ports();
    (lab, old, new)
}

/// A step of the upgrade: its exit status and what it complained of.
fn step(lab: &Lab, words: &[&str], new: u16) -> (i32, String) {
    let words = lab.plan(words, new);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (status, _, said) = output(&mut lab.program(&words));
    (status, said)
}

#[track_caller]
pub(crate) fn good(lab: &Lab, words: &[&str], new: u16) -> String {
    let (status, said) = step(lab, words, new);
    assert_eq!(status, 0, "{words:?}: {said}");
    said
}

#[track_caller]
pub(crate) fn refused(lab: &Lab, words: &[&str], new: u16, status: i32, why: &str) {
    let (is, said) = step(lab, words, new);
    assert_eq!(is, status, "{words:?}: {said}");
    assert!(said.contains(why), "{words:?}: {said}");
}

/// Lets a step die at a point.
#[track_caller]
pub(crate) fn killed(lab: &Lab, words: &[&str], new: u16, point: CrashPoint) {
    let wish = lab.path("crash");
    fs::write(&wish, point.name()).expect("the wish");
    let all = lab.plan(words, new);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = lab.path("said");
    let file = fs::File::create(&said).expect("a file");
    let status =
        lab.program(&all).env("HOSTLER_CRASH_FILE", &wish).stderr(file).status().expect("the program");
    let said = fs::read_to_string(&said).unwrap_or_default();
    assert_eq!(status.signal(), Some(9), "{words:?} passes {}: {said}", point.name());
}

/// Somebody who has begun to log in, past pgbouncer, and takes his time.
struct Latecomer(UnixStream);

impl Latecomer {
    fn begin(lab: &Lab, port: u16) -> Self {
        let stream = UnixStream::connect(lab.path(&format!("run/.s.PGSQL.{port}"))).expect("the server");
        stream.set_read_timeout(Some(SOON)).expect("a deadline");
        // A question that is answered before anything else: now a process of the server has read the old rules.
        (&stream).write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("the server");
        let mut answer = [0];
        (&stream).read_exact(&mut answer).expect("an answer");
        assert!(matches!(&answer, b"N" | b"S"), "{answer:?}");
        Self(stream)
    }

    /// He comes to his end now, and is not let in.
    #[track_caller]
    fn ends_shut_out(mut self) {
        let words = b"\0\x03\0\0user\0app\0database\0shop\0\0";
        let length = u32::try_from(words.len() + 4).expect("a length").to_be_bytes();
        let mut answer = [0];
        let said =
            self.0.write_all(&[&length[..], words].concat()).and_then(|()| self.0.read_exact(&mut answer));
        assert!(said.is_err() || &answer == b"E", "{answer:?}");
    }
}

pub(crate) const LEFT: &str = "select (select count(*) from pg_replication_slots) + (select count(*) from pg_publication) \
    + (select count(*) from pg_subscription)";

#[test]
fn clients_write_while_they_go_there_and_back_and_there_again() {
    let (lab, old, new) = host();
    let load = Load::start(&lab);
    for step in ["follow", "switch", "follow-back", "verify", "finish"] {
        assert_ne!(self::step(&lab, &[step], new).0, 0, "{step} before its time");
    }
    refused(&lab, &["done", "prepare"], new, 1, "not done");
    let said = good(&lab, &["prepare"], new);
    assert!(said.contains("is ready for the rows"), "{said}");
    refused(&lab, &["prepare"], new, 6, "an upgrade was begun");
    good(&lab, &["done", "prepare"], new);
    // Nobody gets in but the program.
    let app = lab.psql_as("app", new, "shop", "select 1");
    assert!(!app.status.success() && String::from_utf8_lossy(&app.stderr).contains("pg_hba.conf rejects"));
    assert_eq!(lab.sql(new, "shop", "select f()"), "1");
    refused(&lab, &["switch"], new, 6, "is not copied");
    refused(&lab, &["done", "follow"], new, 1, "not done");
    good(&lab, &["follow"], new);
    good(&lab, &["done", "follow"], new);
    assert_eq!(lab.sql(new, "shop", "select n from totals"), "20000");
    load.gap();
    // There.
    refused(&lab, &["done", "switch"], new, 1, "not done");
    refused(&lab, &["verify"], new, 6, "clients belong to the old cluster");
    let late = Latecomer::begin(&lab, old);
    good(&lab, &["switch"], new);
    late.ends_shut_out();
    load.goes_on();
    let there = load.gap();
    good(&lab, &["done", "switch"], new);
    refused(&lab, &["undo", "prepare"], new, 6, "clients belong to");
    refused(&lab, &["done", "follow-back"], new, 1, "not done");
    good(&lab, &["follow-back"], new);
    good(&lab, &["done", "follow-back"], new);
    let said = good(&lab, &["verify"], new);
    assert!(said.contains("are the same on both"), "{said}");
    load.goes_on();
    assert_eq!(lab.sql(new, "shop", "select nextval('counted'), nextval('never_used')"), "11|1");
    // A row that differs is found.
    lab.sql(old, "odd 'name", r#"update "S""x"."T t" set d = 'other' where "C c" = 1"#);
    refused(&lab, &["verify"], new, 1, "T t");
    lab.sql(old, "odd 'name", r#"update "S""x"."T t" set d = 'one' where "C c" = 1"#);
    // A change of tables is not replicated, and would be lost.
    lab.sql(new, "shop", "alter table goods add column extra int default 7");
    refused(&lab, &["switch-back"], new, 6, "tables were changed on the new cluster");
    load.goes_on();
    good(&lab, &["done", "switch"], new);
    lab.sql(new, "shop", "alter table goods drop column extra");
    // And back.
    load.gap();
    good(&lab, &["undo", "switch"], new);
    load.goes_on();
    let back = load.gap();
    refused(&lab, &["done", "switch"], new, 1, "not done");
    assert_eq!(lab.sql(old, "shop", "select nextval('counted'), nextval('never_used')"), "16|2");
    good(&lab, &["undo", "prepare"], new);
    assert_eq!(lab.sql(old, "shop", LEFT), "0");
    assert!(!lab.conf(15).exists() && !lab.path("data/15").join(lab.name()).exists());
    // And there again, for good.
    for step in ["prepare", "follow", "switch", "follow-back", "verify"] {
        good(&lab, &[step], new);
    }
    load.goes_on();
    good(&lab, &["finish"], new);
    load.goes_on();
    assert!(!lab.conf(13).exists());
    assert_eq!(lab.sql(new, "shop", LEFT), "0");
    let (rows, errors) = load.prove(&lab, new);
    println!("{rows} rows, errors {errors:?}, longest gap there {there} ms, back {back} ms");
    assert!(errors.is_empty(), "clients were held, and none may see an error: {errors:?}");
    refused(&lab, &["switch"], new, 5, "there is no cluster");
}

#[test]
fn whatever_dies_in_making_the_copy_is_taken_back_or_goes_on() {
    let (lab, old, new) = host();
    for point in [CrashPoint::Intended, CrashPoint::Created, CrashPoint::Started, CrashPoint::SchemaLoaded] {
        killed(&lab, &["prepare"], new, point);
        refused(&lab, &["done", "prepare"], new, 1, "not done");
        refused(&lab, &["prepare"], new, 6, "an upgrade was begun");
        good(&lab, &["undo", "prepare"], new);
        good(&lab, &["undo", "prepare"], new);
        assert!(!lab.conf(15).exists() && !lab.path("data/15").join(lab.name()).exists(), "{}", point.name());
    }
    // Access rules that the new version does not take would lock everybody out after the switch.
    let hba = lab.conf(13).join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).expect("the rules");
    fs::write(&hba, format!("{rules}hostssl all all all cert clientcert=1\n")).expect("the rules");
    refused(&lab, &["prepare"], new, 6, "line 3: not understood");
    good(&lab, &["undo", "prepare"], new);
    fs::write(&hba, rules).expect("the rules");
    good(&lab, &["prepare"], new);
    for point in [CrashPoint::Published, CrashPoint::Subscribed] {
        killed(&lab, &["follow"], new, point);
        refused(&lab, &["done", "follow"], new, 1, "not done");
    }
    // A slot whose subscription was lost would leave rows out.
    lab.sql(new, "shop", "select 1");
    good(&lab, &["follow"], new);
    good(&lab, &["undo", "follow"], new);
    assert_eq!(lab.sql(old, "shop", LEFT), "0");
    good(&lab, &["undo", "follow"], new);
    refused(&lab, &["follow"], new, 6, "rows of an earlier copy");
    assert_eq!(lab.sql(old, "shop", "select count(*) from pg_replication_slots"), "0");
    good(&lab, &["undo", "prepare"], new);
    // What somebody else has made stays.
    lab.cluster(15, "");
    refused(&lab, &["undo", "prepare"], new, 6, "was not made by this upgrade");
    assert!(lab.conf(15).exists());
    refused(&lab, &["prepare"], new, 1, "exists already");
}

/// Of a window: those before its decision, and those after it.
const BEFORE: [CrashPoint; 6] = [
    CrashPoint::Paused,
    CrashPoint::FenceWritten,
    CrashPoint::Fenced,
    CrashPoint::Drained,
    CrashPoint::SequencesSet,
    CrashPoint::SubscriptionOff,
];
/// As long as anybody may be held: `--max-hold` and a second, in milliseconds.
pub(crate) const HELD: u64 = 11_000;

/// Clients go on, and have not waited too long.
#[track_caller]
pub(crate) fn goes_on(load: &Load) {
    load.goes_on();
    let gap = load.gap();
    assert!(gap <= HELD, "held for {gap} ms");
}

const AFTER: [CrashPoint; 2] = [CrashPoint::Turned, CrashPoint::Opened];

#[test]
fn whatever_dies_in_the_switch_no_row_is_lost_or_doubled() {
    let (lab, old, new) = host();
    let load = Load::start(&lab);
    good(&lab, &["prepare"], new);
    good(&lab, &["follow"], new);
    for point in BEFORE.into_iter().chain([CrashPoint::WayBackKept]) {
        killed(&lab, &["switch"], new, point);
        refused(&lab, &["done", "switch"], new, 1, "not done");
        // Clients are let go to where they belong, by the guard, or by the undo; and it is begun again.
        let words: &[&str] = if point == CrashPoint::Drained { &["undo", "switch"] } else { &["release"] };
        good(&lab, words, new);
        goes_on(&load);
    }
    // Both servers lose power while clients are held behind the fence.
    killed(&lab, &["switch"], new, CrashPoint::SubscriptionOff);
    lab.cut(13);
    lab.cut(15);
    good(&lab, &["release"], new);
    load.goes_on();
    load.gap();
    killed(&lab, &["switch"], new, CrashPoint::Turned);
    good(&lab, &["switch"], new);
    goes_on(&load);
    good(&lab, &["done", "switch"], new);
    for point in [CrashPoint::Unsubscribed, CrashPoint::SubscribedBack] {
        killed(&lab, &["follow-back"], new, point);
    }
    good(&lab, &["follow-back"], new);
    good(&lab, &["verify"], new);
    for point in BEFORE {
        killed(&lab, &["switch-back"], new, point);
        good(&lab, &["release"], new);
        goes_on(&load);
        refused(&lab, &["undo", "prepare"], new, 6, "clients belong to");
    }
    for point in AFTER {
        killed(&lab, &["switch-back"], new, point);
        good(&lab, &["switch-back"], new);
        goes_on(&load);
        good(&lab, &["undo", "prepare"], new);
        assert_eq!(lab.sql(old, "shop", LEFT), "0");
        if point == CrashPoint::Turned {
            good(&lab, &["prepare"], new);
            good(&lab, &["follow"], new);
            killed(&lab, &["switch"], new, CrashPoint::Opened);
            // By the undo this time, straight from the other side of the decision.
            good(&lab, &["release"], new);
            goes_on(&load);
        }
    }
    let (rows, errors) = load.prove(&lab, old);
    assert!(errors.is_empty(), "clients were held, and none may see an error: {errors:?}");
    println!("{rows} rows");
}

#[test]
fn a_copy_of_the_files_has_every_row_and_whatever_dies_in_it_leaves_nothing() {
    let (lab, old, new) = host();
    let load = Load::start(&lab);
    let standby = |step: &'static str| [step, "--method", "standby"];
    // What only this way meets is found before.
    refused(&lab, &standby("check"), new, 1, "may not replicate by the socket");
    let hba = lab.conf(13).join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).expect("the rules");
    fs::write(&hba, format!("local replication postgres peer\n{rules}")).expect("the rules");
    lab.sql(old, "postgres", "select pg_reload_conf()");
    lab.sql(old, "shop", "create table handlers (id int primary key, f regproc)");
    refused(&lab, &standby("check"), new, 1, "handlers.f regproc");
    good(&lab, &["check"], new);
    lab.sql(old, "shop", "drop table handlers");
    // The copy of a tablespace is beside it, and its own.
    let (space, beside) = (lab.path("space"), lab.path(&format!("space.15-{}", lab.name())));
    fs::create_dir(&space).expect("a folder");
    crate::kit::own(&space);
    lab.sql(old, "shop", &format!("create tablespace far location '{}'", space.display()));
    lab.sql(
        old,
        "shop",
        "create table far (i int primary key) tablespace far; insert into far values (1), (2)",
    );
    fs::create_dir(&beside).expect("a folder");
    refused(&lab, &standby("check"), new, 1, "copy of a tablespace exists");
    fs::remove_dir(&beside).expect("the folder");
    let data = lab.path("data/15");
    for point in
        [CrashPoint::FilesCopied, CrashPoint::SlotsMade, CrashPoint::CopyRecovered, CrashPoint::CopyBrought]
    {
        killed(&lab, &standby("prepare"), new, point);
        refused(&lab, &["done", "prepare"], new, 1, "not done");
        good(&lab, &["undo", "prepare"], new);
        assert_eq!(lab.sql(old, "shop", LEFT), "0", "{}", point.name());
        let left: Vec<_> =
            fs::read_dir(&data).expect("the folder").flatten().map(|entry| entry.path()).collect();
        assert!(left.iter().all(|path| path.is_file()), "{}: {left:?}", point.name());
        assert!(!beside.exists(), "{}", point.name());
    }
    good(&lab, &standby("prepare"), new);
    good(&lab, &["done", "prepare"], new);
    // It has the rows, and no table is copied again.
    assert_eq!(lab.sql(new, "shop", "select count(*) from goods"), "20000");
    lab.sql(old, "odd 'name", r#"insert into "S""x"."T t" values (3, 'three')"#);
    lab.sql(old, "shop", "insert into far values (4)");
    good(&lab, &["follow"], new);
    good(&lab, &["done", "follow"], new);
    good(&lab, &["switch"], new);
    load.goes_on();
    let far = "select sum(i) || ' ' || pg_tablespace_location(reltablespace) from far, pg_class \
        where relname = 'far' group by reltablespace";
    assert_eq!(lab.sql(new, "shop", far), format!("7 {}", beside.display()));
    assert_eq!(fs::read_dir(&beside).expect("the space").count(), 1, "of the copy nothing is left there");
    assert_eq!(lab.sql(new, "odd 'name", r#"select count(*) from "S""x"."T t""#), "3");
    good(&lab, &["follow-back"], new);
    let said = good(&lab, &["verify"], new);
    assert!(said.contains("are the same on both"), "{said}");
    load.goes_on();
    let (rows, errors) = load.prove(&lab, new);
    assert!(errors.is_empty(), "{errors:?}");
    println!("{rows} rows");
}

#[test]
fn a_pgbouncer_that_is_killed_while_it_holds_clients_leads_them_where_they_belong() {
    let (mut lab, old, new) = host();
    let load = Load::start(&lab);
    good(&lab, &["prepare"], new);
    good(&lab, &["follow"], new);
    for (point, side) in [(CrashPoint::Fenced, old), (CrashPoint::Turned, new)] {
        // The switch waits, with clients held, for as long as it is let.
        let wish = lab.path("crash");
        fs::write(&wish, format!("{} hang", point.name())).expect("the wish");
        let words = lab.plan(&["switch"], new);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut hanging = lab.program(&words);
        let hanging = hanging.env("HOSTLER_CRASH_FILE", &wish).stderr(std::process::Stdio::null()).spawn();
        let mut hanging = hanging.expect("the program");
        hostler_testkit::eventually(SOON, || {
            if wish.exists() { Err(format!("it does not come to {}", point.name())) } else { Ok(()) }
        });
        lab.cut_bouncer();
        good(&lab, &["release"], new);
        assert_eq!(hanging.wait().expect("the program").signal(), Some(9), "who holds clients is ended");
        load.goes_on();
        let writes = "select count(*) > 0 from pg_stat_activity where usename = 'app'";
        assert_eq!(lab.sql(side, "shop", writes), "t", "{}", point.name());
    }
    good(&lab, &["done", "switch"], new);
    good(&lab, &["follow-back"], new);
    good(&lab, &["verify"], new);
    // The sessions of a pgbouncer end with it; no row does.
    load.prove(&lab, new);
}
