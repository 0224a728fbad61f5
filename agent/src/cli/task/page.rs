//! `hostler task show` for people: what a task does, what it takes, and a command line that runs it.

use serde_json::{Map, Value};

use crate::catalog::Loaded;
use crate::cli::show;
use crate::cli::table::Table;
use crate::domain::task::{Step, Task, Work};

/// Where values begin in their lines.
const AT: usize = 9;

/// The page; `allowed`: whether this host's configuration allows the task.
pub(super) fn page(loaded: &Loaded, allowed: bool) -> String {
    let task = &loaded.task;
    let mut text = format!("{}@{}  {}", task.name, task.version, show::inline(&task.description));
    text.truncate(text.trim_end().len());
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<8} {}\n", show::indented(value, AT)));
    };
    let yes = |is: bool| if is { "yes" } else { "no" };
    line("folder", &loaded.folder.display().to_string());
    if !allowed {
        line("allowed", "no: see `tasks.allow` in the configuration");
    }
    line("timeout", &task.timeout.to_string());
    line("probe", yes(task.probe.is_some()));
    line("verify", yes(task.verify.is_some()));
    for resource in &task.resources {
        line("locks", resource.name.source());
    }
    for (name, secret) in &task.secrets {
        line("secret", &format!("{name}: field {} of {}", secret.field, secret.path.source()));
    }
    for (i, step) in task.steps.iter().enumerate() {
        line(&format!("step {}", i.saturating_add(1)), &of_step(step));
    }
    text.push_str(&params(task));
    text.push_str(&format!("{:<8} {}\n", "run", command(task)));
    text
}

/// Its effect, what is carried out, and what takes it back.
fn of_step(step: &Step) -> String {
    let words = |argv: &[crate::domain::template::Template]| {
        argv.iter().map(|word| word.source()).collect::<Vec<_>>().join(" ")
    };
    let work = match &step.work {
        Work::Run(argv) => words(argv),
        Work::Ansible(playbook) => format!("playbook {playbook}"),
    };
    let effect = step.effect.as_str();
    let undo = if step.undo.is_some() { "; has an undo" } else { "" };
    format!("{} ({effect}): {work}{undo}", step.name)
}

fn properties(task: &Task) -> Map<String, Value> {
    let properties = task.schema.value().get("properties").and_then(Value::as_object);
    properties.cloned().unwrap_or_default()
}

fn is_required(task: &Task, name: &str) -> bool {
    let required = task.schema.value().get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|one| one == name))
}

/// The parameters, a line each; the whole JSON Schema is in `--json`.
fn params(task: &Task) -> String {
    let properties = properties(task);
    if properties.is_empty() {
        return "params   none\n".to_owned();
    }
    let mut table = Table::new(&["PARAM", "TYPE", "DEFAULT", "DESCRIPTION"]);
    for (name, field) in &properties {
        let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = match field.get("enum").and_then(Value::as_array) {
            Some(words) => words.iter().map(shown).collect::<Vec<_>>().join(" or "),
            None => text("type"),
        };
        let default = match field.get("default") {
            Some(default) => shown(default),
            None if is_required(task, name) => "(required)".to_owned(),
            None => "-".to_owned(),
        };
        table.row([name.clone(), kind, default, text("description")]);
    }
    format!("\n{}\n", table.shown())
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A command line that runs it, with what it cannot do without.
fn command(task: &Task) -> String {
    let mut command = format!("hostler run {} --host HOST", task.name);
    for (name, field) in properties(task).iter().filter(|(name, _)| is_required(task, name)) {
        let example = field.get("examples").and_then(|examples| examples.get(0));
        let first = field.get("enum").and_then(|words| words.get(0));
        let value = example.or(first).map_or_else(|| name.to_uppercase(), shown);
        command.push_str(&format!(" --param {name}={}", show::quoted(&value)));
    }
    show::inline(&command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(yaml: &str) -> Loaded {
        let task = Task::read(yaml).unwrap();
        Loaded { task, folder: "/tasks/t".into() }
    }

    #[test]
    fn a_task_is_shown_with_a_command_that_runs_it() {
        let loaded = task(
            "name: t\nversion: 2\ndescription: Copies\nparams:\n  type: object\n  required: [to, mode]\n  properties:\n    \
             to: {type: string, examples: [it's here], description: Where to}\n    mode: {enum: [fast, safe]}\n    \
             n: {type: integer, default: 3}\nresources: [{name: \"disk:{{ params.to }}\"}]\nsteps:\n  \
             - {name: copy, run: [./copy, \"{{ params.to }}\"], effect: undoable, undo: [./back]}\n",
        );
        let page = page(&loaded, false);
        for line in [
            "t@2  Copies\n",
            "allowed  no",
            "locks    disk:{{ params.to }}\n",
            "step 1   copy (undoable): ./copy {{ params.to }}; has an undo\n",
            "mode   fast or safe  (required)\n",
            "n      integer       3\n",
            "to     string        (required)  Where to\n",
            "run      hostler run t --host HOST --param to='it'\\''s here' --param mode=fast\n",
        ] {
            assert!(page.contains(line), "{line:?} is not in:\n{page}");
        }
        let bare = task("name: t\nversion: 1\nsteps: [{name: a, run: [./a]}]");
        assert!(super::page(&bare, true).ends_with("params   none\nrun      hostler run t --host HOST\n"));
    }
}
