//! How often Hostler syncs in one run: counted with strace on real runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hostler_testkit::{eventually, signal};
use nix::sys::signal::Signal;

/// Runs that are counted.
const RUNS: usize = 10;

/// Syncs of one run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Syncs {
    /// `fdatasync`
    pub(crate) data: usize,
    /// `fsync`
    pub(crate) whole: usize,
}

/// Counts, in the agent and in what it starts, while `run` carries out one order after the other.
pub(crate) fn count(agent: u32, out: &Path, mut run: impl FnMut()) -> Syncs {
    let pid = agent.to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-p", &pid, "-o"])
        .arg(out)
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    let tracer = format!("TracerPid:\t{}\n", strace.id());
    eventually(Duration::from_secs(20), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.contains(&tracer) { Ok(()) } else { Err("strace does not hold the agent".into()) }
    });
    (0..RUNS).for_each(|_| run());
    std::thread::sleep(Duration::from_millis(500));
    signal(strace.id(), Signal::SIGINT);
    drop(strace.wait());
    let text = fs::read_to_string(out).expect("what strace saw");
    let lines = |name: &str| text.lines().filter(|line| line.contains(name)).count();
    let (data, whole) = (lines(" fdatasync("), lines(" fsync("));
    let each = |all: usize| (all + RUNS / 2) / RUNS;
    println!("syncs of {RUNS} runs by strace: {data} fdatasync, {whole} fsync");
    Syncs { data: each(data), whole: each(whole) }
}
