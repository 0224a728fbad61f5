//! The words of a schema: each keyword is one that has an effect where it is written.
//!
//! The standard lets a reader ignore a keyword that it does not know, so `patern:` would admit every text. Here an
//! unknown keyword or format is a fault, and so is a known one that cannot have an effect: `maximum` beside
//! `type: string`, `then` without `if`, a `required` name that no property has. Annotations and names that begin
//! with `x-` are free.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{BadSchema, resolve};
use crate::domain::yaml::{PathSegment, nearest, single_line};

/// What stands below a keyword.
#[derive(Clone, Copy, PartialEq)]
enum Below {
    /// One schema.
    Schema,
    /// A list of schemas.
    Schemas,
    /// A map of names to schemas.
    Named,
    /// A value of its own.
    Plain,
}

/// The types of values that a keyword restricts; empty: all of them.
type Types = &'static [&'static str];

const ANY: Types = &[];
const TEXT: Types = &["string"];
const NUMBER: Types = &["number", "integer"];
const LIST: Types = &["array"];
const MAP: Types = &["object"];

/// All keywords of draft 2020-12 that are read, with what is below them and which types they restrict.
const KEYWORDS: [(&str, Below, Types); 54] = [
    ("$schema", Below::Plain, ANY),
    ("$ref", Below::Plain, ANY),
    ("$defs", Below::Named, ANY),
    ("$comment", Below::Plain, ANY),
    ("title", Below::Plain, ANY),
    ("description", Below::Plain, ANY),
    ("default", Below::Plain, ANY),
    ("examples", Below::Plain, ANY),
    ("deprecated", Below::Plain, ANY),
    ("readOnly", Below::Plain, ANY),
    ("writeOnly", Below::Plain, ANY),
    ("contentEncoding", Below::Plain, ANY),
    ("contentMediaType", Below::Plain, ANY),
    ("contentSchema", Below::Schema, ANY),
    ("type", Below::Plain, ANY),
    ("enum", Below::Plain, ANY),
    ("const", Below::Plain, ANY),
    ("allOf", Below::Schemas, ANY),
    ("anyOf", Below::Schemas, ANY),
    ("oneOf", Below::Schemas, ANY),
    ("not", Below::Schema, ANY),
    ("if", Below::Schema, ANY),
    ("then", Below::Schema, ANY),
    ("else", Below::Schema, ANY),
    ("pattern", Below::Plain, TEXT),
    ("format", Below::Plain, TEXT),
    ("minLength", Below::Plain, TEXT),
    ("maxLength", Below::Plain, TEXT),
    ("minimum", Below::Plain, NUMBER),
    ("maximum", Below::Plain, NUMBER),
    ("exclusiveMinimum", Below::Plain, NUMBER),
    ("exclusiveMaximum", Below::Plain, NUMBER),
    ("multipleOf", Below::Plain, NUMBER),
    ("items", Below::Schema, LIST),
    ("prefixItems", Below::Schemas, LIST),
    ("unevaluatedItems", Below::Schema, LIST),
    ("contains", Below::Schema, LIST),
    ("minContains", Below::Plain, LIST),
    ("maxContains", Below::Plain, LIST),
    ("minItems", Below::Plain, LIST),
    ("maxItems", Below::Plain, LIST),
    ("uniqueItems", Below::Plain, LIST),
    ("properties", Below::Named, MAP),
    ("patternProperties", Below::Named, MAP),
    ("additionalProperties", Below::Schema, MAP),
    ("unevaluatedProperties", Below::Schema, MAP),
    ("propertyNames", Below::Schema, MAP),
    ("required", Below::Plain, MAP),
    ("dependentRequired", Below::Plain, MAP),
    ("dependentSchemas", Below::Named, MAP),
    ("minProperties", Below::Plain, MAP),
    ("maxProperties", Below::Plain, MAP),
    ("$id", Below::Plain, ANY),
    ("$vocabulary", Below::Plain, ANY),
];

