//! `hdbuserstore`: the keys with which `<sid>adm` logs on. A store is of one operating system user on one host.

use std::time::Duration;

use super::hdbsql::Key;
use crate::call::{As, Call, Input, Piece};
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

const SOURCE: &str = "SUSE/shaptools shaptools/hana.py; SAP HANA Security Guide, hdbuserstore";

fn call(system: &System, purpose: &'static str, arguments: &[&str], input: Input) -> Call {
    Call {
        purpose,
        source: SOURCE,
        user: As::Adm,
        program: system.exe().join("hdbuserstore"),
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        input,
        timeout: Duration::from_secs(60),
    }
}

/// `SET`: makes or replaces a key. `place`: `HOST:3NN13`, or with `@DATABASE` behind it.
pub fn set(system: &System, key: &Key, place: &str, user: &str, secret: &'static str) -> Call {
    // -i: it asks for the password, so that none is an argument
    let arguments = ["-i", "SET", key.as_str(), place, user];
    let input = Input::Pieces(vec![Piece::Secret(secret), Piece::Text("\n".to_owned())]);
    call(system, "put a key into the user store", &arguments, input)
}

/// `LIST`: where a key leads.
pub fn list(system: &System, key: &Key) -> Call {
    call(system, "read where a key of the user store leads", &["LIST", key.as_str()], Input::Nothing)
}

/// `DELETE`: takes a key away.
pub fn delete(system: &System, key: &Key) -> Call {
    call(system, "take a key out of the user store", &["DELETE", key.as_str()], Input::Nothing)
}

/// Where a key leads, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `HOST:PORT`, or with `@DATABASE` behind it.
    pub place: String,
    /// The user of the database.
    pub user: String,
}

impl Entry {
    /// The host of the place.
    pub fn host(&self) -> &str {
        self.place.split([':', '@']).next().unwrap_or_default()
    }
}

/// Reads the answer of [`list`]; `None`: there is no such key.
///
/// Another exit code than 0 means that the key is absent; whether it can mean anything else is not documented, so the
/// text must not hold a key then.
pub fn entry(exit: i32, text: &str, key: &Key) -> Reading<Option<Entry>> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let begins = lines.iter().position(|line| *line == format!("KEY {}", key.as_str()));
    match (exit, begins) {
        (0, Some(at)) => {
            let block: Vec<_> =
                lines.iter().skip(at + 1).take_while(|line| !line.starts_with("KEY ")).collect();
            let value = |name: &str| {
                let pairs = block.iter().filter_map(|line| line.split_once(':'));
                let mut found = pairs.filter(|(left, _)| left.trim() == name);
                match (found.next(), found.next()) {
                    (Some((_, value)), None) => Ok(value.trim().to_owned()),
                    _ => unclear(format!("hdbuserstore lists the key without one line {name}")),
                }
            };
            Ok(Some(Entry { place: value("ENV")?, user: value("USER")? }))
        }
        (0, None) => unclear(format!("hdbuserstore ended with 0 and printed {}", quoted(text.trim()))),
        (_, None) => Ok(None),
        (code, Some(_)) => unclear(format!("hdbuserstore ended with {code} and printed the key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let key: Key = "HOSTLER".parse().unwrap();
        let text = "KEY HOSTLER\n  ENV : east1:30013@HDB\n  USER: BACKUP\n";
        let found = entry(0, text, &key).unwrap().unwrap();
        assert_eq!(
            (found.place.as_str(), found.user.as_str(), found.host()),
            ("east1:30013@HDB", "BACKUP", "east1")
        );
        let two = format!("{text}KEY OTHER\n  ENV : west1:30013\n  USER: X\n");
        assert_eq!(entry(0, &two, &"OTHER".parse().unwrap()).unwrap().unwrap().host(), "west1");
        assert_eq!(entry(1, "KEY HOSTLER NOT FOUND\n", &key).unwrap(), None);
        assert_eq!(entry(100, "", &key).unwrap(), None);
        for (exit, odd) in [
            (0, ""),
            (0, "KEY HOSTLER\n  ENV : a:1\n"),
            (1, text),
            (0, "KEY HOSTLER\n  ENV : a\n  ENV : b\n  USER: x\n"),
        ] {
            assert!(entry(exit, odd, &key).is_err(), "{odd}");
        }
    }
}
