//! Keeps one prefix in view: what to ask next, what an answer means, how long to wait between.
//!
//! [`Watch`] is the machine: no store, no clock, no chance; time and jitter are handed in. [`watch`] drives
//! it and shows the latest [`Snapshot`], which can say "I do not know" in three ways. Of all states only
//! [`WatchState::Current`] speaks of keys: an absence that is only apparent never gets that far.
//!
//! ```text
//!              answer with marker           the same again: no news
//!  Unknown ─────────────────────► Visible ◄──────────────────────┐
//!     │                           ▲  │  └────────────────────────┘
//!     │  answer without marker    │  ▼
//!     ├──────────────────────► NotVisible     (asks again after a while, not at once)
//!     │  no answer                ▲  │
//!     └──────────────────────► Trouble        (backs off, then asks without an index)
//!                              TooLarge       (the same)
//!                              Unreadable     (the same)
//! ```
//!
//! **A watch that has not answered says nothing.** A recursive delete without a final slash, for one, does not wake
//! Consul's blocking queries below it. So each prefix is also read plainly, at least once a minute, and whenever somebody
//! has seen something else there.
//!
//! **An agent that dies leaves its questions with the server**, which keeps the connection of each until its wait is
//! over, and has 200 for one client's address. So an agent that was started a moment ago waits for a short time only.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::watch::Sender;

use super::budget::Budget;
use super::{Listing, MAX_WAIT, Store, StoreError};

/// Answers a second that are asked for in the long run. A store that answers every question at once, for
/// whatever reason, costs no more than this.
pub const ANSWERS_A_SECOND: u32 = 5;

/// Answers that may come in a row before that limit holds: several orders placed one after the other are
/// seen at once.
pub const BURST: u32 = 10;

/// An answer counts once more for each of so many bytes: each change below a prefix sends all of it again.
const LARGE_ANSWER: usize = 256 << 10;

/// What one answer costs.
const EACH: Duration = Duration::from_millis(1000 / ANSWERS_A_SECOND as u64);

/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: what an operator waits at most after the servers are back.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The pause after an answer without marker. An empty prefix is woken by every unrelated write, and a host
/// that may not see it must not load the servers for that.
const BLIND_PAUSE: Duration = Duration::from_secs(5);

/// A prefix is read plainly when the last plain reading is so old; the waits between end by then.
const PLAINLY_EVERY: Duration = Duration::from_secs(55);

/// For so long a watch counts as begun a moment ago.
const YOUNG: Duration = Duration::from_secs(60);

/// The longest wait of a watch that was begun a moment ago.
const YOUNG_WAIT: Duration = Duration::from_secs(10);

/// What is known of a prefix at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchState {
    /// Not asked yet.
    Pending,
    /// All keys below the prefix, without the marker.
    Current(Arc<Listing>),
    /// The store answers, but without the marker: the agent may not see the prefix, or nobody enrolled it.
    NoMarker,
    /// There is more below the prefix than is read; says how much.
    TooLarge(String),
    /// The store answers, and not as its documentation says; says what is wrong.
    Unreadable(String),
    /// The store gives no answer that counts; says why.
    Failed(String),
}

/// What a watch shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What is known at present.
    pub state: WatchState,
    /// The last visible listing, also when it is not the present one: for messages and reports, never for
    /// a decision that rests on an absence.
    pub last: Option<Arc<Listing>>,
    /// When the store gave the last answer that counts, with or without marker.
    pub contact: Option<Instant>,
    /// The store's index in that answer, for the report.
    pub index: Option<u64>,
    /// The last question got no answer at all, not even a refusal.
    pub away: bool,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { state: WatchState::Pending, last: None, contact: None, index: None, away: false }
    }
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Whether [`Watch::seen`] differs in more than the moment of contact.
    pub news: bool,
    /// How long to wait before the next question.
    pub pause: Duration,
}

/// The machine that watches one prefix.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    /// The index to ask with; `None`: ask for an answer at once.
    index: Option<u64>,
    failures: u32,
    /// When the answers so far are used up at the permitted rate.
    paid: Option<Instant>,
    /// When it was begun.
    begun: Option<Instant>,
    /// When the prefix was last read plainly; `None`: not yet.
    plainly: Option<Instant>,
    seen: Snapshot,
}

/// The next question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The index to wait behind; `None`: answered at once.
    pub seen: Option<u64>,
    /// For how long at most.
    pub within: Duration,
}

impl Watch {
    /// Watches `prefix`, which ends in `/`.
    pub fn new(prefix: &str) -> Self {
        let seen = Snapshot::default();
        Self {
            prefix: prefix.to_owned(),
            index: None,
            failures: 0,
            paid: None,
            begun: None,
            plainly: None,
            seen,
        }
    }

