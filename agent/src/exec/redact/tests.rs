//! The filter against slow models of what it promises.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::pieces::each_form;
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
        let redactor = Arc::new(Redactor::of_patterns(patterns.clone(), None).unwrap());
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
        let redactor = Arc::new(Redactor::of_patterns(patterns.clone(), None).unwrap());
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
    let b64 = |text: String| STANDARD.encode(text);
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
        hex::encode(secret),
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

/// Values of each length that matters, up to the longest that is taken: by their letters, and with or without line breaks.
fn value(random: &mut Random, length: usize, letters: &[char], line: usize) -> String {
    let mut text = String::new();
    let mut at = 0;
    while text.len() < length {
        at += 1;
        match line != 0 && at % line == 0 {
            true => text.push('\n'),
            false => text.push(letters[random.below(letters.len())]),
        }
    }
    text
}

const LENGTHS: [usize; 9] = [16, 63, 64, 65, 69, 128, 1000, 65_536, 1 << 20];

fn letters() -> [Vec<char>; 3] {
    let plain = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let odd = (' '..='~').collect();
    [plain, odd, "aäö€𝄞'\"\\/<&%+ \u{7}".chars().collect()]
}

fn filtered(redactor: &Arc<Redactor>, text: &[u8], mut cut: impl FnMut() -> usize) -> Vec<u8> {
    let mut filter = Filter::new(Arc::clone(redactor));
    let (mut out, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(cut().clamp(1, rest.len()));
        filter.add(now, &mut out);
        rest = later;
    }
    filter.finish(&mut out);
    out
}

#[test]
fn the_whole_of_a_value_of_any_length_is_one_mark_in_every_form() {
    let mut random = Random(3);
    for length in LENGTHS {
        for (kind, letters) in letters().iter().enumerate() {
            // The longest ones are slow without optimisation, and what they are made of makes no difference any more.
            if length > 128 && kind > 0 {
                continue;
            }
            for line in [0, 77, 21] {
                if length > 1000 && line != 77 {
                    continue;
                }
                let value = value(&mut random, length, letters, line);
                let redactor = Arc::new(Redactor::new([value.as_str()]).unwrap());
                let mut forms = BTreeSet::new();
                forms_of(&value, &mut forms);
                for (at, form) in forms.iter().take(if length > 1000 { 2 } else { 60 }).enumerate() {
                    let text = [b"=> ", form.as_slice(), b" <="].concat();
                    let out = filtered(&redactor, &text, || 1 + random.below(8000));
                    let shown = String::from_utf8_lossy(&out);
                    assert!(
                        out == format!("=> {MARK} <=").as_bytes(),
                        "{length} {kind} {line} {at}: {shown:.300}"
                    );
                }
                // Base64 of more than the value: only what holds bits of other bytes as well may show.
                let around = STANDARD.encode(format!("x{value}y"));
                let out = filtered(&redactor, around.as_bytes(), || 1 + random.below(8000));
                assert!(
                    out.len() <= MARK.len() + 8,
                    "{length} {kind} {line}: {}",
                    String::from_utf8_lossy(&out)
                );
            }
        }
    }
}

/// Patterns by their first bytes, so that even a slow model of many of them ends.
fn cover_many(patterns: &HashMap<Vec<u8>, Vec<Vec<u8>>>, text: &[u8]) -> Vec<bool> {
    let mut covered = vec![false; text.len()];
    for at in 0..text.len().saturating_sub(15) {
        for pattern in patterns.get(&text[at..at + 16]).into_iter().flatten() {
            if text[at..].starts_with(pattern) {
                covered[at..at + pattern.len()].fill(true);
            }
        }
    }
    covered
}

#[test]
fn pieces_are_found_as_the_slow_model_finds_them_however_the_stream_is_cut() {
    let mut random = Random(5);
    for length in LENGTHS.into_iter().filter(|length| *length > SHORT) {
        for (kind, letters) in letters().iter().enumerate() {
            if length > 128 && kind > 0 {
                continue;
            }
            for line in [0, 77, 21] {
                if length > 1000 && line != 77 {
                    continue;
                }
                let value = value(&mut random, length, letters, line);
                let redactor = Arc::new(Redactor::new([value.as_str()]).unwrap());
                let mut patterns: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
                let mut all = Vec::new();
                each_form(&value, &mut |form| {
                    let same = patterns.entry(form[..16].to_vec()).or_default();
                    if !same.iter().any(|one| one == form) {
                        same.push(form.to_vec());
                    }
                    if all.len() < 20_000 {
                        all.push(form.to_vec());
                    }
                });
                // Forms whole and cut, beside others and beside other text.
                let mut text = Vec::new();
                for _ in 0..60 {
                    let form = &all[random.below(all.len())];
                    let from = if random.below(3) == 0 { random.below(form.len()) } else { 0 };
                    let to = if random.below(3) == 0 {
                        from + random.below(form.len() - from)
                    } else {
                        form.len()
                    };
                    text.extend_from_slice(&form[from..to]);
                    if random.below(2) == 0 {
                        text.extend(random.word(40, 20));
                    }
                }
                let from = random.below(value.len());
                text.extend_from_slice(&value.as_bytes()[from..(from + 3000).min(value.len())]);
                let wanted = marked(&text, &cover_many(&patterns, &text));
                let context = format!("{length} {kind} {line}");
                for most in [1, 7, 100, 100_000] {
                    let out = filtered(&redactor, &text, || 1 + random.below(most));
                    assert!(out == wanted, "{context}: {}", String::from_utf8_lossy(&out));
                }
                // At each byte in turn.
                let text = text.get(..200).unwrap_or(&text);
                let wanted = marked(text, &cover_many(&patterns, text));
                for cut in 1..text.len() {
                    let mut first = Some(cut);
                    let out = filtered(&redactor, text, || first.take().unwrap_or(usize::MAX));
                    assert!(out == wanted, "{context}, cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_piece_leaves_at_once_beside_a_long_secret() {
    let mut random = Random(9);
    let value = value(&mut random, 65_536, &letters()[0], 65);
    // Each has a key of its own: what one lets go, another may take for a beginning.
    for _ in 0..20 {
        let redactor = Arc::new(Redactor::new([value.as_str()]).unwrap());
        leaves_at_once(&redactor);
    }
}

fn leaves_at_once(redactor: &Arc<Redactor>) {
    let mut filter = Filter::new(Arc::clone(redactor));
    let mut out = Vec::new();
    let mut late = 0;
    for percent in 0..100 {
        for line in [format!("progress {percent} %\n"), format!("copying /var/lib/{percent}/base\n")] {
            let before = out.len();
            filter.add(line.as_bytes(), &mut out);
            late += usize::from(out.len() < before + line.len());
        }
    }
    // A short end may look like a beginning.
    assert!(late < 40, "{late} of 200 lines came later");
    // A gap hides no more than a piece.
    assert!(redactor.longest() < 400, "{}", redactor.longest());
}
