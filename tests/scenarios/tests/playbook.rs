//! A playbook as a step, from an order to a report (promise P8).

use std::fs;

use hostler_testkit::Host;

const PLAYBOOK: &str = r#"
- hosts: localhost
  gather_facts: false
  tasks:
    - name: write the parameter
      ansible.builtin.copy: {dest: "{{ params.to }}", content: "{{ params.text }}"}
    - name: say so
      ansible.builtin.debug: {msg: done}
"#;

#[test]
fn p8_a_playbook_takes_parameters_as_data_and_shows_its_progress() {
    let mut host = Host::on_dir("playbook");
    let yaml = "name: play\nversion: 1\nparams:\n  type: object\n  required: [to, text]\n\
                \x20 properties: {to: {type: string}, text: {type: string}}\n\
                steps:\n  - {name: play, ansible: play.yml, effect: repeatable}\n";
    host.task("play", yaml, &[("play.yml", PLAYBOOK)]);
    host.start();
    let (to, trap) = (host.path("written"), host.path("trap"));
    let text = format!("{{{{ lookup('pipe', 'touch {}') }}}}", trap.display());
    let order = serde_json::json!({"task": "play", "params": {"to": to, "text": text}});
    host.order("o", &order.to_string());
    let report = host.wait_for("o", &["succeeded", "failed", "refused"]);
    assert_eq!(report["phase"], "succeeded", "{report}");
    assert_eq!(fs::read_to_string(&to).unwrap(), text, "the parameter is written as it is");
    assert!(!trap.exists(), "the parameter was carried out");
    assert!(report["message"].as_str().unwrap().contains("say so"), "its tasks are the progress: {report}");
    // A variable that Ansible itself obeys cannot come from an order.
    let order = serde_json::json!({"task": "play", "params":
        {"to": to, "text": "x", "ansible_python_interpreter": "/bin/false"}});
    host.order("evil", &order.to_string());
    host.wait_for("evil", &["refused"]);
}
