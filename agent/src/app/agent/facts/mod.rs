//! The facts of this host: asked at their intervals, kept while they count, reported when they change.
//!
//! ```text
//!  due? -> question (ask.rs) -> FactAnswered -> kept in AskedFact -> report, gates, conditions
//! ```
//!
//! A fact never blocks anything else: it is asked beside the loop, and what comes of it is a value or a condition. Where
//! no fact is installed, nothing here ever wakes the agent.

mod ask;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Agent, Event};
use crate::catalog::facts::{FactCatalog, FactSource};
use crate::catalog::trust::OwnerRule;
use crate::domain::facts::{AskedFact, FactCommand, FactName, Known, Object};
use crate::domain::name::Name;
use crate::host::{built_in, clock};
use crate::report::facts::{self, FactsReport};

/// So many facts are asked for at once.
const ASKED_AT_ONCE: usize = 4;
/// The report of the facts is written at most so often.
const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// The first report waits so long for all facts to be asked once.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// The built-in fact is looked at again after this, when the agent is awake for another reason.
const BUILT_IN_EVERY: Duration = Duration::from_secs(3600);

/// What is known of this host's facts.
pub(super) struct HostFacts {
    catalog: FactCatalog,
    asked: BTreeMap<FactName, AskedFact>,
    asking: usize,
    /// The built-in fact, and when it was looked at.
    built_in: (Duration, Object),
    /// Since when the first report waits.
    started: Duration,
    shown: Option<Shown>,
    /// Whether something may differ from what is shown.
    changed: bool,
}

/// The report that the store is to hold.
struct Shown {
    report: Arc<FactsReport>,
    since: Duration,
    /// When a value in it counts no more.
    until: Option<Duration>,
}

impl HostFacts {
    /// Loads the facts; none is asked for yet.
    pub(super) fn load(dirs: &[PathBuf], rule: OwnerRule) -> Self {
        let now = clock::since_boot();
        let mut facts = Self {
            catalog: FactCatalog::default(),
            asked: BTreeMap::new(),
            asking: 0,
            built_in: (now, built_in::host()),
            started: now,
            shown: None,
            changed: true,
        };
        facts.reload(dirs, rule);
        facts
    }

    /// Loads the facts anew. What is known of one that is still there stays known.
    pub(super) fn reload(&mut self, dirs: &[PathBuf], rule: OwnerRule) {
        let now = clock::since_boot();
        self.catalog = FactCatalog::load(dirs, rule);
        self.built_in = (now, built_in::host());
        self.changed = true;
        let catalog = &self.catalog;
        self.asked.retain(|name, _| match catalog.facts.get(name) {
            Some(fact) => !matches!(fact, Ok(FactSource::Constant(_))),
            None => false,
        });
        for (name, fact) in &self.catalog.facts {
            if let Ok(FactSource::Command(command, _)) = fact {
                let asked = self.asked.entry(name.clone()).or_insert_with(|| AskedFact::new(command.every.0));
                asked.set_every(command.every.0, now);
            }
        }
    }

