//! A command line of one of HANA's tools, before it is started: what `explain` prints is what the runner starts.
//!
//! A call holds the names of secrets and never their values, so it can be printed and compared.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The user that the program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// As this program itself does.
    Myself,
    /// As `<sid>adm`, with HANA's environment.
    Adm,
}

/// One element of the passwords that hdblcm reads, and the secret that fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// Name of the XML element.
    pub element: &'static str,
    /// Name of the secret.
    pub secret: &'static str,
}

/// A piece of what a program reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// The value of the secret with this name.
    Secret(&'static str),
    /// The same between the quotation marks that SQL wants around a password.
    Quoted(&'static str),
    /// A password between such marks that is made when the program is started, and that nobody knows.
    Random,
}

/// What the program reads on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing: it sees the end at once.
    Nothing,
    /// The passwords of `--read_password_from_stdin=xml`.
    PasswordXml(Vec<Password>),
    /// A text.
    Pieces(Vec<Piece>),
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// Where this command line is documented.
    pub source: &'static str,
    /// Who runs it.
    pub user: As,
    /// The program's path; below the root that the runner has.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: Input,
    /// How long it may take.
    pub timeout: Duration,
}

impl Call {
    /// The same call with another limit of its time.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The command line as a shell would take it.
    pub fn line(&self) -> String {
        let program = self.program.display().to_string();
        let words = std::iter::once(&program).chain(&self.arguments);
        words.map(|word| shell(word)).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = match self.user {
            As::Myself => "root",
            As::Adm => "<sid>adm",
        };
        writeln!(to, "# {} (as {user}, at most {})", self.purpose, span(self.timeout))?;
        writeln!(to, "#   source: {}", self.source)?;
        write!(to, "{}", self.line())?;
        match &self.input {
            Input::Nothing => Ok(()),
            Input::PasswordXml(passwords) => {
                write!(to, "\n#   standard input: XML with")?;
                passwords.iter().try_for_each(|password| {
                    write!(to, " <{}> from the secret {};", password.element, password.secret)
                })
            }
            Input::Pieces(pieces) => {
                write!(to, "\n#   standard input: ")?;
                pieces.iter().try_for_each(|piece| match piece {
                    Piece::Text(text) => {
                        write!(to, "{}", text.trim_end_matches('\n').replace('\n', "\n#                   "))
                    }
                    Piece::Secret(name) => write!(to, "the secret {name}"),
                    Piece::Quoted(name) => write!(to, "\"the secret {name}\""),
                    Piece::Random => write!(to, "\"a password that nobody knows\""),
                })
            }
        }
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=,:@+%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        for (word, shown) in [
            ("-x", "-x"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
            ("ä", "'ä'"),
        ] {
            assert_eq!(shell(word), shown);
        }
    }
}
