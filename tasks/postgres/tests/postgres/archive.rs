//! `archive` and `fetch`, called by real servers and as they call them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use hostler_testkit::eventually;

use crate::kit::{SOON, as_postgres, output, own};
use crate::store::{ID, Store};

fn changed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    bytes
}

/// A file in `pg_wal` of the user postgres.
fn plant(data: &Path, name: &str, bytes: &[u8]) {
    let path = data.join("pg_wal").join(name);
    fs::write(&path, bytes).expect("a file");
    own(&path);
}

#[test]
fn what_a_server_hands_over_is_stored_once_and_nothing_else_is_called_archived() {
    for version in [13, 15] {
        let mut store = Store::new();
        let port = store.cluster(version, "");
        let system = store.system(port);
        store.lab.sql(port, "postgres", "create table t as select generate_series(1, 50000) as i");
        let name = store.switch(port);
        let data = store.data(version);
        let path = data.join("pg_wal").join(&name);
        let key = format!("{ID}.wal/{system}/00000001/{name}");
        assert!(store.names(&format!("{ID}.wal/")).contains(&key));
        let archive = |name: &str| store.hooked(&data, "archive", &format!("pg_wal/{name}"));
        // Again, as after a power cut between the store and the note of it, and twice at once.
        assert_eq!(archive(&name).0, 0);
        let next = "0000000100000000000000F0";
        let good = changed(&path, |bytes| bytes[8..16].copy_from_slice(&(0xF0_u64 << 20).to_ne_bytes()));
        plant(&data, next, &good);
        let both = thread::scope(|scope| {
            let other = scope.spawn(|| archive(next));
            (archive(next), other.join().expect("the other"))
        });
        assert_eq!((both.0.0, both.1.0), (0, 0), "{both:?}");
        // What is not what its name says.
        for (name, bytes, why) in [
            (
                next,
                changed(&path, |bytes| bytes[8..16].copy_from_slice(&(0xF1_u64 << 20).to_ne_bytes())),
                "begins at the place",
            ),
            (
                next,
                {
                    let mut other = good.clone();
                    other[9000] ^= 1;
                    other
                },
                "other contents are archived",
            ),
            ("0000000100000000000000F1", good.clone(), "begins at the place of 0000000100000000000000F0"),
            ("0000000100000000000000F2", good[..512 << 10].to_vec(), "has 524288 bytes"),
            ("0000000100000000000000F2", vec![0; 1 << 20], "does not begin as a segment"),
            ("0000000100000000000000F2", Vec::new(), "does not begin as a segment"),
            (
                "0000000100000000000000F0.partial",
                changed(&path, |bytes| bytes[24] ^= 1),
                "belongs to the cluster",
            ),
            ("00000002.history", Vec::new(), "names no timeline"),
            ("00000002.history", b"2\t0/1000000\tno\n".to_vec(), "out of order"),
            ("RECOVERYXLOG", good.clone(), "no file of WAL"),
            ("0000000100000000000000F2.00000028.backup", b"x".to_vec(), "no label"),
        ] {
            plant(&data, name, &bytes);
            let (status, said) = archive(name);
            assert!((1..=125).contains(&status) && said.contains(why), "{name}, {why}: {status} {said}");
            fs::remove_file(data.join("pg_wal").join(name)).expect("the file");
        }
        assert_eq!(store.names(&format!("{ID}.wal/{system}/00000001/0000000100000000000000F")).len(), 1);
        assert_eq!(archive("0000000100000000000000F9").0, 9, "there is no such file");
        // A timeline's end.
        plant(&data, "00000002.history", b"1\t0/F000100\tno recovery target specified\n");
        plant(&data, "0000000100000000000000F0.partial", &good);
        for name in ["00000002.history", "0000000100000000000000F0.partial"] {
            assert_eq!(archive(name), (0, archive(name).1), "{name}");
            fs::remove_file(data.join("pg_wal").join(name)).expect("the file");
        }
        assert!(
            store
                .names(&format!("{ID}.wal/{system}/"))
                .contains(&format!("{ID}.wal/{system}/00000002.history"))
        );
        // The depot's own notes cannot be written, as on a full disk.
        let state = store.lab.path("depot-state");
        let moved = store.lab.path("moved");
        fs::rename(&state, &moved).expect("the folder");
        fs::write(&state, "").expect("a file in its place");
        plant(
            &data,
            "0000000100000000000000F5",
            &changed(&path, |bytes| bytes[8..16].copy_from_slice(&(0xF5_u64 << 20).to_ne_bytes())),
        );
        let (status, said) = archive("0000000100000000000000F5");
        assert!((1..=125).contains(&status), "{status} {said}");
        fs::remove_file(data.join("pg_wal/0000000100000000000000F5")).expect("the file");
        fs::remove_file(&state).expect("the file");
        fs::rename(&moved, &state).expect("the folder");
        // The store is away: the server keeps what it has, and goes on when it is back.
        store.close();
        let waiting = store.lab.sql(
            port,
            "postgres",
            "insert into t values (1); select pg_walfile_name(pg_switch_wal())",
        );
        eventually(SOON, || {
            let failed = store.lab.sql(port, "postgres", "select failed_count > 0 from pg_stat_archiver");
            (failed == "t").then_some(()).ok_or(failed)
        });
        assert!(data.join(format!("pg_wal/archive_status/{waiting}.ready")).exists());
        store.open();
        assert!(store.switch(port) > waiting);
        let names = store.names(&format!("{ID}.wal/{system}/00000001/"));
        assert!(names.iter().any(|key| key.ends_with(&waiting)), "{names:?}");
    }
}

