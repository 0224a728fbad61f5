//! Debian's Prometheus: its checker, and a server of a test's own.
//!
//! `tests/install` unpacks both below `target/`, so that no service of the machine comes with them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::request;
use crate::{eventually, free_ports};

/// A server is ready by then, also on a slow and busy machine.
const START: Duration = Duration::from_secs(60);

/// How often a start is tried with another port when one was taken meanwhile.
const TRIES: usize = 5;

#[track_caller]
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/prometheus/usr/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = [unpacked].into_iter().chain(installed).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: run tests/install, which unpacks it"))
}

/// Runs `promtool` in a folder with a text as its input; what it printed, or as an error if it found fault.
pub fn promtool(folder: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program("promtool"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("to write its input");
    let output = child.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// One Prometheus server; ends with this value.
pub struct Prometheus {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Prometheus {
    /// A server that asks `targets` every second, with these files of rules.
    #[track_caller]
    pub fn start(targets: &[u16], rules: &[&Path]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rules: Vec<String> = rules.iter().map(|path| path.display().to_string()).collect();
        let targets: Vec<String> = targets.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [{"job_name": "hostler", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).expect("its configuration");
        for _ in 0..TRIES {
            let [port] = free_ports();
            let mut child = spawn(folder.path(), port);
            let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            let ended = eventually(START, || match child.try_wait() {
                Ok(Some(_)) => Ok(true),
                _ => match request(port, "GET", "/-/ready", None, b"") {
                    Ok(answer) if answer.status == 200 => Ok(false),
                    other => Err(format!("{other:?}; {}", log())),
                },
            });
            if !ended {
                return Self { folder, port, child };
            }
            eprintln!("prometheus ended at once, trying another port:\n{}", log());
        }
        panic!("prometheus does not start; its log is above");
    }

    /// The alerts that fire now, by name.
    #[track_caller]
    pub fn firing(&self) -> Vec<String> {
        let answer = request(self.port, "GET", "/api/v1/alerts", None, b"").expect("an answer of prometheus");
        let answer: Value = serde_json::from_slice(&answer.body).expect("its alerts");
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    let log = File::create(folder.join("log")).expect("a log file for prometheus");
    Command::new(program("prometheus"))
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("to start prometheus")
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
