//! Orders that come again: their probes are asked, their documents copied into the ledger, and the clock is looked at.
//!
//! A probe is asked by an executor, as everything that is run: by a dry run in a folder below `checks/`, which goes away
//! when the answer is in. Nothing rests on it: a question that is lost is asked again.

use super::reload::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::prepare::{self, LaunchRequest};
use super::{Agent, Event};
use crate::catalog::trust::OwnerRule;
use crate::config::ClockChoice;
use crate::domain::decide::{Clock, SeenOrder};
use crate::domain::name::Name;
use crate::domain::order::{Document, Order};
use crate::domain::plan::{Plan, RunPaths, Trigger};
use crate::domain::reconcile::{ProbeAnswer, ProbeAnswers, SHORTEST};
use crate::domain::run::Outcome;
use crate::domain::source::OrderKey;
use crate::domain::state::{LedgerEntry, LedgerState};
use crate::domain::task::Task;
use crate::domain::text::head;
use crate::domain::yaml::single_line;
use crate::exec::launcher::Launcher;
use crate::exec::output;
use crate::host::{clock, disk};
use crate::ledger::{ClaimState, Folder, FolderError, Tokens, trim};
use crate::vault::Vault;

/// So many probes are asked at once.
const ASKED_AT_ONCE: usize = 4;
/// An executor that was launched answers within the probe's time and this.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// An executor that has answered is gone within this.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// What the agent knows of orders that come again, besides the ledger.
#[derive(Default)]
pub(super) struct RecurringOrders {
    /// What the probes have said.
    pub(super) answers: BTreeMap<OrderKey, ProbeAnswers>,
    /// The ledger's copies, read.
    pub(super) copies: BTreeMap<OrderKey, SeenOrder>,
    asking: BTreeSet<OrderKey>,
}

impl RecurringOrders {
    /// Takes in what the ledger holds.
    pub(super) fn of(memory: &LedgerState) -> Self {
        let mut recurring = Self::default();
        let copies =
            memory.orders.iter().filter_map(|(key, o)| Some((key, o.recurrence.confirmed.as_ref()?)));
        for (key, copy) in copies {
            recurring.copies.insert(key.clone(), read(copy.index, &copy.document));
        }
        recurring
    }

    /// Follows what was put into the ledger: answers from before say nothing of what came after.
    pub(super) fn follow(&mut self, facts: &[LedgerEntry]) {
        for fact in facts {
            match fact {
                LedgerEntry::DocumentConfirmed { key, index, document: Some(document), .. } => {
                    self.copies.insert(key.clone(), read(*index, document));
                }
                LedgerEntry::Activation { key, .. }
                | LedgerEntry::Closed { key, .. }
                | LedgerEntry::ScheduleArmed { key, .. } => {
                    self.answers.remove(key);
                }
                LedgerEntry::ScheduleDisarmed { key }
                | LedgerEntry::Gone { key, .. }
                | LedgerEntry::Held { key, .. } => {
                    self.answers.remove(key);
                    self.copies.remove(key);
                }
                _ => {}
            }
        }
    }

    /// What cannot be told, for the report.
    pub(super) fn conditions(&self) -> impl Iterator<Item = String> {
        self.answers.iter().filter_map(|(key, answers)| match answers.last() {
            Some((_, ProbeAnswer::CannotTell(why))) => {
                Some(format!("order {}: cannot tell whether its state holds: {why}", key.order))
            }
            _ => None,
        })
    }
}

fn read(index: u64, document: &str) -> SeenOrder {
    let document = Document::read(document.as_bytes()).map_err(|error| error.to_string());
    SeenOrder { index, document }
}

/// Why a task does not bear what an order wants of it.
pub(super) fn unbearable(order: &Order, task: &Task) -> Option<String> {
    let every = order.reconcile?;
    // Where nothing is carried out, the steps may do whatever they do.
    if order.only_report && task.probe.is_none() {
        return Some(format!("task {} has no probe that could be asked", task.name));
    }
    if !order.only_report && !task.may_reconcile() {
        return Some(format!(
            "task {} cannot reconcile: it needs a probe, and steps that are all repeatable or undoable",
            task.name
        ));
    }
    (every < SHORTEST && !task.allow_short_interval).then(|| {
        format!("`reconcile: {every}` is shorter than {SHORTEST}, which task {} does not allow", task.name)
    })
}

impl Config {
    /// What is known of the clock now.
    pub(super) fn clock(&self) -> Clock {
        match self.settings.clock {
            ClockChoice::Trusted => Clock::Trusted,
            ClockChoice::Synchronised if clock::synchronised() => Clock::Synchronised,
            ClockChoice::Synchronised => Clock::Unsynchronised,
        }
    }
}

