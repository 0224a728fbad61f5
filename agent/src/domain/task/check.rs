//! Whether a task that could be read makes sense as a whole.
//!
//! The types have refused by now what is wrong with a single value; here is what only the task around it can tell: a
//! name that nobody fills, an undo that never comes, a second step of the same name. All that can be told at once
//! is told, each fault at its own place in the file, so that an author needs one round and not one for each.

use std::collections::BTreeSet;

use super::{Command, Effect, Gate, Guard, MAX_STEPS, Step, Task, Work, hour, program};
use crate::domain::downtime::Service;
use crate::domain::span::Span;
use crate::domain::template::{NAMES, Template};
use crate::domain::yaml::{self, PathSegment, YamlError, nearest};

/// The most reboots of one run: more is a loop.
const MAX_REBOOTS: u32 = 10;

/// Collects what is wrong with a task that could be read.
pub(super) struct Check<'a> {
    pub(super) text: &'a str,
    pub(super) faults: Vec<YamlError>,
}

impl Check<'_> {
    fn fault(&mut self, path: &[PathSegment], message: impl Into<String>) {
        self.faults.push(yaml::error_at(self.text, path, message));
    }

    pub(super) fn task(&mut self, task: &Task) {
        let top = |name: &str| [PathSegment::from(name)];
        if task.version == 0 {
            self.fault(&top("version"), "versions are counted from 1");
        }
        if task.timeout.0.is_zero() {
            self.fault(&top("timeout"), "no step can be done in no time");
        }
        if task.max_reboots > MAX_REBOOTS {
            self.fault(&top("max_reboots"), format!("at most {MAX_REBOOTS} reboots"));
        }
        if let Some(retry) = &task.retry {
            let at = |name: &str| ["retry".into(), name.into()];
            if retry.max == 0 {
                self.fault(&at("max"), "at least 1: or leave `retry` out");
            }
            if retry.initial < Span::secs(1) {
                self.fault(&at("initial"), "at least 1s");
            }
            if retry.max_delay.is_some_and(|longest| longest < retry.initial) {
                self.fault(&at("max_delay"), "not shorter than `initial`");
            }
        }
        for (name, weight) in [("cpu_weight", task.limits.cpu_weight), ("io_weight", task.limits.io_weight)] {
            if weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
                self.fault(&["limits".into(), name.into()], "a weight is 1 to 10000; 100 is usual");
            }
        }
        for (index, resource) in task.resources.iter().enumerate() {
            let path = ["resources".into(), index.into(), "name".into()];
            self.template(task, &resource.name, &path);
            if resource.name.source().starts_with("host:") {
                self.fault(&path, "names that begin with `host:` are the agent's own: use another");
            }
        }
        for (index, gate) in task.gates.iter().enumerate() {
            self.gate(task, index, gate);
        }
        for (name, secret) in &task.secrets {
            let path = ["secrets".into(), name.as_str().into(), "path".into()];
            self.template(task, &secret.path, &path);
            if secret.field.is_empty() {
                self.fault(&["secrets".into(), name.as_str().into(), "field".into()], "name a field");
            }
        }
        for (path, run) in task.commands() {
            self.arguments(task, &path, run);
        }
        for (name, command) in [("probe", &task.probe), ("verify", &task.verify)] {
            if let Some(command) = command {
                self.command(&top(name), command);
            }
        }
        self.steps(task);
    }

    fn gate(&mut self, task: &Task, index: usize, gate: &Gate) {
        let at = |kind: &str| [PathSegment::from("gates"), PathSegment::from(index), PathSegment::from(kind)];
        match gate {
            Gate::DiskFree { .. } => {}
            Gate::Fact(expression) => {
                let mut params = expression.params().into_iter();
                let unknown = params.find_map(|name| name_fault(task, &format!("params.{name}")));
                if let Some(fault) = expression.gate_fault().or(unknown) {
                    self.fault(&at("fact"), fault);
                }
            }
            Gate::ErrorBudget { service, .. } => {
                let at = [&at("error_budget")[..], &["service".into()]].concat();
                self.template(task, service, &at);
                if service.is_plain()
                    && let Err(bad) = service.source().parse::<Service>()
                {
                    self.fault(&at, bad.to_string());
                }
            }
        }
    }

    fn steps(&mut self, task: &Task) {
        let top = [PathSegment::from("steps")];
        if task.steps.is_empty() {
            self.fault(&top, "a task has at least one step");
        }
        if task.steps.len() > MAX_STEPS {
            self.fault(&top, format!("{} steps are too many: at most {MAX_STEPS}", task.steps.len()));
            return;
        }
        let mut names = BTreeSet::new();
        let mut final_step: Option<&Step> = None;
        for (index, step) in task.steps.iter().enumerate() {
            let own = [PathSegment::from("steps"), PathSegment::from(index)];
            let at =
                |name: &str| [PathSegment::from("steps"), PathSegment::from(index), PathSegment::from(name)];
            if !names.insert(&step.name) {
                self.fault(&at("name"), format!("a second step `{}`: give it another name", step.name));
            }
            match (step.effect, &step.undo) {
                (Effect::Undoable, None) => self.fault(&own, "an undoable step needs `undo`"),
                (Effect::Undoable, Some(_)) => {
                    if let Some(point) = final_step {
                        let message = format!(
                            "nothing is undone after the final step `{}`: move this step before it",
                            point.name
                        );
                        self.fault(&at("effect"), message);
                    }
                }
                (_, Some(_)) => self.fault(&at("undo"), "only an `effect: undoable` step has an `undo`"),
                (_, None) => {}
            }
            if step.effect == Effect::Final {
                final_step = final_step.or(Some(step));
            } else if step.on_timeout.is_some() {
                self.fault(&at("on_timeout"), "only an `effect: final` step says `on_timeout`");
            }
            if step.resumable && (step.effect != Effect::Final || step.check.is_none()) {
                let message = "only an `effect: final` step with a `check` is resumable: the check tells \
                               whether it is to go on";
                self.fault(&at("resumable"), message);
            }
            if let Some(guard) = &step.guard {
                self.guard(task, index, step, guard);
            }
            if let Work::Ansible(playbook) = &step.work {
                self.playbook(&at("ansible"), playbook);
                if step.keep_processes {
                    self.fault(
                        &at("keep_processes"),
                        "a playbook leaves nothing running: start a unit from it",
                    );
                }
            }
            if step.timeout.is_some_and(|timeout| timeout > task.timeout || timeout.0.is_zero()) {
                self.fault(&at("timeout"), format!("more than nothing, at most the task's {}", task.timeout));
            }
            if let Some(stdin) = &step.stdin {
                self.stdin(task, stdin, &at("stdin"));
                let reader = match &step.work {
                    Work::Run(run) => program::reads_code(run).filter(|_| !stdin.is_plain()),
                    Work::Ansible(_) => None,
                };
                if let Some(program) = reader {
                    let fix =
                        "put the program into a file of the task's folder, and leave the values in `stdin`";
                    let message = format!(
                        "{program} reads its program from here, and a value would become code: {fix}"
                    );
                    self.fault(&at("stdin"), message);
                }
            }
            if step.grace > hour() {
                self.fault(&at("grace"), "at most 1h");
            }
            self.user(&at("user"), step.user.as_deref());
            for (name, command) in [("check", &step.check), ("undo", &step.undo)] {
                if let Some(command) = command {
                    self.command(&at(name), command);
                }
            }
        }
    }

    /// A guard that could not do what it is there for is refused.
    fn guard(&mut self, task: &Task, index: usize, step: &Step, guard: &Guard) {
        let at =
            |name: &str| ["steps".into(), PathSegment::from(index), "guard".into(), PathSegment::from(name)];
        if guard.within.0.is_zero() || guard.within > task.timeout {
            let message = format!(
                "more than nothing, at most the task's `timeout` of {}: after that no step runs any more",
                task.timeout
            );
            self.fault(&at("within"), message);
        }
        if guard.timeout.0.is_zero() || guard.timeout > hour() {
            self.fault(&at("timeout"), "more than nothing, at most 1h");
        }
        self.user(&at("user"), guard.user.as_deref());
        let Some(until) = &guard.until else { return };
        match task.steps.iter().position(|other| other.name == *until) {
            Some(end) if end > index => {}
            Some(end) if end == index => self.fault(
                &at("until"),
                "without `until` the guard is armed until this step has ended: leave it out",
            ),
            Some(_) if step.effect == Effect::Final => {
                let message = format!(
                    "step `{until}` lies before this final step, so nothing would ever end the guard: name a later step"
                );
                self.fault(&at("until"), message);
            }
            Some(_) => {
                let message = format!("step `{until}` is carried out before this one: name a later step");
                self.fault(&at("until"), message);
            }
            None => {
                let names = task.steps.iter().skip(index + 1).map(|step| step.name.as_str());
                let cure = match nearest(until.as_str(), names) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "name a later step".to_owned(),
                };
                self.fault(&at("until"), format!("there is no step `{until}`: {cure}"));
            }
        }
    }

    fn playbook(&mut self, path: &[PathSegment], playbook: &str) {
        let inside = !playbook.is_empty()
            && !playbook.starts_with(['/', '-'])
            && !playbook.split('/').any(|part| part == "..")
            && !playbook.contains(|c: char| c.is_control());
        if !inside {
            self.fault(path, "a playbook is named by its path inside the task's folder");
        }
    }

    fn command(&mut self, path: &[PathSegment], command: &Command) {
        let below = |name: &str| [path, &[PathSegment::from(name)]].concat();
        self.user(&below("user"), command.user.as_deref());
        if command.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            self.fault(&below("timeout"), "nothing can be done in no time");
        }
    }

    fn user(&mut self, path: &[PathSegment], user: Option<&str>) {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-') || user.contains(odd)) {
            self.fault(path, "not the name of a user");
        }
    }

    fn arguments(&mut self, task: &Task, path: &[PathSegment], run: &[Template]) {
        match run.first() {
            Some(program) => self.argument(path, 0, program_faults(program)),
            None => self.fault(path, "name a program"),
        }
        for (index, template) in run.iter().enumerate() {
            self.argument(path, index, template_faults(task, template));
        }
        for text in program::templated_code(run) {
            self.argument(path, text.index, vec![code_fault(&text.program)]);
        }
    }

    fn argument(&mut self, path: &[PathSegment], index: usize, faults: Vec<String>) {
        for message in faults {
            // A list stands at the path itself, a map has it below `run`.
            let mapped = [path, &[PathSegment::from("run"), PathSegment::from(index)]].concat();
            let listed = [path, &[PathSegment::from(index)]].concat();
            let place = if yaml::has(self.text, &mapped) { mapped } else { listed };
            self.fault(&place, message);
        }
    }

    /// The one template that sees secrets: those that the task names.
    fn stdin(&mut self, task: &Task, template: &Template, path: &[PathSegment]) {
        for name in template.names() {
            let fault = match name.strip_prefix("secrets.") {
                Some(secret) if task.secrets.keys().any(|known| known.as_str() == secret) => None,
                Some(secret) => Some(format!(
                    "unknown secret `{secret}`: name it below `secrets:`, without - and . in its name"
                )),
                None => name_fault(task, &name),
            };
            if let Some(message) = fault {
                self.fault(path, message);
            }
        }
    }

    fn template(&mut self, task: &Task, template: &Template, path: &[PathSegment]) {
        for message in template_faults(task, template) {
            self.fault(path, message);
        }
    }
}

