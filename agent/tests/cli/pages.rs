//! The guides' commands, typed as they are written: on a host of a fleet, with its agent, in the order of each page.
//!
//! What a reader has to put in is put in: the name of an order or a task, a run's id. Nobody answers for the other hosts
//! here, so an act does not wait for their answers, and a freeze does not wait until they rest. Each command
//! ends with a status that the guides name for where this fleet is; whatever the program does not understand fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bench::{Bench, Done};
use crate::screens::fleet;

/// What the pages leave to their readers.
const WORDS: [(&str, &str); 4] =
    [("ORDER", "backup"), ("NAME", "good"), ("8Q2F7K", "01JD8000000000000000000000"), ("10m", "0s")];
/// Done, or not so; no such thing; a question that nobody is there to answer; nobody answered in time.
const OFTEN: [i32; 6] = [0, 1, 5, 6, 18, 19];
/// A folder as the store has no tokens; the task of this fleet has no parameters.
const SOMETIMES: [(i32, &str); 2] = [
    (2, "hostler enroll db1 db2 db3 --group hana --token-dir tokens"),
    (15, "hostler run hello --host db1 --param name=db1"),
];
/// Commands that wait for the answer of a host.
const ACTS: [&str; 6] = ["retry", "release", "cancel", "accept", "acknowledge", "undo"];

/// The commands of Hostler in the blocks of a page, each once.
fn commands(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh" && !inside;
        } else if inside && line.starts_with("hostler ") && !found.contains(&line.to_owned()) {
            found.push(line.to_owned());
        }
    }
    found
}

fn typed(line: &str) -> String {
    let (line, comment) =
        line.split_once("  #").map_or((line, ""), |(line, comment)| (line.trim_end(), comment));
    let line = WORDS.iter().fold(line.to_owned(), |line, (word, meant)| line.replace(word, meant));
    let verb = line.split(' ').nth(1).unwrap_or_default();
    let more = if ACTS.contains(&verb) { " --answer-timeout 0s" } else { "" };
    assert!(comment.is_empty() || !comment.contains("hostler "), "{line}");
    format!("{line}{more}")
}

fn carry_out(bench: &Bench, tools: &Path, line: &str) -> Done {
    let path = format!("{}:/usr/bin:/bin", tools.display());
    // What does not end by then waits for something that a reader would wait for in vain.
    let mut shell = Command::new("timeout");
    shell.args(["30", "sh", "-c", line]).current_dir(bench.path("desk")).stdin(Stdio::null());
    shell.env("PATH", path).env("HOSTLER_CONFIG", bench.path("hostler.yml")).env("EDITOR", "true");
    shell.env("TZ", "UTC").env("USER", "alice").output().unwrap().into()
}

#[test]
fn what_the_guides_type_is_carried_out() {
    let mut count = 0;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for page in ["orders.md", "operations.md", "runbook.md", "writing-tasks.md"] {
        let mut bench = fleet();
        let tools = bench.path("tools");
        fs::create_dir_all(&tools).unwrap();
        fs::create_dir_all(bench.path("desk")).unwrap();
        fs::copy(root.join("../agent/tests/cli/pages/backup.yml"), bench.path("desk/backup.yml")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hostler"), tools.join("hostler")).unwrap();
        for name in ["backup", "hello", "one", "two"] {
            bench.task(name, "echo done");
            let file = bench.path("tasks").join(name).join("task.yml");
            let text = fs::read_to_string(&file).unwrap();
            // Any parameters.
            let text = text.lines().filter(|line| !line.starts_with("params")).collect::<Vec<_>>().join("\n");
            fs::write(&file, text).unwrap();
        }
        for name in ["one", "two"] {
            let folder = bench.path("desk").join(name);
            fs::rename(bench.path("tasks").join(name), &folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // The agent of the first host works; what stood there for it was another machine's.
        for report in ["agents/db1", "facts/db1", "orders/db1/backup"] {
            fs::remove_file(bench.path("store/hostler/reports").join(report)).unwrap();
        }
        bench.start();
        let lines = commands(&fs::read_to_string(root.join(page)).unwrap());
        assert!(lines.len() > 2, "{page}: {lines:?}");
        for line in lines {
            let done = carry_out(&bench, &tools, &typed(&line));
            // A command line that is not understood, and the end of a program by a signal.
            let understood = !done.err.contains("For more information, try") && (0..100).contains(&done.code);
            assert!(understood, "{page}: {line}\n{}{}", done.out, done.err);
            let allowed = OFTEN.contains(&done.code) || SOMETIMES.contains(&(done.code, line.as_str()));
            assert!(allowed, "{page}: {line}\nended with {}: {}{}", done.code, done.out, done.err);
            count += 1;
        }
    }
    assert!(count > 70, "{count} commands were found");
}
