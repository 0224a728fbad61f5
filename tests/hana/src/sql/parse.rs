//! Expressions and SELECT: what was written, as a tree.

use super::SqlError;
use super::words::{Cursor, Word};
use serde_json::Value;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Value(Value),
    /// A column, with its table's alias if one was written.
    Column(Option<String>, String),
    /// A function; `COUNT(*)` has no arguments.
    Call(String, Vec<Expr>),
    /// Two operands.
    Two(String, Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    Like(Box<Expr>, Box<Expr>),
}

/// A table, a view, or a query in brackets that is read.
#[derive(Debug, PartialEq)]
pub(crate) struct Source {
    /// The query; it has no name then.
    pub(crate) query: Option<Box<Select>>,
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) alias: String,
    /// Keep a row of the left side that finds no partner?
    pub(crate) left: bool,
    pub(crate) on: Option<Expr>,
}

/// A SELECT.
#[derive(Debug, PartialEq)]
pub(crate) struct Select {
    pub(crate) distinct: bool,
    /// Expressions with their names; empty for `*`.
    pub(crate) items: Vec<(Expr, String)>,
    pub(crate) sources: Vec<Source>,
    pub(crate) filter: Option<Expr>,
    pub(crate) group: Vec<Expr>,
    /// With `true` for descending.
    pub(crate) order: Vec<(Expr, bool)>,
    pub(crate) limit: Option<u64>,
    /// What follows UNION ALL; order and limit are then of all of it.
    pub(crate) union: Vec<Select>,
}

const AGGREGATES: [&str; 4] = ["COUNT", "MAX", "MIN", "SUM"];

impl Expr {
    /// Does it count, add or choose over rows?
    pub(crate) fn aggregates(&self) -> bool {
        match self {
            Self::Call(name, inner) => {
                AGGREGATES.contains(&name.as_str()) || inner.iter().any(Self::aggregates)
            }
            Self::Two(_, one, other) | Self::Like(one, other) => one.aggregates() || other.aggregates(),
            Self::Not(inner) | Self::IsNull(inner) | Self::In(inner, _) => inner.aggregates(),
            Self::Value(_) | Self::Column(..) => false,
        }
    }
}

/// Reads a SELECT; its first word is taken already.
pub(crate) fn select(cursor: &mut Cursor) -> Result<Select, SqlError> {
    let select = query(cursor)?;
    cursor.end()?;
    Ok(select)
}

/// A SELECT that may stand in brackets, with what UNION ALL adds.
fn query(cursor: &mut Cursor) -> Result<Select, SqlError> {
    let mut select = branch(cursor)?;
    while cursor.take("UNION ALL") {
        cursor.expect("SELECT")?;
        select.union.push(branch(cursor)?);
    }
    if cursor.take("ORDER BY") {
        loop {
            let by = expression(cursor)?;
            let down = cursor.take("DESC");
            let _up = !down && cursor.take("ASC");
            select.order.push((by, down));
            if !cursor.take(",") {
                break;
            }
        }
    }
    if cursor.take("LIMIT") {
        select.limit = Some(cursor.number()?);
    }
    Ok(select)
}

/// A SELECT without order and limit.
fn branch(cursor: &mut Cursor) -> Result<Select, SqlError> {
    let top = if cursor.take("TOP") { Some(cursor.number()?) } else { None };
    let distinct = cursor.take("DISTINCT");
    let mut items = Vec::new();
    if !cursor.take("*") {
        loop {
            let expr = expression(cursor)?;
            let plain = match &expr {
                Expr::Column(_, name) => name.clone(),
                Expr::Call(name, inner) if inner.is_empty() => format!("{name}(*)"),
                Expr::Call(name, inner) => match inner.as_slice() {
                    [Expr::Column(_, column)] => format!("{name}({column})"),
                    _ => name.clone(),
                },
                _ => format!("COLUMN_{}", items.len() + 1),
            };
            let named = cursor.take("AS") || matches!(cursor.peek(), Some(Word::Quoted(_)));
            items.push((expr, if named { cursor.name()? } else { plain }));
            if !cursor.take(",") {
                break;
            }
        }
    }
    cursor.expect("FROM")?;
    let mut sources = vec![source(cursor, false)?];
    loop {
        let left = cursor.take("LEFT OUTER JOIN") || cursor.take("LEFT JOIN");
        if !left && !cursor.take("INNER JOIN") && !cursor.take("JOIN") {
            break;
        }
        let mut joined = source(cursor, left)?;
        cursor.expect("ON")?;
        joined.on = Some(expression(cursor)?);
        sources.push(joined);
    }
    let filter = if cursor.take("WHERE") { Some(expression(cursor)?) } else { None };
    let mut group = Vec::new();
    if cursor.take("GROUP BY") {
        group.push(expression(cursor)?);
        while cursor.take(",") {
            group.push(expression(cursor)?);
        }
    }
    let order = Vec::new();
    Ok(Select { distinct, items, sources, filter, group, order, limit: top, union: Vec::new() })
}

