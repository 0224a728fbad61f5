//! A task is read as it stands in the design, and each fault is told with its place and its cure.

use super::gate::{DiskFreeFile, GateFile};
use super::step::{CommandFile, StepFile};
use super::*;

const FULL: &str = r#"
name: postgres-upgrade
version: 3
description: Upgrade a PostgreSQL cluster to a newer major version
params:
  type: object
  required: [cluster, to]
  properties:
    cluster: {type: string, pattern: "^[a-z][a-z0-9_-]{0,30}$"}
    to: {type: integer, minimum: 13}
secrets:
  dba: {path: "kv/data/postgres/{{ host }}", field: password}
resources:
  - {name: "postgres:{{ params.cluster }}", mode: exclusive}
gates: [{disk_free: {path: /var/lib/postgresql, percent: 20}}]
limits: {memory: 2G, cpu_weight: 50, io_weight: 50, tasks: 500}
timeout: 4h
max_reboots: 1
retry: {max: 10, initial: 1m, max_delay: 30m}
probe:  {run: [./probe, "{{ params.cluster }}", "{{ params.to }}"], timeout: 60s}
steps:
  - name: copy
    run: [./copy, "{{ params.cluster }}", "{{ params.to }}"]
    user: postgres
    effect: repeatable
  - name: switch
    run: [./switch, "{{ params.cluster }}", "{{ params.to }}"]
    check: [./is-switched, "{{ params.cluster }}", "{{ params.to }}"]
    undo: [./switch-back, "{{ params.cluster }}"]
    effect: undoable
    on_cancel: wait
  - name: drop-old
    ansible: drop-old.yml
    effect: final
verify: {run: [./verify, "{{ params.cluster }}", "{{ params.to }}"]}
"#;

const SMALL: &str = "name: t
version: 1
steps:
- name: a
  run: [./a]
";

