//! Consul's JSON and headers, and what they mean: no connection, no clock.
//!
//! Everything that comes in here was written by somebody else; what is not as documented is an error with
//! its reason, never a guess.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use super::body::{MAX_TEXT, TOO_LONG};
use crate::domain::text::head;
use crate::store::{Entry, Listing, MAX_READ_VALUE, Read};

/// The longest text of the server that is passed on, in characters.
const MAX_MESSAGE: usize = 200;

/// One key as Consul writes it.
#[derive(Deserialize)]
struct WireEntry<'a> {
    #[serde(rename = "Key", borrow)]
    key: Cow<'a, str>,
    /// Base64; null for an empty value.
    #[serde(rename = "Value", borrow, default)]
    value: Option<Cow<'a, str>>,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
}

impl WireEntry<'_> {
    fn entry(self) -> Result<Entry, String> {
        let cut = self.value.as_deref() == Some(TOO_LONG);
        let value = match &self.value {
            Some(text) if !cut => STANDARD
                .decode(text.as_bytes())
                .map_err(|error| format!("the value of {:?} is not base64: {error}", head(&self.key, 200)))?,
            _ => Vec::new(),
        };
        if self.modify_index == 0 {
            return Err(format!("{:?} has no ModifyIndex", head(&self.key, 200)));
        }
        let too_large = cut || value.len() > MAX_READ_VALUE;
        let value = if too_large { Vec::new() } else { value };
        Ok(Entry { key: self.key.into_owned(), value, too_large, modify_index: self.modify_index })
    }
}

/// A key that is too long to be held; it names nothing, and shows as what it is.
fn unnamed(prefix: &str) -> String {
    format!("{prefix}(a key of more than {MAX_TEXT} bytes)")
}

/// The keys of a `?recurse` answer, sorted; all of them stand below `prefix`.
pub(super) fn entries(body: &[u8], prefix: &str) -> Result<Vec<Entry>, String> {
    let wire: Vec<WireEntry<'_>> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut entries = wire.into_iter().map(WireEntry::entry).collect::<Result<Vec<_>, _>>()?;
    for entry in entries.iter_mut().filter(|entry| entry.key == TOO_LONG) {
        entry.key = unnamed(prefix);
    }
    if let Some(stray) = entries.iter().find(|entry| !entry.key.starts_with(prefix)) {
        return Err(format!("{:?} is not below {prefix:?}", head(&stray.key, 200)));
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(entries)
}

/// The names of a `?keys&separator=/` answer, without the prefix.
pub(super) fn names(body: &[u8], prefix: &str) -> Result<Vec<String>, String> {
    let wire: Vec<Cow<'_, str>> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let below = |name: &Cow<'_, str>| match name.strip_prefix(prefix) {
        Some(name) => Ok(name.to_owned()),
        // One that is too long to be held names nothing.
        None if name == TOO_LONG => Ok(unnamed("")),
        None => Err(format!("{:?} is not below {prefix:?}", head(name, 200))),
    };
    let mut names = wire.iter().map(below).collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    Ok(names)
}

#[derive(Serialize)]
struct WireOp<'a> {
    #[serde(rename = "KV")]
    kv: WireKvOp<'a>,
}

#[derive(Serialize)]
struct WireKvOp<'a> {
    #[serde(rename = "Verb")]
    verb: &'static str,
    #[serde(rename = "Key")]
    key: &'a str,
}

/// The body of a transaction that reads.
///
/// All reads are `get-tree`: a `get` of a key that does not exist fails the transaction as a whole.
pub(super) fn transaction(reads: &[Read]) -> Result<Vec<u8>, String> {
    let ops: Vec<WireOp<'_>> = reads
        .iter()
        .map(|read| match read {
            Read::Key(key) | Read::Prefix(key) => WireOp { kv: WireKvOp { verb: "get-tree", key } },
        })
        .collect();
    serde_json::to_vec(&ops).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct WireTxn<'a> {
    #[serde(rename = "Results", borrow, default)]
    results: Option<Vec<WireResult<'a>>>,
    #[serde(rename = "Errors", borrow, default)]
    errors: Option<Vec<WireError<'a>>>,
}

#[derive(Deserialize)]
struct WireResult<'a> {
    #[serde(rename = "KV", borrow)]
    kv: WireEntry<'a>,
}

#[derive(Deserialize)]
struct WireError<'a> {
    #[serde(rename = "What", borrow)]
    what: Cow<'a, str>,
}

