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

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Deserializer as Tracked, Segment, Track};

/// The largest whole number that every reader holds exactly.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// How many brackets may be open at once, those in texts counted too.
const MAX_BRACKETS: usize = 1000;

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
pub enum Seg {
    /// Into a map.
    Key(String),
    /// Into a list, counted from 0.
    Index(usize),
}

impl From<&str> for Seg {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Seg {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Reads one document of at most `limit` bytes.
pub fn parse<T: DeserializeOwned>(text: impl AsRef<[u8]>, limit: usize) -> Result<T, YamlError> {
    let text = checked(text.as_ref(), limit)?;
    let form = Form::of(text);
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        let message = "the document is empty".to_owned();
        return Err(YamlError { line: 1, column: 1, path: String::new(), message });
    }
    let budget = Cell::new(text.len().saturating_mul(4).saturating_add(16 * 1024));
    form.read(text, Guard(&budget)).map_err(|fault| fault.place(form, text))?;
    form.read(text, std::marker::PhantomData::<T>).map_err(|fault| fault.place(form, text))
}

/// Makes an error that points at `path` of a document that was read before, or at the nearest place above it.
pub fn fault(text: &str, path: &[Seg], message: impl Into<String>) -> YamlError {
    Fault { message: message.into(), at: None, path: path.to_vec() }.place(Form::of(text), text)
}

/// Whether a document that was read before has a place.
pub fn has(text: &str, path: &[Seg]) -> bool {
    let mut node = &match parse::<serde_json::Value>(text, text.len()) {
        Ok(value) => value,
        Err(_) => return false,
    };
    for seg in path {
        let next = match seg {
            Seg::Key(key) => node.get(key.as_str()),
            Seg::Index(index) => node.get(index),
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    true
}

/// The way to a place, as `steps[0].run`.
pub fn path_text(path: &[Seg]) -> String {
    let mut out = String::new();
    for seg in path {
        match seg {
            Seg::Index(index) => out.push_str(&format!("[{index}]")),
            Seg::Key(key) if out.is_empty() => out.push_str(&one_line(key)),
            Seg::Key(key) => out.push_str(&format!(".{}", one_line(key))),
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
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(300).is_some() {
        line.push('…');
    }
    line
}

fn checked(bytes: &[u8], limit: usize) -> Result<&str, YamlError> {
    let error = |line, column, message| YamlError { line, column, path: String::new(), message };
    if bytes.len() > limit {
        let message = format!("{} bytes are too many: at most {limit}", bytes.len());
        return Err(error(1, 1, message));
    }
    // The YAML reader takes time that grows with the square of the depth, and looks at the depth last.
    let mut depth = 0_usize;
    for byte in bytes {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            let message = format!("more than {MAX_BRACKETS} brackets are open at once: close them");
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

/// An error before its place is known.
struct Fault {
    message: String,
    at: Option<(usize, usize)>,
    path: Vec<Seg>,
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

impl Fault {
    /// Takes the readers' own places off the message and adds the cure where there is one.
    fn new(text: &str, at: Option<(usize, usize)>, track: Track) -> Self {
        let path: Vec<Seg> = track
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Seq { index } => Some(Seg::Index(*index)),
                Segment::Map { key } | Segment::Enum { variant: key } => Some(Seg::Key(key.clone())),
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

    fn place(self, form: Form, text: &str) -> YamlError {
        // The reader marks what is wrong with a key at the key, which a search for its value would miss;
        // all else it marks at the list or map around it.
        let about_key = ["unknown field", "the key `"].iter().any(|start| self.message.starts_with(start));
        let own = self.path.is_empty() || about_key;
        let found = if own { self.at } else { None };
        let (line, column) = found
            .or_else(|| form.read(text, Find(&self.path)).err().and_then(|found| found.at))
            .or(self.at)
            .unwrap_or((1, 1));
        YamlError { line, column, path: path_text(&self.path), message: one_line(&self.message) }
    }
}

/// Says the same with the cure.
fn cured(message: &str) -> String {
    if message.contains("more than one document") {
        return "more than one document: keep one, without a second `---`".to_owned();
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

/// Walks a whole document and refuses what [`parse`] says; keeps nothing.
#[derive(Clone, Copy)]
struct Guard<'a>(&'a Cell<usize>);

impl Guard<'_> {
    fn spend<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(bytes.saturating_add(1));
        self.0.set(left.ok_or_else(|| E::custom("aliases repeat too much: write out what they stand for"))?);
        Ok(())
    }

    fn number<E: de::Error>(self, number: f64, text: impl fmt::Display) -> Result<(), E> {
        self.spend(8)?;
        if !number.is_finite() {
            return Err(E::custom(format!("`{text}` is not a finite number: write it as text, in quotes")));
        }
        if number.abs() > LARGEST {
            let message = format!("the number {text} is beyond 2^53: write it as text, in quotes");
            return Err(E::custom(message));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Guard<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Guard<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.spend(1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.number(number, number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        // 2^53 + 1 would become 2^53 as a double and pass.
        let double = if number > 1 << 53 { f64::MAX } else { number as f64 };
        self.number(double, number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        let double = if number.unsigned_abs() > 1 << 53 { f64::MAX } else { number as f64 };
        self.number(double, number)
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<(), E> {
        self.number(f64::MAX, number)
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<(), E> {
        self.number(f64::MAX, number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.spend(1)?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.spend(1)?;
        let mut seen = HashSet::new();
        while map.next_key_seed(Key(self, &mut seen))?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("tags are not allowed: write the plain value, without `!…`"))
    }
}

/// One key of a map: text, and not seen before.
struct Key<'a, 'b>(Guard<'a>, &'b mut HashSet<String>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text: put it in quotes")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        self.0.spend(key.len())?;
        if self.1.insert(key.to_owned()) {
            return Ok(());
        }
        Err(E::custom(format!("the key `{}` stands here twice: remove one", one_line(key))))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom("tags are not allowed: write the plain key, without `!…`"))
    }
}

/// Walks to a place and raises an error there, so that the reader tells where that is.
struct Find<'a>(&'a [Seg]);

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
        if let Some((Seg::Index(index), rest)) = self.0.split_first() {
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
        if let Some((Seg::Key(wanted), rest)) = self.0.split_first() {
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

/// Holds the descriptions of documents against their readers.
#[cfg(test)]
pub(crate) mod described {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// Fails unless the part of a schema at `pointer` describes the very fields that `T` reads.
    #[track_caller]
    pub(crate) fn same_fields<T: DeserializeOwned>(schema: &str, pointer: &str) {
        let schema: Value = serde_json::from_str(schema).unwrap();
        let properties = schema.pointer(pointer).and_then(|part| part.get("properties"));
        let properties =
            properties.and_then(Value::as_object).unwrap_or_else(|| panic!("nothing at {pointer:?}"));
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        // The reader itself names its fields, when it meets an unknown one.
        let error = serde_json::from_value::<T>(json!({"no such field": 0})).err().unwrap().to_string();
        let read: BTreeSet<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(!read.is_empty(), "{error}");
        assert_eq!(described, read, "{pointer:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    const LIMIT: usize = 64 * 1024;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        task: String,
        #[serde(default)]
        params: Value,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        wait: crate::domain::span::Span,
    }

    fn error(text: &str) -> String {
        parse::<Doc>(text, LIMIT).unwrap_err().to_string()
    }

    #[test]
    fn yaml_and_json_read_the_same() {
        let yaml =
            parse::<Doc>("task: a\nparams: {n: 5, t: \"x😀\", l: [1.5, null, true]}\n", LIMIT).unwrap();
        let json =
            "{\n\t\"task\":\"a\",\"params\":{\"n\":5,\"t\":\"x\\ud83d\\ude00\",\"l\":[1.5,null,true]}}";
        assert_eq!(parse::<Doc>(json, LIMIT).unwrap(), yaml);
        assert_eq!(yaml.params["l"], json!([1.5, null, true]));
    }

    #[test]
    fn an_error_names_the_place_and_the_cure() {
        for (text, wanted) in [
            ("task: a\nparms: {}\n", "2:1: parms: unknown field `parms`: did you mean `params`?"),
            ("task: a\nzzzzzz: {}\n", "2:1: zzzzzz: unknown field `zzzzzz`: use one of task, params, inner"),
            ("task: [5]\n", "1:7: task: invalid type: sequence, expected a string"),
            ("{\"task\": 5}", "task: invalid type: integer `5`, expected a string: put it in quotes"),
            ("params: {}\n", "1:1: missing field `task`"),
            ("", "1:1: the document is empty"),
            ("task: a\n---\ntask: b\n", "more than one document"),
            ("task: a\nparams: {a: {b: 1, b: 2}}\n", "2:20: params.a.b: the key `b` stands here twice"),
            ("{\"task\": \"a\", \"task\": \"b\"}", "the key `task` stands here twice"),
            ("task: a\nparams: [{5: x}]\n", "put it in quotes"),
            ("task: a\nparams: {? [a] : x}\n", "put it in quotes"),
            ("task: a\nparams:\n  - 9007199254740993\n", "3:5: params[0]: the number 9007199254740993"),
            ("task: a\nparams: -9007199254740993\n", "beyond 2^53"),
            ("task: a\nparams: 99999999999999999999999999999999999999999999\n", "beyond 2^53"),
            ("task: a\nparams: 170141183460469231731687303715884105727\n", "beyond 2^53"),
            ("task: a\nparams: [1, .nan]\n", "2:13: params[1]: `NaN` is not a finite number"),
            ("task: a\nparams: -.inf\n", "not a finite number"),
            ("task: a\nparams: {a: !x 5}\n", "tags are not allowed"),
            ("task: a\nparams: {!x a: 5}\n", "tags are not allowed"),
            ("task: a\ninner:\n- {wait: 1s}\n- wait: 5\n", "4:9: inner[1].wait: \"5\" is not a length"),
            ("task: a\ninner:\n- {wait: 1s}\n- wait: five\n", "4:9: inner[1].wait: \"five\" is not a length"),
            ("task: a\nparams: *x\n", "unknown anchor"),
            ("task: [a\n", "did not find"),
        ] {
            let got = error(text);
            assert!(got.contains(wanted), "{text:?}\n got    {got}\n wanted {wanted}");
            assert!(!got.contains('\n'), "{got}");
        }
        let bad = parse::<Doc>(b"task: a\nparams: \xff", LIMIT).unwrap_err();
        assert_eq!((bad.line, bad.column), (2, 9));
        assert!(parse::<Doc>("task: abcdefgh", 10).unwrap_err().message.contains("at most 10"));
    }

    #[test]
    fn numbers_at_the_edge_are_kept() {
        let doc = parse::<Value>("[9007199254740992, -9007199254740992, 0.1]", LIMIT).unwrap();
        assert_eq!(doc, json!([9_007_199_254_740_992_i64, -9_007_199_254_740_992_i64, 0.1]));
    }

    #[test]
    fn hostile_documents_are_refused_and_cost_little() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse::<Value>(&bomb, LIMIT).is_err());
        let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(30_000), "*a,".repeat(9_000));
        assert!(parse::<Value>(&wide, LIMIT).unwrap_err().message.contains("aliases repeat too much"));
        for text in [
            "[".repeat(60_000),
            "{a: ".repeat(15_000),
            "- ".repeat(30_000),
            "? ".repeat(30_000),
            "{\"a\":".repeat(10_000),
            "a: &a [*a]".to_owned(),
            "\u{feff}a: \u{0}".to_owned(),
            "%YAML 9.9\n---\na".to_owned(),
            "a: \"\\ud800\"".to_owned(),
            "!<tag:x> {}".to_owned(),
            "&".to_owned(),
            "\t".to_owned(),
        ] {
            assert!(parse::<Doc>(&text, LIMIT).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn every_cut_of_a_document_is_an_answer() {
        let text = "task: a\nparams: {a: [1, {b: \"x\\n\"}], c: !t 5}\ninner:\n- {wait: 1s}\n- wait: &x 5\n";
        for end in 0..text.len() {
            let _ = parse::<Doc>(&text[..end], LIMIT);
            let _ = parse::<Doc>(&text[end..], LIMIT);
        }
    }

    #[test]
    fn a_place_is_found_by_its_path() {
        let text = "a:\n  b:\n    - x\n    - y: z\n";
        let at = |path: &[Seg]| {
            let error = fault(text, path, "m");
            (error.line, error.column)
        };
        assert_eq!(at(&["a".into(), "b".into(), 1.into(), "y".into()]), (4, 10));
        assert_eq!(at(&["a".into(), "b".into(), 9.into()]), (3, 5));
        assert_eq!(at(&["a".into(), "q".into()]), (2, 3));
        assert_eq!(at(&[]), (1, 1));
    }
}
