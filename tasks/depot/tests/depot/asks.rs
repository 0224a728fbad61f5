//! What owners of their own backups ask for: databases with rules of their own, and Backint's grammar.

use crate::support::caller::{Caller, write};
use crate::support::depot::{Depot, ended};
use crate::support::noise;
use crate::support::proxy::{Fate, Proxy};
use crate::support::servers::Strict;

#[test]
fn what_has_an_owner_is_passed_over_by_every_rule() {
    let server = Strict::start();
    let rules = "databases: {'*': {keep: {hourly: 1}}}";
    let depot = Depot::new(server.address, rules);
    depot.put("pg/base", b"base");
    for segment in ["pg/wal/1", "pg/wal/2", "pg/wal/3"] {
        depot.feed(&["put", segment, "--owned", "postgres"], segment.as_bytes()).ok();
    }
    depot.run(&["prune"]).ok();
    assert_eq!(depot.names().len(), 4, "none of them goes, and none pushes out the base");
    let shown = depot.run(&["show", "pg/wal/1", "--json"]).ok().json();
    assert_eq!(shown["backup"]["owner"], "postgres");
    depot.feed(&["put", "pg/wal/4", "--owned", "two words"], b"x").fails(2, "an owner");
    // What an owned one builds on stays too.
    depot.feed(&["put", "pg/inc", "--owned", "postgres", "--parent", "pg/base"], b"inc").ok();
    depot.put("pg/newer", b"newer");
    depot.run(&["prune"]).ok();
    assert!(depot.names().contains(&"pg/base".to_owned()));
}

#[test]
fn names_are_listed_without_their_manifests_and_many_are_deleted_in_one_call() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "");
    let names: Vec<String> = (0..20).map(|at| format!("wal/{at:02}")).collect();
    for name in &names {
        depot.put(name, name.as_bytes());
    }
    depot.put("base", b"base");
    depot.feed(&["put", "inc", "--parent", "base"], b"inc").ok();
    proxy.rule(|_| Fate::Pass);
    let listed = depot.run(&["list", "--names", "wal/"]).ok();
    assert_eq!(String::from_utf8(listed.out).unwrap().lines().collect::<Vec<_>>(), names);
    assert_eq!(proxy.count(), 1);
    let json = depot.run(&["list", "--names", "--json", "wal/1"]).ok().json();
    assert_eq!(json.as_array().unwrap().len(), 10);
    let mut arguments = vec!["delete", "base", "inc", "no/such"];
    arguments.extend(names[..15].iter().map(String::as_str));
    proxy.rule(|_| Fate::Pass);
    depot.run(&arguments).fails(5, "no backup `no/such`");
    // Each costs a few requests of its own; what all share is asked for once.
    assert!(proxy.count() < 17 * 12 + 25, "{}", proxy.count());
    assert_eq!(depot.names(), names[15..]);
    assert_eq!((server.keys().len(), depot.begun()), (10, 0));
}

#[test]
fn a_label_is_kept_and_shown() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let label = r#"{"lsn":"0/1A000028","timeline":3}"#;
    depot.feed(&["put", "db/a", "--label", label], b"x").ok();
    let listed = depot.run(&["list", "--json"]).ok().json();
    assert_eq!(listed[0]["label"]["lsn"], "0/1A000028");
    assert!(String::from_utf8(depot.run(&["show", "db/a"]).ok().out).unwrap().contains(label));
    assert!(String::from_utf8(depot.run(&["list"]).ok().out).unwrap().contains(label));
    let long = format!("\"{}\"", "x".repeat(1023));
    depot.feed(&["put", "db/b", "--label", &long], b"x").fails(2, "1024");
    depot.feed(&["put", "db/b", "--label", "{not json"], b"x").fails(2, "not JSON");
}

