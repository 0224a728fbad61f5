//! The folder of one run.
//!
//! The version in its plan stands for all of it: whoever can read the plan can read what agent and executor write
//! beside it, and a change of any of that is a new version of plans. So a folder of a newer program is known by its
//! plan, before anything follows from it. The lock on a claim, and which copy of the task is in use, tell any version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::claim::{Claim, ClaimState};
use super::journal::{self, JournalError};
use crate::domain::format;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::{Document, MAX_ORDER};
use crate::domain::plan::Plan;
use crate::domain::run::State;
use crate::domain::state::RunRequest;
use crate::domain::yaml::single_line;
use crate::host::disk::{self, DiskError, PathContext};

/// A plan is made from an order of at most 64 KiB and a task of at most 1 MiB.
const MAX_PLAN: u64 = 4 << 20;

/// The request that the run shall end.
const CANCEL: &str = "request.1";

/// Which versions of its secrets the run reads; never what they are.
const SECRETS: &str = "secrets";

/// The version of that file that this program writes and the only one that it reads.
const SECRETS_VERSION: u32 = 1;

/// A request is a name, a reason, and little more.
const MAX_REQUEST: u64 = 16 << 10;

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The journal.
    #[error("run {run}: {source}")]
    Journal {
        /// Whose.
        run: RunId,
        /// What is wrong with it.
        #[source]
        source: JournalError,
    },
    /// A newer program made it.
    #[error(
        "run {run}: its plan has format {version}, and this program knows {}: install the newer hostler again",
        format::newest_plan()
    )]
    Newer {
        /// Whose.
        run: RunId,
        /// Its version.
        version: u64,
    },
    /// There is no readable plan.
    #[error("run {run}: its plan cannot be read: {why}")]
    Plan {
        /// Whose.
        run: RunId,
        /// What is wrong with it.
        why: String,
    },
}

/// Why an executor left without a claim: it could not read the run's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// One line for the operator.
    pub why: String,
    /// How long Vault wants to be left alone, in seconds, if it says so.
    #[serde(default)]
    pub after: Option<u64>,
}

/// How far a step under way has come; a hint for people, lost without harm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// In percent.
    #[serde(default)]
    pub progress: Option<u8>,
    /// What it says.
    #[serde(default)]
    pub message: Option<String>,
}

/// What is read of a plan before the rest of it is believed.
#[derive(Deserialize)]
struct Any {
    version: u64,
}

/// What any version of a plan says of its task.
#[derive(Deserialize)]
struct Uses {
    task_digest: String,
}

#[derive(Serialize, Deserialize)]
struct Secrets {
    version: u32,
    versions: BTreeMap<Name, u64>,
}

/// The folder of one run.
#[derive(Clone, Debug)]
pub struct Folder {
    run: RunId,
    path: PathBuf,
}

/// Who asked, where the request cannot be read.
const NOT_KNOWN: &str = "somebody whose request cannot be read";

/// The reason of such a request.
fn unread(name: &str, read: Result<RunRequest, String>) -> String {
    let why = read.map_or_else(|why| why, |_| "it asks for something else".to_owned());
    let why = single_line(&why);
    tracing::error!("cannot read the request {name} of a run, treating it as made: {why}");
    format!("the file {name} in the run's folder: {why}")
}

impl Folder {
    /// The folder of `run` below `runs`; it need not exist.
    pub fn new(runs: &Path, run: RunId) -> Self {
        Self { run, path: runs.join(run.to_string()) }
    }

