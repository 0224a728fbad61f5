//! What the commands of a run print, on disk, with a bound: the first part and the last are kept.
//!
//! `output` takes the first bytes; what comes later goes to `output.last`, which becomes `output.prev`
//! whenever it is full. So what is on disk is the beginning and the newest end, each without a gap.
//!
//! What a command prints faster than anybody could read it would nearly all be written, and looked through for secrets,
//! only to be removed a moment later. So behind the beginning a bounded part goes to the disk at once, and the rest
//! waits in memory for the next [`Output::look`], where newer bytes push out older ones; a line says how many.
//! Whatever reaches the disk passed the filter that takes out the run's secrets.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroize;

use super::redact::{Filter, Redactor};

/// How much of the beginning is kept, in bytes.
pub const FIRST: u64 = 1 << 20;

/// How much of the end is kept at least, in bytes; at most twice that.
pub const LAST: u64 = 512 << 10;

/// The open output of a run.
pub struct Output {
    kept: OutputLog,
    filter: Option<Filter>,
    passed: Vec<u8>,
    /// So many bytes go to the disk at once before the next look.
    pace: u64,
    late: Backlog,
}

/// What came too fast: its newest end.
struct Backlog {
    bytes: VecDeque<u8>,
    most: usize,
    left_out: u64,
}

/// What of it is on the disk.
struct OutputLog {
    dir: PathBuf,
    /// Made with the first byte.
    file: Option<File>,
    room: u64,
    /// Whether the beginning is being written.
    first: bool,
}

impl Output {
    /// The output in a run's folder, to go on behind what is there. Nothing is made before there is something to keep.
    pub fn open(dir: &Path, redactor: Option<Arc<Redactor>>) -> Self {
        // What is hidden behind a gap, because a secret could have begun in it, is no part of the end that is kept.
        let hidden = redactor.as_ref().map_or(0, |redactor| redactor.longest());
        let late = Backlog {
            bytes: VecDeque::new(),
            most: usize::try_from(LAST).unwrap_or(usize::MAX).saturating_add(hidden),
            left_out: 0,
        };
        let kept = OutputLog::open(dir.to_owned());
        let pace = kept.beginning() + LAST;
        Self { kept, filter: redactor.map(Filter::new), passed: Vec::new(), pace, late }
    }

    /// Adds what a command printed; what could be the beginning of a secret stays behind until more has come.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at_once = bytes.len().min(usize::try_from(self.pace).unwrap_or(usize::MAX));
        let (now, later) = bytes.split_at(at_once);
        self.pace -= now.len() as u64;
        self.late.add(later);
        self.pass(now)
    }

    /// Once a second: what waits goes to the disk, and there is room for more.
    pub fn look(&mut self) -> io::Result<()> {
        let mut late = std::mem::take(&mut self.late.bytes);
        let left_out = std::mem::take(&mut self.late.left_out);
        let caught_up = self.catch_up(left_out, &late);
        if self.filter.is_some() {
            let (older, newer) = late.as_mut_slices();
            older.zeroize();
            newer.zeroize();
        }
        self.pace = self.kept.beginning() + LAST;
        caught_up
    }

    fn catch_up(&mut self, left_out: u64, late: &VecDeque<u8>) -> io::Result<()> {
        if left_out > 0 {
            if let Some(filter) = &mut self.filter {
                filter.gap();
            }
            self.kept.store(format!("\n[{left_out} bytes were left out here]\n").as_bytes())?;
        }
        let (older, newer) = late.as_slices();
        self.pass(older)?;
        self.pass(newer)
    }

    /// Through the filter onto the disk.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(filter) = &mut self.filter else { return self.kept.store(bytes) };
        let mut passed = std::mem::take(&mut self.passed);
        let stored = filter.push(bytes, &mut passed, |piece| self.kept.store(piece));
        self.passed = passed;
        stored
    }

    /// A command has ended: what stayed behind is no secret, or not the whole of one.
    pub fn flush(&mut self) -> io::Result<()> {
        self.look()?;
        let Some(filter) = &mut self.filter else { return Ok(()) };
        self.passed.clear();
        filter.finish(&mut self.passed);
        self.kept.store(&self.passed)
    }
}

