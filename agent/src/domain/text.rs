//! Texts and lists with a bound. A list that is cut ends with the count of what was left out.

use std::collections::BTreeMap;

/// What stands in a map for the entries that were left out; the name of none.
pub const MORE: &str = "…";

/// The first `most` bytes of a text, cut between characters.
pub fn head(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The last `most` bytes of a text, cut between characters.
pub fn tail(text: &str, most: usize) -> String {
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default().to_owned()
}

/// A text without the byte order mark that some editors put before it.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Whether bytes are text as Windows saves "Unicode": each second byte of plain letters is zero.
pub fn is_utf16(bytes: &[u8]) -> bool {
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let head = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    let zero = |odd: usize| head.iter().enumerate().filter(|(at, byte)| at % 2 == odd && **byte == 0).count();
    let pairs = head.len() / 2;
    marked || (pairs >= 2 && (zero(0) * 2 > pairs) != (zero(1) * 2 > pairs))
}

/// Whether a name fits a pattern, in which each `*` stands for any part of it.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.get(i..).is_some_and(|rest| matches_pattern(after, rest)))
        }),
    }
}

/// A text without control characters but the newline: others are blanks, and a carriage return is left out.
pub fn clean(text: &str) -> String {
    let kept = text.chars().filter(|c| *c != '\r');
    kept.map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// The first `most` texts, each of at most `longest` bytes; a last one counts the others: `and 3 more`.
pub fn few(texts: &[String], most: usize, longest: usize) -> Vec<String> {
    let mut few: Vec<String> = texts.iter().take(most).map(|text| head(text, longest)).collect();
    let more = texts.len().saturating_sub(most);
    few.extend((more > 0).then(|| format!("and {more} more")));
    few
}

/// The first entries whose names and values have at most `most` bytes in all; [`MORE`] counts the others.
pub fn within(map: &BTreeMap<String, String>, most: usize) -> BTreeMap<String, String> {
    let mut bytes = 0;
    let fits = |(name, value): &(&String, &String)| {
        bytes += name.len() + value.len();
        bytes <= most
    };
    let mut kept: BTreeMap<String, String> =
        map.iter().take_while(fits).map(|(name, value)| (name.clone(), value.clone())).collect();
    let more = map.len().saturating_sub(kept.len());
    if more > 0 {
        kept.insert(MORE.to_owned(), format!("and {more} more"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_end_with_the_count_of_what_is_left_out() {
        let texts: Vec<String> = ["one", "two", "three"].map(str::to_owned).into();
        assert_eq!(few(&texts, 3, 9), texts);
        assert_eq!(few(&texts, 2, 2), ["on", "tw", "and 1 more"]);
        assert_eq!(few(&texts, 0, 9), ["and 3 more"]);
        let map: BTreeMap<String, String> = texts.iter().map(|text| (text.clone(), text.clone())).collect();
        assert_eq!(within(&map, 22), map);
        let cut = within(&map, 21);
        assert_eq!((cut.len(), cut.get(MORE).map(String::as_str)), (3, Some("and 1 more")));
        assert_eq!(within(&BTreeMap::new(), 0), BTreeMap::new());
        assert_eq!(clean("a\u{1b}[1m\tb\r\n\u{7f}ä"), "a [1m b\n ä");
    }

    #[test]
    fn cuts_never_split_a_character() {
        assert_eq!((head("aäb", 2).as_str(), tail("aäb", 2).as_str()), ("a", "b"));
        assert_eq!((head("ab", 9).as_str(), tail("ab", 9).as_str()), ("ab", "ab"));
    }
}
