//! What is told while bytes move: a line on a terminal, lines for the fleet, figures at the end.

use std::io::Read;
use std::process::Stdio;

use crate::support::depot::Depot;
use crate::support::noise;
use crate::support::servers::Strict;

const MIB: usize = 1 << 20;

#[test]
fn progress_and_figures_reach_the_fleet() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let report = depot.path("report");
    std::fs::write(&report, "").unwrap();
    // Slow enough for a line on the way: 3 MiB at 2 MiB a second.
    let mut command = depot.command(&["put", "db/a", "--limit", "2097152", "--expect", "3145728"]);
    command.env("HOSTLER_REPORT", &report);
    let begun = std::time::Instant::now();
    crate::support::depot::feed(command, &noise(1, 3 * MIB)).ok();
    assert!(begun.elapsed().as_secs_f64() >= 1.4, "the limit holds");
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&report)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["progress"].is_u64() && line["message"].as_str().unwrap().contains("left"))
    );
    assert_eq!(lines.last().unwrap()["output"]["bytes"], 3 * MIB);
    assert_eq!(lines.last().unwrap()["output"]["retries"], 0);
}

/// Runs a command whose standard error is a terminal; gives what the terminal was sent.
fn on_a_terminal(depot: &Depot, arguments: &[&str], input: &[u8]) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = depot.command(arguments);
    command.stderr(Stdio::from(pty.slave)).stdout(Stdio::null()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The child alone has the other side now: it ends with it.
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    let mut terminal = std::fs::File::from(pty.master);
    let text = std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut stdin, input).unwrap());
        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
        // A terminal whose other side is closed answers with an error, not with an end.
        while let Ok(count @ 1..) = terminal.read(&mut piece) {
            text.extend_from_slice(&piece[..count]);
        }
        text
    });
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_shows_bytes_rate_and_time_left_in_one_line_and_then_the_result() {
    let server = Strict::start();
    let depot = Depot::new(server.address, "");
    let bytes = noise(1, 3 * MIB);
    let put = ["put", "db/a", "--limit", "1572864"];
    let unknown = on_a_terminal(&depot, &put, &bytes);
    let known = on_a_terminal(&depot, &["put", "db/b", "--limit", "1572864", "--expect", "3145728"], &bytes);
    for (text, left) in [(&unknown, false), (&known, true)] {
        let (lines, result) = text.rsplit_once("\r\x1b[K").unwrap();
        let lines: Vec<&str> = lines.split('\r').filter(|line| !line.is_empty()).collect();
        assert!(lines.len() >= 2, "two seconds, two lines each: {text:?}");
        for line in lines {
            // It replaces the one before it, and nothing of that is left.
            let line = line.strip_suffix("\x1b[K").unwrap_or_else(|| panic!("{line:?}"));
            assert!(
                line.starts_with("stored ") && line.contains("iB, ") && line.contains("iB/s"),
                "{line:?}"
            );
            assert_eq!(line.contains(" of 3.0 MiB, ") && line.ends_with(" s left"), left, "{line:?}");
            assert!(!line.contains('\n') && line.len() < 80, "{line:?}");
        }
        assert!(
            result.starts_with("hostler-depot: stored `db/") && result.ends_with("0 retries\r\n"),
            "{result:?}"
        );
    }
    // Where nobody looks there is the result alone.
    let quiet = depot.feed(&["put", "db/c", "--limit", "1572864"], &bytes).ok().err;
    assert!(!quiet.contains('\r') && quiet.lines().count() == 1, "{quiet:?}");
}
