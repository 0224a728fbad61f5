//! What is wrong with a document, where, and the cure.
//!
//! The readers mark most faults at the list or map around them, and a fault that is found later, by a check of ours,
//! has no mark at all. So a place is sought by its path: the document is read once more by a visitor that raises an
//! error when it is there, and the reader tells where that was. Only a document that is refused is read so often.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Segment, Track};

use super::Form;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {}{message}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct YamlError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
    /// The way to the place, as `steps[0].run`; empty at the top.
    pub path: String,
    /// What is wrong and what to do, one line.
    pub message: String,
}

/// One step on the way to a place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSegment {
    /// Into a map.
    Key(String),
    /// Into a list, counted from 0.
    Index(usize),
}

impl From<&str> for PathSegment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for PathSegment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Makes an error that points at `path` of a document that was read before, or at the nearest place above it.
pub fn error_at(text: &str, path: &[PathSegment], message: impl Into<String>) -> YamlError {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Fault { message: message.into(), at: None, path: path.to_vec() }.place(Form::of(text), text)
}

/// The first tag that would be dropped without a word, such as `!!binary`, with its line and column.
pub(super) fn odd_tag(text: &str) -> Option<(usize, usize, &str)> {
    const KNOWN: [&str; 7] = ["str", "int", "float", "bool", "null", "map", "seq"];
    text.lines().enumerate().find_map(|(line, content)| {
        let mut from = 0;
        while let Some(at) = content.get(from..)?.find("!!").map(|at| from + at) {
            let before = content.get(..at)?.trim_end();
            let rest = content.get(at + 2..)?;
            let tag = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            // Where a value begins: behind a key, in a list, or at the start of the document.
            let begins = (before.is_empty() && at == 0) || before.ends_with([':', '-', '[', '{', ',']);
            let quoted = before.matches(['"', '\'']).count() % 2 == 1 || before.contains('#');
            if begins && !quoted && !tag.is_empty() && !KNOWN.contains(&tag) {
                return Some((line + 1, content.get(..at)?.chars().count() + 1, tag));
            }
            from = at + 2;
        }
        None
    })
}

/// How much of the way to a place is shown: a document that repeats itself could lead on without end.
const MAX_SHOWN: usize = 16;

/// The way to a place, as `steps[0].run`.
pub fn path_text(path: &[PathSegment]) -> String {
    let mut out = String::new();
    for (depth, seg) in path.iter().enumerate() {
        if depth == MAX_SHOWN {
            out.push('…');
            break;
        }
        match seg {
            PathSegment::Index(index) => out.push_str(&format!("[{index}]")),
            PathSegment::Key(key) if out.is_empty() => out.push_str(&single_line(key)),
            PathSegment::Key(key) => out.push_str(&format!(".{}", single_line(key))),
        }
    }
    out
}

/// The name among `known` that the writer of `name` most probably meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Text for a message: one line, no control characters, not too long.
pub fn single_line(text: &str) -> String {
    let mut line: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(300).is_some() {
        line.push('…');
    }
    line
}

/// An error before its place is known.
pub(super) struct Fault {
    message: String,
    at: Option<(usize, usize)>,
    path: Vec<PathSegment>,
}

impl Fault {
    /// Takes the readers' own places off the message and adds the cure where there is one.
    pub(super) fn new(text: &str, at: Option<(usize, usize)>, track: Track) -> Self {
        let path: Vec<PathSegment> = track
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(PathSegment::Index(*index)),
                Segment::Map { key } | Segment::Enum { variant: key } => Some(PathSegment::Key(key.clone())),
                Segment::Unknown => None,
            })
            .collect();
        let mut message = text;
        if let Some((line, column)) = at {
            message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(message);
        }
        for end in (1..=path.len()).rev() {
            let prefix = format!("{}: ", path_text(path.get(..end).unwrap_or_default()));
            if let Some(rest) = message.strip_prefix(&prefix) {
                message = rest;
                break;
            }
        }
        Self { message: cured(message), at, path }
    }

    pub(super) fn place(self, form: Form, text: &str) -> YamlError {
        // The reader marks what is wrong with a key at the key, which a search for its value would miss;
        // all else it marks at the list or map around it.
        let about_key = ["unknown field", "the key `"].iter().any(|start| self.message.starts_with(start));
        let own = self.path.is_empty() || about_key;
        let found = if own { self.at } else { None };
        let (line, column) = found
            .or_else(|| form.read(text, Find(&self.path)).err().and_then(|found| found.at))
            .or(self.at)
            .unwrap_or((1, 1));
        let indent = |text: &str| text.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
        let tabbed = text.lines().nth(line.saturating_sub(1)).is_some_and(indent);
        let message = match self.message.as_str() {
            message if message.contains("cannot start any token") && tabbed => {
                "a tab: indent with spaces".to_owned()
            }
            message => single_line(message),
        };
        YamlError { line, column, path: path_text(&self.path), message }
    }
}

/// Says the same with the cure.
fn cured(message: &str) -> String {
    if message.contains("more than one document") {
        return "more than one document: keep one, without a second `---`".to_owned();
    }
    if message.contains("recursion limit exceeded") || message.contains("repetition limit exceeded") {
        return "it contains itself, or is nested too deeply: replace the aliases by their values".to_owned();
    }
    let unknown = ["unknown field `", "unknown variant `"].iter().find_map(|start| {
        let (name, rest) = message.strip_prefix(start)?.split_once('`')?;
        Some((start.trim_end_matches(" `"), name, rest))
    });
    if let Some((what, name, rest)) = unknown {
        // Every second piece between backticks is a name that would have been right.
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        return match nearest(name, known.iter().copied()) {
            Some(meant) => format!("{what} `{name}`: did you mean `{meant}`?"),
            None if known.is_empty() => format!("{what} `{name}`: remove it"),
            None => format!("{what} `{name}`: use one of {}", known.join(", ")),
        };
    }
    let plain = ["integer", "float", "floating point", "boolean"]
        .iter()
        .any(|kind| message.starts_with(&format!("invalid type: {kind}")));
    if plain && message.ends_with("expected a string") {
        return format!("{message}: put it in quotes");
    }
    message.to_owned()
}

/// Walks to a place and raises an error there, so that the reader tells where that is.
struct Find<'a>(&'a [PathSegment]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    // Every other kind of value ends here: it is the place, or the nearest one to it.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some((PathSegment::Index(index), rest)) = self.0.split_first() {
            for _ in 0..*index {
                if list.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
            }
            list.next_element_seed(Find(rest))?;
        }
        Err(de::Error::custom("the place"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some((PathSegment::Key(wanted), rest)) = self.0.split_first() {
            while let Some(key) = map.next_key::<String>()? {
                if key == *wanted {
                    map.next_value_seed(Find(rest))?;
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Err(de::Error::custom("the place"))
    }
}
