//! Backint, as SAP HANA sees it.

use std::io::{Read, Write};

use crate::support::caller::{Caller, open_to_write, write};
use crate::support::depot::Depot;
use crate::support::proxy::{Fate, Proxy, Seen};
use crate::support::servers::{Moto, Strict};
use crate::support::{noise, until};

const MIB: usize = 1 << 20;

fn keyword(line: &(String, Vec<String>)) -> &str {
    &line.0
}

#[test]
fn one_two_and_thirty_two_pipes_are_stored_found_restored_and_deleted() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 20\npipe_idle_timeout: 20");
    let caller = Caller::new(&depot);
    for count in [1, 2, 32] {
        let streams: Vec<(String, Vec<u8>)> = (0..count)
            .map(|at| {
                let name = caller.pipe(&format!("f\"{count} b\\{at}"));
                let length = if at == 0 { 7 * MIB + 3 } else { 100_000 + at };
                (name, noise(at as u64 + 1, length))
            })
            .collect();
        let saved = caller.backup(&streams);
        assert_eq!(saved.ended.code, Some(0), "{}", saved.ended.err);
        let mut wanted = Vec::new();
        for (line, (name, bytes)) in saved.lines.iter().zip(&streams) {
            assert_eq!(keyword(line), "#SAVED", "{}", saved.text);
            assert_eq!(line.1[1], *name, "in the order of the input");
            assert_eq!(line.1[2], bytes.len().to_string());
            wanted.push((line.1[0].clone(), name.clone(), caller.pipe(&format!("restore_{}", wanted.len()))));
        }
        let asked: Vec<String> = streams.iter().map(|(name, _)| format!("#NULL {}", write(name))).collect();
        let found = caller.call("inquire", &asked, count);
        for (line, wanted) in found.lines.iter().zip(&wanted) {
            assert_eq!(*line, ("#BACKUP".to_owned(), vec![wanted.0.clone(), wanted.1.clone()]));
        }
        let (restored, bytes) = caller.restore(&wanted);
        for ((line, wanted), (got, (_, sent))) in
            restored.lines.iter().zip(&wanted).zip(bytes.iter().zip(&streams))
        {
            assert_eq!(*line, ("#RESTORED".to_owned(), vec![wanted.0.clone(), wanted.1.clone()]));
            assert!(got == sent);
        }
        let named: Vec<String> =
            wanted.iter().map(|(id, name, _)| format!("#EBID {} {}", write(id), write(name))).collect();
        let deleted = caller.call("delete", &named, count);
        assert!(deleted.lines.iter().all(|line| keyword(line) == "#DELETED"), "{deleted:?}");
        let gone = caller.call("delete", &named, count);
        assert!(gone.lines.iter().all(|line| keyword(line) == "#NOTFOUND"));
        let gone = caller.call("inquire", &named, count);
        assert!(gone.lines.iter().all(|line| keyword(line) == "#NOTFOUND"));
    }
    assert!(server.keys().is_empty() && server.leftovers().is_empty());
}