    /// Takes the folder at `path`, whose name is the run's id.
    pub fn at(path: &Path) -> Result<Self, FolderError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let run = name.parse().map_err(io::Error::other).with_path("use", path)?;
        Ok(Self { run, path: path.to_owned() })
    }

    /// Which run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Makes the folder with order and plan, all on the disk when this returns. A folder that an earlier,
    /// never recorded attempt left is replaced.
    pub fn create(&self, order: &[u8], plan: &Plan) -> Result<(), FolderError> {
        self.remove()?;
        let json = serde_json::to_vec_pretty(plan).map_err(|error| self.bad_plan(&error))?;
        fs::create_dir(&self.path).with_path("create", &self.path)?;
        disk::write_new(&self.path.join("order"), order, 0o600)?;
        disk::write_new(&self.path.join("plan"), &json, 0o600)?;
        disk::sync_dir(&self.path)?;
        disk::sync_dir(disk::parent(&self.path))?;
        Ok(())
    }

    /// Removes the folder with all that is in it; the caller knows that nobody needs it.
    pub fn remove(&self) -> Result<(), FolderError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_path("remove", &self.path).map_err(Into::into)
            }
            _ => Ok(()),
        }
    }

    /// The plan.
    pub fn plan(&self) -> Result<Plan, FolderError> {
        let json = self.plan_text()?;
        let Any { version } = serde_json::from_slice(&json).map_err(|error| self.bad_plan(&error))?;
        if version > u64::from(format::newest_plan()) {
            return Err(FolderError::Newer { run: self.run, version });
        }
        let plan: Plan = serde_json::from_slice(&json).map_err(|error| self.bad_plan(&error))?;
        if plan.run != self.run {
            return Err(self.bad_plan(&format!("it is the plan of run {}", plan.run)));
        }
        Ok(plan)
    }

    /// The document of the order that the run carried out; `None`: it cannot be read.
    pub fn order(&self) -> Option<Vec<u8>> {
        disk::read(&self.path.join("order"), MAX_ORDER as u64).ok().flatten()
    }

    /// By whom and why the run was ordered, as its order says; nothing where that cannot be read.
    pub fn ordered_by(&self) -> (Option<String>, Option<String>) {
        match Document::read(&self.order().unwrap_or_default()) {
            Ok(Document::Order(order)) => (order.by, order.reason),
            Ok(Document::Skip) | Err(_) => (None, None),
        }
    }

    /// The digest of the copy that the run uses, whichever version of a plan says it.
    pub fn task_digest(&self) -> Result<String, FolderError> {
        let uses: Uses = serde_json::from_slice(&self.plan_text()?).map_err(|error| self.bad_plan(&error))?;
        Ok(uses.task_digest)
    }

    /// Whether a crash came before the plan was written: there is none, and nobody has claimed the run. What cannot be
    /// read is not unfinished.
    pub fn is_unfinished(&self) -> bool {
        let no_plan = matches!(self.path.join("plan").try_exists(), Ok(false));
        no_plan && matches!(self.newest_claim(), Ok((0, ClaimState::None)))
    }

    fn plan_text(&self) -> Result<Vec<u8>, FolderError> {
        disk::read(&self.path.join("plan"), MAX_PLAN)?.ok_or_else(|| self.bad_plan(&"it is missing"))
    }

    fn bad_plan(&self, why: &dyn std::fmt::Display) -> FolderError {
        FolderError::Plan { run: self.run, why: single_line(&why.to_string()) }
    }

    /// Where the run stands.
    pub fn state(&self, plan: &Plan) -> Result<State, FolderError> {
        journal::read(&self.journal(), plan).map_err(|source| FolderError::Journal { run: self.run, source })
    }

    /// The newest epoch that somebody has or had, and its claim; epoch 0 where there is none.
    pub fn newest_claim(&self) -> Result<(u32, ClaimState), FolderError> {
        let mut newest = 0;
        for entry in fs::read_dir(&self.path).with_path("list", &self.path)? {
            let name = entry.with_path("list", &self.path)?.file_name();
            let epoch = name.to_str().and_then(|name| name.strip_prefix("claim.")?.parse().ok());
            newest = newest.max(epoch.unwrap_or(0));
        }
        let claim = if newest == 0 { ClaimState::None } else { Claim::look(&self.path, newest)? };
        Ok((newest, claim))
    }

    /// Writes an operator's request to the run; it is on the disk when this returns. Each request is written once.
    pub fn request(&self, request: &RunRequest) -> Result<(), FolderError> {
        let path = self.path.join(match request {
            RunRequest::Cancel { .. } => CANCEL.to_owned(),
            RunRequest::Undo { before, .. } | RunRequest::StepDone { before, .. } => undo_name(*before),
        });
        if path.exists() {
            return Ok(());
        }
        let json = serde_json::to_vec(request).map_err(io::Error::other).with_path("write", &path)?;
        disk::replace(&path, &json, 0o600)?;
        Ok(())
    }

    /// The request to cancel the run; `None` if there is none. A file that cannot be read counts as a request: it exists
    /// because somebody made one.
    pub fn cancel(&self) -> Option<RunRequest> {
        match self.requested(CANCEL)? {
            Ok(asked @ RunRequest::Cancel { .. }) => Some(asked),
            other => Some(RunRequest::Cancel { by: NOT_KNOWN.to_owned(), reason: unread(CANCEL, other) }),
        }
    }

    /// What an operator wants of the ended run, after so many times before: taken back, or gone on with; as
    /// [`Folder::cancel`].
    pub fn undo(&self, before: u32) -> Option<RunRequest> {
        let name = undo_name(before);
        match self.requested(&name)? {
            Ok(asked @ (RunRequest::Undo { .. } | RunRequest::StepDone { .. })) => Some(asked),
            other => {
                Some(RunRequest::Undo { by: NOT_KNOWN.to_owned(), reason: unread(&name, other), before })
            }
        }
    }

    /// What a file asks for, or why it cannot be read; `None`: there is no such file, or it cannot be told.
    fn requested(&self, name: &str) -> Option<Result<RunRequest, String>> {
        let path = self.path.join(name);
        match disk::read(&path, MAX_REQUEST) {
            Ok(json) => Some(serde_json::from_slice(&json?).map_err(|error| error.to_string())),
            Err(error) => path.symlink_metadata().ok().map(|_| Err(error.to_string())),
        }
    }

    /// The versions of the run's secrets that its first epoch read: every later one reads the same.
    pub fn secret_versions(&self) -> Result<BTreeMap<Name, u64>, FolderError> {
        let path = self.path.join(SECRETS);
        let Some(json) = disk::read(&path, MAX_REQUEST)? else { return Ok(BTreeMap::new()) };
        let read: Secrets =
            serde_json::from_slice(&json).map_err(io::Error::other).with_path("read", &path)?;
        if read.version != SECRETS_VERSION {
            let why = format!("its version {} is not {SECRETS_VERSION}", read.version);
            return Err(io::Error::other(why)).with_path("read", &path).map_err(Into::into);
        }
        Ok(read.versions)
    }

    /// Remembers them, on the disk when this returns.
    pub fn set_secret_versions(&self, versions: &BTreeMap<Name, u64>) -> Result<(), FolderError> {
        let path = self.path.join(SECRETS);
        let secrets = Secrets { version: SECRETS_VERSION, versions: versions.clone() };
        let json = serde_json::to_vec(&secrets).map_err(io::Error::other).with_path("write", &path)?;
        disk::replace(&path, &json, 0o600)?;
        Ok(())
    }

    /// Why the executor of an epoch left without its claim, if it did and said so.
    pub fn unready(&self, epoch: u32) -> Option<NotReady> {
        let json = disk::read(&self.path.join(unready_name(epoch)), MAX_REQUEST).ok().flatten()?;
        serde_json::from_slice(&json).ok()
    }

    /// Says so: renamed into place, but not synced, since whoever does not find it asks again anyway.
    pub fn set_unready(&self, epoch: u32, why: &NotReady) -> io::Result<()> {
        let temp = self.path.join("unready.tmp");
        fs::write(&temp, serde_json::to_vec(why)?)?;
        fs::rename(&temp, self.path.join(unready_name(epoch)))
    }

    /// Forgets what an earlier executor of this epoch said.
    pub fn forget_unready(&self, epoch: u32) {
        // Nothing there is the rule.
        let _ = fs::remove_file(self.path.join(unready_name(epoch)));
    }

    /// How far the step under way has come.
    pub fn progress(&self) -> Progress {
        let json = disk::read(&self.path.join("progress"), 16 << 10).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&json).unwrap_or_default()
    }

    /// Says how far the step has come: renamed into place, but not synced.
    pub fn set_progress(&self, progress: &Progress) -> io::Result<()> {
        // A step and the guard of it may say something at the same time, from two processes.
        let temp = self.path.join(format!("progress.{}.tmp", std::process::id()));
        fs::write(&temp, serde_json::to_vec(progress)?)?;
        fs::rename(&temp, self.path.join("progress"))
    }
}