impl Agent {
    /// The fact that an order's document stands as the store shows it.
    pub(super) fn confirmation(&self, key: &OrderKey) -> Option<LedgerEntry> {
        let (index, value) = self.sync.watches.iter().find_map(|sight| sight.value(key))?;
        let ledger = self.durable.ledger.as_ref().ok()?;
        let copy = ledger.state().orders.get(key)?.recurrence.confirmed.as_ref();
        let known = copy.is_some_and(|copy| copy.index == index);
        let document = if known { None } else { Some(String::from_utf8(value).ok()?) };
        Some(LedgerEntry::DocumentConfirmed { key: key.clone(), index, document, at: clock::now() })
    }

    /// Asks an order's probe, unless it is being asked.
    pub(super) fn ask(&mut self, key: &OrderKey) {
        if self.orders.recurring.asking.len() >= ASKED_AT_ONCE || self.orders.recurring.asking.contains(key) {
            return;
        }
        let Some(seen) = self.sync.desired.orders.get(key) else { return };
        let Ok(Document::Order(order)) = &seen.document else { return };
        let Ok(loaded) = self.orders.catalog.get(order.task.as_str()) else { return };
        let question = ProbeRequest {
            key: key.clone(),
            order: (**order).clone(),
            host: self.identity.host.clone(),
            program: self.identity.program.clone(),
            task_folder: loaded.folder.clone(),
            state_dir: self.config.settings.state_dir.clone(),
            place: self.place(PathBuf::new()),
            rule: self.identity.rule,
            copying: Arc::clone(&self.run_table.copying),
            launcher: self.run_table.launcher.clone(),
            vault: self.vault.client.clone(),
        };
        self.orders.recurring.asking.insert(key.clone());
        let index = seen.index;
        self.work.send(async move {
            let at = clock::now();
            let answer = question.ask().await;
            let (answer, said) = answer.unwrap_or_else(|why| (ProbeAnswer::CannotTell(why), None));
            Event::Answered { key: question.key, index, at, answer: Box::new((answer, said)) }
        });
    }

    /// Takes in what a probe said.
    pub(super) fn answered(&mut self, key: OrderKey, index: u64, at: Timestamp, answer: Said) {
        let (answer, said) = answer;
        self.orders.recurring.asking.remove(&key);
        // An answer about an order that has changed meanwhile says nothing.
        if self.sync.desired.orders.get(&key).is_some_and(|seen| seen.index == index) {
            tracing::debug!(order = %key, "answer of the probe: {answer:?}");
            let answers = self.orders.recurring.answers.entry(key).or_default();
            answers.take(at, answer);
            answers.say(said);
        }
    }

    /// Forgets the answers of orders that are not there any more.
    pub(super) fn forget_answers(&mut self) {
        let orders = &self.sync.desired.orders;
        self.orders.recurring.answers.retain(|key, _| orders.contains_key(key));
    }

    /// Ends and removes what an earlier agent asked.
    pub(super) fn end_questions(&self) {
        let checks = self.config.settings.state_dir.join("checks");
        for run in trim::folders(&checks).unwrap_or_default() {
            let (launcher, folder) = (self.run_table.launcher.clone(), Folder::new(&checks, run));
            let runtime = self.config.settings.runtime_dir.clone();
            tokio::spawn(async move { end(&launcher, &folder, &runtime).await });
        }
    }
}

/// Everything that asking a probe needs.
struct ProbeRequest {
    key: OrderKey,
    order: Order,
    host: Name,
    program: PathBuf,
    task_folder: PathBuf,
    state_dir: PathBuf,
    place: RunPaths,
    rule: OwnerRule,
    copying: Arc<Mutex<()>>,
    launcher: Launcher,
    vault: Option<Arc<Vault>>,
}

impl ProbeRequest {
    /// The answer, or why there is none.
    async fn ask(&self) -> Result<Said, String> {
        let (plan, folder) = self.make().await?;
        let launching = LaunchRequest {
            launcher: self.launcher.clone(),
            program: self.program.clone(),
            folder: folder.clone(),
            epoch: 1,
            plan: Arc::clone(&plan),
            vault: self.vault.clone(),
            tokens: Tokens::of(&self.state_dir),
        };
        let answer = match launching.launch().await {
            Event::LaunchDeferred { why, .. } => Err(why.why),
            Event::LaunchFinished { launched: false, .. } => Err("its executor could not be started".into()),
            _ => wait(&folder, &plan).await,
        };
        end(&self.launcher, &folder, &self.place.runtime_dir).await;
        answer
    }