    /// What [`Store::changed`] is asked with at `now`. The wait is one that ends in time for the next plain reading,
    /// also where the server stretches it by a sixteenth.
    pub fn ask(&mut self, now: Instant) -> Ask {
        let begun = *self.begun.get_or_insert(now);
        let young = now.saturating_duration_since(begun) < YOUNG;
        let due = self.plainly.and_then(|at| at.checked_add(PLAINLY_EVERY));
        let left = due.map(|due| due.saturating_duration_since(now)).unwrap_or_default();
        let within = left.saturating_mul(16).checked_div(17).unwrap_or_default();
        let within = within.min(if young { YOUNG_WAIT } else { MAX_WAIT });
        let seen = self.index.filter(|_| within >= Duration::from_secs(1));
        Ask { seen, within }
    }

    /// What is known now.
    pub fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// Takes an answer in that came at `now`; `plainly`: it was given at once, and does not rest on what the store had
    /// noticed. `jitter` is a number from 0 to 1, new for each call.
    pub fn on_response(
        &mut self,
        answer: Result<Listing, StoreError>,
        plainly: bool,
        now: Instant,
        jitter: f64,
    ) -> Next {
        match answer {
            Ok(listing) => {
                self.plainly = if plainly { Some(now) } else { self.plainly };
                self.on_listing(listing, now, jitter)
            }
            Err(error) => self.on_error(&error, now, jitter),
        }
    }

    fn on_listing(&mut self, listing: Listing, now: Instant, jitter: f64) -> Next {
        self.failures = 0;
        self.seen.away = false;
        self.seen.contact = Some(now);
        self.seen.index = Some(listing.index);
        // An index that goes backwards belongs to a store that was rebuilt or restored: asking on with the
        // old one, or even the new one, may hide changes, so the next question has none.
        let backwards = self.index.is_some_and(|asked| listing.index < asked);
        self.index = if backwards { None } else { Some(listing.index.max(1)) };
        let mut pause = self.toll(now, listing.sent);
        let state = match listing.without_marker(&self.prefix) {
            None => {
                pause = pause.max(jittered(BLIND_PAUSE, jitter));
                WatchState::NoMarker
            }
            Some(listing) => match &self.seen.last {
                // The same keys: keep the one that readers hold, so that equal means the same memory.
                Some(last) if last.entries == listing.entries => WatchState::Current(Arc::clone(last)),
                _ => WatchState::Current(Arc::new(listing)),
            },
        };
        Next { news: self.show(state), pause }
    }

    fn on_error(&mut self, error: &StoreError, now: Instant, jitter: f64) -> Next {
        // Behind a broken connection may be another server, with another past.
        self.index = None;
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.seen.away = error.is_away();
        let pause = self.toll(now, 0).max(jittered(pause, jitter));
        let state = match error {
            StoreError::TooLarge { .. } => WatchState::TooLarge(error.to_string()),
            StoreError::Unreadable { .. } => WatchState::Unreadable(error.to_string()),
            _ => WatchState::Failed(error.to_string()),
        };
        if matches!(state, WatchState::TooLarge(_)) {
            // It answers, and what it held before is no longer held.
            self.seen.contact = Some(now);
            self.seen.last = None;
        }
        Next { news: self.show(state), pause }
    }

    fn show(&mut self, state: WatchState) -> bool {
        if let WatchState::Current(listing) = &state {
            self.seen.last = Some(Arc::clone(listing));
        }
        let news = state != self.seen.state;
        self.seen.state = state;
        news
    }

    /// Counts an answer of so many bytes, a large one as several; the pause that keeps the rate.
    fn toll(&mut self, now: Instant, sent: usize) -> Duration {
        let count = u32::try_from(sent / LARGE_ANSWER).unwrap_or(u32::MAX).saturating_add(1);
        let cost = EACH.saturating_mul(count).min(MAX_BACKOFF);
        let since = self.paid.map_or(now, |paid| paid.max(now));
        let paid = since.checked_add(cost).unwrap_or(since);
        self.paid = Some(paid);
        paid.saturating_duration_since(now).saturating_sub(EACH.saturating_mul(BURST))
    }
}

/// From half of `pause` to the whole of it: a fleet that lost its servers must not come back as one.
fn jittered(pause: Duration, jitter: f64) -> Duration {
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
    pause.mul_f64(0.5 + jitter / 2.0)
}