/// Keywords of other drafts and dialects, and what to write in their place.
const FOREIGN: [(&str, &str); 13] = [
    ("definitions", "write `$defs`"),
    ("dependencies", "write `dependentRequired` or `dependentSchemas`"),
    ("additionalItems", "write `items`, beside `prefixItems`"),
    ("nullable", "write `type: [string, 'null']`"),
    ("example", "write `examples`, a list"),
    ("discriminator", "write `oneOf` with a `const` in each branch"),
    ("id", "`$id` is not allowed here: remove it"),
    ("$anchor", "point at the place itself, as in `$ref: \"#/$defs/NAME\"`"),
    ("$dynamicAnchor", "point at the place itself, as in `$ref: \"#/$defs/NAME\"`"),
    ("$dynamicRef", "write `$ref: \"#/$defs/NAME\"`"),
    ("$recursiveRef", "write `$ref: \"#/$defs/NAME\"`"),
    ("formatMinimum", "write `pattern`"),
    ("formatMaximum", "write `pattern`"),
];

/// All formats that are checked.
const FORMATS: [&str; 17] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// Lower and upper bounds of the same thing.
const BOUNDS: [(&str, &str); 6] = [
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
    ("exclusiveMinimum", "exclusiveMaximum"),
];

/// Keywords that have an effect only beside another one.
const BESIDE: [(&str, &str); 4] =
    [("then", "if"), ("else", "if"), ("minContains", "contains"), ("maxContains", "contains")];

/// Refuses a schema that says less than its author meant, or something that no value can fulfil.
pub(super) fn check(root: &Value) -> Result<(), BadSchema> {
    let mut walk = Walk { root, schemas: BTreeSet::new(), refs: Vec::new() };
    walk.schema(root, &mut Vec::new(), true)?;
    // A `$ref` may lead anywhere in the document, and only what was walked is known to be a schema.
    for (path, target) in &walk.refs {
        if !walk.schemas.contains(target.as_str()) {
            let message =
                format!("`$ref` leads to {}, where no schema is: put it below `$defs`", single_line(target));
            return Err(BadSchema { path: path.clone(), message });
        }
    }
    Ok(())
}

/// Each schema that is written in `node`, with its place: for what walks through all of them.
pub(super) fn children(node: &Map<String, Value>) -> Vec<(Vec<PathSegment>, &Value)> {
    let mut all = Vec::new();
    for (key, value) in node {
        let below = KEYWORDS.iter().find(|(name, ..)| name == key).map(|(_, below, _)| *below);
        let own = PathSegment::from(key.as_str());
        match (below, value) {
            (Some(Below::Schema), schema) => all.push((vec![own], schema)),
            (Some(Below::Schemas), Value::Array(list)) => {
                all.extend(
                    list.iter().enumerate().map(|(at, schema)| (vec![own.clone(), at.into()], schema)),
                );
            }
            (Some(Below::Named), Value::Object(map)) => {
                all.extend(
                    map.iter().map(|(name, schema)| (vec![own.clone(), name.as_str().into()], schema)),
                );
            }
            _ => {}
        }
    }
    all
}

struct Walk<'a> {
    root: &'a Value,
    /// The JSON pointers of all schemas.
    schemas: BTreeSet<String>,
    /// The place of each `$ref`, and the pointer in it.
    refs: Vec<(Vec<PathSegment>, String)>,
}

impl<'a> Walk<'a> {
    /// `whole`: it describes a value by itself, and is no branch of a schema that does.
    fn schema(&mut self, node: &'a Value, path: &mut Vec<PathSegment>, whole: bool) -> Result<(), BadSchema> {
        self.schemas.insert(pointer(path));
        let Value::Object(map) = node else { return Ok(()) };
        for (key, value) in map {
            let wrong = |message: String| {
                let path = path.iter().cloned().chain([PathSegment::from(key.as_str())]).collect();
                Err(BadSchema { path, message })
            };
            if let Some(message) = fault(key, value, map) {
                return wrong(message);
            }
            if let ("$ref", Some(target)) = (key.as_str(), value.as_str().and_then(|at| at.strip_prefix('#')))
            {
                let path = path.iter().cloned().chain([PathSegment::from(key.as_str())]).collect();
                self.refs.push((path, target.to_owned()));
            }
        }
        if whole {
            self.required(node, path)?;
        }
        for (below, schema) in children(map) {
            let branch = match below.first() {
                Some(PathSegment::Key(key)) => {
                    let applied =
                        ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$defs"];
                    applied.contains(&key.as_str())
                }
                _ => false,
            };
            let length = path.len();
            path.extend(below);
            self.schema(schema, path, !branch)?;
            path.truncate(length);
        }
        Ok(())
    }