#[test]
fn a_recovery_is_told_that_the_archive_ends_only_where_it_does() {
    let mut store = Store::new();
    let port = store.cluster(15, "");
    let system = store.system(port);
    let names: Vec<_> = (0..3).map(|_| store.switch(port)).collect();
    let data = store.data(15);
    let fetch = |store: &Store, name: &str| {
        let _ = fs::remove_file(data.join("pg_wal/GOT"));
        store.hooked(&data, "fetch", &format!("{name} pg_wal/GOT"))
    };
    let got = || fs::read(data.join("pg_wal/GOT")).ok();
    let ends = |found: (i32, String), status: i32, why: &str| {
        assert!(found.0 == status && found.1.contains(why), "{status} {why:?}: {found:?}");
    };
    ends(fetch(&store, &names[1]), 0, "");
    assert_eq!(got(), fs::read(data.join("pg_wal").join(&names[1])).ok(), "byte by byte");
    // The end, and what a server asks for beyond it.
    ends(fetch(&store, "0000000100000000000000A0"), 1, "ends before it");
    ends(fetch(&store, "00000002.history"), 1, "ends before it");
    ends(fetch(&store, "00000001.history"), 1, "");
    assert_eq!(got(), None);
    // A hole, and a history that is missing.
    let folder = |name: &str| store.object(&format!("{ID}.wal/{system}/00000001/{name}"));
    fs::rename(folder(&names[1]), store.lab.path("aside")).expect("the object");
    ends(fetch(&store, &names[1]), 126, &format!("{} is there", names[2]));
    fs::rename(store.lab.path("aside"), folder(&names[1])).expect("the object");
    let history = "1\t0/F00100\tno recovery target specified\n";
    plant(&data, "00000002.history", history.as_bytes());
    assert_eq!(store.hooked(&data, "archive", "pg_wal/00000002.history").0, 0);
    fs::remove_file(data.join("pg_wal/00000002.history")).expect("the file");
    ends(fetch(&store, "00000002.history"), 0, "");
    assert_eq!(got(), Some(history.into()));
    let later = store.object(&format!("{ID}.wal/{system}/00000002.history"));
    let of_three = store.object(&format!("{ID}.wal/{system}/00000003.history"));
    fs::rename(&later, &of_three).expect("the object");
    ends(fetch(&store, "00000002.history"), 126, "WAL of the timeline 3");
    ends(fetch(&store, "00000003.history"), 126, "");
    ends(fetch(&store, "00000004.history"), 1, "");
    // Damage: a byte flipped, cut off, and the bytes of another segment.
    let object = |name: &str| {
        let files = fs::read_dir(folder(name)).expect("the object").flatten();
        let mut files = files.map(|file| file.path());
        files.find(|path| !path.ends_with("manifest.json")).expect("its bytes")
    };
    let bytes = fs::read(object(&names[1])).expect("its bytes");
    for wrong in
        [changed(&object(&names[1]), |bytes| bytes[100] ^= 1), bytes[..bytes.len() / 2].to_vec(), Vec::new()]
    {
        fs::write(object(&names[1]), wrong).expect("the object");
        ends(fetch(&store, &names[1]), 126, "");
        assert_eq!(got(), None);
    }
    fs::write(object(&names[1]), &bytes).expect("the object");
    ends(fetch(&store, &names[1]), 0, "");
    // Of another cluster, which archives under the same id: it has a folder of its own.
    plant(&data, &names[2], &changed(&data.join("pg_wal").join(&names[2]), |bytes| bytes[24] ^= 1));
    assert_ne!(store.hooked(&data, "archive", &format!("pg_wal/{}", names[2])).0, 0);
    // No room, no program, wrong words, nobody there.
    // As root, in a mount namespace of its own: a full file system in the place of pg_wal.
    let small = data.join("small");
    fs::create_dir_all(small.join("pg_wal")).expect("a folder");
    fs::create_dir_all(small.join("global")).expect("a folder");
    fs::copy(data.join("global/pg_control"), small.join("global/pg_control")).expect("the file");
    let hook = store.hook("fetch", &format!("{} pg_wal/GOT", names[1]));
    let inner = format!("cd {} && mount -t tmpfs -o size=256k none pg_wal && {hook}", small.display());
    let (status, _, said) = output(Command::new("unshare").args(["--mount", "sh", "-c", &inner]));
    assert!(status == 126 && said.contains("No space"), "{status} {said}");
    let depotless =
        store.hook("fetch", &format!("{} pg_wal/GOT", names[1])).replace("/hostler-depot ", "/nothing ");
    let mut shell = as_postgres("/bin/sh");
    shell.arg("-c").arg(format!("cd {} && {depotless}", data.display()));
    assert_eq!(output(&mut shell).0, 126);
    for words in ["", "--nonsense a b", "RECOVERYXLOG pg_wal/GOT", "../x pg_wal/GOT"] {
        assert_eq!(store.hooked(&data, "fetch", words).0, 126, "{words}");
    }
    store.close();
    ends(fetch(&store, &names[0]), 126, "");
    ends(fetch(&store, "0000000100000000000000A0"), 126, "");
}
