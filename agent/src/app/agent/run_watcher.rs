//! Tells at once that something changed in the folder of a run; whoever is told looks there himself.
//!
//! What counts is that a claim or a file of progress appears, and that the journal is written or closed, as its executor
//! does behind the last record. So neither what a step prints nor our own reading wakes the agent. A run that waits to be
//! looked at is told of once. A notice that is lost costs a second at most: the folders of runs that go on are also
//! looked at by turns.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, MetadataKind, ModifyKind};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Event;
use crate::domain::ids::RunId;

/// The watches on the folders of runs.
pub(super) struct RunWatcher {
    watcher: RecommendedWatcher,
    watched: BTreeSet<RunId>,
    told: Told,
}

/// The runs that the agent was told of and has not looked at since.
type Told = Arc<Mutex<BTreeSet<RunId>>>;

impl RunWatcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Where the system has no more instances of inotify for this user.
    pub(super) fn open(events: mpsc::Sender<Event>) -> notify::Result<Self> {
        let told = Told::default();
        let telling = Arc::clone(&told);
        let handler = move |event: notify::Result<notify::Event>| {
            // What an error hides is seen by the next regular look.
            let Ok(event) = event else { return };
            for run in event.paths.iter().filter_map(|path| changed(event.kind, path)) {
                let mut told = telling.lock().unwrap_or_else(PoisonError::into_inner);
                // So is whatever is lost in a full queue.
                if told.insert(run) && events.try_send(Event::Folder(run)).is_err() {
                    told.remove(&run);
                }
            }
        };
        let watcher = RecommendedWatcher::new(handler, Config::default())?;
        Ok(Self { watcher, watched: BTreeSet::new(), told })
    }

    /// Watches the folder of a run. To be called before anything there is read.
    pub(super) fn watch(&mut self, run: RunId, folder: &Path) {
        if !self.watched.contains(&run) {
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(run)),
                Err(error) => tracing::trace!("{}: {error}", folder.display()),
            }
        }
    }

    /// The agent looks at the run now: of what changes from here on it is told again.
    pub(super) fn looked_at(&self, run: RunId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }

    /// The run is over.
    pub(super) fn leave(&mut self, run: RunId, folder: &Path) {
        if self.watched.remove(&run) {
            // The folder may be gone, and the watch with it.
            let _ = self.watcher.unwatch(folder);
        }
    }
}

/// The run that has changed by this, if it is one of the changes that count.
fn changed(kind: EventKind, path: &Path) -> Option<RunId> {
    let change = match kind {
        EventKind::Create(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Modify(kind) => kind != ModifyKind::Metadata(MetadataKind::Any),
        _ => false,
    };
    let counts = |name: &OsStr| {
        name == "journal" || name == "progress" || name.as_encoded_bytes().starts_with(b"claim.")
    };
    let run = || path.parent()?.file_name()?.to_str()?.parse().ok();
    if change && path.file_name().is_some_and(counts) { run() } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use notify::event::{CreateKind, DataChange, RenameMode};

    use super::*;

    #[test]
    fn only_what_an_executor_writes_down_counts() {
        let run = crate::host::clock::new_run();
        let folder = Path::new("/state/runs").join(run.to_string());
        let create = EventKind::Create(CreateKind::File);
        let modify = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let table = [
            (create, "claim.1", true),
            (create, "journal", true),
            (modify, "journal", true),
            (close, "journal", true),
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), "progress", true),
            (create, "progress.tmp", false),
            (modify, "output", false),
            (close, "output", false),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), "journal", false),
            (EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)), "journal", false),
        ];
        for (kind, name, counts) in table {
            assert_eq!(changed(kind, &folder.join(name)), counts.then_some(run), "{kind:?} {name}");
        }
        assert_eq!(changed(create, Path::new("/state/runs/other/journal")), None);
        assert_eq!(changed(create, Path::new("journal")), None);
    }

    async fn told(inbox: &mut mpsc::Receiver<Event>) -> RunId {
        match tokio::time::timeout(Duration::from_secs(30), inbox.recv()).await {
            Ok(Some(Event::Folder(run))) => run,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_change_is_told_until_it_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let run = crate::host::clock::new_run();
        let folder = dir.path().join(run.to_string());
        fs::create_dir(&folder).unwrap();
        let (sender, mut inbox) = mpsc::channel(10);
        let mut watcher = RunWatcher::open(sender).unwrap();
        watcher.watch(run, &folder);
        fs::write(folder.join("claim.1"), "").unwrap();
        assert_eq!(told(&mut inbox).await, run);
        // Until then once, whatever else happens.
        let mut journal = fs::File::create(folder.join("journal")).unwrap();
        for _ in 0..1000 {
            journal.write_all(b"a record").unwrap();
        }
        assert!(inbox.try_recv().is_err());
        watcher.looked_at(run);
        drop(journal);
        assert_eq!(told(&mut inbox).await, run);
        // Of a folder that is gone as of one that is there.
        fs::remove_dir_all(&folder).unwrap();
        watcher.leave(run, &folder);
        watcher.leave(run, &folder);
    }
}
