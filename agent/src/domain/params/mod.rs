//! The parameters that a task admits: a JSON Schema (draft 2020-12) in `task.yml`.
//!
//! Two things differ from the plain standard, both on the safe side: an object admits only the properties
//! that its schema names, unless the schema says otherwise, and `$ref` stays inside the document; nothing is
//! ever fetched. Where several schemas together describe one object (`allOf`, `anyOf`, `oneOf`, `if`, `$ref`),
//! what none of them names is refused through `unevaluatedProperties`.
//!
//! ```text
//!  keywords.rs  a keyword or format that has no effect is a fault
//!  named.rs     objects inside branches: what no schema names is refused
//!  anchor.rs    for lint: patterns that look at a part of a text only
//! ```

mod anchor;
mod keywords;
mod named;

use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::yaml::{PathSegment, nearest, single_line};

/// How often a pattern may go back over a text: some milliseconds.
const BACKTRACKS: usize = 20_000;

/// The memory of one compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

/// How many faults of one document are told.
const MAX_FAULTS: usize = 20;

/// Keywords whose schemas describe the same value as the schema that they stand in.
const BRANCHES: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// A schema that compiles, closed as the module's header says.
#[derive(Clone)]
pub struct Schema {
    value: Value,
    /// None for a task that takes no parameters.
    validator: Option<Arc<Validator>>,
}

impl Default for Schema {
    /// Admits no parameter.
    fn default() -> Self {
        Self { value: json!({"type": "object", "additionalProperties": false}), validator: None }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// What is wrong with a schema, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadSchema {
    /// The way to the place inside the schema.
    pub path: Vec<PathSegment>,
    /// What is wrong, one line.
    pub message: String,
}

impl Schema {
    /// Compiles a schema as it stands in `task.yml`; none at all admits no parameter.
    pub fn compile(written: Option<&Value>) -> Result<Self, BadSchema> {
        let Some(written) = written else { return Ok(Self::default()) };
        let mut value = written.clone();
        let bad = |path: Vec<PathSegment>, message: String| BadSchema { path, message };
        if value.get("type").and_then(Value::as_str) != Some("object") {
            return Err(bad(Vec::new(), "the parameters are a map: write `type: object`".to_owned()));
        }
        stays_inside(&value, &mut Vec::new())?;
        keywords::check(&value)?;
        let root = value.clone();
        close(&mut value, &root, true);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(
                PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS).size_limit(PATTERN_BYTES),
            )
            .should_validate_formats(true)
            .offline()
            .build(&value)
            .map_err(|error| {
                let path = segments(&error.instance_path().to_string());
                bad(path, format!("not a JSON Schema: {}", single_line(&error.to_string())))
            })?;
        whole_numbers(&mut value);
        let schema = Self { value, validator: Some(Arc::new(validator)) };
        schema.check_defaults()?;
        Ok(schema)
    }

    /// The schema with what was closed.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Checks an order's parameters and fills in the defaults; a fault is one line that begins with the place.
    pub fn check(&self, params: &Value) -> Result<Value, Vec<String>> {
        if self.validator.is_none() && params.as_object().map_or(!params.is_null(), |map| !map.is_empty()) {
            return Err(vec!["this task takes no parameters: remove `params`".to_owned()]);
        }
        let mut filled = if params.is_null() { Value::Object(Map::new()) } else { params.clone() };
        fill(&mut filled, &self.value, &self.value, 0);
        whole_numbers(&mut filled);
        let placed = |(path, message): (String, String)| {
            if path.is_empty() { message } else { format!("params{path}: {message}") }
        };
        let mut faults: Vec<String> = self.faults(&filled).map(placed).take(MAX_FAULTS).collect();
        if faults.is_empty()
            && self.validator.is_some()
            && let Some((path, name)) = named::unnamed(&filled, &self.value)
        {
            faults.push(placed((path, format!("no property is called `{}`: remove it", single_line(&name)))));
        }
        if faults.is_empty() { Ok(filled) } else { Err(faults) }
    }