fn unready_name(epoch: u32) -> String {
    format!("unready.{epoch}")
}

/// The request about the ended run, after so many times before.
fn undo_name(before: u32) -> String {
    format!("request.{}", before.saturating_add(2))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_request_that_cannot_be_read_counts_as_asked() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::new(runs.path(), RunId::new(1, 1));
        fs::create_dir(folder.path()).unwrap();
        assert_eq!((folder.cancel(), folder.undo(0)), (None, None), "nobody asked");
        let cancel = RunRequest::Cancel { by: "alice".into(), reason: "why".into() };
        let undo = |before| RunRequest::Undo { by: "alice".into(), reason: "why".into(), before };
        folder.request(&cancel).unwrap();
        folder.request(&undo(0)).unwrap();
        assert_eq!((folder.cancel(), folder.undo(0), folder.undo(1)), (Some(cancel), Some(undo(0)), None));
        // Cut short, too long, of another kind, or no file at all.
        let cancel_text = fs::read(folder.path().join(CANCEL)).unwrap();
        let long = vec![b' '; usize::try_from(MAX_REQUEST).unwrap() + 1];
        for text in [&b""[..], b"{", &cancel_text[..10], b"\xff", b"{\"act\": \"dance\"}", &long] {
            for name in [CANCEL.to_owned(), undo_name(3)] {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let (asked, undone) = (folder.cancel(), folder.undo(3));
            assert!(matches!(&asked, Some(RunRequest::Cancel { by, .. }) if by == NOT_KNOWN), "{asked:?}");
            assert!(matches!(&undone, Some(RunRequest::Undo { before: 3, .. })), "{undone:?}");
        }
        fs::write(folder.path().join(undo_name(4)), &cancel_text).unwrap();
        assert!(matches!(folder.undo(4), Some(RunRequest::Undo { before: 4, .. })));
        symlink("elsewhere/nothing", folder.path().join(undo_name(5))).unwrap();
        assert_eq!(folder.undo(5), None, "there is nothing");
        fs::create_dir(folder.path().join(undo_name(6))).unwrap();
        assert!(matches!(folder.undo(6), Some(RunRequest::Undo { .. })));
    }
}