#[test]
fn the_same_contents_under_a_taken_name_are_a_success_others_an_error() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "compress: 1");
    let bytes = noise(4, 6 << 20);
    let put = ["put", "wal/1", "--if-same", "--json"];
    assert_eq!(depot.feed(&put, &bytes).ok().json()["verified"], "checksums");
    proxy.rule(|seen| if seen.method == "PUT" { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    assert_eq!(depot.feed(&put, &bytes).ok().json()["verified"], "same");
    depot.feed(&put, &bytes[1..]).fails(6, "other contents");
    depot.feed(&["put", "wal/1"], &bytes).fails(6, "use another name");
    depot.run(&["put", "wal/1", "--if-same", "--", "sh", "-c", "exit 3"]).fails(8, "exit status: 3");
}

#[test]
fn backint_refuses_what_it_cannot_understand_before_it_reads_anything() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "pipe_open_timeout: 5");
    let file = depot.path("file");
    std::fs::write(&file, "contents").unwrap();
    let (input, out) = (depot.path("in"), depot.path("out"));
    let call = |function: &str, text: &[u8], more: &[&str]| {
        std::fs::write(&input, text).unwrap();
        let arguments =
            ["backint", "-f", function, "-i", input.to_str().unwrap(), "-o", out.to_str().unwrap()];
        ended(depot.command(&[&arguments, more].concat()).spawn().unwrap())
    };
    let good = format!("#FILE {} 8\n", file.display());
    for (function, bad, line) in [
        ("backup", format!("{good}#PIPE\n"), "line 2"),
        ("backup", format!("{good}{good}#FILE \"/x\" many\n"), "line 3"),
        ("backup", format!("{good}#PIPE \"/never ends\n"), "line 2"),
        ("backup", format!("{good}#EBID 1 /a\n"), "line 2"),
        ("restore", "#EBID\n".to_owned(), "line 1"),
        ("restore", "#NULL\n".to_owned(), "line 1"),
        ("delete", "a comment\n#EBID 01J\n".to_owned(), "line 2"),
        ("inquire", "#SOFTWAREID \"backint\" \"x\"\n".to_owned(), "line 1"),
    ] {
        call(function, bad.as_bytes(), &["-u", "HDB"]).fails(2, line);
    }
    call("backup", good.as_bytes(), &[]).fails(2, "-u");
    assert_eq!((proxy.count(), server.keys().len(), out.exists()), (0, 0, false));
    call("backup", good.as_bytes(), &["-u", "HDB"]).ok();
    assert!(std::fs::read_to_string(&out).unwrap().contains("#SAVED"));
    // A whole inquiry that fails names nothing, and has no space at its end.
    proxy.rule(|_| Fate::Answer(403, "AccessDenied"));
    call("inquire", b"#NULL\n", &["-u", "HDB"]).fails(1, "");
    assert!(std::fs::read_to_string(&out).unwrap().lines().any(|line| line == "#ERROR"));
}

#[test]
fn another_systems_backups_are_found_and_restored_for_a_copy() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let caller = Caller::new(&depot);
    let name = caller.pipe("data");
    let saved = caller.backup(&[(name.clone(), b"of the source".to_vec())]);
    let id = saved.lines[0].1[0].clone();
    let (input, to) = (depot.path("in"), depot.path("to"));
    std::fs::write(
        &input,
        format!("#EBID {} {} {}\n", write(&id), write(&name), write(to.to_str().unwrap())),
    )
    .unwrap();
    let restore = ["backint", "-f", "restore", "-u", "DB@QAS", "-i", input.to_str().unwrap()];
    let told = |ended: crate::support::depot::Ended| String::from_utf8(ended.ok().out).unwrap();
    assert!(told(depot.run(&restore)).contains("#NOTFOUND"));
    depot.configure(server.address, "backint_user: HDB");
    assert!(told(depot.run(&restore)).contains("#RESTORED"));
    assert_eq!(std::fs::read(&to).unwrap(), b"of the source");
    // It is not the copy's to delete.
    std::fs::write(&input, format!("#EBID {} {}\n", write(&id), write(&name))).unwrap();
    let delete = ["backint", "-f", "delete", "-u", "DB@QAS", "-i", input.to_str().unwrap()];
    assert!(told(depot.run(&delete)).contains("#NOTFOUND"));
}
