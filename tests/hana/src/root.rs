//! The root folder of a played host: where it lies, what its paths are, how fast its time runs, and its record of calls.
//!
//! A tool knows its root by the marker folder `.hana-standins` above its own file (the tools are hard links of one
//! program), or by `HANA_STANDINS_ROOT`. A path from outside that does not lie below the root is meant below it; a path
//! that a tool prints can be opened as printed.

use crate::faults::Faults;
use crate::files;
use crate::halt::Halt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder whose presence makes its parent a root.
pub(crate) const MARKER: &str = ".hana-standins";

/// What a test sets for one host, in `.hana-standins/settings.json`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The host's name; `None`: that of the kernel.
    pub(crate) host: Option<String>,
    /// Real seconds that a nominal second lasts.
    pub(crate) factor: f64,
    /// Other hosts by name, and their roots.
    #[serde(default)]
    pub(crate) peers: BTreeMap<String, PathBuf>,
}

/// One played host.
#[derive(Clone)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// The root of the tool that runs. Halts with 70 where there is none.
    pub(crate) fn find() -> Result<Self, Halt> {
        if let Some(path) = std::env::var_os("HANA_STANDINS_ROOT") {
            return Ok(Self { path: PathBuf::from(path) });
        }
        let own = std::env::current_exe()?;
        let found = own.ancestors().skip(1).find(|above| above.join(MARKER).is_dir());
        let path = found
            .ok_or_else(|| Halt::new(70, format!("hana-standins: {} lies below no root", own.display())))?;
        Ok(Self::new(path))
    }

    /// Where the path lies on this host.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if path.starts_with(&self.path) {
            return path.to_path_buf();
        }
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file of the stand-ins' own.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path.join(MARKER).join(name)
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.join(MARKER).is_dir()
    }

    pub(crate) fn faults(&self) -> Faults {
        Faults::new(&self.path.join(MARKER))
    }

    pub(crate) fn settings(&self) -> Settings {
        let none = Settings { host: None, factor: 1.0, peers: BTreeMap::new() };
        files::load(&self.state("settings.json")).ok().flatten().unwrap_or(none)
    }

    /// The name of the host.
    pub(crate) fn host(&self) -> String {
        self.settings().host.unwrap_or_else(|| {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_string()
        })
    }

    /// Another host by its name, or this one.
    pub(crate) fn peer(&self, host: &str) -> Option<Self> {
        if [self.host().as_str(), "localhost", "127.0.0.1"].contains(&host) {
            return Some(self.clone());
        }
        self.settings().peers.get(host).map(|path| Self::new(path)).filter(Self::exists)
    }

    /// Real microseconds of nominal seconds.
    pub(crate) fn micros(&self, nominal: f64) -> i64 {
        let micros = nominal * self.settings().factor * 1e6;
        if micros >= 9e18 { i64::MAX } else { micros as i64 }
    }

    /// Sleeps for nominal seconds.
    pub(crate) fn sleep(&self, nominal: f64) {
        std::thread::sleep(Duration::from_micros(u64::try_from(self.micros(nominal)).unwrap_or(0)));
    }

    /// Notes who was called with which arguments: `.hana-standins/calls`, a JSON array a line.
    pub(crate) fn note_call(&self, arguments: &[String]) {
        let line = serde_json::to_string(arguments).unwrap_or_default() + "\n";
        if let Ok(mut file) = files::lock_file(&self.state("calls")) {
            // A record for tests: a full disk must not change what the tool does.
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Shows this process in the host's own /proc, where it has one: the link leads to nothing when the process has ended.
    pub(crate) fn show_process(&self) {
        let (own, pid) = (self.path.join("proc"), std::process::id().to_string());
        if self.path != Path::new("/") && own.is_dir() {
            // A process that had this number before may have left its link.
            let _ = fs::remove_file(own.join(&pid));
            let _ = std::os::unix::fs::symlink(Path::new("/proc").join(&pid), own.join(&pid));
        }
    }

    /// Puts a tool at its place: a hard link of the program.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Result<(), Halt> {
        let place = self.at(path);
        files::folder(place.parent().unwrap_or(Path::new("/")))?;
        let beside = place.with_extension(format!("{}.link", std::process::id()));
        let _ = fs::remove_file(&beside);
        let program = self.state("program");
        if fs::hard_link(&program, &beside).is_err() {
            fs::copy(&program, &beside)?;
        }
        // The rename of one hard link over another of the same file changes nothing and leaves both.
        let renamed = fs::rename(&beside, &place);
        let _ = fs::remove_file(&beside);
        Ok(renamed?)
    }
}
