//! The folder as a store: what counts as a key, what a change counts, and what is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() })
}

fn store() -> (tempfile::TempDir, Dir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Dir::new(&folder.path().join("store"));
    store.make().unwrap();
    (folder, store)
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[test]
fn a_folder_that_is_not_there_is_no_empty_listing() {
    let (_folder, store) = store();
    block(store.put("p/a", b"1".to_vec(), When::Always)).unwrap();
    fs::rename(&store.inner.root, store.inner.root.with_extension("away")).unwrap();
    for answer in [block(store.list("p/")), block(store.changed("p/", Some(3), MAX_WAIT))] {
        assert!(matches!(answer, Err(StoreError::Unreachable { .. })), "{answer:?}");
    }
    assert!(block(store.put("p/b", vec![], When::Always)).is_err());
}

#[test]
fn a_disk_that_does_not_answer_keeps_no_thread_that_others_need() {
    let (_folder, store) = store();
    // Whoever opens a pipe waits for its other end, as for a disk that hangs.
    let pipe = store.inner.root.join(".index");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let store = Arc::new(store);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(4).build().unwrap();
    runtime.block_on(async {
        let mut asked = Vec::new();
        for _ in 0..8 {
            let store = Arc::clone(&store);
            asked.push(tokio::spawn(
                async move { store.list("p/").await.map(|listing| listing.entries.len()) },
            ));
        }
        tokio::task::yield_now().await;
        // Copies of tasks and probes are made ready so.
        let other = tokio::task::spawn_blocking(|| 7);
        let answer = tokio::time::timeout(Duration::from_secs(10), other).await;
        // The disk answers again: everybody gets an answer, and the store works. Whoever waits at the pipe goes on while
        // it has a writer, and sees its end once it has none and no name.
        let writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        fs::remove_file(&pipe).unwrap();
        drop(writer);
        assert_eq!(answer.unwrap().unwrap(), 7);
        for asked in asked {
            let _ = tokio::time::timeout(Duration::from_secs(30), asked).await.unwrap().unwrap();
        }
        assert_eq!(store.list("p/").await.unwrap().entries.len(), 0);
    });
}

#[test]
fn only_regular_files_of_ours_that_are_written_in_full_are_keys() {
    let (folder, store) = store();
    let root = store.inner.root.clone();
    let p = root.join("p");
    fs::create_dir_all(p.join(".git")).unwrap();
    fs::create_dir_all(folder.path().join("elsewhere")).unwrap();
    fs::write(folder.path().join("elsewhere/x"), "x").unwrap();
    for name in ["good", ".hidden", "good~", "good.tmp", ".git/x", "loose"] {
        fs::write(p.join(name), "x").unwrap();
    }
    fs::set_permissions(p.join("loose"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink(p.join("good"), p.join("link")).unwrap();
    symlink(folder.path().join("elsewhere"), p.join("linked-folder")).unwrap();
    nix::unistd::mkfifo(&p.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        fs::write(p.join("foreign"), "x").unwrap();
        std::os::unix::fs::chown(p.join("foreign"), Some(12345), None).unwrap();
    }
    let listing = block(store.list("p/")).unwrap();
    assert_eq!(keys(&listing), ["p/good"]);
    let refused = block(store.put("p/linked-folder/y", b"y".to_vec(), When::Always));
    assert!(refused.is_err(), "{refused:?}");
    assert!(!folder.path().join("elsewhere/y").exists());
}

#[test]
fn keys_that_could_leave_the_folder_or_hide_in_it_are_refused() {
    let (_folder, store) = store();
    for key in ["../x", "a/../../x", "/etc/x", "a//b", ".index", ".lock", "a/.b", "a~", "a.tmp", "", "a/"] {
        let answer = block(store.put(key, b"x".to_vec(), When::Always));
        assert!(matches!(answer, Err(StoreError::Refused { .. })), "{key}: {answer:?}");
        assert!(block(store.delete(key)).is_err(), "{key}");
    }
}

#[test]
fn the_count_goes_on_after_a_restart_and_sees_what_was_edited_meanwhile() {
    let (_folder, store) = store();
    block(store.put("p/a", b"1".to_vec(), When::Always)).unwrap();
    block(store.put("p/b", b"1".to_vec(), When::Always)).unwrap();
    let before = block(store.list("p/")).unwrap();
    fs::write(store.inner.root.join("p/a"), "2").unwrap();
    let again = Dir::new(&store.inner.root);
    let after = block(again.list("p/")).unwrap();
    assert!(after.index > before.index);
    assert!(after.entries[0].modify_index > before.index);
    assert_eq!(after.entries[1], before.entries[1]);
    assert_eq!(block(store.list("p/")).unwrap(), after, "both see the same count");
}

#[test]
fn a_counter_that_cannot_be_read_is_an_error_with_its_cure() {
    let (_folder, store) = store();
    block(store.put("p/a", b"1".to_vec(), When::Always)).unwrap();
    fs::write(store.inner.root.join(".index"), "{").unwrap();
    let error = block(store.list("p/")).unwrap_err();
    assert!(error.to_string().contains("remove .index"), "{error}");
}

#[test]
fn a_value_that_is_too_large_spoils_no_other() {
    let (_folder, store) = store();
    block(store.put("p/a", b"1".to_vec(), When::Always)).unwrap();
    fs::write(store.inner.root.join("p/big"), vec![b'x'; 3 * MAX_VALUE]).unwrap();
    let listing = block(store.list("p/")).unwrap();
    assert_eq!(keys(&listing), ["p/a", "p/big"]);
    assert!(listing.entries[1].too_large && listing.entries[1].value.is_empty());
    fs::write(store.inner.root.join("p/fits"), vec![b'x'; MAX_READ_VALUE]).unwrap();
    assert_eq!(block(store.list("p/")).unwrap().entries[2].value.len(), MAX_READ_VALUE);
    // What is not read is not taken for empty.
    assert!(block(store.put("p/big", Vec::new(), When::Always)).unwrap());
    assert!(!block(store.list("p/")).unwrap().entries[1].too_large);
}

#[test]
fn many_hands_at_once_lose_no_count() {
    let (_folder, store) = store();
    let hands: Vec<_> = (0..4)
        .map(|hand| {
            let root = store.inner.root.clone();
            std::thread::spawn(move || {
                let own = Dir::new(&root);
                for round in 0..10 {
                    let value = format!("{round}").into_bytes();
                    assert!(block(own.put(&format!("p/{hand}"), value, When::Always)).unwrap());
                }
            })
        })
        .collect();
    for hand in hands {
        hand.join().unwrap();
    }
    let listing = block(store.list("p/")).unwrap();
    // Forty changes of content, counted from 1.
    assert_eq!((listing.entries.len(), listing.index), (4, 41));
}

#[test]
fn an_edit_wakes_its_prefix_and_no_other() {
    let (_folder, store) = store();
    block(async {
        store.put("p/a", b"1".to_vec(), When::Always).await.unwrap();
        let p = store.list("p/").await.unwrap().index;
        let q = store.list("q/").await.unwrap().index;
        let root = store.inner.root.clone();
        let neighbour = store.changed("q/", Some(q), MAX_WAIT);
        tokio::pin!(neighbour);
        let edit = async {
            fs::write(root.join(".edit"), "2").unwrap();
            fs::rename(root.join(".edit"), root.join("p/a")).unwrap();
        };
        let (woken, ()) = tokio::join!(store.changed("p/", Some(p), MAX_WAIT), edit);
        assert_eq!(woken.unwrap().entries[0].value, b"2");
        let quiet = tokio::time::timeout(Duration::from_millis(300), &mut neighbour).await;
        assert!(quiet.is_err(), "a neighbour's change woke it");
    });
}

#[test]
fn a_file_counts_when_its_writer_has_closed_it() {
    use std::io::Write as _;
    let (_folder, store) = store();
    block(store.put("p/a", b"1".to_vec(), When::Always)).unwrap();
    let path = store.inner.root.join("p/slow");
    let mut slow = File::create(&path).unwrap();
    slow.write_all(b"task: count\n").unwrap();
    slow.sync_all().unwrap();
    let half = block(store.list("p/"));
    assert!(matches!(&half, Err(StoreError::Busy { why, .. }) if why.contains("p/slow")), "{half:?}");
    slow.write_all(b"dry_run: true\n").unwrap();
    drop(slow);
    let whole = block(store.list("p/")).unwrap();
    assert_eq!(whole.entries[1].value, b"task: count\ndry_run: true\n");
    // A change in place is one as well, and what was there before does not go away for it.
    let mut again = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert!(block(Dir::new(&store.inner.root).list("p/")).is_err(), "another process sees it too");
    again.write_all(b"task: other\n").unwrap();
    drop(again);
    let after = block(store.list("p/")).unwrap();
    assert_eq!(after.entries[1].value, b"task: other\n");
    assert!(after.entries[1].modify_index > whole.entries[1].modify_index);
}

#[test]
fn a_watch_waits_for_a_file_that_is_being_written() {
    use std::io::Write as _;
    let (_folder, store) = store();
    block(async {
        store.put("p/a", b"1".to_vec(), When::Always).await.unwrap();
        let seen = store.list("p/").await.unwrap().index;
        let mut slow = File::create(store.inner.root.join("p/b")).unwrap();
        slow.write_all(b"half").unwrap();
        let waiting = store.changed("p/", Some(seen), MAX_WAIT);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(PATIENCE * 2, &mut waiting).await;
        assert!(early.is_err(), "half a file was taken: {early:?}");
        slow.write_all(b" and half").unwrap();
        drop(slow);
        let listing = waiting.await.unwrap();
        assert_eq!(listing.entries[1].value, b"half and half");
    });
}

#[test]
fn what_is_passed_over_is_named() {
    let (_folder, store) = store();
    let orders = store.inner.root.join("h/hosts/db1/orders");
    fs::create_dir_all(&orders).unwrap();
    let left = ["x.bak", "x~", "x.rpmsave", "x.dpkg-dist", "#x#", ".x.swp", "x.orig", "x.tmp"];
    for name in left.iter().chain(&["x", "loose"]) {
        fs::write(orders.join(name), "task: count").unwrap();
    }
    fs::set_permissions(orders.join("loose"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink(orders.join("x"), orders.join("link")).unwrap();
    let listing = block(store.list("h/hosts/db1/orders/")).unwrap();
    assert_eq!(keys(&listing), ["h/hosts/db1/orders/x"]);
    let named: BTreeMap<String, String> = store.passed_over("h/hosts/db1/orders/").into_iter().collect();
    for name in left.iter().chain(&["loose", "link"]) {
        assert!(named.contains_key(&format!("h/hosts/db1/orders/{name}")), "{name}: {named:?}");
    }
    assert!(named["h/hosts/db1/orders/loose"].contains("chmod go-w"));
    assert!(block(store.put("h/hosts/db1/orders/y.bak", vec![], When::Always)).is_err());
    // A host may be called so.
    assert!(block(store.put("h/reports/agents/db1.old", vec![], When::Always)).unwrap());
    assert!(store.passed_over("h/groups/x/").is_empty());
}
