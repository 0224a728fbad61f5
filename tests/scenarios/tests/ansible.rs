//! Playbooks with the real `ansible-playbook`: a parameter stays data, and progress arrives.
//!
//! `HOSTLER_TEST_ANSIBLE` names another `ansible-playbook` than the one in `PATH`, for a second version.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hostler::domain::params::Schema;
use hostler::exec::ansible;
use serde_json::{Value, json};

/// Runs a playbook as the executor does, in a cleared environment.
fn run(dir: &Path, playbook: &str, params: &Value) -> Output {
    let copy = dir.join("copy");
    fs::create_dir_all(&copy).unwrap();
    fs::write(copy.join("play.yml"), playbook).unwrap();
    fs::write(dir.join("report"), "").unwrap();
    let play = ansible::play("play.yml", params, &dir.join("ansible"), None);
    for folder in &play.folders {
        fs::create_dir(folder).unwrap();
    }
    for file in &play.files {
        fs::write(&file.path, &file.contents).unwrap();
    }
    let program = std::env::var_os("HOSTLER_TEST_ANSIBLE").unwrap_or_else(|| play.argv[0].clone());
    Command::new(program)
        .args(&play.argv[1..])
        .current_dir(copy)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", dir)
        .env("HOSTLER_REPORT", dir.join("report"))
        .envs(play.env)
        .output()
        .expect("ansible-playbook is installed")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn a_parameter_is_never_executed_and_arrives_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let attack = format!("{{{{ lookup('pipe', 'touch {}') }}}}", trap.display());
    let params = json!({
        "direct": attack,
        "list": [attack, [attack, {"in": attack}]],
        "map": {attack.clone(): "under an evil key"},
        "statement": format!("{{% set x = {} %}}", attack),
        "tag": "!unsafe x", "quotes": "a \" b ' c \\ d", "lines": "one\ntwo\r\n\ttab \u{2028}\u{85} end ",
        "colon": "a: b # c", "star": "*alias", "unicode": "grüße 😀", "empty": "", "": "", "digits": "0123", "five": "5", "nothing": "null", "tilde": "~", "date": "2026-11-21",
        "brace": "{", "5": "x", "octal": "0o17", "colons": "12:30:45", "equals": "=", "merge": "<<", "<<": "y", "long": "x".repeat(5000),
        "number": 5, "small": 1e-7, "yes": true, "no": "no", "null": null,
        "ansible_python_interpreter": "/bin/false",
    });
    // Each way in which playbooks use a variable: as text, as part of a text, through a loop, through a fact,
    // through a filter, in a condition, as a name.
    let playbook = r#"
- hosts: all
  gather_facts: false
  tasks:
    - name: as it is
      copy: {content: "{{ params | to_json }}", dest: "{{ lookup('env', 'HOME') }}/out"}
    - name: in a text
      debug: {msg: "x {{ params.direct }} {{ params.statement }}"}
    - name: through a loop
      debug: {msg: "{{ item }}"}
      loop: "{{ params.list | flatten }}"
    - name: through its keys
      debug: {msg: "{{ item.key }} {{ item.value }}"}
      loop: "{{ params.map | dict2items }}"
    - name: through a fact
      set_fact: {later: "{{ params.direct }}", key: "{{ params.map.keys() | first }}"}
    - name: and again
      debug: {msg: "{{ later }} {{ key }}"}
    - name: through a filter
      debug: {msg: "{{ params.direct | upper }} {{ params.list[1] | last }}"}
    - name: in a variable of the task
      debug: {msg: "{{ inner }}"}
      vars: {inner: "{{ params.direct }}"}
    - name: in a condition
      debug: {msg: "it is"}
      when: params.direct == params.list[0]
    - name: as an argument
      command: {argv: ["/bin/echo", "{{ params.direct }}"]}
"#;
    let output = run(dir.path(), playbook, &params);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!trap.exists(), "a parameter was executed:\n{}", text(&output));
    let seen: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("out")).unwrap()).unwrap();
    assert_eq!(seen, params);
}

#[test]
fn a_key_alone_is_never_executed() {
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let attack = format!("{{{{ lookup('pipe', 'touch {}') }}}}", trap.display());
    let params = json!({"map": {attack: 1}});
    let playbook = r#"
- hosts: all
  gather_facts: false
  tasks:
    - set_fact: {whole: "{{ params.map.keys() | first }}", part: "key {{ params.map.keys() | first }}"}
    - debug: {msg: "{{ whole }} {{ part }}"}
    - debug: {msg: "{{ item.key }} and {{ inner }}"}
      loop: "{{ params.map | dict2items }}"
      vars: {inner: "{{ item.key | lower }}", later: "{{ inner }}"}
    - debug: {msg: "{{ params.map | to_json }} {{ list }}"}
      vars: {list: "{{ params.map | list }}"}
"#;
    let output = run(dir.path(), playbook, &params);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!trap.exists(), "a key was executed:\n{}", text(&output));
}

#[test]
fn a_trap_without_the_mark_does_spring() {
    // The test above proves something only as long as this holds.
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let playbook = format!(
        "- hosts: all\n  gather_facts: false\n  vars: {{x: \"{{{{ lookup('pipe', 'touch {}') }}}}\"}}\n  tasks:\n  - debug: {{msg: \"{{{{ x }}}}\"}}\n",
        trap.display()
    );
    let output = run(dir.path(), &playbook, &json!({}));
    assert!(trap.exists(), "{}", text(&output));
}

#[test]
fn what_ansible_obeys_is_no_parameter() {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let schema = Schema::compile(Some(&schema)).unwrap();
    assert!(schema.check(&json!({"ansible_python_interpreter": "/bin/false"})).is_err());
}

#[test]
fn its_tasks_are_the_progress_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "
- hosts: localhost
  gather_facts: false
  tasks:
    - name: first
      command: 'true'
    - block:
        - name: second
          command: 'true'
        - name: hidden
          command: /bin/sh -c 'echo word-that-is-secret; exit 1'
          no_log: true
          ignore_errors: true
    - name: last
      fail: {msg: it is over}
";
    let output = run(dir.path(), playbook, &json!({}));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let report = fs::read_to_string(dir.path().join("report")).unwrap();
    let lines: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(u64, &str)> = lines
        .iter()
        .map(|line| (line["progress"].as_u64().unwrap_or(100), line["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [(0, "first"), (25, "second"), (50, "hidden"), (75, "last"), (100, "failed: last: it is over")],
        "{}",
        text(&output)
    );
    assert!(!text(&output).contains('\u{1b}'));
}
