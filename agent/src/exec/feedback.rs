//! What a step says of itself: JSON lines that it appends to the file named by `HOSTLER_REPORT`.
//!
//! The file is made and opened here before the step starts. It is meant to be appended to; a file that is written from
//! its beginning again (`>`), or replaced by another (`mv`), is read from its beginning. Everything has a bound, and
//! nothing is dropped in silence: what was not taken is in [`StepReportReader::warnings`], without the run's secrets.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::output::clean;
use super::redact::Redactor;
use crate::domain::downtime::{Downtime, MAX_SERVICES_AT_ONCE, Service, read_line};
use crate::domain::text::head;
use crate::domain::yaml::single_line;

/// The part of the file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The longest line, in bytes.
const MAX_LINE: usize = 4 << 10;
/// How many outputs.
const MAX_OUTPUTS: usize = 32;
/// Their names and values together, in bytes.
const OUTPUT_BYTES: usize = 2 << 10;
/// The longest message, in bytes.
const MESSAGE: usize = 512;
/// How much is shown of a line that was not understood, in bytes.
const SHOWN: usize = 80;
/// What some editors and systems put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a step has said so far.
pub struct StepReportReader {
    path: PathBuf,
    file: File,
    redactor: Option<Arc<Redactor>>,
    /// How the file looked when it was read.
    stamp: Option<Stamp>,
    /// The bytes that were taken: how many, and their sum, by which a file that begins otherwise is noticed.
    taken: usize,
    sum: Sha256,
    /// The line that has no end yet; one byte more than the longest line at most.
    partial: Vec<u8>,
    /// In percent.
    pub progress: Option<u8>,
    /// The last one.
    pub message: Option<String>,
    /// By name.
    pub outputs: BTreeMap<String, String>,
    /// How long services could not be used, the sum of all lines for each.
    downtime: BTreeMap<Service, Downtime>,
    /// Lines that were not understood.
    bad: u64,
    /// The first of them, and why.
    first_bad: Option<String>,
    /// More came than is read.
    too_large: bool,
    /// What stands in the file's place and is not read.
    trouble: Option<String>,
}

/// Two that are the same mean that a file was not changed between them, but for the resolution of the system's clock.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { file: (meta.dev(), meta.ino()), size: meta.size(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

/// What one line says.
#[derive(Default)]
struct StepReport {
    progress: Option<u8>,
    message: Option<String>,
    outputs: BTreeMap<String, String>,
    downtime: Option<Downtime>,
}

impl StepReportReader {
    /// Makes the file, empty and for its owner alone, and holds it open.
    pub fn create(path: &Path, redactor: Option<Arc<Redactor>>) -> io::Result<Self> {
        let _ = fs::remove_file(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::of(path, file, redactor))
    }

    fn of(path: &Path, file: File, redactor: Option<Arc<Redactor>>) -> Self {
        Self {
            path: path.to_owned(),
            file,
            redactor,
            stamp: None,
            taken: 0,
            sum: Sha256::new(),
            partial: Vec::new(),
            progress: None,
            message: None,
            outputs: BTreeMap::new(),
            downtime: BTreeMap::new(),
            bad: 0,
            first_bad: None,
            too_large: false,
            trouble: None,
        }
    }

    /// Opens the file that the command of a lost executor left; an error if there is none, or it is no regular file.
    pub fn left_behind(path: &Path, redactor: Option<Arc<Redactor>>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // A link could lead anywhere, and a pipe would be waited for.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self::of(path, file, redactor))
    }

    /// Reads what has come since; true if anything that was understood has.
    pub fn read(&mut self) -> bool {
        // Asked first: what was written before another file took its place is then in the one that is open.
        let other = self.replaced();
        let news = self.take_new();
        match other {
            None => news,
            Some(file) => {
                let last = self.end_line();
                self.file = file;
                self.start_over();
                let more = self.take_new();
                news || last || more
            }
        }
    }

    /// Reads the rest when the command has ended: its last line needs no newline.
    pub fn finish(&mut self) {
        self.stamp = None;
        self.read();
        self.end_line();
    }

    /// How long services could not be used, one sum for each service.
    pub fn downtime(&self) -> Vec<Downtime> {
        self.downtime.values().cloned().collect()
    }