fn source(cursor: &mut Cursor, left: bool) -> Result<Source, SqlError> {
    const AFTER: [&str; 9] = ["WHERE", "GROUP", "ORDER", "LIMIT", "LEFT", "INNER", "JOIN", "ON", "UNION"];
    let mut inner = None;
    let (schema, name) = if cursor.take("(") {
        cursor.expect("SELECT")?;
        inner = Some(Box::new(query(cursor)?));
        cursor.expect(")")?;
        (None, String::new())
    } else {
        cursor.full_name()?
    };
    let named = match cursor.peek() {
        Some(Word::Name(next)) => !AFTER.contains(&next.as_str()),
        Some(Word::Quoted(_)) => true,
        _ => false,
    };
    let _as = named && cursor.take("AS");
    let alias = if named { cursor.name()? } else { name.clone() };
    Ok(Source { query: inner, schema, name, alias, left, on: None })
}

/// Reads an expression, OR binding weakest.
pub(crate) fn expression(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    let mut left = conjunction(cursor)?;
    while cursor.take("OR") {
        left = two("OR", left, conjunction(cursor)?);
    }
    Ok(left)
}

fn two(operator: &str, left: Expr, right: Expr) -> Expr {
    Expr::Two(operator.into(), Box::new(left), Box::new(right))
}

fn conjunction(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    let mut left = comparison(cursor)?;
    while cursor.take("AND") {
        left = two("AND", left, comparison(cursor)?);
    }
    Ok(left)
}

fn comparison(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    if cursor.take("NOT") {
        return Ok(Expr::Not(Box::new(comparison(cursor)?)));
    }
    let left = sum(cursor)?;
    for operator in ["=", "<>", "!=", "<=", ">=", "<", ">"] {
        if cursor.take(operator) {
            let operator = if operator == "!=" { "<>" } else { operator };
            return Ok(two(operator, left, sum(cursor)?));
        }
    }
    if cursor.take("IS") {
        let not = cursor.take("NOT");
        cursor.expect("NULL")?;
        return Ok(negated(not, Expr::IsNull(Box::new(left))));
    }
    let not = cursor.take("NOT");
    if cursor.take("IN") {
        cursor.expect("(")?;
        return Ok(negated(not, Expr::In(Box::new(left), list(cursor)?)));
    }
    if cursor.take("LIKE") {
        return Ok(negated(not, Expr::Like(Box::new(left), Box::new(sum(cursor)?))));
    }
    if cursor.take("BETWEEN") {
        let low = two(">=", left.clone(), sum(cursor)?);
        cursor.expect("AND")?;
        return Ok(negated(not, two("AND", low, two("<=", left, sum(cursor)?))));
    }
    if not { Err(cursor.wrong()) } else { Ok(left) }
}

fn negated(not: bool, inner: Expr) -> Expr {
    if not { Expr::Not(Box::new(inner)) } else { inner }
}

fn sum(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    let mut left = product(cursor)?;
    'more: loop {
        for operator in ["+", "-", "||"] {
            if cursor.take(operator) {
                left = two(operator, left, product(cursor)?);
                continue 'more;
            }
        }
        return Ok(left);
    }
}

fn product(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    let mut left = operand(cursor)?;
    'more: loop {
        for operator in ["*", "/"] {
            if cursor.take(operator) {
                left = two(operator, left, operand(cursor)?);
                continue 'more;
            }
        }
        return Ok(left);
    }
}

fn operand(cursor: &mut Cursor) -> Result<Expr, SqlError> {
    if cursor.take("(") {
        let inner = expression(cursor)?;
        cursor.expect(")")?;
        return Ok(inner);
    }
    if cursor.take("-") {
        return Ok(two("-", Expr::Value(0.into()), operand(cursor)?));
    }
    if cursor.take("NULL") {
        return Ok(Expr::Value(Value::Null));
    }
    match cursor.peek().cloned() {
        Some(Word::Text(text)) => {
            cursor.next();
            Ok(Expr::Value(text.into()))
        }
        Some(Word::Number(number)) => {
            cursor.next();
            let value = serde_json::from_str(&number).map_err(|_| SqlError::syntax(&number))?;
            Ok(Expr::Value(value))
        }
        Some(Word::Name(_)) => match cursor.full_name()? {
            (None, function) if cursor.take("(") => {
                let inner = if cursor.take("*") {
                    cursor.expect(")")?;
                    Vec::new()
                } else {
                    list(cursor)?
                };
                Ok(Expr::Call(function, inner))
            }
            (qualifier, column) => Ok(Expr::Column(qualifier, column)),
        },
        Some(Word::Quoted(_)) => {
            let (qualifier, column) = cursor.full_name()?;
            Ok(Expr::Column(qualifier, column))
        }
        _ => Err(cursor.wrong()),
    }
}

/// Expressions up to the closing bracket; the opening one is taken already.
pub(crate) fn list(cursor: &mut Cursor) -> Result<Vec<Expr>, SqlError> {
    let mut list = Vec::new();
    if cursor.take(")") {
        return Ok(list);
    }
    loop {
        list.push(expression(cursor)?);
        if !cursor.take(",") {
            break;
        }
    }
    cursor.expect(")")?;
    Ok(list)
}
