//! The lines that SAP HANA and an agent exchange.
//!
//! One entry a line, its keyword first; what has no known keyword is a comment. Parameters stand between spaces, in
//! quotes if they hold one. Inside quotes `\"` is a quote, and **any other backslash is itself**.
//!
//! What begins with a known keyword and is not exactly an entry of the function that is called is an error: a backup
//! that is asked for in words that nobody understood must not look as if it was not asked for.

use std::fmt;

use super::Function;

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

/// The parameters of a line; `None` if a quote does not end, or something follows it without a space.
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
            if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
                return None;
            }
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

/// Reads one line of a call of this function.
///
/// # Errors
/// What is wrong with it.
pub fn line(function: Function, text: &str) -> Result<Line, String> {
    let text = text.trim_end_matches(['\r', '\n', ' ', '\t']);
    let (keyword, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    // How many parameters each has, and which functions know it.
    use Function::{Backup, Delete, Inquire, Restore};
    let (least, most, functions): (usize, usize, &[Function]) = match (keyword, function) {
        ("#SOFTWAREID", _) => (1, 2, &[Backup, Restore, Inquire, Delete]),
        ("#TOOLOPTION", _) => (1, usize::MAX, &[Backup, Restore, Inquire, Delete]),
        ("#PIPE" | "#FILE", _) => (1, 2, &[Backup]),
        ("#EBID", Inquire) => (1, 2, &[Inquire]),
        ("#EBID", Delete) => (2, 2, &[Delete]),
        ("#EBID", _) => (2, 3, &[Restore]),
        ("#NULL", Inquire) => (0, 1, &[Inquire]),
        ("#NULL", _) => (1, 2, &[Restore]),
        _ => return Ok(Line::Comment),
    };
    if !functions.contains(&function) {
        return Err(format!("{keyword} does not belong to this function"));
    }
    let words = words(rest).ok_or_else(|| format!("a quote in {keyword} does not end, or not at a space"))?;
    if words.len() < least {
        return Err(format!("{keyword} lacks what it needs: {} of {least} parameters", words.len()));
    }
    if words.len() > most {
        return Err(format!("{keyword} has {} parameters, {most} at most", words.len()));
    }
    let mut words = words.into_iter();
    let first = words.next();
    // A destination may be empty: that is none.
    if first.as_ref().is_some_and(String::is_empty) {
        return Err(format!("the first parameter of {keyword} is empty"));
    }
    let (first, second) = match (first, words.next()) {
        (Some(first), second) => (first, second),
        (None, _) => return Ok(Line::Null(None, None)),
    };
    let size = |text: Option<String>| {
        let number = |text: String| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| plain).ok_or(format!("the size `{text}` is no whole number"))
        };
        text.map(number).transpose()
    };
    Ok(match keyword {
        "#SOFTWAREID" => {
            let version = first.strip_prefix("backint ").and_then(Version::parse);
            Line::Software(version.ok_or_else(|| format!("`{first}` is no version of Backint"))?)
        }
        "#PIPE" => {
            size(second)?;
            Line::Pipe(first)
        }
        "#FILE" => Line::File(first, size(second)?),
        "#EBID" => {
            if second.as_ref().is_some_and(String::is_empty) {
                return Err("the second parameter of #EBID is empty".to_owned());
            }
            Line::Ebid(first, second, words.next())
        }
        "#NULL" => Line::Null(Some(first), second),
        _ => Line::Comment,
    })
}

/// Reads a whole input.
///
/// # Errors
/// What is wrong with the first line that cannot be understood, with its number.
pub fn lines(function: Function, text: &[u8]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (at, text) in text.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |why: String| format!("line {}: {why}", at + 1);
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        if text.contains('\0') {
            return Err(wrong("it holds a zero byte".to_owned()));
        }
        lines.push(line(function, text).map_err(wrong)?);
    }
    Ok(lines)
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
        let line = |text| line(Function::Backup, text);
        assert_eq!(line("#PIPE \"/a b\" 123\r"), Ok(Line::Pipe("/a b".to_owned())));
        assert_eq!(line("#FILE /a 12"), Ok(Line::File("/a".to_owned(), Some(12))));
        assert_eq!(super::line(Function::Inquire, "#NULL"), Ok(Line::Null(None, None)));
        assert_eq!(line("#NULLS x"), Ok(Line::Comment));
        let Ok(Line::Software(version)) = line("#SOFTWAREID \"backint 1.04\" \"HANA HDB server 2.00\"")
        else {
            panic!("no version");
        };
        assert!(version.at_least(1, 0) && version.at_least(1, 4) && !version.at_least(1, 50));
        assert!(Version::parse("1.50.2").unwrap().at_least(1, 50));
        assert!(Version::parse("1.50").unwrap() < Version::parse("1.50.2").unwrap());
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_its_line() {
        use Function::{Backup, Delete, Inquire, Restore};
        for (function, bad) in [
            (Backup, "#PIPE"),
            (Backup, "#FILE"),
            (Backup, "#PIPE \"\""),
            (Backup, "#PIPE \"/never ends"),
            (Backup, "#PIPE \"/a\"b"),
            (Backup, "#PIPE /a ten"),
            (Backup, "#FILE /a 1.5"),
            (Backup, "#FILE /a -1"),
            (Backup, "#FILE /a +1"),
            (Backup, "#FILE /a 99999999999999999999"),
            (Backup, "#PIPE /a 1 2"),
            (Backup, "#EBID 1 /a"),
            (Backup, "#NULL /a"),
            (Backup, "#SOFTWAREID"),
            (Backup, "#SOFTWAREID \"backint x\" \"HANA\""),
            (Backup, "#TOOLOPTION \"x"),
            (Restore, "#PIPE /a"),
            (Restore, "#NULL"),
            (Restore, "#EBID 1"),
            (Restore, "#EBID 1 /a /b /c"),
            (Delete, "#EBID 1"),
            (Delete, "#NULL /a"),
            (Inquire, "#EBID"),
            (Inquire, "#NULL /a /b"),
        ] {
            let text = format!("a comment\n#PIPES\n{bad}\n");
            assert!(
                lines(function, text.as_bytes()).unwrap_err().starts_with("line 3: "),
                "{function:?} {bad}"
            );
        }
        assert!(lines(Backup, b"#PIPE /a\n#PIPE /\xff\n").unwrap_err().starts_with("line 2: "));
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
            for function in [Function::Backup, Function::Restore, Function::Inquire, Function::Delete] {
                for keyword in ["", "#PIPE ", "#FILE ", "#EBID ", "#NULL ", "#SOFTWAREID ", "#TOOLOPTION "] {
                    let _ = line(function, &format!("{keyword}{text}"));
                }
            }
        }
    }
}