/// The listings of a transaction's answer, in the order of `reads`.
///
/// The results come as one flat list that does not say which operation each belongs to; all of them are of
/// one moment, so each read takes those that it asked for.
pub(super) fn looked(body: &[u8], reads: &[Read]) -> Result<Vec<Listing>, String> {
    let wire: WireTxn<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(error) = wire.errors.unwrap_or_default().first() {
        return Err(format!("the transaction failed: {}", message(error.what.as_bytes())));
    }
    let mut found = BTreeMap::new();
    for result in wire.results.unwrap_or_default() {
        let entry = result.kv.entry()?;
        found.insert(entry.key.clone(), entry);
    }
    let listing = |read: &Read| {
        let wanted = |key: &str| match read {
            Read::Key(asked) => key == asked,
            Read::Prefix(asked) => key.starts_with(asked.as_str()),
        };
        let entries: Vec<Entry> = found.values().filter(|entry| wanted(&entry.key)).cloned().collect();
        let index = entries.iter().map(|entry| entry.modify_index).max().unwrap_or(0);
        Listing { index, entries, sent: 0 }
    };
    Ok(reads.iter().map(listing).collect())
}

/// Whether the server that answered knows a leader; `None`: it does not say.
pub(super) fn known_leader(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-consul-knownleader")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// The index of an answer: at least 1.
pub(super) fn index(headers: &HeaderMap) -> Result<u64, String> {
    let header = headers.get("x-consul-index").ok_or("the answer has no X-Consul-Index")?;
    let index = header.to_str().ok().and_then(|text| text.parse().ok());
    match index {
        Some(0) | None => Err(format!("its X-Consul-Index is {}", message(header.as_bytes()))),
        Some(index) => Ok(index),
    }
}

/// What a status other than success means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    NoLeader,
    Busy,
    /// The datacenter that was asked for is not known, or is cut off.
    NoDatacenter,
    /// Plain HTTP at a port with TLS.
    WantsTls,
    Denied,
    Refused,
    Unreadable,
}

/// Reads a status and the text that came with it.
///
/// Older servers answer a lack of rights or of a leader with 500 and a text, so the text counts too.
pub(super) fn verdict(status: u16, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4096)).unwrap_or_default()).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match status {
        401 | 403 => Verdict::Denied,
        429 => Verdict::Busy,
        500..=599
            if says(&["no cluster leader", "leadership lost", "not the leader", "no known leader"])
                || says(&["not ready to serve consistent reads"]) =>
        {
            Verdict::NoLeader
        }
        500..=599 if says(&["permission denied", "acl not found"]) => Verdict::Denied,
        500..=599 if says(&["no path to datacenter"]) => Verdict::NoDatacenter,
        500..=599 => Verdict::Busy,
        400 if says(&["http request to an https server"]) => Verdict::WantsTls,
        400..=499 if status != 404 => Verdict::Refused,
        _ => Verdict::Unreadable,
    }
}

/// Text of the server, fit for a message: one short line without control characters.
pub(super) fn message(body: &[u8]) -> String {
    let head = body.get(..body.len().min(4 * MAX_MESSAGE)).unwrap_or_default();
    let line: String = String::from_utf8_lossy(head)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE)
        .collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "(no text)".to_owned() } else { line }
}

/// Percent-encodes a key for a path, once; slashes stay.
pub(super) fn encode_path(key: &str) -> String {
    encode(key, |byte| byte == b'/')
}

/// Percent-encodes a value of a query parameter.
pub(super) fn encode_query(text: &str) -> String {
    encode(text, |_| false)
}