    /// What is known of a fact now.
    pub(super) fn known(&self, name: &FactName) -> Known<'_> {
        self.known_at(name, clock::since_boot())
    }

    fn known_at(&self, name: &FactName, now: Duration) -> Known<'_> {
        if *name == FactName::host() {
            return Known::Fresh(&self.built_in.1);
        }
        match (self.asked.get(name), self.catalog.facts.get(name)) {
            (Some(asked), _) => asked.known(now),
            (None, Some(Ok(FactSource::Constant(value)))) => Known::Fresh(value),
            (None, _) => Known::Absent,
        }
    }

    /// When something is to be asked or to be said.
    pub(super) fn wake(&self) -> Option<Instant> {
        let now = clock::since_boot();
        let asked = self.asked.values().filter_map(|asked| asked.wake(now));
        // Who waits for a place is asked when another one has answered.
        let asked = asked.filter(|at| *at > now || self.asking < ASKED_AT_ONCE);
        let report = match &self.shown {
            None => self.is_first_awaited().then(|| self.started.saturating_add(FIRST_WITHIN)),
            Some(shown) => self.changed.then(|| shown.since.saturating_add(MIN_INTERVAL)),
        };
        let at = asked.chain(report).min()?;
        Some(Instant::now() + at.saturating_sub(now))
    }

    fn is_first_awaited(&self) -> bool {
        self.asked.values().any(AskedFact::is_awaited)
    }

    /// The report that the store is to hold; `None`: not yet.
    pub(super) fn report(
        &mut self,
        host: &Name,
        labels: &BTreeMap<String, String>,
    ) -> Option<Arc<FactsReport>> {
        let now = clock::since_boot();
        if now.saturating_sub(self.built_in.0) >= BUILT_IN_EVERY {
            self.built_in = (now, built_in::host());
            self.changed = true;
        }
        if let Some(shown) = &self.shown {
            self.changed |= shown.until.is_some_and(|until| until <= now);
            if !self.changed || now.saturating_sub(shown.since) < MIN_INTERVAL {
                return Some(Arc::clone(&shown.report));
            }
        } else if self.is_first_awaited() && now.saturating_sub(self.started) < FIRST_WITHIN {
            return None;
        }
        self.changed = false;
        let names = std::iter::once(FactName::host()).chain(self.catalog.facts.keys().cloned());
        let names: Vec<FactName> = names.collect();
        let report = facts::compose(host, labels, names.iter().map(|name| (name, self.known_at(name, now))));
        let until = self.asked.values().filter_map(|asked| asked.counts_until(now)).min();
        let (report, since) = match self.shown.take() {
            Some(shown) if *shown.report == report => (shown.report, shown.since),
            _ => (Arc::new(report), now),
        };
        self.shown = Some(Shown { report: Arc::clone(&report), since, until });
        Some(report)
    }

    /// What keeps a fact from being had, or from being reported.
    pub(super) fn conditions(&self) -> Vec<String> {
        let now = clock::since_boot();
        let mut conditions = Vec::new();
        for (name, fact) in &self.catalog.facts {
            let why = match (fact, self.asked.get(name).and_then(AskedFact::failure)) {
                (Err(why), _) => why.as_str(),
                (Ok(_), Some(why)) => why,
                (Ok(_), None) => continue,
            };
            let known = match self.known_at(name, now) {
                Known::Absent => "it is absent",
                Known::Fresh(_) | Known::Stale(_) => "its last value is stale",
            };
            conditions.push(format!("fact {name}: {why}; {known}"));
        }
        conditions.extend(self.catalog.odd.iter().map(|why| format!("facts: {why}")));
        let left_out = self.shown.as_ref().map(|shown| shown.report.left_out.join(", ")).unwrap_or_default();
        if !left_out.is_empty() {
            conditions.push(format!("facts: no room in the report of 8 KiB for: {left_out}"));
        }
        conditions
    }
}

impl Agent {
    /// Asks for the facts that are due.
    pub(super) fn ask_facts(&mut self) {
        let now = clock::since_boot();
        let due: Vec<FactName> = self
            .facts
            .asked
            .iter()
            .filter(|(_, asked)| asked.is_due(now))
            .map(|(name, _)| name.clone())
            .take(ASKED_AT_ONCE.saturating_sub(self.facts.asking))
            .collect();
        for name in due {
            self.ask_fact(&name, now);
        }
    }

    fn ask_fact(&mut self, name: &FactName, now: Duration) {
        let (dirs, rule) = (&self.config.settings.facts_dirs, self.identity.rule);
        let found = self.facts.catalog.refresh(name, dirs, rule).cloned();
        let Some(asked) = self.facts.asked.get_mut(name) else { return };
        match found {
            Some(Ok(FactSource::Command(command, folder))) => {
                asked.set_every(command.every.0, now);
                asked.ask(now);
                self.facts.asking += 1;
                let (asking, name) = (self.asking(name, command, folder), name.clone());
                self.work.send(async move {
                    let answer = asking.ask().await;
                    Event::FactAnswered { name, asked: now, answer }
                });
            }
            Some(Err(why)) => {
                asked.ask(now);
                self.facts.changed |= asked.take(now, Err(why));
            }
            Some(Ok(FactSource::Constant(_))) | None => {
                self.facts.asked.remove(name);
                self.facts.changed = true;
            }
        }
    }

    fn asking(&self, name: &FactName, command: FactCommand, folder: PathBuf) -> ask::Asking {
        ask::Asking {
            name: name.clone(),
            host: self.identity.host.clone(),
            command,
            folder,
            runtime_dir: self.config.settings.runtime_dir.clone(),
            program: self.identity.program.clone(),
            launcher: self.run_table.launcher.clone(),
        }
    }

    /// Takes in what came of asking for a fact.
    pub(super) fn fact_answered(&mut self, name: &FactName, at: Duration, answer: Result<Object, String>) {
        self.facts.asking = self.facts.asking.saturating_sub(1);
        let Some(asked) = self.facts.asked.get_mut(name) else { return };
        if let Err(why) = &answer {
            tracing::debug!("the fact {name} is not known: {why}");
        }
        if asked.take(at, answer) {
            self.facts.changed = true;
            self.look_at_gates_again();
        }
    }

    /// Ends and removes the questions of an earlier agent.
    pub(super) fn end_fact_questions(&self) {
        ask::end_earlier(&self.config.settings.runtime_dir, &self.run_table.launcher);
    }
}
