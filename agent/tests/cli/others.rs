//! What one person's act does to another's, and what is never passed over in silence.

use std::fs;

use crate::bench::Bench;

#[test]
fn nobody_undoes_what_somebody_else_wants_unasked() {
    let bench = Bench::new();
    let alice = ["freeze", "hana", "--by", "alice", "--reason", "year end"];
    bench.run(&alice).ends(0);
    bench.run(&["freeze", "hana", "--by", "bob"]).ends(6).says("alice").says("year end");
    bench.run(&["thaw", "hana", "--by", "bob"]).ends(6).says("alice");
    bench
        .run(&["freeze", "hana", "--by", "bob", "--until", "2020-12-24T00:00:00Z"])
        .ends(2)
        .says("has passed");
    bench.run(&["freeze", "hana", "--until", "3h"]).ends(2).says("2026-11-28T22:00:00Z");
    bench.run(&["freeze", "hana", "--by", "bob", "--replace"]).ends(0);
    bench.run(&["thaw", "hana", "--by", "alice"]).ends(6).says("bob");
    bench.run(&["thaw", "hana", "--by", "alice", "--of-others"]).ends(0);
    fs::write(bench.path("store/hostler/freeze/hana"), "by: alice\nuntil: 2001-01-01T00:00:00Z").unwrap();
    bench.run(&["freeze", "hana", "--by", "bob"]).ends(0);

    bench.run(&["order", "put", "nightly", "--host", "db1", "--task", "good", "--by", "alice"]).ends(0);
    let other = ["order", "put", "nightly", "--host", "db1", "--task", "bad"];
    bench.run(&other).ends(6).says("alice").says("task good");
    bench.run(&[&other[..], &["--replace"]].concat()).ends(0).says("changed");
    let late =
        ["order", "put", "late", "--host", "db1", "--task", "good", "--not-after", "2001-01-01T00:00:00Z"];
    bench.run(&late).ends(2).says("has passed");
}

#[test]
fn an_order_from_a_file_says_who_wrote_it() {
    let bench = Bench::new();
    let put = |name: &str, more: &[&str], text: &str| {
        bench.with_input(&[&["order", "put", name, "-", "--host", "db1"], more].concat(), text)
    };
    for (name, text) in [("block", "task: good\n"), ("flow", "{\"task\": \"good\"}"), ("open", "task: good")]
    {
        put(name, &["--by", "carol"], text).ends(0);
        bench.run(&["order", "get", name, "--host", "db1"]).ends(0).says("carol");
    }
    put("own", &[], "task: good\nby: dave\n").ends(0);
    bench.run(&["order", "get", "own", "--host", "db1"]).ends(0).says("by: dave");
    put("own", &["--by", "carol"], "task: good\nby: dave\n").ends(2).says("dave");
}

#[test]
fn what_is_no_order_is_listed_with_its_reason() {
    let bench = Bench::new();
    let at = |key: &str| bench.path(&format!("store/hostler/orders/hosts/db1/{key}"));
    for key in ["Backup", "backup ", "x.bak", "loose"] {
        fs::write(at(key), "task: good").unwrap();
    }
    let loose = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(at("loose"), loose).unwrap();
    let list = bench.run(&["order", "list"]).ends(0);
    for text in ["(broken)", "Backup", "\"backup \"", "x.bak", "loose"] {
        assert!(list.out.contains(text), "{text:?} is not in:\n{}", list.out);
    }
    let check = bench.run(&["check"]);
    for text in ["hosts/db1/Backup", "\"hostler/orders/hosts/db1/backup \"", "x.bak", "chmod go-w"] {
        assert!(check.out.contains(text), "{text:?} is not in:\n{}", check.out);
    }
}
