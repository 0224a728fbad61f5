//! Tells that something in the folder changed; not what. Whoever is woken looks again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::tree::bad_part;

/// The watch on one folder and all below it.
pub(super) struct Events {
    root: PathBuf,
    beat: watch::Sender<()>,
    /// Made when first needed: a command that only reads watches nothing.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl Events {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), beat: watch::Sender::new(()), watcher: Mutex::new(None) }
    }

    /// Something that changes with each event from now on; `None`: the system gives no events, for the
    /// reason that was logged.
    pub(super) fn listen(&self) -> Option<watch::Receiver<()>> {
        let mut slot = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            match self.start() {
                Ok(watcher) => *slot = Some(watcher),
                Err(error) => {
                    tracing::warn!(folder = %self.root.display(), %error, "inotify unavailable, falling back to polling");
                    return None;
                }
            }
        }
        Some(self.beat.subscribe())
    }

    /// Forgets the watch: the folder that it held is not the one at this path any more.
    pub(super) fn reset(&self) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let (root, beat) = (self.root.clone(), self.beat.clone());
        let handler = move |event: notify::Result<Event>| {
            // An error may have hidden an event.
            if event.map_or(true, |event| counts(&root, &event)) {
                beat.send_replace(());
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config)?;
        watcher.watch(&self.root, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

/// Reading is no change, and neither is what the store itself keeps beside the keys.
fn counts(root: &Path, event: &Event) -> bool {
    let change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    let hidden = |path: &PathBuf| {
        let below = path.strip_prefix(root).unwrap_or(path);
        below.components().any(|part| part.as_os_str().to_str().is_some_and(|part| bad_part(part).is_some()))
    };
    event.need_rescan() || (change && (event.paths.is_empty() || !event.paths.iter().all(hidden)))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind};

    use super::*;

    #[test]
    fn only_what_may_change_a_key_counts() {
        let root = Path::new("/a/.b");
        let event = |kind, path: &str| Event::new(kind).add_path(root.join(path));
        let create = EventKind::Create(CreateKind::File);
        let write = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let table = [
            (event(create, "p/x"), true),
            (event(write, "p/x"), true),
            (event(EventKind::Modify(ModifyKind::Any), "p"), true),
            (event(open, "p/x"), false),
            (event(create, ".index"), false),
            (event(create, "p/x.tmp"), false),
            (event(create, "p/.x.swp"), false),
            (event(create, ".index.tmp").add_path(root.join("p/x")), true),
            (Event::new(EventKind::Other).set_flag(Flag::Rescan), true),
        ];
        for (event, expected) in table {
            assert_eq!(counts(root, &event), expected, "{event:?}");
        }
    }
}
