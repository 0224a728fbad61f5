//! Clusters that this program makes: whose work they are, and whether they are whole.
//!
//! A half-made cluster looks whole to Debian's tools. So an intent with the version and the run is on the disk before the
//! first change, and its copy in the data when all is done. Only the run that began a cluster, or somebody by hand, takes
//! it back: a second order for the same name must never remove what the first one has made.

use std::fs;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout;

/// The run of whoever works without one.
const BY_HAND: &str = "by-hand";

/// The intent to make a cluster.
pub struct Intent {
    kind: &'static str,
    name: String,
}

/// One that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Version of the cluster.
    pub version: u16,
    /// The run that began it.
    pub run: String,
}

/// The run that this process belongs to.
pub(crate) fn run() -> String {
    std::env::var("HOSTLER_RUN").ok().filter(|run| !run.is_empty()).unwrap_or_else(|| BY_HAND.to_owned())
}

/// Whether this process may take back what a run has begun: as that run, or by hand.
pub(crate) fn may_take_back(begun: &str) -> bool {
    let run = run();
    run == begun || run == BY_HAND
}

impl Begun {
    fn text(&self) -> String {
        format!("{} {}\n", self.version, self.run)
    }

    /// Whether this process may take it back.
    pub fn ours(&self) -> bool {
        may_take_back(&self.run)
    }

    /// Whether the cluster in this folder was made whole by this run.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn whole(&self, data: &Path) -> Result<bool, Error> {
        Ok(self.ours() && durable::read(&marker(data))? == Some(self.text()))
    }

    /// Says in the data that the cluster is whole.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn complete(&self, data: &Path, owner: Owner) -> Result<(), Error> {
        durable::replace(&marker(data), &self.text(), owner)
    }
}

fn marker(data: &Path) -> PathBuf {
    data.join("hostler.made")
}

impl Intent {
    /// That of a kind of work, for a cluster of this name.
    pub fn new(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        durable::state().join(format!("{}-{}", self.kind, self.name))
    }

    /// What is on the disk.
    ///
    /// # Errors
    /// If it is there and cannot be understood.
    pub fn begun(&self) -> Result<Option<Begun>, Error> {
        let path = self.path();
        let Some(text) = durable::read(&path)? else { return Ok(None) };
        let parts = text.trim_end().split_once(' ');
        let begun = parts
            .and_then(|(version, run)| Some(Begun { version: version.parse().ok()?, run: run.to_owned() }));
        begun
            .map(Some)
            .ok_or_else(|| Error::Unclear(format!("{} does not say a version and a run", path.display())))
    }

    /// Writes it, where none is.
    ///
    /// # Errors
    /// If there is one of a cluster that still exists, or it cannot be written.
    pub fn begin(&self, version: u16) -> Result<Begun, Error> {
        self.unbegun()?;
        let folder = durable::state();
        fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
        let begun = Begun { version, run: run() };
        durable::replace(&self.path(), &begun.text(), Owner { uid: 0, gid: 0 })?;
        Ok(begun)
    }

    /// Whether nothing was begun.
    ///
    /// # Errors
    /// [`Error::Refused`] if something was, with its cure.
    pub fn unbegun(&self) -> Result<(), Error> {
        let Some(begun) = self.begun()? else { return Ok(()) };
        let (kind, name) = (self.kind, &self.name);
        let exists = [layout::data(begun.version, name), layout::conf(begun.version, name)];
        if !exists.iter().any(|path| layout::occupied(path)) {
            // Somebody has dropped the cluster since.
            return self.forget();
        }
        Err(Error::Refused(format!(
            "{}/{name} was made or begun by {kind}, run {}: say another name, or remove it with `hostler-postgres {kind} undo \
             --cluster {name}`",
            begun.version, begun.run
        )))
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it could come back.
    pub fn forget(&self) -> Result<(), Error> {
        durable::remove(&self.path())
    }
}
