//! For how long nobody was answered: a statement in each database again and again while something is changed.
//!
//! A database counts as there while any of its ways answers: before a takeover that of the former primary, behind it
//! that of this host. One that does not answer before the change is not watched, and a logon that is refused is not
//! repeated: HANA locks users that fail too often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::call::Call;
use crate::error::Error;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdbsql::{self, Key};
use crate::report;
use crate::runner::Runner;
use crate::system::System;

/// How often a database is asked, and how often while it does not answer.
const INTERVAL: Duration = Duration::from_millis(200);
const SILENT: Duration = Duration::from_millis(50);
/// How long one statement may take.
const STATEMENT: Duration = Duration::from_secs(5);
/// Most databases that are asked: each costs a process every 200 ms.
const MOST: usize = 10;
/// The SQL error of a logon that was refused. Source: the errors of hdbsql in community.sap_libs.
const LOGON: i32 = 10;

/// The statement that proves that a database serves.
pub fn ask(system: &System, key: &Key, database: &Database) -> Call {
    let source = "SAP HANA SQL and System Views Reference, DUMMY";
    let sql = "SELECT 1 AS ONE FROM DUMMY".to_owned();
    let call = hdbsql::statement(system, key, "ask whether the database serves", source, sql);
    let call = if database.is_system() { call } else { hdbsql::in_database(call, database.as_str()) };
    call.within(STATEMENT)
}

/// The service of a database in a report of downtime.
fn service(system: &System, database: &Database) -> String {
    let name = format!("hana:{}:{}", system.sid, database.as_str()).to_ascii_lowercase();
    name.chars().take(63).collect()
}

/// A way to the databases of a system.
#[derive(Clone)]
pub struct Way {
    /// The key in the user store.
    pub key: Key,
    /// Whether its users come this way by now: what answers before that serves nobody.
    pub open: Arc<AtomicBool>,
}

impl Way {
    /// One by which users come from the beginning.
    pub fn open(key: &Key) -> Self {
        Self { key: key.clone(), open: Arc::new(AtomicBool::new(true)) }
    }
}

/// The longest time without an answer.
#[derive(Clone, Copy)]
struct Gap {
    from: Timestamp,
    length: Duration,
}

struct Answers {
    last: Instant,
    since: Timestamp,
    longest: Gap,
}

impl Answers {
    fn new() -> Self {
        let now = Timestamp::now();
        Self { last: Instant::now(), since: now, longest: Gap { from: now, length: Duration::ZERO } }
    }

    /// The time since the last answer, if it is the longest one; up to `now`.
    fn up_to(&self, now: Instant) -> Gap {
        let length = now.saturating_duration_since(self.last);
        if length > self.longest.length { Gap { from: self.since, length } } else { self.longest }
    }

    fn answered(&mut self, now: Instant) {
        if now > self.last {
            self.longest = self.up_to(now);
            (self.last, self.since) = (now, Timestamp::now());
        }
    }
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is watched; its end says the downtime.
pub struct Watch {
    databases: Vec<(String, Arc<Mutex<Answers>>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins to ask. `answering`: whether a database must answer now to be watched; where the change goes on after an
    /// interruption, or the primary is lost, none does, and its downtime begins here.
    pub fn begin(runner: &Runner, databases: &[Database], ways: &[Way], answering: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watch = Self { databases: Vec::new(), stop, threads: Vec::new() };
        for database in databases.iter().take(MOST) {
            let runner = Arc::new(runner.asking(STATEMENT));
            if answering && !ways.iter().any(|way| answers(&runner, way, database) == Answer::Yes) {
                continue;
            }
            let record = Arc::new(Mutex::new(Answers::new()));
            for way in ways {
                let (runner, record, stop) =
                    (Arc::clone(&runner), Arc::clone(&record), Arc::clone(&watch.stop));
                let (way, database) = (way.clone(), database.clone());
                watch.threads.push(thread::spawn(move || repeat(&runner, &way, &database, &record, &stop)));
            }
            watch.databases.push((service(runner.system(), database), record));
        }
        watch
    }

    /// Waits until each database has answered once more, at most for `patience`, and reports for how long each did not.
    pub fn end(mut self, patience: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let back = |(_, record): &(String, Arc<Mutex<Answers>>)| lock(record).last >= begun;
        while !self.databases.iter().all(back) && begun.elapsed() < patience {
            thread::sleep(SILENT);
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // One that panicked has asked less.
        }
        let now = Instant::now();
        for (service, record) in self.databases.drain(..) {
            let gap = lock(&record).up_to(now);
            // Half of the time between two questions lies before the end of the service, half behind its return.
            let unseen = (INTERVAL + SILENT) / 2;
            report::downtime(&service, gap.from, gap.length.saturating_sub(unseen))?;
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The change has failed: what was seen until now is said all the same.
        let _ = self.finish();
    }
}

#[derive(PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// The logon was refused: it is not tried again.
    Never,
}

fn answers(runner: &Runner, way: &Way, database: &Database) -> Answer {
    match runner.run(&ask(runner.system(), &way.key, database)) {
        Ok(outcome) if hdbsql::check(&outcome).is_ok() => Answer::Yes,
        Ok(outcome) if hdbsql::first_error(&outcome) == Some(LOGON) => Answer::Never,
        Err(Error::Stopped(_)) => Answer::Never,
        Ok(_) | Err(_) => Answer::No,
    }
}

fn repeat(runner: &Runner, way: &Way, database: &Database, record: &Mutex<Answers>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let pause = match answers(runner, way, database) {
            Answer::Never => return,
            Answer::Yes if way.open.load(Ordering::SeqCst) => {
                lock(record).answered(Instant::now());
                INTERVAL
            }
            Answer::Yes | Answer::No if lock(record).last.elapsed() > INTERVAL * 2 => SILENT,
            Answer::Yes | Answer::No => INTERVAL,
        };
        thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
}
