//! An order's document made from options; one text, as if somebody had written it in a file.

use clap::Args;
use serde_json::{Map, Value};

use super::Failure;
use super::exit::{Exit, fault};
use crate::domain::instant;
use crate::domain::name::Name;
use crate::domain::order::MAX_ORDER;
use crate::domain::params::whole_numbers;
use crate::domain::span::Span;
use crate::domain::yaml;

/// The name of the user who types; that of whoever became root to do so.
pub(super) fn user() -> Option<String> {
    let name = |variable: &str| std::env::var(variable).ok().filter(|user| !user.is_empty());
    // cron and units set neither.
    let me = nix::unistd::Uid::current();
    let known = || nix::unistd::User::from_uid(me).ok().flatten().map(|user| user.name);
    name("SUDO_USER").or_else(|| name("USER")).or_else(known).or_else(|| Some(format!("uid {me}")))
}

/// Options that make up an order.
#[derive(Args, Default)]
pub(super) struct OrderArgs {
    /// A parameter; a value that is JSON is taken as such, anything else as text ("5" is the text 5, and so are 1.10
    /// and 1e3, which JSON would write as 1.1 and 1000)
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Order")]
    pub(super) param: Vec<String>,
    /// Probe and plan only
    #[arg(long, help_heading = "Order")]
    pub(super) dry_run: bool,
    /// Not started before, such as 2026-11-21T22:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant::read, help_heading = "Order")]
    pub(super) not_before: Option<jiff::Timestamp>,
    /// Not started after
    #[arg(long, value_name = "TIME", value_parser = instant::read, help_heading = "Order")]
    pub(super) not_after: Option<jiff::Timestamp>,
    /// The most time that it may execute, such as 2h
    #[arg(long, value_name = "SPAN", help_heading = "Order")]
    pub(super) timeout: Option<Span>,
    /// Who orders it; the user's name when not said
    #[arg(long, value_name = "WHO", help_heading = "Order")]
    pub(super) by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", help_heading = "Order")]
    pub(super) reason: Option<String>,
}

impl OrderArgs {
    /// Whether any option was given that a document says itself.
    pub(super) fn any(&self) -> bool {
        !self.param.is_empty()
            || self.dry_run
            || self.not_before.is_some()
            || self.not_after.is_some()
            || self.timeout.is_some()
            || self.reason.is_some()
    }

    /// The document; JSON values are YAML too, so that each line reads as in a file.
    pub(super) fn text(
        &self,
        task: &Name,
        revision: Option<&str>,
        spread: Option<Span>,
    ) -> Result<String, Failure> {
        let mut text = format!("task: {}\n", Value::from(task.as_str()));
        let mut line = |name: &str, value: Value| text.push_str(&format!("{name}: {value}\n"));
        let params = params(&self.param)?;
        if !params.is_empty() {
            line("params", params.into());
        }
        if let Some(revision) = revision {
            line("revision", revision.into());
        }
        if self.dry_run {
            line("dry_run", true.into());
        }
        let terms = [
            ("not_before", self.not_before.map(|at| at.to_string())),
            ("not_after", self.not_after.map(|at| at.to_string())),
            ("spread", spread.map(|span| span.to_string())),
            ("timeout", self.timeout.map(|span| span.to_string())),
            ("by", self.by.clone().or_else(user)),
            ("reason", self.reason.clone()),
        ];
        for (name, value) in terms {
            if let Some(value) = value {
                line(name, value.into());
            }
        }
        Ok(text)
    }
}

/// Parameters from their options.
pub(super) fn params(written: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut params = Map::new();
    for text in written {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(fault(Exit::Usage, format!("--param {text:?}: write it as NAME=VALUE")));
        };
        let value = typed(value).map_err(|why| fault(Exit::Usage, format!("--param {name:?}: {why}")))?;
        if params.insert(name.to_owned(), value).is_some() {
            return Err(fault(Exit::Usage, format!("--param {name:?} is given twice")));
        }
    }
    Ok(params)
}

