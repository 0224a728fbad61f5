//! A run's output as it grows: the beginning, what came in between where it is kept, and the newest end.
//!
//! A file is held open while it is read, so that nothing is lost when the executor renames it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{screen, show};
use crate::exec::output::{FIRST, parts};

/// Read at once.
const CHUNK: usize = 64 << 10;

/// What stands where output may be missing.
const GAP: &[u8] = b"\n--- some output may be left out here: the beginning and the end are kept ---\n";

/// A reader of a run's output.
pub(super) struct Follower {
    dir: PathBuf,
    held: Option<(File, PathBuf)>,
    printer: Printer,
}

impl Follower {
    /// Of the run in this folder; nothing is printed yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), held: None, printer: Printer::new() }
    }

    /// Prints what is new.
    pub(super) fn print(&mut self) -> io::Result<()> {
        loop {
            let next = match &mut self.held {
                None => parts(&self.dir).into_iter().next(),
                Some((file, path)) => {
                    // Whether another file comes after this one is asked first: then nothing more is added to this.
                    let next = next(file, path, &self.dir)?;
                    drain(file, &mut self.printer)?;
                    next
                }
            };
            let Some(next) = next else { return Ok(()) };
            let skipped = next.ends_with("output.prev");
            let file = match File::open(&next) {
                // Renamed meanwhile; the next look finds it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            if skipped {
                self.printer.print(GAP)?;
            }
            self.held = Some((file, next));
        }
    }

    /// Prints what a cut character has left.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.print()?;
        self.printer.end()
    }
}

/// The file that comes after the one that is held.
fn next(file: &File, path: &Path, dir: &Path) -> io::Result<Option<PathBuf>> {
    let held = file.metadata()?;
    let (prev, last) = (dir.join("output.prev"), dir.join("output.last"));
    if path == dir.join("output") {
        let full = held.len() >= FIRST;
        let next = [prev, last].into_iter().find(|path| path.exists());
        return Ok(next.filter(|_| full));
    }
    let is = |path: &Path| path.metadata().is_ok_and(|meta| meta.ino() == held.ino());
    if is(&last) || !last.exists() {
        Ok(None)
    } else if is(&prev) {
        Ok(Some(last))
    } else {
        // Renamed twice since: what is there now comes after a gap.
        Ok(Some(prev))
    }
}

fn drain(file: &mut File, printer: &mut Printer) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        printer.print(chunk.get(..length).unwrap_or_default())?;
    }
}

/// Prints bytes: as they are into a file or a pipe, escaped on a terminal.
struct Printer {
    terminal: bool,
    /// The beginning of a character whose rest has not come yet.
    rest: Vec<u8>,
}

impl Printer {
    fn new() -> Self {
        Self { terminal: screen::terminal(), rest: Vec::new() }
    }

    fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.terminal {
            return show::raw(bytes);
        }
        self.rest.extend_from_slice(bytes);
        let whole = whole_characters(&self.rest);
        let now: Vec<u8> = self.rest.drain(..whole).collect();
        show::raw(show::lines(&String::from_utf8_lossy(&now)).as_bytes())
    }

    fn end(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        show::raw(show::lines(&String::from_utf8_lossy(&rest)).as_bytes())
    }
}

/// How many bytes there are without a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // Bytes that are no text at all are not waited for.
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut() {
        assert_eq!(whole_characters("aä".as_bytes()), 3);
        assert_eq!(whole_characters(&"aä".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(b"a\xffb"), 3);
        assert_eq!(whole_characters(b""), 0);
    }

    #[test]
    fn the_files_follow_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("output"), vec![b'a'; 10]).unwrap();
        let first = File::open(at("output")).unwrap();
        assert_eq!(next(&first, &at("output"), dir.path()).unwrap(), None);
        std::fs::write(at("output"), vec![b'a'; usize::try_from(FIRST).unwrap()]).unwrap();
        assert_eq!(next(&first, &at("output"), dir.path()).unwrap(), None);
        std::fs::write(at("output.last"), "b").unwrap();
        assert_eq!(next(&first, &at("output"), dir.path()).unwrap(), Some(at("output.last")));
        let last = File::open(at("output.last")).unwrap();
        assert_eq!(next(&last, &at("output.last"), dir.path()).unwrap(), None);
        std::fs::rename(at("output.last"), at("output.prev")).unwrap();
        assert_eq!(
            next(&last, &at("output.last"), dir.path()).unwrap(),
            None,
            "the new one is not there yet"
        );
        std::fs::write(at("output.last"), "c").unwrap();
        assert_eq!(next(&last, &at("output.last"), dir.path()).unwrap(), Some(at("output.last")));
        assert_eq!(next(&first, &at("output"), dir.path()).unwrap(), Some(at("output.prev")));
        std::fs::rename(at("output.last"), at("output.prev")).unwrap();
        std::fs::write(at("output.last"), "d").unwrap();
        assert_eq!(next(&last, &at("output.last"), dir.path()).unwrap(), Some(at("output.prev")), "a gap");
    }
}
