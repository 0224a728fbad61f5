//! Carries out a SELECT over rows in memory.

use super::parse::{Expr, Select, Source};
use super::{Answer, Answered, SqlError};
use crate::clock;
use serde_json::Value;
use std::cmp::Ordering;

/// Where the rows of a table or view come from: its columns and rows.
pub(crate) type Find<'a> =
    dyn Fn(Option<&str>, &str) -> Result<(Vec<String>, Vec<Vec<Value>>), SqlError> + 'a;

/// Columns of the joined rows: alias and name.
type Columns = Vec<(String, String)>;

pub(crate) fn run(select: &Select, find: &Find<'_>) -> Answered {
    if select.union.is_empty() { one(select, find) } else { all(select, find) }
}

/// The rows of all branches of a UNION ALL under the names of the first, in the order of the whole.
fn all(select: &Select, find: &Find<'_>) -> Answered {
    let (names, mut rows) = table(one_unordered(select, find)?)?;
    for branch in &select.union {
        let (columns, more) = table(run(branch, find)?)?;
        if columns.len() != names.len() {
            return Err(SqlError::new(321, "too many or too few columns in a branch of UNION"));
        }
        rows.extend(more);
    }
    let columns: Columns = names.iter().map(|name| (String::new(), name.clone())).collect();
    let mut keyed = Vec::new();
    for row in rows {
        let keys = select.order.iter().map(|(by, _)| value(by, &columns, &[&row]));
        keyed.push((keys.collect::<Result<Vec<_>, _>>()?, row));
    }
    Ok(Answer::Rows(names, ordered(keyed, select)))
}

fn table(answer: Answer) -> Result<(Vec<String>, Vec<Vec<Value>>), SqlError> {
    match answer {
        Answer::Rows(names, rows) => Ok((names, rows)),
        Answer::Changed(_) => Err(SqlError::new(2, "general error: a query has no rows")),
    }
}

