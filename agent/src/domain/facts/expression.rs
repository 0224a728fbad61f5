//! Expressions over facts: `hana.role == 'secondary' and hana.replication == 'ACTIVE'`, in the syntax of Jinja2.
//!
//! An expression sees facts, labels and, in a gate, the parameters of the order; no functions reach outside. Each has
//! so much fuel, so none keeps the agent busy.

use std::collections::BTreeMap;
use std::fmt;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::name::FactName;
use super::standing::Known;
use crate::domain::yaml::single_line;

/// The longest expression, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// How many instructions it may take: far above any honest one.
const FUEL: u64 = 1_000;

/// The functions that the engine itself brings.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

/// What an expression sees beside facts.
const BESIDE: [&str; 2] = ["params", "labels"];

/// An expression whose syntax is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression(String);

/// What an expression sees: names with their values.
pub type Scope = BTreeMap<String, Value>;

impl Expression {
    /// As written.
    pub fn source(&self) -> &str {
        &self.0
    }

    /// The facts that it names, in order.
    pub fn facts(&self) -> Vec<FactName> {
        self.roots().iter().filter_map(|root| root.parse().ok()).collect()
    }

    /// The parameters that it names.
    pub fn params(&self) -> Vec<String> {
        let names = names(&self.0, true).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.strip_prefix("params."))
            .map(|rest| rest.split('.').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// What is wrong with it as the gate of a task; `None`: nothing.
    pub fn gate_fault(&self) -> Option<String> {
        for root in self.roots() {
            if BESIDE.contains(&root.as_str()) {
                continue;
            }
            if let Err(error) = root.parse::<FactName>() {
                return Some(error.to_string());
            }
        }
        self.facts().is_empty().then(|| "the expression names no fact".to_owned())
    }

    /// Why it is closed as a gate, given what is known of facts; `None`: it is open.
    ///
    /// One that names a fact that is absent or stale is closed, whatever it says of it.
    pub fn closed<'a>(&self, known: impl Fn(&FactName) -> Known<'a>, mut scope: Scope) -> Option<String> {
        for name in self.facts() {
            match known(&name) {
                Known::Fresh(value) => {
                    scope.insert(name.to_string(), Value::from(Serde(value)));
                }
                Known::Stale(_) => {
                    return Some(format!("the fact {name} is stale, and the gate `{self}` needs it"));
                }
                Known::Absent => {
                    return Some(format!("the fact {name} is absent, and the gate `{self}` needs it"));
                }
            }
        }
        match Evaluator::new().holds(self, scope) {
            Ok(true) => None,
            Ok(false) => Some(format!("the gate `{self}` is not met")),
            Err(why) => Some(format!("the gate `{self}` cannot be evaluated: {why}")),
        }
    }

    /// What an expression sees beside facts.
    pub fn scope(params: Option<&serde_json::Value>, labels: &BTreeMap<String, String>) -> Scope {
        let labels = ("labels".to_owned(), Value::from(Serde(labels)));
        params
            .map(|params| ("params".to_owned(), Value::from(Serde(params))))
            .into_iter()
            .chain([labels])
            .collect()
    }

    /// The first parts of the names in it, without the engine's own.
    fn roots(&self) -> Vec<String> {
        names(&self.0, false).unwrap_or_default()
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("an expression is at most {MAX_TEXT} bytes long"));
        }
        names(&text, false).map_err(|error| format!("not an expression: {}", said(&error)))?;
        Ok(Self(text))
    }
}

impl std::str::FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.0
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim())
    }
}

/// Evaluates expressions; made once for many.
pub struct Evaluator(Environment<'static>);

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}

impl Evaluator {
    /// A new one.
    pub fn new() -> Self {
        Self(environment())
    }

