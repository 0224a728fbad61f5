//! What a step says to the fleet: lines in the file that `HOSTLER_REPORT` names.
//!
//! Without that variable nothing is said: a person at a terminal has the output.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::Error;

/// Most bytes of a message that the agent keeps.
const MAX_MESSAGE: usize = 500;

/// One line that says what the step does, or why it failed.
pub fn message(text: &str) -> Result<(), Error> {
    let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let end = (0..=MAX_MESSAGE.min(plain.len())).rev().find(|end| plain.is_char_boundary(*end));
    append(&json!({"message": plain.get(..end.unwrap_or_default())}))
}

/// How far the step is, in percent, and what it does now.
pub fn progress(percent: usize, text: &str) -> Result<(), Error> {
    append(&json!({"progress": percent.min(100), "message": text}))
}

/// Results of the step; each value is a text or a number.
pub fn outputs(outputs: &Value) -> Result<(), Error> {
    append(&json!({"output": outputs}))
}

/// For how long a service was not there for its users.
pub fn downtime(service: &str, from: Timestamp, held: Duration) -> Result<(), Error> {
    let to = from.checked_add(held).unwrap_or(from);
    append(&json!({"downtime": {
        "service": service, "seconds": held.as_secs_f64(), "from": from.to_string(), "to": to.to_string()
    }}))
}

fn append(line: &Value) -> Result<(), Error> {
    let Some(path) = std::env::var_os("HOSTLER_REPORT") else { return Ok(()) };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.map_err(Error::local(path.to_string_lossy()))
}
