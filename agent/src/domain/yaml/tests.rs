//! Documents from people, hostile ones among them: what is read, what is refused, and where a fault is said to be.

use super::*;
use serde::Deserialize;
use serde_json::{Value, json};

const LIMIT: usize = 64 * 1024;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Doc {
    task: String,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    inner: Vec<Inner>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inner {
    wait: crate::domain::span::Span,
}

fn error(text: &str) -> String {
    parse::<Doc>(text, LIMIT).unwrap_err().to_string()
}

#[test]
fn yaml_and_json_read_the_same() {
    let yaml = parse::<Doc>("task: a\nparams: {n: 5, t: \"x😀\", l: [1.5, null, true]}\n", LIMIT).unwrap();
    let json = "{\n\t\"task\":\"a\",\"params\":{\"n\":5,\"t\":\"x\\ud83d\\ude00\",\"l\":[1.5,null,true]}}";
    assert_eq!(parse::<Doc>(json, LIMIT).unwrap(), yaml);
    assert_eq!(yaml.params["l"], json!([1.5, null, true]));
}

#[test]
fn an_error_names_the_place_and_the_cure() {
    for (text, wanted) in [
        ("task: a\nparms: {}\n", "2:1: parms: unknown field `parms`: did you mean `params`?"),
        ("task: a\nzzzzzz: {}\n", "2:1: zzzzzz: unknown field `zzzzzz`: use one of task, params, inner"),
        ("task: [5]\n", "1:7: task: invalid type: sequence, expected a string"),
        ("{\"task\": 5}", "task: invalid type: integer `5`, expected a string: put it in quotes"),
        ("params: {}\n", "1:1: missing field `task`"),
        ("", "1:1: the document is empty"),
        ("task: a\n---\ntask: b\n", "more than one document"),
        ("task: a\nparams: {a: {b: 1, b: 2}}\n", "2:20: params.a.b: the key `b` appears twice"),
        ("{\"task\": \"a\", \"task\": \"b\"}", "the key `task` appears twice"),
        ("task: a\nparams: [{5: x}]\n", "put it in quotes"),
        ("task: a\nparams: {? [a] : x}\n", "put it in quotes"),
        ("task: a\nparams:\n  - 9007199254740993\n", "3:5: params[0]: the number 9007199254740993"),
        ("task: a\nparams: -9007199254740993\n", "beyond 2^53"),
        ("task: a\nparams: 99999999999999999999999999999999999999999999\n", "beyond 2^53"),
        ("task: a\nparams: 170141183460469231731687303715884105727\n", "beyond 2^53"),
        ("task: a\nparams: [1, .nan]\n", "2:13: params[1]: `NaN` is not a finite number"),
        ("task: a\nparams: -.inf\n", "not a finite number"),
        ("task: a\nparams: {a: !x 5}\n", "tags are not allowed"),
        ("task: a\nparams: {!x a: 5}\n", "tags are not allowed"),
        ("task: a\ninner:\n- {wait: 1s}\n- wait: 5\n", "4:9: inner[1].wait: \"5\" is not a length"),
        ("task: a\ninner:\n- {wait: 1s}\n- wait: five\n", "4:9: inner[1].wait: \"five\" is not a length"),
        ("task: a\nparams: *x\n", "unknown anchor"),
        ("task: [a\n", "did not find"),
    ] {
        let got = error(text);
        assert!(got.contains(wanted), "{text:?}\n got    {got}\n wanted {wanted}");
        assert!(!got.contains('\n'), "{got}");
    }
    let bad = parse::<Doc>(b"task: a\nparams: \xff", LIMIT).unwrap_err();
    assert_eq!((bad.line, bad.column), (2, 9));
    assert!(parse::<Doc>("task: abcdefgh", 10).unwrap_err().message.contains("at most 10"));
}

#[test]
fn numbers_at_the_edge_are_kept() {
    let doc = parse::<Value>("[9007199254740992, -9007199254740992, 0.1]", LIMIT).unwrap();
    assert_eq!(doc, json!([9_007_199_254_740_992_i64, -9_007_199_254_740_992_i64, 0.1]));
}

#[test]
fn hostile_documents_are_refused_and_cost_little() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(parse::<Value>(&bomb, LIMIT).is_err());
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(30_000), "*a,".repeat(9_000));
    assert!(parse::<Value>(&wide, LIMIT).unwrap_err().message.contains("aliases expand too far"));
    for text in [
        "[".repeat(60_000),
        "{a: ".repeat(15_000),
        "- ".repeat(30_000),
        "? ".repeat(30_000),
        "{\"a\":".repeat(10_000),
        "a: &a [*a]".to_owned(),
        "\u{feff}a: \u{0}".to_owned(),
        "%YAML 9.9\n---\na".to_owned(),
        "a: \"\\ud800\"".to_owned(),
        "!<tag:x> {}".to_owned(),
        "&".to_owned(),
        "\t".to_owned(),
    ] {
        assert!(parse::<Doc>(&text, LIMIT).is_err(), "{}", &text[..text.len().min(20)]);
    }
}

