//! What an executor and the watchers of its guards say to each other, and where.

use std::path::PathBuf;

use crate::domain::plan::Plan;

/// The watcher watches.
pub(super) const WATCHES: u8 = b'w';
/// `within` was over, and the first attempt has ended.
pub(super) const OVER: u8 = b'o';

/// Where an executor listens for the watcher of one arming.
pub(super) fn link(plan: &Plan, epoch: u32, step: usize) -> PathBuf {
    plan.place.runtime_dir.join("watchers").join(format!("{}-{epoch}-{step}", plan.run))
}
