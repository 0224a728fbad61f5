//! SIGKILL at every request of put, move, prune and delete: the proxy ends the program when it sees the Nth one,
//! once before the server gets it and once after. So every stage that the server can tell apart is hit, in order.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use crate::support::depot::{Depot, ended};
use crate::support::noise;
use crate::support::proxy::{Fate, Late, Proxy};
use crate::support::servers::{Moto, Strict};

/// The moment at which a command is killed.
struct Kill {
    /// The request at which that happens, counted from 1.
    at: usize,
    /// What becomes of that request.
    fate: Fate,
}

/// Runs the command and kills it; gives `false` when it ended before that.
fn killed(depot: &Depot, proxy: &Proxy, arguments: &[&str], input: &[u8], kill: Kill) -> bool {
    let Kill { at, fate } = kill;
    let child = depot.command(arguments).stdin(Stdio::piped()).spawn();
    let child = Arc::new(Mutex::new(child.unwrap()));
    let mut stdin = child.lock().unwrap().stdin.take().unwrap();
    let victim = Arc::clone(&child);
    proxy.rule(move |seen| {
        if seen.number != at {
            return Fate::Pass;
        }
        victim.lock().unwrap().kill().unwrap();
        // Reset: the server never sees it. LoseAnswer: the server does it, and nobody is there to hear.
        fate.clone()
    });
    let _ = stdin.write_all(input);
    drop(stdin);
    let over = crate::support::until;
    over("it has ended", || child.lock().unwrap().try_wait().unwrap().is_some());
    let reached = proxy.count() >= at;
    proxy.rule(|_| Fate::Pass);
    reached
}

#[test]
fn a_put_killed_at_every_request_is_whole_or_nothing() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2");
    let kept = noise(9, 6 << 20);
    depot.put("db/kept", &kept);
    for (length, way) in [(12 << 20, "parts"), (1000, "one")] {
        let bytes = noise(length as u64, length);
        for fate in [Fate::Reset, Fate::LoseAnswer] {
            for at in 1.. {
                let name = format!("db/{way}");
                let more = killed(&depot, &proxy, &["put", &name], &bytes, Kill { at, fate: fate.clone() });
                // Whatever list shows is whole, before anything is cleared away and after.
                depot.run(&["verify"]).ok();
                depot.run(&["prune"]).ok();
                depot.run(&["verify"]).ok();
                let names = depot.names();
                assert!(names.contains(&"db/kept".to_owned()));
                assert_eq!(server.keys().len(), 2 * names.len(), "{at} {fate:?}: {:?}", server.keys());
                assert!(server.leftovers().is_empty(), "{at} {fate:?}: {:?}", server.leftovers());
                assert_eq!(depot.begun(), 0);
                if names.contains(&name) {
                    depot.run(&["delete", &name]).ok();
                }
                if !more {
                    assert!(at > 4, "{way}: {at} requests are too few");
                    break;
                }
            }
        }
    }
    assert!(depot.run(&["get", "db/kept"]).ok().out == kept);
}

#[test]
fn a_delete_and_a_prune_killed_at_every_request_keep_what_must_be_kept() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2\ndatabases: {db: {keep: {hourly: 1}}}");
    depot.put("safe/a", b"no rule");
    for fate in [Fate::Reset, Fate::LoseAnswer] {
        for command in ["delete", "prune"] {
            for at in 1.. {
                for name in ["db/1", "db/2", "db/3"] {
                    if !depot.names().contains(&name.to_owned()) {
                        depot.put(name, name.as_bytes());
                    }
                }
                let newest = depot.names().pop().unwrap();
                let arguments: &[&str] = if command == "delete" { &["delete", "db/1"] } else { &["prune"] };
                let more = killed(&depot, &proxy, arguments, b"", Kill { at, fate: fate.clone() });
                depot.run(&["verify"]).ok();
                depot.run(&["prune"]).ok();
                let names = depot.names();
                assert!(
                    names.contains(&newest) && names.contains(&"safe/a".to_owned()),
                    "{command} {at}: {names:?}"
                );
                assert_eq!(
                    server.keys().len(),
                    2 * names.len(),
                    "{command} {at} {fate:?}: {:?}",
                    server.keys()
                );
                assert_eq!(depot.begun(), 0);
                if !more {
                    break;
                }
            }
        }
    }
    assert_eq!(depot.run(&["get", "safe/a"]).ok().out, b"no rule");
}

