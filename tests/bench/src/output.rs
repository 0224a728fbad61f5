//! What it costs that a run has secrets: a step prints 1 GB of text, with and without them, by turns.

use std::fs;
use std::process::Command;
use std::time::Duration;

use hostler_testkit::{Host, Vault, eventually};
use serde_json::json;

/// How often each is measured.
const ROUNDS: usize = 6;
/// So long a run may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// 10 MB a hundred times, so that no disk is measured.
const TIMES: usize = 100;
const PRINT: &str = "#!/bin/sh\ni=0\nwhile [ $i -lt 100 ]; do cat TEXT; i=$((i + 1)); done\n";

/// Measures and prints.
pub(crate) fn measure() {
    let vault = Vault::start();
    let secrets =
        json!({"a": "correct horse battery staple", "b": "p'ä \"$w/<&\\+=~end", "c": "0123456789abcdef"});
    vault.put("app/bench", secrets);
    let mut host = Host::on_vault("bench", &vault, "");
    let text = text(10_000_000);
    let path = host.path("text");
    fs::write(&path, &text).expect("the text");
    let print = PRINT.replace("TEXT", &path.display().to_string());
    let at = |name: &str| format!("{name}: {{path: secret/data/app/bench, field: {name}}}");
    for (task, secrets) in [
        ("plain", String::new()),
        ("secret", format!("secrets: {{{}, {}, {}}}\n", at("a"), at("b"), at("c"))),
    ] {
        let yaml = format!("name: {task}\nversion: 1\n{secrets}steps: [{{name: print, run: [./print]}}]\n");
        host.task(task, &yaml, &[("print", &print)]);
    }
    host.start();
    let mut spent = [Vec::new(), Vec::new()];
    let mut used = [Vec::new(), Vec::new()];
    let mut limit = Vec::new();
    let mut last = [String::new(), String::new()];
    for round in 0..ROUNDS {
        // Each comes first as often as the other: what one has left to be written to the disk slows the next.
        for at in [round % 2, 1 - round % 2] {
            let task = ["plain", "secret"][at];
            let mut cpu = 0.0_f64;
            host.order(task, &format!("task: {task}\nrevision: r{round}"));
            let run = eventually(PATIENCE, || {
                // It is gone a moment after the last look.
                cpu = host.executors().iter().map(|pid| cpu_seconds(*pid)).fold(cpu, f64::max);
                let report = host.report(task).unwrap_or_default();
                let run = report["run"].as_str().unwrap_or_default();
                // The report of the round before stays until this one is over.
                let done = report["phase"] == "succeeded" && !run.is_empty() && run != last[at];
                if done { Ok(run.to_owned()) } else { Err(report.to_string()) }
            });
            spent[at].push(seconds(&host, &run));
            last[at] = run;
            used[at].push(cpu);
        }
        limit.push(through_a_pipe(&host.path("tasks/plain/print")));
    }
    let [plain, secret] = spent.map(median);
    let [plain_cpu, secret_cpu] = used.map(median);
    let limit = median(limit);
    let rate = |seconds: f64| (text.len() * TIMES) as f64 / 1e6 / seconds;
    println!("\na step prints 1 GB, median of {ROUNDS}:");
    println!("{:<28} {:>8.0} MB/s", "into `cat >/dev/null`", rate(limit));
    println!("{:<28} {:>8.0} MB/s, executor {plain_cpu:.2} s CPU", "no secrets", rate(plain));
    println!(
        "{:<28} {:>8.0} MB/s, executor {secret_cpu:.2} s CPU",
        "three secrets and a token",
        rate(secret)
    );
    let more = |before: f64, now: f64| (now / before - 1.0) * 100.0;
    let (time, cpu) = (more(plain, secret), more(plain_cpu, secret_cpu));
    println!("{:<28} {time:>8.1} % of the time, {cpu:.1} % of the executor's CPU", "what redaction costs");
}

/// Lines as logs have them: times, words, numbers, paths, some Base64.
fn text(length: usize) -> Vec<u8> {
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let words = [
        "copying",
        "the",
        "relation",
        "of",
        "cluster",
        "main",
        "done",
        "in",
        "checkpoint",
        "with",
        "buffers",
    ];
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(length + 200);
    while text.len() < length {
        text.extend_from_slice(format!("2026-11-21T22:{:02}:{:02}Z ", next(60), next(60)).as_bytes());
        for _ in 0..3 + next(6) {
            text.extend_from_slice(words[next(words.len() as u64) as usize].as_bytes());
            text.push(b' ');
        }
        if next(4) == 0 {
            text.extend((0..44).map(|_| letters[next(64) as usize]));
        }
        text.extend_from_slice(
            format!("/var/lib/{}/{} {}\n", next(1000), next(100_000), next(1 << 40)).as_bytes(),
        );
    }
    text.truncate(length);
    text
}

/// How long the step took, from the run's journal.
fn seconds(host: &Host, run: &str) -> f64 {
    let journal = fs::read_to_string(host.path("state/runs").join(run).join("journal")).expect("the journal");
    let spent = journal.split("\"spent_ms\":").skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<f64>().ok())
    });
    spent.sum::<f64>() / 1000.0
}

/// What a process has used of the processor so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn through_a_pipe(script: &std::path::Path) -> f64 {
    let began = std::time::Instant::now();
    let command = format!("{} | cat >/dev/null", script.display());
    let status = Command::new("sh").args(["-c", &command]).status().expect("a shell");
    assert!(status.success(), "{command}");
    began.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
