//! Playbooks with the real `ansible-playbook`, that of Debian 12 and that of Debian 13: a parameter stays data, and
//! progress arrives.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hostler::domain::params::Schema;
use hostler::exec::ansible;
use serde_json::{Value, json};

/// Each version under test, which `tests/install` installs: Debian 12's in `PATH`, Debian 13's in the checkout.
fn versions() -> [PathBuf; 2] {
    let newer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ansible-venv/bin/ansible-playbook");
    assert!(newer.exists(), "{} is missing: run tests/install", newer.display());
    ["ansible-playbook".into(), newer]
}

/// Runs a playbook as the executor does, in a cleared environment.
fn run(program: &Path, dir: &Path, playbook: &str, params: &Value) -> Output {
    run_with(program, dir, playbook, params, &[])
}

/// The same with secrets.
fn run_with(program: &Path, dir: &Path, playbook: &str, params: &Value, secrets: &[(&str, &str)]) -> Output {
    let copy = dir.join("copy");
    fs::create_dir_all(&copy).unwrap();
    fs::write(copy.join("play.yml"), playbook).unwrap();
    fs::write(dir.join("report"), "").unwrap();
    let secret_file = dir.join("secrets.yml");
    fs::write(&secret_file, &*ansible::secret_vars(secrets.iter().copied())).unwrap();
    let play = ansible::play("play.yml", params, &dir.join("ansible"), Some(&secret_file));
    for folder in &play.folders {
        fs::create_dir(folder).unwrap();
    }
    for file in &play.files {
        fs::write(&file.path, &file.contents).unwrap();
    }
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
    for program in versions() {
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
        let output = run(&program, dir.path(), playbook, &params);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!trap.exists(), "a parameter was executed:\n{}", text(&output));
        let seen: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("out")).unwrap()).unwrap();
        assert_eq!(seen, params);
    }
}

#[test]
fn a_key_alone_is_never_executed() {
    for program in versions() {
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
        let output = run(&program, dir.path(), playbook, &params);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!trap.exists(), "a key was executed:\n{}", text(&output));
    }
}

#[test]
fn a_trap_without_the_mark_does_spring() {
    for program in versions() {
        // The test above proves something only as long as this holds.
        let dir = tempfile::tempdir().unwrap();
        let trap = dir.path().join("trap");
        let playbook = format!(
            "- hosts: all\n  gather_facts: false\n  vars: {{x: \"{{{{ lookup('pipe', 'touch {}') }}}}\"}}\n  tasks:\n  - debug: {{msg: \"{{{{ x }}}}\"}}\n",
            trap.display()
        );
        let output = run(&program, dir.path(), &playbook, &json!({}));
        assert!(trap.exists(), "{}", text(&output));
    }
}

#[test]
fn what_ansible_obeys_is_no_parameter() {
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let schema = Schema::compile(Some(&schema)).unwrap();
    assert!(schema.check(&json!({"ansible_python_interpreter": "/bin/false"})).is_err());
}

