//! The program's memory does not follow the size of the database.

use std::fs;
use std::process::Stdio;

use hostler_testkit::free_ports;

use crate::kit::Lab;

/// What the program may have at most, in KiB.
const MOST: u64 = 32 << 10;

/// The most memory that a command has had, in KiB.
fn peak(lab: &Lab, words: &[&str]) -> u64 {
    let mut command = lab.program(words);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
    let mut peak = 0;
    while child.try_wait().expect("the program").is_none() {
        // The mark only rises: the last look before the end is the one that counts.
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse().ok());
        peak = peak.max(kib.unwrap_or_default());
        std::thread::yield_now();
    }
    peak
}

#[test]
fn ten_thousand_columns_and_sequences_take_no_more_than_32_mib() {
    let mut lab = Lab::new();
    let port = lab.cluster(13, "");
    lab.sql(port, "postgres", "create database shop");
    lab.sql(
        port,
        "shop",
        "do $$ begin for i in 1..2500 loop
             execute format('create table wide_%s (a bigserial, b int, c text, d timestamptz)', i);
         end loop; end $$",
    );
    lab.bouncer(&["shop"], port, "transaction");
    let [new] = free_ports();
    let words = lab.plan(&["check"], new);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    for words in [&words[..], &["health", "--cluster", lab.name()]] {
        let peak = peak(&lab, words);
        assert!((1..MOST).contains(&peak), "{words:?}: {peak} KiB");
        println!("{}: {peak} KiB", words[0]);
    }
}
