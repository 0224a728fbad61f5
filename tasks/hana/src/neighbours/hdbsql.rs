//! `hdbsql`: one SQL statement a call, as the user of a key in the user store of `<sid>adm`.
//!
//! Two traps are closed here. Without `-E` the exit code of hdbsql says nothing, and a report shows 0 even after a
//! logon that failed; so each call has `-E`, and the output is searched for errors as well.

use std::time::Duration;

use crate::call::{As, Call, Input, Piece};
use crate::error::{Error, Reading, quoted, unclear};
use crate::runner::Outcome;
use crate::system::System;

/// The exit codes with `-E`. Source: community.sap_libs plugins/modules/sap_hdbsql.py, pull request 42.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Okay,
    /// 1: a general error, such as a connection that failed.
    Error,
    /// 2: an option is wrong.
    Usage,
    /// 3: the statement failed.
    SqlError,
    /// 4: a variable is wrong.
    Variable,
    /// Any other: not documented.
    Undocumented(i32),
}

impl From<i32> for Exit {
    fn from(code: i32) -> Self {
        match code {
            0 => Self::Okay,
            1 => Self::Error,
            2 => Self::Usage,
            3 => Self::SqlError,
            4 => Self::Variable,
            code => Self::Undocumented(code),
        }
    }
}