/// Rows in the order of their keys, up to the limit.
fn ordered(mut keyed: Vec<(Vec<Value>, Vec<Value>)>, select: &Select) -> Vec<Vec<Value>> {
    keyed.sort_by(|(one, _), (other, _)| {
        let pairs = one.iter().zip(other).zip(&select.order);
        pairs
            .map(|((one, other), (_, down))| if *down { compare(other, one) } else { compare(one, other) })
            .find(|ordering| *ordering != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    });
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for (_, row) in keyed {
        if !select.distinct || !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.truncate(select.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    rows
}

/// One SELECT, with its order and limit.
fn one(select: &Select, find: &Find<'_>) -> Answered {
    carry_out(select, find, &select.order)
}

/// One SELECT, whose order and limit are those of a whole.
fn one_unordered(select: &Select, find: &Find<'_>) -> Answered {
    carry_out(select, find, &[])
}

fn carry_out(select: &Select, find: &Find<'_>, order: &[(Expr, bool)]) -> Answered {
    let mut columns: Columns = Vec::new();
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for source in &select.sources {
        rows = join(source, find, &mut columns, rows)?;
    }
    if let Some(filter) = &select.filter {
        let mut kept = Vec::new();
        for row in rows {
            if truth(&value(filter, &columns, &[&row])?) {
                kept.push(row);
            }
        }
        rows = kept;
    }
    let all = || {
        columns.iter().map(|(alias, name)| (Expr::Column(Some(alias.clone()), name.clone()), name.clone()))
    };
    let items: Vec<(Expr, String)> =
        if select.items.is_empty() { all().collect() } else { select.items.clone() };
    let groups = groups(select, &items, &columns, &rows)?;
    let mut keyed = Vec::new();
    for group in &groups {
        let row =
            items.iter().map(|(expr, _)| value(expr, &columns, group)).collect::<Result<Vec<_>, _>>()?;
        let keys = order.iter().map(|(by, _)| order_key(by, &items, &row, &columns, group));
        keyed.push((keys.collect::<Result<Vec<_>, _>>()?, row));
    }
    let names = items.into_iter().map(|(_, name)| name).collect();
    if select.union.is_empty() {
        return Ok(Answer::Rows(names, ordered(keyed, select)));
    }
    Ok(Answer::Rows(names, keyed.into_iter().map(|(_, row)| row).collect()))
}

/// A key of the order: the item of that name, else the expression itself.
fn order_key(
    by: &Expr,
    items: &[(Expr, String)],
    row: &[Value],
    columns: &Columns,
    group: &[&Vec<Value>],
) -> Result<Value, SqlError> {
    if let Expr::Column(None, name) = by
        && let Some(place) = items.iter().position(|(_, item)| item == name)
    {
        return Ok(row.get(place).cloned().unwrap_or(Value::Null));
    }
    value(by, columns, group)
}

fn groups<'a>(
    select: &Select,
    items: &[(Expr, String)],
    columns: &Columns,
    rows: &'a [Vec<Value>],
) -> Result<Vec<Vec<&'a Vec<Value>>>, SqlError> {
    if select.group.is_empty() {
        let together = items.iter().any(|(expr, _)| expr.aggregates());
        return Ok(if together {
            vec![rows.iter().collect()]
        } else {
            rows.iter().map(|row| vec![row]).collect()
        });
    }
    let mut groups: Vec<(Vec<Value>, Vec<&Vec<Value>>)> = Vec::new();
    for row in rows {
        let key = select.group.iter().map(|by| value(by, columns, &[row])).collect::<Result<Vec<_>, _>>()?;
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

fn join(
    source: &Source,
    find: &Find<'_>,
    columns: &mut Columns,
    left: Vec<Vec<Value>>,
) -> Result<Vec<Vec<Value>>, SqlError> {
    let (names, right) = match &source.query {
        Some(query) => table(run(query, find)?)?,
        None => find(source.schema.as_deref(), &source.name)?,
    };
    let width = names.len();
    columns.extend(names.into_iter().map(|name| (source.alias.clone(), name)));
    let mut rows = Vec::new();
    for one in left {
        let mut partners = 0;
        for other in &right {
            let row: Vec<Value> = one.iter().chain(other).cloned().collect();
            let fits = match &source.on {
                Some(on) => truth(&value(on, columns, &[&row])?),
                None => true,
            };
            if fits {
                partners += 1;
                rows.push(row);
            }
        }
        if partners == 0 && source.left {
            rows.push(one.into_iter().chain(std::iter::repeat_n(Value::Null, width)).collect());
        }
    }
    Ok(rows)
}

/// Is it true? NULL is not.
pub(crate) fn truth(value: &Value) -> bool {
    *value == Value::Bool(true)
}

/// Orders two values: numbers by size, all others as text; NULL first.
pub(crate) fn compare(one: &Value, other: &Value) -> Ordering {
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => text(one).cmp(&text(other)),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// The value as text; NULL as none.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The value of an expression over the rows of a group; outside of aggregates the first row counts.
pub(crate) fn value(expr: &Expr, columns: &Columns, group: &[&Vec<Value>]) -> Result<Value, SqlError> {
    let of = |inner: &Expr| value(inner, columns, group);
    Ok(match expr {
        Expr::Value(value) => value.clone(),
        Expr::Column(qualifier, name) => column(qualifier.as_deref(), name, columns, group)?,
        Expr::Not(inner) => Value::Bool(!truth(&of(inner)?)),
        Expr::IsNull(inner) => Value::Bool(of(inner)?.is_null()),
        Expr::In(inner, list) => {
            let wanted = of(inner)?;
            let mut found = false;
            for one in list {
                found |= equal(&wanted, &of(one)?);
            }
            Value::Bool(found)
        }
        Expr::Like(inner, pattern) => match (text(&of(inner)?), text(&of(pattern)?)) {
            (Some(text), Some(pattern)) => Value::Bool(like(&text, &pattern)),
            _ => Value::Bool(false),
        },
        Expr::Two(operator, one, other) => two(operator, &of(one)?, &of(other)?)?,
        Expr::Call(name, inner) => call(name, inner, columns, group)?,
    })
}

fn column(
    qualifier: Option<&str>,
    name: &str,
    columns: &Columns,
    group: &[&Vec<Value>],
) -> Result<Value, SqlError> {
    let fits =
        |(alias, column): &(String, String)| column == name && qualifier.is_none_or(|wanted| wanted == alias);
    match (columns.iter().position(fits), name) {
        (Some(place), _) => Ok(group.first().and_then(|row| row.get(place)).cloned().unwrap_or(Value::Null)),
        (None, "CURRENT_TIMESTAMP" | "CURRENT_UTCTIMESTAMP") => Ok(clock::sql(clock::now()).into()),
        (None, "TRUE") => Ok(Value::Bool(true)),
        (None, "FALSE") => Ok(Value::Bool(false)),
        _ => Err(SqlError::new(260, format!("invalid column name: {name}"))),
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    !one.is_null() && !other.is_null() && compare(one, other) == Ordering::Equal
}

fn two(operator: &str, one: &Value, other: &Value) -> Result<Value, SqlError> {
    let ordering = compare(one, other);
    let known = !one.is_null() && !other.is_null();
    Ok(match operator {
        "AND" => Value::Bool(truth(one) && truth(other)),
        "OR" => Value::Bool(truth(one) || truth(other)),
        "=" => Value::Bool(equal(one, other)),
        "<>" => Value::Bool(known && ordering != Ordering::Equal),
        "<" => Value::Bool(known && ordering == Ordering::Less),
        ">" => Value::Bool(known && ordering == Ordering::Greater),
        "<=" => Value::Bool(known && ordering != Ordering::Greater),
        ">=" => Value::Bool(known && ordering != Ordering::Less),
        "||" => format!("{}{}", text(one).unwrap_or_default(), text(other).unwrap_or_default()).into(),
        _ => {
            let (Some(one), Some(other)) = (number(one), number(other)) else { return Ok(Value::Null) };
            let result = match operator {
                "+" => one + other,
                "-" => one - other,
                "*" => one * other,
                _ if other == 0.0 => return Err(SqlError::new(304, "division by zero undefined")),
                _ => one / other,
            };
            plain(result)
        }
    })
}

/// A number without a fraction is an integer.
fn plain(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = pattern.get(1..).unwrap_or_default();
            text.char_indices().any(|(place, _)| like(text.get(place..).unwrap_or_default(), rest))
                || like("", rest)
        }
        Some(wanted) => {
            let Some(first) = text.chars().next() else { return false };
            let after =
                |text: &str, letter: char| text.get(letter.len_utf8()..).unwrap_or_default().to_string();
            (wanted == '_' || wanted == first) && like(&after(text, first), &after(pattern, wanted))
        }
    }
}

fn call(name: &str, inner: &[Expr], columns: &Columns, group: &[&Vec<Value>]) -> Result<Value, SqlError> {
    let each = |expr: &Expr| -> Result<Vec<Value>, SqlError> {
        let values = group.iter().map(|row| value(expr, columns, &[row])).collect::<Result<Vec<_>, _>>()?;
        Ok(values.into_iter().filter(|value| !value.is_null()).collect())
    };
    let arguments = || inner.iter().map(|expr| value(expr, columns, group)).collect::<Result<Vec<_>, _>>();
    Ok(match (name, inner) {
        ("COUNT", []) => group.len().into(),
        ("COUNT", [one]) => each(one)?.len().into(),
        ("MAX", [one]) => each(one)?.into_iter().max_by(compare).unwrap_or(Value::Null),
        ("MIN", [one]) => each(one)?.into_iter().min_by(compare).unwrap_or(Value::Null),
        ("SUM", [one]) => {
            let values = each(one)?;
            if values.is_empty() { Value::Null } else { plain(values.iter().filter_map(number).sum()) }
        }
        ("NOW", []) => clock::sql(clock::now()).into(),
        ("UPPER", [_]) => text_of(&arguments()?).map_or(Value::Null, |text| text.to_uppercase().into()),
        ("LOWER", [_]) => text_of(&arguments()?).map_or(Value::Null, |text| text.to_lowercase().into()),
        ("TO_VARCHAR" | "TO_NVARCHAR" | "TO_TIMESTAMP", [_]) => {
            text_of(&arguments()?).map_or(Value::Null, Value::from)
        }
        ("TO_BIGINT" | "TO_INTEGER" | "TO_INT", [_]) => {
            let value = arguments()?.into_iter().next().unwrap_or(Value::Null);
            number(&value).map_or(Value::Null, |number| plain(number.trunc()))
        }
        ("IFNULL" | "COALESCE", [_, ..]) => {
            arguments()?.into_iter().find(|value| !value.is_null()).unwrap_or(Value::Null)
        }
        ("SECONDS_BETWEEN" | "NANO100_BETWEEN" | "DAYS_BETWEEN", [_, _]) => {
            let instants: Vec<Option<i64>> =
                arguments()?.iter().map(|value| text(value).and_then(|text| clock::parse(&text))).collect();
            match (name, instants.as_slice()) {
                ("SECONDS_BETWEEN", [Some(one), Some(other)]) => ((other - one) / 1_000_000).into(),
                ("DAYS_BETWEEN", [Some(one), Some(other)]) => ((other - one) / 86_400_000_000).into(),
                (_, [Some(one), Some(other)]) => ((other - one) * 10).into(),
                _ => Value::Null,
            }
        }
        ("ADD_SECONDS", [_, _]) => {
            let values = arguments()?;
            let from = text_of(&values).and_then(|text| clock::parse(&text));
            match (from, values.get(1).and_then(number)) {
                (Some(from), Some(seconds)) => clock::sql(from + (seconds * 1e6) as i64).into(),
                _ => Value::Null,
            }
        }
        _ => return Err(SqlError::new(328, format!("invalid name of function or procedure: {name}"))),
    })
}

fn text_of(values: &[Value]) -> Option<String> {
    values.first().and_then(text)
}

#[cfg(test)]
mod tests {
    use super::super::parse::select;
    use super::super::words::Cursor;
    use super::*;
    use serde_json::json;

    fn ask(statement: &str) -> Result<Vec<Vec<Value>>, SqlError> {
        let find = |_: Option<&str>, name: &str| match name {
            "C" => Ok((
                vec!["ID".to_string(), "STATE".to_string()],
                vec![
                    vec![json!(1), json!("successful")],
                    vec![json!(2), json!("failed")],
                    vec![json!(10), Value::Null],
                ],
            )),
            "F" => Ok((
                vec!["ID".to_string(), "PATH".to_string()],
                vec![vec![json!(1), json!("/a_b")], vec![json!(1), json!("/c")]],
            )),
            _ => Err(SqlError::new(259, "invalid table name")),
        };
        let mut cursor = Cursor::new(statement).unwrap();
        cursor.expect("SELECT").unwrap();
        match run(&select(&mut cursor)?, &find)? {
            Answer::Rows(_, rows) => Ok(rows),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_filtered_joined_grouped_and_ordered() {
        assert_eq!(ask("SELECT COUNT(*) FROM C WHERE ID > 1").unwrap(), [[json!(2)]]);
        assert_eq!(ask("SELECT ID FROM C ORDER BY ID DESC LIMIT 2").unwrap(), [[json!(10)], [json!(2)]]);
        assert_eq!(ask("SELECT TOP 1 ID FROM C WHERE STATE IS NULL").unwrap(), [[json!(10)]]);
        let joined = "SELECT c.ID, COUNT(f.PATH) AS N FROM C c LEFT JOIN F f ON c.ID = f.ID GROUP BY c.ID ORDER BY N DESC, c.ID";
        assert_eq!(ask(joined).unwrap(), [[json!(1), json!(2)], [json!(2), json!(0)], [json!(10), json!(0)]]);
        assert_eq!(
            ask("SELECT PATH FROM F WHERE PATH LIKE '/a%' AND PATH NOT IN ('/c')").unwrap(),
            [["/a_b"]]
        );
        assert_eq!(ask("SELECT MAX(ID) FROM C WHERE STATE = 'nothing'").unwrap(), [[Value::Null]]);
        let both =
            "SELECT ID, 'c' AS WHOSE FROM C WHERE ID < 10 UNION ALL SELECT ID, PATH FROM F WHERE PATH = '/c'";
        let rows = [[json!(1), json!("c")], [json!(2), json!("c")], [json!(1), json!("/c")]];
        assert_eq!(ask(both).unwrap(), rows);
        let inner = format!("SELECT * FROM ({both}) ORDER BY ID DESC, WHOSE LIMIT 2");
        assert_eq!(ask(&inner).unwrap(), [[json!(2), json!("c")], [json!(1), json!("/c")]]);
        assert_eq!(ask(&format!("{both} ORDER BY WHOSE LIMIT 1")).unwrap(), [[json!(1), json!("/c")]]);
        assert_eq!(ask(&format!("SELECT COUNT(*) FROM ({both}) X WHERE X.ID = 1")).unwrap(), [[json!(2)]]);
        assert!(ask("SELECT ID FROM C UNION ALL SELECT ID, PATH FROM F").is_err());
        assert!(ask("SELECT ID FROM C UNION SELECT ID FROM F").is_err(), "what is not played is an error");
        assert_eq!(
            ask("SELECT STATE FROM C WHERE NOT STATE = 'failed' AND ID BETWEEN 1 AND 2").unwrap(),
            [["successful"]]
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert_eq!(ask("SELECT ID FROM C HAVING X").unwrap_err().code, 257);
        assert_eq!(ask("SELECT NOTHING FROM C").unwrap_err().code, 260);
        assert_eq!(ask("SELECT ID FROM NOWHERE").unwrap_err().code, 259);
        assert_eq!(ask("SELECT SOUNDEX(ID) FROM C").unwrap_err().code, 328);
    }
}
