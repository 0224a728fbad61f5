//! Waits for servers that are about to answer: behind a boot, or behind a death, whose traces a server reads first.
//!
//! A task that a power cut interrupted is asked what it has done as soon as the agent is up again, which may be before
//! systemd has come to the server, and before the server has recovered. That is no answer yet, and not an unknown one.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cluster, Host, debian, list, pgdg, process};
use crate::exec;

/// The longest wait: shorter than the two minutes that a question of a task has.
const LONGEST: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// For systemd's answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Exists where systemd is the manager of services (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Waits until no server of a cluster of this name is starting, or is to be started by systemd; 90 s at most. Whoever asks
/// the server next says what is wrong with one that takes longer.
pub async fn settled(name: &str) {
    let end = Instant::now() + LONGEST;
    while comes(name).await && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
}

async fn comes(name: &str) -> bool {
    // What cannot be listed is said by whoever lists it for its work.
    let Ok(list) = list().await else { return false };
    for cluster in list.clusters.iter().filter(|cluster| cluster.name == name) {
        if process::starting(&cluster.data) || (!cluster.running && queued(cluster).await) {
            return true;
        }
    }
    false
}

/// Whether systemd is about to start the server, or at it.
async fn queued(cluster: &Cluster) -> bool {
    if !Path::new(BOOTED).exists() {
        return false;
    }
    let unit = match Host::this() {
        Some(_) => pgdg::unit(cluster.version, &cluster.name),
        None => debian::unit(cluster.version, &cluster.name),
    };
    let words = ["show", "--property=ActiveState,Job", "--", &unit];
    let shown = exec::succeed(None, Path::new("/usr/bin/systemctl"), &words, ANSWER).await;
    shown.is_ok_and(|text| says_so(&text))
}

/// Reads `systemctl show`: a job that waits has a number, and a unit that starts is `activating`.
fn says_so(shown: &str) -> bool {
    shown.lines().filter_map(|line| line.split_once('=')).any(|(name, value)| match name {
        "ActiveState" => matches!(value, "activating" | "reloading"),
        "Job" => !matches!(value, "" | "0"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::says_so;

    #[test]
    fn a_unit_with_a_job_or_in_its_start_is_about_to_run() {
        for (shown, expected) in [
            ("ActiveState=inactive\nJob=65\n", true),
            ("Job=\nActiveState=activating\n", true),
            ("ActiveState=inactive\nJob=0\n", false),
            ("ActiveState=inactive\n", false),
            ("ActiveState=active\n", false),
            ("ActiveState=failed\nJob=\n", false),
            ("", false),
        ] {
            assert_eq!(says_so(shown), expected, "{shown}");
        }
    }
}
