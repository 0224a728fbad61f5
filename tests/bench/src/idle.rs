//! What agents that have nothing to do need, beside `consul watch`: all measured in the same minute.
//!
//! Memory is judged by what is the agent's own: anonymous pages, and PSS. RSS also counts mapped pages of the program,
//! which the kernel drops when it needs memory; it is shown beside them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hostler_testkit::{Consul, Host};

/// Orders that are done on each host, and how many MiB its agent may have: anonymous, and PSS.
const ORDERS: [(usize, f64, f64); 3] = [(1, 1.5, 4.0), (100, 5.0, f64::INFINITY), (1000, 5.0, f64::INFINITY)];

/// What has been used so far, all threads.
#[derive(Default)]
struct Used {
    cpu_ms: f64,
    switches: u64,
}

/// Measures and prints.
pub(crate) fn measure(consul: &Consul, seconds: u64) {
    let mut hosts: Vec<Host> = ORDERS.iter().map(|(count, ..)| busy(consul, *count)).collect();
    for host in &mut hosts {
        host.stop();
        // On a host there is one agent: PSS would share the pages of the program among the agents here.
        let program = host.path("program");
        fs::copy(hostler_testkit::program(), &program).expect("a copy of the program");
        host.start_with(&program);
    }
    let mut watch = Command::new("consul")
        .args(["watch", &format!("-http-addr=127.0.0.1:{}", consul.port())])
        .args(["-type=keyprefix", "-prefix=bench/idle/", "-shell=false", "/bin/true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("consul watch");
    std::thread::sleep(Duration::from_secs(10));
    let mut rows: Vec<(String, u32)> = vec![("consul watch".into(), watch.id())];
    for (host, (count, ..)) in hosts.iter().zip(ORDERS) {
        rows.push((format!("hostler, {count} orders done"), host.agent_pid().expect("an agent")));
    }
    let bounds = std::iter::once(None).chain(ORDERS.iter().map(Some));
    let before: Vec<Used> = rows.iter().map(|(_, pid)| used(*pid)).collect();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("\nidle for {seconds} s:");
    println!(
        "{:<28} {:>10} {:>9} {:>9} {:>8} {:>11} {:>13}",
        "", "anon. MiB", "PSS MiB", "RSS MiB", "threads", "CPU ms/min", "switches/min"
    );
    let mut exceeded = Vec::new();
    for (((name, pid), before), bound) in rows.iter().zip(before).zip(bounds) {
        let after = used(*pid);
        let mib = |field| rollup(*pid, field) / 1024.0;
        println!(
            "{name:<28} {:>10.2} {:>9.2} {:>9.2} {:>8} {:>11.1} {:>13.0}",
            mib("Anonymous:"),
            mib("Pss:"),
            mib("Rss:"),
            threads(*pid).len(),
            (after.cpu_ms - before.cpu_ms) / minutes,
            after.switches.saturating_sub(before.switches) as f64 / minutes
        );
        if let Some((_, anonymous, pss)) = bound {
            let bounds = [("Anonymous:", *anonymous), ("Pss:", *pss)];
            let over = bounds.into_iter().filter(|(field, most)| mib(field) > *most);
            exceeded.extend(over.map(|(field, most)| format!("{name}: {field} at most {most} MiB")));
        }
    }
    match exceeded.as_slice() {
        [] => println!("memory: within its bounds"),
        _ => println!("memory: above its bounds: {}", exceeded.join("; ")),
    }
    drop(watch.kill());
    drop(watch.wait());
}

/// A host that has done so many orders and told so.
fn busy(consul: &Consul, count: usize) -> Host {
    let mut host = Host::on_consul(&format!("idle{count}"), consul);
    let task = "name: nothing\nversion: 1\ntimeout: 60s\nsteps:\n  - name: nothing\n    effect: repeatable\n    run: [/bin/true]\n";
    host.task("nothing", task, &[]);
    host.set_env("HOSTLER_LOG", "info");
    for at in 0..count {
        host.order(&format!("o{at}"), "task: nothing");
    }
    let begun = Instant::now();
    host.start();
    for at in 0..count {
        let name = format!("o{at}");
        while host.report(&name).is_none_or(|report| report["phase"] != "succeeded") {
            assert!(begun.elapsed() < Duration::from_secs(900), "{name} is not done; {}", host.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    println!("{count} orders done and reported in {:.1} s", begun.elapsed().as_secs_f64());
    host
}

fn threads(pid: u32) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn used(pid: u32) -> Used {
    let mut all = Used::default();
    for thread in threads(pid) {
        let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
        let nanos: f64 =
            read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        all.cpu_ms += nanos / 1e6;
        let status = read("status");
        let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
        all.switches +=
            switches.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    all
}

/// A field of the sum over all mappings, in KiB.
fn rollup(pid: u32, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
}
