//! The points at which a test may end the program, all in one list.
//!
//! Between any two of them nothing is changed, in a file or a server, that a later command reads to decide what to do;
//! so a death anywhere is a death at one of them. In a release build a point costs nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal),+ $(,)?) => {
        /// A point of the program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CrashPoint { $($(#[$doc])* $point),+ }

        impl CrashPoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// The name by which a test asks for it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }
        }
    };
}

points! {
    /// Prepare: the intent to make a cluster is on the disk, nothing is made.
    Intended = "intended",
    /// Prepare: the cluster is made, not marked, not started.
    Created = "created",
    /// Prepare: the cluster runs behind its fence, without a schema.
    Started = "started",
    /// Prepare: the schema is loaded, the cluster is not marked.
    SchemaLoaded = "schema-loaded",
    /// Prepare by a standby: the files of the old cluster are copied.
    FilesCopied = "files-copied",
    /// Prepare by a standby: the slots exist, the copy has not recovered to their place.
    SlotsMade = "slots-made",
    /// Prepare by a standby: the copy is a server of its own, of the old version.
    CopyRecovered = "copy-recovered",
    /// Prepare by a standby: the new cluster has the copy's files.
    CopyBrought = "copy-brought",
    /// Link: the intent is on the disk, nothing is made.
    LinkIntended = "link-intended",
    /// Link: the new cluster is made, pg_upgrade has not looked at it.
    LinkPrepared = "link-prepared",
    /// Link: the old server is stopped.
    LinkStopped = "link-stopped",
    /// Link: the new cluster has the old one's files, and nothing says so.
    Linked = "linked",
    /// Link: it is decided that only the new cluster is started from here on.
    LinkDecided = "link-decided",
    /// Link: the old cluster's folders are gone.
    LinkOldDropped = "link-old-dropped",
    /// Follow: the old cluster publishes one more database.
    Published = "published",
    /// Follow: the new cluster subscribes to one more database.
    Subscribed = "subscribed",
    /// Switch: the clients are held.
    Paused = "paused",
    /// Switch, either direction: the fence is on the disk, sessions are still there.
    FenceWritten = "fence-written",
    /// Switch, either direction: no client is on the side that is left.
    Fenced = "fenced",
    /// Switch, either direction: the other side has every transaction.
    Drained = "drained",
    /// Switch, either direction: the other side has the sequences.
    SequencesSet = "sequences-set",
    /// Switch: the slot for the way back exists.
    WayBackKept = "way-back-kept",
    /// Switch, either direction: the subscription is switched off.
    SubscriptionOff = "subscription-off",
    /// Switch, either direction: the other side lets clients in, nobody is sent there.
    Opened = "opened",
    /// Switch, either direction: the door leads to the other side.
    Turned = "turned",
    /// Switch, either direction: both servers are stopped, for the exchange of their ports.
    Stopped = "stopped",
    /// Switch, either direction: the other side runs at the clients' port, behind its fence.
    Restarted = "restarted",
    /// Switch back: the old cluster is given the clients' port, at its next start.
    PortMeant = "port-meant",
    /// Follow back: the subscription of the way there is removed.
    Unsubscribed = "unsubscribed",
    /// Follow back: the old cluster subscribes to one more database.
    SubscribedBack = "subscribed-back",
    /// Finish: the way back is ended, the old cluster is whole.
    WayBackEnded = "way-back-ended",
    /// Finish: it is written down that the old cluster goes.
    Finishing = "finishing",
    /// Finish: the distribution's tool has dropped the old cluster.
    OldDropped = "old-dropped",
    /// Setup of the archive: the settings are on the disk, the server does not go by them.
    ArchiveMeant = "archive-meant",
    /// Backup: the files are stored, nothing else is.
    BaseStored = "base-stored",
    /// Backup: everything is stored and proved, but the record.
    BackupProved = "backup-proved",
    /// Restore: the intent is on the disk, nothing is made.
    RestoreIntended = "restore-intended",
    /// Restore: the files are there, no server has run.
    Unpacked = "unpacked",
    /// Restore: the server replays.
    Recovering = "recovering",
    /// Restore: the server has recovered and stopped.
    Recovered = "recovered",
    /// Restore: it is a cluster of the host, and not started.
    Adopted = "adopted",
    /// Restore in place: the intent is on the disk, nothing is made.
    InPlaceIntended = "in-place-intended",
    /// Restore in place: what is restored is whole, beside the cluster.
    InPlaceReady = "in-place-ready",
    /// Restore in place: the server is stopped, its files are the old ones.
    InPlaceStopped = "in-place-stopped",
    /// Restore in place: the cluster has the restored files, the old ones have their name.
    InPlaceExchanged = "in-place-exchanged",
    /// Restore in place: the old files are kept under a name of their own, no server runs.
    InPlaceKept = "in-place-kept",
    /// Restore in place: the server runs, the intent is on the disk.
    InPlaceStarted = "in-place-started",
    /// Install: the intent is on the disk, nothing is made.
    InstallIntended = "install-intended",
    /// Install: the cluster is made, not configured, not started.
    Installed = "installed",
    /// Restart: the mark is on the disk, the server is not stopped yet.
    RestartIntended = "restart-intended",
    /// Minor: the list of what ran is on the disk, the packages are not changed yet.
    MinorIntended = "minor-intended",
    /// Hand-over: the intent is on the disk, nothing is changed.
    HandOverIntended = "hand-over-intended",
    /// Hand-over: the primary is stopped, and would be started as one.
    HandOverStopped = "hand-over-stopped",
    /// Hand-over: the standby has everything.
    HandOverProved = "hand-over-proved",
    /// Hand-over: the former primary would be started as a standby, and does not run.
    HandOverSignalled = "hand-over-signalled",
    /// Hand-over: the former primary runs as a standby.
    HandOverStarted = "hand-over-started",
    /// Take-over: everything is there, both are standbys.
    TakeOverReady = "take-over-ready",
    /// Take-over: it is the primary.
    Promoted = "promoted",
    /// Drill: the server has recovered, and answers in its place.
    DrillRecovered = "drill-recovered",
    /// Prune: the records are gone, what belongs to them is there.
    Unrecorded = "unrecorded",
    /// Prune: the backups are gone, the WAL is there.
    BasesGone = "bases-gone",
}

/// Ends the process by SIGKILL if a test asked for this point.
#[cfg(not(debug_assertions))]
#[inline]
pub fn here(_point: CrashPoint) {}

/// Ends the process by SIGKILL if the file named by `HOSTLER_CRASH_FILE` names this point, or halts it by SIGSTOP if the
/// word `hang` follows. The file is removed first, so that each wish meets one process.
#[cfg(debug_assertions)]
pub fn here(point: CrashPoint) {
    let Some(path) = std::env::var_os("HOSTLER_CRASH_FILE") else { return };
    let Ok(wish) = std::fs::read_to_string(&path) else { return };
    let signal = match wish.trim().strip_prefix(point.name()) {
        Some("") => nix::sys::signal::Signal::SIGKILL,
        Some(" hang") => nix::sys::signal::Signal::SIGSTOP,
        _ => return,
    };
    if std::fs::remove_file(&path).is_ok() {
        let _ = nix::sys::signal::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::CrashPoint;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CrashPoint::ALL.len());
    }
}
