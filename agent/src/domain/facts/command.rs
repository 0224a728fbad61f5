//! A fact that is asked: its file, `NAME.yml`.

use serde::Deserialize;

use crate::domain::span::Span;
use crate::domain::yaml::{self, PathSegment, YamlError};

/// The largest file of a command, in bytes.
pub const MAX_FILE: usize = 16 << 10;

/// How often a fact is asked whose file does not say so.
const USUALLY_EVERY: Span = Span::secs(300);
/// The bounds of `every`.
const SHORTEST: Span = Span::secs(10);
const LONGEST: Span = Span::secs(24 * 3600);
/// How long a command may take whose file does not say so.
const USUAL_TIMEOUT: Span = Span::secs(10);
/// The bounds of `timeout`; it is never longer than `every` either.
const LEAST_TIMEOUT: Span = Span::secs(1);
const MAX_TIMEOUT: Span = Span::secs(300);
/// The most words of a command.
const MAX_WORDS: usize = 64;

/// A command that prints the value of a fact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactCommand {
    /// Program and arguments, as they are: nothing is filled in. A program that begins with `./` is one of the folder
    /// that the file is in.
    pub run: Vec<String>,
    /// Who runs it; `None`: root.
    #[serde(default)]
    pub user: Option<String>,
    /// How often it is asked: 10 s to 24 h.
    #[serde(default = "usually_every")]
    pub every: Span,
    /// How long it may take: 1 s to 5 m, and not longer than `every`.
    #[serde(default = "usual_timeout")]
    pub timeout: Span,
}

fn usually_every() -> Span {
    USUALLY_EVERY
}

fn usual_timeout() -> Span {
    USUAL_TIMEOUT
}

impl FactCommand {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its line and column.
    pub fn read(text: &[u8]) -> Result<Self, YamlError> {
        let command: Self = yaml::parse(text, MAX_FILE)?;
        let text = String::from_utf8_lossy(text);
        match command.fault() {
            None => Ok(command),
            Some((path, message)) => Err(yaml::error_at(&text, &path, message)),
        }
    }

    fn fault(&self) -> Option<(Vec<PathSegment>, String)> {
        let at = |name: &str| vec![PathSegment::from(name)];
        let Some(program) = self.run.first().filter(|program| !program.is_empty()) else {
            return Some((at("run"), "name a program".to_owned()));
        };
        if self.run.len() > MAX_WORDS {
            return Some((at("run"), format!("at most {MAX_WORDS} words")));
        }
        if self.run.iter().any(|word| word.contains('\0')) {
            return Some((at("run"), "a NUL byte cannot stand in an argument".to_owned()));
        }
        if program.contains('/') && !program.starts_with(['/', '.']) {
            let message = format!("write ./{program} for a program in the folder of this file");
            return Some((at("run"), message));
        }
        let own = program.strip_prefix("./");
        if program.starts_with('.')
            && own.is_none_or(|own| own.split('/').any(|part| matches!(part, "" | "." | "..")))
        {
            return Some((at("run"), "a program of this folder is named as ./NAME, without `..`".to_owned()));
        }
        if !(SHORTEST..=LONGEST).contains(&self.every) {
            return Some((at("every"), format!("{SHORTEST} to 24h, not {}", self.every)));
        }
        let most = MAX_TIMEOUT.min(self.every);
        if !(LEAST_TIMEOUT..=most).contains(&self.timeout) {
            return Some((at("timeout"), format!("{LEAST_TIMEOUT} to {most}, not {}", self.timeout)));
        }
        None
    }

    /// The path of its program in the folder of the file; `None`: it is a program of the system.
    pub fn own_program(&self) -> Option<&str> {
        self.run.first()?.strip_prefix("./")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_its_defaults_and_within_its_bounds() {
        let read = |text: &str| FactCommand::read(text.as_bytes()).map_err(|error| error.to_string());
        let whole = read("run: [./role, HDB]\nuser: hdbadm\nevery: 1m\ntimeout: 20s\n").unwrap();
        assert_eq!((whole.own_program(), whole.user.as_deref()), (Some("role"), Some("hdbadm")));
        assert_eq!((whole.every, whole.timeout), (Span::secs(60), Span::secs(20)));
        let least = read("run: [/bin/role]").unwrap();
        assert_eq!((least.own_program(), least.every, least.timeout), (None, USUALLY_EVERY, USUAL_TIMEOUT));
        for (text, wanted) in [
            ("{}", "missing field `run`"),
            ("run: []", "1:6: run: name a program"),
            ("run: ['']", "name a program"),
            ("run: [bin/role]", "write ./bin/role"),
            ("run: [../role]", "without `..`"),
            ("run: [./a/../../role]", "without `..`"),
            ("run: [./]", "as ./NAME"),
            ("run: [a]\nevery: 9s", "2:8: every: 10s to 24h, not 9s"),
            ("run: [a]\nevery: 25h", "every: 10s to 24h"),
            ("run: [a]\nevery: 10s\ntimeout: 11s", "3:10: timeout: 1s to 10s, not 11s"),
            ("run: [a]\ntimeout: 0s", "timeout: 1s to 5m"),
            ("run: [a]\ntimeuot: 1s", "timeuot"),
            ("run: a", "run"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
        let many = format!("run: [{}]", vec!["a"; 65].join(", "));
        assert!(read(&many).unwrap_err().contains("at most 64"));
    }
}
