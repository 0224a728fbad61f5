//! The measurements: one table, a row each, and the page made of it (Prometheus' text format 0.0.4).
//!
//! Pure: from a [`Snapshot`] to text. Names follow Prometheus' conventions; every label has few and known values:
//! installed tasks, ends, phases, reasons, kinds. Orders are no label, since a host may have a thousand,
//! but for the few that come again.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::counters::RunCounters;

/// What the page says that it is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a measurement behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up, from 0 at the start of the agent.
    Counter,
    /// Counts in buckets, from 0 at the start of the agent.
    Histogram,
}

impl Kind {
    /// As in a `TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it is.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    samples: fn(&Snapshot<'_>, &mut Samples<'_>),
}

/// How many of each word there are.
pub type Words<'a> = BTreeMap<&'a str, usize>;

/// Everything that is measured, at one moment.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The program's version.
    pub version: &'a str,
    /// When the process started, in seconds since the epoch.
    pub started: f64,
    /// Its resident memory, in bytes.
    pub resident: u64,
    /// The seconds of processors that it has used.
    pub cpu: f64,
    /// Whether it takes orders.
    pub ready: bool,
    /// Conditions by kind, each kind.
    pub conditions: Words<'a>,
    /// Orders by phase.
    pub phases: Words<'a>,
    /// Waiting orders by reason, each reason.
    pub waiting: Words<'a>,
    /// Held orders by reason, each reason.
    pub held: Words<'a>,
    /// Runs that have ended.
    pub runs: &'a RunCounters,
    /// Runs with an executor.
    pub executing: usize,
    /// How many may execute at once.
    pub parallel: usize,
    /// Executing runs whose time is up.
    pub overdue: usize,
    /// Installed tasks: usable, broken.
    pub tasks: (usize, usize),
    /// When the store last gave an answer that counts, for the prefix that has waited for it the longest.
    pub contact: Option<f64>,
    /// When the store last took what this host has to report.
    pub reported: Option<f64>,
    /// The ledger's bytes and records, if it can be read.
    pub ledger: Option<(u64, usize)>,
    /// Orders whose probe said that their state does not hold.
    pub drifted: usize,
    /// Freezes in force that keep anything from starting here.
    pub freezes: usize,
    /// When the orders that come again succeeded last, by their names; a hundred at most.
    pub successes: Vec<(String, f64)>,
    /// Services with downtime or an objective, by name.
    pub services: Vec<ServiceDowntime>,
    /// Free bytes and inodes of the state folder's file system.
    pub free: Option<(u64, Option<u64>)>,
}

/// What operations cost a service.
#[derive(Debug)]
pub struct ServiceDowntime {
    /// Its name.
    pub service: String,
    /// How long it could not be used, in seconds, since the host began to count. `None` if it never failed.
    pub seconds: Option<f64>,
    /// The share of its error budget that is left, of the objective that has the least. `None` without an objective.
    pub remaining: Option<f64>,
}

