//! Time that passes faster for one host: for the program as it ships, whose clocks nobody can set.
//!
//! A small library (`hurry.c`) is compiled with the linker that Rust needs anyway, and loaded before the C library.
//! All timers of the agent really fire, only sooner; its executors have the same clock, its steps and everything else the
//! machine's. Debian's libfaketime cuts time-outs of epoll to whole milliseconds, so that each wait of less than its speed
//! becomes a busy loop, and does not know the futex on which Rust's threads wait: they would wait for years.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::Host;

/// The library.
const LIBRARY: &str = include_str!("hurry.c");

/// As many phases as the library reads, and what each has in the file: since when, and how fast.
const MAX_PHASES: usize = 16;
const PHASE: usize = 16;

/// A clock that runs as fast as the test says.
pub struct TimeWarp {
    folder: TempDir,
    file: File,
    phases: RefCell<Vec<(Duration, u32)>>,
}

impl TimeWarp {
    /// A clock that runs as the machine's does.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("hurry.c");
        fs::write(&source, LIBRARY).expect("the library's source");
        let mut compile = Command::new("cc");
        compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared", "-o"]);
        let compiled =
            compile.arg(folder.path().join("hurry.so")).arg(source).status().expect("a C compiler");
        assert!(compiled.success(), "hurry.c is not compiled");
        let path = folder.path().join("phases");
        fs::write(&path, [0; MAX_PHASES * PHASE]).expect("the phases");
        let file = File::options().write(true).open(path).expect("the phases");
        Self { folder, file, phases: RefCell::default() }
    }

    /// Gives a host this clock from its next start on.
    pub fn take(&self, host: &mut Host) {
        host.set_env("LD_PRELOAD", &self.path("hurry.so").display().to_string());
        host.set_env("HURRY_FILE", &self.path("phases").display().to_string());
    }

    /// From now on time passes so many times as fast. Whoever waits already may wait as long as the machine's clock says.
    pub fn run(&self, speed: u32) {
        let mut phases = self.phases.borrow_mut();
        assert!(phases.len() < MAX_PHASES && speed > 0, "no more phases than {MAX_PHASES}");
        let now = machine();
        let at = (phases.len() * PHASE) as u64;
        let since = i64::try_from(now.as_nanos()).expect("a machine that was started in this century");
        // A phase counts from when it has a speed.
        self.file.write_all_at(&since.to_ne_bytes(), at).expect("the phases");
        self.file.write_all_at(&i64::from(speed).to_ne_bytes(), at + 8).expect("the phases");
        phases.push((now, speed));
    }

    /// How far this clock is ahead of the machine's.
    pub fn ahead(&self) -> Duration {
        let phases = self.phases.borrow();
        let ends = phases.iter().skip(1).map(|(since, _)| *since).chain([machine()]);
        phases.iter().zip(ends).map(|((since, speed), end)| (end - *since) * (speed - 1)).sum()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn machine() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the machine's clock").into()
}