#[test]
fn versions_differ_in_what_they_are_told() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let mut caller = Caller::new(&depot);
    let name = caller.pipe("log_backup_0_0_0_0");
    let longer = caller.folder.join("log_backup_0_0_0_0_3").to_str().unwrap().to_owned();
    let first = caller.backup(&[(name.clone(), b"first".to_vec())]).lines.remove(0).1.remove(0);
    let second = caller.backup(&[(name.clone(), b"second".to_vec())]).lines.remove(0).1.remove(0);
    assert_ne!(first, second);
    for (speaks, told, timed) in
        [("1.00", "1.00", false), ("1.04", "1.04", false), ("1.50", "1.50", true), ("1.50.2", "1.50", true)]
    {
        caller.speaks = speaks;
        let all = caller.call("INQUIRE", &[format!("#NULL {}", write(&name))], 2);
        assert_eq!(all.version, told);
        assert_eq!(all.lines[0].1[..2], [second.clone(), name.clone()], "newest first");
        assert_eq!(all.lines[1].1[..2], [first.clone(), name.clone()]);
        for line in &all.lines {
            assert_eq!(line.1.len(), if timed { 3 } else { 2 });
            assert!(
                !timed || line.1[2].parse::<jiff::Timestamp>().is_ok() && line.1[2].len() == 24,
                "{line:?}"
            );
        }
    }
    caller.speaks = "1.00";
    let alone = caller.call("inquire", &[format!("#EBID {}", write(&first))], 1);
    assert_eq!(alone.lines[0].1, [first.clone(), name.clone()]);
    assert_eq!(caller.call("inquire", &["#NULL".to_owned()], 2).lines[1].1[0], first);
    let none = caller.call("inquire", &[format!("#NULL {}", write(&longer))], 1);
    assert_eq!(none.lines[0], ("#NOTFOUND".to_owned(), vec![longer.clone()]), "a prefix is not the name");
    // The newest, into a file that is made.
    let target = caller.folder.join("a file").to_str().unwrap().to_owned();
    let restored = caller.call("restore", &[format!("#NULL {} {}", write(&name), write(&target))], 1);
    assert_eq!(restored.lines[0].1, [second, name.clone()]);
    assert_eq!(std::fs::read(&target).unwrap(), b"second");
    // A file is stored as well as a pipe; a wrong size is an error.
    let sizes = [
        format!("#FILE {} 6", write(&target)),
        format!("#FILE {} 7", write(&target)),
        "#FILE /no/such".to_owned(),
    ];
    let saved = caller.call("backup", &sizes, 3);
    assert_eq!(saved.lines.iter().map(keyword).collect::<Vec<_>>(), ["#SAVED", "#ERROR", "#ERROR"]);
    // Nothing of the rules touches what HANA keeps.
    depot.configure(server.address, "databases: {'*': {keep: {daily: 1}}}");
    depot.run(&["prune"]).ok();
    assert_eq!(caller.call("inquire", &["#NULL".to_owned()], 3).lines.len(), 3);
}

#[test]
fn a_pipe_that_ends_early_stalls_or_never_opens_is_an_error_for_its_entry_only() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 2\npipe_idle_timeout: 2");
    let caller = Caller::new(&depot);
    let names: Vec<String> =
        ["good", "empty", "stalled", "never", "late"].map(|name| caller.pipe(name)).to_vec();
    let mut entries: Vec<String> = names.iter().map(|name| format!("#PIPE {}", write(name))).collect();
    entries.push("#PIPE /no/such/pipe".to_owned());
    entries.push(format!("#PIPE {}", write(&names[0])));
    let mut call = caller.start("backup", &entries, entries.len());
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| open_to_write(&names[0]).write_all(&noise(1, 6 * MIB)).unwrap());
        scope.spawn(|| drop(open_to_write(&names[1])));
        scope.spawn(|| {
            let mut pipe = open_to_write(&names[2]);
            pipe.write_all(&noise(2, 6 * MIB)).unwrap();
            // Held open until the other side gives up, which breaks the pipe.
            until("the stalled pipe is given up", || pipe.write(b"").is_err() || is_gone(&names[2]));
        });
        // Late, within its time: the good one is stored by then.
        scope.spawn(|| {
            until("the good one is stored", || {
                server.keys().iter().any(|key| key.contains("/good/") && key.ends_with("manifest.json"))
            });
            open_to_write(&names[4]).write_all(b"late").unwrap();
        });
        until("it has ended", || call.child.try_wait().unwrap().is_some());
        std::fs::write(caller.folder.join("stalled.gone"), "").unwrap();
        call.end()
    });
    assert_eq!(
        answer.lines.iter().map(keyword).collect::<Vec<_>>(),
        ["#SAVED", "#ERROR", "#ERROR", "#ERROR", "#SAVED", "#ERROR", "#ERROR"],
        "{answer:?}"
    );
    assert_eq!(answer.ended.code, Some(0), "every entry has its line");
    assert!(answer.text.contains("named twice"), "{}", answer.text);
    assert_eq!(depot.names().len(), 2);
    assert!(server.leftovers().is_empty());
    assert_eq!(server.keys().len(), 4, "two backups, and nothing of the others: {:?}", server.keys());
}

fn is_gone(name: &str) -> bool {
    std::path::Path::new(&format!("{name}.gone")).exists()
}

