//! From an order and a task to a plan: parameters checked, every argument rendered.

use super::format;
use super::ids::RunId;
use super::name::Name;
use super::order::Order;
use super::plan::{Action, Command, Guard, Lock, Plan, RunPaths, SecretAt, Step, Trigger};
use super::source::OrderKey;
use super::task::{self, Task, Work};
use super::template::{self, Context, Template, TemplateError};

/// What a plan says besides order and task.
#[derive(Clone, Debug)]
pub struct PlanContext<'a> {
    /// The run's id.
    pub run: RunId,
    /// Where the order stands.
    pub key: &'a OrderKey,
    /// Why it is carried out.
    pub trigger: Trigger,
    /// This host.
    pub host: &'a Name,
    /// The digest of the task's copy.
    pub digest: String,
    /// Where it takes place.
    pub place: RunPaths,
}

/// The plan for an order, or why it is refused: one line that an operator can act on.
pub fn plan(order: &Order, task: &Task, about: &PlanContext<'_>) -> Result<Plan, String> {
    let params = task
        .schema
        .check(&order.params)
        .map_err(|faults| format!("the parameters do not fit task {}: {}", task.name, faults.join("; ")))?;
    if let Some(timeout) = order.timeout.filter(|timeout| *timeout > task.timeout) {
        let (own, fix) = (task.timeout, "shorten it, or leave it out");
        return Err(format!(
            "`timeout: {timeout}` is more than the {own} that task {} may take: {fix}",
            task.name
        ));
    }
    let run = about.run.to_string();
    let context =
        Context { params: &params, host: about.host.as_str(), order: about.key.order.as_str(), run: &run };
    let render = Render { context };
    render
        .draft(order, task, about)
        .map_err(|error| format!("task {}: {error}", task.name))
        .map(|plan| Plan { params: params.clone(), ..plan })
}

struct Render<'a> {
    context: Context<'a>,
}

impl Render<'_> {
    fn draft(&self, order: &Order, task: &Task, about: &PlanContext<'_>) -> Result<Plan, TemplateError> {
        let own = task.timeout;
        Ok(Plan {
            version: format::plan_of(task),
            run: about.run,
            order: about.key.order.clone(),
            source: about.key.source.clone(),
            identity: order.identity,
            trigger: about.trigger.clone(),
            host: about.host.clone(),
            task: format!("{}@{}", task.name, task.version),
            task_digest: about.digest.clone(),
            params: serde_json::Value::Null,
            dry_run: order.dry_run,
            timeout: order.timeout.map_or(own, |span| span.min(own)),
            probe: self.command(task.probe.as_ref(), None)?,
            steps: task
                .steps
                .iter()
                .enumerate()
                .map(|(i, step)| self.step(task, i, step))
                .collect::<Result<_, _>>()?,
            verify: self.command(task.verify.as_ref(), None)?,
            limits: task.limits.clone(),
            retry: task.retry,
            max_reboots: task.max_reboots,
            secrets: task
                .secrets
                .iter()
                .map(|(name, secret)| Ok((name.clone(), self.secret(secret)?)))
                .collect::<Result<_, TemplateError>>()?,
            resources: task.resources.iter().map(|lock| self.lock(lock)).collect::<Result<_, _>>()?,
            place: about.place.clone(),
            emergency: task.emergency,
        })
    }

    fn step(&self, task: &Task, index: usize, step: &task::Step) -> Result<Step, TemplateError> {
        let user = step.user.as_deref();
        Ok(Step {
            name: step.name.to_string(),
            action: match &step.work {
                Work::Run(argv) => Action::Run(self.argv(argv)?),
                Work::Ansible(playbook) => Action::Ansible(playbook.clone()),
            },
            user: step.user.clone(),
            effect: step.effect,
            check: self.command(step.check.as_ref(), user)?,
            undo: self.command(step.undo.as_ref(), user)?,
            guard: step.guard.as_ref().map(|guard| self.guard(task, index, step, guard)).transpose()?,
            resumable: step.resumable,
            on_cancel: step.on_cancel,
            on_timeout: step.on_timeout.unwrap_or_default(),
            keep_processes: step.keep_processes,
            no_new_privileges: step.no_new_privileges,
            timeout: step.timeout,
            grace: step.grace,
            stdin: step.stdin.clone(),
        })
    }

    fn guard(
        &self,
        task: &Task,
        index: usize,
        step: &task::Step,
        guard: &task::Guard,
    ) -> Result<Guard, TemplateError> {
        // The check of the task has seen that the name is a later step's.
        let named = guard.until.as_ref().and_then(|name| task.steps.iter().position(|s| s.name == *name));
        Ok(Guard {
            argv: self.argv(&guard.run)?,
            user: guard.user.clone().or_else(|| step.user.clone()),
            timeout: guard.timeout,
            within: guard.within,
            until: named.unwrap_or(index),
        })
    }

    fn command(
        &self,
        command: Option<&task::Command>,
        user: Option<&str>,
    ) -> Result<Option<Command>, TemplateError> {
        let render = |command: &task::Command| {
            let user = command.user.clone().or_else(|| user.map(str::to_owned));
            Ok(Command { argv: self.argv(&command.run)?, timeout: command.timeout, user })
        };
        command.map(render).transpose()
    }

    fn argv(&self, argv: &[Template]) -> Result<Vec<String>, TemplateError> {
        argv.iter().map(|argument| template::render(argument, &self.context)).collect()
    }

    fn secret(&self, secret: &task::Secret) -> Result<SecretAt, TemplateError> {
        let path = template::render_secret_path(&secret.path, &self.context)?;
        let path = path.trim_matches('/').to_owned();
        let (field, version) = (secret.field.clone(), secret.version);
        Ok(SecretAt { path, field, version, allow_short_secret: secret.allow_short_secret })
    }

    fn lock(&self, lock: &task::Resource) -> Result<Lock, TemplateError> {
        Ok(Lock { name: template::render(&lock.name, &self.context)?, mode: lock.mode })
    }
}
