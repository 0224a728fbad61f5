//! Objects inside branches: no property is admitted that no schema names.
//!
//! The validator closes an object where its `properties` are written. A branch of `oneOf` or `then` cannot be closed
//! there, since it may describe a part of an object only, and a closed condition would be another condition. So the
//! value is walked here once more, beside all schemas that describe it together, whichever of them hold.

use std::collections::BTreeMap;

use serde_json::Value;

use super::resolve;

/// Keywords whose schemas describe the same value as the schema around them.
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SINGLE: [&str; 3] = ["if", "then", "else"];

/// How deep schemas may point at one another.
const MAX_DEPTH: usize = 32;

/// The JSON pointer and the name of the first property that no schema names.
pub(super) fn unnamed(value: &Value, schema: &Value) -> Option<(String, String)> {
    walk(value, &[schema], schema, String::new())
}

fn walk(value: &Value, schemas: &[&Value], root: &Value, at: String) -> Option<(String, String)> {
    let mut group = Vec::new();
    schemas.iter().for_each(|schema| expand(schema, root, 0, &mut group));
    match value {
        Value::Object(map) => {
            let mut named: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
            let mut others = Vec::new();
            let mut open = false;
            for schema in &group {
                let properties = schema.get("properties").and_then(Value::as_object);
                for (name, inner) in properties.into_iter().flatten() {
                    named.entry(name).or_default().push(inner);
                }
                open |= schema.get("patternProperties").is_some();
                for key in ["additionalProperties", "unevaluatedProperties"] {
                    let more = schema.get(key).filter(|more| **more != Value::Bool(false));
                    open |= more.is_some();
                    others.extend(more);
                }
            }
            map.iter().find_map(|(name, inner)| {
                let below = match named.get(name.as_str()) {
                    Some(schemas) => schemas,
                    // A map of which no name is described is free.
                    None if open || named.is_empty() => &others,
                    None => return Some((at.clone(), name.clone())),
                };
                walk(inner, below, root, format!("{at}/{name}"))
            })
        }
        Value::Array(list) => list.iter().enumerate().find_map(|(index, inner)| {
            let mut below = Vec::new();
            for schema in &group {
                let prefix = schema.get("prefixItems").and_then(Value::as_array);
                match prefix.and_then(|prefix| prefix.get(index)) {
                    Some(own) => below.push(own),
                    None => below.extend(schema.get("items")),
                }
                below.extend(schema.get("contains"));
            }
            walk(inner, &below, root, format!("{at}/{index}"))
        }),
        _ => None,
    }
}

/// All schemas that describe the same value as this one.
fn expand<'a>(schema: &'a Value, root: &'a Value, depth: usize, group: &mut Vec<&'a Value>) {
    if depth > MAX_DEPTH || group.iter().any(|known| std::ptr::eq(*known, schema)) {
        return;
    }
    group.push(schema);
    let lists = LISTS.iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    let single = SINGLE.iter().filter_map(|key| schema.get(key));
    let dependent = schema.get("dependentSchemas").and_then(Value::as_object);
    let dependent = dependent.into_iter().flat_map(|map| map.values());
    lists.chain(single).chain(dependent).for_each(|branch| expand(branch, root, depth + 1, group));
    let target = resolve(schema, root);
    if !std::ptr::eq(target, schema) {
        expand(target, root, depth + 1, group);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use serde_json::json;

    #[test]
    fn an_object_in_a_branch_admits_only_what_a_schema_names() {
        let tls = json!({"type": "object", "properties": {"port": {"type": "integer"}}});
        let with = |branches: serde_json::Value| {
            let mut schema = branches;
            schema["type"] = "object".into();
            Schema::compile(Some(&schema)).unwrap()
        };
        let branch = json!({"properties": {"tls": tls}});
        for schema in [
            with(json!({"oneOf": [branch, {"properties": {"b": {}}, "required": ["b"]}]})),
            with(json!({"anyOf": [branch]})),
            with(json!({"allOf": [{"allOf": [branch]}]})),
            with(json!({"properties": {"m": {}}, "if": {"required": ["m"]}, "then": branch, "else": branch})),
            with(json!({"properties": {"m": {}}, "dependentSchemas": {"tls": branch}, "allOf": [branch]})),
            with(json!({"oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"oneOf": [branch]}}})),
        ] {
            assert!(schema.check(&json!({"tls": {"port": 5}})).is_ok(), "{schema:?}");
            let faults = schema.check(&json!({"tls": {"port": 5, "prot": 6}})).unwrap_err().join("; ");
            assert!(faults.contains("prot"), "{schema:?}: {faults}");
        }
        let list = with(json!({"oneOf": [{"properties": {"l": {"items": {"properties": {"a": {}}}}}}]}));
        assert!(list.check(&json!({"l": [{"a": 1}]})).is_ok());
        assert!(list.check(&json!({"l": [{"a": 1}, {"b": 1}]})).unwrap_err()[0].contains("params/l/1"));
    }

    #[test]
    fn a_condition_on_a_part_of_an_object_stays_one() {
        let schema = Schema::compile(Some(&json!({"type": "object",
            "properties": {"tls": {"type": "object", "properties": {"on": {}, "key": {}}}},
            "if": {"properties": {"tls": {"properties": {"on": {"const": true}}}}},
            "then": {"properties": {"tls": {"required": ["key"]}}}})))
        .unwrap();
        assert!(schema.check(&json!({"tls": {"on": false}})).is_ok());
        assert!(schema.check(&json!({"tls": {"on": true}})).is_err());
        assert!(schema.check(&json!({"tls": {"on": true, "key": "k"}})).is_ok());
        let parts = Schema::compile(Some(&json!({"type": "object", "allOf": [
            {"properties": {"o": {"properties": {"a": {}}}}}, {"properties": {"o": {"properties": {"b": {}}}}}]})))
        .unwrap();
        assert!(parts.check(&json!({"o": {"a": 1, "b": 2}})).is_ok());
        assert!(parts.check(&json!({"o": {"a": 1, "c": 2}})).is_err());
    }
}