#[test]
fn a_move_killed_at_every_request_leaves_the_backup_in_one_place() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2");
    depot.put("db/a", b"moved to and fro");
    let mut to = "STANDARD_IA";
    for fate in [Fate::Reset, Fate::LoseAnswer] {
        for at in 1.. {
            let more =
                killed(&depot, &proxy, &["move", "db/a", "--to", to], b"", Kill { at, fate: fate.clone() });
            depot.run(&["verify"]).ok();
            depot.run(&["prune"]).ok();
            assert_eq!(depot.run(&["get", "db/a"]).ok().out, b"moved to and fro", "{at} {fate:?}");
            let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
            assert_eq!(keys.matches("<Key>").count(), 2, "{at} {fate:?}: {keys}");
            let class =
                depot.run(&["show", "db/a", "--json"]).ok().json()["backup"]["stored"]["class"].clone();
            to = if class == "STANDARD" { "STANDARD_IA" } else { "STANDARD" };
            if !more {
                break;
            }
        }
    }
}

#[test]
fn a_put_that_is_asked_to_stop_clears_up_itself() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let mut child = depot.command(&["put", "db/a"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&noise(1, 12 << 20)).unwrap();
    crate::support::until("a part is stored", || !server.leftovers().is_empty());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let end = ended(child);
    drop(stdin);
    assert_eq!(end.code, Some(143));
    assert!(server.leftovers().is_empty() && server.keys().is_empty());
    assert_eq!(depot.begun(), 0);
}

/// Kills the command while its manifest is under way; what comes of that is said later.
fn killed_at_the_manifest(depot: &Depot, proxy: &Proxy, arguments: &[&str], input: &[u8]) -> Arc<Late> {
    let child = depot.command(arguments).stdin(Stdio::piped()).spawn();
    let child = Arc::new(Mutex::new(child.unwrap()));
    let mut stdin = child.lock().unwrap().stdin.take().unwrap();
    let (victim, late) = (Arc::clone(&child), Arc::new(Late::default()));
    let fate = Arc::clone(&late);
    proxy.rule(move |seen| {
        if !seen.is_manifest() {
            return Fate::Pass;
        }
        victim.lock().unwrap().kill().unwrap();
        Fate::Late(Arc::clone(&fate))
    });
    let _ = stdin.write_all(input);
    drop(stdin);
    crate::support::until("it has ended", || child.lock().unwrap().try_wait().unwrap().is_some());
    proxy.rule(|_| Fate::Pass);
    late
}

#[test]
fn a_manifest_that_arrives_after_the_cleaning_still_names_bytes_that_are_there() {
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2");
    let objects = || server.ask("GET", "/vault?list-type=2", &[], "").1.matches("<Key>").count();
    let bytes = noise(4, 6 << 20);
    let late = killed_at_the_manifest(&depot, &proxy, &["put", "db/a"], &bytes);
    assert_eq!(depot.names(), Vec::<String>::new(), "not before its manifest");
    depot.run(&["clean"]).ok();
    assert_eq!(depot.names(), ["db/a"], "who died in the last write is finished");
    assert_eq!(late.arrive(), 412);
    depot.run(&["verify"]).ok();
    assert!(depot.run(&["get", "db/a"]).ok().out == bytes);
    // A move replaces a manifest, and only the one that it knows: there the late one is refused too.
    let late = killed_at_the_manifest(&depot, &proxy, &["move", "db/a", "--to", "STANDARD_IA"], b"");
    depot.run(&["clean"]).ok();
    assert_eq!(late.arrive(), 412);
    depot.run(&["verify"]).ok();
    assert_eq!(depot.run(&["show", "db/a", "--json"]).ok().json()["state"]["class"], "STANDARD_IA");
    assert!(depot.run(&["get", "db/a"]).ok().out == bytes);
    assert_eq!((objects(), depot.begun()), (2, 0));
    // What is gone meanwhile does not come back.
    let late = killed_at_the_manifest(&depot, &proxy, &["move", "db/a", "--to", "STANDARD"], b"");
    let other = Depot::new(server.address, "");
    other.run(&["delete", "db/a"]).ok();
    depot.run(&["clean"]).ok();
    assert_eq!((objects(), depot.begun()), (0, 0));
    drop(late);
}

