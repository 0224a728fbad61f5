//! The double of Vault against recordings of a real one: each recorded request is sent to the double, and the
//! answers are compared by status, headers and shape; the texts of errors word for word.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use hostler_testkit::{FaultMode, Vault};
use serde_json::{Value, json};

/// Brings the double into the state that the recording was made in.
fn prepare(vault: &Vault, name: &str, recorded: &Value) {
    let request = &recorded["request"];
    let unknown = ["bad-token", "token-revoked-use", "token-revoked-revoke-self"];
    if let Some(token) = request["headers"]["X-Vault-Token"].as_str() {
        let policies: &[&str] = match name {
            "token-create-forbidden" => &["default"],
            _ => &["agent", "default"],
        };
        if name.starts_with("unwrap") {
            vault.wrap(token, recorded["response"]["body"]["data"].clone());
            if name == "unwrap-second-time" {
                send(vault, request);
            }
        } else if !unknown.contains(&name) {
            vault.token(token, policies, 3600);
        }
        if let Some(lease) = request["body"]["lease_id"].as_str().filter(|_| !name.ends_with("unknown")) {
            vault.lease(lease, token, 3600);
        }
    }
    vault.put("app/db", json!({"password": "first", "user": "u1"}));
    vault.put("app/db", json!({"n": 5, "nested": {"x": [1, null, true]}, "text": "x", "user": "u2"}));
    vault.put_v1("app/a", json!({"n": 5, "nested": {"x": [1, null, true]}, "text": "x", "user": "u1"}));
    if name == "kv2-read-deleted" {
        vault.delete("app/db");
    }
    if name == "kv2-metadata-deleted" {
        vault.put("app/db", json!({"n": 6}));
        vault.delete("app/db");
    }
    if name == "ha-standby-read-redirect" {
        vault.ail(FaultMode::Standby("http://vault-1.example:8200".into()));
    }
    if name == "rate-limit-429-headers" {
        vault.ail(FaultMode::TooMany(2));
    }
    if name == "rate-limit-429" {
        vault.ail(FaultMode::Status(429, "request path \"kv1/app/a\": rate limit quota exceeded".into()));
    }
    vault.seal(name.contains("sealed"));
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn send(vault: &Vault, request: &Value) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", vault.port())).expect("the double");
    let body = match &request["body"] {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut head =
        format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", text(&request["method"]), text(&request["path"]));
    for (name, value) in request["headers"].as_object().expect("headers") {
        head.push_str(&format!("{name}: {}\r\n", text(value)));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(head.as_bytes()).expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Keys and kinds; what stands in them is the server's.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(list) => list.first().map_or_else(|| json!([]), |first| json!([shape(first)])),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!(0),
        other => other.clone(),
    }
}

#[test]
fn the_double_answers_as_a_real_vault_was_recorded_to() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vault");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the recordings") {
        let path = entry.expect("a recording").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let recorded: Value = serde_json::from_slice(&fs::read(&path).expect("a recording")).expect("JSON");
        let vault = Vault::double();
        prepare(&vault, &name, &recorded);
        let answer = send(&vault, &recorded["request"]);
        let wanted = &recorded["response"];
        if wanted["status"] != json!(answer.status) {
            wrong.push(format!("{name}: {} instead of {}: {}", answer.status, wanted["status"], answer.body));
            continue;
        }
        for (header, value) in wanted["headers"].as_object().expect("headers") {
            let line = format!("{header}: {}", value.as_str().unwrap_or_default());
            if !answer.head.lines().any(|known| known == line) {
                wrong.push(format!("{name}: no {line}"));
            }
        }
        let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        let expected = &wanted["body"];
        let same = if expected.get("errors").is_some() {
            *expected == body
        } else {
            shape(expected) == shape(&body)
        };
        if !same {
            wrong.push(format!("{name}:\n  wanted {expected}\n  got    {body}"));
        }
    }
    assert!(count > 30, "the recordings are found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