    /// Whether an expression holds.
    ///
    /// # Errors
    /// One line: a name has no value, or what is asked of a value cannot be asked of it.
    pub fn holds(&self, expression: &Expression, scope: Scope) -> Result<bool, String> {
        let compiled = self.0.compile_expression(&expression.0).map_err(|error| said(&error))?;
        let value = compiled.eval(Value::from(scope)).map_err(|error| said(&error))?;
        if value.is_undefined() {
            return Err(said(&Error::new(ErrorKind::UndefinedError, "the whole has no value")));
        }
        Ok(value.is_true())
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_recursion_limit(50);
    env.set_fuel(Some(FUEL));
    env
}

/// The names that come from outside, sorted: `hana`, or with their members `hana.role`.
fn names(text: &str, members: bool) -> Result<Vec<String>, Error> {
    let env = environment();
    let compiled = env.compile_expression(text)?;
    let mut names: Vec<String> = compiled.undeclared_variables(members).into_iter().collect();
    names.retain(|name| !FUNCTIONS.contains(&name.as_str()));
    names.sort();
    Ok(names)
}

fn said(error: &Error) -> String {
    let text = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    single_line(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn expression(text: &str) -> Expression {
        text.parse().unwrap()
    }

    fn closed(text: &str) -> Option<String> {
        let hana = json!({"role": "secondary", "replication": "ACTIVE", "lag": 2, "sites": ["a", "b"]});
        let hana = hana.as_object().unwrap().clone();
        let known = |name: &FactName| match name.as_str() {
            "hana" => Known::Fresh(&hana),
            "old" => Known::Stale(&hana),
            _ => Known::Absent,
        };
        let scope = Scope::from([("params".to_owned(), Value::from(Serde(json!({"site": "a", "most": 5}))))]);
        expression(text).closed(known, scope)
    }

    #[test]
    fn a_gate_is_open_only_on_fresh_facts_that_fit() {
        for open in [
            "hana.role == 'secondary' and hana.replication == 'ACTIVE'",
            "hana.lag < params.most",
            "params.site in hana.sites",
            "hana.role is defined and hana.other is not defined",
            "hana.role | upper == 'SECONDARY'",
            "'x' if hana else ''",
        ] {
            assert_eq!(closed(open), None, "{open}");
        }
        for (shut, wanted) in [
            ("hana.role == 'primary'", "the gate `hana.role == 'primary'` is not met"),
            ("hana.other == 1", "cannot be evaluated"),
            ("hana.lag < 'x'.y", "cannot be evaluated"),
            ("old.role == 'secondary'", "the fact old is stale"),
            ("none_such.role == 'secondary'", "the fact none_such is absent"),
            ("hana.lag == 2 or none_such.x", "the fact none_such is absent"),
            ("none_such is not defined", "the fact none_such is absent"),
            ("hana.other", "cannot be evaluated"),
            (&format!("hana.lag == 2{}", " and hana.lag == 2".repeat(220)), "out of fuel"),
        ] {
            let why = closed(shut).unwrap_or_default();
            assert!(why.contains(wanted), "{shut}: {why}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_and_names_are_known() {
        for bad in ["", "hana.role ==", "{{ hana.role }}", "{% if x %}", "hana |", &"x".repeat(5000)] {
            assert!(bad.parse::<Expression>().is_err(), "{bad}");
        }
        let found = expression(
            "hana.role == params.role and pg.lag < params.most and labels.site == 'a' and range(3)",
        );
        let names: Vec<String> = found.facts().iter().map(ToString::to_string).collect();
        assert_eq!(
            (names, found.params()),
            (vec!["hana".into(), "pg".into()], vec!["most".into(), "role".into()])
        );
        for (text, wanted) in [
            ("hana.role == 'x'", None),
            ("1 == 1", Some("names no fact")),
            ("params.x == 1", Some("names no fact")),
            ("Hana.role == 'x'", Some("\"Hana\" is not the name of a fact")),
        ] {
            let fault = expression(text).gate_fault();
            assert_eq!(fault.is_some(), wanted.is_some(), "{fault:?}");
            assert!(fault.unwrap_or_default().contains(wanted.unwrap_or_default()));
        }
    }
}