    /// What was not taken, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let first = self.first_bad.as_deref().unwrap_or_default();
        let bad = match self.bad {
            0 => None,
            1 => Some(format!("1 line of HOSTLER_REPORT was not understood: {first}")),
            n => Some(format!("{n} lines of HOSTLER_REPORT were not understood, the first: {first}")),
        };
        let too_large = self
            .too_large
            .then(|| format!("HOSTLER_REPORT has more than {MAX_FILE} bytes: the rest was not read"));
        [bad, too_large, self.trouble.clone()].into_iter().flatten().collect()
    }

    /// The file that was put in the place of the one that is open.
    fn replaced(&mut self) -> Option<File> {
        // One that is not there any more was read to its end.
        let meta = fs::symlink_metadata(&self.path).ok()?;
        let open = self.file.metadata().ok()?;
        if (meta.dev(), meta.ino()) == (open.dev(), open.ino()) {
            return None;
        }
        let mut options = OpenOptions::new();
        // A link could lead anywhere, and a pipe would be waited for.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let opened = if meta.is_file() {
            options.open(&self.path).and_then(|file| Ok((file.metadata()?.is_file(), file)))
        } else {
            Err(io::Error::other("it is no regular file"))
        };
        match opened {
            Ok((true, file)) => return Some(file),
            Ok((false, _)) => self.trouble = Some("HOSTLER_REPORT was replaced while it was read".to_owned()),
            Err(why) => self.trouble = Some(format!("HOSTLER_REPORT was replaced and cannot be read: {why}")),
        }
        None
    }

    fn start_over(&mut self) {
        self.stamp = None;
        self.taken = 0;
        self.sum = Sha256::new();
        self.partial.clear();
    }

    fn take_new(&mut self) -> bool {
        let stamp = self.file.metadata().ok().map(|meta| Stamp::of(&meta));
        if stamp.is_some() && stamp == self.stamp {
            return false;
        }
        let bytes = match self.beginning() {
            Ok(bytes) => bytes,
            // What was understood before stays; the step is not judged by its messages.
            Err(error) => {
                self.trouble = Some(format!("HOSTLER_REPORT cannot be read: {error}"));
                return false;
            }
        };
        self.stamp = stamp;
        let mut news = false;
        let known = bytes.get(..self.taken).map(Sha256::digest);
        if known != Some(self.sum.clone().finalize()) {
            news |= self.end_line();
            self.start_over();
            self.stamp = stamp;
        }
        self.too_large |= bytes.len() > MAX_FILE;
        let readable = bytes.get(..MAX_FILE).unwrap_or(&bytes);
        let new = readable.get(self.taken..).unwrap_or_default();
        self.sum.update(new);
        self.taken += new.len();
        for byte in new {
            if *byte == b'\n' {
                news |= self.end_line();
            } else if self.partial.len() <= MAX_LINE {
                self.partial.push(*byte);
            }
        }
        news
    }

    /// The part of the file that is read, and one byte more if there is more.
    fn beginning(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        while bytes.len() <= MAX_FILE {
            match self.file.read_at(&mut chunk, bytes.len() as u64) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(MAX_FILE + 1);
        Ok(bytes)
    }

    /// Takes the line that was read; true if it was understood.
    fn end_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.partial);
        let text = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            return false;
        }
        let said = if line.len() > MAX_LINE {
            // Nothing of it is shown: where it was cut could be in the middle of a secret.
            Err(format!("it has more than {MAX_LINE} bytes"))
        } else {
            self.understand(text).map_err(|why| format!("{:?}: {why}", self.shown(text)))
        };
        match said {
            Ok(said) => {
                self.progress = said.progress.or(self.progress);
                self.message = said.message.or(self.message.take());
                self.outputs.extend(said.outputs);
                self.downtime_said(said.downtime);
                true
            }
            Err(why) => {
                self.bad += 1;
                self.first_bad.get_or_insert(why);
                false
            }
        }
    }

    /// The beginning of a line, for the operator.
    fn shown(&self, line: &[u8]) -> String {
        let text = self.said(&String::from_utf8_lossy(line));
        let short = head(&text, SHOWN);
        if short.len() < text.len() { format!("{short}…") } else { short }
    }

    /// Text for a report, without the run's secrets: looked for before and after it is cleaned, because the
    /// cleaning may join what control characters kept apart.
    fn said(&self, text: &str) -> String {
        match &self.redactor {
            None => clean(text.as_bytes(), usize::MAX),
            Some(redactor) => {
                let whole = clean(redactor.text(text).as_bytes(), usize::MAX);
                clean(redactor.text(&whole).as_bytes(), usize::MAX)
            }
        }
    }

    /// All of what a line says, or why nothing of it is taken.
    fn understand(&self, line: &[u8]) -> Result<StepReport, String> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| format!("it is not JSON: {}", single_line(&error.to_string())))?;
        let Value::Object(fields) = value else { return Err("it is no JSON object".to_owned()) };
        if fields.is_empty() {
            return Err("it has none of progress, message, output and downtime".to_owned());
        }
        let mut said = StepReport::default();
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("progress", Value::Number(number)) => {
                    let percent = number.as_f64().filter(|percent| (0.0..=100.0).contains(percent));
                    let percent = percent.ok_or("progress is a number from 0 to 100")?;
                    said.progress = Some(percent as u8);
                }
                ("message", Value::String(text)) => said.message = Some(self.message(&text)),
                ("output", Value::Object(outputs)) => said.outputs = self.outputs(outputs)?,
                ("downtime", value) => said.downtime = Some(self.downtime_of(value)?),
                ("progress", _) => return Err("progress is a number from 0 to 100".to_owned()),
                ("message", _) => return Err("message is a text".to_owned()),
                ("output", _) => return Err("output is an object of names and values".to_owned()),
                (other, _) => {
                    let name = head(&self.said(other), SHOWN);
                    return Err(format!("{name:?} is none of progress, message, output and downtime"));
                }
            }
        }
        Ok(said)
    }

    fn downtime_said(&mut self, said: Option<Downtime>) {
        let Some(one) = said else { return };
        match self.downtime.get_mut(&one.service) {
            Some(sum) => sum.add(&one),
            None => drop(self.downtime.insert(one.service.clone(), one)),
        }
    }

    /// The downtime of one line, if there is room for its service beside the others.
    fn downtime_of(&self, value: Value) -> Result<Downtime, String> {
        let one = read_line(value).map_err(|why| self.said(&why))?;
        let service = one.service.as_str();
        // A name that holds a secret becomes none.
        if self.said(service) != service {
            return Err("downtime: the name of the service holds a secret".to_owned());
        }
        if self.downtime.len() >= MAX_SERVICES_AT_ONCE && !self.downtime.contains_key(&one.service) {
            return Err(format!("downtime: a step reports {MAX_SERVICES_AT_ONCE} services at most"));
        }
        Ok(one)
    }

    /// A message in one line; one that is too long ends with a mark.
    fn message(&self, text: &str) -> String {
        let text = self.said(text).replace('\n', " ");
        if text.len() <= MESSAGE { text } else { format!("{}…", head(&text, MESSAGE - '…'.len_utf8())) }
    }

    /// The outputs of one line, if all of them are good and have room beside the others.
    fn outputs(&self, outputs: Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
        let mut all = self.outputs.clone();
        let mut new = BTreeMap::new();
        for (name, value) in outputs {
            // A name that holds a secret becomes none.
            let shown = self.said(&name);
            if !is_output_name(&name) || !is_output_name(&shown) {
                let shown = head(&shown, SHOWN);
                return Err(format!("{shown:?} is no name of an output: [a-z][a-z0-9_]{{0,31}}"));
            }
            let text = match value {
                Value::String(text) => self.said(&text),
                Value::Number(number) => self.said(&number.to_string()),
                Value::Bool(truth) => truth.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("the value of {name} is no text, number or boolean"));
                }
            };
            all.insert(name.clone(), text.clone());
            new.insert(name, text);
        }
        let size: usize = all.iter().map(|(name, text)| name.len() + text.len()).sum();
        if all.len() > MAX_OUTPUTS || size > OUTPUT_BYTES {
            return Err(format!("a step has room for {MAX_OUTPUTS} outputs of {OUTPUT_BYTES} bytes in all"));
        }
        Ok(new)
    }
}

/// `[a-z][a-z0-9_]{0,31}`
fn is_output_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 32 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
