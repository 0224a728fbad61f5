//! Brings the store to what it should say, by comparing.
//!
//! The agent shows the latest [`Wanted`]; the writer knows what the store holds, writes the difference, and after every
//! trouble looks again at what the store really holds. So nothing that was reported can be lost by an
//! outage, and nothing piles up in one: of many changes the last is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::document::{self, OrderReport, RunReport};
use super::own::Own;
use super::wanted::{Report, Reports, Texts, Wanted};
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::host::crash::{CrashPoint, here};
use crate::host::{clock, heap};
use crate::store::{Entry, Store, StoreError, When};

/// A report of something that still goes on is renewed so often, with a jitter of a fifth.
const RENEW: Duration = Duration::from_secs(300);
/// Renewals that are due within this go together.
const TOGETHER: Duration = Duration::from_secs(10);
/// How much later than that a reader may think that the host is silent.
const SILENT_AFTER: Duration = Duration::from_secs(90);
/// A report whose phase has not changed is written at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// What is over in a moment is told only if it is not over by then.
const BRIEF: Duration = Duration::from_millis(50);
/// How many runs of a host the store holds.
pub const NEWEST_RUNS: usize = 20;
/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

struct Written {
    report: Arc<Report>,
    at: Instant,
    renew: Option<Instant>,
}

