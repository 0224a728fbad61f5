//! An append-only file of records that survives a power cut: the journal of a run and the ledger are such files.
//!
//! A line is the CRC-32 of the rest, in hexadecimal, a blank, and one JSON text; the file can be read with `cat`.
//! One append is one line, written at once and synced before the append returns. So a crash can leave
//! at most one bad line, the last: it was never confirmed to anybody and is cut off. A bad line before
//! the last is damage, which is told and never repaired by guessing.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::disk::{self, At, DiskError};

/// The largest record file that is read, in bytes: a bound against a file that is not ours.
const MAX_FILE: u64 = 256 << 20;

/// Why a record file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A line before the last is damaged.
    #[error("{} is damaged in line {line}: put back a copy, or move the file away and tell Hostler's makers", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
    },
    /// An earlier append failed, and what is on the disk is not known any more.
    #[error("{} could not be written before; nothing more is written until a restart", path.display())]
    Poisoned {
        /// Which file.
        path: PathBuf,
    },
}

/// An open record file.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
    poisoned: bool,
}

/// One line of a record file for these contents.
pub fn line(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// The records of a file, and the length of its good part; pure, so that it can be tested on any bytes.
///
/// An error is the number of a damaged line before the last.
pub fn records(contents: &[u8]) -> Result<(Vec<&str>, usize), usize> {
    let mut records = Vec::new();
    let mut good = 0;
    let mut rest = contents;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = match end {
            Some(end) => (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default()),
            None => (rest, &[][..]),
        };
        match end.and_then(|_| record(line)) {
            Some(json) => records.push(json),
            None if after.is_empty() => break,
            None => return Err(records.len() + 1),
        }
        good = contents.len() - after.len();
        rest = after;
    }
    Ok((records, good))
}

fn record(line: &[u8]) -> Option<&str> {
    let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let good = sum.len() == 8 && u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json.as_bytes());
    good.then_some(json)
}

/// Reads the records of a file without opening it for writing; no file, no records.
pub fn read(path: &Path) -> Result<Vec<String>, LogError> {
    let contents = disk::read(path, MAX_FILE)?.unwrap_or_default();
    let (records, _) =
        records(&contents).map_err(|line| LogError::Damaged { path: path.to_owned(), line })?;
    Ok(records.into_iter().map(str::to_owned).collect())
}

impl Log {
    /// Opens or creates a record file, cuts off what a crash left of an unconfirmed line, and returns the rest.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>), LogError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .at("open", path)?;
        let mut contents = Vec::new();
        (&mut file).take(MAX_FILE).read_to_end(&mut contents).at("read", path)?;
        let (records, good) =
            records(&contents).map_err(|line| LogError::Damaged { path: path.to_owned(), line })?;
        let records = records.into_iter().map(str::to_owned).collect();
        let length = good as u64;
        if length < contents.len() as u64 {
            file.set_len(length).and_then(|()| file.sync_all()).at("cut", path)?;
        }
        file.seek(SeekFrom::Start(length)).at("seek in", path)?;
        disk::sync_dir(disk::parent(path))?;
        Ok((Self { path: path.to_owned(), file, length, poisoned: false }, records))
    }

    /// Adds one record; when this returns, it is on the disk.
    ///
    /// After an error nothing of the record is in the file, or, where even that cannot be assured,
    /// the log refuses every later append.
    pub fn append(&mut self, json: &str) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned { path: self.path.clone() });
        }
        let line = line(json);
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => {}
            Err(error) => {
                let taken_back = self
                    .file
                    .set_len(self.length)
                    .and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
                self.poisoned = taken_back.is_err();
                return Err(DiskError { action: "write", path: self.path.clone(), source: error }.into());
            }
        }
        // After a failed sync the kernel may have dropped the pages and call the next sync a success.
        self.file.sync_data().at("sync", &self.path).inspect_err(|_| self.poisoned = true)?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Refuses every later append: the file may have been replaced.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// How long the file is, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        ["{}", "[1,2]", "\"three\""].iter().map(|json| line(json)).collect::<String>().into_bytes()
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_whole_records_before_it() {
        let all = sample();
        let ends: Vec<usize> = (0..all.len()).filter(|i| all[*i] == b'\n').map(|i| i + 1).collect();
        for cut in 0..=all.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (records, good) = records(&all[..cut]).unwrap();
            assert_eq!(records.len(), whole, "cut at {cut}");
            assert_eq!(good, if whole == 0 { 0 } else { ends[whole - 1] });
        }
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let all = sample();
        let last_line = all.len() - line("\"three\"").len();
        for i in 0..all.len() {
            let mut bad = all.clone();
            bad[i] ^= 1;
            match records(&bad) {
                // A lost end of line joins the last two lines into one that looks torn.
                Ok((records, _)) if i == last_line - 1 => assert_eq!(records.len(), 1),
                Ok((records, _)) => assert!(i >= last_line && records.len() == 2, "byte {i}"),
                Err(line) => assert!(i < last_line && line <= 2, "byte {i}"),
            }
        }
    }

    #[test]
    fn what_was_appended_is_read_again_and_a_torn_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, records) = Log::open(&path).unwrap();
        assert!(records.is_empty());
        log.append("{\"a\":1}").unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"deadbeef {\"b\"").unwrap();
        let (mut log, records) = Log::open(&path).unwrap();
        assert_eq!(records, ["{\"a\":1}"]);
        log.append("{\"c\":1}").unwrap();
        assert_eq!(read(&path).unwrap(), ["{\"a\":1}", "{\"c\":1}"]);
    }

    #[test]
    fn a_failed_append_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, _) = Log::open(&path).unwrap();
        log.append("1").unwrap();
        log.file = File::open(&path).unwrap(); // Opened for reading: every write fails.
        assert!(matches!(log.append("2"), Err(LogError::Disk(_))));
        assert!(matches!(log.append("2"), Err(LogError::Poisoned { .. })));
        assert_eq!(read(&path).unwrap(), ["1"]);
    }
}
