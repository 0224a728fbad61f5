//! Agent, executor and watcher are ended by SIGKILL at every crash point of a guard, alone, in pairs and all three, and
//! at random moments. The oracle (promise P11): the guarded state never outlasts `within` and the guard's own time-out by
//! more than an agent needs to take a run up, and a guard never fires after its step's success.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hostler_testkit::{Host, eventually, signal};
use nix::sys::signal::Signal;

/// How long one attempt of the guard may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What an agent that was killed as well needs to start, to end what is left of a run, and to begin its next epoch.
const TAKEN_UP: Duration = Duration::from_secs(15);

/// A task, its script's status, how long it holds the state, and `within`.
const TASKS: [(&str, &str, &str, u64); 3] =
    [("good", "0", "0.3", 10), ("bad", "3", "0.3", 10), ("late", "0", "30", 1)];

/// What has been done, and in which order, must fit how the run ended.
fn check(task: &str, phase: &str, effects: &[String]) -> Result<(), String> {
    let at = |word: &str| effects.iter().rposition(|effect| effect == word);
    let good = match (task, phase) {
        // Never fired after the success.
        ("good", "succeeded") => effects.last().is_some_and(|last| last == "released"),
        // The guard before the undo, and nothing after it.
        ("bad" | "late", "undone") => {
            at("undo") == effects.len().checked_sub(1) && at("thaw") < at("undo") && at("thaw").is_some()
        }
        // Interrupted before the step was intended, or as often as it takes: it has not begun.
        ("bad" | "late", "failed") => effects.iter().all(|effect| effect == "thaw"),
        _ => false,
    };
    if good { Ok(()) } else { Err(format!("{task} ended {phase} with {effects:?}")) }
}

