//! What a step says of itself: JSON lines that it appends to the file named by `HOSTLER_REPORT`.
//!
//! The file is opened here before the step starts, and only that descriptor is read: whatever the step
//! puts in the file's place is not looked at. Everything has a bound; lines that are not understood are counted.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::output::clean;
use super::redact::Redactor;

/// Read in all, in bytes.
const MOST: u64 = 1 << 20;
/// The longest line, in bytes.
const LINE: usize = 4 << 10;
/// How many outputs.
const OUTPUTS: usize = 32;
/// Their names and values together, in bytes.
const OUTPUT_BYTES: usize = 2 << 10;
/// The longest message, in bytes.
const MESSAGE: usize = 512;

/// What a step has said so far.
pub struct Feedback {
    file: io::Take<File>,
    redactor: Option<Arc<Redactor>>,
    partial: Vec<u8>,
    /// In percent.
    pub progress: Option<u8>,
    /// The last one.
    pub message: Option<String>,
    /// By name.
    pub outputs: BTreeMap<String, String>,
    /// Lines that were not understood.
    pub bad: u64,
}

impl Feedback {
    /// Makes the file, empty and for its owner alone, and holds it open.
    pub fn create(path: &Path, redactor: Option<Arc<Redactor>>) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let file = file.take(MOST);
        let outputs = BTreeMap::new();
        Ok(Self { file, redactor, partial: Vec::new(), progress: None, message: None, outputs, bad: 0 })
    }

    /// Reads what has come since; true if anything that was understood has.
    pub fn read(&mut self) -> bool {
        let mut bytes = Vec::new();
        // An error leaves what was understood before; the step is not judged by its messages.
        let _ = self.file.read_to_end(&mut bytes);
        let mut news = false;
        for byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                let understood = line.len() <= LINE && self.take_line(&line);
                self.bad += u64::from(!understood);
                news |= understood;
            } else if self.partial.len() <= LINE {
                self.partial.push(byte);
            }
        }
        news
    }

    /// Text for a report, without the run's secrets: looked for before and after it is cleaned, because the
    /// cleaning may join what control characters kept apart.
    fn said(&self, text: &str, most: usize) -> String {
        match &self.redactor {
            None => clean(text.as_bytes(), most),
            Some(redactor) => {
                let whole = clean(redactor.text(text).as_bytes(), usize::MAX);
                clean(redactor.text(&whole).as_bytes(), most)
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> bool {
        let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return false };
        let mut understood = false;
        for (field, value) in fields {
            understood = match (field.as_str(), value) {
                ("progress", Value::Number(number)) => match number.as_f64() {
                    Some(percent) if (0.0..=100.0).contains(&percent) => {
                        self.progress = Some(percent as u8);
                        true
                    }
                    _ => false,
                },
                ("message", Value::String(text)) => {
                    self.message = Some(self.said(&text, MESSAGE).replace('\n', " "));
                    true
                }
                ("output", Value::Object(outputs)) => {
                    outputs.into_iter().all(|(name, value)| self.take_output(name, value))
                }
                _ => false,
            };
            if !understood {
                break;
            }
        }
        understood
    }

    fn take_output(&mut self, name: String, value: Value) -> bool {
        let text = match value {
            Value::String(text) => self.said(&text, OUTPUT_BYTES),
            Value::Number(number) => self.said(&number.to_string(), OUTPUT_BYTES),
            Value::Bool(truth) => truth.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        };
        let others = self.outputs.iter().filter(|(other, _)| **other != name);
        let (count, size) =
            others.fold((0, 0), |(count, size), (k, v)| (count + 1, size + k.len() + v.len()));
        let fits = count < OUTPUTS && size + name.len() + text.len() <= OUTPUT_BYTES;
        // A name that holds a secret becomes none.
        let good = fits && is_output_name(&name) && is_output_name(&self.said(&name, OUTPUT_BYTES));
        if good {
            self.outputs.insert(name, text);
        }
        good
    }
}

/// `[a-z][a-z0-9_]{0,31}`
fn is_output_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 32 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn said(text: &[u8]) -> Feedback {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        let mut feedback = Feedback::create(&path, None).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(text).unwrap();
        feedback.read();
        feedback
    }

    #[test]
    fn good_lines_are_taken_and_bad_ones_counted() {
        let feedback = said(
            b"{\"progress\": 40, \"message\": \"copying\\u001b[0m\"}\nnonsense\n{\"progress\": 101}\n{\"x\":1}\n\
              {\"output\": {\"backup_id\": \"b1\", \"size\": 7}}\n{\"output\": {\"Bad\": \"x\"}}\n{\"progress\": 50",
        );
        assert_eq!(feedback.progress, Some(40), "the last line is not whole");
        assert_eq!(feedback.message.as_deref(), Some("copying[0m"));
        assert_eq!(feedback.outputs.len(), 2);
        assert_eq!(feedback.outputs["size"], "7");
        assert_eq!(feedback.bad, 4);
    }

    #[test]
    fn everything_has_a_bound() {
        let many: String = (0..100).map(|n| format!("{{\"output\": {{\"o{n}\": \"x\"}}}}\n")).collect();
        assert_eq!(said(many.as_bytes()).outputs.len(), OUTPUTS);
        let long = format!("{{\"message\": \"{}\"}}\n", "x".repeat(5000));
        assert_eq!(said(long.as_bytes()).bad, 1);
        let mut endless = vec![b'x'; 2 << 20];
        endless.extend(b"\n{\"progress\": 1}\n");
        let feedback = said(&endless);
        assert_eq!((feedback.progress, feedback.partial.len()), (None, LINE + 1));
    }

    #[test]
    fn a_file_put_in_its_place_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        let mut feedback = Feedback::create(&path, None).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "{\"progress\": 1}\n").unwrap();
        assert!(!feedback.read());
    }
}