/// A name in the user store: what stands behind `-U`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if text.len() > 64 || !begins || !text.bytes().all(letter) {
            return Err("a key is 1 to 64 letters, digits and underscores".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// How long a statement may take that only asks. The manual names no limit; what is asked takes seconds.
const QUERY: Duration = Duration::from_secs(120);

/// One statement in SYSTEMDB, within the time of a query: [`Call::within`] for what takes longer.
pub fn statement(
    system: &System,
    key: &Key,
    purpose: &'static str,
    source: &'static str,
    sql: String,
) -> Call {
    // Options: the help text of hdbsql 2.29, in community.sap_libs plugins/modules/sap_hdbsql.py.
    let arguments = vec![
        "-U".to_owned(), // the key in the user store, so that no password is an argument
        key.as_str().to_owned(),
        "-E".to_owned(), // stop at the first error, and end with 3 then
        "3".to_owned(),
        "-x".to_owned(), // without statistics
        "-j".to_owned(), // without a pager
        sql,
    ];
    let program = system.exe().join("hdbsql");
    Call { purpose, source, user: As::Adm, program, arguments, input: Input::Nothing, timeout: QUERY }
}

/// One statement that holds a secret: it is read from standard input, so that it is no argument. It ends with a newline.
pub fn secret_statement(
    system: &System,
    key: &Key,
    purpose: &'static str,
    source: &'static str,
    pieces: Vec<Piece>,
) -> Call {
    let mut call = statement(system, key, purpose, source, String::new()).within(Duration::from_secs(300));
    call.arguments.pop();
    // -I: a file with statements; with -E it ends at the first error.
    call.arguments.extend(["-I", "/dev/stdin"].map(str::to_owned));
    call.input = Input::Pieces(pieces);
    call
}

/// The same statement in a tenant, with a key that leads to SYSTEMDB's port or to the tenant's own.
pub fn in_database(mut call: Call, database: &str) -> Call {
    // -d: the database, whatever the key says
    let at = call.arguments.len().saturating_sub(1);
    call.arguments.splice(at..at, ["-d".to_owned(), database.to_owned()]);
    call
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An error that the database or the client reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// Such as 10 (logon), 258 (privilege), 447 (backup), -10709 (connection).
    pub code: i32,
    /// The rest of its line.
    pub text: String,
}

/// The errors in an output: lines such as `* 258: insufficient privilege`.
pub fn errors(text: &str) -> Vec<SqlError> {
    let one = |line: &str| {
        let (code, text) = line.strip_prefix("* ")?.split_once(':')?;
        Some(SqlError { code: code.trim().parse().ok()?, text: text.trim().to_owned() })
    };
    text.lines().filter_map(one).collect()
}

/// The code of the first error.
pub fn first_error(outcome: &Outcome) -> Option<i32> {
    errors(&outcome.err).into_iter().chain(errors(&outcome.out)).next().map(|error| error.code)
}

/// Whether the first error is the client's own, such as a connection that broke: nothing is known of the statement then.
pub fn is_connection_error(outcome: &Outcome) -> bool {
    first_error(outcome).is_some_and(|code| code < 0)
}

/// A row: a cell for each column, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// Whether the statement was carried out.
///
/// # Errors
/// `Tool` with the first SQL error; `Unclear` when the call ended in another way than the documented ones.
pub fn check(outcome: &Outcome) -> Result<(), Error> {
    let found = errors(&outcome.err).into_iter().chain(errors(&outcome.out)).next();
    if let Some(SqlError { code, text }) = found {
        let text: String = text.chars().take(300).collect();
        return Err(Error::Tool(format!("SQL error {code}: {text}")));
    }
    match Exit::from(outcome.code()?) {
        Exit::Okay => Ok(()),
        exit => {
            let printed = if outcome.err.trim().is_empty() { outcome.out.trim() } else { outcome.err.trim() };
            Err(Error::Unclear(format!("hdbsql ended with {exit:?} and printed {}", quoted(printed))))
        }
    }
}

/// The rows of a query, when they have these columns.
pub fn rows(outcome: &Outcome, columns: &[&str]) -> Result<Vec<Row>, Error> {
    check(outcome)?;
    Ok(table(&outcome.out, columns)?)
}

/// The one value of a query with one row and one column, whatever its name.
pub fn value(outcome: &Outcome) -> Result<Option<String>, Error> {
    check(outcome)?;
    Ok(one_value(&outcome.out)?)
}

/// Reads CSV with a header, one row and one column.
pub fn one_value(text: &str) -> Reading<Option<String>> {
    match records(text)?.as_slice() {
        [head, row] => match (head.as_slice(), row.as_slice()) {
            ([_], [value]) => Ok(value.clone()),
            _ => unclear("a query returned more than one column"),
        },
        rows => unclear(format!("a query returned {} rows and not one", rows.len().saturating_sub(1))),
    }
}

/// Reads CSV with a header. Unquoted `?` is NULL.
pub fn table(text: &str, columns: &[&str]) -> Reading<Vec<Row>> {
    let mut lines = records(text)?.into_iter();
    let header = lines.next().unwrap_or_default();
    let named = header.iter().map(|cell| cell.as_deref().unwrap_or_default());
    if !named.eq(columns.iter().copied()) {
        return unclear(format!(
            "hdbsql printed {} and not the columns {}",
            quoted(text.lines().next().unwrap_or_default()),
            columns.join(",")
        ));
    }
    let rows: Vec<Row> = lines.collect();
    match rows.iter().position(|row| row.len() != columns.len()) {
        Some(at) => unclear(format!("row {} of hdbsql has not {} cells", at + 1, columns.len())),
        None => Ok(rows),
    }
}

fn records(text: &str) -> Reading<Vec<Row>> {
    let mut records = Vec::new();
    let mut rest = text.trim_start_matches(['\r', '\n']);
    while !rest.is_empty() {
        let mut row = Vec::new();
        loop {
            let (cell, after) = cell(rest)?;
            row.push(cell);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.trim_start_matches(['\r', '\n']);
                    break;
                }
            }
        }
        records.push(row);
    }
    Ok(records)
}