    /// A name in `required` that no property has can never be given where only named properties are admitted.
    fn required(&self, node: &'a Value, path: &[PathSegment]) -> Result<(), BadSchema> {
        let mut group = Group::default();
        group.add(node, self.root, path.to_vec(), 0);
        if group.open || (group.names.is_empty() && !path.is_empty()) {
            return Ok(());
        }
        let missing = group.required.iter().find(|(name, _)| !group.names.contains(*name));
        let Some((name, path)) = missing else { return Ok(()) };
        let fix = match nearest(name, group.names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name it below `properties`".to_owned(),
        };
        Err(BadSchema {
            path: path.clone(),
            message: format!("no property is called `{}`: {fix}", single_line(name)),
        })
    }
}

/// What all schemas that describe one value say of its properties.
#[derive(Default)]
struct Group<'a> {
    names: BTreeSet<&'a str>,
    /// Other properties than these are admitted.
    open: bool,
    /// Names that must be there, each with the place that says so.
    required: Vec<(&'a str, Vec<PathSegment>)>,
}

impl<'a> Group<'a> {
    fn add(&mut self, node: &'a Value, root: &'a Value, path: Vec<PathSegment>, depth: usize) {
        let Some(map) = node.as_object().filter(|_| depth < 16) else { return };
        let at = |below: &[PathSegment]| path.iter().chain(below).cloned().collect::<Vec<_>>();
        let no = Some(&Value::Bool(false));
        let more = ["additionalProperties", "unevaluatedProperties"];
        self.open |= map.contains_key("patternProperties")
            || more.iter().any(|key| map.contains_key(*key) && map.get(*key) != no);
        let properties = map.get("properties").and_then(Value::as_object);
        self.names.extend(properties.into_iter().flat_map(|map| map.keys().map(String::as_str)));
        let list =
            |value: &'a Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).enumerate();
        if let Some(required) = map.get("required") {
            let place = |index: usize| at(&["required".into(), index.into()]);
            self.required.extend(list(required).map(|(index, name)| (name, place(index))));
        }
        for (key, value) in map.get("dependentRequired").and_then(Value::as_object).into_iter().flatten() {
            let place = at(&["dependentRequired".into(), key.as_str().into()]);
            self.required.push((key, place.clone()));
            self.required.extend(list(value).map(|(_, name)| (name, place.clone())));
        }
        for (below, schema) in children(map) {
            let applied = ["allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas"];
            if matches!(below.first(), Some(PathSegment::Key(key)) if applied.contains(&key.as_str())) {
                self.add(schema, root, at(&below), depth + 1);
            }
        }
        if map.contains_key("$ref") {
            let target = resolve(node, root);
            if !std::ptr::eq(target, node) {
                self.add(target, root, at(&["$ref".into()]), depth + 1);
            }
        }
    }
}