#[test]
fn every_cut_of_a_document_is_an_answer() {
    let text = "task: a\nparams: {a: [1, {b: \"x\\n\"}], c: !t 5}\ninner:\n- {wait: 1s}\n- wait: &x 5\n";
    for end in 0..text.len() {
        let _ = parse::<Doc>(&text[..end], LIMIT);
        let _ = parse::<Doc>(&text[end..], LIMIT);
    }
}

#[test]
fn a_place_is_found_by_its_path() {
    let text = "a:\n  b:\n    - x\n    - y: z\n";
    let at = |path: &[PathSegment]| {
        let error = error_at(text, path, "m");
        (error.line, error.column)
    };
    assert_eq!(at(&["a".into(), "b".into(), 1.into(), "y".into()]), (4, 10));
    assert_eq!(at(&["a".into(), "b".into(), 9.into()]), (3, 5));
    assert_eq!(at(&["a".into(), "q".into()]), (2, 3));
    assert_eq!(at(&[]), (1, 1));
}

#[test]
fn a_byte_order_mark_is_dropped_and_utf_16_is_named() {
    for text in
        ["\u{feff}task: a\n", "\u{feff}---\ntask: a\n", "\u{feff}{\"task\": \"a\"}", "\u{feff}# c\ntask: a"]
    {
        assert_eq!(parse::<Value>(text, LIMIT).unwrap(), json!({"task": "a"}), "{text:?}");
    }
    let escaped = "\u{feff}{\"a\": \"\\ud83d\\ude00\"}";
    assert_eq!(parse::<Value>(escaped, LIMIT).unwrap(), json!({"a": "\u{1f600}"}));
    let marked = error_at("\u{feff}a: b\n", &["a".into()], "m");
    assert_eq!((marked.line, marked.column), (1, 4));
    assert!(has("\u{feff}a: {b: 1}", &["a".into(), "b".into()]));
    let wide = |text: &str, swap: bool| -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    };
    for swap in [false, true] {
        for text in ["\u{feff}task: hello\n", "task: hello\nparams: {}\n"] {
            let error = parse::<Value>(wide(text, swap), LIMIT).unwrap_err().to_string();
            assert!(error.contains("UTF-16"), "{error}");
        }
    }
}

#[test]
fn what_a_reader_would_drop_or_say_badly_is_named() {
    for (text, wanted) in [
        ("task: !!binary aGFsbG8=", "1:7: the tag `!!binary`"),
        ("a: {b: !!timestamp 2026-01-01}", "`!!timestamp`"),
        ("a:\n- !!set {x}", "2:3"),
        ("a:\n\tb: 1", "a tab: indent with spaces"),
    ] {
        let error = parse::<Value>(text, LIMIT).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    for text in ["a: 'x !!binary y'", "a: b # !!binary", "a: !!str 5", "a: wow!!set", "{\"a\": \": !!set\"}"]
    {
        assert!(parse::<Value>(text, LIMIT).is_ok(), "{text:?}");
    }
    let error = parse::<Value>("params: &p {tag: *p}", LIMIT).unwrap_err().to_string();
    assert!(error.len() < 300 && error.matches("tag").count() < 20, "{error}");
}
