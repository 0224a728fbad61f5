//! Brings the store to what it should say, by comparing.
//!
//! The agent shows the latest [`DesiredReports`]; the writer knows what the store holds, writes the difference, and after every
//! trouble looks again at what the store really holds. So nothing that was reported can be lost by an
//! outage, and nothing piles up in one: of many changes the last is written.
//!
//! A report that the store refuses (too large, a key that the token may not write) is tried again after growing
//! pauses, and keeps none of the others from the store. Only a store that is away ends a round; the report that found it
//! away comes last in the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::agent_key::AgentKey;
use super::audit::AuditReport;
use super::desired::{DesiredReports, RenderQueue, Report, Reports};
use super::document::{self, OrderReport, RunReport};
use super::facts::FactsReport;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::host::crash::{CrashPoint, here};
use crate::host::{allocator, clock};
use crate::store::{Entry, Read, Store, StoreError, When, portions};

/// A report of something that still goes on is renewed so often, with a jitter of a fifth.
const RENEW: Duration = Duration::from_secs(300);
/// Renewals that are due within this go together.
const TOGETHER: Duration = Duration::from_secs(10);
/// How much later than that a reader may think that the host is silent.
const SILENT_AFTER: Duration = Duration::from_secs(90);
/// A report whose phase has not changed is written at most so often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// A report that nobody waits for is written at most so often.
const UNHURRIED_INTERVAL: Duration = Duration::from_secs(10);
/// What is over in a moment is told only if it is not over by then.
const BRIEF: Duration = Duration::from_millis(50);
/// So many reports are deleted before it is asked whether something else is to be written.
const DELETED_AT_ONCE: usize = 256;
/// How many runs of a host the store holds.
pub const NEWEST_RUNS: usize = 20;
/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

struct Written {
    report: Arc<Report>,
    at: Instant,
    renew: Option<Instant>,
}

/// The longest pause before a refused report is tried again.
const MAX_REFUSAL_BACKOFF: Duration = Duration::from_secs(600);

/// What the writer says of its work.
#[derive(Debug)]
pub struct Signals {
    /// As of when the store has all that was due.
    pub written: watch::Sender<Option<Timestamp>>,
    /// What it refuses: one line for the operator.
    pub refused: watch::Sender<Option<String>>,
}

/// A key that the store refuses.
struct Refusal {
    again: Instant,
    pause: Duration,
    why: String,
}

/// What the writer needs: whose reports go where, and by which channels it hears and tells.
pub struct Writing {
    /// Where they go.
    pub store: Arc<dyn Store>,
    /// How their keys are spelled.
    pub keys: Keys,
    /// Whose they are.
    pub host: Name,
    /// The agent's own report, by which it knows others of the same name.
    pub own: AgentKey,
    /// By which the writer asks for texts.
    pub texts: RenderQueue,
    /// What is to be reported.
    pub wanted: watch::Receiver<Arc<DesiredReports>>,
    /// What it tells.
    pub signals: Signals,
}