/// One cell, and what follows it: a comma, a line's end, or nothing.
fn cell(text: &str) -> Reading<(Option<String>, &str)> {
    let Some(quoted_text) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let (cell, after) = text.split_at(end);
        let cell = cell.trim_end_matches('\r');
        if cell.contains('"') {
            return unclear(format!("a quotation mark inside of {}", quoted(cell)));
        }
        return Ok(((cell != "?").then(|| cell.to_owned()), after));
    };
    let mut value = String::new();
    let mut rest = quoted_text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return unclear("a quoted cell of hdbsql does not end");
        };
        value.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            value.push('"');
            rest = more;
            continue;
        }
        return match after.chars().next() {
            None | Some(',' | '\n' | '\r') => Ok((Some(value), after)),
            Some(_) => unclear(format!(
                "a quoted cell is followed by {}",
                quoted(after.lines().next().unwrap_or_default())
            )),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::End;

    fn outcome(code: i32, out: &str, err: &str) -> Outcome {
        Outcome { end: End::Code(code), out: out.to_owned(), err: err.to_owned(), cut: false }
    }

    #[test]
    fn the_one_value_of_a_query() {
        let of = |text: &str| value(&outcome(0, text, ""));
        assert_eq!(of("N\n3\n").unwrap().as_deref(), Some("3"));
        assert_eq!(of("\"N\"\n?\n").unwrap(), None);
        for odd in ["", "N\n", "N\n1\n2\n", "N,M\n1,2\n"] {
            assert!(of(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn every_documented_exit_code() {
        for (code, exit) in [
            (0, Exit::Okay),
            (1, Exit::Error),
            (2, Exit::Usage),
            (3, Exit::SqlError),
            (4, Exit::Variable),
            (43, Exit::Undocumented(43)),
        ] {
            assert_eq!(Exit::from(code), exit);
            assert_eq!(check(&outcome(code, "", "")).is_ok(), code == 0);
        }
    }

    #[test]
    fn a_failed_logon_with_exit_code_zero_is_a_failure() {
        let logon = "* 10: authentication failed: Detailed info for this error can be found with correlation ID \
                     'ABC' SQLSTATE: 28000\n";
        for (out, err) in [("", logon), (logon, "")] {
            let Err(Error::Tool(text)) = check(&outcome(0, out, err)) else { panic!() };
            assert!(text.starts_with("SQL error 10: authentication failed"), "{text}");
        }
        let lost = "* -10709: Connection failed (RTE:[89006] System call 'connect' failed)\n";
        assert_eq!(errors(lost)[0].code, -10709);
        assert!(errors("* nothing: else\n*10: x\n * 10: x\n** 10: x\n").is_empty());
        assert!(is_connection_error(&outcome(1, "", lost)) && !is_connection_error(&outcome(3, "", logon)));
        let end = Outcome { end: End::TimedOut, ..outcome(0, "", "") };
        assert!(matches!(check(&end), Err(Error::Unclear(_))));
        let end = Outcome { cut: true, ..outcome(0, "", "") };
        assert!(matches!(check(&end), Err(Error::Unclear(_))));
    }

    #[test]
    fn tables() {
        let text = "DATABASE_NAME,ACTIVE_STATUS,NOTE\n\"HDB\",\"YES\",?\n\"A,\"\"B\",\"two\nlines\",42\n";
        let rows = table(text, &["DATABASE_NAME", "ACTIVE_STATUS", "NOTE"]).unwrap();
        assert_eq!(rows[0], [Some("HDB".to_owned()), Some("YES".to_owned()), None]);
        assert_eq!(rows[1], [Some("A,\"B".to_owned()), Some("two\nlines".to_owned()), Some("42".to_owned())]);
        assert_eq!(table("\"A\"\r\n\"?\"\r\n", &["A"]).unwrap(), [[Some("?".to_owned())]]);
        assert!(table("A\n", &["A"]).unwrap().is_empty());
        for odd in [
            "",
            "B\n1\n",
            "A,B\n1,2\n",
            "A\n1,2\n",
            "A\n\"x\n",
            "A\n\"x\"y\n",
            "A\nx\"y\n",
            "A\n1\n1 row selected,\n",
        ] {
            assert!(table(odd, &["A"]).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn keys_and_literals() {
        for good in ["HOSTLER", "A", "key_1"] {
            assert!(good.parse::<Key>().is_ok());
        }
        for bad in ["", "-U", "a b", "_x", "a;b", &"x".repeat(65)] {
            assert!(bad.parse::<Key>().is_err());
        }
        assert_eq!(literal("it's"), "'it''s'");
    }
}