/// What is wrong with the first argument of a command.
fn program_faults(program: &Template) -> Vec<String> {
    let text = program.source();
    let leaves = text.split('/').any(|part| part == "..");
    let message = if !program.is_plain() {
        "the program itself is not a template: only its arguments are"
    } else if text.is_empty() || text.contains(|c: char| c.is_control()) {
        "name a program"
    } else if leaves || (text.contains('/') && !text.starts_with("./") && !text.starts_with('/')) {
        "write ./name for a program of the task's folder, without `..`, or a full path"
    } else {
        return Vec::new();
    };
    vec![message.to_owned()]
}

/// Why a template may not stand in the text of a program, and what to write.
fn code_fault(program: &str) -> String {
    let fix = match program {
        "awk" | "gawk" | "mawk" | "nawk" => "give it as `-v NAME={{ … }}`, and write NAME in the program",
        "jq" | "yq" => "give it as `--arg NAME {{ … }}`, and write $NAME in the program",
        "psql" => "give it as `-v NAME={{ … }}` beside `-f FILE`, and write :'NAME' in the file",
        "python" | "pypy" => "write sys.argv[1] there, and give the template as the next argument",
        "perl" => "write $ARGV[0] there, and give the template as the next argument",
        "ruby" => "write ARGV[0] there, and give the template as the next argument",
        "ssh" | "slogin" | "watch" | "sed" | "mysql" | "mariadb" => {
            "call a script of the task's folder with the template as an argument"
        }
        _ => {
            "write \"$1\" there, and give the template as an argument of its own: [sh, -c, 'echo \"$1\"', sh, \"{{ … }}\"]"
        }
    };
    format!("a template in what {program} reads as code: a parameter would become a command; {fix}")
}

/// Which names of a template nobody will fill.
fn template_faults(task: &Task, template: &Template) -> Vec<String> {
    template.names().iter().filter_map(|name| name_fault(task, name)).collect()
}

fn name_fault(task: &Task, name: &str) -> Option<String> {
    let (root, rest) = name.split_once('.').unwrap_or((name, ""));
    match root {
        "secrets" => {
            Some("templates cannot see secrets: the step reads the file in HOSTLER_SECRETS".to_owned())
        }
        "params" if rest.is_empty() || task.schema.admits(rest) => None,
        "params" => {
            let first = rest.split('.').next().unwrap_or(rest);
            let cure = match nearest(first, task.schema.names()) {
                Some(meant) if meant != first => format!("did you mean `params.{meant}`?"),
                _ => "name it below `params: properties:`".to_owned(),
            };
            Some(format!("unknown parameter `{name}`: {cure}"))
        }
        _ if NAMES.contains(&root) && rest.is_empty() => None,
        _ => {
            let known = task.schema.names().find(|known| *known == root);
            let cure = known.map_or_else(
                || "there are params, host, order and run".to_owned(),
                |known| format!("did you mean `params.{known}`?"),
            );
            Some(format!("unknown name `{name}`: {cure}"))
        }
    }
}
