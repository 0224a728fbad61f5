//! Words of SQL, and a cursor over them.

use super::SqlError;

/// A word: unquoted names are in capitals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    Name(String),
    /// In double quotes.
    Quoted(String),
    Text(String),
    Number(String),
    Sign(String),
}

/// Splits a statement. Comments (`--`) are left out.
pub(crate) fn split(text: &str) -> Result<Vec<Word>, SqlError> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            _ if first.is_whitespace() => {}
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|letter| *letter != '\n').is_some() {},
            '\'' | '"' => {
                let mut inner = String::new();
                loop {
                    match rest.next() {
                        Some(letter) if letter == first => match rest.next_if_eq(&first) {
                            Some(doubled) => inner.push(doubled),
                            None => break,
                        },
                        Some(letter) => inner.push(letter),
                        None => return Err(SqlError::syntax("<EOF>")),
                    }
                }
                words.push(if first == '"' { Word::Quoted(inner) } else { Word::Text(inner) });
            }
            _ if first.is_ascii_digit() => {
                let mut number = String::from(first);
                while let Some(digit) = rest.next_if(|letter| letter.is_ascii_digit() || *letter == '.') {
                    number.push(digit);
                }
                words.push(Word::Number(number));
            }
            _ if first.is_alphabetic() || first == '_' => {
                let mut name = String::from(first);
                let goes_on = |letter: &char| letter.is_alphanumeric() || ['_', '#', '$'].contains(letter);
                while let Some(letter) = rest.next_if(goes_on) {
                    name.push(letter);
                }
                words.push(Word::Name(name.to_uppercase()));
            }
            _ => {
                let mut sign = String::from(first);
                let two =
                    |next: &char| ["<>", "<=", ">=", "!=", "||"].contains(&format!("{first}{next}").as_str());
                if let Some(second) = rest.next_if(two) {
                    sign.push(second);
                }
                words.push(Word::Sign(sign));
            }
        }
    }
    while words.last() == Some(&Word::Sign(";".into())) {
        words.pop();
    }
    Ok(words)
}

/// Reads words one after the other.
pub(crate) struct Cursor {
    words: Vec<Word>,
    place: usize,
}

impl Cursor {
    pub(crate) fn new(text: &str) -> Result<Self, SqlError> {
        Ok(Self { words: split(text)?, place: 0 })
    }

    pub(crate) fn peek(&self) -> Option<&Word> {
        self.words.get(self.place)
    }

    pub(crate) fn next(&mut self) -> Option<Word> {
        let word = self.peek().cloned();
        self.place += 1;
        word
    }

    /// Takes the words of the phrase if they come next, all or none: `phrase` is in capitals, signs apart.
    pub(crate) fn take(&mut self, phrase: &str) -> bool {
        let mut place = self.place;
        for part in phrase.split(' ') {
            let fits = match self.words.get(place) {
                Some(Word::Name(name)) => name == part,
                Some(Word::Sign(sign)) => sign == part,
                _ => false,
            };
            if !fits {
                return false;
            }
            place += 1;
        }
        self.place = place;
        true
    }

    pub(crate) fn expect(&mut self, phrase: &str) -> Result<(), SqlError> {
        if self.take(phrase) { Ok(()) } else { Err(self.wrong()) }
    }

    pub(crate) fn end(&self) -> Result<(), SqlError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.wrong()) }
    }

    pub(crate) fn name(&mut self) -> Result<String, SqlError> {
        match self.next() {
            Some(Word::Name(name) | Word::Quoted(name)) => Ok(name),
            _ => Err(self.wrong_before()),
        }
    }

    /// A name with an optional schema: `SYS.M_DATABASES`.
    pub(crate) fn full_name(&mut self) -> Result<(Option<String>, String), SqlError> {
        let first = self.name()?;
        if self.take(".") { Ok((Some(first), self.name()?)) } else { Ok((None, first)) }
    }

    /// A text in single quotes.
    pub(crate) fn text(&mut self) -> Result<String, SqlError> {
        match self.next() {
            Some(Word::Text(text)) => Ok(text),
            _ => Err(self.wrong_before()),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, SqlError> {
        match self.next() {
            Some(Word::Number(number)) => number.parse().map_err(|_| self.wrong_before()),
            _ => Err(self.wrong_before()),
        }
    }

    /// Skips to the sign `)` that closes what was opened.
    pub(crate) fn skip_brackets(&mut self) -> Result<(), SqlError> {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Word::Sign(sign)) if sign == "(" => depth += 1,
                Some(Word::Sign(sign)) if sign == ")" => depth -= 1,
                Some(_) => {}
                None => return Err(self.wrong()),
            }
        }
        Ok(())
    }

    pub(crate) fn wrong(&self) -> SqlError {
        SqlError::syntax(&near(self.peek()))
    }

    fn wrong_before(&self) -> SqlError {
        SqlError::syntax(&near(self.words.get(self.place.saturating_sub(1))))
    }
}

fn near(word: Option<&Word>) -> String {
    match word {
        Some(
            Word::Name(text) | Word::Quoted(text) | Word::Text(text) | Word::Number(text) | Word::Sign(text),
        ) => text.clone(),
        None => "<EOF>".into(),
    }
}
