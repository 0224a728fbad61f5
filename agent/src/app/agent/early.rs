//! An agent that dies soon after its start, again and again, takes growing pauses before it asks the store.
//!
//! Each life leaves the questions of its watches with the server, which has a limited number of connections for one
//! client's address and shares them among all programs of the host. systemd's own growing pauses (`RestartSteps=`) need
//! version 254, so the count of such deaths is kept here, in the runtime folder: a reboot forgets it. Runs are looked
//! after during the pause.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::host::{disk, process};

/// The file in the runtime folder that counts.
const FILE: &str = "early-deaths";
/// A count is not longer, in bytes.
const MAX_FILE: u64 = 32;
/// An agent that has lived so long does not die early.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// So many early deaths in a row cost nothing: somebody restarts it, or its first steps fail for a moment.
const FREE: u32 = 2;
/// The pause after one more; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// This process, from its start on.
pub(super) struct AgentLifetime {
    file: PathBuf,
    deaths: u32,
    grows_old: AbortHandle,
}

impl AgentLifetime {
    /// Counts this start as an early death until it turns out otherwise. Needs a runtime.
    pub(super) fn begin(runtime_dir: &Path) -> Self {
        Self::of(runtime_dir, STABLE_AFTER)
    }

    fn of(runtime_dir: &Path, early: Duration) -> Self {
        let file = runtime_dir.join(FILE);
        let deaths = read(&file);
        // Without the count there are no pauses: a runtime folder that cannot be written is told of by others.
        let counted = disk::make_dirs(runtime_dir)
            .and_then(|()| process::pass_through(runtime_dir))
            .and_then(|()| disk::replace(&file, deaths.saturating_add(1).to_string().as_bytes(), 0o600));
        if let Err(error) = counted {
            tracing::warn!("cannot count early deaths of the agent: {error}");
        }
        let old = file.clone();
        let grows_old = tokio::spawn(async move {
            sleep(early).await;
            forget(&old);
        });
        let life = Self { file, deaths, grows_old: grows_old.abort_handle() };
        if !life.pause().is_zero() {
            tracing::warn!(
                "the agent died {deaths} times in a row within a minute of its start: waiting {} s before the first request to the store",
                life.pause().as_secs()
            );
        }
        life
    }

    /// How long to wait before the first question.
    pub(super) fn pause(&self) -> Duration {
        pause(self.deaths)
    }

    /// The agent was asked to stop: that is no death.
    pub(super) fn ends_in_order(&self) {
        self.grows_old.abort();
        forget(&self.file);
    }
}

fn read(file: &Path) -> u32 {
    let text = disk::read(file, MAX_FILE).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).trim().parse().unwrap_or_default()
}

fn forget(file: &Path) {
    if let Err(error) = disk::remove(file) {
        tracing::debug!("cannot reset the count of early deaths: {error}");
    }
}

fn pause(deaths: u32) -> Duration {
    match deaths.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(more) => {
            FIRST_PAUSE.saturating_mul(1_u32.checked_shl(more).unwrap_or(u32::MAX)).min(MAX_BACKOFF)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses: Vec<u64> = (0..10).map(|deaths| pause(deaths).as_secs()).collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(u32::MAX), MAX_BACKOFF);
    }

    #[tokio::test]
    async fn only_deaths_soon_after_a_start_count_and_only_in_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("run");
        for deaths in 0..5 {
            let life = AgentLifetime::begin(&runtime);
            assert_eq!((life.deaths, life.pause()), (deaths, pause(deaths)));
            life.grows_old.abort();
        }
        AgentLifetime::begin(&runtime).ends_in_order();
        assert_eq!(AgentLifetime::begin(&runtime).deaths, 0, "stopped in order");
        let old = AgentLifetime::of(&runtime, Duration::from_millis(1));
        assert_eq!(old.deaths, 1);
        while !old.grows_old.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(AgentLifetime::begin(&runtime).deaths, 0, "one of them lived for long enough");
        std::fs::write(runtime.join(FILE), "many").unwrap();
        assert_eq!(AgentLifetime::begin(&runtime).deaths, 0, "no number");
    }
}
