//! What Ansible is given of an order's parameters and of secrets: plain ASCII, that YAML reads back as what was meant,
//! each map and list in it marked as data.
#![no_main]

use hostler::exec::ansible::{extra_vars, secret_vars};
use serde_json::Value;
use serde_yaml::Value as Yaml;

/// Of deeper documents YAML's reader reads none.
const DEEPEST: usize = 40;

libfuzzer_sys::fuzz_target!(|text: &str| {
    // A secret's name is the task's, and short.
    let handed = read(&secret_vars([("password", text)]));
    same(&handed["secrets"], &serde_json::json!({"password": text}));

    let Ok(params) = serde_json::from_str::<Value>(text) else { return };
    if depth(&params) > DEEPEST {
        return;
    }
    let handed = read(&extra_vars(&params));
    match &params {
        Value::Object(_) | Value::Array(_) => same(&handed["params"], &params),
        single => same(&handed["params"], &Value::Array(vec![single.clone()])),
    }
});

fn read(text: &str) -> Yaml {
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "not plain: {text:?}");
    assert_eq!(text.matches('\n').count(), 1, "more than one line: {text:?}");
    serde_yaml::from_str(text).expect("YAML")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The same value; a list or a map only behind `!unsafe`, which Ansible also gives to each key and text in it.
fn same(handed: &Yaml, meant: &Value) {
    match (handed, meant) {
        (Yaml::Tagged(tagged), Value::Object(map)) => {
            assert!(tagged.tag == "unsafe");
            let handed = tagged.value.as_mapping().expect("a map");
            assert_eq!(handed.len(), map.len());
            map.iter().for_each(|(key, item)| same(&handed[key.as_str()], item));
        }
        (Yaml::Tagged(tagged), Value::Array(list)) => {
            assert!(tagged.tag == "unsafe");
            let handed = tagged.value.as_sequence().expect("a list");
            assert_eq!(handed.len(), list.len());
            handed.iter().zip(list).for_each(|(one, other)| same(one, other));
        }
        (Yaml::String(one), Value::String(other)) => assert_eq!(one, other),
        (Yaml::Bool(one), Value::Bool(other)) => assert_eq!(one, other),
        (Yaml::Null, Value::Null) => {}
        (Yaml::Number(one), Value::Number(other)) => {
            let same = one.as_i64() == other.as_i64() && one.as_u64() == other.as_u64();
            assert!(same || one.as_f64() == other.as_f64(), "{one} for {other}");
        }
        _ => panic!("{handed:?} for {meant}"),
    }
}
