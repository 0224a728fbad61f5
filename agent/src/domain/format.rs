//! The versions of the two formats that outlive a program: the ledger's, and the plan's, which stands for the whole folder
//! of a run.
//!
//! A program reads and writes its own version and the one before. For a day after an upgrade it keeps to the one before, so
//! that the upgrade can be taken back (`app/agent/formats.rs`); over a newer one it is in safe mode.
//! No release has raised either number yet. So that the tests show what the next release will do, a program that was built
//! with the feature `crash-points` poses as that release where `HOSTLER_NEXT_FORMATS` is set: its versions are one higher,
//! and a plan with secrets needs the higher one.

use super::task::Task;

/// The ledger's version in this release.
const LEDGER: u32 = 1;
/// The plan's version in this release.
const PLAN: u32 = 1;

/// The newest version of the ledger that this program reads and writes.
pub fn newest_ledger() -> u32 {
    LEDGER + next()
}

/// The newest version of a plan that this program makes and carries out.
pub fn newest_plan() -> u32 {
    PLAN + next()
}

/// The lowest version of a plan that can say what this task does: the release before goes on with every plan that it can read.
pub fn plan_of(task: &Task) -> u32 {
    PLAN + if task.secrets.is_empty() { 0 } else { next() }
}

/// 1 in a program that poses as the next release.
#[cfg(feature = "crash-points")]
fn next() -> u32 {
    NEXT.get().copied().unwrap_or_default()
}

#[cfg(feature = "crash-points")]
static NEXT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();

/// From now on this program poses as the next release.
#[cfg(feature = "crash-points")]
pub fn pose_as_next_release() {
    let _ = NEXT.set(1);
}

/// 0: this program is its own release.
#[cfg(not(feature = "crash-points"))]
const fn next() -> u32 {
    0
}