#[test]
fn its_tasks_are_the_progress_of_the_step() {
    for program in versions() {
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
        let output = run(&program, dir.path(), playbook, &json!({}));
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
}

/// Where Ansible evaluates text: `X` is the expression that names a parameter or secret. With `true`, the place takes an
/// expression, so that a text without braces would do.
const PLACES: [(&str, bool); 24] = [
    ("debug: {msg: there}\n      when: \"{{ X }}\"", true),
    ("debug: {msg: there}\n      when: X", false),
    ("debug: {msg: there}\n      when: [true, \"{{ X }}\"]", true),
    ("assert: {that: \"{{ X }}\"}", true),
    ("assert: {that: [\"{{ X }}\"]}", true),
    ("assert: {that: [true], success_msg: \"{{ X }}\"}", false),
    ("debug: {var: \"{{ X }}\"}", true),
    ("debug: {var: \"X\"}", false),
    ("debug: {msg: \"{{ X }} in a text\"}", false),
    ("command: 'true'\n      changed_when: \"{{ X }}\"", true),
    ("command: 'true'\n      failed_when: \"{{ X }}\"", true),
    ("command: 'true'\n      register: r\n      until: \"{{ X }}\"\n      retries: 1\n      delay: 0", true),
    ("debug: {msg: \"{{ item }}\"}\n      loop: [\"{{ X }}\"]", false),
    ("debug: {msg: \"{{ item }}\"}\n      loop: \"{{ X }}\"", false),
    ("debug: {msg: \"{{ item }}\"}\n      with_items: \"{{ X }}\"", false),
    ("debug: {msg: \"{{ item }}\"}\n      with_dict: {a: \"{{ X }}\"}", false),
    ("debug: {msg: x}\n      loop: [1]\n      loop_control: {label: \"{{ X }}\"}", false),
    ("debug: {msg: \"{{ inner }}\"}\n      vars: {inner: \"{{ X }}\"}", false),
    ("debug: {msg: x}\n      vars: {inner: \"{{ X }}\"}\n      when: \"{{ inner }}\"", true),
    ("debug: {msg: x}\n      vars: {inner: \"{{ X }}\"}\n      when: inner", false),
    ("command: env\n      environment: {A: \"{{ X }}\"}", false),
    (
        "debug: {msg: \"{{ lookup('vars', 'inner') }} {{ query('varnames', 'inner') }}\"}\n      vars: {inner: \"{{ X }}\"}",
        false,
    ),
    ("copy: {content: \"{{ X }}\", dest: /dev/null}\n      check_mode: \"{{ X }}\"", false),
    ("debug: {msg: x}\n      ignore_errors: \"{{ X }}\"\n      name: \"{{ X }}\"", false),
];

/// A playbook with each place as a task of its own, none of which keeps the next from its turn.
fn everywhere(name: &str) -> String {
    let mut playbook = "- hosts: all\n  gather_facts: false\n  tasks:\n".to_owned();
    for (place, _) in PLACES {
        let task = place.replace('X', name).replace("\n      ", "\n          ");
        playbook += &format!("    - block:\n        - {task}\n      rescue:\n        - meta: noop\n");
    }
    playbook + "    - debug: {msg: all places were passed}\n"
}

#[test]
fn no_place_where_ansible_evaluates_text_executes_a_parameter_or_a_secret() {
    for program in versions() {
        for (name, braces) in [
            ("params.x", true),
            ("params.x", false),
            ("params.l[0].k", false),
            ("secrets.x", false),
            ("secrets.x", true),
            ("(params.m | first)", false),
            ("(params.m.keys() | list | first)", true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let trap = dir.path().join("trap");
            let expression = format!("lookup('pipe', 'touch {}')", trap.display());
            let attack = if braces { format!("{{{{ {expression} }}}}") } else { expression };
            let params = json!({"x": attack, "l": [{"k": attack}], "m": {attack.clone(): 1}});
            let playbook = everywhere(name);
            let output = run_with(&program, dir.path(), &playbook, &params, &[("x", &attack)]);
            assert!(!trap.exists(), "{name}, {braces}: executed:\n{}", text(&output));
            assert!(text(&output).contains("all places were passed"), "{}", text(&output));
        }
    }
}

#[test]
fn without_the_mark_each_of_these_places_executes_it() {
    // The test above proves something only as long as this holds.
    let program = Path::new("ansible-playbook");
    let dir = tempfile::tempdir().unwrap();
    let mut playbook = "- hosts: all\n  gather_facts: false\n  tasks:\n".to_owned();
    let (mut number, mut names) = (0, Vec::new());
    for (place, bare) in PLACES {
        for bare in if bare { vec![true, false] } else { vec![false] } {
            number += 1;
            let trap = dir.path().join(format!("trap{number}"));
            let expression = format!("lookup('pipe', 'touch {}')", trap.display());
            let text = if bare { expression } else { format!("{{{{ {expression} }}}}") };
            let task = place.replace('X', "x").replace("\n      ", "\n          ");
            playbook += &format!(
                "    - block:\n        - {task}\n      vars: {{x: \"{text}\"}}\n      rescue:\n        - meta: noop\n"
            );
            names.push((trap, place, bare));
        }
    }
    let output = run(program, dir.path(), &playbook, &json!({}));
    let missed: Vec<_> =
        names.iter().filter(|(trap, ..)| !trap.exists()).map(|(_, place, bare)| (place, bare)).collect();
    assert!(missed.is_empty(), "not evaluated: {missed:?}\n{}", text(&output));
}