/// What is wrong with one keyword in its schema.
fn fault(key: &str, value: &Value, map: &Map<String, Value>) -> Option<String> {
    if key.starts_with("x-") {
        return None;
    }
    if let Some((_, instead)) = FOREIGN.iter().find(|(name, _)| *name == key) {
        return Some(format!("the keyword `{key}` has no effect here: {instead}"));
    }
    let Some((_, _, types)) = KEYWORDS.iter().find(|(name, ..)| *name == key) else {
        let shown = single_line(key);
        return Some(match nearest(key, KEYWORDS.iter().map(|(name, ..)| *name)) {
            Some(meant) => format!("unknown keyword `{shown}`: did you mean `{meant}`?"),
            None => {
                format!("unknown keyword `{shown}`: remove it, or write `x-{shown}` for a note of your own")
            }
        });
    };
    if let ("format", Some(format)) = (key, value.as_str())
        && !FORMATS.contains(&format)
    {
        let shown = single_line(format);
        return Some(match nearest(format, FORMATS) {
            Some(meant) => format!("unknown format `{shown}`: did you mean `{meant}`?"),
            None => format!("unknown format `{shown}`: write `pattern`, or one of {}", FORMATS.join(", ")),
        });
    }
    let own: Vec<&str> = match map.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !own.is_empty() && !own.iter().any(|one| types.contains(one)) {
        return Some(format!(
            "`{key}` has no effect beside `type: {}`: remove one of them",
            single_line(&own.join(", "))
        ));
    }
    if let Some((_, other)) = BESIDE.iter().find(|(name, other)| *name == key && !map.contains_key(*other)) {
        return Some(format!("`{key}` has no effect without `{other}`: remove it, or write `{other}`"));
    }
    if let Some((_, upper)) = BOUNDS.iter().find(|(lower, _)| *lower == key)
        && let (Some(least), Some(most)) = (value.as_f64(), map.get(*upper).and_then(Value::as_f64))
        && least > most
    {
        return Some(format!(
            "no value is at least {least} and at most {most}: correct `{key}` or `{upper}`"
        ));
    }
    None
}

