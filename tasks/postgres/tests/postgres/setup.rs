//! `backup setup`: an archive that is proved, and nothing where that cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hostler_postgres::crash::CrashPoint;

use crate::backup::back_up;
use crate::kit::output;
use crate::store::Store;

#[test]
fn an_archive_is_set_up_with_a_proof_or_not_at_all() {
    let mut store = Store::new();
    store.lab.copy_template(15, "archiving", &["--data-checksums", "--wal-segsize=1"]);
    let port = store.lab.start_cluster(15, "shared_buffers = 8MB\n");
    let name = store.lab.name().to_owned();
    let file = store.lab.conf(15).join("conf.d/hostler-archive.conf");
    let setup = |store: &Store, words: &[&str]| {
        let all: Vec<_> = ["--cluster", &name].iter().chain(words).copied().collect();
        let (status, _, said) = output(&mut store.at(&["backup", "setup"], &all));
        (status, said)
    };
    let asked =
        |store: &Store, word: &str| output(&mut store.program(&["backup", word, "--cluster", &name])).0;
    let refused = |store: &Store, words: &[&str], status: i32, why: &str| {
        let (ended, said) = setup(store, words);
        assert!(ended == status && said.contains(why), "{words:?} {why}: {ended} {said}");
        let mode = store.lab.sql(port, "postgres", "show archive_mode");
        assert!(!file.exists() && mode == "off", "{words:?}: nothing of it is left");
        assert_eq!(asked(store, "setup-done"), 1);
    };
    refused(&store, &[], 6, "say --restart");
    refused(&store, &["--restart", "--archive-timeout", "1"], 2, "10..=86400");
    store.lab.sql(port, "postgres", "alter system set archive_command = '/bin/true'");
    refused(&store, &["--restart"], 6, "archive_command is set in");
    store.lab.sql(port, "postgres", "alter system reset archive_command");
    store.close();
    refused(&store, &["--restart"], 4, "");
    store.open();
    // No segment comes: the server is as it was, and does not keep WAL for an archive that it has not.
    let depot = store.lab.path("bin/hostler-depot");
    let whole = depot.with_file_name("whole");
    fs::rename(&depot, &whole).expect("the depot");
    let broken =
        format!("#!/bin/sh\ncase \" $* \" in *' put '*) exit 4 ;; esac\nexec {} \"$@\"\n", whole.display());
    fs::write(&depot, &broken).expect("the depot");
    fs::set_permissions(&depot, fs::Permissions::from_mode(0o755)).expect("the depot");
    refused(&store, &["--restart", "--wait", "1"], 6, "has not come to the archive within 1 s");
    fs::rename(&whole, &depot).expect("the depot");
    let wish = store.lab.path("wish");
    fs::write(&wish, CrashPoint::ArchiveMeant.name()).expect("a wish");
    let mut killed = store.at(&["backup", "setup"], &["--cluster", &name, "--restart"]);
    assert_eq!(output(killed.env("HOSTLER_CRASH_FILE", &wish)).0, -1);
    assert_eq!((asked(&store, "setup-done"), asked(&store, "setup-undo")), (1, 0));
    assert!(!file.exists());
    let (status, said) = setup(&store, &["--restart"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(asked(&store, "setup-done"), 0);
    back_up(&store);
    // Said again it proves it again, and restarts nothing.
    let begun = store.lab.sql(port, "postgres", "select pg_postmaster_start_time()");
    assert_eq!(setup(&store, &[]).0, 0);
    // A proof that fails takes nothing away that was proved.
    let proved = fs::read_to_string(&file).expect("the settings");
    fs::rename(&depot, &whole).expect("the depot");
    fs::write(&depot, &broken).expect("the depot");
    fs::set_permissions(&depot, fs::Permissions::from_mode(0o755)).expect("the depot");
    let (status, said) = setup(&store, &["--wait", "1", "--archive-timeout", "90"]);
    assert_eq!((status, said.contains("within 1 s")), (6, true), "{said}");
    fs::rename(&whole, &depot).expect("the depot");
    assert_eq!(fs::read_to_string(&file).expect("the settings"), proved);
    assert_eq!(asked(&store, "setup-done"), 0);
    assert_eq!(store.lab.sql(port, "postgres", "select pg_postmaster_start_time()"), begun);
    assert_eq!(asked(&store, "setup-undo"), 0);
    assert_eq!(store.lab.sql(port, "postgres", "show archive_mode"), "off");
    assert_eq!((asked(&store, "setup-done"), file.exists()), (1, false));
}
