//! Whether the kernel ended something of this run because its memory was used up.
//!
//! Only a run that is a unit of systemd has a cgroup of its own. A detached one shares that of its agent or of a whole
//! session, where a process that the kernel ended may be anybody's: there it is a signal like any other.

use std::fs;
use std::path::PathBuf;

use super::processes::unit_name;
use crate::domain::ids::RunId;

/// How many processes of a run's own cgroup the kernel has ended for memory; under cgroup v2 and v1. 0 where this process
/// is not in a cgroup of the run.
pub fn kills(run: RunId) -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = counter_files(&own, &unit_name(run));
    let texts = files.into_iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.filter_map(|text| counter(&text)).next().unwrap_or_default()
}

/// Where the kernel counts for the cgroups that end with this unit.
fn counter_files(own: &str, unit: &str) -> Vec<PathBuf> {
    let file = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        if path.rsplit('/').next() != Some(unit) {
            return None;
        }
        match controllers {
            "" => Some(format!("/sys/fs/cgroup{path}/memory.events").into()),
            "memory" => Some(format!("/sys/fs/cgroup/memory{path}/memory.oom_control").into()),
            _ => None,
        }
    };
    own.lines().filter_map(file).collect()
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cgroup_of_the_run_counts() {
        let unit = "hostler-run-01J.service";
        let files = |own: &str| counter_files(own, unit);
        let v2 = format!("0::/hostler.slice/{unit}\n");
        assert_eq!(files(&v2), [PathBuf::from(format!("/sys/fs/cgroup/hostler.slice/{unit}/memory.events"))]);
        let v1 = format!("5:cpu,cpuacct:/hostler.slice/{unit}\n4:memory:/hostler.slice/{unit}\n0::/\n");
        let counted = format!("/sys/fs/cgroup/memory/hostler.slice/{unit}/memory.oom_control");
        assert_eq!(files(&v1), [PathBuf::from(counted)]);
        // The agent's, a session's, another run's, and one that only holds the run's.
        for path in
            ["/", "/system.slice/hostler.service", "/user.slice/session-1.scope", "/hostler-run-01K.service"]
        {
            let own = format!("4:memory:{path}\n0::{path}\n");
            assert!(files(&own).is_empty(), "{path}");
        }
        assert!(files(&format!("0::/{unit}/inner\n")).is_empty());
    }

    #[test]
    fn both_formats_are_read() {
        assert_eq!(counter("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"), Some(2));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(counter(""), None);
    }
}
