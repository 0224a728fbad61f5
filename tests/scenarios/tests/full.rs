//! A disk that is full to the last byte, or to the last inode: nothing is lost or done twice, and an order frees it.
//!
//! The state folder is on a small file system, beside the garbage that fills it, which takes root to mount.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small file system with the state folder and the garbage, gone with the test.
struct Small {
    disk: PathBuf,
    state: PathBuf,
}

impl Small {
    fn of(host: &Host, options: &str) -> Self {
        let small = Self { disk: host.path("disk"), state: host.path("state") };
        fs::create_dir_all(&small.disk).expect("a folder");
        fs::create_dir_all(&small.state).expect("a folder");
        let mounts = mount(Some("tmpfs"), &small.disk, Some("tmpfs"), MsFlags::empty(), Some(options));
        mounts.unwrap_or_else(|error| panic!("a file system cannot be mounted, which takes root: {error}"));
        let on_disk = small.disk.join("state");
        fs::create_dir(&on_disk).expect("a folder");
        mount(Some(&on_disk), &small.state, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a mount");
        small
    }

    fn garbage(&self) -> PathBuf {
        self.disk.join("garbage")
    }

    /// Takes every byte that is left.
    fn fill_bytes(&self) {
        fs::create_dir_all(self.garbage()).expect("a folder");
        let mut file = File::create(self.garbage().join("bytes")).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            let block = vec![b'x'; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Takes every inode that is left.
    fn fill_inodes(&self) {
        fs::create_dir_all(self.garbage()).expect("a folder");
        let new = |n: u32| File::create_new(self.garbage().join(format!("inode.{n}"))).is_ok();
        assert!((0..).take_while(|n| new(*n)).count() > 10);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.state, MntFlags::MNT_DETACH);
        let _ = umount2(&self.disk, MntFlags::MNT_DETACH);
    }
}

fn cleanup(host: &Host) {
    host.shipped("disk-cleanup", &format!("places: {{clean: [{}]}}\n", host.path("disk").display()));
}

fn order_cleanup(host: &Host, small: &Small) {
    let place = small.garbage().display().to_string();
    host.order("free", &format!("task: disk-cleanup\nparams: {{places: [{place}], older_than_days: 0}}"));
    let report = host.wait_for("free", &["succeeded"]);
    assert!(report["outputs"]["files"].as_str().is_some_and(|files| files != "0"), "{report}");
    assert!(host.log_tail().contains("releasing the disk reserve"), "{}", host.log_tail());
}

/// A step that waits in the middle until it may go on, and two more.
fn slow_task(host: &Host) {
    host.counting_task("count", "once:x", "0");
    let add = fs::read_to_string(host.path("tasks/count/add")).expect("a script");
    let go = host.path("go").display().to_string();
    let wait = format!("#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.1; done\nexec ./add \"$1\" 0\n");
    let has = fs::read_to_string(host.path("tasks/count/has")).expect("a script");
    host.task(
        "slow",
        "name: slow\nversion: 1\ntimeout: 300s\nsteps:\n  \
         - {name: a, run: [./wait, a], check: [./has, a]}\n  \
         - {name: b, run: [./add, b, '0'], check: [./has, b]}\n",
        &[("add", &add), ("wait", &wait), ("has", &has)],
    );
}

fn a_full_disk(name: &str, options: &str, fill: impl Fn(&Small)) {
    let mut host = Host::on_dir(name);
    let small = Small::of(&host, options);
    slow_task(&host);
    cleanup(&host);
    host.start();
    host.order("long", "task: slow");
    host.wait_until("long", "at its first step", |report| report["step"]["name"] == "a");
    eventually(DEFAULT_TIMEOUT, || match host.path("state/reserve/bytes").exists() {
        true => Ok(()),
        false => Err(format!("no reserve; {}", host.log_tail())),
    });
    fill(&small);
    host.order("next", "task: count");
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains("disk full") { Ok(()) } else { Err(report) }
    });
    // The step ends on the full disk, and whatever becomes of its run, it does so once.
    fs::write(host.path("go"), "").expect("a file");
    eventually(DEFAULT_TIMEOUT, || {
        if host.effects("long").is_empty() { Err("no effect".to_owned()) } else { Ok(()) }
    });
    assert!(host.effects("next").is_empty(), "{}", host.log_tail());
    order_cleanup(&host, &small);
    host.wait_for("next", &["succeeded"]);
    host.wait_for("long", &["succeeded"]);
    assert_eq!(host.effects("next"), ["x"]);
    assert_eq!(host.effects("long"), ["a", "b"]);
    // The reserve is whole again for the next time.
    eventually(DEFAULT_TIMEOUT, || match host.path("state/reserve/bytes").exists() {
        true => Ok(()),
        false => Err(format!("no reserve; {}", host.log_tail())),
    });
    let (status, text) = host.hostler(&["audit", "--verify"]);
    assert_eq!(status, 0, "{text}");
}

#[test]
fn full_to_the_last_byte() {
    a_full_disk("bytes", "size=40m,mode=0755", Small::fill_bytes);
}

#[test]
fn full_to_the_last_inode() {
    a_full_disk("inodes", "size=80m,nr_inodes=600,mode=0755", Small::fill_inodes);
}

#[test]
fn an_agent_that_starts_on_a_full_disk_carries_out_what_frees_it() {
    let mut host = Host::on_dir("start-full");
    let small = Small::of(&host, "size=40m,mode=0755");
    slow_task(&host);
    cleanup(&host);
    host.start();
    host.order("first", "task: count");
    host.wait_for("first", &["succeeded"]);
    host.kill();
    small.fill_bytes();
    host.order("next", "task: count");
    host.start();
    eventually(DEFAULT_TIMEOUT, || {
        let report = host.agent_report().unwrap_or_default().to_string();
        if report.contains("disk full") { Ok(()) } else { Err(format!("{report}; {}", host.log_tail())) }
    });
    order_cleanup(&host, &small);
    host.wait_for("next", &["succeeded"]);
    assert_eq!((host.effects("first").len(), host.effects("next").len()), (1, 1));
}
