//! The points at which a test may end the program, all in one list.
//!
//! Between any two of them nothing is written that a promise rests on; so a crash anywhere is, for what is
//! on the disk, a crash at one of these points. Without the feature `crash-points` a point costs nothing.

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
    /// Agent: an order was seen, nothing is on the disk.
    OrderSeen = "order-seen",
    /// Agent: the activation is in the ledger.
    ActivationRecorded = "activation-recorded",
    /// Agent: the last look was good, nothing is prepared.
    Looked = "looked",
    /// Agent: the run's folder is on the disk, the ledger does not say so.
    FolderMade = "folder-made",
    /// Agent: the ledger says prepared, nothing is launched.
    Prepared = "prepared",
    /// Agent: a token for a run is made, and not recorded.
    TokenMade = "token-made",
    /// Agent: the token is recorded, and not handed over.
    TokenRecorded = "token-recorded",
    /// Agent: the executor is launched.
    Launched = "launched",
    /// Agent: the run has ended, the ledger does not say so.
    EndSeen = "end-seen",
    /// Agent: the ledger says how the run ended, the store does not.
    Closed = "closed",
    /// Agent: a report was written to the store.
    Reported = "reported",
    /// Agent: an operator's request to a run is in the ledger, and not sent to the executor.
    RequestRecorded = "request-recorded",
    /// Executor: started, without a claim.
    ExecutorStarted = "executor-started",
    /// Executor: has read its secrets, without a claim.
    SecretsRead = "secrets-read",
    /// Executor: has the claim, the journal does not say so.
    Claimed = "claimed",
    /// Executor: the journal says begun.
    Begun = "begun",
    /// Executor: the intent is in the journal, nothing is started.
    Intended = "intended",
    /// Executor: the command was started.
    Started = "started",
    /// Executor: the command has ended, the journal does not say so.
    CommandEnded = "command-ended",
    /// Executor: the outcome is in the journal.
    Finished = "finished",
    /// Executor: the result is written.
    ResultWritten = "result-written",
    /// Executor: the journal says that a guard is armed, nobody watches.
    GuardRecorded = "guard-recorded",
    /// Executor: a watcher is there, its step is not intended.
    GuardArmed = "guard-armed",
    /// Executor: a guarded step has succeeded and no guard may fire any more, the journal does not say so.
    GuardDisarming = "guard-disarming",
    /// Watcher: started, its executor does not know.
    WatcherStarted = "watcher-started",
    /// Watcher or executor: that a guard fires is on the disk, its command is not started.
    GuardFiring = "guard-firing",
    /// Watcher or executor: the command of a guard has ended, its log does not say so.
    GuardAttempted = "guard-attempted",
    /// Watcher or executor: the log says that the guard has fired.
    GuardFired = "guard-fired",
}

/// Ends the process by SIGKILL if a test asked for this point.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn here(_point: CrashPoint) {}

/// Ends the process by SIGKILL if the file named by `HOSTLER_CRASH_FILE` asks for this point: it holds the
/// point's name and how often it is to be passed before. The file is removed first, so that each wish ends one process.
#[cfg(feature = "crash-points")]
pub fn here(point: CrashPoint) {
    let Some(path) = std::env::var_os("HOSTLER_CRASH_FILE") else { return };
    let Ok(wish) = std::fs::read_to_string(&path) else { return };
    let mut words = wish.split_whitespace();
    if words.next() != Some(point.name()) {
        return;
    }
    let times: u32 = words.next().and_then(|n| n.parse().ok()).unwrap_or_default();
    if times > 0 {
        let _ = std::fs::write(&path, format!("{} {}", point.name(), times - 1));
    } else if std::fs::remove_file(&path).is_ok() {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
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
