//! What the commands of a run print, on disk, with a bound: the first part and the last are kept.
//!
//! `output` takes the first bytes; what comes later goes to `output.last`, which becomes `output.prev`
//! whenever it is full. So what is on disk at any moment is the beginning and the newest end.
//! Everything that a command prints passes [`Output::write`], where the run's secrets are taken out of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::redact::{Filter, Redactor};

/// How much of the beginning is kept, in bytes.
pub const FIRST: u64 = 1 << 20;

/// How much of the end is kept at least, in bytes; at most twice that.
pub const LAST: u64 = 512 << 10;

/// The open output of a run.
pub struct Output {
    kept: Kept,
    filter: Option<Filter>,
    passed: Vec<u8>,
}

/// What of it is on the disk.
struct Kept {
    dir: PathBuf,
    file: File,
    room: u64,
}

impl Output {
    /// Opens the output in a run's folder, to go on behind what is there.
    pub fn open(dir: &Path, redactor: Option<Arc<Redactor>>) -> io::Result<Self> {
        let (dir, filter) = (dir.to_owned(), redactor.map(Filter::new));
        let passed = Vec::new();
        let first = dir.join("output");
        let length = fs::metadata(&first).map(|meta| meta.len()).unwrap_or(0);
        if length < FIRST {
            let kept = Kept { file: append(&first)?, room: FIRST - length, dir };
            return Ok(Self { kept, filter, passed });
        }
        let last = dir.join("output.last");
        let length = fs::metadata(&last).map(|meta| meta.len()).unwrap_or(0);
        let kept = Kept { file: append(&last)?, room: LAST.saturating_sub(length), dir };
        Ok(Self { kept, filter, passed })
    }

    /// Adds what a command printed; what could be the beginning of a secret stays behind until more has come.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(filter) = &mut self.filter else { return self.kept.store(bytes) };
        let mut passed = std::mem::take(&mut self.passed);
        let stored = filter.push(bytes, &mut passed, |piece| self.kept.store(piece));
        self.passed = passed;
        stored
    }

    /// A command has ended: what stayed behind is no secret, or not the whole of one.
    pub fn settle(&mut self) -> io::Result<()> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        self.passed.clear();
        filter.finish(&mut self.passed);
        self.kept.store(&self.passed)
    }
}

impl Kept {
    fn store(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.room == 0 {
                self.next()?;
            }
            let here = bytes.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(here);
            self.file.write_all(now)?;
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
        self.file = append(&last)?;
        self.room = LAST;
        Ok(())
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

/// The last `most` bytes of a run's output as clean text: valid UTF-8 without control characters but newline.
pub fn tail(dir: &Path, most: usize) -> String {
    let mut bytes = Vec::new();
    for path in parts(dir).iter().rev() {
        let missing = most.saturating_sub(bytes.len());
        let mut before = last_of(path, missing as u64).unwrap_or_default();
        before.append(&mut bytes);
        bytes = before;
    }
    clean(&bytes, most)
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
        let mut output = Output::open(dir.path(), None).unwrap();
        for n in 0..400_000_u32 {
            if n % 100_000 == 0 {
                output = Output::open(dir.path(), None).unwrap(); // As after a restart.
            }
            output.write(format!("line {n:08}\n").as_bytes()).unwrap();
        }
        let sizes: u64 = parts(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(sizes <= FIRST + 2 * LAST && sizes > FIRST + LAST);
        assert!(fs::read_to_string(dir.path().join("output")).unwrap().starts_with("line 00000000\n"));
        assert_eq!(tail(dir.path(), 28), "line 00399998\nline 00399999\n");
    }

    #[test]
    fn text_for_reports_is_clean() {
        assert_eq!(clean(b"a\x1b[31mred\r\n\xff\tb\0", 100), "a[31mred\n\u{fffd} b");
        assert_eq!(clean("aäb".as_bytes(), 2), "b");
    }
}
