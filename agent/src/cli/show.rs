//! What commands print: every text from outside is escaped once more, and a reader that goes away is no panic.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::screen;

/// The time in UTC, as in reports and logs.
const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";
/// The same with the distance to UTC.
const TIME_THERE: &str = "%Y-%m-%dT%H:%M:%S%:z";

/// Prints a line.
pub(super) fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints a text that may be longer than the screen.
pub(super) fn page(text: &str) -> io::Result<()> {
    if screen::paged(text)? { Ok(()) } else { raw(text.as_bytes()) }
}

/// Says that something was done, to whoever wants to hear it.
pub(super) fn say(text: impl AsRef<str>) -> io::Result<()> {
    if screen::quiet() { Ok(()) } else { line(text) }
}

/// Tells the person something that is not part of the answer.
pub(super) fn note(text: impl AsRef<str>) {
    if !screen::quiet() {
        error(text);
    }
}

/// Tells the person what is wrong.
pub(super) fn error(text: impl AsRef<str>) {
    // Without anybody who reads it there is nobody to tell.
    let _ = writeln!(io::stderr(), "hostler: {}", text.as_ref());
}

/// Prints a document for programs.
pub(super) fn json(document: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(document).map_err(io::Error::other)?;
    line(ascii_controls(&text))
}

/// In JSON a character can always be written as its number; those stand only in texts.
fn ascii_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_bad(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A character that could change what else is on a terminal.
fn is_bad(c: char) -> bool {
    // Besides control characters: Unicode's line ends, its characters of format (the category Cf), which are not seen and
    // turn the direction of writing, and what looks like nothing at all.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}'
            | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text in one line.
pub(super) fn inline(text: &str) -> String {
    text.chars().map(|c| if is_bad(c) { escaped(c) } else { c.to_string() }).collect()
}

/// A text in one line, or on a narrow screen in several that all begin at the same place.
pub(super) fn indented(text: &str, at: usize) -> String {
    let text = inline(text);
    let Some(width) = screen::width().map(|width| width.saturating_sub(at)) else { return text };
    wrapped(&text, width).join(&format!("\n{}", " ".repeat(at)))
}

/// Lines of at most this many characters, but for words that are longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fits =
            |line: &String| line.is_empty() || line.chars().count() + 1 + word.chars().count() <= width;
        match lines.last_mut() {
            Some(line) if fits(line) => {
                let gap = if line.is_empty() { "" } else { " " };
                line.push_str(&format!("{gap}{word}"));
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A text of several lines; a tab is no harm.
pub(super) fn lines(text: &str) -> String {
    let one = |c: char| if is_bad(c) && !matches!(c, '\n' | '\t') { escaped(c) } else { c.to_string() };
    text.chars().map(one).collect()
}

fn escaped(c: char) -> String {
    match c {
        '\n' | '\t' => " ".to_owned(),
        _ => c.escape_default().to_string(),
    }
}

/// A time in the reader's zone (`TZ`, else the host's), or a dash. What programs read is in UTC.
pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| in_zone(at, &TimeZone::system()))
}

fn in_zone(at: Timestamp, zone: &TimeZone) -> String {
    let there = at.to_zoned(zone.clone());
    if there.offset().is_zero() {
        at.strftime(TIME).to_string()
    } else {
        there.strftime(TIME_THERE).to_string()
    }
}

/// A length of time in its two greatest units.
pub(super) fn length(span: SignedDuration) -> String {
    let secs = span.as_secs().max(0);
    match (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s}s"),
        (0, h, m, _) => format!("{h}h{m}m"),
        (d, h, ..) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_how_far_it_is_from_utc() {
        let at = "2026-11-30T23:30:00Z".parse().unwrap();
        let zone = |name: &str| TimeZone::get(name).unwrap();
        assert_eq!(in_zone(at, &zone("Europe/Berlin")), "2026-12-01T00:30:00+01:00");
        assert_eq!(in_zone(at, &zone("America/New_York")), "2026-11-30T18:30:00-05:00");
        assert_eq!(in_zone(at, &TimeZone::UTC), "2026-11-30T23:30:00Z");
        // In London it is winter.
        assert_eq!(in_zone(at, &zone("Europe/London")), "2026-11-30T23:30:00Z");
    }

    #[test]
    fn nothing_from_outside_reaches_a_terminal_as_a_command() {
        assert_eq!(inline("a\x1b[2Jb\nc\u{202e}d\u{9b}e"), "a\\u{1b}[2Jb c\\u{202e}d\\u{9b}e");
        assert_eq!(lines("a\x07\n\tb"), "a\\u{7}\n\tb");
        let json = ascii_controls("{\n  \"a\": \"x\u{9b}\u{202e}\"\n}");
        assert_eq!(json, "{\n  \"a\": \"x\\u009b\\u202e\"\n}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["a"], "x\u{9b}\u{202e}");
    }

    #[test]
    fn characters_that_are_not_seen_are_shown() {
        for c in
            "\u{61c}\u{200b}\u{feff}\u{ad}\u{3164}\u{e0041}\u{2060}\u{180e}\u{fff9}\u{110bd}\u{1d173}".chars()
        {
            let shown = inline(&c.to_string());
            assert!(shown.is_ascii() && shown.len() > 3, "{c:?}: {shown}");
        }
        assert_eq!(inline("grüße 😀 e\u{301}"), "grüße 😀 e\u{301}");
    }

    #[test]
    fn lines_break_between_words_and_lose_none() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a verylongword b", 4), ["a", "verylongword", "b"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(indented("no screen, no end to the line", 4), "no screen, no end to the line");
    }

    #[test]
    fn lengths_have_two_units() {
        for (secs, expected) in [(-5, "0s"), (0, "0s"), (61, "1m1s"), (3_700, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(length(SignedDuration::from_secs(secs)), expected);
        }
    }
}