#[test]
fn a_put_whose_manifest_is_not_taken_is_finished_by_the_next_run() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 1");
    // One that fails is tried once more by the cleaning up.
    let once = std::sync::atomic::AtomicBool::new(true);
    proxy.rule(move |seen| {
        let first = seen.is_manifest() && once.swap(false, std::sync::atomic::Ordering::SeqCst);
        if first { Fate::Reset } else { Fate::Pass }
    });
    depot.put("db/once", b"stored");
    proxy.rule(|seen| if seen.is_manifest() { Fate::Reset } else { Fate::Pass });
    depot.feed(&["put", "db/a"], b"stored").fails(4, "the next run on this host finishes it");
    assert_eq!(depot.names(), ["db/once"]);
    proxy.rule(|_| Fate::Pass);
    depot.feed(&["put", "db/b"], b"next").ok();
    assert_eq!(depot.names(), ["db/once", "db/a", "db/b"]);
    assert_eq!(depot.run(&["get", "db/a"]).ok().out, b"stored");
    // Refused for good, it leaves nothing.
    proxy.rule(|seen| if seen.is_manifest() { Fate::Answer(403, "AccessDenied") } else { Fate::Pass });
    depot.feed(&["put", "db/c"], b"refused").fails(4, "AccessDenied");
    assert_eq!((server.keys().len(), depot.begun()), (6, 0));
}

#[test]
fn a_deletion_killed_at_every_request_beside_a_child_of_another_host_leaves_no_child_without_its_base() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let depot = Depot::new(proxy.address, "timeout: 5\ntries: 2");
    let other = Depot::new(server.address, "");
    for fate in [Fate::Reset, Fate::LoseAnswer] {
        for at in 1.. {
            if !depot.names().contains(&"db/base".to_owned()) {
                depot.put("db/base", b"base");
            }
            let more = killed(&depot, &proxy, &["delete", "db/base"], b"", Kill { at, fate: fate.clone() });
            let put = other.feed(&["put", "db/child", "--parent", "db/base"], b"child");
            assert!(matches!(put.code, Some(0 | 5 | 7)), "{at} {fate:?}: {put:?}");
            // What was reported is good now, and when the deletion has been finished or given up.
            other.run(&["verify"]).ok();
            depot.run(&["clean"]).ok();
            other.run(&["verify"]).ok();
            let names = depot.names();
            assert_eq!(put.code == Some(0), names.contains(&"db/child".to_owned()), "{at} {fate:?}");
            if put.code == Some(0) {
                assert!(names.contains(&"db/base".to_owned()), "{at} {fate:?}");
                other.run(&["delete", "db/child"]).ok();
            }
            assert_eq!(server.keys().len(), 2 * depot.names().len(), "{at} {fate:?}: {:?}", server.keys());
            assert_eq!((depot.begun(), other.begun()), (0, 0));
            if !more {
                assert!(at > 5, "{at} requests are too few");
                break;
            }
        }
    }
}

#[test]
fn a_put_of_a_child_killed_at_every_request_beside_a_prune_of_another_host_loses_nothing() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    let rules = "timeout: 5\ntries: 2\ndatabases: {db: {keep: {hourly: 1}}}";
    let depot = Depot::new(proxy.address, rules);
    let other = Depot::new(server.address, rules);
    for fate in [Fate::Reset, Fate::LoseAnswer] {
        for at in 1.. {
            for name in ["db/base", "db/newest"] {
                if !depot.names().contains(&name.to_owned()) {
                    depot.put(name, name.as_bytes());
                }
            }
            let child = ["put", "db/child", "--parent", "db/base"];
            let more = killed(&depot, &proxy, &child, b"child", Kill { at, fate: fate.clone() });
            let before = depot.names();
            // Before the dead one is cleared away its note may keep the base; nothing else is lost either way.
            let pruned = other.run(&["prune"]);
            assert!(matches!(pruned.code, Some(0 | 1)), "{at} {fate:?}: {}", pruned.err);
            other.run(&["verify"]).ok();
            depot.run(&["clean"]).ok();
            depot.run(&["verify"]).ok();
            let names = depot.names();
            if before.contains(&"db/child".to_owned()) {
                assert!(names.contains(&"db/child".to_owned()) && names.contains(&"db/base".to_owned()));
            }
            if names.contains(&"db/child".to_owned()) {
                depot.run(&["delete", "db/child"]).ok();
            }
            assert_eq!(server.keys().len(), 2 * depot.names().len(), "{at} {fate:?}: {:?}", server.keys());
            if !more {
                break;
            }
        }
    }
}

