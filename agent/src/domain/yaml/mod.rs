//! YAML and JSON from people: the one door through which `serde_yaml` is reached.
//!
//! [`parse`] never panics and never answers with something that was not written. Before a document becomes a
//! type it is walked once as it stands, and what would be read differently by two readers is refused wherever
//! it stands, also inside free-form parameters: doubled keys, keys that are not text, numbers that a double
//! cannot hold, tags. Size comes first, because a hostile half megabyte costs a hundred times its own size;
//! what aliases repeat is counted as often as it is repeated.
//!
//! A text that is JSON is read by the JSON reader (YAML readers stumble over some of its escapes); all other
//! text is YAML, one document.
//!
//! ```text
//!  walk.rs       the walk that refuses what two readers would read differently
//!  place.rs      what is wrong with a document, where, and the cure
//!  described.rs  for tests: a schema describes the very fields that are read
//! ```

mod place;
mod walk;

use std::cell::Cell;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny};
use serde_path_to_error::{Deserializer as Tracked, Track};

pub use place::{PathSegment, YamlError, error_at, nearest, path_text, single_line};

use place::Fault;
use walk::Walk;

use super::text::{is_utf16, without_mark};

/// How many brackets may be open at once, those in texts counted too.
const MAX_BRACKETS: usize = 1000;

/// Reads one document of at most `limit` bytes.
pub fn parse<T: DeserializeOwned>(text: impl AsRef<[u8]>, limit: usize) -> Result<T, YamlError> {
    let text = checked(text.as_ref(), limit)?;
    let form = Form::of(text);
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        let message = "the document is empty".to_owned();
        return Err(YamlError { line: 1, column: 1, path: String::new(), message });
    }
    let budget = Cell::new(text.len().saturating_mul(4).saturating_add(16 * 1024));
    if let (Form::Yaml, Some((line, column, tag))) = (form, place::odd_tag(text)) {
        let message = format!("the tag `!!{tag}` is not read: write the plain value, without it");
        return Err(YamlError { line, column, path: String::new(), message });
    }
    form.read(text, Walk(&budget)).map_err(|fault| fault.place(form, text))?;
    form.read(text, std::marker::PhantomData::<T>).map_err(|fault| fault.place(form, text))
}

/// Whether a document that was read before has a place.
pub fn has(text: &str, path: &[PathSegment]) -> bool {
    let mut node = &match parse::<serde_json::Value>(text, text.len()) {
        Ok(value) => value,
        Err(_) => return false,
    };
    for seg in path {
        let next = match seg {
            PathSegment::Key(key) => node.get(key.as_str()),
            PathSegment::Index(index) => node.get(index),
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    true
}

fn checked(bytes: &[u8], limit: usize) -> Result<&str, YamlError> {
    let error = |line, column, message| YamlError { line, column, path: String::new(), message };
    if bytes.len() > limit {
        let message = format!("{} bytes are too many: at most {limit}", bytes.len());
        return Err(error(1, 1, message));
    }
    if is_utf16(bytes) {
        return Err(error(1, 1, "this is UTF-16: save the file as UTF-8".to_owned()));
    }
    let bytes = without_mark(bytes);
    // The YAML reader takes time that grows with the square of the depth, and looks at the depth last.
    let mut depth = 0_usize;
    for byte in bytes {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            let message = format!("more than {MAX_BRACKETS} brackets are open: close them");
            return Err(error(1, 1, message));
        }
    }
    std::str::from_utf8(bytes).map_err(|bad| {
        let before = bytes.get(..bad.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() + 1;
        error(line, column, "this is not UTF-8: save the file as UTF-8".to_owned())
    })
}

/// The two spellings of a document.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Yaml,
}

impl Form {
    fn of(text: &str) -> Self {
        let json =
            text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok();
        if json { Self::Json } else { Self::Yaml }
    }

    fn read<'de, S: DeserializeSeed<'de>>(self, text: &'de str, seed: S) -> Result<S::Value, Fault> {
        let mut track = Track::new();
        match self {
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_str(text);
                let read = seed.deserialize(Tracked::new(&mut reader, &mut track));
                read.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
                    let at = Some((error.line(), error.column())).filter(|(line, _)| *line > 0);
                    Fault::new(&error.to_string(), at, track)
                })
            }
            Self::Yaml => {
                let reader = serde_yaml::Deserializer::from_str(text);
                seed.deserialize(Tracked::new(reader, &mut track)).map_err(|error| {
                    let at = error.location().map(|at| (at.line(), at.column()));
                    Fault::new(&error.to_string(), at, track)
                })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod described;
#[cfg(test)]
mod tests;
