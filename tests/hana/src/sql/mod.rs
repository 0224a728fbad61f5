//! The subset of SQL that the stand-ins take. What is not in it is a syntax error, never a guess.
//!
//! Statements: CREATE TABLE, DROP TABLE, INSERT, UPDATE, DELETE, SELECT with joins, queries in brackets, UNION ALL,
//! grouping, order and limit, CREATE, ALTER and DROP USER, and the statements of administration (`crate::statements`).

pub(crate) mod change;
pub(crate) mod parse;
pub(crate) mod select;
pub(crate) mod words;

/// An error of SQL: its code, its text, as hdbsql prints them.
#[derive(Debug, PartialEq)]
pub(crate) struct SqlError {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl SqlError {
    pub(crate) fn new(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn syntax(near: &str) -> Self {
        Self::new(257, format!("sql syntax error: incorrect syntax near \"{near}\""))
    }
}

impl From<crate::halt::Halt> for SqlError {
    fn from(halt: crate::halt::Halt) -> Self {
        Self::new(2, format!("general error: {}", halt.said))
    }
}

/// What a statement gives.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Names of the columns, and the rows.
    Rows(Vec<String>, Vec<Vec<serde_json::Value>>),
    /// So many rows were changed.
    Changed(usize),
}

pub(crate) type Answered = Result<Answer, SqlError>;
