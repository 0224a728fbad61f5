//! What a step says of itself: lines in the file that `HOSTLER_REPORT` names; without that file, on standard error.
//!
//! A report that cannot be written stops nothing: the databases are more important than the words about them.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

/// The longest message, in characters; the agent cuts longer ones.
const MESSAGE: usize = 480;

/// What the step does now.
pub fn message(text: &str) {
    if !append(&json!({ "message": short(text) })) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// What the step does now, and how much of it is done, in percent.
pub fn progress(percent: u8, text: &str) {
    if !append(&json!({ "progress": percent.min(100), "message": short(text) })) {
        let _ = writeln!(std::io::stderr(), "{percent:3} % {text}");
    }
}

/// A result that belongs into the report of the run; `name` of `a-z 0-9 _`.
pub fn output(name: &str, value: impl Into<Value>) {
    let mut fields = serde_json::Map::new();
    fields.insert(name.to_owned(), value.into());
    append(&json!({ "output": fields }));
}

/// For how long a service was not there for its users.
pub fn downtime(service: &str, from: jiff::Timestamp, held: std::time::Duration) {
    let to = from.checked_add(held).unwrap_or(from);
    let line = json!({ "service": service, "seconds": held.as_secs_f64(), "from": from.to_string(), "to": to.to_string() });
    append(&json!({ "downtime": line }));
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE).map(|c| if c == '\n' { ' ' } else { c }).collect()
}

/// False if no report is asked for.
fn append(line: &Value) -> bool {
    let Some(path) = std::env::var_os("HOSTLER_REPORT") else { return false };
    if let Ok(mut file) = OpenOptions::new().append(true).open(path) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
    true
}