/// Writes reports until the channel closes.
pub async fn write(writing: Writing) {
    let Writing { store, keys, host, own, texts, mut wanted, signals } = writing;
    let mut writer = Writer {
        own_key: keys.agent_report(&host).into(),
        own,
        texts,
        store,
        keys,
        host,
        written: None,
        changed: BTreeMap::new(),
        deleted: BTreeSet::new(),
        refused: BTreeMap::new(),
        postponed: None,
        looked: None,
        wrote: false,
        unfinished: false,
        failures: 0,
        failing_since: None,
    };
    let mut snapshot_count = 0;
    loop {
        let now = wanted.borrow_and_update().clone();
        // A store that was restored or rebuilt gives no error, so it is looked at again every now and then, too.
        if now.snapshot_count != snapshot_count || writer.looked.is_none_or(|looked| looked.elapsed() > RENEW)
        {
            if now.snapshot_count != snapshot_count {
                // Rights may have changed with what may be seen.
                writer.refused.clear();
            }
            snapshot_count = now.snapshot_count;
            writer.written = None;
        }
        let begun = clock::now();
        let again = match writer.bring(&now).await {
            Ok(again) => {
                writer.failures = 0;
                writer.failing_since = None;
                if writer.refused.is_empty() && !writer.unfinished {
                    signals.written.send_replace(Some(begun));
                }
                let refused = writer.refusals();
                signals.refused.send_if_modified(|known| {
                    let news = *known != refused;
                    *known = refused;
                    news
                });
                again
            }
            Err(error) => {
                tracing::debug!("cannot write reports: {error}");
                // In an outage nothing comes to rest, so here is where what the attempts needed is given back.
                allocator::trim();
                Some(Instant::now() + writer.pause())
            }
        };
        let failing = writer.failing_since.is_some();
        let quiet = writer.wrote.then(|| Instant::now() + allocator::IDLE_BEFORE_TRIM);
        tokio::select! {
            changed = wanted.changed(), if !failing => if changed.is_err() { return },
            () = until(again) => {}
            () = until(quiet) => {
                // Writing a thousand reports, or comparing them, leaves as much memory free as it took.
                writer.wrote = false;
                allocator::trim();
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

struct Writer {
    texts: RenderQueue,
    own: AgentKey,
    own_key: Arc<str>,
    store: Arc<dyn Store>,
    keys: Keys,
    host: Name,
    /// What the store holds; `None`: not known any more.
    written: Option<BTreeMap<Arc<str>, Written>>,
    /// Since when reports wait that differ from it.
    changed: BTreeMap<Arc<str>, Instant>,
    /// The dropped reports that the store does not hold.
    deleted: BTreeSet<Arc<str>>,
    /// The keys that the store refuses; a prefix, if it may not be read.
    refused: BTreeMap<Arc<str>, Refusal>,
    /// The report that found the store away: others come first.
    postponed: Option<Arc<str>>,
    /// When that was found out.
    looked: Option<Instant>,
    /// Whether anything was written or read since memory was given back.
    wrote: bool,
    /// Whether something that is due waits for its text, or for its turn.
    unfinished: bool,
    failures: u32,
    failing_since: Option<Instant>,
}

impl Writer {
    /// Writes what differs; says when to come again even if nothing changes.
    async fn bring(&mut self, wanted: &DesiredReports) -> Result<Option<Instant>, StoreError> {
        let DesiredReports { reports: wanted, dropped, .. } = wanted;
        self.unfinished = false;
        let mut written = match self.written.take() {
            Some(written) => written,
            None => self.look(wanted, dropped).await?,
        };
        let mut again: Option<Instant> = None;
        self.changed.retain(|key, _| wanted.contains_key(key));
        self.refused.retain(|key, _| wanted.contains_key(key) || key.ends_with('/'));
        // First what somebody waits for, then how the agent is.
        let own_key = Arc::clone(&self.own_key);
        let own = wanted.get_key_value(&own_key);
        let postponed = self.postponed.take().filter(|key| *key != own_key);
        let last = postponed.as_ref().and_then(|key| wanted.get_key_value(key));
        let others = wanted.iter().filter(|(key, _)| **key != own_key && Some(*key) != postponed.as_ref());
        for (key, report) in others.chain(own).chain(last) {
            let now = Instant::now();
            let before = written.get(key);
            let due = match before {
                None if !report.is_brief() => now,
                None => self.since(key, now) + BRIEF,
                Some(before) if !Arc::ptr_eq(&before.report, report) && before.report != *report => {
                    let since = self.since(key, now);
                    match before.report.same_phase(report) {
                        // With each order that moves on the agent's own report changes, which nobody waits for.
                        true if *key == own_key => (before.at).max(since) + MIN_INTERVAL,
                        true if report.is_unhurried() => before.at + UNHURRIED_INTERVAL,
                        true => before.at + MIN_INTERVAL,
                        false if report.is_brief() => since + BRIEF,
                        false => now,
                    }
                }
                Some(before) => match before.renew {
                    // Those that are due soon go together: each time all reports are looked through.
                    Some(renew) if renew <= now + TOGETHER => now,
                    Some(renew) => renew,
                    None => continue,
                },
            };
            let due = self.refused.get(key).map_or(due, |refusal| refusal.again.max(due));
            if due > now {
                again = Some(again.map_or(due, |again| again.min(due)));
                continue;
            }
            let renew = report.goes_on().then(|| RENEW.mul_f64(0.8) + clock::jitter(RENEW.mul_f64(0.2)));
            match self.put(key, report, renew).await {
                Ok(true) => drop(self.refused.remove(key)),
                Ok(false) => {
                    // Composed at once, it comes with the next change of what is wanted.
                    self.texts.ask(key);
                    self.unfinished = true;
                    continue;
                }
                Err(error) if error.is_away() => {
                    self.postponed = Some(Arc::clone(key));
                    return Err(error);
                }
                Err(error) => {
                    let at = self.refuse(key, error.to_string());
                    again = Some(again.map_or(at, |again| again.min(at)));
                    continue;
                }
            }
            report.is_written();
            self.changed.remove(key);
            self.wrote = true;
            allocator::mark_active();
            here(CrashPoint::Reported);
            let renew = renew.map(|span| now + span);
            again = renew.map_or(again, |renew| Some(again.map_or(renew, |again| again.min(renew))));
            written.insert(Arc::clone(key), Written { report: Arc::clone(report), at: now, renew });
        }
        let runs = self.keys.run_reports(&self.host);
        let unwanted: Vec<Arc<str>> =
            written.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in unwanted {
            written.remove(&key);
            // The report of an order stays when the order goes; of the runs only the newest stay.
            if key.starts_with(&runs) {
                self.delete(&key).await?;
            }
        }
        self.deleted.retain(|key| dropped.contains(key));
        let due: Vec<&Arc<str>> = dropped.iter().filter(|key| !self.deleted.contains(*key)).collect();
        let (now, later) = due.split_at(due.len().min(DELETED_AT_ONCE));
        for key in now {
            self.delete(key).await?;
            self.deleted.insert(Arc::clone(key));
            self.wrote = true;
        }
        if !later.is_empty() {
            // What somebody waits for comes between.
            self.unfinished = true;
            self.written = Some(written);
            return Ok(Some(Instant::now()));
        }
        let fewer = !now.is_empty();
        if fewer && self.refused.contains_key(self.keys.order_reports(&self.host).as_str()) {
            // They were too many to be read; now they may not be.
            return Ok(Some(Instant::now() + MIN_INTERVAL));
        }
        self.written = Some(written);
        Ok(again)
    }

    /// Removes a report; one that may not be removed stays.
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(key).await {
            Err(error) if !error.is_away() => tracing::debug!("cannot delete an old report: {error}"),
            deleted => deleted?,
        }
        Ok(())
    }

    /// Gives what the store holds below a prefix to `take`, in no order. `false`: not all of it can be read, so that
    /// what was not given may be there or not.
    async fn held(&mut self, prefix: &str, take: impl FnMut(Entry) + Send) -> Result<bool, StoreError> {
        let why = match portions::read(self.store.as_ref(), prefix, take).await {
            Ok(unread) => match unread.into_iter().next() {
                None => {
                    self.refused.remove(prefix);
                    return Ok(true);
                }
                Some((_, why)) => why,
            },
            Err(error) if error.is_away() => return Err(error),
            Err(error) => error.to_string(),
        };
        self.refuse(&prefix.into(), why);
        Ok(false)
    }

    /// Remembers that the store refuses a key; says when to try again.
    fn refuse(&mut self, key: &Arc<str>, why: String) -> Instant {
        let before = self.refused.get(key).map(|refusal| refusal.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(MAX_REFUSAL_BACKOFF));
        if before.is_none() {
            tracing::warn!("the store refused a report: {why}");
        }
        let again = Instant::now() + pause.mul_f64(0.75) + clock::jitter(pause.mul_f64(0.25));
        self.refused.insert(Arc::clone(key), Refusal { again, pause, why });
        again
    }

    /// What the store refuses, in one line.
    fn refusals(&self) -> Option<String> {
        let first = self.refused.values().next()?;
        let others = match self.refused.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!("reports: {}{others}", first.why))
    }

    /// Since when a report waits that differs from what the store holds.
    fn since(&mut self, key: &Arc<str>, now: Instant) -> Instant {
        *self.changed.entry(Arc::clone(key)).or_insert(now)
    }

    /// False: its text is not composed.
    async fn put(&mut self, key: &str, report: &Report, renew: Option<Duration>) -> Result<bool, StoreError> {
        let now = clock::now();
        let Some(json) = report.stamped(now, renew.map(|_| now + RENEW + SILENT_AFTER)) else {
            return Ok(false);
        };
        if key != &*self.own_key {
            return self.store.put(key, json, When::Always).await;
        }
        if self.own.put(&self.store, key, &json).await? {
            return Ok(true);
        }
        let (place, action) = (self.store.place(), format!("to write {key:?}"));
        Err(StoreError::Refused { place, action, why: "another agent writes its report there".into() })
    }

    /// What the store holds of this host. After an outage all agents look at once, so each waits a while first.
    async fn look(
        &mut self,
        wanted: &Reports,
        dropped: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, Written>, StoreError> {
        if let Some(since) = self.failing_since {
            // One cheap question tells whether the store is back.
            self.held(&self.keys.run_reports(&self.host), drop).await?;
            sleep(clock::jitter(since.elapsed().min(MAX_BACKOFF))).await;
        }
        let mut written = BTreeMap::new();
        let at = Instant::now().checked_sub(MIN_INTERVAL).unwrap_or_else(Instant::now);
        let mut same = |key: &Arc<str>, report: &Arc<Report>| {
            written.insert(Arc::clone(key), Written { report: Arc::clone(report), at, renew: None });
        };
        // The reports of orders that are to be deleted, and are still there.
        let mut left: BTreeSet<Arc<str>> = BTreeSet::new();
        let all_known = self
            .held(&self.keys.order_reports(&self.host), |entry| {
                left.extend(dropped.get(entry.key.as_str()).cloned());
                // The report of an order stays when the order goes.
                let Some((key, report)) = wanted.get_key_value(entry.key.as_str()) else { return };
                let held = read::<OrderReport>(&entry).map(|held| OrderReport {
                    updated: None,
                    next_report_by: None,
                    ..held
                });
                // One that still goes on is written again: its promise to be renewed was made by an earlier agent.
                if held.is_some_and(|held| report.is_of(&held)) && !report.goes_on() {
                    report.is_written();
                    same(key, report);
                }
            })
            .await?;
        // A report that was not seen is not known to be gone.
        if all_known {
            self.deleted = dropped.difference(&left).cloned().collect();
        }
        let mut runs: BTreeSet<String> = BTreeSet::new();
        self.held(&self.keys.run_reports(&self.host), |entry| {
            if let Some((key, report)) = wanted.get_key_value(entry.key.as_str())
                && read::<RunReport>(&entry).is_some_and(|held| report.is_of(&held))
            {
                same(key, report);
            }
            runs.insert(entry.key);
        })
        .await?;
        let facts = self.keys.facts_report(&self.host);
        if let Some((key, report)) = wanted.get_key_value(facts.as_str())
            && let Some(held) = self.held_one::<FactsReport>(key).await?
            && report.is_of(&FactsReport { updated: None, next_report_by: None, ..held })
        {
            report.is_written();
            same(key, report);
        }
        let audit = self.keys.audit_report(&self.host);
        if let Some((key, report)) = wanted.get_key_value(audit.as_str())
            && let Some(held) = self.held_one::<AuditReport>(key).await?
            && report.is_of(&held.head)
        {
            report.is_written();
            same(key, report);
        }
        self.looked = Some(Instant::now());
        self.wrote = true;
        let older = runs.len().saturating_sub(NEWEST_RUNS);
        for key in runs.iter().take(older).filter(|key| !wanted.contains_key(key.as_str())) {
            self.delete(key).await?;
        }
        Ok(written)
    }

    /// The report that the store holds at this key; `None`: none, or one that may not or cannot be read, which is written.
    async fn held_one<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, StoreError> {
        let found = match self.store.look(&[Read::Key(key.to_owned())]).await {
            Ok(found) => found,
            Err(error) if error.is_away() => return Err(error),
            Err(_) => return Ok(None),
        };
        Ok(found.iter().flat_map(|listing| &listing.entries).next().and_then(read::<T>))
    }

    fn pause(&mut self) -> Duration {
        self.written = None;
        self.failing_since.get_or_insert_with(Instant::now);
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.checked_mul(factor).map_or(MAX_BACKOFF, |pause| pause.min(MAX_BACKOFF));
        pause.mul_f64(0.75) + clock::jitter(pause.mul_f64(0.25))
    }
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    document::read(&entry.value).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::{Listing, StoreFuture};

    /// A store that keeps what it takes; some keys it refuses, at some it is away.
    #[derive(Default)]
    struct Picky {
        kept: Mutex<BTreeMap<String, Vec<u8>>>,
        refuses: Vec<String>,
        away_at: Vec<String>,
        /// The prefix that holds too much to be listed.
        too_large: Mutex<Option<String>>,
        asked: Mutex<Vec<String>>,
        /// So often somebody else writes the agent's own report first.
        faster: Mutex<u32>,
    }

    impl Picky {
        fn trouble(&self, action: &str, key: &str) -> Result<(), StoreError> {
            let place = String::from("a store");
            let any = |keys: &[String]| keys.iter().any(|at| key.starts_with(at.as_str()));
            if any(&self.away_at) {
                return Err(StoreError::Busy { place, why: "500".into() });
            }
            if any(&self.refuses) {
                let action = format!("to {action} {key}");
                return Err(StoreError::Refused { place, action, why: "413".into() });
            }
            Ok(())
        }

        fn holds(&self) -> Vec<String> {
            self.kept.lock().unwrap().keys().cloned().collect()
        }
    }

    impl Store for Picky {
        fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
            if self.too_large.lock().unwrap().as_deref() == Some(prefix) {
                let (place, action) = (String::from("a store"), format!("to list {prefix}"));
                let error = StoreError::TooLarge { place, action, why: "full".into() };
                return Box::pin(std::future::ready(Err(error)));
            }
            let kept = self.kept.lock().unwrap().clone();
            let below = kept.into_iter().filter(|(key, _)| key.starts_with(prefix));
            let entries =
                below.map(|(key, value)| Entry { key, value, too_large: false, modify_index: 1 }).collect();
            let listed = self.trouble("list", prefix).map(|()| Listing { index: 1, entries, sent: 0 });
            Box::pin(std::future::ready(listed))
        }

        fn changed<'a>(&'a self, prefix: &'a str, _: Option<u64>, _: Duration) -> StoreFuture<'a, Listing> {
            self.list(prefix)
        }

        fn look<'a>(&'a self, reads: &'a [Read]) -> StoreFuture<'a, Vec<Listing>> {
            Box::pin(std::future::ready(Ok(vec![Listing::default(); reads.len()])))
        }

        fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, when: When) -> StoreFuture<'a, bool> {
            self.asked.lock().unwrap().push(key.to_owned());
            let mut faster = self.faster.lock().unwrap();
            if matches!(when, When::Unchanged(_)) && *faster > 0 {
                *faster -= 1;
                return Box::pin(std::future::ready(Ok(false)));
            }
            let put = self.trouble("write", key).map(|()| {
                self.kept.lock().unwrap().insert(key.to_owned(), value);
                true
            });
            Box::pin(std::future::ready(put))
        }

        fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
            self.asked.lock().unwrap().push(format!("delete {key}"));
            let deleted = self.trouble("delete", key).map(|()| drop(self.kept.lock().unwrap().remove(key)));
            Box::pin(std::future::ready(deleted))
        }

        fn node(&self) -> StoreFuture<'_, String> {
            Box::pin(std::future::ready(Ok(String::new())))
        }

        fn place(&self) -> String {
            String::from("a store")
        }
    }

    fn writer(store: &Arc<Picky>) -> Writer {
        let (keys, host): (_, Name) = (Keys::new("hostler/"), "h".parse().unwrap());
        Writer {
            texts: RenderQueue::default(),
            own: AgentKey {
                id: "i".into(),
                boot: "b".into(),
                untrusted: false,
                name_conflicts: watch::channel(None).0,
                wrote: false,
            },
            own_key: keys.agent_report(&host).into(),
            store: Arc::clone(store) as Arc<dyn Store>,
            keys,
            host,
            written: None,
            changed: BTreeMap::new(),
            deleted: BTreeSet::new(),
            refused: BTreeMap::new(),
            postponed: None,
            looked: None,
            wrote: false,
            unfinished: false,
            failures: 0,
            failing_since: None,
        }
    }

    /// The reports of orders a to d, and of the agent.
    fn wanted(writer: &Writer) -> DesiredReports {
        let mut reports = Reports::new();
        for order in ["a", "b", "c", "d"] {
            let value = OrderReport { phase: "held".into(), order: order.into(), ..OrderReport::default() };
            let report = Report::order(&value);
            report.compose(&value).unwrap();
            reports.insert(
                writer.keys.order_report(&writer.host, &order.parse().unwrap()).into(),
                Arc::new(report),
            );
        }
        let value = document::AgentReport { host: "h".into(), ..document::AgentReport::default() };
        let report = Report::agent(&value);
        report.compose(&value).unwrap();
        reports.insert(Arc::clone(&writer.own_key), Arc::new(report));
        DesiredReports { reports, ..DesiredReports::default() }
    }

    fn ends(keys: &[String]) -> Vec<&str> {
        keys.iter().filter_map(|key| key.rsplit('/').next()).collect()
    }

    #[tokio::test]
    async fn a_report_that_is_refused_keeps_no_other_from_the_store() {
        for refused in ["orders/h/a", "orders/h/c", "agents/h"] {
            let refuses = vec![format!("hostler/reports/{refused}")];
            let store = Arc::new(Picky { refuses, ..Picky::default() });
            let mut writer = writer(&store);
            let wanted = wanted(&writer);
            let again = writer.bring(&wanted).await.unwrap();
            let (_, name) = refused.rsplit_once('/').unwrap();
            let others: Vec<&str> =
                ["h", "a", "b", "c", "d"].into_iter().filter(|other| *other != name).collect();
            assert_eq!(ends(&store.holds()), others, "{refused}");
            assert!(writer.refusals().unwrap().contains(refused), "{:?}", writer.refusals());
            // It is tried again, but not at once.
            assert!(again.is_some_and(|again| again > Instant::now()));
            let asked = store.asked.lock().unwrap().len();
            writer.bring(&wanted).await.unwrap();
            assert_eq!(store.asked.lock().unwrap().len(), asked);
            // Once it is taken nothing is wrong any more.
            let store = Arc::new(Picky::default());
            writer.store = Arc::clone(&store) as Arc<dyn Store>;
            writer.refused.values_mut().for_each(|refusal| refusal.again = Instant::now());
            writer.bring(&wanted).await.unwrap();
            assert_eq!((ends(&store.holds()), writer.refusals()), (vec![name], None));
        }
    }

    #[tokio::test]
    async fn the_agents_own_report_counts_as_written_only_when_it_is() {
        for (times, lost) in [(1, false), (2, false), (3, true), (30, true)] {
            let store = Arc::new(Picky { faster: Mutex::new(times), ..Picky::default() });
            let mut writer = writer(&store);
            let wanted = wanted(&writer);
            let again = writer.bring(&wanted).await.unwrap().unwrap();
            assert_eq!(store.holds().contains(&"hostler/reports/agents/h".to_owned()), !lost, "{times}");
            assert_eq!(writer.own.wrote, !lost, "{times}");
            let refusals = writer.refusals();
            assert_eq!(refusals.as_ref().is_some_and(|why| why.contains("another agent")), lost, "{times}");
            // It is tried again soon, and not at the next renewal.
            assert_eq!(again < Instant::now() + FIRST_PAUSE * 2, lost, "{times}");
        }
    }

    #[tokio::test]
    async fn a_report_that_is_dropped_is_deleted_once_and_one_that_is_not_wanted_stays() {
        let store = Arc::new(Picky::default());
        let mut writer = writer(&store);
        let mut wanted = wanted(&writer);
        writer.bring(&wanted).await.unwrap();
        for order in ["a", "b", "c"] {
            let key: Arc<str> = format!("hostler/reports/orders/h/{order}").into();
            wanted.reports.remove(&key);
            if order != "c" {
                wanted.dropped.insert(key);
            }
        }
        for _ in 0..2 {
            writer.bring(&wanted).await.unwrap();
            assert_eq!(ends(&store.holds()), ["h", "c", "d"]);
            assert_eq!(writer.deleted.len(), 2);
        }
        // What somebody put back is found when the store is looked at again.
        let key = "hostler/reports/orders/h/a".to_owned();
        store.kept.lock().unwrap().insert(key, b"{}".to_vec());
        writer.written = None;
        writer.bring(&wanted).await.unwrap();
        assert_eq!(ends(&store.holds()), ["h", "c", "d"]);
    }

    #[tokio::test]
    async fn a_report_at_which_the_store_is_away_comes_last_the_next_time() {
        let store =
            Arc::new(Picky { away_at: vec!["hostler/reports/orders/h/b".into()], ..Picky::default() });
        let mut writer = writer(&store);
        let wanted = wanted(&writer);
        assert!(writer.bring(&wanted).await.is_err());
        assert_eq!(ends(&store.holds()), ["a"]);
        assert!(writer.bring(&wanted).await.is_err());
        assert_eq!(ends(&store.holds()), ["h", "a", "c", "d"]);
    }

    #[tokio::test]
    async fn reports_that_are_too_many_to_be_read_are_deleted_and_then_read() {
        let store = Arc::new(Picky::default());
        let mut writer = writer(&store);
        let prefix = writer.keys.order_reports(&writer.host);
        let gone: Vec<Arc<str>> = (0..200).map(|n| format!("{prefix}gone-{n}").into()).collect();
        for key in &gone {
            store.kept.lock().unwrap().insert(key.to_string(), b"{}".to_vec());
        }
        *store.too_large.lock().unwrap() = Some(prefix.clone());
        let mut wanted = wanted(&writer);
        wanted.dropped = gone.iter().cloned().collect();
        // What cannot be seen is not known to be gone.
        let again = writer.bring(&wanted).await.unwrap().unwrap();
        assert!(again <= Instant::now() + MIN_INTERVAL);
        let left = store.holds();
        assert!(left.iter().all(|key| !key.contains("gone-")), "{left:?}");
        assert!(writer.refusals().unwrap().contains("full"));
        *store.too_large.lock().unwrap() = None;
        writer.bring(&wanted).await.unwrap();
        assert_eq!(writer.refusals(), None);
        // Nothing is deleted twice.
        let asked = store.asked.lock().unwrap();
        assert_eq!(asked.iter().filter(|asked| asked.starts_with("delete ")).count(), gone.len());
    }

    /// Ten thousand deletions take a while, in which somebody waits for the end of a run.
    #[tokio::test]
    async fn many_reports_are_deleted_in_portions_with_news_between_them() {
        let store = Arc::new(Picky::default());
        let mut writer = writer(&store);
        let prefix = writer.keys.order_reports(&writer.host);
        let gone = DELETED_AT_ONCE + 10;
        let keys: Vec<Arc<str>> = (0..gone).map(|n| format!("{prefix}gone-{n}").into()).collect();
        for key in &keys {
            store.kept.lock().unwrap().insert(key.to_string(), b"{}".to_vec());
        }
        let mut wanted = wanted(&writer);
        wanted.dropped = keys.into_iter().collect();
        assert!(writer.bring(&wanted).await.unwrap().is_some_and(|again| again <= Instant::now()));
        // What is left is due, so not everything that is due is in the store.
        assert!(writer.unfinished);
        assert_eq!(store.holds().iter().filter(|key| key.contains("gone-")).count(), 10);
        let value = OrderReport { phase: "failed".into(), ..OrderReport::default() };
        let (key, report) = (format!("{prefix}b").into(), Arc::new(Report::order(&value)));
        report.compose(&value).unwrap();
        wanted.reports.insert(key, report);
        writer.bring(&wanted).await.unwrap();
        assert!(!writer.unfinished);
        let asked = store.asked.lock().unwrap();
        let at = |wanted: &str| asked.iter().rposition(|asked| asked.ends_with(wanted)).unwrap();
        let deleted = |from: usize| asked[from..].iter().filter(|asked| asked.starts_with("delete ")).count();
        assert_eq!((deleted(0), deleted(at("orders/h/b"))), (gone, 10));
    }

    /// A report whose text is not composed yet is due all the same.
    #[tokio::test]
    async fn a_report_without_its_text_is_not_taken_for_written() {
        let store = Arc::new(Picky::default());
        let mut writer = writer(&store);
        let mut wanted = wanted(&writer);
        let value = OrderReport { phase: "held".into(), ..OrderReport::default() };
        let key: Arc<str> = format!("{}e", writer.keys.order_reports(&writer.host)).into();
        wanted.reports.insert(Arc::clone(&key), Arc::new(Report::order(&value)));
        writer.bring(&wanted).await.unwrap();
        assert!(writer.unfinished && writer.texts.take().contains(&key));
        wanted.reports[&key].compose(&value).unwrap();
        writer.bring(&wanted).await.unwrap();
        assert!(!writer.unfinished && store.holds().contains(&key.to_string()));
    }

    #[tokio::test]
    async fn old_reports_that_may_be_neither_listed_nor_removed_stop_nothing() {
        let refuses = vec!["hostler/reports/runs/h/".into(), "hostler/reports/orders/h/c".into()];
        let store = Arc::new(Picky { refuses, ..Picky::default() });
        let mut writer = writer(&store);
        let wanted = wanted(&writer);
        writer.bring(&wanted).await.unwrap();
        assert_eq!(ends(&store.holds()), ["h", "a", "b", "d"]);
        assert!(writer.refusals().unwrap().ends_with("(and 1 more)"), "{:?}", writer.refusals());
        // A run's report that is not wanted any more, and may not be deleted.
        let run: Arc<str> = "hostler/reports/runs/h/01M86SX6WG50HQZCCXK3FHHERS".into();
        let value = RunReport::default();
        let report = Arc::new(Report::run(&value));
        let held = Written { report, at: Instant::now(), renew: None };
        writer.written.as_mut().unwrap().insert(run, held);
        writer.bring(&wanted).await.unwrap();
    }
}