    /// Whether a template's name below `params` (`cluster`, `tls.port`) can have a value.
    pub fn admits(&self, path: &str) -> bool {
        let mut node = &self.value;
        for part in path.split('.') {
            let closed_here = is_closed(node);
            node = resolve(node, &self.value);
            let Some(properties) = node.get("properties").and_then(Value::as_object) else {
                // No properties at the top: nothing is admitted; further down it is free-form, or no map.
                return !std::ptr::eq(node, &self.value) || !is_closed(node);
            };
            match properties.get(part) {
                Some(next) => node = next,
                None => return !closed_here && !is_closed(node),
            }
        }
        true
    }

    /// For the author: a line for each pattern that looks at a part of a text only.
    pub fn warnings(&self) -> Vec<String> {
        anchor::warnings(&self.value)
    }

    /// The names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.value
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str))
    }

    /// The parameter that is spelled almost as the first of these.
    fn meant(&self, unexpected: &[String]) -> Option<&str> {
        nearest(unexpected.first()?, self.names())
    }

    fn faults<'a>(&'a self, params: &'a Value) -> impl Iterator<Item = (String, String)> + 'a {
        let validator = self.validator.as_deref();
        validator.into_iter().flat_map(|validator| validator.iter_errors(params)).map(|error| {
            let (path, message) = (error.instance_path().to_string(), single_line(&error.to_string()));
            let meant = match error.kind() {
                ValidationErrorKind::AdditionalProperties { unexpected } if path.is_empty() => {
                    self.meant(unexpected)
                }
                _ => None,
            };
            (path, meant.map_or(message.clone(), |meant| format!("{message}: did you mean {meant}?")))
        })
    }

    /// A default that the schema itself refuses would make every order fault that leaves it out.
    fn check_defaults(&self) -> Result<(), BadSchema> {
        let mut filled = json!({});
        fill(&mut filled, &self.value, &self.value, 0);
        let Some((at, message)) = self.faults(&filled).find(|(at, _)| !at.is_empty()) else {
            return Ok(());
        };
        let mut path = vec![PathSegment::from("properties")];
        path.extend(segments(&at).into_iter().take(1));
        Err(BadSchema { path, message: format!("the default is refused by the schema itself: {message}") })
    }
}

/// Writes each whole number without a point, so that 5.0 and 1e3 are handed over as 5 and 1000.
///
/// The identity takes 5 and 5.0 for the same instruction, so a run must not tell them apart either.
pub fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|_| number.is_f64()).and_then(whole) {
                *value = whole.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The whole number that a double is, if it is one that every reader holds exactly.
pub fn whole(number: f64) -> Option<i64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= LARGEST).then_some(number as i64)
}

fn segments(pointer: &str) -> Vec<PathSegment> {
    pointer
        .split('/')
        .skip(1)
        .map(|part| match part.parse::<usize>() {
            Ok(index) => PathSegment::Index(index),
            Err(_) => PathSegment::Key(part.replace("~1", "/").replace("~0", "~")),
        })
        .collect()
}