fn encode(text: &str, also: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || also(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The name of the node in an answer of `agent/self`.
pub(super) fn node(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct OwnService {
        #[serde(rename = "Config")]
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "NodeName")]
        name: String,
    }
    let own: OwnService =
        serde_json::from_slice(body).map_err(|error| format!("no description of the node: {error}"))?;
    Ok(own.config.name)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn entries_are_decoded_and_sorted() {
        let body = br#"[{"Key":"p/b","Value":"aGk=","ModifyIndex":7,"Flags":0},
                        {"Key":"p/a","Value":null,"ModifyIndex":5}]"#;
        let entries = entries(body, "p/").unwrap();
        assert_eq!(entries[0], Entry { key: "p/a".into(), value: vec![], too_large: false, modify_index: 5 });
        assert_eq!(
            entries[1],
            Entry { key: "p/b".into(), value: b"hi".to_vec(), too_large: false, modify_index: 7 }
        );
    }

    #[test]
    fn what_was_dropped_while_it_was_read_keeps_its_key() {
        let exact = STANDARD.encode(vec![b'x'; MAX_READ_VALUE]);
        let more = STANDARD.encode(vec![b'x'; MAX_READ_VALUE + 1]);
        let body = format!(
            r#"[{{"Key":"p/a","Value":"!","ModifyIndex":7}},{{"Key":"!","Value":null,"ModifyIndex":8}},
                {{"Key":"p/b","Value":"{exact}","ModifyIndex":9}},{{"Key":"p/c","Value":"{more}","ModifyIndex":9}}]"#
        );
        let entries = entries(body.as_bytes(), "p/").unwrap();
        let shown: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.too_large, e.value.len())).collect();
        assert_eq!(
            shown,
            [
                ("p/(a key of more than 87384 bytes)", false, 0),
                ("p/a", true, 0),
                ("p/b", false, MAX_READ_VALUE),
                ("p/c", true, 0),
            ]
        );
        assert!(entries[1].read().is_err() && entries[2].read().is_ok());
        assert_eq!(names(br#"["p/h1/","p/db10/","p/x"]"#, "p/").unwrap(), ["db10/", "h1/", "x"]);
        assert!(names(br#"["q/x"]"#, "p/").is_err());
    }

    #[test]
    fn what_is_not_as_documented_is_an_error() {
        let table: [&[u8]; 8] = [
            b"",
            b"{}",
            b"null",
            b"[{\"Key\":\"p/a\"}]",
            b"[{\"Key\":\"p/a\",\"Value\":\"!!\",\"ModifyIndex\":1}]",
            b"[{\"Key\":\"p/a\",\"Value\":null,\"ModifyIndex\":-1}]",
            b"[{\"Key\":\"p/a\",\"Value\":null,\"ModifyIndex\":0}]",
            b"[{\"Key\":\"q/a\",\"Value\":null,\"ModifyIndex\":1}]",
        ];
        for body in table {
            assert!(entries(body, "p/").is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_look_gives_each_read_what_it_asked_for() {
        let body = br#"{"Results":[{"KV":{"Key":"p/a","Value":null,"ModifyIndex":5}},
            {"KV":{"Key":"p/ab","Value":null,"ModifyIndex":6}},
            {"KV":{"Key":"q/x","Value":"aGk=","ModifyIndex":9}}],"Errors":null}"#;
        let reads = [
            Read::Key("p/a".into()),
            Read::Prefix("q/".into()),
            Read::Key("r".into()),
            Read::Prefix("p/".into()),
        ];
        let looked = looked(body, &reads).unwrap();
        let keys: Vec<Vec<&str>> =
            looked.iter().map(|l| l.entries.iter().map(|e| e.key.as_str()).collect()).collect();
        assert_eq!(keys, [vec!["p/a"], vec!["q/x"], vec![], vec!["p/a", "p/ab"]]);
        assert_eq!(looked.iter().map(|l| l.index).collect::<Vec<_>>(), [5, 9, 0, 6]);
    }

    #[test]
    fn a_failed_look_is_an_error() {
        let body = br#"{"Results":null,"Errors":[{"OpIndex":0,"What":"key doesn't exist"}]}"#;
        assert!(looked(body, &[]).unwrap_err().contains("doesn't exist"));
    }

    #[test]
    fn only_an_index_of_at_least_one_counts() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("X-Consul-Index", HeaderValue::from_str(text).unwrap());
            index(&headers)
        };
        assert_eq!(with("7"), Ok(7));
        for bad in ["0", "-1", "", "x", "99999999999999999999999"] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert!(index(&HeaderMap::new()).is_err());
    }

    #[test]
    fn statuses_and_texts_have_a_meaning() {
        let table = [
            (403, "Permission denied", Verdict::Denied),
            (403, "ACL not found", Verdict::Denied),
            (500, "rpc error making call: Permission denied", Verdict::Denied),
            (500, "ACL not found", Verdict::Denied),
            (500, "No cluster leader", Verdict::NoLeader),
            (500, "rpc error making call: Not ready to serve consistent reads", Verdict::NoLeader),
            (500, "leadership lost while committing log", Verdict::NoLeader),
            (500, "No path to datacenter", Verdict::NoDatacenter),
            (500, "rpc error making call: no path to datacenter", Verdict::NoDatacenter),
            (400, "Client sent an HTTP request to an HTTPS server.\n", Verdict::WantsTls),
            (500, "rpc error making call: i/o timeout", Verdict::Busy),
            (429, "Your IP is issuing too many concurrent connections", Verdict::Busy),
            (503, "", Verdict::Busy),
            (413, "Value exceeds 524288 byte limit", Verdict::Refused),
            (400, "Bad request", Verdict::Refused),
            (404, "", Verdict::Unreadable),
            (301, "", Verdict::Unreadable),
            (204, "", Verdict::Unreadable),
        ];
        for (status, text, expected) in table {
            assert_eq!(verdict(status, text.as_bytes()), expected, "{status} {text}");
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(message(b"a\n\x1b[31m b\0"), "a [31m b");
        assert_eq!(message(b" \n"), "(no text)");
        assert!(message(&[b'x'; 5000]).len() <= MAX_MESSAGE);
        assert!(message(&[0xff; 5000]).chars().count() <= MAX_MESSAGE);
    }

    #[test]
    fn keys_are_encoded_once() {
        assert_eq!(encode_path("a b/c%20d/é?#"), "a%20b/c%2520d/%C3%A9%3F%23");
        assert_eq!(encode_query("a/b&c"), "a%2Fb%26c");
    }
}
