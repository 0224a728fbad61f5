//! Templates in a task's arguments: Jinja2 syntax, each argument rendered on its own.
//!
//! A task's author writes a template, an operator's parameters fill it, and the two must not change places:
//! a parameter never becomes a second argument, never an option, never part of another Vault path, and a
//! template sees nothing but the parameters and three names of the run: no secrets, environment or files.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::params::whole;

/// The longest template and the longest rendered text.
const MAX_TEXT: usize = 64 * 1024;

/// How many instructions a rendering may take: far above any honest argument, some milliseconds.
const FUEL: u64 = 100_000;

/// The names that a template can see besides `params`.
pub const NAMES: [&str; 3] = ["host", "order", "run"];

/// The functions that the engine itself brings.
const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// A template whose syntax is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template(String);

/// What a template can see.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Context<'a> {
    /// The order's parameters, with defaults.
    pub params: &'a serde_json::Value,
    /// The host's name.
    pub host: &'a str,
    /// The order's name.
    pub order: &'a str,
    /// The run's id.
    pub run: &'a str,
}

/// What is wrong with a template or with what came out of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not Jinja2.
    #[error("not a template: {0}")]
    Syntax(String),
    /// A name in it has no value, or a value has a kind that cannot stand in an argument.
    #[error("`{template}`: {why}")]
    Render {
        /// The template's text.
        template: String,
        /// What the engine said.
        why: String,
    },
    /// A parameter would have become an option.
    #[error("`{0}` became an argument that starts with `-`: a parameter may not become an option")]
    Option(String),
}

impl Template {
    /// The template as written.
    pub fn source(&self) -> &str {
        &self.0
    }

    /// Whether it is text and nothing else.
    pub fn is_plain(&self) -> bool {
        !["{{", "{%", "{#"].iter().any(|mark| self.0.contains(mark))
    }

