//! What the agent tells a monitoring system: its state at the moment of the question, and nothing in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Agent;
use crate::domain::condition::Kind;
use crate::domain::decide::{ExecutorState, Reason, RunView};
use crate::domain::state::Hold;
use crate::host::{clock, disk, machine, process};
use crate::ledger::reserve::Free;
use crate::report::compose::Composed;
use crate::telemetry::http::{self, CONNECTIONS, Page, Query, Response};
use crate::telemetry::metrics::{self, Snapshot, Words};

/// The place where questions are taken.
pub(super) struct Listening {
    at: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
    local: Option<JoinHandle<()>>,
    sender: mpsc::Sender<Query>,
    pub(super) questions: mpsc::Receiver<Query>,
    pub(super) troubles: watch::Receiver<Option<String>>,
}

impl Listening {
    /// Nowhere yet.
    pub(super) fn new() -> Self {
        let (sender, questions) = mpsc::channel(CONNECTIONS);
        Self { at: None, task: None, local: None, sender, questions, troubles: watch::channel(None).1 }
    }

    /// In the runtime folder from now on, whatever the configuration says of an address.
    pub(super) fn listen_locally(&mut self, runtime_dir: &Path) {
        // Where systemd does not make the folder. What is wrong with it is told by who cannot write there.
        let _ = disk::make_dirs(runtime_dir).and_then(|()| process::pass_through(runtime_dir));
        let serving = http::serve_locally(http::socket(runtime_dir), self.sender.clone());
        if let Some(former) = self.local.replace(tokio::spawn(serving)) {
            former.abort();
        }
    }

    /// At that address from now on, and at no other.
    pub(super) fn listen(&mut self, at: Option<SocketAddr>) {
        if self.at == at {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let (trouble, troubles) = watch::channel(None);
        self.troubles = troubles;
        self.task = at.map(|at| tokio::spawn(http::serve(at, self.sender.clone(), trouble)));
        self.at = at;
    }

    /// Where that is.
    pub(super) fn at(&self) -> Option<SocketAddr> {
        self.at
    }

    /// Why nobody can ask.
    pub(super) fn trouble(&self) -> Option<String> {
        self.troubles.borrow().clone()
    }
}

/// How many orders the reports that were composed last show in which phase, and why.
#[derive(Debug, Default)]
pub(super) struct PhaseCounts {
    phases: BTreeMap<String, usize>,
    waiting: BTreeMap<String, usize>,
    held: BTreeMap<String, usize>,
    drifted: usize,
}

impl PhaseCounts {
    /// Counts an order; one that is gone and of which nothing is under way is none any more.
    pub(super) fn count(&mut self, Composed { report, is_history, unsettled }: &Composed) {
        if let Some(end) = unsettled {
            add(&mut self.phases, end.as_str());
        }
        if *is_history {
            return;
        }
        add(&mut self.phases, &report.phase);
        self.drifted += usize::from(report.drifted);
        match (report.phase.as_str(), &report.reason) {
            ("waiting", Some(reason)) => add(&mut self.waiting, reason),
            ("held", Some(reason)) => add(&mut self.held, reason),
            _ => {}
        }
    }
}

fn add(counts: &mut BTreeMap<String, usize>, word: &str) {
    match counts.get_mut(word) {
        Some(count) => *count += 1,
        None => drop(counts.insert(word.to_owned(), 1)),
    }
}

/// Each of the words with its count; others than these do not occur.
fn words<'a>(all: impl Iterator<Item = &'a str>, counts: &BTreeMap<String, usize>) -> Words<'a> {
    all.map(|word| (word, counts.get(word).copied().unwrap_or_default())).collect()
}

impl Agent {
    /// Answers; whoever asked may be gone.
    pub(super) fn answer(&mut self, question: Query) {
        let answer = match question.page {
            Page::Metrics => Response { good: true, text: self.measure() },
            // That it is answered at all says it.
            Page::Health => Response { good: true, text: "the agent is alive\n".to_owned() },
            Page::Ready => Response { good: self.obstacle().is_none(), text: format!("{}\n", self.status()) },
        };
        let _ = question.answer.send(answer);
    }

    fn measure(&self) -> String {
        let now = clock::now();
        let process = machine::process();
        let mut conditions: Words<'_> = Kind::ALL.iter().map(|kind| (kind.as_str(), 0)).collect();
        for condition in self.conditions() {
            *conditions.entry(condition.kind.as_str()).or_default() += 1;
        }
        let broken = self.orders.catalog.iter().filter(|(_, task)| task.is_err()).count();
        let contacts: Option<Vec<Instant>> =
            self.sync.watches.iter().map(super::watches::PrefixWatch::contact).collect();
        let contact = contacts.and_then(|contacts| contacts.into_iter().min());
        let views = self.run_table.runs.views().values();
        let shown = &self.output.shown;
        let seconds = |at: Timestamp| at.as_duration().as_secs_f64();
        metrics::page(&Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            started: self.identity.started,
            resident: process.resident,
            cpu: process.cpu,
            ready: self.obstacle().is_none(),
            conditions,
            phases: shown.phases.iter().map(|(phase, count)| (phase.as_str(), *count)).collect(),
            waiting: words(Reason::ALL.iter().map(|reason| reason.as_str()), &shown.waiting),
            held: words(Hold::ALL.iter().map(|hold| hold.as_str()), &shown.held),
            runs: &self.output.counters,
            executing: views.clone().filter(|run| run.executor == ExecutorState::Alive).count(),
            parallel: self.config.settings.runs.parallel,
            overdue: views.filter(|run| is_overdue(run, now)).count(),
            tasks: (self.orders.catalog.iter().count() - broken, broken),
            contact: contact.map(|at| seconds(now) - at.elapsed().as_secs_f64()),
            reported: self.output.reported.borrow().map(seconds),
            drifted: shown.drifted,
            freezes: self.freezes(now).count(),
            successes: self.last_successes().into_iter().map(|(order, at)| (order, seconds(at))).collect(),
            services: self.service_downtimes(now),
            ledger: self.durable.ledger.as_ref().ok().map(crate::ledger::Ledger::size),
            free: Free::of(&self.config.settings.state_dir).ok().map(|free| (free.bytes, free.inodes)),
        })
    }

    /// Shows the installed tasks from now on.
    pub(super) fn know_tasks(&mut self) {
        self.orders.know_tasks(self.identity.rule);
        for (task, _) in self.orders.catalog.iter().filter(|(_, task)| task.is_ok()) {
            self.output.counters.know(task);
        }
    }
}

/// Whether a run executes, and has used up its time.
fn is_overdue(run: &RunView, now: Timestamp) -> bool {
    let Ok(state) = &run.state else { return false };
    let Some(updated) =
        state.updated.filter(|_| run.executor == ExecutorState::Alive && state.outcome().is_none())
    else {
        return false;
    };
    let since = now.duration_since(updated).try_into().unwrap_or_default();
    state.spent.saturating_add(since) > run.plan.timeout.0
}
