//! The faults on demand: one list, and the file below the root in which a test asks for them.
//!
//! A line of `.hana-standins/faults` is `NAME[*TIMES] [ARGUMENT]`. With `*TIMES` a fault happens that often and then no
//! more; without, until the line is removed. A name that is not in the list ends every tool with 70, so that a slip in a
//! test is not a test that passes.

use crate::halt::Halt;
use std::fs;
use std::path::{Path, PathBuf};

/// Name, argument, effect.
pub(crate) const LIST: &[(&str, &str, &str)] = &[
    ("crash", "POINT", "the tool is killed (SIGKILL) at this crash point"),
    (
        "kill-step",
        "POINT",
        "at this crash point the hostler-hana that called the tool is killed; the tool goes on",
    ),
    (
        "kill-executor",
        "POINT",
        "at this crash point the hostler that carries out the step is killed; the tool goes on",
    ),
    ("disk-full", "PATH", "every write to a file below PATH fails: No space left on device"),
    ("media-version", "VERSION", "SAPCAR extracts media of this version, whatever the archive's name says"),
    ("hdblcm-fails", "PHASE", "hdblcm ends with 1 at this phase and leaves its state"),
    ("stale-instance", "SID NN", "ListInstances shows an instance that is not there"),
    ("process-yellow", "PROCESS", "the process stays YELLOW when the system starts"),
    ("sapstartsrv-refuses", "", "sapcontrol finds no sapstartsrv: FAIL: NIECONN_REFUSED, 1"),
    ("sapstartsrv-hangs", "", "sapcontrol waits for an answer that does not come"),
    ("hdbsql-hangs", "TEXT", "hdbsql never answers a statement that holds TEXT (empty: each)"),
    ("hdbsql-loses", "TEXT", "the statement that holds TEXT is carried out, then the connection is lost"),
    ("hdbsql-refuses", "", "hdbsql cannot connect"),
    ("tenant-not-in-backup", "DATABASE", "a data backup of the database succeeds and is not in the catalog"),
    ("log-backup-lost", "DATABASE", "a log backup of the database (empty: each) is in the catalog alone"),
    ("backint-error", "TEXT", "HANA reads #ERROR for a stream whose name holds TEXT"),
    (
        "replication-status",
        "11|12|13|14",
        "on a primary: its replication falls to this status, and ships nothing",
    ),
    ("license-expired", "", "M_LICENSE shows an expired license, and statements are refused"),
];

/// The file of the faults.
pub(crate) struct Faults {
    path: PathBuf,
}

impl Faults {
    pub(crate) fn new(state: &Path) -> Self {
        Self { path: state.join("faults") }
    }

    /// The argument of the first fault of this name whose argument fits, and counts it as happened.
    pub(crate) fn find(&self, name: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
        let text = fs::read_to_string(&self.path).ok()?;
        let mut found = None;
        let mut left = Vec::new();
        for line in text.lines() {
            let (named, times, argument) = parts(line);
            if found.is_some() || named != name || times == Some(0) || !fits(argument) {
                left.push(line.to_string());
                continue;
            }
            found = Some(argument.to_string());
            left.push(match times {
                Some(times) => format!("{named}*{} {argument}", times - 1),
                None => line.to_string(),
            });
        }
        let after = left.join("\n") + "\n";
        if found.is_some() && after.trim() != text.trim() {
            // Counted before it happens, so that a tool that dies of it does not die of it again.
            let beside = self.path.with_extension(std::process::id().to_string());
            let counted = fs::write(&beside, after).and_then(|()| fs::rename(&beside, &self.path));
            if counted.is_err() {
                return None;
            }
        }
        found
    }

    /// Is the fault asked for, whatever its argument?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name, |_| true).is_some()
    }

    /// Refuses a file that asks for what is not in the list.
    pub(crate) fn check(&self) -> Result<(), Halt> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (name, _, argument) = parts(line);
            let known = LIST.iter().any(|(known, _, _)| *known == name);
            let at_point = ["crash", "kill-step", "kill-executor"].contains(&name);
            let point = !at_point || crate::files::CRASH_POINTS.contains(&argument);
            if !known || !point {
                return Err(Halt::new(70, format!("hana-standins: there is no fault '{line}'")));
            }
        }
        Ok(())
    }
}

fn parts(line: &str) -> (&str, Option<u32>, &str) {
    let (head, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match head.split_once('*') {
        Some((name, times)) => (name, Some(times.parse().unwrap_or(0)), argument.trim()),
        None => (head, None, argument.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_as_often_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("faults"), "hdbsql-loses*2 INSERT\nhdbsql-refuses\n").unwrap();
        let faults = Faults::new(folder.path());
        let loses = || faults.find("hdbsql-loses", |text| "INSERT INTO T".contains(text));
        assert!(faults.find("hdbsql-loses", |_| false).is_none());
        assert_eq!((loses().is_some(), loses().is_some(), loses().is_some()), (true, true, false));
        assert!(faults.has("hdbsql-refuses") && faults.has("hdbsql-refuses"));
        faults.check().unwrap();
    }

    #[test]
    fn a_fault_that_does_not_exist_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in ["hdbsql-hang x", "crash nowhere"] {
            fs::write(folder.path().join("faults"), wrong).unwrap();
            assert_eq!(Faults::new(folder.path()).check().unwrap_err().code, 70, "{wrong}");
        }
    }

    #[test]
    fn the_readme_lists_each_fault() {
        let readme = include_str!("../README.md");
        for (name, argument, effect) in LIST {
            let row = format!("| `{name}` | {argument} | {effect} |");
            assert!(readme.lines().any(|line| line == row), "{row}");
        }
    }
}