/// The table. docs/monitoring.md explains each row.
pub const METRICS: [Metric; 26] = [
    Metric {
        name: "hostler_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the label is the agent's version.",
        labels: &["version"],
        samples: |now, out| out.of(&[("version", now.version)], 1.0),
    },
    Metric {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "When the agent's process started, since the epoch.",
        labels: &[],
        samples: |now, out| out.one(now.started),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the agent; executors are processes of their own.",
        labels: &[],
        samples: |now, out| out.one(now.resident as f64),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        help: "Processor time of the agent, user and system.",
        labels: &[],
        samples: |now, out| out.one(now.cpu),
    },
    Metric {
        name: "hostler_ready",
        kind: Kind::Gauge,
        help: "1 if this host accepts orders, as /ready; 0 if nothing new starts.",
        labels: &[],
        samples: |now, out| out.one(f64::from(u8::from(now.ready))),
    },
    Metric {
        name: "hostler_conditions",
        kind: Kind::Gauge,
        help: "Conditions of this host, by kind; the agent's report describes them.",
        labels: &["kind"],
        samples: |now, out| out.words("kind", &now.conditions),
    },
    Metric {
        name: "hostler_orders",
        kind: Kind::Gauge,
        help: "Orders of this host, by the phase of their report; a phase without an order is not shown.",
        labels: &["phase"],
        samples: |now, out| out.words("phase", &now.phases),
    },
    Metric {
        name: "hostler_orders_waiting",
        kind: Kind::Gauge,
        help: "Waiting orders, by reason.",
        labels: &["reason"],
        samples: |now, out| out.words("reason", &now.waiting),
    },
    Metric {
        name: "hostler_orders_held",
        kind: Kind::Gauge,
        help: "Held orders, by reason; they wait for an operator.",
        labels: &["reason"],
        samples: |now, out| out.words("reason", &now.held),
    },
    Metric {
        name: "hostler_orders_drifted",
        kind: Kind::Gauge,
        help: "Reconciled orders whose probe said last that the state does not hold.",
        labels: &[],
        samples: |now, out| out.one(now.drifted as f64),
    },
    Metric {
        name: "hostler_freezes",
        kind: Kind::Gauge,
        help: "Freezes in force that keep orders from starting on this host.",
        labels: &[],
        samples: |now, out| out.one(now.freezes as f64),
    },
    Metric {
        name: "hostler_order_last_success_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When a run of an order that comes again succeeded last, or found nothing to do; the first hundred \
               by name.",
        labels: &["order"],
        samples: |now, out| {
            for (order, at) in &now.successes {
                out.of(&[("order", order)], *at);
            }
        },
    },
    Metric {
        name: "hostler_runs_total",
        kind: Kind::Counter,
        help: "Runs that ended since the agent started, by task and outcome; one that a person settled or had \
               undone afterwards counts again, with its new end.",
        labels: &["task", "outcome"],
        samples: |now, out| {
            for (task, counts) in now.runs.tasks() {
                for (outcome, count) in counts.ends() {
                    out.of(&[("task", task), ("outcome", outcome)], count as f64);
                }
            }
        },
    },
    Metric {
        name: "hostler_run_duration_seconds",
        kind: Kind::Histogram,
        help: "From the first record of a run to its end, pauses included; of runs that ended since the agent \
               started, by task.",
        labels: &["task"],
        samples: |now, out| {
            for (task, counts) in now.runs.tasks().filter(|(_, counts)| counts.timed > 0) {
                for (bound, count) in counts.cumulative() {
                    out.part("_bucket", &[("task", task), ("le", &bound.to_string())], count as f64);
                }
                out.part("_bucket", &[("task", task), ("le", "+Inf")], counts.timed as f64);
                out.part("_sum", &[("task", task)], counts.seconds);
                out.part("_count", &[("task", task)], counts.timed as f64);
            }
        },
    },
    Metric {
        name: "hostler_runs_executing",
        kind: Kind::Gauge,
        help: "Runs that an executor works on now.",
        labels: &[],
        samples: |now, out| out.one(now.executing as f64),
    },
    Metric {
        name: "hostler_runs_parallel",
        kind: Kind::Gauge,
        help: "How many runs may execute at once.",
        labels: &[],
        samples: |now, out| out.one(now.parallel as f64),
    },
    Metric {
        name: "hostler_runs_overdue",
        kind: Kind::Gauge,
        help: "Executing runs that have used up their time.",
        labels: &[],
        samples: |now, out| out.one(now.overdue as f64),
    },
    Metric {
        name: "hostler_tasks",
        kind: Kind::Gauge,
        help: "Installed tasks, by whether they can be used: ok or broken.",
        labels: &["state"],
        samples: |now, out| {
            out.of(&[("state", "ok")], now.tasks.0 as f64);
            out.of(&[("state", "broken")], now.tasks.1 as f64);
        },
    },
    Metric {
        name: "hostler_store_last_contact_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the store last gave an answer that counts, for the watched place that waits the longest; \
               without any answer yet, not shown.",
        labels: &[],
        samples: |now, out| out.maybe(now.contact),
    },
    Metric {
        name: "hostler_reports_written_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the store last took without trouble what this host has to report, at least every five \
               minutes; before the first time not shown.",
        labels: &[],
        samples: |now, out| out.maybe(now.reported),
    },
    Metric {
        name: "hostler_ledger_size_bytes",
        kind: Kind::Gauge,
        help: "The size of the ledger; one that cannot be read is not shown.",
        labels: &[],
        samples: |now, out| out.maybe(now.ledger.map(|(bytes, _)| bytes as f64)),
    },
    Metric {
        name: "hostler_ledger_records",
        kind: Kind::Gauge,
        help: "The records in the ledger, each with the facts of one decision; fewer after it was written anew.",
        labels: &[],
        samples: |now, out| out.maybe(now.ledger.map(|(_, records)| records as f64)),
    },
    Metric {
        name: "hostler_downtime_seconds_total",
        kind: Kind::Counter,
        help: "How long runs kept a service from its users, as their steps reported; counts on over restarts.",
        labels: &["service"],
        samples: |now, out| {
            for ServiceDowntime { service, seconds, .. } in &now.services {
                seconds.iter().for_each(|seconds| out.of(&[("service", service)], *seconds));
            }
        },
    },
    Metric {
        name: "hostler_error_budget_remaining_ratio",
        kind: Kind::Gauge,
        help: "What is left of a service's error budget: 1 all of it, 0 nothing, below 0 overspent; of several \
               objectives the least.",
        labels: &["service"],
        samples: |now, out| {
            for ServiceDowntime { service, remaining, .. } in &now.services {
                remaining.iter().for_each(|ratio| out.of(&[("service", service)], *ratio));
            }
        },
    },
    Metric {
        name: "hostler_state_free_bytes",
        kind: Kind::Gauge,
        help: "What root can still write on the file system of the state folder, without the reserve.",
        labels: &[],
        samples: |now, out| out.maybe(now.free.map(|(bytes, _)| bytes as f64)),
    },
    Metric {
        name: "hostler_state_free_inodes",
        kind: Kind::Gauge,
        help: "Inodes that are free there; not shown where the file system makes as many as it needs.",
        labels: &[],
        samples: |now, out| out.maybe(now.free.and_then(|(_, inodes)| inodes).map(|inodes| inodes as f64)),
    },
];