#[test]
fn a_reader_that_dies_or_never_comes_is_an_error_for_its_entry_only() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 2\npipe_idle_timeout: 2");
    let caller = Caller::new(&depot);
    let streams: Vec<(String, Vec<u8>)> =
        (0..4).map(|at| (caller.pipe(&format!("data_{at}")), noise(at + 1, 8 * MIB))).collect();
    let saved = caller.backup(&streams);
    let to: Vec<String> = (0..4).map(|at| caller.pipe(&format!("to_{at}"))).collect();
    let entries: Vec<String> = saved
        .lines
        .iter()
        .zip(&to)
        .map(|(line, to)| format!("#EBID {} {} {}", write(&line.1[0]), write(&line.1[1]), write(to)))
        .collect();
    let call = caller.start("restore", &entries, 4);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut all = Vec::new();
            std::fs::File::open(&to[0]).unwrap().read_to_end(&mut all).unwrap();
            assert!(all == streams[0].1);
        });
        // Reads a little and dies.
        scope.spawn(|| std::fs::File::open(&to[1]).unwrap().read_exact(&mut [0; 1000]).unwrap());
        // Opens and stalls.
        scope.spawn(|| {
            let _held = std::fs::File::open(&to[2]).unwrap();
            until("it has ended", || is_gone(&to[2]));
        });
        let answer = call.end();
        std::fs::write(format!("{}.gone", to[2]), "").unwrap();
        answer
    });
    let told: Vec<&str> = answer.lines.iter().map(keyword).collect();
    assert_eq!(told, ["#RESTORED", "#ERROR", "#ERROR", "#ERROR"], "{answer:?}");
}

#[test]
fn either_side_killed_in_mid_stream_leaves_no_backup_and_no_part() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "pipe_open_timeout: 20\npipe_idle_timeout: 20");
    let caller = Caller::new(&depot);
    // The agent is killed: once its first part is there.
    let name = caller.pipe("killed agent");
    let mut call = caller.start("backup", &[format!("#PIPE {}", write(&name))], 1);
    let mut pipe = open_to_write(&name);
    pipe.write_all(&noise(1, 12 * MIB)).unwrap();
    until("a part is stored", || !server.leftovers().is_empty());
    call.child.kill().unwrap();
    call.child.wait().unwrap();
    drop(pipe);
    assert!(depot.names().is_empty());
    // HANA is killed: a shell in its place, whose child the agent is.
    let name = caller.pipe("killed hana");
    let input = depot.path("in.killed");
    std::fs::write(&input, format!("#PIPE {}\n", write(&name))).unwrap();
    let shell = format!(
        "'{}' backint -f backup -i '{}' -o '{}' -u HDB; true",
        env!("CARGO_BIN_EXE_hostler-depot"),
        input.display(),
        depot.path("out.killed").display()
    );
    let mut hana = depot.program("/bin/sh".as_ref(), &["-c", &shell]).spawn().unwrap();
    let mut pipe = open_to_write(&name);
    pipe.write_all(&noise(2, 12 * MIB)).unwrap();
    hana.kill().unwrap();
    hana.wait().unwrap();
    // The death of a writer closes its pipe, as its end would.
    drop(pipe);
    let out = depot.path("out.killed");
    until("the agent has answered", || {
        std::fs::read_to_string(&out).is_ok_and(|text| text.contains("#ERROR"))
    });
    assert!(std::fs::read_to_string(&out).unwrap().contains("has died"));
    assert!(depot.names().is_empty());
    // The next call clears up.
    caller.backup(&[(caller.pipe("next"), b"next".to_vec())]);
    assert!(server.leftovers().is_empty(), "{:?}", server.leftovers());
    assert_eq!(server.keys().len(), 2);
    depot.run(&["verify"]).ok();
}

