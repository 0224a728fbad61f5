//! Clients that count: each writes numbers one after the other through the door, and knows which were acknowledged.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hostler_testkit::eventually;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::kit::{Lab, SOON};

/// How many write at the same time.
const WRITERS: usize = 4;

/// How long each rests behind a transaction: some hundred in a second, and half a processor for other tests. What hangs for
/// longer than this is in the gap.
const PACE: Duration = Duration::from_millis(10);

/// What a writer has seen.
#[derive(Default)]
struct Seen {
    acknowledged: AtomicU64,
    errors: Mutex<Vec<String>>,
    /// The longest time between two acknowledgements, in milliseconds.
    gap: AtomicU64,
}

/// Writers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

/// The tables that the writers need, in a database of an old cluster, and who writes there.
pub(crate) const TABLES: &str = "create role app login;
    create table ledger (id bigserial primary key, writer int not null, n bigint not null, filler text);
    create table counters (writer int primary key, n bigint not null);
    insert into counters select i, 0 from generate_series(0, 9) i;
    grant all on ledger, counters, ledger_id_seq to app;";

impl Load {
    /// Begins to write into the database `shop`, by the socket of a pgbouncer.
    pub(crate) fn start(lab: &Lab) -> Self {
        Self::at(lab, lab.bouncer_port())
    }

    /// Begins to write into the database `shop`, by the socket of a port.
    pub(crate) fn at(lab: &Lab, port: u16) -> Self {
        Self::between(&[(lab, port)])
    }

    /// Begins to write into the database `shop`, by the socket of whichever server accepts writes.
    pub(crate) fn between(servers: &[(&Lab, u16)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Vec<_> = (0..WRITERS).map(|_| Arc::new(Seen::default())).collect();
        let paths: Vec<_> =
            servers.iter().map(|(lab, port)| lab.path(&format!("run/.s.PGSQL.{port}"))).collect();
        let write = |(writer, seen): (usize, &Arc<Seen>)| {
            let (stop, seen, paths) = (Arc::clone(&stop), Arc::clone(seen), paths.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(work(writer, &seen, &stop, &paths));
            })
        };
        let threads = seen.iter().enumerate().map(write).collect();
        let load = Self { stop, seen, threads };
        load.goes_on();
        load
    }

    /// Waits until every writer has written something more.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let count =
            || self.seen.iter().map(|seen| seen.acknowledged.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = count();
        eventually(SOON, || {
            let now = count();
            // Two more: one may have been on its way already.
            let all = before.iter().zip(&now).all(|(before, now)| *now >= before + 2);
            all.then_some(()).ok_or_else(|| format!("acknowledged {before:?}, then {now:?}"))
        });
    }

    /// The longest time without an acknowledgement since this was asked last, in milliseconds.
    pub(crate) fn gap(&self) -> u64 {
        self.seen.iter().map(|seen| seen.gap.swap(0, Ordering::Relaxed)).max().unwrap_or_default()
    }

    /// Stops, and proves that a cluster has each acknowledged row exactly once, and nothing more; how many there are,
    /// and the errors that clients have seen.
    #[track_caller]
    pub(crate) fn prove(mut self, lab: &Lab, port: u16) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer");
        }
        let (mut rows, mut errors) = (0, Vec::new());
        for (writer, seen) in self.seen.iter().enumerate() {
            let count = seen.acknowledged.load(Ordering::Relaxed);
            let question = format!(
                "select count(*), count(distinct n), coalesce(min(n), 0), coalesce(max(n), 0), \
                 (select n from counters where writer = {writer}) from ledger where writer = {writer}"
            );
            let expected = format!("{count}|{count}|1|{count}|{count}");
            assert_eq!(
                lab.sql(port, "shop", &question),
                expected,
                "writer {writer}: rows, numbers, first, last, sum"
            );
            rows += count;
            errors.append(&mut seen.errors.lock().expect("the errors"));
        }
        (rows, errors)
    }
}

/// A session with the server that accepts writes; with several servers each is asked, and there are never two.
async fn connect(paths: &[PathBuf]) -> Option<Client> {
    let [path] = paths else {
        let mut open = None;
        for path in paths {
            let Some(client) = login(path).await else { continue };
            let answer = client.simple_query("select pg_is_in_recovery()").await.ok()?;
            let primary = answer
                .iter()
                .any(|said| matches!(said, SimpleQueryMessage::Row(row) if row.get(0) == Some("f")));
            if primary {
                assert!(open.is_none(), "two servers accept writes");
                open = Some(client);
            }
        }
        return open;
    };
    login(path).await
}

async fn login(path: &PathBuf) -> Option<Client> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    let stream = tokio::net::UnixStream::from_std(stream).ok()?;
    let mut config = Config::new();
    config.user("app").dbname("shop");
    let (client, connection) = config.connect_raw(stream, NoTls).await.ok()?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Some(client)
}

async fn work(writer: usize, seen: &Seen, stop: &AtomicBool, paths: &[PathBuf]) {
    let mut client = None;
    let mut unknown = false;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &client else {
            client = connect(paths).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let n = seen.acknowledged.load(Ordering::Relaxed) + 1;
        // An answer that was lost is looked up before the number is written again.
        if unknown {
            let question = format!("select count(*) from ledger where writer = {writer} and n = {n}");
            let Ok(answer) = open.simple_query(&question).await else {
                client = None;
                continue;
            };
            unknown = false;
            let there = answer
                .iter()
                .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("1")));
            if there {
                seen.acknowledged.store(n, Ordering::Relaxed);
                continue;
            }
        }
        let statement = format!(
            "insert into ledger (writer, n, filler) values ({writer}, {n}, repeat('x', 50)); \
             update counters set n = n + 1 where writer = {writer}"
        );
        match open.simple_query(&statement).await {
            Ok(_) => {
                seen.acknowledged.store(n, Ordering::Relaxed);
                let gap = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
                seen.gap.fetch_max(gap, Ordering::Relaxed);
                last = Instant::now();
            }
            Err(error) => {
                let text =
                    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
                seen.errors.lock().expect("the errors").push(text);
                unknown = true;
                client = None;
            }
        }
        tokio::time::sleep(PACE).await;
    }
}