/// The page.
pub fn page(now: &Snapshot<'_>) -> String {
    let mut page = String::new();
    for metric in &METRICS {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(page, "# TYPE {} {}", metric.name, metric.kind.as_str());
        (metric.samples)(now, &mut Samples { page: &mut page, name: metric.name });
    }
    page
}

/// The samples of one row.
struct Samples<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    fn one(&mut self, value: f64) {
        self.of(&[], value);
    }

    fn maybe(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.one(value);
        }
    }

    fn words(&mut self, label: &str, words: &Words<'_>) {
        for (word, count) in words {
            self.of(&[(label, word)], *count as f64);
        }
    }

    fn of(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.page, "{}{suffix}", self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.page, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::End;

    const DOCS: &str = include_str!("../../../docs/monitoring.md");

    fn snapshot(runs: &RunCounters) -> Snapshot<'_> {
        Snapshot {
            version: "1.2.3",
            started: 1_700_000_000.25,
            resident: 8 << 20,
            cpu: 1.5,
            ready: true,
            conditions: [("disk", 1), ("store", 0)].into(),
            phases: [("failed", 1), ("waiting", 2)].into(),
            waiting: [("previous_run", 0), ("window", 2)].into(),
            held: [("repeated", 0)].into(),
            runs,
            executing: 1,
            parallel: 4,
            overdue: 0,
            tasks: (3, 1),
            contact: Some(1_700_000_100.0),
            reported: None,
            ledger: Some((4096, 12)),
            drifted: 2,
            freezes: 1,
            successes: vec![("nightly".to_owned(), 1_700_000_000.0)],
            services: vec![
                ServiceDowntime { service: "db".into(), seconds: Some(1.42), remaining: None },
                ServiceDowntime { service: "web".into(), seconds: None, remaining: Some(1.0) },
            ],
            free: Some((1 << 30, None)),
        }
    }

    #[test]
    fn the_page_is_as_prometheus_reads_it() {
        let mut runs = RunCounters::default();
        runs.know("a\"b\\c\nd");
        runs.count("backup", End::Succeeded, Some(2.5));
        let page = page(&snapshot(&runs));
        let expected = include_str!("../../../tests/fixtures/metrics.txt");
        assert_eq!(page, expected, "if this is meant: write the page to tests/fixtures/metrics.txt");
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in &METRICS {
            let Metric { name, kind, help, .. } = metric;
            assert!(name.starts_with("hostler_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\']), "{name}");
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }

    /// The table of docs/monitoring.md: `| `name` | kind | labels | meaning |`.
    #[test]
    fn the_documented_table_is_this_one() {
        let row = |metric: &Metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} |", metric.name, metric.kind.as_str(), labels.join(", "))
        };
        for metric in &METRICS {
            assert!(DOCS.contains(&row(metric)), "not in docs/monitoring.md: {}", row(metric));
        }
        let named =
            DOCS.lines().filter(|line| line.starts_with("| `hostler_") || line.starts_with("| `process_"));
        assert_eq!(named.count(), METRICS.len(), "docs/monitoring.md names a metric that does not exist");
    }

    #[test]
    fn each_sample_has_the_labels_of_its_row() {
        let mut runs = RunCounters::default();
        runs.count("backup", End::Failed, Some(1.0));
        for line in page(&snapshot(&runs)).lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let of = |metric: &&Metric| {
                metric.name == name
                    || metric.kind == Kind::Histogram
                        && name.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with('_'))
            };
            let metric = METRICS.iter().find(of).unwrap_or_else(|| panic!("{line}"));
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let labels: Vec<&str> =
                labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect();
            let labels: Vec<&str> = labels.into_iter().filter(|label| *label != "le").collect();
            assert_eq!(labels, metric.labels, "{line}");
        }
    }
}
