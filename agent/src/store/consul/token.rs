//! The token: given, or read from a file and read again when that changes.
//!
//! Looked at before each request, which costs a `stat` and no timer. What cannot be read or sent is told once, and the
//! former token stays: a file that is just being written must not make the agent blind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::header;
use super::settings::BadConsulSettings;
use crate::domain::secret::Secret;
use crate::host::plain;

/// The longest token file, in bytes.
const MAX: u64 = 4 << 10;

/// What tells one version of a file from another: when it was changed, which it is, and how long.
type Stamp = (i64, i64, u64, u64);

/// The token of one client.
#[derive(Default)]
pub(super) struct Token(Mutex<Held>);

#[derive(Default)]
struct Held {
    now: Option<Secret>,
    /// Where it comes from: of several the one that was changed last.
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    /// How many tokens were taken from a changed file.
    changes: u64,
}

impl Token {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes this token, whatever the files say until they change.
    pub(super) fn set(&self, token: Option<&Secret>) -> Result<(), BadConsulSettings> {
        let token = token.and_then(Secret::trimmed);
        header(token.as_ref())?;
        self.held().now = token;
        Ok(())
    }

    /// Takes the token from these files from now on. Without any, the present one stays.
    pub(super) fn follow(&self, files: Vec<PathBuf>) -> Result<(), BadConsulSettings> {
        let stamps = stamps(&files);
        let token = read(&files)?;
        let mut held = self.held();
        let former = held.now.clone();
        let now = token.or_else(|| former.clone());
        let changes = held.changes.saturating_add(u64::from(now != former));
        *held = Held { now, files, stamps, changes };
        Ok(())
    }

    /// How many times another token was taken from a file so far, that of now included.
    pub(super) fn changes(&self) -> u64 {
        self.now();
        self.held().changes
    }

    /// The token for a request that is sent now.
    pub(super) fn now(&self) -> Option<Secret> {
        let mut held = self.held();
        let stamps = stamps(&held.files);
        if stamps != held.stamps {
            held.stamps = stamps;
            match read(&held.files) {
                Ok(Some(token)) if held.now.as_ref() != Some(&token) => {
                    tracing::info!("using the new Consul token: its file has changed");
                    held.now = Some(token);
                    held.changes = held.changes.saturating_add(1);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("cannot read the new Consul token, keeping the current one: {error}")
                }
            }
        }
        held.now.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let found = fs::metadata(file).ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.ino(), found.len()))
}

/// The token in the file that was changed last and holds one; `None`: there are no files.
fn read(files: &[PathBuf]) -> Result<Option<Secret>, BadConsulSettings> {
    let mut files: Vec<(Option<Stamp>, &PathBuf)> = files.iter().map(|file| (stamp(file), file)).collect();
    files.sort();
    let mut newest = Ok(None);
    for (_, file) in files {
        match read_one(file) {
            Ok(token) => newest = Ok(Some(token)),
            Err(error) if matches!(newest, Ok(None)) => newest = Err(error),
            Err(_) => {}
        }
    }
    newest
}

fn read_one(path: &Path) -> Result<Secret, BadConsulSettings> {
    let failed = |source: std::io::Error| BadConsulSettings::File { path: path.to_owned(), source };
    let text = plain::read_text(path, MAX).map_err(failed)?;
    // An empty file stands for none: the unit hands one over where there is nothing.
    let token = Secret::new(text.as_str().to_owned()).trimmed();
    let token = token.ok_or_else(|| BadConsulSettings::EmptyToken { path: path.to_owned() })?;
    header(Some(&token))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_taken_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (given, beside) = (dir.path().join("given"), dir.path().join("beside"));
        let token = Token::default();
        let refused = || token.follow(vec![given.clone()]).unwrap_err().to_string();
        assert!(refused().contains("given: No such file"), "{}", refused());
        for empty in ["", " \n", "\u{feff}\n"] {
            fs::write(&given, empty).unwrap();
            assert!(refused().contains("given is empty"), "{}", refused());
        }
        fs::write(&given, "6\u{0}e\u{0}7\u{0}").unwrap();
        assert!(refused().contains("UTF-16"), "{}", refused());
        fs::write(&given, "first\n").unwrap();
        token.follow(vec![given.clone(), beside.clone()]).unwrap();
        let now = || token.now().map(|token| token.reveal().to_owned());
        assert_eq!(now().as_deref(), Some("first"));
        for (text, expected) in [
            ("second-one", "second-one"),
            ("a\u{1}b", "second-one"),
            ("", "second-one"),
            ("\u{feff}third\r\n", "third"),
        ] {
            fs::write(&given, text).unwrap();
            assert_eq!(now().as_deref(), Some(expected), "{text:?}");
        }
        fs::remove_file(&given).unwrap();
        assert_eq!(now().as_deref(), Some("third"));
        // What was changed last counts, wherever it is.
        fs::write(&beside, "beside").unwrap();
        assert_eq!(now().as_deref(), Some("beside"));
    }
}
