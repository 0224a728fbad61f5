//! How programs may write a secret: every text of this file is looked for.
//!
//! Each form but Base64 writes one character after the other, so that the form of a part is a part of the form of the
//! whole. Of Base64 the characters count that hold nothing but the part. [`super::pieces`] rests on both.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Encodings shorter than this, in bytes, are too common in ordinary text.
const SHORTEST_FORM: usize = 5;
/// A line of a longer text is looked for by itself from this length on.
pub(super) const SHORTEST_LINE: usize = 16;

/// The texts of a value that are looked for: itself, without blanks around it, and its longer lines.
pub(super) fn texts_of(value: &str) -> impl Iterator<Item = &str> {
    let trimmed = value.trim();
    let lines = trimmed.contains('\n').then(|| trimmed.lines().map(str::trim).filter(is_line));
    [value, trimmed].into_iter().filter(|text| !text.is_empty()).chain(lines.into_iter().flatten())
}

fn is_line(line: &&str) -> bool {
    line.len() >= SHORTEST_LINE && !line.starts_with("-----")
}

/// Adds how programs may write a text.
pub(super) fn forms_of(text: &str, forms: &mut BTreeSet<Vec<u8>>) {
    forms.insert(text.as_bytes().to_vec());
    let mut more = base64(text.as_bytes());
    more.extend([hex(text.as_bytes(), false), hex(text.as_bytes(), true)]);
    // Of letters and digits all others make nothing else.
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        more.extend(url(text));
        more.extend(json(text));
        more.extend(shell(text));
        more.extend(own(text));
    }
    forms.extend(more.into_iter().filter(|form| form.len() >= SHORTEST_FORM).map(String::into_bytes));
}

/// What of a value's Base64 does not depend on the bytes around it, for each of the three places it can begin at.
fn base64(bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    for before in 0..3_usize {
        let padded = [&vec![0; before][..], bytes].concat();
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            all.extend(encoded.get(from..to).map(str::to_owned));
        }
    }
    all
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn digits(upper: bool) -> &'static [u8; 16] {
    if upper { UPPER } else { LOWER }
}

fn push_hex(out: &mut String, byte: u8, digits: &[u8; 16]) {
    for nibble in [byte >> 4, byte & 15] {
        out.extend(digits.get(usize::from(nibble)).map(|digit| char::from(*digit)));
    }
}

fn hex(bytes: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| push_hex(&mut out, *byte, digits(upper)));
    out
}

/// Percent encodings: which characters stay differs between programs, and so does the case of the digits.
fn url(text: &str) -> Vec<String> {
    let mut all = Vec::with_capacity(20);
    for stays in ["-._~", "-._~/", "-._~!'()*", "-._~!'()*;,/?:@&=+$#", "-._*"] {
        for upper in [true, false] {
            for blank in ["+", "%20"] {
                let mut out = String::with_capacity(3 * text.len());
                for byte in text.bytes() {
                    if byte == b' ' {
                        out.push_str(blank);
                    } else if byte.is_ascii_alphanumeric() || stays.as_bytes().contains(&byte) {
                        out.push(char::from(byte));
                    } else {
                        out.push('%');
                        push_hex(&mut out, byte, digits(upper));
                    }
                }
                all.push(out);
            }
        }
    }
    all
}

/// Each character of a text, with something else in the place of some.
fn replaced(text: &str, mut write: impl FnMut(&mut String, char)) -> String {
    let mut out = String::with_capacity(2 * text.len());
    text.chars().for_each(|c| write(&mut out, c));
    out
}

fn push_unicode(out: &mut String, c: char, upper: bool) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str("\\u");
        unit.to_be_bytes().iter().for_each(|byte| push_hex(out, *byte, digits(upper)));
    }
}

/// Texts in JSON: some escape `/`, some what HTML takes for its own, some everything beyond ASCII.
fn json(text: &str) -> Vec<String> {
    let quoted = serde_json::Value::from(text).to_string();
    let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let html = replaced(&plain, |out, c| match c {
        '<' | '>' | '&' => push_unicode(out, c, false),
        c => out.push(c),
    });
    let mut all = vec![plain.replace('/', "\\/"), plain, html];
    let is_beyond = |c: char| !c.is_ascii() || c == '\u{7f}';
    if text.contains(is_beyond) {
        for upper in [false, true] {
            let ascii = |form: &String| {
                replaced(form, |out, c| if is_beyond(c) { push_unicode(out, c, upper) } else { out.push(c) })
            };
            let more: Vec<String> = all.iter().take(3).map(ascii).collect();
            all.extend(more);
        }
    }
    all
}

/// What the filters `e` and `tojson` of a step's `stdin` make of it, and programs that write XML or HTML.
fn own(text: &str) -> Vec<String> {
    let escaped = |quotes: [(&str, &str); 3]| {
        let basic = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        quotes.into_iter().fold(basic, |text, (from, to)| text.replace(from, to))
    };
    let script = json(text).into_iter().map(|text| text.replace('\'', "\\u0027"));
    let markup = [
        [("\"", "&quot;"), ("'", "&#x27;"), ("/", "&#x2f;")],
        [("\"", "&quot;"), ("'", "&#x27;"), ("/", "/")],
        [("\"", "&#34;"), ("'", "&#39;"), ("/", "/")],
        [("\"", "&quot;"), ("'", "&#39;"), ("/", "/")],
        [("\"", "&quot;"), ("'", "&apos;"), ("/", "/")],
        [("\"", "\""), ("'", "'"), ("/", "/")],
    ];
    markup.into_iter().map(escaped).chain(script).collect()
}

/// Texts as shells quote them.
fn shell(text: &str) -> Vec<String> {
    let slashed = |special: &dyn Fn(char) -> bool| {
        replaced(text, |out, c| {
            if special(c) {
                out.push('\\');
            }
            out.push(c);
        })
    };
    vec![
        text.replace('\'', "'\\''"),
        text.replace('\'', "'\"'\"'"),
        slashed(&|c| "\"\\$`".contains(c)),
        slashed(&|c| "\"\\$`!".contains(c)),
        // `printf %q`, as different shells have it.
        slashed(&|c| " \t'\"\\|&;()<>!{}*[]?^$`,".contains(c)),
        slashed(&|c| " \t'\"\\|&;()<>!{}*[]?^$`,~#".contains(c)),
        slashed(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:@%+=,".contains(c)),
        slashed(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:@%+=".contains(c)),
        slashed(&|c| c.is_ascii() && !c.is_ascii_alphanumeric()),
        // $'…'
        text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t"),
    ]
}