    /// What it takes from outside: `params.cluster`, `host`; the engine's own functions are left out.
    pub fn names(&self) -> Vec<String> {
        let env = environment();
        let mut names: Vec<String> = env
            .template_from_str(&self.0)
            .map(|template| template.undeclared_variables(true).into_iter().collect())
            .unwrap_or_default();
        names.retain(|name| !FUNCTIONS.contains(&name.as_str()));
        names.sort();
        names
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEXT {
            return Err(TemplateError::Syntax(format!("longer than {MAX_TEXT} bytes")));
        }
        if text.contains('\0') {
            return Err(TemplateError::Syntax("an argument cannot contain a NUL byte".to_owned()));
        }
        match environment().template_from_str(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(TemplateError::Syntax(said(&error))),
        }
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.0
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Renders one argument of a command.
pub fn render(template: &Template, context: &Context<'_>) -> Result<String, TemplateError> {
    let text = run(template, context, environment())?;
    if text.starts_with('-') && !template.0.starts_with('-') {
        return Err(TemplateError::Option(template.0.clone()));
    }
    Ok(text)
}

#[derive(Serialize)]
struct WithSecrets<'a> {
    #[serde(flatten)]
    context: &'a Context<'a>,
    secrets: &'a BTreeMap<&'a str, &'a str>,
}

/// Renders what a step reads on its standard input: the one place where a template sees secrets.
///
/// The engine's own copies of the values are not wiped; they are gone with the executor.
pub fn render_stdin(
    template: &Template,
    context: &Context<'_>,
    secrets: &BTreeMap<&str, &str>,
) -> Result<Zeroizing<String>, TemplateError> {
    // What the engine says could quote a value: only which template it was is told.
    let failed =
        || TemplateError::Render { template: template.0.clone(), why: "it cannot be rendered".to_owned() };
    let env = environment();
    let compiled = env.template_from_str(&template.0).map_err(|_| failed())?;
    let mut out = Bounded(Vec::new());
    let values = Value::from(Serde(WithSecrets { context, secrets }));
    compiled.render_captured_to(values, &mut out).map_err(|_| failed())?;
    String::from_utf8(out.0).map(Zeroizing::new).map_err(|_| failed())
}

/// Renders a path in Vault: no parameter may lead to another one than the template's author meant.
pub fn render_secret_path(template: &Template, context: &Context<'_>) -> Result<String, TemplateError> {
    let mut env = environment();
    // These three are checked names, and a host's name may hold dots.
    let own = [context.host, context.order, context.run].map(str::to_owned);
    env.set_formatter(move |out, _, value| {
        let text = plain(value)?;
        let odd = |c: char| matches!(c, '/' | '.' | '#' | '?' | '%' | '\\') || c.is_control();
        if !own.contains(&text) && (text.is_empty() || text.contains(odd)) {
            let message = "a parameter in a Vault path may not be empty or contain / . # ? % \\";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        Ok(out.write_str(&text)?)
    });
    run(template, context, env)
}

fn run(template: &Template, context: &Context<'_>, env: Environment<'_>) -> Result<String, TemplateError> {
    let failed = |why: String| TemplateError::Render { template: template.0.clone(), why };
    let compiled = env.template_from_str(&template.0).map_err(|error| failed(said(&error)))?;
    let mut out = Bounded(Vec::new());
    compiled
        .render_captured_to(Value::from(Serde(context)), &mut out)
        .map_err(|error| failed(said(&error)))?;
    let text = String::from_utf8(out.0).map_err(|_| failed("not UTF-8".to_owned()))?;
    if text.contains('\0') {
        return Err(failed("an argument cannot contain a NUL byte".to_owned()));
    }
    Ok(text)
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        env.set_syntax(syntax);
    }
    env.set_recursion_limit(50);
    env.set_fuel(Some(FUEL));
    env.set_formatter(|out, _, value| Ok(out.write_str(&plain(value)?)?));
    env
}

/// A value as it stands in an argument.
fn plain(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.to_string()),
        // What is whole is an argument without a point, also where it was calculated: 10 / 2.
        ValueKind::Number => {
            let whole = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer()).and_then(whole);
            Ok(whole.map_or_else(|| value.to_string(), |whole| whole.to_string()))
        }
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "no value: use `| default(…)`")),
        ValueKind::None => {
            Err(Error::new(ErrorKind::InvalidOperation, "null is no argument: use `| default(…, true)`"))
        }
        kind => {
            let message = format!("a {kind} is no argument: use `| tojson` or `| join(…)`");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

fn said(error: &Error) -> String {
    let text = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    super::yaml::single_line(&text)
}

/// Takes so many bytes and then fails.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_TEXT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(template: &str, params: serde_json::Value) -> Result<String, TemplateError> {
        let template = Template::try_from(template.to_owned())?;
        render(&template, &Context { params: &params, host: "db1.x", order: "o", run: "r" })
    }

    #[test]
    fn values_are_rendered_plainly() {
        let params = json!({"s": "a b <&> \"", "n": 5, "f": 1.5, "b": true, "l": [1, "x"], "nl": "a\n"});
        for (template, wanted) in [
            ("{{ params.s }}", "a b <&> \""),
            ("{{ params.n }}/{{ params.f }}", "5/1.5"),
            ("{{ 10 / 2 }}/{{ params.n * 1.5 }}/{{ 1000.0 }}", "5/7.5/1000"),
            ("{{ params.b }}", "true"),
            ("--n={{ params.n }}", "--n=5"),
            ("{{ params.l | tojson }}", "[1, \"x\"]"),
            ("{{ params.l | join(',') }}", "1,x"),
            ("{{ params.q | default(7) }}", "7"),
            ("{{ host }}-{{ order }}-{{ run }}", "db1.x-o-r"),
            ("{{ params.nl }}", "a\n"),
            ("a\n", "a\n"),
            ("{% if params.b %}yes{% endif %}", "yes"),
        ] {
            assert_eq!(with(template, params.clone()).unwrap(), wanted, "{template}");
        }
    }

    #[test]
    fn what_no_argument_can_be_is_refused() {
        let params = json!({"o": "-rf", "l": [1], "m": {}, "z": null, "nul": "a\u{0}b", "n": -1,
            "big": "x".repeat(60_000)});
        for template in [
            "{{ params.o }}",
            "{{ params.n }}",
            "{{ params.l }}",
            "{{ params.m }}",
            "{{ params.z }}",
            "{{ params.nul }}",
            "{{ params.missing }}",
            "{{ params.missing.x }}",
            "{{ secrets.dba }}",
            "{{ params.big }}{{ params.big }}",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "{% include '/etc/passwd' %}",
            "{{ env.PATH }}",
            "{{",
            "{% if %}",
            "{{ params | nosuchfilter }}",
            "a\0",
        ] {
            assert!(with(template, params.clone()).is_err(), "{template}");
        }
        assert_eq!(with("-{{ params.o }}", params).unwrap(), "--rf");
    }

    #[test]
    fn a_parameter_does_not_lead_elsewhere_in_vault() {
        let template = Template::try_from("kv/data/{{ host }}/{{ params.p }}".to_owned()).unwrap();
        let render = |p: &str| {
            let params = json!({"p": p});
            render_secret_path(&template, &Context { params: &params, host: "db1.x", order: "o", run: "r" })
        };
        assert_eq!(render("main").unwrap(), "kv/data/db1.x/main");
        for bad in ["..", "a/b", "a.b", "a#b", "a?b", "a%2fb", "", "a\nb"] {
            assert!(render(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_those_that_come_from_outside() {
        let text = "{% for x in range(3) %}{{ x }}{{ params.a.b }}{% endfor %}{{ host }}{{ secrets.x }}";
        let template = Template::try_from(text.to_owned()).unwrap();
        assert_eq!(template.names(), ["host", "params.a.b", "secrets.x"]);
        assert!(!template.is_plain());
    }
}