/// Refuses what leads out of the document or changes how it is read.
fn stays_inside(node: &Value, path: &mut Vec<PathSegment>) -> Result<(), BadSchema> {
    let bad = |path: &[PathSegment], key: &str, message: &str| {
        let mut path = path.to_vec();
        path.push(PathSegment::from(key));
        Err(BadSchema { path, message: message.to_owned() })
    };
    match node {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", Value::String(target)) if target != "#" && !target.starts_with("#/") => {
                        return bad(path, key, "`$ref` leaves the document: only `#/…` is allowed");
                    }
                    ("$id", Value::String(_)) => {
                        return bad(path, key, "`$id` is not allowed here: remove it");
                    }
                    ("$schema", Value::String(draft)) if !draft.contains("2020-12") => {
                        return bad(path, key, "only JSON Schema draft 2020-12 is read: remove `$schema`");
                    }
                    ("const" | "default" | "enum" | "examples", _) => continue,
                    (note, _) if note.starts_with("x-") => continue,
                    _ => {}
                }
                path.push(PathSegment::from(key.as_str()));
                stays_inside(value, path)?;
                path.pop();
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                path.push(PathSegment::from(index));
                stays_inside(value, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

/// Follows a `$ref` inside the document, a bounded number of times.
fn resolve<'a>(mut node: &'a Value, root: &'a Value) -> &'a Value {
    for _ in 0..16 {
        let target = node.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#'));
        match target.and_then(|pointer| root.pointer(pointer)) {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

fn is_closed(node: &Value) -> bool {
    let no = Some(&Value::Bool(false));
    let composed = ["patternProperties", "if"].iter().chain(&BRANCHES).any(|key| node.get(key).is_some());
    (node.get("additionalProperties") == no || node.get("unevaluatedProperties") == no) && !composed
}

/// Closes a schema that stands where a value of its own is described, and those inside it.
fn close(node: &mut Value, root: &Value, top: bool) {
    let Value::Object(map) = node else { return };
    let said = map.contains_key("additionalProperties") || map.contains_key("unevaluatedProperties");
    let composed = BRANCHES.iter().chain(&["if", "dependentSchemas"]).any(|key| map.contains_key(*key));
    let branch_names = BRANCHES
        .iter()
        .filter_map(|key| map.get(*key)?.as_array())
        .flatten()
        .any(|branch| resolve(branch, root).get("properties").is_some());
    let target_names = map.contains_key("$ref") && {
        let target = resolve(&Value::Object(map.clone()), root).clone();
        target.get("properties").is_some()
    };
    if !said && (top || map.contains_key("properties") || branch_names || target_names) {
        let key = if composed || map.contains_key("$ref") {
            "unevaluatedProperties"
        } else {
            "additionalProperties"
        };
        map.insert(key.to_owned(), Value::Bool(false));
    }
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(inner)) = map.get_mut(key) {
            inner.values_mut().for_each(|schema| close(schema, root, false));
        }
    }
    for key in ["items", "additionalProperties", "contains"] {
        if let Some(schema) = map.get_mut(key) {
            close(schema, root, false);
        }
    }
    if let Some(Value::Array(list)) = map.get_mut("prefixItems") {
        list.iter_mut().for_each(|schema| close(schema, root, false));
    }
    // A definition may be one branch of several, so it is not closed itself; what points at it is.
    if let Some(Value::Object(definitions)) = map.get_mut("$defs") {
        for definition in definitions.values_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Object(inner)) = definition.get_mut("properties") {
                inner.values_mut().for_each(|schema| close(schema, root, false));
            }
            if let Some(items) = definition.get_mut("items") {
                close(items, root, false);
            }
        }
    }
}

