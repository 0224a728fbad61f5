//! What package managers are given by the shipped tasks: the first line is a name, the rest a version. Admitted is no
//! pattern, no option, and no action behind a name or a version.
#![no_main]

use std::sync::LazyLock;

use hostler::domain::params::Schema;
use hostler::domain::task::Task;
use serde_json::{Value, json};

static PACKAGE: LazyLock<Task> = LazyLock::new(|| task(include_str!("../../../tasks/package/task.yml")));
static UPGRADE: LazyLock<Task> =
    LazyLock::new(|| task(include_str!("../../../tasks/hostler-upgrade/task.yml")));

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (name, version) = text.split_once('\n').unwrap_or((text, "newest"));
    // The whole text too: a line's end in it must not end what a pattern looks at.
    for (name, version) in [(name, version), (text, version), (name, text)] {
        if admits(&PACKAGE.schema, &json!({"name": name, "version": version})) {
            exact(name);
            exact(version);
            assert!(!version.ends_with(['-', '+']), "an action of apt: {version:?}");
            assert!(!name.ends_with('-'), "an action of apt: {name:?}");
        }
        if admits(&UPGRADE.schema, &json!({"version": version})) {
            exact(version);
            assert!(!version.ends_with(['-', '+']), "an action of apt: {version:?}");
        }
    }
});

fn task(text: &str) -> Task {
    let Ok(task) = Task::read(text) else { panic!("the shipped task cannot be read") };
    task
}

fn admits(schema: &Schema, params: &Value) -> bool {
    schema.check(params).is_ok()
}

/// One argument that means itself to a shell, to apt and to dnf: no blank, no option, no `*`, `?` or `[`, no path, no
/// second `=`.
fn exact(text: &str) {
    assert!(text.starts_with(|c: char| c.is_ascii_alphanumeric()), "an option or a pattern: {text:?}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "+.~:^_-".contains(c);
    assert!(text.chars().all(plain), "not exact: {text:?}");
}
