//! An agent that dies again and again leaves Consul's connections to the other programs of its host.
//!
//! A server gives one client's address 200 connections, and keeps that of a blocking query whose client died until its
//! wait is over.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::time::{Duration, Instant};

use hostler_testkit::{Consul, DEFAULT_TIMEOUT, Host, eventually};

/// For so long the agent dies; a question of an agent that has grown old waits for about as long.
const DEATHS: Duration = Duration::from_secs(60);
/// How long it lives each time, at the least: long enough to ask all that it asks at its start.
const LIFE: Duration = Duration::from_millis(400);
/// The most connections at the server at any moment: a quarter of what it gives.
const MOST: usize = 50;

/// The connections that the server holds on a port, also those whose client is gone.
fn connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the connections of this host");
    let local = format!(":{port:04X}");
    let held = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let state = words.get(3).copied().unwrap_or_default();
        // Established, or closed by the client alone.
        words.get(1).is_some_and(|at| at.ends_with(&local)) && matches!(state, "01" | "08")
    };
    table.lines().filter(held).count()
}

#[test]
fn an_agent_that_dies_again_and_again_leaves_connections_to_others() {
    let consul = Consul::dev();
    let mut host = Host::on_consul("mortal", &consul);
    host.counting_task("count", "repeatable:x", "0");
    let (begun, mut deaths, mut most) = (Instant::now(), 0_u32, 0);
    while begun.elapsed() < DEATHS {
        host.start_once_more();
        let born = Instant::now();
        eventually(DEFAULT_TIMEOUT, || {
            most = most.max(connections(consul.port()));
            if born.elapsed() >= LIFE { Ok(()) } else { Err("it lives".to_owned()) }
        });
        host.kill();
        deaths += 1;
        most = most.max(connections(consul.port()));
        // Whoever else asks from this address is answered.
        assert_eq!(consul.api("GET", "/v1/status/leader", b"").status, 200, "after {deaths} deaths");
    }
    eprintln!("{deaths} deaths, {most} connections at the most");
    assert!(deaths > 30, "{deaths} deaths only");
    assert!(most <= MOST, "{most} connections, in {deaths} deaths");
    // It still does its work, a while later.
    host.start_once_more();
    host.order("late", "task: count");
    host.wait_completed("late", 1);
    assert!(fs::read_to_string(host.path("log")).expect("the log").contains("times in a row"));
}