/// Puts the defaults of properties where they are missing, also inside maps that are there.
fn fill(value: &mut Value, schema: &Value, root: &Value, depth: usize) {
    let schema = resolve(schema, root);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let Some(map) = value.as_object_mut().filter(|_| depth < 32) else { return };
    for (name, property) in properties {
        let default = property.get("default").or_else(|| resolve(property, root).get("default"));
        match (map.get_mut(name), default) {
            (Some(inner), _) => fill(inner, property, root, depth + 1),
            (None, Some(default)) => {
                let mut inner = default.clone();
                fill(&mut inner, property, root, depth + 1);
                map.insert(name.clone(), inner);
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(value: Value) -> Schema {
        Schema::compile(Some(&value)).unwrap()
    }

    fn refused(value: Value) -> String {
        let bad = Schema::compile(Some(&value)).unwrap_err();
        format!("{}: {}", crate::domain::yaml::path_text(&bad.path), bad.message)
    }

    #[test]
    fn only_named_parameters_are_admitted() {
        let closed = schema(json!({"type": "object", "properties": {
            "a": {"type": "string"}, "in": {"type": "object", "properties": {"x": {"type": "integer"}}},
            "free": {"type": "object"}, "list": {"type": "array", "items": {"properties": {"y": {}}}}}}));
        assert!(closed.check(&json!({"a": "x", "in": {"x": 1}, "free": {"z": 1}})).is_ok());
        for bad in
            [json!({"b": 1}), json!({"in": {"z": 1}}), json!({"list": [{"z": 1}]}), json!([]), json!("x")]
        {
            assert!(closed.check(&bad).is_err(), "{bad}");
        }
        assert!(Schema::compile(None).unwrap().check(&json!({"a": 1})).is_err());
        assert_eq!(Schema::compile(None).unwrap().check(&Value::Null).unwrap(), json!({}));
        let open = schema(json!({"type": "object", "additionalProperties": true}));
        assert!(open.check(&json!({"b": 1})).is_ok());
    }

    #[test]
    fn composed_schemas_admit_what_one_of_them_names() {
        let one_of = schema(json!({"type": "object", "oneOf": [
            {"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]}));
        assert!(one_of.check(&json!({"a": 1})).is_ok());
        assert!(one_of.check(&json!({"a": 1, "c": 1})).is_err());
        let refs = schema(json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/p"}},
            "$defs": {"p": {"type": "object", "properties": {"x": {"default": 3}}}}}));
        assert_eq!(refs.check(&json!({"p": {}})).unwrap(), json!({"p": {"x": 3}}));
        assert!(refs.check(&json!({"p": {"y": 1}})).is_err());
        assert!(refs.admits("p.x") && !refs.admits("p.y") && !refs.admits("q"));
    }

    #[test]
    fn defaults_are_filled_in_and_checked() {
        let schema = schema(json!({"type": "object", "properties": {
            "n": {"type": "integer", "default": 5},
            "in": {"type": "object", "default": {}, "properties": {"x": {"default": "y"}}}}}));
        assert_eq!(schema.check(&json!({})).unwrap(), json!({"n": 5, "in": {"x": "y"}}));
        assert_eq!(schema.check(&json!({"n": 6})).unwrap()["n"], 6);
        let bad = json!({"type": "object", "properties": {"n": {"type": "integer", "default": "5"}}});
        assert!(refused(bad).starts_with("properties.n: the default is refused"));
    }

    #[test]
    fn a_fault_names_the_place() {
        let schema = schema(json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "pattern": "^[a-z]+$"}, "in": {"type": "object", "properties": {"n": {"minimum": 13}}}}}));
        let faults = schema.check(&json!({"a": "X", "in": {"n": 12}})).unwrap_err();
        assert_eq!(
            faults,
            ["params/a: \"X\" does not match \"^[a-z]+$\"", "params/in/n: 12 is less than the minimum of 13"]
        );
        assert_eq!(schema.check(&json!({})).unwrap_err(), ["\"a\" is a required property"]);
        let long = schema.check(&json!({"a": "X".repeat(60_000)})).unwrap_err();
        assert!(long[0].len() < 400);
    }

    #[test]
    fn bad_schemas_are_refused_at_load() {
        for (value, wanted) in [
            (json!({"type": "string"}), ": the parameters are a map"),
            (json!(5), ": the parameters are a map"),
            (
                json!({"type": "object", "properties": {"a": {"type": "strng"}}}),
                "properties.a.type: not a JSON",
            ),
            (json!({"type": "object", "properties": {"a": {"pattern": "("}}}), "not a JSON Schema"),
            (
                json!({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}),
                "properties.a.$ref: `$ref` leaves the document",
            ),
            (json!({"type": "object", "properties": {"a": {"$ref": "http://x/y"}}}), "leaves the document"),
            (json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}}), "no schema is"),
            (json!({"type": "object", "$id": "http://x/", "properties": {}}), "$id"),
            (json!({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}), "2020-12"),
        ] {
            let got = refused(value.clone());
            assert!(got.contains(wanted), "{value}\n got {got}");
        }
    }

    #[test]
    fn a_slow_pattern_is_cut_off() {
        let schema = schema(json!({"type": "object", "properties": {
            "a": {"pattern": "^(?=a)(a+)+\\1$"}}}));
        let faults = schema.check(&json!({"a": format!("{}b", "a".repeat(5000))}));
        assert!(faults.is_err());
    }

    #[test]
    fn schemas_that_point_at_themselves_are_walked_once() {
        let value =
            json!({"type": "object", "properties": {"next": {"$ref": "#"}, "l": {"$ref": "#/properties/l"}}});
        if let Ok(schema) = Schema::compile(Some(&value)) {
            assert!(schema.check(&json!({"next": {"next": {}}})).is_ok());
            assert!(schema.admits("next.next.next"));
        }
    }
}
