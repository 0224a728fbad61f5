//! The man pages of section 5: what the schema of a document says, as a page for people.

use std::io;

use hostler::cli::{Document, schema};
use roff::{Roff, bold, italic, roman};
use serde_json::Value;

/// Each page: the document, the page's name, and what stands above the fields that the schema cannot say.
const PAGES: [(Document, &str, &str, &str); 3] = [
    (
        Document::Configuration,
        "hostler.yml",
        "the configuration of Hostler",
        "Read by hostler-agent(1) and by each command that looks at a store. hostler-check(1) says what is wrong with it.",
    ),
    (
        Document::Order,
        "hostler-order",
        "an order of Hostler",
        "YAML or JSON of at most 64 KiB, below hostler/hosts/HOST/orders/ or hostler/groups/GROUP/orders/ in Consul. hostler-order-put(1) writes one.",
    ),
    (
        Document::Task,
        "hostler-task",
        "a task of Hostler",
        "A folder below /etc/hostler/tasks or /usr/share/hostler/tasks, owned by root and written by nobody else. hostler-task-new(1) makes one, hostler-task-lint(1) looks for faults, hostler-task-try(1) runs it by hand.",
    ),
];

/// The pages with their file names.
pub(crate) fn pages() -> io::Result<Vec<(String, String)>> {
    let page = |(document, name, title, about): &(Document, &str, &str, &str)| {
        let schema: Value = serde_json::from_str(schema(*document))?;
        let mut roff = Roff::new();
        roff.control("TH", [*name, "5", "", "Hostler"]);
        roff.control("SH", ["NAME"]).text([roman(format!("{name} - {title}"))]);
        roff.control("SH", ["DESCRIPTION"]).text([roman(said(&schema))]);
        roff.control("PP", []).text([roman(*about)]);
        roff.control("SH", ["FIELDS"]);
        fields(&mut roff, &schema, &schema, "", 0);
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman("hostler(1), hostler.yml(5), hostler-order(5), hostler-task(5); the guides in /usr/share/doc/hostler/docs; hostler-schema(1) prints the schema that this page is made from.")]);
        Ok((format!("{name}.5"), roff.to_roff()))
    };
    PAGES.iter().map(page).collect()
}

/// How deep documents go; a schema that points at itself ends here.
const DEEPEST: usize = 6;

/// A list of the fields of a part of the schema, each below its full name.
fn fields(roff: &mut Roff, whole: &Value, part: &Value, above: &str, depth: usize) {
    let Some(properties) = part.get("properties").and_then(Value::as_object).filter(|_| depth < DEEPEST)
    else {
        return;
    };
    for (name, field) in properties {
        let field = resolved(whole, field);
        let full = format!("{above}{name}");
        let mut heading = vec![bold(&full)];
        if let Some(kind) = kind(&field) {
            heading.extend([roman("  "), italic(kind)]);
        }
        roff.control("TP", []).text(heading).text([roman(text_of(&field))]);
        fields(roff, whole, &field, &format!("{full}."), depth + 1);
        let items = field.get("items").map(|items| resolved(whole, items));
        if let Some(items) = items {
            fields(roff, whole, &items, &format!("{full}[]."), depth + 1);
        }
        let values = field.get("additionalProperties").filter(|value| value.is_object());
        if let Some(values) = values {
            fields(roff, whole, &resolved(whole, values), &format!("{full}.NAME."), depth + 1);
        }
    }
}

/// A field with what it points at; what stands beside the pointer wins.
fn resolved(whole: &Value, field: &Value) -> Value {
    let pointer = field.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
    let Some(mut target) = pointer.and_then(|pointer| whole.pointer(pointer)).cloned() else {
        return field.clone();
    };
    if let (Some(target), Some(field)) = (target.as_object_mut(), field.as_object()) {
        target.extend(
            field.iter().filter(|(key, _)| *key != "$ref").map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    target
}

fn said(field: &Value) -> String {
    field.get("description").and_then(Value::as_str).unwrap_or_default().replace('`', "")
}

fn kind(field: &Value) -> Option<String> {
    let words = |values: &Vec<Value>| {
        let words: Vec<&str> =
            values.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect();
        words.join(" or ")
    };
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        return Some(words(values));
    }
    match field.get("type")? {
        Value::String(kind) => Some(kind.clone()),
        Value::Array(kinds) => Some(words(kinds)),
        _ => None,
    }
}

fn text_of(field: &Value) -> String {
    let mut text = said(field);
    let json = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(default) = field.get("default") {
        text.push_str(&format!(" Default: {}.", json(default)));
    }
    if let Some(example) = field.get("examples").and_then(|examples| examples.get(0)) {
        text.push_str(&format!(" Example: {}", json(example)));
    }
    text.trim().to_owned()
}
