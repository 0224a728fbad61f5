//! From the write of a key to the start of a command, and to its report, for Hostler and three others by turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::raw::{Answerer, answer, wait};
use crate::syncs::{self, Syncs};

/// Milliseconds to the start, and to the report where there is one.
#[derive(Default)]
struct Lags {
    started: Vec<f64>,
    reported: Vec<f64>,
}

/// A host on which one order is flipped again and again.
struct Flipped {
    host: Host,
    /// In memory, as `/run` is on every host.
    _runtime: TempDir,
    mark: PathBuf,
    report: String,
    key: String,
    revision: usize,
    /// The run that reported last.
    last: String,
}

impl Flipped {
    fn start(consul: &Consul, name: &str, launcher: &str) -> Self {
        let mut host = Host::on_consul(name, consul);
        host.configure_launcher(launcher);
        let runtime = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        host.configure_runtime(runtime.path());
        let mark = host.path("mark");
        let me = std::env::current_exe().expect("the bench's own path");
        let task = format!(
            "name: mark\nversion: 1\ntimeout: 60s\nsteps:\n  - name: mark\n    effect: repeatable\n    run: [{}, mark, {}]\n",
            me.display(),
            mark.display()
        );
        host.task("mark", &task, &[]);
        host.set_env("HOSTLER_LOG", "info");
        host.start();
        // An order that stands before a host's first look is held: an agent may take longer to start than we take to write.
        eventually(DEFAULT_TIMEOUT, || host.agent_report().map(drop).ok_or_else(|| host.log_tail()));
        let (key, report) =
            (format!("hostler/hosts/{name}/orders/flip"), format!("hostler/reports/orders/{name}/flip"));
        let mut flipped =
            Self { host, _runtime: runtime, mark, report, key, revision: 0, last: String::new() };
        flipped.flip(consul);
        flipped
    }

    fn flip(&mut self, consul: &Consul) -> (f64, f64) {
        self.revision += 1;
        let text = format!("{{task: mark, revision: \"{}\"}}", self.revision);
        let lag = time(consul, &self.mark, &self.key, &text, || {
            wait(consul.port(), &self.report, 1, |text| succeeded(text).is_some_and(|run| run != self.last))
        });
        self.last = consul.get(&self.report).as_deref().and_then(succeeded).unwrap_or_default();
        lag
    }
}

/// Measures and prints; runs as units of systemd too, where this machine was booted by it.
pub(crate) fn measure(consul: &Consul, rounds: usize) {
    let me = std::env::current_exe().expect("the bench's own path");
    let port = consul.port();
    let mut detached = Flipped::start(consul, "detached", "detached");
    let booted = Path::new("/run/systemd/system").is_dir();
    let mut unit = booted.then(|| Flipped::start(consul, "systemd", "systemd"));
    let syncs = {
        let host = detached.host.agent_pid().expect("an agent");
        let out = detached.host.path("syncs");
        syncs::count(host, &out, || _ = detached.flip(consul))
    };

    let folder = detached.host.path("raw");
    fs::create_dir(&folder).expect("a folder");
    let watched = detached.host.path("watched");
    consul.put("bench/watch/order", "start");
    let mut watch = Command::new("consul")
        .args(["watch", &format!("-http-addr=127.0.0.1:{port}"), "-type=keyprefix", "-prefix=bench/watch/"])
        .args(["-shell=false"])
        .arg(&me)
        .arg("mark")
        .arg(&watched)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("consul watch");
    let mut all: [Lags; 6] = Default::default();
    std::thread::scope(|scope| {
        let raw = Answerer {
            key: "bench/raw",
            program: &me,
            folder: &folder,
            syncs: Syncs::default(),
            unit: false,
        };
        let synced = Answerer { key: "bench/synced", syncs, ..raw };
        let mut answerers = vec![(0, raw), (1, synced)];
        if booted {
            answerers.push((4, Answerer { key: "bench/unit", unit: true, ..synced }));
        }
        for (_, answerer) in answerers.clone() {
            scope.spawn(move || answer(port, rounds, answerer));
        }
        for round in 0..rounds {
            let text = round.to_string();
            for (at, Answerer { key, .. }) in answerers.iter().copied() {
                let name = key.replace('/', "-");
                let (order, report) = (format!("{key}/order"), format!("{key}/report"));
                let lag = time(consul, &folder.join(name), &order, &text, || {
                    wait(port, &report, 1, |found| found == text)
                });
                all[at].add(lag);
            }
            let (started, _) = time(consul, &watched, "bench/watch/order", &text, || 0);
            all[2].started.push(started);
            all[3].add(detached.flip(consul));
            if let Some(unit) = &mut unit {
                all[5].add(unit.flip(consul));
            }
        }
    });
    drop(watch.kill());
    drop(watch.wait());
    print(&mut all, syncs, rounds);
}

