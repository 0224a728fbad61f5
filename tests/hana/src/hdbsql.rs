//! `hdbsql`: connects, carries out statements, prints CSV.
//!
//! Exit codes: 0, 2 usage, 3 an error of SQL. With `-E N` the first error ends it with N. Without, an input file (`-I`)
//! goes on behind an error and the last statement decides; a failed logon then ends with 0.

use crate::clock;
use crate::halt::{Ended, Halt};
use crate::root::Root;
use crate::session::{Password, Session, connect, lost};
use crate::sql::{Answer, SqlError};
use crate::userstore;
use serde_json::Value;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};

/// What was asked on the command line.
#[derive(Default)]
struct Options {
    host: Option<String>,
    number: Option<String>,
    port: Option<String>,
    database: Option<String>,
    user: Option<String>,
    password: Option<String>,
    key: Option<String>,
    input: Option<String>,
    output: Option<String>,
    exit: Option<i32>,
    multi_line: bool,
    quiet: bool,
    no_header: bool,
    separator: Option<String>,
    statement: Option<String>,
}

const USAGE: i32 = 2;
const SQL_ERROR: i32 = 3;

fn parse(root: &Root, arguments: &[String]) -> Result<Options, Halt> {
    let mut options = Options::default();
    let mut words: VecDeque<String> = arguments.iter().cloned().collect();
    while let Some(word) = words.pop_front() {
        let mut next = || {
            words.pop_front().ok_or_else(|| Halt::new(USAGE, format!("hdbsql: option {word} needs a value")))
        };
        match word.as_str() {
            "-U" => options.key = Some(next()?),
            "-i" => options.number = Some(next()?),
            "-d" => options.database = Some(next()?),
            "-u" => options.user = Some(next()?),
            "-p" => options.password = Some(next()?),
            "-n" => {
                let node = next()?;
                let (host, port) = node.split_once(':').unwrap_or((&node, ""));
                options.host = Some(host.to_string());
                options.port = (!port.is_empty()).then(|| port.to_string());
            }
            "-I" => options.input = Some(next()?),
            "-o" | "-O" => options.output = Some(next()?),
            "-E" => {
                let code = next()?;
                let code = code.parse().map_err(|_| Halt::new(USAGE, "hdbsql: -E needs a number"))?;
                options.exit = Some(code);
            }
            "-c" | "-F" => options.separator = Some(next()?),
            "-Z" => drop(next()?),
            "-m" => options.multi_line = true,
            "-x" | "-quiet" => options.quiet = true,
            "-a" => options.no_header = true,
            "-j" | "-A" | "-Q" | "-z" | "-e" | "-C" | "-f" | "-g" | "-ssltrustcert" | "-sslcreatecert"
            | "-resultencoding" => {}
            "-stdin" => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                prepend(&mut words, &text);
            }
            "-optionsfile" => {
                let text = fs::read_to_string(root.at(next()?))?;
                prepend(&mut words, &text);
            }
            "-v" => {
                println!("HDBSQL version 2.29.0, the SAP HANA Database interactive terminal.");
                return Err(Halt::new(0, ""));
            }
            _ if word.starts_with('-') => {
                return Err(Halt::new(USAGE, format!("hdbsql: unknown option {word}")));
            }
            // Several words are one statement.
            _ => match &mut options.statement {
                Some(statement) => *statement = format!("{statement} {word}"),
                None => options.statement = Some(word),
            },
        }
    }
    Ok(options)
}

/// Puts the options of a text before the words that are left.
fn prepend(words: &mut VecDeque<String>, text: &str) {
    for word in text.split_whitespace().rev() {
        words.push_front(word.to_string());
    }
}

pub(crate) fn run(root: &Root, arguments: &[String]) -> Ended {
    let options = parse(root, arguments)?;
    let statements = match (&options.statement, &options.input) {
        (Some(statement), _) => vec![statement.clone()],
        // A device is the machine's own, below any root.
        (None, Some(input)) if input.starts_with("/dev/") => {
            split(&fs::read_to_string(input)?, options.multi_line)
        }
        (None, Some(input)) => split(&fs::read_to_string(root.at(input))?, options.multi_line),
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            split(&text, options.multi_line)
        }
    };
    let session = match open(root, &options) {
        Ok(session) => session,
        Err(error) => {
            complain(&error);
            return Ok(options.exit.unwrap_or(0));
        }
    };
    let mut output: Box<dyn Write> = match &options.output {
        Some(path) => Box::new(fs::File::create(root.at(path))?),
        None => Box::new(std::io::stdout()),
    };
    let mut last = 0;
    for statement in &statements {
        let begun = clock::now();
        match carry_out(&session, statement) {
            Ok(answer) => {
                last = 0;
                output.write_all(print(&answer, &options, clock::now() - begun).as_bytes())?;
            }
            Err(error) => {
                output.flush()?;
                complain(&error);
                last = options.exit.unwrap_or(SQL_ERROR);
                if options.exit.is_some() || error.code == lost().code {
                    break;
                }
            }
        }
    }
    Ok(last)
}

