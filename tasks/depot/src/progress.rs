//! How far it is: a line on a terminal, lines for the fleet in a task, and the figures of the result.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How often a terminal is told.
const TERMINAL: Duration = Duration::from_millis(500);
/// How often the fleet is told at first, and at the most: the report's file holds 1 MiB.
const REPORT: Duration = Duration::from_secs(5);
const REPORT_LATER: Duration = Duration::from_secs(60);

/// Bytes so far, of how many if that is known.
pub struct Progress {
    done: AtomicU64,
    total: Option<u64>,
    begun: Instant,
    verb: &'static str,
}

/// The figures of a transfer.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Plain bytes.
    pub bytes: u64,
    /// Time.
    pub seconds: f64,
    /// Plain bytes a second.
    pub bytes_per_second: u64,
    /// Requests that were tried again.
    pub retries: u64,
}

impl Progress {
    /// Begins to count.
    pub fn new(verb: &'static str, total: Option<u64>) -> Arc<Self> {
        Arc::new(Self { done: AtomicU64::new(0), total, begun: Instant::now(), verb })
    }

    /// So many more.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The figures until now.
    pub fn figures(&self, retries: u64) -> Figures {
        let seconds = self.begun.elapsed().as_secs_f64();
        let bytes = self.done.load(Ordering::Relaxed);
        let rate = if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 };
        Figures { bytes, seconds, bytes_per_second: rate as u64, retries }
    }

    /// One line, and the percentage where the end is known.
    fn line(&self) -> (String, Option<u64>) {
        let figures = self.figures(0);
        let (done, rate) = (bytes(figures.bytes), bytes(figures.bytes_per_second));
        let verb = self.verb;
        match self.total.filter(|total| *total > 0) {
            None => (format!("{verb} {done}, {rate}/s"), None),
            Some(total) => {
                let left = total.saturating_sub(figures.bytes).checked_div(figures.bytes_per_second);
                let left = left.map_or_else(|| "?".to_owned(), |left| format!("{left} s"));
                let percent = (figures.bytes.saturating_mul(100) / total).min(100);
                (format!("{verb} {done} of {}, {rate}/s, {left} left", bytes(total)), Some(percent))
            }
        }
    }

    /// Tells of it until the future is over.
    pub async fn shown<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        let report = std::env::var_os("HOSTLER_REPORT").map(PathBuf::from);
        let terminal = std::io::stderr().is_terminal();
        let teller = Arc::clone(self);
        let told = async move {
            let mut reported = Instant::now();
            let mut pause = Duration::ZERO;
            loop {
                tokio::time::sleep(TERMINAL).await;
                let (line, percent) = teller.line();
                // Before the first byte nothing can be said of a rate.
                if terminal && teller.done.load(Ordering::Relaxed) > 0 {
                    let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
                }
                if let Some(path) = report.as_ref().filter(|_| reported.elapsed() >= pause) {
                    report_line(path, percent, &line);
                    let later = teller.begun.elapsed() > Duration::from_secs(600);
                    pause = if later { REPORT_LATER } else { REPORT };
                    reported = Instant::now();
                }
            }
        };
        tokio::pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            () = told => work.await,
        };
        if terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        done
    }
}

fn report_line(path: &PathBuf, percent: Option<u64>, message: &str) {
    let mut line = serde_json::json!({ "message": message });
    if let (Some(percent), Some(fields)) = (percent, line.as_object_mut()) {
        fields.insert("progress".to_owned(), percent.into());
    }
    append(path, &line);
}

/// Appends one line of outputs for the fleet, where a task asks for it.
pub fn outputs(fields: &serde_json::Value) {
    if let Some(path) = std::env::var_os("HOSTLER_REPORT") {
        append(&PathBuf::from(path), &serde_json::json!({ "output": fields }));
    }
}

fn append(path: &PathBuf, line: &serde_json::Value) {
    // A report that cannot be written must not stop a backup.
    if let Ok(mut file) = std::fs::OpenOptions::new().append(true).open(path) {
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}