impl Lags {
    fn add(&mut self, (started, reported): (f64, f64)) {
        self.started.push(started);
        self.reported.push(reported);
    }
}

/// Writes the key, waits for the report and for the mark.
fn time(consul: &Consul, mark: &Path, key: &str, value: &str, report: impl FnOnce() -> u64) -> (f64, f64) {
    // Whoever watches has to be waiting again.
    std::thread::sleep(Duration::from_millis(60));
    drop(fs::remove_file(mark));
    let (clock, begun) = (crate::now(), Instant::now());
    consul.put(key, value);
    report();
    let reported = begun.elapsed().as_secs_f64() * 1e3;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = fs::read_to_string(mark).unwrap_or_default();
        if let Ok(at) = text.parse::<u128>() {
            return (at.saturating_sub(clock) as f64 / 1e6, reported);
        }
        assert!(Instant::now() < deadline, "{key}: nothing was started");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The run of a report that says so.
fn succeeded(text: &str) -> Option<String> {
    let report: Value = serde_json::from_str(text).ok()?;
    (report["phase"] == "succeeded").then(|| report["run"].as_str().unwrap_or_default().to_owned())
}

/// The value below which this part of the sample lies.
fn part(sample: &mut [f64], part: f64) -> f64 {
    sample.sort_by(f64::total_cmp);
    let at = ((sample.len() as f64 * part).ceil() as usize).saturating_sub(1);
    sample.get(at).copied().unwrap_or(f64::NAN)
}

fn print(all: &mut [Lags; 6], syncs: Syncs, rounds: usize) {
    println!("\nmilliseconds from the write of the key, {rounds} interleaved rounds:");
    println!("{:<34} {:>22}   {:>22}", "", "started: median, p95", "reported: median, p95");
    let names = [
        "a  raw: wait, command, report".to_owned(),
        format!("b  the same with {} syncs", syncs.data + syncs.whole),
        "c  consul watch with a handler".to_owned(),
        "d  hostler, detached".to_owned(),
        "e  b, its command a unit of systemd".to_owned(),
        "f  hostler, under systemd".to_owned(),
    ];
    let mut medians = Vec::new();
    for (name, lags) in names.iter().zip(all).filter(|(_, lags)| !lags.started.is_empty()) {
        let [a, b, c, d] = [
            part(&mut lags.started, 0.5),
            part(&mut lags.started, 0.95),
            part(&mut lags.reported, 0.5),
            part(&mut lags.reported, 0.95),
        ];
        println!("{name:<34} {a:>11.1} {b:>10.1}   {c:>11.1} {d:>10.1}");
        medians.push((a, c));
    }
    let [(raw, raw_end), (_, synced_end), (watch, _), (started, ended), units @ ..] = medians.as_slice()
    else {
        return;
    };
    println!(
        "d / b, to the report: {:.2}; d / a, to the start: {:.2}; d / c, to the start: {:.2}",
        ended / synced_end,
        started / raw,
        started / watch
    );
    println!("a, to the report: {raw_end:.1}");
    match units {
        [(unit, unit_end), (started, ended)] => {
            println!(
                "f / e, to the report: {:.2}; f / e, to the start: {:.2}",
                ended / unit_end,
                started / unit
            );
        }
        _ => println!(
            "under systemd: not measured, since this machine was not booted by it; see tests/bench/booted"
        ),
    }
}