#[test]
fn a_store_that_is_away_is_an_error_for_each_entry() {
    let server = Strict::start();
    let proxy = Proxy::start(server.address);
    proxy.rule(|_: &Seen| Fate::Reset);
    let depot = Depot::new(proxy.address, "timeout: 1\ntries: 2\npipe_open_timeout: 5");
    let caller = Caller::new(&depot);
    let streams: Vec<(String, Vec<u8>)> =
        (0..3).map(|at| (caller.pipe(&format!("p{at}")), b"x".to_vec())).collect();
    let entries: Vec<String> = streams.iter().map(|(name, _)| format!("#PIPE {}", write(name))).collect();
    let answer = caller.call("backup", &entries, 3);
    assert!(answer.lines.iter().all(|line| keyword(line) == "#ERROR"));
    assert_eq!(answer.ended.code, Some(1), "nothing could be done for any");
    // A configuration that cannot be read: nothing could be done, and still each entry has its line.
    std::fs::write(depot.path("depot.yml"), "bukket: x\n").unwrap();
    let answer = caller.call("backup", &entries, 3);
    assert!(answer.lines.iter().all(|line| keyword(line) == "#ERROR"));
    assert_eq!(answer.ended.code, Some(1));
    assert!(answer.ended.err.contains("bukket"));
    depot.run(&["backint", "-v"]).ok();
    depot.run(&["backint", "-function=backup", "-bogus"]).fails(2, "unexpected argument");
}

#[test]
fn the_guide_lists_each_exit_status_that_a_call_can_have() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let caller = Caller::new(&depot);
    let name = caller.folder.join("data").to_str().unwrap().to_owned();
    std::fs::write(&name, b"data").unwrap();
    let (good, bad) = (format!("#FILE {} 4", write(&name)), "#FILE /no/such".to_owned());
    let partly = caller.call("backup", &[good.clone(), bad.clone()], 2);
    assert_eq!(partly.lines.iter().map(keyword).collect::<Vec<_>>(), ["#SAVED", "#ERROR"]);
    let refused = depot.feed(&["backint", "-u", "HDB", "-f", "backup"], b"#FILE\n");
    depot.configure("127.0.0.1:1".parse().unwrap(), "timeout: 1\ntries: 2");
    let away = caller.call("backup", &[good], 1);
    assert_eq!(away.lines.iter().map(keyword).collect::<Vec<_>>(), ["#ERROR"]);
    let seen = [partly.ended, away.ended, refused].map(|ended| ended.code.unwrap().to_string());
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backups.md")).unwrap();
    let (_, after) = guide.split_once("Supported Backint versions").unwrap();
    let rows = after
        .lines()
        .skip_while(|line| !line.starts_with("| ---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let listed: Vec<&str> = rows.map(|row| row.split('|').nth(1).unwrap().trim()).collect();
    assert_eq!(listed, seen, "docs/backups.md, and what three calls ended with");
}

#[test]
fn what_is_locked_is_not_deleted_and_what_is_cold_is_thawed_first() {
    let server = Moto::start();
    server.bucket(&[("x-amz-bucket-object-lock-enabled", "true")]);
    let depot = Depot::new(server.address, "lock: {mode: GOVERNANCE, days: 1}");
    let mut caller = Caller::new(&depot);
    let name = caller.pipe("locked");
    let id = caller.backup(&[(name.clone(), b"x".to_vec())]).lines.remove(0).1.remove(0);
    let entry = [format!("#EBID {} {}", write(&id), write(&name))];
    assert_eq!(keyword(&caller.call("delete", &entry, 1).lines[0]), "#ERROR");
    caller.speaks = "1.50";
    assert_eq!(keyword(&caller.call("delete", &entry, 1).lines[0]), "#NOTDELETED");
    depot.configure(server.address, "");
    let name = caller.pipe("cold");
    let id = caller.backup(&[(name.clone(), b"cold".to_vec())]).lines.remove(0).1.remove(0);
    let stored = depot.names().into_iter().find(|one| one.ends_with(&id)).unwrap();
    depot.run(&["move", &stored, "--to", "GLACIER"]).ok();
    let to = depot.path("thawed").to_str().unwrap().to_owned();
    let entry = [format!("#EBID {} {} {}", write(&id), write(&name), write(&to))];
    until("it is thawed and restored", || {
        keyword(&caller.call("restore", &entry, 1).lines[0]) == "#RESTORED"
    });
    assert_eq!(std::fs::read(&to).unwrap(), b"cold");
}