/// Watches `prefix` until nobody listens any more; the receiver always holds the latest, and is woken only
/// by news. Whoever has seen something else there wakes `doubt` for a plain reading. Holds no more than `budget` admits.
/// Safe to drop at any point: everything that it holds is in the store.
pub async fn watch(
    store: Arc<dyn Store>,
    prefix: &str,
    doubt: &Notify,
    budget: &Budget,
    sender: &Sender<Snapshot>,
) {
    let mut machine = Watch::new(prefix);
    let now = || tokio::time::Instant::now().into_std();
    loop {
        let ask = machine.ask(now());
        let mut waiting = store.changed(prefix, ask.seen, ask.within);
        loop {
            let (answer, plainly, over) = tokio::select! {
                answer = &mut waiting => (answer, ask.seen.is_none(), true),
                // The question that waits is kept: dropped, it would keep its connection at the server all the same.
                () = doubt.notified(), if ask.seen.is_some() => tokio::select! {
                    answer = store.list(prefix) => (answer, true, false),
                    () = sender.closed() => return,
                },
                () = sender.closed() => return,
            };
            let answer = answer.and_then(|listing| match budget.admit(prefix, &listing) {
                Ok(()) => Ok(listing),
                Err(why) => {
                    let (place, action) = (store.place(), format!("to list {prefix:?}"));
                    Err(StoreError::TooLarge { place, action, why })
                }
            });
            let next = machine.on_response(answer, plainly, now(), fastrand::f64());
            sender.send_if_modified(|shown| {
                shown.clone_from(machine.seen());
                next.news
            });
            if !next.pause.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(next.pause) => {}
                    () = sender.closed() => return,
                }
            }
            if over {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::{Entry, Read, StoreFuture, When};
    use super::*;

    fn listing(index: u64, keys: &[(&str, u64)]) -> Listing {
        let entries = keys
            .iter()
            .map(|(key, modify_index)| Entry {
                key: format!("p/{key}"),
                value: b"v".to_vec(),
                too_large: false,
                modify_index: *modify_index,
            })
            .collect();
        Listing { index, entries, sent: 0 }
    }

    fn broken() -> StoreError {
        StoreError::NoLeader { place: "there".to_owned() }
    }

    fn garbled() -> StoreError {
        StoreError::Unreadable { place: "there".to_owned(), why: "no JSON".to_owned() }
    }

    const MARK: (&str, u64) = ("_hostler", 1);

    /// What one answer does: (answer, next index asked with, news, state).
    type Row = (Result<Listing, StoreError>, Option<u64>, bool, &'static str);

    fn name(state: &WatchState) -> String {
        match state {
            WatchState::Pending => "unknown".to_owned(),
            WatchState::Current(listing) => format!("visible {}", listing.entries.len()),
            WatchState::NoMarker => "not visible".to_owned(),
            WatchState::TooLarge(_) => "too large".to_owned(),
            WatchState::Unreadable(_) => "unreadable".to_owned(),
            WatchState::Failed(_) => "trouble".to_owned(),
        }
    }

    fn play(rows: Vec<Row>) {
        let mut watch = Watch::new("p/");
        let mut now = Instant::now();
        assert_eq!(watch.ask(now).seen, None, "the first question has no index");
        for (at, (answer, ask, news, state)) in rows.into_iter().enumerate() {
            now += Duration::from_secs(10);
            let next = watch.on_response(answer, true, now, 0.0);
            assert_eq!((watch.ask(now).seen, next.news), (ask, news), "row {at}");
            assert_eq!(name(&watch.seen().state), state, "row {at}");
        }
    }

    #[test]
    fn the_index_is_carried_and_equal_content_is_no_news() {
        play(vec![
            (Ok(listing(5, &[MARK])), Some(5), true, "visible 0"),
            (Ok(listing(5, &[MARK])), Some(5), false, "visible 0"),
            (Ok(listing(9, &[MARK])), Some(9), false, "visible 0"),
            (Ok(listing(12, &[MARK, ("a", 12)])), Some(12), true, "visible 1"),
            (Ok(listing(14, &[MARK, ("a", 14)])), Some(14), true, "visible 1"),
            (Ok(listing(15, &[MARK])), Some(15), true, "visible 0"),
        ]);
    }

    #[test]
    fn an_index_backwards_starts_again_and_its_content_counts() {
        play(vec![
            (Ok(listing(50, &[MARK, ("a", 50)])), Some(50), true, "visible 1"),
            (Ok(listing(20, &[MARK, ("a", 20)])), None, true, "visible 1"),
            (Ok(listing(20, &[MARK, ("a", 20)])), Some(20), false, "visible 1"),
        ]);
    }

    #[test]
    fn an_index_is_at_least_one() {
        play(vec![(Ok(listing(0, &[MARK])), Some(1), true, "visible 0")]);
    }

    #[test]
    fn an_answer_without_marker_is_no_empty_listing_and_keeps_the_last() {
        play(vec![
            (Ok(listing(5, &[])), Some(5), true, "not visible"),
            (Ok(listing(6, &[("a", 6)])), Some(6), false, "not visible"),
            (Ok(listing(7, &[MARK, ("a", 6)])), Some(7), true, "visible 1"),
            (Ok(listing(8, &[])), Some(8), true, "not visible"),
            (Ok(listing(9, &[MARK, ("a", 6)])), Some(9), true, "visible 1"),
        ]);
    }

    #[test]
    fn a_failure_starts_again_without_an_index_and_keeps_the_last_listing() {
        play(vec![
            (Err(broken()), None, true, "trouble"),
            (Ok(listing(5, &[MARK, ("a", 4)])), Some(5), true, "visible 1"),
            (Err(broken()), None, true, "trouble"),
            (Err(broken()), None, false, "trouble"),
            (Ok(listing(5, &[MARK, ("a", 4)])), Some(5), true, "visible 1"),
            (Err(garbled()), None, true, "unreadable"),
            (Ok(listing(5, &[MARK, ("a", 4)])), Some(5), true, "visible 1"),
        ]);
        let mut watch = Watch::new("p/");
        let start = Instant::now();
        watch.on_response(Ok(listing(5, &[MARK, ("a", 4)])), true, start, 0.0);
        watch.on_response(Err(broken()), true, start + Duration::from_secs(60), 0.0);
        let seen = watch.seen();
        assert_eq!(seen.last.as_ref().unwrap().entries.len(), 1);
        assert_eq!(seen.contact, Some(start), "a failure is no contact");
        watch.on_response(Ok(listing(9, &[])), true, start + Duration::from_secs(70), 0.0);
        assert!(watch.seen().last.is_some());
        assert_eq!(watch.seen().contact, Some(start + Duration::from_secs(70)));
    }

    #[test]
    fn the_pause_after_failures_doubles_has_an_end_and_is_reset_by_contact() {
        let mut watch = Watch::new("p/");
        let mut now = Instant::now();
        let mut pause = |watch: &mut Watch, answer, jitter| {
            now += Duration::from_secs(100);
            watch.on_response(answer, true, now, jitter).pause
        };
        let whole: Vec<u64> = (0..9).map(|_| pause(&mut watch, Err(broken()), 1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(&mut watch, Err(broken()), 0.0), Duration::from_secs(30));
        for _ in 0..10_000 {
            assert!(pause(&mut watch, Err(broken()), f64::NAN) <= MAX_BACKOFF);
        }
        assert_eq!(pause(&mut watch, Ok(listing(1, &[MARK])), 1.0), Duration::ZERO);
        assert_eq!(pause(&mut watch, Err(broken()), 1.0), Duration::from_secs(1));
        assert_eq!(pause(&mut watch, Ok(listing(1, &[])), 1.0), BLIND_PAUSE);
    }

    #[test]
    fn nothing_can_make_it_spin() {
        let mut watch = Watch::new("p/");
        let start = Instant::now();
        let mut now = start;
        let mut answers = 0;
        while now < start + Duration::from_secs(60) {
            // Each answer comes at once, and is always news.
            let answer = Ok(listing(answers + 1, &[MARK, ("a", answers + 1)]));
            now += watch.on_response(answer, true, now, 0.5).pause;
            answers += 1;
        }
        assert!(answers <= u64::from(60 * ANSWERS_A_SECOND + BURST + 1), "{answers} answers in a minute");
        assert!(answers >= u64::from(60 * ANSWERS_A_SECOND));
    }

    /// The questions of a watch whose store answers each when its wait is over, stretched by a sixteenth, for so many
    /// seconds: how long after the start each was asked, and the wait; none: a plain reading.
    fn idle(seconds: u64) -> Vec<(u64, Option<u64>)> {
        let mut watch = Watch::new("p/");
        let start = Instant::now();
        let (mut now, mut asked) = (start, Vec::new());
        while now < start + Duration::from_secs(seconds) {
            let ask = watch.ask(now);
            let wait = ask.seen.map(|_| Duration::from_secs(ask.within.as_secs()));
            asked.push((now.duration_since(start).as_secs(), wait.map(|wait| wait.as_secs())));
            now += wait.map_or(Duration::from_millis(1), |wait| wait + wait / 16);
            watch.on_response(Ok(listing(5, &[MARK, ("a", 4)])), wait.is_none(), now, 0.5);
        }
        asked
    }

    #[test]
    fn a_prefix_is_read_plainly_each_minute_and_little_is_asked_besides() {
        let asked = idle(3600);
        let plain: Vec<u64> = asked.iter().filter(|(_, wait)| wait.is_none()).map(|(at, _)| *at).collect();
        for pair in plain.windows(2) {
            assert!(pair[1] - pair[0] <= 60, "{pair:?}");
        }
        assert!(3600 - plain.last().unwrap() <= 60, "{plain:?}");
        // Two questions for each minute, less some seconds, and some more in the first.
        assert!(asked.len() <= 150, "{} questions in an hour", asked.len());
    }

    #[test]
    fn in_its_first_minute_a_watch_waits_for_a_short_time() {
        let asked = idle(300);
        let longest = |young: bool| {
            asked.iter().filter(|(at, _)| (*at < 60) == young).filter_map(|(_, wait)| *wait).max().unwrap()
        };
        assert!(longest(true) <= 10 && longest(false) >= 40, "{asked:?}");
    }

    #[test]
    fn a_large_answer_is_asked_for_less_often_and_one_that_is_too_large_is_not_held() {
        let mut watch = Watch::new("p/");
        let start = Instant::now();
        let (mut now, mut sent) = (start, 0);
        let mut index = 0;
        while now < start + Duration::from_secs(600) {
            index += 1;
            let answer = Listing { sent: 40 << 20, ..listing(index, &[MARK, ("a", index)]) };
            now += watch.on_response(Ok(answer), true, now, 0.5).pause;
            sent += 40_u64 << 20;
        }
        assert!(sent < 1200 << 20, "{sent} bytes in ten minutes");
        let error = || StoreError::TooLarge { place: "there".into(), action: "x".into(), why: "y".into() };
        let next = watch.on_response(Err(error()), true, now, 1.0);
        assert!(
            next.news && matches!(watch.seen().state, WatchState::TooLarge(_)) && watch.seen().last.is_none()
        );
        assert!(!watch.seen().away && next.pause >= Duration::from_secs(1));
        watch.on_response(Ok(listing(index + 1, &[MARK])), true, now + Duration::from_secs(60), 1.0);
        assert!(matches!(watch.seen().state, WatchState::Current(_)));
    }

    /// Gives its answers one after the other, then nothing for ever.
    struct Script {
        answers: Mutex<Vec<Result<Listing, StoreError>>>,
        asked: AtomicU32,
    }

    impl Store for Script {
        fn node(&self) -> StoreFuture<'_, String> {
            Box::pin(async { Ok("script".to_owned()) })
        }

        fn list<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Listing> {
            Box::pin(std::future::pending())
        }
        fn changed<'a>(&'a self, _: &'a str, _: Option<u64>, _: Duration) -> StoreFuture<'a, Listing> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut answers = self.answers.lock().unwrap();
            if answers.is_empty() {
                return Box::pin(std::future::pending());
            }
            let answer = answers.remove(0);
            Box::pin(async move { answer })
        }
        fn look<'a>(&'a self, _: &'a [Read]) -> StoreFuture<'a, Vec<Listing>> {
            Box::pin(std::future::pending())
        }
        fn put<'a>(&'a self, _: &'a str, _: Vec<u8>, _: When) -> StoreFuture<'a, bool> {
            Box::pin(std::future::pending())
        }
        fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ()> {
            Box::pin(std::future::pending())
        }
        fn place(&self) -> String {
            "a script".to_owned()
        }
    }

    #[test]
    fn the_driver_wakes_for_news_only_and_ends_with_its_last_reader() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(Script {
                answers: Mutex::new(vec![
                    Ok(listing(5, &[MARK])),
                    Ok(listing(5, &[MARK])),
                    Ok(listing(6, &[MARK])),
                    Ok(listing(7, &[MARK, ("a", 7)])),
                ]),
                asked: AtomicU32::new(0),
            });
            let (sender, mut receiver) = tokio::sync::watch::channel(Snapshot::default());
            let driver = tokio::spawn({
                let store = Arc::clone(&store);
                async move { watch(store, "p/", &Notify::new(), &Budget::new(1), &sender).await }
            });
            let mut sights = Vec::new();
            while sights.last().map(String::as_str) != Some("visible 1") {
                receiver.changed().await.unwrap();
                sights.push(name(&receiver.borrow_and_update().state));
            }
            assert!(sights.len() <= 2, "{sights:?}");
            drop(receiver);
            tokio::time::timeout(Duration::from_secs(10), driver).await.unwrap().unwrap();
            assert_eq!(store.asked.load(Ordering::Relaxed), 5);
        });
    }
}
