//! The raw limit: a loop that waits for a key, starts one command, syncs as often as it is told, and answers.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hostler_testkit::request;

use crate::syncs::Syncs;

/// Waits for the key to have a value that `good` likes; starts at index `from`.
pub(crate) fn wait(port: u16, key: &str, mut from: u64, good: impl Fn(&str) -> bool) -> u64 {
    for _ in 0..200 {
        let target = format!("/v1/kv/{key}?raw&index={from}&wait=8s");
        let answer = request(port, "GET", &target, None, b"").expect("an answer of consul");
        let index = answer.header("X-Consul-Index").and_then(|text| text.parse().ok()).unwrap_or(0);
        if answer.status == 200 && good(&answer.text()) {
            return index;
        }
        if index == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        from = index.max(1);
    }
    panic!("{key} never came to be as wanted");
}

/// What starts a command as a unit of systemd and waits for its end.
const AS_UNIT: [&str; 4] = ["--quiet", "--wait", "--collect", "--property=Type=exec"];

/// One who answers by a command that writes a mark.
#[derive(Clone, Copy)]
pub(crate) struct Answerer<'a> {
    /// `KEY/order` says which round it is, `KEY/report` gets the same.
    pub(crate) key: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) syncs: Syncs,
    /// Whether the command is a unit of systemd.
    pub(crate) unit: bool,
}

/// Answers so many rounds.
pub(crate) fn answer(port: u16, count: usize, answerer: Answerer<'_>) {
    let Answerer { key, program, folder, syncs, unit } = answerer;
    let mark = folder.join(key.replace('/', "-"));
    let mut index = 1;
    for round in 0..count {
        let wanted = round.to_string();
        index = wait(port, &format!("{key}/order"), index, |text| text == wanted);
        let mut disk = Disk::new(folder, round);
        // Half before the command, as an intent, half after it, as an outcome.
        (0..syncs.data / 2).for_each(|_| disk.append());
        (0..syncs.whole / 2).for_each(|at| disk.file(at));
        let mut command = if unit { Command::new("systemd-run") } else { Command::new(program) };
        if unit {
            command.args(AS_UNIT).arg(program);
        }
        command.arg("mark").arg(&mark).status().expect("the command");
        (syncs.data / 2..syncs.data).for_each(|_| disk.append());
        (syncs.whole / 2..syncs.whole).for_each(|at| disk.file(at));
        let target = format!("/v1/kv/{key}/report");
        request(port, "PUT", &target, None, wanted.as_bytes()).expect("an answer of consul");
    }
}

struct Disk {
    folder: PathBuf,
    log: File,
}

impl Disk {
    fn new(folder: &Path, round: usize) -> Self {
        let log = File::options().append(true).create(true).open(folder.join(format!("log-{}", round % 2)));
        Self { folder: folder.to_owned(), log: log.expect("a log") }
    }

    fn append(&mut self) {
        self.log.write_all(&[b'x'; 200]).and_then(|()| self.log.sync_data()).expect("an append");
    }

    /// By turns: a file is written and synced, and renamed with its folder synced.
    fn file(&self, at: usize) {
        let (temp, path) = (self.folder.join("temp"), self.folder.join("file"));
        let done = if at.is_multiple_of(2) {
            File::create(&temp)
                .and_then(|mut file| file.write_all(&[b'x'; 1000]).and_then(|()| file.sync_all()))
        } else {
            fs::rename(&temp, &path).and_then(|()| File::open(&self.folder)?.sync_all())
        };
        done.expect("a durable file");
    }
}
