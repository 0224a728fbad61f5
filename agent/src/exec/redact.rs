//! Takes a run's secrets out of everything that leaves its steps: a streaming filter.
//!
//! It knows each value as it is, and as programs write it: Base64 in all three alignments, hexadecimal, URL, JSON and
//! shell escaped, and the lines of a longer text. Every byte that belongs to such an occurrence is covered, and each
//! stretch of covered bytes becomes one mark, however the bytes were cut into chunks and however occurrences overlap.
//! What could still become an occurrence is held back, and nothing else, so that output shows at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use aho_corasick::packed::Searcher;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroize;

/// What stands in the place of a secret.
pub const MARK: &str = "[redacted]";
/// Encodings shorter than this, in bytes, are too common in ordinary text.
const SHORTEST_FORM: usize = 5;
/// The quick question asks for so many bytes of each form: enough to be rare, few enough to be shared by many forms.
const QUICK: usize = 8;
/// A line of a longer text is looked for by itself from this length on.
const SHORTEST_LINE: usize = 16;

/// Knows what must not leave.
pub struct Redactor {
    /// Sorted, so that a beginning of any of them is found by bisection.
    patterns: Vec<Vec<u8>>,
    begins: [bool; 256],
    finder: Option<AhoCorasick>,
    /// Finds beginnings of patterns, many bytes at once; none where the processor or the patterns do not allow it.
    quick: Option<Searcher>,
    longest: usize,
}

impl Redactor {
    /// For these values.
    ///
    /// # Errors
    /// Where they are too many or too long to be looked for: then nothing may be started.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut forms = BTreeSet::new();
        values.into_iter().for_each(|value| forms_of(value, &mut forms));
        Self::of_patterns(forms.into_iter().collect())
    }

    fn of_patterns(patterns: Vec<Vec<u8>>) -> Result<Self, String> {
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.first()) {
            if let Some(begin) = begins.get_mut(usize::from(*first)) {
                *begin = true;
            }
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let quick: BTreeSet<&[u8]> =
            patterns.iter().map(|pattern| pattern.get(..QUICK).unwrap_or(pattern)).collect();
        let quick = aho_corasick::packed::Config::new()
            .heuristic_pattern_limits(false)
            .builder()
            .extend(quick)
            .build();
        let finder = match patterns.is_empty() {
            true => None,
            // What the builder says could quote a pattern.
            false => Some(
                AhoCorasick::new(&patterns)
                    .map_err(|_| "the secrets are too long to be kept out of outputs")?,
            ),
        };
        Ok(Self { patterns, begins, finder, quick, longest })
    }

    /// The length of the longest form of a secret, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// A whole text without the secrets.
    pub fn text(self: &Arc<Self>, text: &str) -> String {
        let mut filter = Filter::new(Arc::clone(self));
        let mut out = Vec::with_capacity(text.len());
        filter.add(text.as_bytes(), &mut out);
        filter.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The stretches of `bytes` that belong to an occurrence, in order, none touching the next.
    fn covered(&self, bytes: &[u8], already: usize) -> Vec<(usize, usize)> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        let Some(finder) = &self.finder else { return stretches };
        // The quick question first: nearly always there is nothing.
        if already == 0 && self.quick.as_ref().is_some_and(|quick| quick.find(bytes).is_none()) {
            return stretches;
        }
        if already > 0 {
            stretches.push((0, already));
        }
        // They come in the order of their ends.
        for found in finder.find_overlapping_iter(bytes) {
            let (mut start, mut end) = (found.start(), found.end());
            while let Some((from, to)) = stretches.pop_if(|(_, to)| *to >= start) {
                (start, end) = (start.min(from), end.max(to));
            }
            stretches.push((start, end));
        }
        stretches
    }

    /// From where on `bytes` could still become an occurrence.
    fn undecided(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let open = |at: &usize| {
            let Some(rest) = bytes.get(*at..) else { return false };
            let begins = rest.first().and_then(|first| self.begins.get(usize::from(*first)));
            begins == Some(&true) && self.is_beginning(rest)
        };
        (from..bytes.len()).find(open).unwrap_or(bytes.len())
    }

    fn is_beginning(&self, bytes: &[u8]) -> bool {
        // A longer text with this beginning sorts right behind it.
        let at = self.patterns.partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns.get(at).is_some_and(|pattern| pattern.starts_with(bytes))
    }
}