fn faults(text: &str) -> Vec<String> {
    Task::read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn only_standard_input_sees_secrets_and_only_those_that_are_named() {
    let with = |line: &str| format!("{SMALL}  {line}\nsecrets: {{dba: {{path: kv/x, field: y}}}}\n");
    let task = Task::read(&with("stdin: '<p>{{ secrets.dba | e }}</p>{{ host }}'")).unwrap();
    assert!(task.steps[0].stdin.is_some() && !task.secrets.values().next().unwrap().allow_short_secret);
    for (line, word) in [
        ("stdin: '{{ secrets.bda }}'", "unknown secret `bda`"),
        ("stdin: '{{ secrets }}'", "templates cannot see secrets"),
        ("stdin: '{{ params.x }}'", "unknown parameter"),
        ("check: [./a, '{{ secrets.dba }}']", "templates cannot see secrets"),
    ] {
        let said = faults(&with(line));
        assert!(said.iter().any(|fault| fault.contains(word)), "{line}: {said:?}");
    }
}

#[test]
fn the_example_of_the_design_is_read_as_it_stands() {
    let task = Task::read(FULL).unwrap();
    assert_eq!(task.steps.len(), 3);
    assert_eq!(task.steps[1].effect, Effect::Undoable);
    assert_eq!(task.steps[1].grace, Span::secs(30));
    assert!(matches!(task.gates[0], Gate::DiskFree { free: Free::Percent(20), .. }));
    assert_eq!(task.probe.as_ref().unwrap().timeout, Some(Span::secs(60)));
    assert_eq!(task.commands().len(), 6);
    assert_eq!(task.playbooks()[0].1, "drop-old.yml");
    assert!(!task.is_repeatable() && !task.may_reconcile());
    assert!(task.schema.check(&serde_json::json!({"cluster": "main", "to": 12})).is_err());
    let small = Task::read(SMALL).unwrap();
    assert_eq!(small.timeout, Span::secs(3600));
    assert_eq!(small.steps[0].effect, Effect::Once);
    assert!(small.schema.check(&serde_json::json!({"x": 1})).is_err());
}

/// The example with a guard at its second step.
fn guarded(fields: &str) -> String {
    FULL.replace("    on_cancel: wait", &format!("    guard: {{run: [./release], {fields}}}"))
}

#[test]
fn guards_and_resumable_steps_are_read() {
    let task = Task::read(&guarded("within: 10s")).unwrap();
    let guard = task.steps[1].guard.as_ref().unwrap();
    assert_eq!((guard.timeout, &guard.until), (Span::secs(60), &None));
    assert!(task.commands().iter().any(|(path, _)| path.last() == Some(&"guard".into())));
    let task = Task::read(&guarded("within: 4h, until: drop-old, timeout: 5s, user: postgres")).unwrap();
    assert_eq!(task.steps[1].guard.as_ref().unwrap().until.as_ref().unwrap().as_str(), "drop-old");
    let text = FULL.replace("effect: final", "effect: final\n    check: [./gone]\n    resumable: true");
    assert!(Task::read(&text).unwrap().steps[2].resumable);
}

#[test]
fn each_fault_has_its_place_and_cure() {
    let full = |from: &str, to: &str| FULL.replace(from, to);
    let mut wrong: Vec<String> = Vec::new();
    for (text, wanted) in [
        (
            full("on_cancel: wait", "on_cancle: wait"),
            "31:5: steps[1].on_cancle: unknown field `on_cancle`: did you mean `on_cancel`?",
        ),
        (full("on_cancel: wait", "on_cancel: wiat"), "did you mean `wait`?"),
        (
            full("params.to }}\"], timeout", "params.tp }}\"], timeout"),
            "20:49: probe.run[2]: unknown parameter `params.tp`: did you mean `params.to`?",
        ),
        (full("{{ host }}", "{{ secrets.x }}"), "12:15: secrets.dba.path: templates cannot see secrets"),
        (
            full("[./switch-back, \"{{ params.cluster }}\"]", "[./switch-back, \"{{ cluster }}\"]"),
            "29:27: steps[1].undo[1]: unknown name `cluster`: did you mean `params.cluster`?",
        ),
        (
            full("    undo: [./switch-back, \"{{ params.cluster }}\"]\n", ""),
            "26:5: steps[1]: an undoable step needs `undo`",
        ),
        (full("effect: undoable", "effect: repeatable"), "29:11: steps[1].undo: only an `effect: undoable`"),
        (full("name: switch", "name: copy"), "26:11: steps[1].name: a second step `copy`"),
        (full("ansible: drop-old.yml", "ansible: ../x.yml"), "33:14: steps[2].ansible: a playbook is named"),
        (full("effect: final", "keep_processes: true"), "keep_processes: a playbook leaves nothing"),
        (full("on_cancel: wait", "on_timeout: kill"), "steps[1].on_timeout: only an `effect: final`"),
        (guarded("within: 0s"), "steps[1].guard.within: more than nothing"),
        (
            guarded("within: 5h"),
            "steps[1].guard.within: more than nothing, at most the task's `timeout` of 4h",
        ),
        (guarded("within: 10s, timeout: 2h"), "steps[1].guard.timeout: more than nothing, at most 1h"),
        (guarded("within: 10s, until: copy"), "until: step `copy` is carried out before this one"),
        (guarded("within: 10s, until: switch"), "until: without `until` the guard is armed until this step"),
        (
            guarded("within: 10s, until: drop-odl"),
            "until: there is no step `drop-odl`: did you mean `drop-old`?",
        ),
        (guarded("within: 10s, untill: drop-old"), "did you mean `until`?"),
        (guarded("until: drop-old"), "missing field `within`"),
        (
            full("effect: final", "effect: final\n    guard: {run: [./a], within: 1m, until: copy}"),
            "steps[2].guard.until: step `copy` lies before this final step",
        ),
        (full("effect: repeatable", "effect: repeatable\n    resumable: true"), "steps[0].resumable: only"),
        (full("effect: final", "effect: final\n    resumable: true"), "steps[2].resumable: only"),
        (full("version: 3", "version: 0"), "3:10: version: versions are counted from 1"),
        (full("version: 3", "version: -1"), "3:10: version: "),
        (full("[./copy,", "[\"{{ params.cluster\","), "23:11: steps[0].run[0]: not a template"),
        (full("[./copy,", "[\"./{{ params.cluster }}\","), "the program itself is not a template"),
        (full("[./copy,", "[../copy,"), "write ./name"),
        (full("minimum: 13", "minimum: thirteen"), "params.properties.to.minimum: not a JSON Schema"),
        (full("type: integer", "$ref: \"x.json\""), "params.properties.to.$ref: `$ref` leaves"),
        (
            full("{disk_free: {path: /var/lib/postgresql, percent: 20}}", "{error_budget: {service: Web}}"),
            "\"Web\" is not the name of a service",
        ),
        (
            full(
                "{disk_free: {path: /var/lib/postgresql, percent: 20}}",
                "{error_budget: {service: \"{{ params.nope }}\"}}",
            ),
            "nope",
        ),
        (full("percent: 20", "percent: 20, bytes: 5G"), "15:9: gates[0]: `disk_free` needs either"),
        (
            full("[{disk_free: {path: /var/lib/postgresql, percent: 20}}]", "[{fact: \"a.b ==\"}]"),
            "15:16: gates[0].fact: not an expression",
        ),
        (
            full("gates: [", "gates: [{fact: a.b == params.clustr}, "),
            "gates[0].fact: unknown parameter `params.clustr`: did you mean `params.cluster`?",
        ),
        (full("gates: [", "gates: [{fact: params.to > 13}, "), "gates[0].fact: the expression names no fact"),
        (
            full("gates: [", "gates: [{fact: a.b, disk_free: {path: /, percent: 1}}, "),
            "a gate has exactly one key",
        ),
        (full("disk_free", "disk_fre"), "did you mean `disk_free`?"),
        (full("timeout: 4h", "timeout: 4 hours"), "17:10: timeout: \"4 hours\" is not a length of time"),
        (full("name: \"postgres:", "name: \"host:"), "resources[0].name: names that begin with `host:`"),
        (full("max: 10", "max: 0"), "retry.max: at least 1"),
        (
            full("ansible: drop-old.yml", "ansible: x.yml\n    run: [./a]"),
            "steps[2]: a step has exactly one of",
        ),
        (full("cpu_weight: 50", "cpu_weight: 0"), "limits.cpu_weight: a weight is"),
        (
            full("effect: repeatable", "effect: final"),
            "30:13: steps[1].effect: nothing is undone after the final step `copy`",
        ),
        ("name: t\nversion: 1\nsteps: []\n".to_owned(), "3:8: steps: a task has at least one step"),
        ("name: T\nversion: 1\nsteps: []\n".to_owned(), "1:7: name: \"T\" is not a name"),
        ("version: 1\nsteps: []\n".to_owned(), "1:1: missing field `name`"),
    ] {
        let got = faults(&text);
        if !got.iter().any(|got| got.contains(wanted)) {
            wrong.push(format!("\n wanted {wanted}\n got    {got:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    let many: String = (0..101)
        .map(|i| {
            format!(
                "- {{name: s{i}, run: [x]}}
"
            )
        })
        .collect();
    assert!(
        faults(&format!(
            "name: t
version: 1
steps:
{many}"
        ))[0]
            .contains("101 steps are too many")
    );
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = FULL.replace("params.to", "params.tp").replace("version: 3", "version: 0");
    let got = faults(&text);
    assert_eq!(got.len(), 6, "{got:#?}");
    assert!(got[0].starts_with("3:"));
}

#[test]
fn the_schema_describes_what_is_read() {
    use yaml::described::same_fields;
    let schema = include_str!("../../../schemas/task.json");
    same_fields::<Task>(schema, "");
    same_fields::<StepFile>(schema, "/$defs/step");
    same_fields::<CommandFile>(schema, "/$defs/command/oneOf/1");
    same_fields::<Guard>(schema, "/$defs/guard");
    same_fields::<Secret>(schema, "/$defs/secret");
    same_fields::<Resource>(schema, "/$defs/resource");
    same_fields::<GateFile>(schema, "/$defs/gate");
    same_fields::<DiskFreeFile>(schema, "/$defs/gate/properties/disk_free");
    same_fields::<Limits>(schema, "/$defs/limits");
    same_fields::<Retry>(schema, "/$defs/retry");
}

#[test]
fn a_parameter_never_becomes_code_wherever_a_command_is() {
    let with = |lines: &str| {
        format!("name: t\nversion: 1\nparams: {{type: object, properties: {{x: {{type: string}}}}}}\n{lines}")
    };
    let step = "steps:\n- name: a\n  run: [./a]\n";
    for (lines, place) in [
        ("steps:\n- name: a\n  run: [bash, -c, 'ls {{ params.x }}']\n".to_owned(), "6:19: steps[0].run[2]"),
        (format!("{step}  check: {{run: [sh, -c, 'test {{{{ params.x }}}}']}}\n"), "steps[0].check.run[2]"),
        (format!("{step}  undo: [perl, -e, '{{{{ params.x }}}}']\n  effect: undoable\n"), "steps[0].undo[2]"),
        (format!("{step}probe: [sudo, awk, '/{{{{ params.x }}}}/', f]\n"), "probe[2]"),
        (format!("{step}verify: {{run: [ssh, h, 'ls {{{{ params.x }}}}']}}\n"), "verify.run[2]"),
        ("steps:\n- name: a\n  run: [sh]\n  stdin: 'ls {{ params.x }}'\n".to_owned(), "steps[0].stdin"),
    ] {
        let said = faults(&with(&lines));
        assert_eq!(said.len(), 1, "{lines}: {said:?}");
        assert!(said[0].contains(place) && said[0].contains("code"), "{lines}: {said:?}");
    }
    let fine = "steps:\n- name: a\n  run: [sh, -c, 'ls \"$1\"', sh, '{{ params.x }}']\n";
    assert!(Task::read(&with(fine)).is_ok());
}