/// Writes reports until the channel closes; `written` shows when that last went without trouble.
pub async fn write(
    store: Arc<dyn Store>,
    keys: Keys,
    host: Name,
    own: Own,
    texts: Texts,
    mut wanted: watch::Receiver<Arc<Wanted>>,
    written: watch::Sender<Option<Timestamp>>,
) {
    let mut writer = Writer {
        own_key: keys.agent_report(&host).into(),
        own,
        texts,
        store,
        keys,
        host,
        written: None,
        changed: BTreeMap::new(),
        looked: None,
        wrote: false,
        failures: 0,
        failing_since: None,
    };
    let mut sightings = 0;
    loop {
        let now = wanted.borrow_and_update().clone();
        // A store that was restored or rebuilt gives no error, so it is looked at again every now and then, too.
        if now.sightings != sightings || writer.looked.is_none_or(|looked| looked.elapsed() > RENEW) {
            sightings = now.sightings;
            writer.written = None;
        }
        let again = match writer.bring(&now.reports).await {
            Ok(again) => {
                writer.failures = 0;
                writer.failing_since = None;
                written.send_replace(Some(clock::now()));
                again
            }
            Err(error) => {
                tracing::debug!("reports are not written: {error}");
                // In an outage nothing comes to rest, so here is where what the attempts needed is given back.
                heap::give_back();
                Some(Instant::now() + writer.pause())
            }
        };
        let failing = writer.failing_since.is_some();
        let quiet = writer.wrote.then(|| Instant::now() + heap::REST);
        tokio::select! {
            changed = wanted.changed(), if !failing => if changed.is_err() { return },
            () = until(again) => {}
            () = until(quiet) => {
                // Writing a thousand reports, or comparing them, leaves as much memory free as it took.
                writer.wrote = false;
                heap::give_back();
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
    texts: Texts,
    own: Own,
    own_key: Arc<str>,
    store: Arc<dyn Store>,
    keys: Keys,
    host: Name,
    /// What the store holds; `None`: not known any more.
    written: Option<BTreeMap<Arc<str>, Written>>,
    /// Since when reports wait that differ from it.
    changed: BTreeMap<Arc<str>, Instant>,
    /// When that was found out.
    looked: Option<Instant>,
    /// Whether anything was written or read since memory was given back.
    wrote: bool,
    failures: u32,
    failing_since: Option<Instant>,
}

impl Writer {
    /// Writes what differs; says when to come again even if nothing changes.
    async fn bring(&mut self, wanted: &Reports) -> Result<Option<Instant>, StoreError> {
        let mut written = match self.written.take() {
            Some(written) => written,
            None => self.look(wanted).await?,
        };
        let mut again: Option<Instant> = None;
        self.changed.retain(|key, _| wanted.contains_key(key));
        // First what somebody waits for, then how the agent is.
        let own_key = Arc::clone(&self.own_key);
        let own = wanted.get_key_value(&own_key);
        for (key, report) in wanted.iter().filter(|(key, _)| **key != own_key).chain(own) {
            let now = Instant::now();
            let before = written.get(key);
            let due = match before {
                None if !report.is_brief() => now,
                None => self.since(key, now) + BRIEF,
                Some(before) if !Arc::ptr_eq(&before.report, report) && before.report != *report => {
                    let since = self.since(key, now);
                    match before.report.same_phase(report) {
                        // With each order that moves on the agent's own report changes, which nobody waits for.
                        true if *key == own_key => (before.at).max(since) + AT_MOST_EVERY,
                        true => before.at + AT_MOST_EVERY,
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
            if due > now {
                again = Some(again.map_or(due, |again| again.min(due)));
                continue;
            }
            let renew = report.goes_on().then(|| RENEW.mul_f64(0.8) + clock::jitter(RENEW.mul_f64(0.2)));
            if !self.put(key, report, renew).await? {
                // Composed at once, it comes with the next change of what is wanted.
                self.texts.ask(key);
                continue;
            }
            report.is_written();
            self.changed.remove(key);
            self.wrote = true;
            heap::at_work();
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
                self.store.delete(&key).await?;
            }
        }
        self.written = Some(written);
        Ok(again)
    }

    /// Since when a report waits that differs from what the store holds.
    fn since(&mut self, key: &Arc<str>, now: Instant) -> Instant {
        *self.changed.entry(Arc::clone(key)).or_insert(now)
    }

    async fn put(&mut self, key: &str, report: &Report, renew: Option<Duration>) -> Result<bool, StoreError> {
        let now = clock::now();
        let Some(json) = report.stamped(now, renew.map(|_| now + RENEW + SILENT_AFTER)) else {
            return Ok(false);
        };
        if key == &*self.own_key {
            self.own.put(&self.store, key, json).await?;
            return Ok(true);
        }
        self.store.put(key, json, When::Always).await
    }

    /// What the store holds of this host. After an outage all agents look at once, so each waits a while first.
    async fn look(&mut self, wanted: &Reports) -> Result<BTreeMap<Arc<str>, Written>, StoreError> {
        if let Some(since) = self.failing_since {
            // One cheap question tells whether the store is back.
            self.store.list(&self.keys.run_reports(&self.host)).await?;
            sleep(clock::jitter(since.elapsed().min(LONGEST_PAUSE))).await;
        }
        let orders = self.store.list(&self.keys.order_reports(&self.host)).await?;
        let runs = self.store.list(&self.keys.run_reports(&self.host)).await?;
        self.looked = Some(Instant::now());
        self.wrote = true;
        let mut written = BTreeMap::new();
        let at = Instant::now().checked_sub(AT_MOST_EVERY).unwrap_or_else(Instant::now);
        for entry in &orders.entries {
            let Some((key, report)) = wanted.get_key_value(entry.key.as_str()) else {
                // The report of an order stays when the order goes.
                continue;
            };
            let held =
                read::<OrderReport>(entry).map(|held| OrderReport { updated: None, next_by: None, ..held });
            // One that still goes on is written again: its promise to be renewed was made by an earlier agent.
            if held.is_some_and(|held| report.is_of(&held)) && !report.goes_on() {
                report.is_written();
                written.insert(Arc::clone(key), Written { report: Arc::clone(report), at, renew: None });
            }
        }
        let newest = runs.entries.len().saturating_sub(NEWEST_RUNS);
        for (i, entry) in runs.entries.iter().enumerate() {
            match wanted.get_key_value(entry.key.as_str()) {
                Some((key, report)) if read::<RunReport>(entry).is_some_and(|held| report.is_of(&held)) => {
                    written.insert(Arc::clone(key), Written { report: Arc::clone(report), at, renew: None });
                }
                Some(_) => {}
                None if i < newest => self.store.delete(&entry.key).await?,
                None => {}
            }
        }
        Ok(written)
    }

    fn pause(&mut self) -> Duration {
        self.written = None;
        self.failing_since.get_or_insert_with(Instant::now);
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.checked_mul(factor).map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
        pause.mul_f64(0.75) + clock::jitter(pause.mul_f64(0.25))
    }
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    document::read(&entry.value).ok()
}
