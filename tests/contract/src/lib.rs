//! What the contract tests share: a client with short waits, a watch on a thread of its own, and the suite
//! that every store passes.
//!
//! The tests are in `tests/`; each is named after the rule that it holds against a real Consul.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests that fails must fail its test at once"
)]

mod suite;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hostler::domain::secret::Secret;
use hostler::store::Store;
use hostler::store::budget::Budget;
use hostler::store::consul::{Consul, ConsulSettings, PartialConsul, Timeouts};
use hostler::store::watch::{Snapshot, WatchState, watch};
use tokio::sync::oneshot;

pub use suite::behaves_like_a_store;

/// Every wait of these tests ends by then.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits that are short enough for a test, in the proportions of the real ones.
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    // Longer than a server waits for a leader before it says that there is none (7 s).
    request: Duration::from_secs(12),
    wait: Duration::from_secs(2),
    margin: Duration::from_secs(3),
};

/// Settings with the short waits.
pub fn settings(address: &str) -> ConsulSettings {
    let layer = PartialConsul { address: Some(address.parse().unwrap()), ..PartialConsul::default() };
    ConsulSettings { timeouts: TIMEOUTS, ..layer.build().unwrap() }
}

/// A client with these settings.
pub fn open(settings: ConsulSettings) -> Consul {
    Consul::new(settings).unwrap_or_else(|error| panic!("{error}"))
}

/// A client with the short waits.
pub fn client(address: &str) -> Consul {
    open(settings(address))
}

/// A client with a token.
pub fn client_with(address: &str, token: &str) -> Consul {
    let token = Some(Secret::new(token.to_owned()));
    open(ConsulSettings { token, ..settings(address) })
}

/// Runs one future to its end, which must come.
#[track_caller]
pub fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, work).await.expect("an end within a minute") })
}

/// A watch on a thread of its own that remembers everything it was shown.
pub struct Watching {
    shown: Arc<Mutex<Vec<Snapshot>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Watches `prefix`.
    pub fn start(store: Arc<dyn Store>, prefix: &str) -> Self {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (list, prefix) = (Arc::clone(&shown), prefix.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (sender, mut receiver) = tokio::sync::watch::channel(Snapshot::default());
                let budget = Budget::new(1);
                let read = async {
                    while receiver.changed().await.is_ok() {
                        list.lock().unwrap().push(receiver.borrow_and_update().clone());
                    }
                };
                let doubt = tokio::sync::Notify::new();
                tokio::select! {
                    () = watch(store, &prefix, &doubt, &budget, &sender) => {}
                    () = read => {}
                    _ = stopped => {}
                }
            });
        });
        Self { shown, stop: Some(stop), thread: Some(thread) }
    }

    /// Everything shown so far, in order.
    pub fn shown(&self) -> Vec<Snapshot> {
        self.shown.lock().unwrap().clone()
    }

    /// Waits for a sight that fulfils `wanted`; gives what was seen then.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&WatchState) -> bool) -> Snapshot {
        hostler_testkit::eventually(LONG, || match self.shown().pop() {
            Some(seen) if wanted(&seen.state) => Ok(seen),
            other => Err(format!("waiting for {what}, seen {:?}", other.map(|seen| seen.state))),
        })
    }

    /// Waits for a visible listing in which `key` holds `value`.
    #[track_caller]
    pub fn until_value(&self, key: &str, value: &str) -> Snapshot {
        let holds = |sight: &WatchState| match sight {
            WatchState::Current(listing) => {
                listing.entries.iter().any(|entry| entry.key == key && entry.value == value.as_bytes())
            }
            _ => false,
        };
        self.until(&format!("{key} = {value}"), holds)
    }

    /// Whether `key` was in every listing that was ever shown as visible: absence was never pretended.
    #[track_caller]
    pub fn never_without(&self, key: &str) {
        for seen in self.shown() {
            if let WatchState::Current(listing) = &seen.state {
                let there = listing.entries.iter().any(|entry| entry.key == key);
                assert!(there, "{key} was shown as absent: {:?}", self.shown());
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
