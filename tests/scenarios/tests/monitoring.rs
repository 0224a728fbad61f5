//! What is shipped for monitoring systems: it says what Prometheus understands, of measurements that exist, and it rings.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests that fails must fail its test at once"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hostler::domain::condition::Kind as Condition;
use hostler::domain::decide::Reason;
use hostler::domain::state::{End, Hold};
use hostler::telemetry::metrics::{Kind, METRICS, Metric};
use hostler_testkit::{DEFAULT_TIMEOUT, Host, Prometheus, eventually, free_ports, promtool};
use serde_json::Value;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/monitoring").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_rules_are_right_and_each_fires_when_it_should() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/monitoring");
    let rules = shipped("hostler-alerts.yml").display().to_string();
    promtool(&tests, &["check", "rules", &rules], "").unwrap_or_else(|fault| panic!("{fault}"));
    promtool(&tests, &["test", "rules", "alerts_test.yml"], "").unwrap_or_else(|fault| panic!("{fault}"));
    // No alert is without a test.
    let tested = read(&tests.join("alerts_test.yml"));
    for alert in alerts() {
        let named = format!("alertname: {alert}\n");
        let fires = tested.split(&named).skip(1);
        assert!(fires.clone().any(|rest| rest.starts_with("        exp_alerts:")), "{alert} is not tested");
    }
}

/// Each alert links to its section of the runbook, each section belongs to an alert and has three commands or more.
#[test]
fn each_alert_has_its_section_in_the_runbook() {
    let rules = read(&shipped("hostler-alerts.yml"));
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md"));
    let sections: Vec<(&str, &str)> =
        page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let alerts = alerts();
    assert_eq!(sections.iter().map(|(name, _)| *name).collect::<Vec<_>>(), alerts);
    for (name, text) in sections {
        let link = format!("file:///usr/share/doc/hostler/docs/runbook.md#{}\"", name.to_lowercase());
        assert_eq!(rules.matches(&link).count(), 1, "{name}");
        let commands = text.split("```").nth(1).expect("commands").lines().skip(1).count();
        assert!(commands >= 3, "{name} has {commands} commands");
    }
}

fn alerts() -> Vec<String> {
    let rules = read(&shipped("hostler-alerts.yml"));
    let names: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

/// Every expression of the rules and of the dashboard.
fn expressions() -> Vec<String> {
    let rules = read(&shipped("hostler-alerts.yml"));
    let mut all: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    let dashboard: Value = serde_json::from_str(&read(&shipped("hostler-dashboard.json"))).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    all.extend(targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    all.extend(variables.iter().filter_map(|variable| variable["definition"].as_str()).map(str::to_owned));
    assert!(all.len() > 30, "{} expressions", all.len());
    all
}

/// The measurement of this name, or of which this is a series.
fn metric(name: &str) -> Option<&'static Metric> {
    let of = |metric: &&Metric| {
        let rest = name.strip_prefix(metric.name);
        rest == Some("")
            || metric.kind == Kind::Histogram && matches!(rest, Some("_bucket" | "_sum" | "_count"))
    };
    METRICS.iter().find(of)
}

/// Words that look like names of measurements, each with what follows it.
fn named(expression: &str) -> Vec<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = ["hostler_", "process_"].into_iter().flat_map(|start| expression.match_indices(start));
    let whole = starts.filter(|(at, _)| !expression[..*at].ends_with(part));
    whole
        .map(|(at, _)| {
            let rest = &expression[at..];
            rest.split_at(rest.find(|c| !part(c)).unwrap_or(rest.len()))
        })
        .collect()
}

#[test]
fn rules_and_dashboard_use_only_what_is_measured() {
    let mut used = BTreeSet::new();
    for expression in expressions() {
        for (name, rest) in named(&expression) {
            let metric = metric(name).unwrap_or_else(|| panic!("{name} is not measured: {expression}"));
            used.insert(metric.name);
            let Some(labels) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
                continue;
            };
            for matcher in labels.split(',') {
                let (label, values) = matcher.split_once('=').expect("a matcher");
                if ["instance", "job"].contains(&label) {
                    continue;
                }
                assert!(metric.labels.contains(&label), "{name} has no label {label}: {expression}");
                for value in values.trim_start_matches('~').trim_matches('"').split('|') {
                    assert!(words(label).contains(&value), "{label}={value} does not occur: {expression}");
                }
            }
        }
    }
    assert!(used.len() > 15, "the expressions are found: {used:?}");
}

/// What a label can say.
fn words(label: &str) -> Vec<&'static str> {
    match label {
        "kind" => Condition::ALL.iter().map(|kind| kind.as_str()).collect(),
        "reason" => {
            let waits = Reason::ALL.iter().map(|reason| reason.as_str());
            waits.chain(Hold::ALL.iter().map(|hold| hold.as_str())).collect()
        }
        "phase" => {
            let ends =
                [End::NeedsOperator, End::UndoFailed, End::Failed, End::Undone, End::Refused, End::Expired];
            ends.iter().map(|end| end.as_str()).collect()
        }
        "state" => vec!["ok", "broken"],
        "task" => vec!["$task"],
        _ => panic!("nothing is known of the label {label}"),
    }
}

#[test]
fn a_failed_order_rings_on_a_real_prometheus() {
    let mut host = Host::on_dir("rings");
    let [port] = free_ports();
    host.configure(&format!("telemetry: {{listen: \"127.0.0.1:{port}\"}}"));
    host.counting_task("count", "once:x", "0");
    host.task("fail", "name: fail\nversion: 1\nsteps: [{name: a, run: [\"false\"]}]\n", &[]);
    // The shipped rules, but for the time that they wait: nobody waits minutes for a test.
    let patience = |line: &str| match line.split_once("for: ") {
        Some((before, span)) if before.trim().is_empty() && !span.contains(' ') => format!("{before}for: 0s"),
        _ => line.to_owned(),
    };
    let text = read(&shipped("hostler-alerts.yml"));
    let rules: Vec<String> = text.lines().map(patience).collect();
    assert!(rules.iter().filter(|line| line.ends_with("for: 0s")).count() > 10, "{rules:?}");
    let path = host.path("rules.yml");
    fs::write(&path, rules.join("\n")).expect("the rules");
    host.start();
    host.order("good", "task: count");
    host.wait_for("good", &["succeeded"]);
    let prometheus = Prometheus::start(&[port], &[&path]);
    let until = |wanted: &[&str]| {
        eventually(DEFAULT_TIMEOUT, || {
            let mut firing = prometheus.firing();
            firing.sort();
            if firing == wanted { Ok(()) } else { Err(format!("{firing:?}; {}", prometheus.log())) }
        });
    };
    host.order("bad", "task: fail");
    host.wait_for("bad", &["failed"]);
    until(&["HostlerOrderFailed"]);
    // It stops when the order does not fail any more.
    host.order("bad", "task: count");
    host.wait_for("bad", &["succeeded"]);
    until(&[]);
    host.kill();
    // Nobody else is measured, so it is silence and absence.
    until(&["HostlerAgentSilent", "HostlerAgentsAbsent"]);
}