/// A value as it was meant: JSON that says exactly what was typed, or text.
fn typed(text: &str) -> Result<Value, String> {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return Ok(text.into()) };
    whole_numbers(&mut value);
    match &value {
        // 1.10 is a version and 1e3 a commit: a number would be another text.
        Value::Number(number) if number.to_string() != text.trim() => Ok(text.into()),
        Value::Array(_) | Value::Object(_) => {
            yaml::parse::<Value>(text, MAX_ORDER).map_err(|error| error.message)?;
            match numbers(text).into_iter().find(|number| !stays(number)) {
                Some(number) => {
                    Err(format!("{number} would become another text: write \"{number}\" for the text"))
                }
                None => Ok(value),
            }
        }
        _ => Ok(value),
    }
}

/// The numbers in a JSON text, as they are written.
fn numbers(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut quoted, mut escaped) = (Vec::new(), None, false, false);
    for (at, c) in text.char_indices() {
        let inside = !quoted && (c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'));
        match (inside, start) {
            (true, None) if c.is_ascii_digit() || c == '-' => start = Some(at),
            (false, Some(from)) => {
                found.extend(text.get(from..at));
                start = None;
            }
            _ => {}
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    found
}

fn stays(number: &str) -> bool {
    serde_json::from_str::<Value>(number).is_ok_and(|mut value| {
        whole_numbers(&mut value);
        matches!(value, Value::Number(value) if value.to_string() == number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::order::{Document, Order};
    use serde_json::json;

    fn order(arguments: &OrderArgs, revision: Option<&str>) -> Order {
        let text = arguments.text(&"hello".parse().unwrap(), revision, None).unwrap();
        match Document::read(text.as_bytes()).unwrap() {
            Document::Order(order) => *order,
            Document::Skip => panic!("{text}"),
        }
    }

    #[test]
    fn options_make_the_order_that_a_file_would() {
        let param =
            ["n=5", "s=five: 5", "t=\"5\"", "l=[1]", "e=", "x=a=b", "z=007"].map(str::to_owned).to_vec();
        let by = Some("a\"b\n".to_owned());
        let arguments =
            OrderArgs { param, by: by.clone(), timeout: Some(Span::secs(60)), ..OrderArgs::default() };
        let order = order(&arguments, Some("2026"));
        let params = json!({"n": 5, "s": "five: 5", "t": "5", "l": [1], "e": "", "x": "a=b", "z": "007"});
        assert_eq!(order.params, params);
        assert_eq!((order.by, order.timeout), (by, Some(Span::secs(60))));
        let file = b"task: hello\nparams: {n: 5, s: 'five: 5', t: '5', l: [1], e: '', x: a=b, z: '007'}\nrevision: '2026'";
        let Document::Order(same) = Document::read(file).unwrap() else { panic!("an order") };
        assert_eq!(same.identity, order.identity);
    }

    #[test]
    fn a_number_that_would_become_another_text_stays_text() {
        let of = |text: &str| params(&[format!("v={text}")]).map(|params| params["v"].clone());
        for (text, expected) in [
            ("1.10", json!("1.10")),
            ("1e3", json!("1e3")),
            ("5.0", json!("5.0")),
            ("-0", json!("-0")),
            ("1E5", json!("1E5")),
            ("5", json!(5)),
            ("-7", json!(-7)),
            ("1.5", json!(1.5)),
            ("true", json!(true)),
            ("[1, 1.5, \"1.10 \\\" 1e3\"]", json!([1, 1.5, "1.10 \" 1e3"])),
        ] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for bad in ["[1.10]", "{\"v\": 1e3}", "[[2.0]]", "{\"a\": 1, \"a\": 2}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn there_is_always_a_name_of_who_types() {
        assert!(user().is_some_and(|user| !user.is_empty()));
    }

    #[test]
    fn a_parameter_is_a_pair_and_given_once() {
        for bad in [&["n"][..], &["=5"], &["n=1", "n=2"]] {
            let param = bad.iter().map(|text| (*text).to_owned()).collect();
            let arguments = OrderArgs { param, ..OrderArgs::default() };
            assert!(arguments.text(&"hello".parse().unwrap(), None, None).is_err(), "{bad:?}");
        }
    }
}