fn complain(error: &SqlError) {
    eprintln!("* {}: {}", error.code, error.text);
}

/// Carries out a statement, with the faults of the connection.
fn carry_out(session: &Session, statement: &str) -> Result<Answer, SqlError> {
    let faults = session.root.faults();
    if faults.find("hdbsql-hangs", |text| statement.contains(text)).is_some() {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
    let answer = session.carry_out(statement)?;
    if faults.find("hdbsql-loses", |text| statement.contains(text)).is_some() {
        return Err(lost());
    }
    Ok(answer)
}

/// Where to connect, by options and user store.
fn open(root: &Root, options: &Options) -> Result<Session, SqlError> {
    let failed = |text: String| SqlError::new(-10709, format!("Connection failed (RTE:[{text}])"));
    if root.faults().has("hdbsql-refuses") {
        return Err(failed(
            "89006] System call 'connect' failed, rc=111:Connection refused {127.0.0.1:30013}".into(),
        ));
    }
    let mut host = options.host.clone();
    let mut port = options.port.clone();
    let mut database = options.database.clone();
    let (user, password) = match &options.key {
        Some(key) => {
            let entry = userstore::find(root, key)?
                .ok_or_else(|| SqlError::new(-10104, format!("Invalid value for KEY ({key})")))?;
            let (node, named) = entry.env.split_once('@').unwrap_or((&entry.env, ""));
            let (named_host, named_port) = node.split_once(':').unwrap_or((node, ""));
            host = Some(named_host.to_string());
            port = Some(named_port.to_string());
            if database.is_none() && !named.is_empty() {
                database = Some(named.to_string());
            }
            (entry.user, Password::Kept(entry.kept))
        }
        None => {
            let user = options.user.clone().unwrap_or_default();
            (user, Password::Text(options.password.clone().unwrap_or_default()))
        }
    };
    let host = host.unwrap_or_else(|| "localhost".into());
    let other =
        root.peer(&host).ok_or_else(|| failed(format!("89001] Cannot resolve host name '{host}'")))?;
    let (number, by_port) = match (&port, &options.number) {
        (Some(port), _) if port.len() == 5 && port.is_ascii() => {
            let number = port.get(1..3).unwrap_or_default().to_string();
            let system = crate::system::numbered(&other, &number)?;
            let databases = system.iter().flat_map(|system| {
                system.databases().into_iter().map(|known| (system.sql_port(&known.name), known.name))
            });
            let named = databases.into_iter().find(|(known, _)| known == port).map(|(_, name)| name);
            (number, named)
        }
        (_, Some(number)) => (number.clone(), None),
        _ => ("00".to_string(), None),
    };
    // A database that is named goes before that of the port: SYSTEMDB passes connections on.
    let database = database.or(by_port).unwrap_or_else(|| "SYSTEMDB".into());
    connect(&other, &number, &database, &user, &password)
}

/// Statements of an input: a line each, or with `-m` up to a semicolon.
fn split(text: &str, multi_line: bool) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut quote = None;
    for letter in text.chars() {
        let ends = if multi_line { letter == ';' } else { letter == '\n' };
        if ends && quote.is_none() {
            statements.push(std::mem::take(&mut statement));
            continue;
        }
        match quote {
            Some(open) if open == letter => quote = None,
            None if multi_line && ['\'', '"'].contains(&letter) => quote = Some(letter),
            _ => {}
        }
        statement.push(letter);
    }
    statements.push(statement);
    statements.into_iter().map(|one| one.trim().to_string()).filter(|one| !one.is_empty()).collect()
}

fn print(answer: &Answer, options: &Options, micros: i64) -> String {
    let separator = options.separator.as_deref().unwrap_or(",");
    let mut text = String::new();
    let (count, word) = match answer {
        Answer::Rows(columns, rows) => {
            if !options.no_header {
                text += &(columns.join(separator) + "\n");
            }
            for row in rows {
                let cells: Vec<String> = row.iter().map(cell).collect();
                text += &(cells.join(separator) + "\n");
            }
            (rows.len(), "selected")
        }
        Answer::Changed(rows) => (*rows, "affected"),
    };
    if !options.quiet {
        let noun = if count == 1 { "row" } else { "rows" };
        let time = format!("{}.{:03} msec", micros / 1000, micros % 1000);
        text += &format!("{count} {noun} {word} (overall time {time}; server time {} usec)\n\n", micros / 2);
    }
    text
}

/// A text in quotes, a number bare, NULL as `?`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "?".into(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::Bool(truth) => if *truth { "TRUE" } else { "FALSE" }.into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_at_the_line_or_with_m_at_the_semicolon() {
        assert_eq!(split("SELECT 1;\nSELECT\n2", false), ["SELECT 1;", "SELECT", "2"]);
        assert_eq!(split("SELECT\n1;INSERT ';' X;\n", true), ["SELECT\n1", "INSERT ';' X"]);
    }
}
