//! Schemas in `params:` and what they admit: the first line is the schema, the second a value of an order.
#![no_main]

use hostler::domain::params::Schema;
use hostler_fuzz::readable;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(written) = serde_json::from_str::<Value>(first) else { return };
    let schema = match Schema::compile(Some(&written)) {
        Ok(schema) => schema,
        Err(error) => return readable(&error),
    };
    schema.warnings().iter().for_each(readable);
    // A dot leads into a map, and a `$ref` at the top to other properties.
    let plain = |name: &&str| !name.contains('.') && written.get("$ref").is_none();
    for name in schema.names().filter(plain) {
        assert!(schema.admits(name), "a name that is not admitted: {name:?}");
    }
    let Ok(params) = serde_json::from_str::<Value>(second) else { return };
    match schema.check(&params) {
        // What was admitted is admitted again, and is as it was: defaults are there, whole numbers are whole.
        Ok(filled) => assert_eq!(schema.check(&filled).as_ref(), Ok(&filled)),
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a reason");
            faults.iter().for_each(readable);
        }
    }
});
