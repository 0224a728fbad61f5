//! Whether the kernel ended something of this run because its memory was used up.

use std::fs;
use std::path::PathBuf;

/// How many processes of this process's own cgroup the kernel has ended for memory; under cgroup v2 and v1.
pub fn kills() -> u64 {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    counter_file(&own)
        .and_then(|path| fs::read_to_string(path).ok())
        .and_then(|text| counter(&text))
        .unwrap_or_default()
}

fn counter_file(own: &str) -> Option<PathBuf> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let file = match controllers {
            "" => format!("/sys/fs/cgroup{path}/memory.events"),
            "memory" => format!("/sys/fs/cgroup/memory{path}/memory.oom_control"),
            _ => return None,
        };
        let file = PathBuf::from(file);
        file.exists().then_some(file)
    })
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::counter;

    #[test]
    fn both_formats_are_read() {
        assert_eq!(counter("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"), Some(2));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(counter(""), None);
    }
}
