//! Tells at once that something changed in the folder of a run; whoever is told looks there himself.
//!
//! Two watches a run: on its folder, for files that appear (a claim, the journal, progress) and for the journal that its
//! executor closes behind the last record, and on the journal once it is there. So neither what a step prints nor our
//! own reading wakes anybody. A notice that is lost costs a second at most: the folders of runs that go on are also looked
//! at by turns.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Event;
use crate::domain::ids::RunId;

/// Room for a batch of events; more come with the next read.
const BATCH: usize = 4096;

/// The watches on the folders of runs.
pub(super) struct RunWatcher {
    watches: Watches,
    runs: BTreeMap<WatchDescriptor, RunId>,
    watched: BTreeMap<RunId, WatchedRun>,
    reader: AbortHandle,
}

struct WatchedRun {
    folder: WatchDescriptor,
    journal: Option<WatchDescriptor>,
}

impl RunWatcher {
    /// Watches nothing yet; needs a runtime.
    ///
    /// # Errors
    /// Where the system has no more instances of inotify for this user.
    #[expect(unsafe_code, reason = "tokio cannot know that the descriptor is its owner's alone")]
    pub(super) fn open(events: mpsc::Sender<Event>) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        // SAFETY: an Inotify owns its descriptor, which stays the same one and open for as long as it lives.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        let reader = tokio::spawn(read(inotify, events)).abort_handle();
        Ok(Self { watches, runs: BTreeMap::new(), watched: BTreeMap::new(), reader })
    }

    /// Watches the folder of a run. To be called before anything there is read.
    pub(super) fn watch(&mut self, run: RunId, folder: &Path) {
        if !self.watched.contains_key(&run) {
            let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR;
            if let Some(folder) = self.add(run, folder, mask) {
                self.watched.insert(run, WatchedRun { folder, journal: None });
            }
        }
        if self.watched.get(&run).is_some_and(|watched| watched.journal.is_none()) {
            let journal = self.add(run, &folder.join("journal"), WatchMask::MODIFY);
            if let Some(watched) = self.watched.get_mut(&run) {
                watched.journal = journal;
            }
        }
    }

    /// `None` where there is no such file, or there are too many watches.
    fn add(&mut self, run: RunId, path: &Path, mask: WatchMask) -> Option<WatchDescriptor> {
        let added = self.watches.add(path, mask);
        let watch = added.inspect_err(|error| tracing::trace!("{}: {error}", path.display())).ok()?;
        self.runs.insert(watch.clone(), run);
        Some(watch)
    }

    /// The run is over.
    pub(super) fn leave(&mut self, run: RunId) {
        let Some(watched) = self.watched.remove(&run) else { return };
        for watch in std::iter::once(watched.folder).chain(watched.journal) {
            self.runs.remove(&watch);
            // The folder may be gone, and the watch with it.
            let _ = self.watches.remove(watch);
        }
    }

    /// Whose watch it is; nobody's if the run is over.
    pub(super) fn run(&self, watch: &WatchDescriptor) -> Option<RunId> {
        self.runs.get(watch).copied()
    }
}

impl Drop for RunWatcher {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut inotify: AsyncFd<Inotify>, events: mpsc::Sender<Event>) {
    let mut buffer = [0; BATCH];
    loop {
        let Ok(mut ready) = inotify.readable_mut().await else { return };
        let found = match ready.try_io(|inotify| inotify.get_mut().read_events(&mut buffer)) {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!("runs are looked at once a second only: {error}");
                return;
            }
            Err(_not_ready) => continue,
        };
        let mut told = None;
        for event in found.filter(|event| event.name.is_none_or(counts)) {
            // Mostly the same one several times in a row.
            if told.as_ref() != Some(&event.wd) {
                told = Some(event.wd.clone());
                // Whatever is lost in a full queue is seen by the next regular look.
                let _ = events.try_send(Event::Folder(event.wd));
            }
        }
    }
}

fn counts(name: &OsStr) -> bool {
    name == "journal" || name == "progress" || name.as_encoded_bytes().starts_with(b"claim.")
}
