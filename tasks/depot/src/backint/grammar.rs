//! The lines that SAP HANA and an agent exchange.
//!
//! One entry a line, its keyword first; what has no known keyword is a comment. Parameters stand between spaces, in
//! quotes if they hold one. Inside quotes `\"` is a quote, and **any other backslash is itself**.

use std::fmt;

/// A line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `#SOFTWAREID "backint 1.04" "HANA …"`: the version of the interface.
    Software(Version),
    /// `#PIPE name [size]`.
    Pipe(String),
    /// `#FILE name [size]`.
    File(String, Option<u64>),
    /// `#EBID ebid [name [destination]]`.
    Ebid(String, Option<String>, Option<String>),
    /// `#NULL [name [destination]]`.
    Null(Option<String>, Option<String>),
    /// An entry that cannot be read, with what could be its name.
    Broken(String),
    /// Something that asks for nothing.
    Comment,
}

/// A version of the interface, such as 1.04 or 1.50.2.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u32>, String);

impl Version {
    /// Reads `1.04`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        Some(Self(numbers.filter(|numbers| numbers.len() >= 2)?, text.to_owned()))
    }

    /// Whether this is at least `major.minor`.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.0.as_slice() >= [major, minor].as_slice()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.1)
    }
}

/// The parameters of a line; `None` if a quote does not end.
pub fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut word = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '\\') if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        word.push('"');
                        chars.next();
                    }
                    (at, '"') => break at,
                    (_, other) => word.push(other),
                }
            };
            words.push(word);
            rest = quoted.get(end + 1..)?;
        } else {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            words.push(rest.get(..end)?.to_owned());
            rest = rest.get(end..)?;
        }
        rest = rest.trim_start_matches([' ', '\t']);
    }
    Some(words)
}

/// A parameter for the output. A backslash at the end cannot stand before a closing quote; then there are none.
pub fn quoted(word: &str) -> String {
    if word.ends_with('\\') && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('"', "\\\""))
}

/// Reads one line.
pub fn line(text: &str) -> Line {
    let text = text.trim_end_matches(['\r', '\n', ' ']);
    let (keyword, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    if !matches!(keyword, "#SOFTWAREID" | "#PIPE" | "#FILE" | "#EBID" | "#NULL") {
        return Line::Comment;
    }
    let Some(words) = words(rest) else { return Line::Broken(rest.trim_matches(['"', ' ']).to_owned()) };
    let mut words = words.into_iter();
    let first = words.next();
    match (keyword, first) {
        ("#SOFTWAREID", Some(id)) => {
            let version = id.rsplit(' ').next().and_then(Version::parse);
            version.map_or(Line::Comment, Line::Software)
        }
        ("#PIPE", Some(name)) if !name.is_empty() => Line::Pipe(name),
        ("#FILE", Some(name)) if !name.is_empty() => {
            Line::File(name, words.next().and_then(|size| size.parse().ok()))
        }
        ("#EBID", Some(ebid)) if !ebid.is_empty() => Line::Ebid(ebid, words.next(), words.next()),
        ("#NULL", first) => Line::Null(first, words.next()),
        ("#SOFTWAREID", _) => Line::Comment,
        _ => Line::Broken(rest.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_interface_are_read() {
        assert_eq!(
            words(r#""/var/tmp/backup Monday cw47 2012""#).unwrap(),
            ["/var/tmp/backup Monday cw47 2012"]
        );
        assert_eq!(
            words(r#""Hb12\"NAB" "/var/tmp/myTool.#YSOwa""#).unwrap(),
            ["Hb12\"NAB", "/var/tmp/myTool.#YSOwa"]
        );
        assert_eq!(words(r#"C:\dir\file "C:\a b\c""#).unwrap(), [r"C:\dir\file", r"C:\a b\c"]);
        assert_eq!(line("#PIPE \"/a b\" 123\r"), Line::Pipe("/a b".to_owned()));
        assert_eq!(line("#FILE /a 12"), Line::File("/a".to_owned(), Some(12)));
        assert_eq!(line("#NULL"), Line::Null(None, None));
        assert_eq!(line("#NULLS x"), Line::Comment);
        assert_eq!(line("#TOOLOPTION \"x"), Line::Comment);
        assert_eq!(line("#PIPE \"/never ends"), Line::Broken("/never ends".to_owned()));
        assert_eq!(line("#PIPE"), Line::Broken(String::new()));
        let Line::Software(version) = line("#SOFTWAREID \"backint 1.04\" \"HANA HDB server 2.00\"") else {
            panic!("no version");
        };
        assert!(version.at_least(1, 0) && version.at_least(1, 4) && !version.at_least(1, 50));
        assert!(Version::parse("1.50.2").unwrap().at_least(1, 50));
        assert!(Version::parse("1.50").unwrap() < Version::parse("1.50.2").unwrap());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(all in prop::collection::vec("[^\n\r\t\\x00]{0,40}", 1..4)) {
            // A name that ends with a backslash and holds a space cannot be written in this grammar.
            prop_assume!(all.iter().all(|word| !word.ends_with('\\')));
            let text: Vec<String> = all.iter().map(|word| quoted(word)).collect();
            prop_assert_eq!(words(&text.join(" ")), Some(all));
        }

        #[test]
        fn a_backslash_at_the_end_survives(word in "[a-z/]{1,8}\\\\") {
            let text = quoted(&word);
            prop_assert_eq!(words(&text), Some(vec![word]));
        }

        #[test]
        fn no_line_is_a_panic(text in ".{0,80}") {
            let _ = line(&text);
            let _ = line(&format!("#PIPE {text}"));
            let _ = line(&format!("#EBID {text}"));
        }
    }
}
