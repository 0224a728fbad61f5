//! Text with a bound.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_never_split_a_character() {
        assert_eq!((head("aäb", 2).as_str(), tail("aäb", 2).as_str()), ("a", "b"));
        assert_eq!((head("ab", 9).as_str(), tail("ab", 9).as_str()), ("ab", "ab"));
    }
}
