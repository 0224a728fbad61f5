//! Orders for shipped tasks, carried out by the real agent beside a local user who renames and links in a folder of his
//! own while the task works: what is hit is what root admits, and nothing else.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hostler_testkit::Host;
use serde_json::{Value, json};

/// Places an order and waits for its end, or for the pause after an attempt that came to nothing.
fn carry_out(host: &Host, name: &str, task: &str, params: Value) -> Value {
    host.order(name, &json!({"task": task, "params": params}).to_string());
    host.wait_until(name, "an end", |report| {
        let phase = report["phase"].as_str().unwrap_or_default();
        matches!(phase, "succeeded" | "failed" | "undone" | "undo_failed") || report["reason"] == "retry"
    })
}

/// A shipped task of the depot, on a stand-in that keeps what it is given as `stored/1`, `stored/2`, and gives `archive`.
fn shipped(host: &Host, name: &str, policy: &str) {
    host.shipped(name, policy);
    let admit = host.admit(policy);
    let depot = host.path("depot");
    let text = format!(
        "#!/bin/sh\nset -eu\nact=$1\nwhile [ \"$1\" != -- ]; do shift; done\nshift\ncd {}\n\
         case $act in\nput) \"$@\" >stored/$(ls stored | wc -l) || [ $? = 1 ] ;;\nget) \"$@\" <archive ;;\nesac\n",
        host.path("").display()
    );
    fs::write(&depot, text).expect("the stand-in");
    fs::set_permissions(&depot, fs::Permissions::from_mode(0o755)).expect("its mode");
    for entry in fs::read_dir(host.path("tasks").join(name)).expect("the task").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a file of the task");
        let text = text.replace("${HOSTLER_DEPOT:-hostler-depot}", &depot.display().to_string());
        // It is several words, in an assignment.
        let text = text.replace(&format!("admit={admit}"), &format!("admit=\"{admit}\""));
        fs::write(entry.path(), text).expect("a file of the task");
    }
}

/// The end of what another thread does, also where the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn an_order_to_clean_removes_nothing_behind_a_link_that_is_made_meanwhile() {
    const SLOW: usize = 3_000;
    let mut host = Host::on_dir("cleans");
    let places = host.path("places");
    host.shipped("disk-cleanup", &format!("places: {{clean: [{}]}}\n", places.display()));
    for folder in ["places/slow", "places/user/a/b", "other/b"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
    }
    for n in 0..SLOW {
        fs::write(places.join(format!("slow/{n}")), "x").expect("a file");
    }
    fs::write(places.join("user/a/b/old"), "the user's").expect("a file");
    fs::write(host.path("other/b/kept"), "another's").expect("a file");
    host.start();
    let params = json!({"places": [places.join("slow"), places.join("user/a/b")], "older_than_days": 0});
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&done);
        // All places have been looked at when the first file goes; then the user makes another's folder of his.
        scope.spawn(|| {
            while entries(&places.join("slow")).len() == SLOW && !done.load(Ordering::Relaxed) {}
            fs::rename(places.join("user/a"), places.join("user/aside")).expect("a folder of his");
            symlink(host.path("other"), places.join("user/a")).expect("a link");
        });
        carry_out(&host, "o", "disk-cleanup", params);
    });
    assert!(host.path("other/b/kept").exists(), "a file of another's was removed; {}", host.log_tail());
    assert!(entries(&places.join("slow")).is_empty(), "it does clean");
    // And nothing through a link that is there from the beginning.
    carry_out(&host, "p", "disk-cleanup", json!({"places": [places.join("user/a/b")], "older_than_days": 0}));
    assert!(host.path("other/b/kept").exists(), "a file of another's was removed; {}", host.log_tail());
}

#[test]
fn p7_an_order_to_back_up_takes_no_secret_of_hostlers_own() {
    const SECRET: &str = "a-secret-value";
    let mut host = Host::on_dir("keeps");
    shipped(&host, "depot-backup", &format!("places: {{backup: [{}]}}\n", host.path("data").display()));
    for folder in ["data", "stored"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
    }
    fs::write(host.path("data/file"), "kept").expect("a file");
    host.start();
    let params = json!({"database": "d", "prune": false, "folders": [host.path("data")]});
    let report = carry_out(&host, "data", "depot-backup", params);
    assert_eq!(report["phase"], "succeeded", "{report}");
    for folder in ["state/runs/secret", "run/secrets/run"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
        fs::write(host.path(folder).join("value"), SECRET).expect("a file");
    }
    symlink(host.path("run"), host.path("data/link")).expect("a link");
    let root = Path::new("/proc/self/root").join(host.path("run").strip_prefix("/").expect("a full path"));
    let folders = [
        host.path("state"),
        host.path("run/secrets"),
        root,
        host.path("data/../run"),
        host.path("data/link/secrets"),
        host.path("."),
    ];
    for (n, folder) in folders.iter().enumerate() {
        let params = json!({"database": "d", "prune": false, "folders": [host.path("data"), folder]});
        let report = carry_out(&host, &format!("o{n}"), "depot-backup", params);
        for stored in entries(&host.path("stored")) {
            let bytes = fs::read(&stored).expect("a backup");
            let has = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!has, "the backup of {} holds a secret: {report}", folder.display());
        }
        assert_eq!(report["phase"], "failed", "{}: {report}", folder.display());
    }
    let stored = entries(&host.path("stored"));
    assert_eq!(stored.len(), 1, "it does back up what root admits: {stored:?}");
}

#[test]
fn an_order_to_restore_writes_into_no_folder_of_a_users_choice() {
    let mut host = Host::on_dir("restores");
    let place = host.path("place");
    shipped(&host, "depot-restore", &format!("places: {{restore: [{}]}}\n", place.display()));
    for folder in ["place/open", "victim", "from"] {
        fs::create_dir_all(host.path(folder)).expect("a folder");
    }
    fs::set_permissions(place.join("open"), fs::Permissions::from_mode(0o1777)).expect("its mode");
    fs::write(host.path("from/written"), "root's").expect("a file");
    let tar = std::process::Command::new("tar")
        .args(["--create", "--file", "archive", "--directory", "from", "written"])
        .current_dir(host.path(""))
        .status();
    assert!(tar.expect("tar").success());
    host.start();
    // The user has a link of the name that the restore may use, again and again.
    let (done, target) = (AtomicBool::new(false), AtomicUsize::new(0));
    let named = |n: usize, more: &str| place.join(format!("open/db{n}{more}"));
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let _end = End(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = symlink(host.path("victim"), named(target.load(Ordering::Relaxed), ".hostler-new"));
            }
        });
        let restore = |n| {
            target.store(n, Ordering::Relaxed);
            let params = json!({"backup": "d/1", "target": named(n, "")});
            carry_out(&host, &format!("o{n}"), "depot-restore", params)
        };
        (0..5).map(restore).collect()
    });
    let victim = entries(&host.path("victim"));
    assert!(victim.is_empty(), "root wrote where a user wanted it: {victim:?}; {reports:?}");
    assert!(reports.iter().all(|report| report["phase"] != "succeeded"), "{reports:?}");
    // In a folder of root's it does restore.
    let params = json!({"backup": "d/1", "target": place.join("db")});
    let report = carry_out(&host, "good", "depot-restore", params);
    assert_eq!(report["phase"], "succeeded", "{report}; {}", host.log_tail());
    assert_eq!(fs::read_to_string(place.join("db/written")).expect("what was restored"), "root's");
}