impl Drop for Redactor {
    fn drop(&mut self) {
        self.patterns.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// One stream on its way through.
pub struct Filter {
    redactor: Arc<Redactor>,
    held: Vec<u8>,
    /// So many of the held bytes, and of those to come, are covered by what was found before.
    covered: usize,
    /// Whether the last byte that went out was covered.
    in_mark: bool,
}

impl Filter {
    /// A filter at the beginning of a stream.
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new(), covered: 0, in_mark: false }
    }

    /// Takes a chunk, and gives `leave` what may leave, in one or two pieces. `seam` is room for the first of them.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        seam: &mut Vec<u8>,
        mut leave: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Where a stream is cut changes nothing: what was held back is settled with the next few bytes alone.
        seam.clear();
        while (!self.held.is_empty() || self.covered > 0) && !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.redactor.longest));
            self.take(now, seam);
            bytes = later;
        }
        if !seam.is_empty() {
            leave(seam)?;
        }
        // Nearly always nothing is found: then nothing is copied, and nothing has to be wiped.
        if self.redactor.covered(bytes, 0).is_empty() {
            let (now, later) = bytes.split_at(self.redactor.undecided(bytes));
            self.in_mark &= now.is_empty();
            self.held.extend_from_slice(later);
            return if now.is_empty() { Ok(()) } else { leave(now) };
        }
        seam.clear();
        self.take(bytes, seam);
        leave(seam)
    }

    /// Some bytes of the stream were left out here. What comes next may be the end of an occurrence that began in them,
    /// so of what follows as many bytes as that could be stay behind, and so does the beginning that was held back.
    pub fn gap(&mut self) {
        self.held.zeroize();
        self.covered = self.redactor.longest.saturating_sub(1);
        self.in_mark = self.covered > 0;
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let until = self.redactor.undecided(&self.held);
        self.emit(until, out);
    }

    /// The same into one text.
    fn add(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Ok(()) = self.push(bytes, &mut Vec::new(), |piece| {
            out.extend_from_slice(piece);
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// The stream is over: what was held back leaves as well.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.emit(self.held.len(), out);
        self.in_mark = false;
    }

    fn emit(&mut self, until: usize, out: &mut Vec<u8>) {
        if until == 0 {
            return; // What is covered of the held bytes stays so.
        }
        let stretches = self.redactor.covered(&self.held, self.covered);
        self.covered = 0;
        let mut at = 0;
        for (start, end) in stretches {
            if start >= until {
                break;
            }
            self.plain(at, start, out);
            if !std::mem::replace(&mut self.in_mark, true) {
                out.extend_from_slice(MARK.as_bytes());
            }
            at = end.min(until);
            self.covered = end.saturating_sub(until);
        }
        self.plain(at, until, out);
        // What has left is wiped, not only forgotten.
        let rest = self.held.split_off(until);
        self.held.zeroize();
        self.held = rest;
    }

    fn plain(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        if let Some(bytes) = self.held.get(from..to).filter(|bytes| !bytes.is_empty()) {
            out.extend_from_slice(bytes);
            self.in_mark = false;
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

/// How programs may write a value.
fn forms_of(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let trimmed = value.trim();
    let mut texts = vec![value, trimmed];
    if trimmed.contains('\n') {
        let line = |line: &&str| line.len() >= SHORTEST_LINE && !line.starts_with("-----");
        texts.extend(trimmed.lines().map(str::trim).filter(line));
    }
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        forms.insert(text.as_bytes().to_vec());
        let mut more = base64(text.as_bytes());
        more.extend([hex(text.as_bytes(), false), hex(text.as_bytes(), true)]);
        more.extend(url(text));
        more.extend(json(text));
        more.extend(shell(text));
        more.extend(own(text));
        forms.extend(more.into_iter().filter(|form| form.len() >= SHORTEST_FORM).map(String::into_bytes));
    }
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

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
}

/// Percent encodings: which characters stay differs between programs, and so does the case of the digits.
fn url(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for stays in ["-._~", "-._~/", "-._~!'()*", "-._~!'()*;,/?:@&=+$#", "-._*"] {
        for upper in [true, false] {
            let encoded: String = text
                .bytes()
                .map(|byte| {
                    let c = char::from(byte);
                    match byte.is_ascii_alphanumeric() || stays.contains(c) {
                        true => c.to_string(),
                        false => format!("%{}", hex(&[byte], upper)),
                    }
                })
                .collect();
            all.push(encoded.replace("%20", "+"));
            all.push(encoded);
        }
    }
    all
}

/// Texts in JSON: some escape `/`, some what HTML takes for its own, some everything beyond ASCII.
fn json(text: &str) -> Vec<String> {
    let quoted = serde_json::Value::from(text).to_string();
    let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let html: String = plain
        .chars()
        .map(|c| match c {
            '<' | '>' | '&' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    let mut all = vec![plain.replace('/', "\\/"), plain, html];
    for upper in [false, true] {
        for form in all.clone() {
            let ascii: String = form.chars().map(|c| beyond_ascii(c, upper)).collect();
            all.push(ascii);
        }
    }
    all
}

fn beyond_ascii(c: char, upper: bool) -> String {
    if c.is_ascii() && c != '\u{7f}' {
        return c.to_string();
    }
    let mut units = [0; 2];
    let digits = |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
    c.encode_utf16(&mut units).iter().map(digits).collect()
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
        text.chars().map(|c| if special(c) { format!("\\{c}") } else { c.to_string() }).collect::<String>()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that a failure comes again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % bound
        }

        fn word(&mut self, most: usize, letters: usize) -> Vec<u8> {
            (0..1 + self.below(most)).map(|_| b'a' + self.below(letters) as u8).collect()
        }

        /// Of so few letters that the patterns overlap, and the text is full of them.
        fn patterns_and_text(&mut self, most: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
            let letters = 2 + self.below(2);
            let patterns: BTreeSet<_> = (0..1 + self.below(4)).map(|_| self.word(7, letters)).collect();
            (patterns.into_iter().collect(), self.word(most, letters))
        }
    }

    /// What the filter should do, slowly: cover every byte of every occurrence, one mark a stretch.
    fn model(patterns: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let mut covered = vec![false; text.len()];
        cover(patterns, text, &mut covered);
        marked(text, &covered)
    }

    fn cover(patterns: &[Vec<u8>], text: &[u8], covered: &mut [bool]) {
        for at in 0..text.len() {
            for pattern in patterns.iter().filter(|pattern| text[at..].starts_with(pattern)) {
                covered[at..at + pattern.len()].fill(true);
            }
        }
    }

    fn marked(text: &[u8], covered: &[bool]) -> Vec<u8> {
        let mut out = Vec::new();
        for at in 0..text.len() {
            match covered[at] {
                false => out.push(text[at]),
                true if at == 0 || !covered[at - 1] => out.extend_from_slice(MARK.as_bytes()),
                true => {}
            }
        }
        out
    }

    #[test]
    fn it_does_what_the_slow_model_does_however_the_stream_is_cut() {
        let mut random = Random(7);
        for round in 0..4000 {
            let (patterns, text) = random.patterns_and_text(60);
            let redactor = Arc::new(Redactor::of_patterns(patterns.clone()).unwrap());
            let mut filter = Filter::new(redactor);
            let (mut out, mut rest) = (Vec::new(), text.as_slice());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + random.below(6)).min(rest.len()));
                filter.add(now, &mut out);
                rest = later;
            }
            filter.finish(&mut out);
            let wanted = model(&patterns, &text);
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&wanted),
                "round {round}: {patterns:?} in {:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    #[test]
    fn nothing_of_a_secret_shows_on_either_side_of_a_gap() {
        let mut random = Random(11);
        for round in 0..4000 {
            let (patterns, text) = random.patterns_and_text(80);
            let longest = patterns.iter().map(Vec::len).max().unwrap();
            let from = random.below(text.len() + 1);
            let to = from + random.below(text.len() - from + 1);
            let redactor = Arc::new(Redactor::of_patterns(patterns.clone()).unwrap());
            let mut filter = Filter::new(Arc::clone(&redactor));
            let (mut before, mut after) = (Vec::new(), Vec::new());
            filter.add(&text[..from], &mut before);
            filter.gap();
            let mut rest = &text[to..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at((1 + random.below(6)).min(rest.len()));
                filter.add(now, &mut after);
                rest = later;
            }
            filter.finish(&mut after);
            // Of the whole text, gap and all, nothing that belongs to an occurrence may show.
            let mut covered = vec![false; text.len()];
            cover(&patterns, &text, &mut covered);
            let decided = redactor.undecided(&text[..from]);
            let context =
                format!("round {round}: {patterns:?} in {:?}, {from}..{to}", String::from_utf8_lossy(&text));
            assert_eq!(before, marked(&text[..decided], &covered[..decided]), "{context}");
            // Behind it, one stretch without a mark stays away, and what occurrences of the rest belong to it.
            let mut covered = vec![false; text.len() - to];
            let hidden = (longest - 1).min(covered.len());
            cover(&patterns, &text[to..], &mut covered);
            covered[..hidden].fill(true);
            let first = covered.iter().position(|covered| !covered).unwrap_or(covered.len());
            let first = if hidden == 0 { 0 } else { first };
            assert_eq!(after, marked(&text[to + first..], &covered[first..]), "{context}");
        }
    }

    #[test]
    fn every_encoding_is_known() {
        let secret = "p'ä \"s$w/ö<r>d&\\1+~";
        let redactor = Arc::new(Redactor::new([secret]).unwrap());
        let b64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let quoted = serde_json::to_string(secret).unwrap();
        let table = [
            secret.to_owned(),
            b64(format!("{secret} and more")),
            b64(format!("x{secret} and more")),
            b64(format!("xy{secret}")),
            quoted.clone(),
            quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
            quoted.replace('ä', "\\u00e4").replace('ö', "\\u00f6"),
            "p%27%C3%A4%20%22s%24w%2F%C3%B6%3Cr%3Ed%26%5C1%2B~".to_owned(),
            "p%27%c3%a4+%22s%24w%2f%c3%b6%3cr%3ed%26%5c1%2b~".to_owned(),
            "'p'\\''ä \"s$w/ö<r>d&\\1+~'".to_owned(),
            "p\\'ä\\ \\\"s\\$w/ö\\<r\\>d\\&\\\\1+~".to_owned(),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ];
        for text in table {
            let clean = redactor.text(&text);
            assert!(clean.contains(MARK), "{text}");
            assert!(!clean.contains("s$w") && clean.len() < text.len() + MARK.len(), "{text}: {clean}");
        }
        assert_eq!(redactor.text("nothing here"), "nothing here");
    }

    #[test]
    fn what_hostlers_own_filters_make_is_known() {
        use crate::domain::template::{Context, Template, render_stdin};
        let context = Context { params: &serde_json::Value::Null, host: "h", order: "o", run: "r" };
        for secret in ["a&b<c>d\"e'f/g", "cor\"rect", "it's<b>", "x&amp;y<z", "plain/with'all\"of&it"] {
            let redactor = Arc::new(Redactor::new([secret]).unwrap());
            for filter in ["e", "escape", "tojson", "string"] {
                let template: Template =
                    serde_json::from_value(format!("<p>{{{{ secrets.x | {filter} }}}}</p>").into()).unwrap();
                let made = render_stdin(&template, &context, &[("x", secret)].into()).unwrap();
                let clean = redactor.text(&made);
                assert!(
                    clean == format!("<p>{MARK}</p>") || clean == format!("<p>\"{MARK}\"</p>"),
                    "{secret} {filter}: {clean}"
                );
            }
        }
    }

    #[test]
    fn lines_of_a_key_are_known_and_output_is_not_held_back() {
        let redactor =
            Arc::new(Redactor::new(["-----BEGIN X-----\nMIIEvQIBADANBgkqhkiG\n-----END X-----\n"]).unwrap());
        assert_eq!(redactor.text("a MIIEvQIBADANBgkqhkiG b"), "a [redacted] b");
        let mut filter = Filter::new(redactor);
        let mut out = Vec::new();
        filter.add(b"progress 10 %\n", &mut out);
        assert_eq!(out, b"progress 10 %\n");
    }
}
