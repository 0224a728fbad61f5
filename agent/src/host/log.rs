//! An append-only file of records that survives a power cut: the journal of a run and the ledger are such files.
//!
//! A line is the CRC-32 of the rest, in hexadecimal, a blank, and one JSON text; the file can be read with `cat`.
//! One append is one line, written at once and synced before the append returns. So a crash can leave
//! at most one line without its newline, the last: it was never confirmed to anybody. It is cut off, its bytes are
//! kept in a file beside (`ledger.torn`), and a warning names that file. A line with its newline and a wrong sum is
//! damage wherever it is, also at the end: a confirmed record would be forgotten if it were cut. Damage, and a file
//! beyond the bound, is an error that changes nothing on the disk.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::disk::{self, DiskError, PathContext};

/// The largest record file that is read or appended to, in bytes: a bound against a file that is not ours.
const MAX_FILE: u64 = 256 << 20;

/// Why a record file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A whole line does not have its sum.
    #[error("{} is damaged in line {line}: change nothing, and follow \"A damaged record\" in Hostler's docs/operations.md", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
    },
    /// It is longer than what is read, or would be after an append.
    #[error("{} is larger than the {} bytes that are read of a record file; nothing of it is changed", path.display(), MAX_FILE)]
    TooLarge {
        /// Which file.
        path: PathBuf,
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
/// What follows the good part is one line without a newline, or nothing. An error is the number of a damaged line.
pub fn records(contents: &[u8]) -> Result<(Vec<&str>, usize), usize> {
    let mut records = Vec::new();
    let mut good = 0;
    let mut rest = contents;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest.get(..end).unwrap_or_default();
        records.push(record(line).ok_or(records.len() + 1)?);
        good += end + 1;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok((records, good))
}

fn record(line: &[u8]) -> Option<&str> {
    let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    // Exactly as it was written: a sum in capitals was changed.
    (sum == format!("{:08x}", crc32fast::hash(json.as_bytes()))).then_some(json)
}

/// Reads the records of a file without opening it for writing; no file, no records. A last line without its newline
/// is left out: another process may be writing it.
pub fn read(path: &Path) -> Result<Vec<String>, LogError> {
    let contents = disk::read(path, MAX_FILE)?.unwrap_or_default();
    let (records, _) =
        records(&contents).map_err(|line| LogError::Damaged { path: path.to_owned(), line })?;
    Ok(records.into_iter().map(str::to_owned).collect())
}

/// Keeps what is cut off a record file beside it. A full disk must not keep the agent from its ledger: what cannot be
/// kept was confirmed to nobody, and the log says that it is lost.
fn keep_aside(path: &Path, torn: &[u8]) {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".torn");
    let aside = path.with_file_name(name);
    let (path, bytes) = (path.display(), torn.len());
    match disk::replace(&aside, torn, 0o600) {
        Ok(()) => tracing::warn!(
            "{path} ended in an incomplete line after a crash; its {bytes} bytes were moved to {}",
            aside.display()
        ),
        Err(error) => {
            tracing::error!(
                "{path} ended in an incomplete line of {bytes} bytes, which was truncated: {error}"
            )
        }
    }
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
            .with_path("open", path)?;
        let size = file.metadata().with_path("examine", path)?.len();
        if size > MAX_FILE {
            return Err(LogError::TooLarge { path: path.to_owned() });
        }
        let mut contents = Vec::new();
        (&mut file).take(MAX_FILE).read_to_end(&mut contents).with_path("read", path)?;
        let (records, good) =
            records(&contents).map_err(|line| LogError::Damaged { path: path.to_owned(), line })?;
        let records = records.into_iter().map(str::to_owned).collect();
        let length = good as u64;
        if let Some(torn) = contents.get(good..).filter(|torn| !torn.is_empty()) {
            keep_aside(path, torn);
            file.set_len(length).and_then(|()| file.sync_all()).with_path("cut", path)?;
        }
        file.seek(SeekFrom::Start(length)).with_path("seek in", path)?;
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
        if self.length + line.len() as u64 > MAX_FILE {
            return Err(LogError::TooLarge { path: self.path.clone() });
        }
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
        self.file.sync_data().with_path("sync", &self.path).inspect_err(|_| self.poisoned = true)?;
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
    fn a_changed_byte_is_damage_wherever_it_is_but_in_the_last_newline() {
        let all = sample();
        for i in 0..all.len() {
            for change in [1, 0x20, all[i] ^ b'\n', all[i]] {
                let mut bad = all.clone();
                bad[i] ^= change;
                if bad == all {
                    continue;
                }
                match records(&bad) {
                    // Without its newline the last line is one that was never finished.
                    Ok((records, _)) => assert!(i == all.len() - 1 && records.len() == 2, "byte {i}"),
                    Err(line) => assert!(i < all.len() - 1 && line <= 3, "byte {i}"),
                }
            }
        }
    }

    #[test]
    fn damage_in_the_last_line_changes_nothing_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let one = line("[1]");
        for damaged in [
            format!("{one}{}", line("[2]").replace("[2]", "[3]")),
            format!("{one}00000000 [2]\n"),
            format!("{one}\n"),
            format!("{one}{}\u{0}\n", "\u{0}".repeat(20)),
            line("[2]").replace("[2]", "[2] "),
        ] {
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(Log::open(&path), Err(LogError::Damaged { .. })), "{damaged:?}");
            assert!(matches!(read(&path), Err(LogError::Damaged { .. })), "{damaged:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_beyond_the_bound_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, line("[1]")).unwrap();
        // A hole: as long as that, without the room for it.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::TooLarge { .. })));
        assert!(read(&path).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_FILE + 1);
        // Nor does it grow beyond what can be read again.
        let (mut log, _) = Log::open(&dir.path().join("other")).unwrap();
        log.length = MAX_FILE - 5;
        assert!(matches!(log.append("[1]"), Err(LogError::TooLarge { .. })));
    }

    #[test]
    fn what_was_appended_is_read_again_and_a_torn_line_is_cut_and_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, records) = Log::open(&path).unwrap();
        assert!(records.is_empty());
        log.append("{\"a\":1}").unwrap();
        for torn in ["deadbeef {\"b\"", "d", "\u{0}\u{0}", line("[1]").trim_end()] {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
            let (_, records) = Log::open(&path).unwrap();
            assert_eq!(records, ["{\"a\":1}"]);
            assert_eq!(std::fs::read_to_string(dir.path().join("log.torn")).unwrap(), torn);
        }
        let (mut log, _) = Log::open(&path).unwrap();
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