/// The JSON pointer of a place.
fn pointer(path: &[PathSegment]) -> String {
    let part = |seg: &PathSegment| match seg {
        PathSegment::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        PathSegment::Index(index) => format!("/{index}"),
    };
    path.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::{FORMATS, KEYWORDS};
    use crate::domain::yaml::path_text;
    use serde_json::{Value, json};

    fn refused(value: &Value) -> String {
        let bad = Schema::compile(Some(value)).expect_err(&value.to_string());
        format!("{}: {}", path_text(&bad.path), bad.message)
    }

    fn of(property: Value) -> Value {
        json!({"type": "object", "properties": {"x": property}})
    }

    /// A fuzzer that knows no schema makes none: it changes those that it is given.
    #[test]
    fn the_fuzzer_begins_with_every_keyword_and_each_of_its_texts_leads_where_its_name_says() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/params");
        let (mut all, mut wrong) = (String::new(), Vec::new());
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let (schema, value) = text.split_once('\n').unwrap();
            let (schema, value): (Value, Value) =
                (serde_json::from_str(schema).expect(&name), serde_json::from_str(value).expect(&name));
            let compiled = Schema::compile(Some(&schema));
            let kind = match &compiled {
                Err(_) => "fault",
                Ok(schema) if schema.check(&value).is_err() => "refuses",
                Ok(schema) if !schema.warnings().is_empty() => "warns",
                Ok(_) => "admits",
            };
            if name.split('-').next() != Some(kind) {
                wrong.push(format!("{name}: {:?}", compiled.map(|schema| schema.check(&value))));
            }
            if kind != "fault" {
                all.push_str(&text);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // This one is a fault wherever it stands.
        let keywords = KEYWORDS.iter().map(|(name, ..)| *name).filter(|name| *name != "$id");
        for word in keywords.chain(FORMATS) {
            assert!(all.contains(&format!("\"{word}\"")), "no text has {word}");
        }
    }

    #[test]
    fn what_the_standard_would_ignore_is_a_fault_with_the_nearest_word() {
        for (property, wanted) in [
            (
                json!({"type": "string", "patern": "^a$"}),
                "properties.x.patern: unknown keyword `patern`: did you mean `pattern`?",
            ),
            (json!({"enums": ["a"]}), "did you mean `enum`?"),
            (json!({"type": "integer", "minimun": 3}), "did you mean `minimum`?"),
            (json!({"type": "string", "maxlength": 3}), "did you mean `maxLength`?"),
            (
                json!({"type": "array", "items": {"type": "string", "regexp": "^a$"}}),
                "properties.x.items.regexp: unknown keyword",
            ),
            (json!({"oneOf": [{"type": "string"}, {"tpye": "integer"}]}), "properties.x.oneOf[1].tpye"),
            (json!({"not": {"cosnt": 3}}), "properties.x.not.cosnt"),
            (json!({"type": "string", "format": "ip4"}), "unknown format `ip4`: did you mean `ipv4`?"),
            (json!({"type": "string", "format": "absolute-path"}), "write `pattern`"),
            (json!({"definitions": {}}), "write `$defs`"),
            (json!({"type": "string", "nullable": true}), "type: [string, 'null']"),
            (json!({"type": "string", "maximum": 3}), "no effect beside `type: string`"),
            (json!({"type": "integer", "pattern": "^1$"}), "no effect beside `type: integer`"),
            (json!({"then": {"type": "string"}}), "without `if`"),
            (json!({"type": "string", "minLength": 5, "maxLength": 2}), "correct `minLength`"),
            (json!({"$ref": "#/x-parts/a"}), "put it below `$defs`"),
            (json!({"$ref": "#name"}), "`$ref`"),
        ] {
            let mut schema = of(property);
            schema["x-parts"] = json!({"a": {"patern": "b"}});
            let got = refused(&schema);
            assert!(got.contains(wanted), "{schema}\n got {got}");
        }
        assert!(refused(&json!({"type": "object", "propertes": {}})).contains("`properties`"));
    }

    #[test]
    fn annotations_and_names_of_ones_own_are_free() {
        for property in [
            json!({"type": "string", "title": "t", "description": "d", "examples": ["a"], "x-owner": {"patern": 1}}),
            json!({"type": "string", "deprecated": true, "$comment": "c", "default": "a"}),
            json!({"const": {"patern": 1}}),
            json!({"enum": [{"patern": 1}]}),
            json!({"type": ["string", "null"], "pattern": "^a$"}),
            json!({"type": "object", "properties": {"patern": {"type": "string"}, "type": {"type": "string"}}}),
            json!({"type": "string", "format": "uuid"}),
            json!({"minimum": 3, "pattern": "^a$"}),
            json!({"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"pattern": "^a$"}}),
        ] {
            assert!(Schema::compile(Some(&of(property.clone()))).is_ok(), "{property}");
        }
    }

    #[test]
    fn what_is_required_has_a_name() {
        let properties = json!({"host": {}, "tls": {"type": "object", "properties": {"port": {}}}});
        for (schema, wanted) in [
            (
                json!({"required": ["hots"]}),
                "required[0]: no property is called `hots`: did you mean `host`?",
            ),
            (json!({"oneOf": [{"required": ["host"]}, {"required": ["socket"]}]}), "oneOf[1].required[0]"),
            (json!({"dependentRequired": {"host": ["user"]}}), "dependentRequired.host"),
            (
                json!({"if": {"properties": {"host": {"const": "a"}}}, "then": {"required": ["certificate"]}}),
                "then.required[0]",
            ),
        ] {
            let mut schema = schema;
            schema["type"] = "object".into();
            schema["properties"] = properties.clone();
            let got = refused(&schema);
            assert!(got.contains(wanted), "{schema}\n got {got}");
        }
        let below = of(json!({"type": "object", "required": ["a", "c"], "properties": {"a": {}, "b": {}}}));
        assert!(refused(&below).starts_with("properties.x.required[1]"));
        assert!(refused(&json!({"type": "object", "required": ["y"]})).contains("`y`"));
        for fine in [
            json!({"type": "object", "required": ["y"], "additionalProperties": true}),
            json!({"type": "object", "required": ["y"], "patternProperties": {"^y$": {}}}),
            json!({"type": "object", "properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"type": "object", "allOf": [{"$ref": "#/$defs/a"}], "required": ["y"], "$defs": {"a": {"properties": {"y": {}}}}}),
            of(json!({"type": "object", "required": ["free"]})),
        ] {
            assert!(Schema::compile(Some(&fine)).is_ok(), "{fine}");
        }
    }
}