    async fn make(&self) -> Result<(Arc<Plan>, Folder), String> {
        let (task_folder, tasks) = (self.task_folder.clone(), self.state_dir.join("tasks"));
        let (checks, key, host) = (self.state_dir.join("checks"), self.key.clone(), self.host.clone());
        let (rule, place, order) = (self.rule, self.place.clone(), self.order.clone());
        let copying = Arc::clone(&self.copying);
        let disk_work = move || {
            let copied = prepare::copy_of(&task_folder, &tasks, rule, &copying);
            let (task, copied) = copied.map_err(|not_made| not_made.to_string())?;
            let run = clock::new_run();
            let place = RunPaths { task_dir: copied.path, ..place };
            let about = prepare::RunContext { key: &key, host: &host, run, trigger: Trigger::Placed, place };
            // Only the probe is left of it: there is nothing that it could change.
            let plan = Plan {
                dry_run: true,
                steps: Vec::new(),
                verify: None,
                resources: Vec::new(),
                ..about.plan(&order, &task, copied.digest)?
            };
            disk::make_dir(&checks).map_err(|error| error.to_string())?;
            let folder = Folder::new(&checks, run);
            folder.create(b"", &plan).map_err(|error| error.to_string())?;
            Ok((Arc::new(plan), folder))
        };
        tokio::task::spawn_blocking(disk_work).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// An answer, and the last line that the probe said with it.
pub(super) type Said = (ProbeAnswer, Option<String>);

/// The longest line of a probe that is told, in bytes.
const MAX_SAID: usize = 200;

/// What the probe wanted to be known, or the last line that it printed.
fn said(folder: &Folder, message: Option<&str>) -> Option<String> {
    let printed = output::tail(folder.path(), MAX_SAID);
    // The output begins with a heading of the executor's own.
    let last = printed.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("==> "));
    message.or(last).map(|line| head(&single_line(line.trim()), MAX_SAID)).filter(|line| !line.is_empty())
}

async fn wait(folder: &Folder, plan: &Plan) -> Result<Said, String> {
    let own = plan.probe.as_ref().and_then(|probe| probe.timeout);
    let until = Instant::now() + own.unwrap_or(plan.timeout).0 + STARTS_WITHIN;
    let mut pause = Duration::from_millis(20);
    loop {
        // First who lives, then what is written: a result that came between is not taken for a loss.
        let lost = matches!(folder.newest_claim().map_err(|e| e.to_string())?, (_, ClaimState::Dead));
        let state = folder.state(plan).map_err(|error| error.to_string())?;
        match state.outcome() {
            Some(Outcome::Unchanged) => {
                return Ok((ProbeAnswer::Holds, said(folder, state.message.as_deref())));
            }
            Some(Outcome::Planned) => {
                return Ok((ProbeAnswer::DoesNotHold, said(folder, state.message.as_deref())));
            }
            Some(outcome) => {
                let (_, why) = crate::domain::state::end_of(outcome);
                return Err(why.unwrap_or_else(|| "the probe gave no answer".into()));
            }
            None if let Some(left) = folder.unready(1) => return Err(left.why),
            None if lost => return Err("the probe's executor was lost".into()),
            None if Instant::now() > until => return Err("the probe gave no answer in time".into()),
            None => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Ends what is left of a question, and removes its folder. An executor that has answered may still be on its way out.
pub(super) async fn end(launcher: &Launcher, folder: &Folder, runtime: &Path) {
    let until = Instant::now() + ENDS_WITHIN;
    while matches!(folder.newest_claim(), Ok((_, ClaimState::Held))) && Instant::now() < until {
        sleep(Duration::from_millis(20)).await;
    }
    match prepare::kill_leftovers(launcher, folder, runtime).await {
        Ok(0) => {
            if let Err(error) = folder.remove() {
                tracing::warn!("{error}");
            }
        }
        // Its folder stays, and the next agent looks for them again.
        Ok(left) => {
            tracing::warn!(run = %folder.run(), "{left} processes of a probe are still alive after SIGKILL")
        }
        Err(why) => {
            tracing::warn!(run = %folder.run(), "cannot tell whether processes of a probe are alive: {why}");
        }
    }
}

/// The digests of tasks that questions of an earlier agent may still use; an error means that nobody can tell.
pub(super) fn digests(state_dir: &Path) -> Result<BTreeSet<String>, FolderError> {
    let checks = state_dir.join("checks");
    if matches!(checks.try_exists(), Ok(false)) { Ok(BTreeSet::new()) } else { trim::digests(&checks) }
}