/// Looks at the state all the time, and keeps how long it lasted at most.
struct Observer {
    longest_ms: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    fn of(frozen: PathBuf) -> Self {
        let (longest_ms, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (longest, end) = (Arc::clone(&longest_ms), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            let mut since: Option<Instant> = None;
            while !end.load(Ordering::Relaxed) {
                since = if frozen.exists() { since.or_else(|| Some(Instant::now())) } else { None };
                let lasts = since.map_or(0, |since| since.elapsed().as_millis());
                longest.fetch_max(u64::try_from(lasts).unwrap_or(u64::MAX), Ordering::Relaxed);
                // A look each hundredth of a second, which is no wait for anything.
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        Self { longest_ms, ends, thread: Some(thread) }
    }

    /// The longest time since the last call.
    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn host(name: &str) -> (Host, Observer) {
    let host = Host::on_dir(name);
    let frozen = host.path("frozen");
    let place = frozen.display();
    for (task, status, seconds, within) in TASKS {
        let effect = if task == "good" { "repeatable" } else { "undoable\n    undo: [./undo]" };
        let yaml = format!(
            "name: {task}\nversion: 1\ntimeout: 60s\nsteps:\n  - name: hold\n    run: [./hold]\n    grace: 1s\n    \
             effect: {effect}\n    guard: {{run: [./thaw], within: {within}s, timeout: {}s}}\n",
            TIMEOUT.as_secs()
        );
        let say = |word: &str| format!("echo \"$HOSTLER_ORDER $HOSTLER_RUN {word}\" >> EFFECTS\n");
        let hold = format!(
            "#!/bin/sh\n{}: > {place}\nsleep {seconds}\n[ {status} = 0 ] || exit {status}\nrm -f {place}\n{}",
            say("hold"),
            say("released")
        );
        let thaw = format!("#!/bin/sh\nset -e\nrm -f {place}\n{}", say("thaw"));
        let undo = format!("#!/bin/sh\n{}", say("undo"));
        host.task(task, &yaml, &[("hold", &hold), ("thaw", &thaw), ("undo", &undo)]);
    }
    let observer = Observer::of(frozen);
    (host, observer)
}

fn kill_all(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
}

/// What is killed beside the process that passes the point: bits for agent, executor, watcher.
fn crash_at_each_point(beside: u8) {
    let (mut host, observer) = host(&format!("points-{beside}"));
    let points = [
        ("good", "guard-recorded"),
        ("good", "watcher-started"),
        ("good", "guard-armed"),
        ("good", "guard-disarming"),
        ("bad", "guard-firing"),
        ("bad", "guard-attempted"),
        ("bad", "guard-fired"),
        ("late", "guard-firing"),
        ("late", "guard-attempted"),
        ("late", "guard-fired"),
    ];
    for (task, point) in points {
        let order = format!("{task}-{point}");
        host.crash_at(point);
        host.order(&order, &format!("task: {task}"));
        let mut struck = false;
        host.keep_up_until(|host| {
            if host.has_crashed() && !struck {
                struck = true;
                let (watchers, executors) = (host.watchers(), host.executors());
                if beside & 1 != 0 {
                    host.kill();
                }
                if beside & 2 != 0 {
                    kill_all(&executors);
                }
                if beside & 4 != 0 {
                    kill_all(&watchers);
                }
            }
            match host.report(&order) {
                Some(report) if !report["ended"].is_null() && struck => Ok(()),
                other => Err(format!("{order}, struck {struck}: {other:?}")),
            }
        });
        check_the_end(&host, &observer, task, &order, &format!("{point}, and beside it {beside:03b}"));
    }
}

fn check_the_end(host: &Host, observer: &Observer, task: &str, order: &str, what: &str) {
    let report = host.report(order).expect("the report");
    let phase = report["phase"].as_str().unwrap_or_default();
    check(task, phase, &host.effects(order))
        .unwrap_or_else(|error| panic!("{what}: {error}; {report}; {}", host.log_tail()));
    assert!(!host.path("frozen").exists(), "{what}: {report}");
    let within = TASKS.iter().find(|(name, ..)| *name == task).map_or(0, |(.., within)| *within);
    let (lasted, bound) = (observer.longest(), Duration::from_secs(within) + TIMEOUT);
    assert!(lasted <= bound + TAKEN_UP, "{what}: the state lasted {lasted:?}, {}", host.log_tail());
    eventually(TAKEN_UP, || match host.watchers() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{what}: {left:?} still watch; {}", host.log_tail())),
    });
}

macro_rules! each {
    ($($name:ident: $beside:literal),+ $(,)?) => {
        $(#[test] fn $name() { crash_at_each_point($beside); })+
    };
}

each! {
    p11_whoever_passes_a_point_is_killed: 0,
    p11_and_the_agent: 1,
    p11_and_the_executor: 2,
    p11_and_agent_and_executor: 3,
    p11_and_the_watcher: 4,
    p11_and_agent_and_watcher: 5,
    p11_and_executor_and_watcher: 6,
    p11_and_all_three: 7,
}

/// So many kills for each of the two seeds; `HOSTLER_GUARD_KILLS` asks for more.
fn kills() -> u32 {
    std::env::var("HOSTLER_GUARD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(40)
}

fn kill_at_random(seed: u64) {
    let (mut host, observer) = host(&format!("random-{seed}"));
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut killed, mut n) = (0, 0);
    while killed < kills() {
        let task = TASKS.get(usize::try_from(next(3)).unwrap_or_default()).map_or("good", |(name, ..)| *name);
        let order = format!("{task}-{n}");
        n += 1;
        host.order(&order, &format!("task: {task}"));
        let mut due = Instant::now() + Duration::from_millis(next(600));
        // Not without end: a run that loses its executor again and again has to wait longer each time.
        let mut left = 3;
        host.keep_up_until(|host| {
            if Instant::now() >= due && left > 0 && killed < kills() {
                due = Instant::now() + Duration::from_millis(200 + next(800));
                left -= 1;
                let whom = 1 + next(7);
                let (watchers, executors) = (host.watchers(), host.executors());
                if whom & 1 != 0 {
                    host.kill();
                }
                if whom & 2 != 0 {
                    kill_all(&executors);
                }
                if whom & 4 != 0 {
                    kill_all(&watchers);
                }
                killed += 1;
            }
            match host.report(&order) {
                Some(report) if !report["ended"].is_null() => Ok(()),
                other => Err(format!("{order} is not over: {other:?}")),
            }
        });
        check_the_end(&host, &observer, task, &order, &format!("seed {seed}, {killed} kills"));
    }
}

#[test]
fn p11_random_kills() {
    kill_at_random(1);
}

#[test]
fn p11_random_kills_of_another_seed() {
    kill_at_random(2);
}
