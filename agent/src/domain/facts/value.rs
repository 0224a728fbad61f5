//! From what a command printed, or a file holds, to the value of a fact: one JSON object.
//!
//! Its members are sorted, so that a program whose output has no order of its own does not seem to say something new
//! each time; texts lose their control characters, as everything that goes into a report.

use serde_json::{Map, Value};

use crate::domain::text;
use crate::domain::yaml::single_line;

/// A JSON object.
pub type Object = Map<String, Value>;

/// The largest value, in bytes of what was printed without the white space around it.
pub const MAX_VALUE: usize = 4 << 10;

/// How much is shown of what is no value, in bytes.
const SHOWN: usize = 60;

/// Reads a value.
///
/// # Errors
/// One line: what is wrong with it.
pub fn read(printed: &[u8]) -> Result<Object, String> {
    let printed = text::without_mark(printed).trim_ascii();
    if printed.is_empty() {
        return Err("it is empty, not a JSON object".to_owned());
    }
    if printed.len() > MAX_VALUE {
        return Err(format!("it is larger than {MAX_VALUE} bytes"));
    }
    match serde_json::from_slice(printed) {
        Ok(Value::Object(object)) => Ok(tidy_object(object)),
        Ok(_) => Err(format!("it is JSON, but no object: {}", shown(printed))),
        Err(error) => {
            Err(format!("it is not JSON ({}): {}", single_line(&error.to_string()), shown(printed)))
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    single_line(&text::head(&text::clean(&text), SHOWN))
}

fn tidy_object(object: Object) -> Object {
    let mut members: Vec<(String, Value)> =
        object.into_iter().map(|(name, value)| (text::clean(&name), tidy(value))).collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    members.into_iter().collect()
}

fn tidy(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text::clean(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(tidy).collect()),
        Value::Object(object) => Value::Object(tidy_object(object)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_a_value_and_nothing_else_is() {
        let good = read(b" {\"b\": [1, {\"z\": 1, \"a\": \"x\\u001b[31m\\ty\"}], \"a\": null}\n").unwrap();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(text, r#"{"a":null,"b":[1,{"a":"x [31m y","z":1}]}"#);
        for (printed, wanted) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (b"[1]", "no object: [1]"),
            (b"12", "no object"),
            (b"{\"a\": 1} {\"b\": 2}", "not JSON"),
            (b"role: primary", "not JSON"),
            (b"\xff\xfe\x00", "not JSON"),
            (b"{\"a\": \"\xff\"}", "not JSON"),
        ] {
            let error = read(printed).unwrap_err();
            assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
        }
        let of = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
        assert!(read(of(MAX_VALUE).as_bytes()).is_ok());
        assert!(read(of(MAX_VALUE + 1).as_bytes()).unwrap_err().contains("larger than 4096"));
        // Deeper than the reader goes: an error, not an overflow.
        assert!(read(format!("{{\"a\":{}", "[".repeat(4000)).as_bytes()).is_err());
    }
}