#[test]
fn a_move_killed_at_every_request_beside_a_get_of_another_host_gives_all_bytes() {
    let server = Moto::start();
    server.bucket(&[]);
    let (proxy, between) = (Arc::new(Proxy::start(server.address)), Proxy::start(server.address));
    let depot = Arc::new(Depot::new(proxy.address, "timeout: 10\ntries: 2"));
    // Two blocks in memory: the third is asked for when the first has been written.
    let reader = Depot::new(between.address, "timeout: 20\ntries: 3\nmemory_mib: 10");
    let bytes = noise(11, 12 << 20);
    depot.put("db/a", &bytes);
    let objects = || server.ask("GET", "/vault?list-type=2", &[], "").1.matches("<Key>").count();
    let mut to = "STANDARD_IA";
    for fate in [Fate::Reset, Fate::LoseAnswer] {
        for at in 1.. {
            let (mover, before) = (Arc::clone(&depot), Arc::clone(&proxy));
            let (once, fate_of_move) = (std::sync::atomic::AtomicBool::new(true), fate.clone());
            let more = Arc::new(Mutex::new(None));
            let reached = Arc::clone(&more);
            between.rule(move |seen| {
                let third =
                    seen.is_range() && seen.headers["range"].to_str().unwrap().starts_with("bytes=10485760");
                if third && once.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    let arguments = ["move", "db/a", "--to", to];
                    *reached.lock().unwrap() = Some(killed(
                        &mover,
                        &before,
                        &arguments,
                        b"",
                        Kill { at, fate: fate_of_move.clone() },
                    ));
                    // Every other time it is cleared up, or finished, before the reader goes on.
                    if at % 2 == 0 {
                        mover.run(&["clean"]).ok();
                    }
                }
                Fate::Pass
            });
            assert!(reader.run(&["get", "db/a"]).ok().out == bytes, "{at} {fate:?}");
            let more = more.lock().unwrap().take().unwrap();
            reader.run(&["verify"]).ok();
            depot.run(&["clean"]).ok();
            reader.run(&["verify"]).ok();
            assert_eq!((objects(), depot.begun()), (2, 0), "{at} {fate:?}");
            let class =
                reader.run(&["show", "db/a", "--json"]).ok().json()["backup"]["stored"]["class"].clone();
            to = if class == "STANDARD" { "STANDARD_IA" } else { "STANDARD" };
            if !more {
                assert!(at > 8, "{at} requests are too few");
                break;
            }
        }
    }
}

#[test]
fn a_get_killed_at_every_request_beside_a_move_of_another_host_leaves_no_file_and_keeps_nothing_from_moving()
{
    let server = Moto::start();
    server.bucket(&[]);
    let proxy = Proxy::start(server.address);
    let reader = Depot::new(proxy.address, "timeout: 10\ntries: 2\nmemory_mib: 10");
    let mover = Depot::new(server.address, "");
    let bytes = noise(12, 12 << 20);
    mover.put("db/a", &bytes);
    let target = reader.path("target");
    let mut to = "STANDARD_IA";
    for at in 1.. {
        let get = ["get", "db/a", "-o", target.to_str().unwrap()];
        let more = std::thread::scope(|scope| {
            let moved = scope.spawn(|| mover.run(&["move", "db/a", "--to", to]));
            let more = killed(&reader, &proxy, &get, b"", Kill { at, fate: Fate::Reset });
            moved.join().unwrap().ok();
            more
        });
        to = if to == "STANDARD" { "STANDARD_IA" } else { "STANDARD" };
        if !more {
            assert!(at > 4, "{at} requests are too few");
            break;
        }
        assert!(!target.exists(), "{at}");
        let (_, keys) = server.ask("GET", "/vault?list-type=2", &[], "");
        assert_eq!(keys.matches("<Key>").count(), 2, "{at}: {keys}");
        reader.run(&["verify"]).ok();
    }
    assert!(std::fs::read(&target).unwrap() == bytes);
}