impl Backlog {
    fn add(&mut self, bytes: &[u8]) {
        let newest = bytes.get(bytes.len().saturating_sub(self.most)..).unwrap_or_default();
        let too_many = (self.bytes.len() + newest.len()).saturating_sub(self.most);
        self.bytes.drain(..too_many);
        self.bytes.extend(newest);
        self.left_out += (bytes.len() - newest.len() + too_many) as u64;
    }
}

impl OutputLog {
    fn open(dir: PathBuf) -> Self {
        let first = dir.join("output");
        let length = fs::metadata(&first).map(|meta| meta.len()).unwrap_or(0);
        if length < FIRST {
            return Self { file: None, room: FIRST - length, dir, first: true };
        }
        let last = dir.join("output.last");
        let length = fs::metadata(&last).map(|meta| meta.len()).unwrap_or(0);
        Self { file: None, room: LAST.saturating_sub(length), dir, first: false }
    }

    /// How much of the beginning is still to come, in bytes.
    fn beginning(&self) -> u64 {
        if self.first { self.room } else { 0 }
    }

    fn store(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.room == 0 {
                self.next()?;
            }
            let here = bytes.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(here);
            self.file()?.write_all(now)?;
            self.room -= now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<()> {
        let last = self.dir.join("output.last");
        match fs::rename(&last, self.dir.join("output.prev")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = None;
        self.room = LAST;
        self.first = false;
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let opened = match self.file.take() {
            Some(file) => file,
            None => append(&self.dir.join(if self.first { "output" } else { "output.last" }))?,
        };
        Ok(self.file.insert(opened))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The parts of a run's output that are on disk, in order; `logs` prints them one behind the other.
pub fn parts(dir: &Path) -> Vec<PathBuf> {
    let names = ["output", "output.prev", "output.last"];
    names.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect()
}

/// How much of the output is looked at for its tail, in bytes: a program that shows its progress writes one line many
/// times.
const LOOKED_AT: usize = 256 << 10;

/// The last `most` bytes of a run's output as clean text: valid UTF-8 without control characters but newline. Of a line
/// that was overwritten after carriage returns only what was written last is in it.
pub fn tail(dir: &Path, most: usize) -> String {
    let mut bytes = Vec::new();
    for path in parts(dir).iter().rev() {
        let missing = most.max(LOOKED_AT).saturating_sub(bytes.len());
        let mut before = last_of(path, missing as u64).unwrap_or_default();
        before.append(&mut bytes);
        bytes = before;
    }
    clean(&without_overwritten(&bytes), most)
}

/// The lines without what a later part of the same line wrote over.
fn without_overwritten(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len().min(LOOKED_AT));
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (text, end) = match line.strip_suffix(b"\n") {
            Some(text) => (text, b"\n".as_slice()),
            None => (line, b"".as_slice()),
        };
        // Blanks alone only clear the line for what comes next, which may be nothing.
        let written = text.split(|byte| *byte == b'\r').rev();
        let last = written.clone().find(|part| !part.trim_ascii().is_empty());
        kept.extend_from_slice(last.unwrap_or_default());
        kept.extend_from_slice(end);
    }
    kept
}

fn last_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Text for a report: valid UTF-8, no control characters but newline, at most `most` bytes of its end.
pub fn clean(bytes: &[u8], most: usize) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| *c == '\n' || !c.is_control())
        .collect();
    crate::domain::text::tail(&text, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_disk_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut output = Output::open(dir.path(), None);
        for n in 0..400_000_u32 {
            if n % 100_000 == 0 {
                output = Output::open(dir.path(), None); // As after a restart.
            }
            output.write(format!("line {n:08}\n").as_bytes()).unwrap();
            if n % 20_000 == 0 {
                output.look().unwrap();
            }
        }
        let sizes: u64 = parts(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(sizes <= FIRST + 2 * LAST && sizes > FIRST + LAST);
        assert!(fs::read_to_string(dir.path().join("output")).unwrap().starts_with("line 00000000\n"));
        assert_eq!(tail(dir.path(), 28), "line 00399998\nline 00399999\n");
    }

    #[test]
    fn what_comes_too_fast_is_left_out_between_the_beginning_and_the_end() {
        let secret = "correct horse battery staple";
        let line = |n: u32| format!("line {n:08} {secret}\n");
        for cut in 0..line(0).len() {
            let dir = tempfile::tempdir().unwrap();
            let redactor = Arc::new(Redactor::new([secret]).unwrap());
            let beginning = "what came before\n".repeat(62_000);
            fs::write(dir.path().join("output"), &beginning).unwrap();
            let mut output = Output::open(dir.path(), Some(redactor));
            // Nobody looks meanwhile. Each time, another byte is the first of those that were not left out.
            let all: String = (0..40_000).map(line).collect();
            let (all, rest) = all.split_at(all.len() - cut);
            for chunk in all.as_bytes().chunks(100_000) {
                output.write(chunk).unwrap();
            }
            output.write(rest.as_bytes()).unwrap();
            output.flush().unwrap();
            let texts: Vec<String> =
                parts(dir.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
            let text = texts.concat();
            let text = text.strip_prefix(&beginning).unwrap();
            assert!(!text.contains("staple") && !text.contains("horse"), "cut at {cut}");
            let (before, after) = text.split_once("\n[").unwrap();
            let (left_out, after) = after.split_once(" bytes were left out here]\n").unwrap();
            let left_out: usize = left_out.parse().unwrap();
            // Both sides are whole, and as long as is promised of what was printed.
            let whole: String = (0..40_000).map(|n| format!("line {n:08} [redacted]\n")).collect();
            let printed = |kept: &str| (kept.matches('\n').count() * line(0).len()) as u64;
            assert!(whole.starts_with(before) && printed(before) + 100 > LAST, "cut at {cut}");
            let (_, after) = after.split_once('\n').unwrap();
            assert!(whole.ends_with(after) && printed(after) + 100 > LAST, "cut at {cut}");
            assert!(left_out > 400_000, "{left_out}");
        }
    }

    #[test]
    fn of_a_line_that_is_overwritten_the_tail_has_what_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let tail_of = |text: &[u8], most: usize| {
            fs::write(dir.path().join("output"), text).unwrap();
            tail(dir.path(), most)
        };
        let progress: String = (0..40_000).map(|n| format!("{n} of 40000 pages\r")).collect();
        let text = format!("copying\r\n{progress}FATAL: disk broke\nsecond\r\r\n");
        let tail = tail_of(text.as_bytes(), 2 << 10);
        assert!(tail.ends_with("FATAL: disk broke\nsecond\n") && !tail.contains("pages"), "{tail}");
        for (text, expected) in [
            ("a\rb\r\nc\rd\r", "b\nd"),
            ("10 %\r20 %", "20 %"),
            ("10 %\r20 %\r", "20 %"),
            ("10 %\r    \rdone\n", "done\n"),
            ("10 %\r    \r\n", "10 %\n"),
            ("one\r\n\r\ntwo\r\n", "one\n\ntwo\n"),
            ("\rx\n\ry", "x\ny"),
            ("\r\r", ""),
            ("  indented\n", "  indented\n"),
        ] {
            assert_eq!(tail_of(text.as_bytes(), 100), expected, "{text:?}");
        }
        // Another part of the output goes on in the middle of a line.
        fs::write(dir.path().join("output"), "first\n1 %\r2").unwrap();
        fs::write(dir.path().join("output.last"), " %\rend\n").unwrap();
        assert_eq!(super::tail(dir.path(), 100), "first\nend\n");
    }

    #[test]
    fn text_for_reports_is_clean() {
        assert_eq!(clean(b"a\x1b[31mred\r\n\xff\tb\0", 100), "a[31mred\n\u{fffd} b");
        assert_eq!(clean("aäb".as_bytes(), 2), "b");
    }
}
