//! What counts as a proof of a backup: each part is where the catalog says, in files and in the real depot.

use std::fs;

use crate::depot::Store;
use crate::pair::{replicate, two};
use crate::played::Played;

const UPDATE: [&str; 4] = ["update", "--media", "/media/2.00.079.00", "--prepare"];

/// The files of a kind of backup.
fn files(played: &Played, kind: &str) -> Vec<std::path::PathBuf> {
    let folder = played.path(&format!("/usr/sap/HDB/HDB00/backup/{kind}/DB_HDB"));
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn nothing_is_updated_without_each_part_of_a_backup_in_files() {
    let played = Played::with_system("h1");
    played.with_history("file");
    let refused = |what: &str, name: &std::path::Path| {
        let answer = played.run(&UPDATE);
        assert_eq!(answer.code(), 6, "{what}: {}", answer.err());
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(
            answer.err().contains(name) && answer.err().contains("task: hana-backup"),
            "{what}: {}",
            answer.err()
        );
        assert!(!played.calls().contains("--action=update"), "{what}");
    };
    let data = files(&played, "data").pop().unwrap();
    let whole = fs::read(&data).unwrap();
    // As many bytes, and one is another: hdbbackupcheck reads it.
    let mut torn = whole.clone();
    *torn.last_mut().unwrap() ^= 1;
    fs::write(&data, &torn).unwrap();
    refused("torn", &data);
    fs::write(&data, &whole[1..]).unwrap();
    refused("short", &data);
    fs::write(&data, &whole).unwrap();
    let log =
        files(&played, "log").into_iter().find(|path| !path.to_str().unwrap().contains("_0_0_0_0")).unwrap();
    let away = played.path("/away");
    fs::rename(&log, &away).unwrap();
    refused("no log", &log);
    let check = ["check", "--before", "update", "--media", "/media/2.00.079.00"];
    let answer = played.run(&check);
    assert!(answer.code() == 1 && answer.out().contains("parts are missing or damaged"), "{}", answer.out());
    fs::rename(&away, &log).unwrap();
    for arguments in [&UPDATE[..], &check[..]] {
        let answer = played.run(arguments);
        assert_eq!(answer.code(), 0, "{}", answer.err());
    }
}

#[test]
fn what_the_depot_does_not_have_is_no_backup() {
    let store = Store::new();
    let (one, two) = two();
    store.serve(&one);
    store.serve(&two);
    replicate(&one, &two);
    let depot = store.config();
    let backup = ["backup", "--run", "B2", "--sample", "100", "--depot", &depot];
    let answer = one.run(&[&["--json"], &backup[..]].concat());
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert_eq!(answer.json()["backups"][0]["sampled"], 2, "each part was read back");
    let takeover = ["--hostname", "h2", "takeover", "--primary-key", "OTHER", "--run", "T1"];
    // Somebody deletes one part in the depot: the catalog knows nothing of it.
    let names = store.names();
    let part =
        names.iter().rfind(|name| name.contains("HDB@HDB") && name.contains("_databackup_2_1")).unwrap();
    store.delete(part);
    let stream = part.rsplit('/').nth(1).unwrap();
    let answer = one.run(&backup);
    assert!(answer.code() == 4 && answer.err().contains(stream), "{}", answer.err());
    for (host, arguments) in [(&one, &UPDATE[..]), (&two, &takeover[..])] {
        let answer = host.run(arguments);
        assert_eq!(answer.code(), 6, "{}", answer.err());
        assert!(
            answer.err().contains(stream) && answer.err().contains("task: hana-backup"),
            "{}",
            answer.err()
        );
    }
    assert!(!two.calls().contains("-sr_takeover"));
    // A fresh one is a proof.
    let fresh = ["backup", "--run", "B3", "--sample", "5", "--depot", &depot];
    let answer = one.run(&fresh);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    let answer = two.run(&takeover);
    assert_eq!((answer.code(), two.rows().as_str()), (0, "1"), "{}", answer.err());
}
