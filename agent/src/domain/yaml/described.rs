//! Holds the descriptions of documents against their readers.
//!
//! Schemas are written by hand; this is what keeps one from missing a field that is read, or promising one that is not.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Fails unless the part of a schema at `pointer` describes the very fields that `T` reads.
#[track_caller]
pub(crate) fn same_fields<T: DeserializeOwned>(schema: &str, pointer: &str) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let properties = schema.pointer(pointer).and_then(|part| part.get("properties"));
    let properties =
        properties.and_then(Value::as_object).unwrap_or_else(|| panic!("nothing at {pointer:?}"));
    let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    // The reader itself names its fields, when it meets an unknown one.
    let error = serde_json::from_value::<T>(json!({"no such field": 0})).err().unwrap().to_string();
    let read: BTreeSet<&str> = error.split('`').skip(3).step_by(2).collect();
    assert!(!read.is_empty(), "{error}");
    assert_eq!(described, read, "{pointer:?}");
}
