//! The README's first steps, typed as they are written: in their order, into a shell that has nothing else.
//!
//! `cargo run --release` is the one command that is not carried out as such: a program of this name hands its arguments to
//! the program under test, and ends it after its first result, where a reader presses Ctrl-C. The shell is in a network of
//! its own, so that Consul has its usual ports, whatever else runs on the machine.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use hostler_testkit::program;

/// The lines of the fenced blocks of commands below a heading, without their prompts.
fn typed(page: &str, heading: &str) -> Vec<String> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("there is no section {heading}"));
    let mut blocks = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let block = block.split("\n```").next().unwrap_or_default();
        // What has no prompt goes on with the command before it.
        let lines: Vec<&str> = block.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line)).collect();
        blocks.push(lines.join("\n"));
    }
    assert!(!blocks.is_empty(), "there are no commands in {heading}");
    blocks
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn the_first_steps_of_the_readme_lead_where_they_say() {
    let page = include_str!("../../../README.md");
    let dir = tempfile::tempdir().expect("a folder");
    let checkout = dir.path().join("checkout");
    let tools = dir.path().join("tools");
    for folder in [&checkout.join("target/release"), &tools] {
        fs::create_dir_all(folder).expect("a folder");
    }
    symlink(program(), checkout.join("target/release/hostler")).expect("the program");
    executable(
        &tools.join("cargo"),
        "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || exit 99\nshift 3\nexec target/release/hostler \"$@\" --once\n",
    );
    let [trial] = &*typed(page, "Try it") else { panic!("one block was expected") };
    let blocks = typed(page, "With Consul");
    // One command a line, in the background: what a terminal of its own is to a reader.
    let [consul, first, again] = &*blocks else { panic!("three blocks were expected: {blocks:#?}") };
    // The reader of the guide sees in the other terminal that Consul works, and looks at what is printed.
    let script = format!(
        "set -e -m\n\
         end() {{ kill $(jobs -p) 2>/dev/null || true; }}\n\
         trap end EXIT\ntrap 'exit 1' TERM INT\n\
         ip link set lo up\n\
         {trial}\n\
         echo '--- with Consul'\n\
         {consul} >consul.log 2>&1 &\n\
         consul=$!\n\
         disown\n\
         end() {{ kill $(jobs -p) $consul 2>/dev/null || true; }}\n\
         until consul operator raft list-peers 2>/dev/null | grep -q leader; do sleep 0.2; done\n\
         {first}\n\
         echo '--- again'\n\
         {again}\n\
         echo '--- the end'\n"
    );
    let file = dir.path().join("script");
    fs::write(&file, &script).expect("the script");
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    let output = Command::new("timeout")
        .args(["--kill-after=20", "300", "unshare", "--net", "bash"])
        .arg(&file)
        .current_dir(&checkout)
        .env_clear()
        .env("PATH", path)
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("timeout");
    let out = String::from_utf8_lossy(&output.stdout);
    let all = format!("{out}\n--- errors\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{all}", output.status);
    let parts: Vec<&str> = out.split("--- ").collect();
    let [trial, first, again, "the end\n"] = &*parts else { panic!("{all}") };
    assert!(trial.contains("succeeded  step 1/1 greet, done"), "{all}");
    // What the report in Consul says at the end of each block.
    for part in [first, again] {
        let report = part.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{all}"));
        let report: serde_json::Value = serde_json::from_str(report).expect("a report");
        assert_eq!(report["phase"], "succeeded", "{all}");
        assert_eq!(report["outputs"]["greeting"], "Hello, world!", "{all}");
        assert_eq!(report["epoch"], 1, "the run went on without the agent: {all}");
    }
}
