//! Statements that change tables and users of a database.

use super::SqlError;
use super::parse::{Expr, expression, list};
use super::select::{compare, truth, value};
use super::words::{Cursor, Word};
use crate::database::{Change, Content, Table, kept};
use serde_json::Value;
use std::cmp::Ordering;

/// What a statement changes; `None`: it is not one that changes tables or users.
///
/// # Errors
/// Those of SQL: 257 syntax, 259 no such table, 260 no such column, 288 the table exists, 301 the key exists.
pub(crate) fn understand(
    cursor: &mut Cursor,
    content: &Content,
) -> Result<Option<(Change, usize)>, SqlError> {
    if cursor.take("CREATE COLUMN TABLE") || cursor.take("CREATE ROW TABLE") || cursor.take("CREATE TABLE") {
        return create(cursor, content).map(|change| Some((change, 0)));
    }
    if cursor.take("DROP TABLE") {
        let (name, _) = table(cursor, content)?;
        cursor.end()?;
        return Ok(Some((Change::Drop(name), 0)));
    }
    if cursor.take("INSERT INTO") {
        return insert(cursor, content).map(Some);
    }
    if cursor.take("DELETE FROM") {
        return delete(cursor, content).map(Some);
    }
    if cursor.take("UPDATE") {
        return update(cursor, content).map(Some);
    }
    if cursor.take("CREATE USER") || cursor.take("ALTER USER") {
        let name = cursor.name()?;
        cursor.expect("PASSWORD")?;
        let password = match cursor.next() {
            Some(Word::Quoted(password)) => password,
            _ => return Err(cursor.wrong()),
        };
        let _forced = cursor.take("NO FORCE_FIRST_PASSWORD_CHANGE");
        cursor.end()?;
        return Ok(Some((Change::User(name, kept(&password)), 0)));
    }
    if cursor.take("DROP USER") {
        let name = cursor.name()?;
        let _all = cursor.take("CASCADE");
        cursor.end()?;
        if !content.users.contains_key(&name) {
            return Err(SqlError::new(332, format!("invalid user name: {name}")));
        }
        return Ok(Some((Change::DropUser(name), 0)));
    }
    Ok(None)
}

fn table<'a>(cursor: &mut Cursor, content: &'a Content) -> Result<(String, &'a Table), SqlError> {
    let (_, name) = cursor.full_name()?;
    match content.tables.get(&name) {
        Some(table) => Ok((name, table)),
        None => Err(SqlError::new(259, format!("invalid table name:  Could not find table/view {name}"))),
    }
}

fn create(cursor: &mut Cursor, content: &Content) -> Result<Change, SqlError> {
    let (_, name) = cursor.full_name()?;
    if content.tables.contains_key(&name) {
        return Err(SqlError::new(288, format!("cannot use duplicate table name: {name}")));
    }
    cursor.expect("(")?;
    let mut table = Table::default();
    loop {
        if cursor.take("PRIMARY KEY") {
            cursor.expect("(")?;
            let column = cursor.name()?;
            table.key = table.columns.iter().position(|other| *other == column);
            cursor.expect(")")?;
        } else {
            table.columns.push(cursor.name()?);
            cursor.name()?;
        }
        loop {
            if cursor.take("(") {
                cursor.skip_brackets()?;
            } else if cursor.take("PRIMARY KEY") {
                table.key = Some(table.columns.len() - 1);
            } else if !cursor.take("NOT NULL") && !cursor.take("NULL") {
                break;
            }
        }
        if !cursor.take(",") {
            break;
        }
    }
    cursor.expect(")")?;
    cursor.end()?;
    Ok(Change::Table(name, table))
}

fn insert(cursor: &mut Cursor, content: &Content) -> Result<(Change, usize), SqlError> {
    let (name, table) = table(cursor, content)?;
    let mut columns = table.columns.clone();
    if cursor.take("(") {
        columns.clear();
        loop {
            columns.push(cursor.name()?);
            if !cursor.take(",") {
                break;
            }
        }
        cursor.expect(")")?;
    }
    let places = columns.iter().map(|column| place(table, column)).collect::<Result<Vec<_>, _>>()?;
    cursor.expect("VALUES")?;
    cursor.expect("(")?;
    let given = list(cursor)?;
    cursor.end()?;
    if given.len() != places.len() {
        return Err(SqlError::new(270, "not enough values"));
    }
    let mut row = vec![Value::Null; table.columns.len()];
    for (place, expr) in places.iter().zip(&given) {
        if let Some(cell) = row.get_mut(*place) {
            *cell = value(expr, &Vec::new(), &[])?;
        }
    }
    let mut rows = table.rows.iter();
    if let Some(key) = table.key
        && let Some(own) = row.get(key)
        && rows.any(|other| other.get(key).is_some_and(|other| compare(own, other) == Ordering::Equal))
    {
        return Err(SqlError::new(301, format!("unique constraint violated: Table({name})")));
    }
    Ok((Change::Insert(name, vec![row]), 1))
}

fn place(table: &Table, column: &str) -> Result<usize, SqlError> {
    let place = table.columns.iter().position(|other| other == column);
    place.ok_or_else(|| SqlError::new(260, format!("invalid column name: {column}")))
}

/// The condition of a statement, as a function of a row.
fn condition(
    cursor: &mut Cursor,
    name: &str,
    table: &Table,
) -> Result<impl Fn(&Vec<Value>) -> Result<bool, SqlError> + use<>, SqlError> {
    let filter: Option<Expr> = if cursor.take("WHERE") { Some(expression(cursor)?) } else { None };
    cursor.end()?;
    let columns: Vec<_> = table.columns.iter().map(|column| (name.to_string(), column.clone())).collect();
    Ok(move |row: &Vec<Value>| match &filter {
        Some(filter) => Ok(truth(&value(filter, &columns, &[row])?)),
        None => Ok(true),
    })
}

fn delete(cursor: &mut Cursor, content: &Content) -> Result<(Change, usize), SqlError> {
    let (name, table) = table(cursor, content)?;
    let fits = condition(cursor, &name, table)?;
    let mut rows = Vec::new();
    for row in &table.rows {
        if !fits(row)? {
            rows.push(row.clone());
        }
    }
    let gone = table.rows.len() - rows.len();
    Ok((Change::Table(name, Table { rows, ..table.clone() }), gone))
}

fn update(cursor: &mut Cursor, content: &Content) -> Result<(Change, usize), SqlError> {
    let (name, table) = table(cursor, content)?;
    cursor.expect("SET")?;
    let mut set = Vec::new();
    loop {
        let place = place(table, &cursor.name()?)?;
        cursor.expect("=")?;
        set.push((place, expression(cursor)?));
        if !cursor.take(",") {
            break;
        }
    }
    let fits = condition(cursor, &name, table)?;
    let columns: Vec<_> = table.columns.iter().map(|column| (name.clone(), column.clone())).collect();
    let mut changed = 0;
    let mut rows = Vec::new();
    for row in &table.rows {
        let mut new = row.clone();
        if fits(row)? {
            changed += 1;
            for (place, expr) in &set {
                if let Some(cell) = new.get_mut(*place) {
                    *cell = value(expr, &columns, &[row])?;
                }
            }
        }
        rows.push(new);
    }
    Ok((Change::Table(name, Table { rows, ..table.clone() }), changed))
}
