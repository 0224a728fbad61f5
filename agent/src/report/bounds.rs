//! The bounds of reports: whatever tasks, orders and hosts put into one, it has room in the store.
//!
//! Texts are cut between characters, and lists end with the count of what was left out. Control characters but the
//! newline are replaced, so no text grows to more than twice its bytes in JSON. A report that is within its bounds is
//! returned as it is; one that is not loses the end of its longest texts first, and never who, which and where.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::document::{
    self, AgentReport, OrderReport, RUN_TAIL, ReportedCondition, RunReport, StepReport, TAIL,
};
use crate::domain::downtime::Downtime;
use crate::domain::summary::{LEFT_BEHIND, MAX_OUTPUTS, WARNINGS, WARNINGS_EACH};
use crate::domain::text::{self, MORE};

/// The largest report of an order, in bytes of JSON.
pub const MAX_ORDER: usize = 8 << 10;
/// The largest report of an agent.
pub const MAX_AGENT: usize = 4 << 10;
/// The largest report of a run.
pub const MAX_RUN: usize = 2 << 10;

/// The stamps that the writer adds to a report (`updated`, `next_report_by`), in bytes.
pub(super) const STAMPS: usize = 128;
/// The longest line for the operator.
const MAX_LINE: usize = 1000;
/// The longest of the short texts: reason, trigger, task, name of a step.
const WORDS: usize = 200;
/// The longest line about a process that was left behind, and about what is wrong with a host.
const EACH: usize = 300;
/// How many services with downtime the report of a run names.
const RUN_DOWNTIMES: usize = 4;
/// How many steps of a run are named.
const RUN_STEPS: usize = 10;
/// The longest name of a step in the report of a run.
const RUN_STEP_NAME: usize = 60;
/// Parameters and outputs in the report of a run, each.
const RUN_VALUES: usize = 300;
/// What the field `tasks` of an agent's report takes beside its entries, in bytes.
const TASKS: usize = 12;
/// How many conditions an agent's report has.
const CONDITIONS: usize = 20;

/// The report of an order within its bounds.
pub fn order(mut report: OrderReport) -> OrderReport {
    let OrderReport { reason, trigger, task, task_digest, probe, .. } = &mut report;
    for text in [reason, trigger, task, task_digest, probe] {
        bound(text, WORDS);
    }
    if let Some(step) = &mut report.step {
        step.name = text::head(&text::clean(&step.name), WORDS);
    }
    bound(&mut report.message, MAX_LINE);
    bound(&mut report.error, MAX_LINE);
    bound_tail(&mut report.tail, TAIL);
    let cleaned = report.outputs.iter().map(|(name, value)| (text::clean(name), text::clean(value)));
    report.outputs = text::within(&cleaned.collect(), MAX_OUTPUTS);
    // One more than are named: a list that was counted already keeps its count.
    bound_lines(&mut report.killed_processes, LEFT_BEHIND + 1, EACH);
    bound_lines(&mut report.warnings, WARNINGS + 1, WARNINGS_EACH);
    let (outputs, killed_processes) = (report.outputs.clone(), report.killed_processes.clone());
    let (warnings, downtime) = (report.warnings.clone(), report.downtime.clone());
    let mut most = TAIL;
    while json_bytes(&report) > MAX_ORDER - STAMPS && most > 1 {
        most /= 2;
        bound_tail(&mut report.tail, most);
        report.outputs = text::within(&outputs, most);
        report.killed_processes = text::few(&killed_processes, most / EACH, EACH);
        report.warnings = text::few(&warnings, most / EACH, EACH);
        report.downtime.clone_from(&downtime);
        few_downtimes(&mut report.downtime, most / EACH, &mut report.warnings);
        if most < WORDS {
            bound(&mut report.message, most);
            bound(&mut report.error, most);
        }
    }
    report
}

/// The report of a run within its bounds.
pub fn run(mut report: RunReport) -> RunReport {
    bound(&mut report.trigger, WORDS);
    bound(&mut report.error, WORDS);
    report.task = text::head(&text::clean(&report.task), WORDS);
    bound_tail(&mut report.tail, RUN_TAIL);
    bound_lines(&mut report.warnings, WARNINGS + 1, WORDS);
    few_downtimes(&mut report.downtime, RUN_DOWNTIMES, &mut report.warnings);
    bound(&mut report.by, WORDS);
    bound(&mut report.reason, WORDS);
    bound(&mut report.params, RUN_VALUES);
    let cleaned = report.outputs.iter().map(|(name, value)| (text::clean(name), text::clean(value)));
    let outputs: BTreeMap<String, String> = cleaned.collect();
    report.outputs = text::within(&outputs, RUN_VALUES);
    bound_lines(&mut report.killed_processes, LEFT_BEHIND + 1, WORDS);
    let steps = std::mem::take(&mut report.steps);
    report.steps = few_steps(&steps, RUN_STEPS);
    let mut most = RUN_TAIL;
    while json_bytes(&report) > MAX_RUN && most > 1 {
        most /= 2;
        bound_tail(&mut report.tail, most);
        bound_lines(&mut report.warnings, most / WORDS, WORDS);
        few_downtimes(&mut report.downtime, most / WORDS, &mut report.warnings);
        bound_lines(&mut report.killed_processes, most / WORDS, WORDS);
        for text in [&mut report.by, &mut report.reason, &mut report.params] {
            bound(text, most / 2);
        }
        report.outputs = text::within(&outputs, most / 4);
        report.steps = few_steps(&steps, most / WORDS);
    }
    report
}

/// The first steps; a last one counts the others.
fn few_steps(all: &[StepReport], most: usize) -> Vec<StepReport> {
    let named = |step: &StepReport| StepReport {
        name: text::head(&text::clean(&step.name), RUN_STEP_NAME),
        ..step.clone()
    };
    let mut few: Vec<StepReport> = all.iter().take(most).map(named).collect();
    let more = all.len().saturating_sub(most);
    few.extend((more > 0).then(|| StepReport { name: format!("and {more} more"), ..StepReport::default() }));
    few
}

/// The services that lost the most, in their order; the last warning counts the others.
fn few_downtimes(all: &mut Vec<Downtime>, most: usize, warnings: &mut Vec<String>) {
    let more = all.len().saturating_sub(most);
    if more == 0 {
        return;
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.seconds));
    all.truncate(most);
    all.sort_by(|a, b| a.service.cmp(&b.service));
    let said = "more services with downtime";
    warnings.retain(|warning| !warning.ends_with(said));
    warnings.push(format!("{more} {said}"));
}

/// At most so many conditions, each within its bound; the last one counts the others.
fn few_conditions(all: &[ReportedCondition], most: usize) -> Vec<ReportedCondition> {
    let messages: Vec<String> = all.iter().map(|condition| text::clean(&condition.message)).collect();
    let kinds = all.iter().map(|condition| condition.kind.clone());
    let few = text::few(&messages, most, EACH).into_iter();
    let cut = messages.len() > most;
    let mut few: Vec<ReportedCondition> =
        few.zip(kinds).map(|(message, kind)| ReportedCondition { kind, message }).collect();
    if let Some(last) = few.last_mut().filter(|_| cut) {
        document::MORE.clone_into(&mut last.kind);
    }
    few
}

/// The report of an agent within its bounds; `unnamed` orders are not in it already.
pub fn agent(mut report: AgentReport, unnamed: usize) -> AgentReport {
    let all = std::mem::take(&mut report.conditions);
    let (orders, seen) = (std::mem::take(&mut report.orders), std::mem::take(&mut report.observed_index));
    let tasks = std::mem::take(&mut report.tasks);
    let groups = report.groups.len();
    let room = MAX_AGENT - STAMPS;
    let (mut most, mut named) = (CONDITIONS, groups);
    loop {
        report.conditions = few_conditions(&all, most);
        report.groups.truncate(named);
        if named < groups {
            let message = format!("groups: {named} of {groups} have room in this report");
            report.conditions.push(ReportedCondition::of_report(message));
        }
        // What is wrong has half of it; groups, of which readers take the members, the most of the rest.
        let conditions = json_bytes(&report.conditions);
        if conditions > room / 2 && most > 1 {
            most -= 1;
        } else if json_bytes(&report) > room && report.budgets.pop().is_some() {
            // The host has them all; here the ones with the most left go first.
        } else if json_bytes(&report) > room && named > 0 {
            named -= 1;
        } else {
            break;
        }
    }
    let left = room.saturating_sub(json_bytes(&report));
    report.observed_index = fitting(&seen, left / 2, |_, more| more as u64, 0);
    // Its name and the two signs around it.
    let left = room.saturating_sub(json_bytes(&report)).saturating_sub(TASKS);
    if !tasks.is_empty() {
        report.tasks = fitting(&tasks, left / 2, |_, more| format!("and {more} more"), 0);
    }
    let left = room.saturating_sub(json_bytes(&report));
    report.orders = fitting(&orders, left, |_, more| format!("and {more} more"), unnamed);
    report
}

/// The first entries that have room in so many bytes of JSON, with a last one that counts the others and those that
/// are not in the map at all.
fn fitting<V: Clone + Serialize>(
    map: &BTreeMap<String, V>,
    room: usize,
    count: impl Fn(&str, usize) -> V,
    unnamed: usize,
) -> BTreeMap<String, V> {
    let entry = |name: &str, value: &V| json_bytes(&name) + json_bytes(value) + 2;
    let last = |more: usize| (more > 0).then(|| (MORE.to_owned(), count(MORE, more)));
    let mut kept = BTreeMap::new();
    let counted = entry(MORE, &count(MORE, map.len() + unnamed));
    let mut bytes = 0;
    for (i, (name, value)) in map.iter().enumerate() {
        bytes += entry(name, value);
        let ends = i + 1 == map.len() && unnamed == 0;
        if bytes + if ends { 0 } else { counted } > room {
            break;
        }
        kept.insert(name.clone(), value.clone());
    }
    if counted <= room {
        kept.extend(last(map.len() - kept.len() + unnamed));
    }
    kept
}

fn bound(text: &mut Option<String>, most: usize) {
    if let Some(text) = text {
        *text = text::head(&text::clean(text), most);
    }
}

/// As `few`, where the last line may count others already.
fn bound_lines(lines: &mut Vec<String>, most: usize, longest: usize) {
    let cleaned: Vec<String> = lines.iter().map(|line| text::clean(line)).collect();
    *lines = text::few(&cleaned, most, longest);
}

fn bound_tail(text: &mut Option<String>, most: usize) {
    if let Some(text) = text {
        *text = text::tail(&text::clean(text), most);
    }
}

/// How long a value is as JSON, without making the text.
pub(super) fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Reports hold texts and numbers only, which cannot fail to be written as JSON.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::summary::StepSummary;

    /// Texts that are long, wide, or grow in JSON.
    const HOSTILE: [&str; 6] = ["x", "ä", "\u{1f600}", "\"", "\n", "\u{1}"];

    /// As long as they can be.
    fn budgets(count: usize) -> Vec<document::ReportedBudget> {
        let budget = document::ReportedBudget {
            service: "s".repeat(63).parse().unwrap(),
            target: 99.9999.try_into().unwrap(),
            window: serde_json::from_str("\"366d\"").unwrap(),
            allowed: crate::domain::downtime::Millis(u64::MAX >> 12),
            spent: crate::domain::downtime::Millis(u64::MAX >> 12),
        };
        vec![budget; count]
    }

    fn outputs_of(hostile: &str) -> BTreeMap<String, String> {
        (0..300).map(|n| (format!("output_{n}"), hostile.repeat(500))).collect()
    }

    fn downtimes(count: usize) -> Vec<Downtime> {
        let at = jiff::Timestamp::from_second(1_800_000_000).ok();
        let one = |n: usize| Downtime {
            service: format!("{n:0>63}").parse().unwrap(),
            seconds: crate::domain::downtime::Millis(u64::MAX >> 12),
            from: at,
            to: at,
            failed: u64::MAX,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn no_report_is_larger_than_its_bound() {
        for hostile in HOSTILE {
            let long = || Some(hostile.repeat(20_000));
            let outputs = outputs_of(hostile);
            let bounded = order(OrderReport {
                reason: long(),
                trigger: long(),
                task: long(),
                message: long(),
                error: long(),
                tail: long(),
                probe: long(),
                step: Some(StepSummary { index: 1, count: 2, name: hostile.repeat(9000) }),
                outputs,
                killed_processes: vec![hostile.repeat(700); 400],
                warnings: vec![hostile.repeat(700); 400],
                downtime: downtimes(16),
                host: "h".repeat(63),
                order: "o".repeat(63),
                ..OrderReport::default()
            });
            assert!(json_bytes(&bounded) <= MAX_ORDER - STAMPS, "{hostile:?}: {}", json_bytes(&bounded));
            assert!(bounded.tail.as_ref().is_some_and(|tail| tail.len() <= TAIL && tail.len() > 200));
            assert!(bounded.outputs.contains_key(MORE), "{:?}", bounded.outputs);
            assert!(bounded.killed_processes.last().is_some_and(|last| last.starts_with("and ")));
            let bounded = run(RunReport {
                trigger: long(),
                error: long(),
                tail: long(),
                task: hostile.repeat(999),
                warnings: vec![hostile.repeat(700); 400],
                downtime: downtimes(16),
                by: long(),
                reason: long(),
                params: long(),
                steps: (0..40)
                    .map(|_| StepReport { name: hostile.repeat(900), ..StepReport::default() })
                    .collect(),
                outputs: outputs_of(hostile),
                killed_processes: vec![hostile.repeat(700); 400],
                ..RunReport::default()
            });
            assert!(json_bytes(&bounded) <= MAX_RUN, "{hostile:?}: {}", json_bytes(&bounded));
            for groups in [0, 3, 200] {
                let name = |n: usize| format!("{n:0>60}");
                let bounded = agent(
                    AgentReport {
                        groups: (0..groups).filter_map(|n| name(n).parse().ok()).collect(),
                        conditions: vec![ReportedCondition::of_report(hostile.repeat(5000)); 90],
                        observed_index: (0..groups).map(|n| (name(n), n as u64)).collect(),
                        orders: (0..100).map(|n| (name(n), "succeeded".to_owned())).collect(),
                        tasks: (0..90).map(|n| (name(n), "7 sha256:0123456789ab".to_owned())).collect(),
                        budgets: budgets(8),
                        ..AgentReport::default()
                    },
                    900,
                );
                let bytes = json_bytes(&bounded);
                assert!(bytes <= MAX_AGENT - STAMPS, "{hostile:?} {groups}: {bytes}");
                assert!(
                    bounded
                        .conditions
                        .iter()
                        .any(|last| last.kind == document::MORE && last.message.starts_with("and "))
                );
                assert_eq!(bounded.groups.len() < groups, groups == 200);
                if groups == 0 {
                    let named = bounded.orders.len() - 1;
                    assert_eq!(bounded.orders[MORE], format!("and {} more", 1000 - named));
                }
            }
        }
    }

    #[test]
    fn what_is_within_its_bounds_stays_as_it_is() {
        let report = OrderReport {
            message: Some("copying ä\n\"b\"".to_owned()),
            tail: Some("x".repeat(TAIL)),
            outputs: [("id".to_owned(), "7".to_owned())].into(),
            downtime: downtimes(4),
            killed_processes: vec!["sleep (1)".to_owned()],
            ..OrderReport::default()
        };
        assert_eq!(order(report.clone()), report);
        let report = RunReport { tail: Some("y".repeat(RUN_TAIL)), ..RunReport::default() };
        assert_eq!(run(report.clone()), report);
        let few = run(RunReport { downtime: downtimes(9), ..RunReport::default() });
        assert_eq!((few.downtime.len(), few.warnings), (4, vec!["5 more services with downtime".to_owned()]));
        let report = AgentReport {
            groups: vec!["all".parse().unwrap()],
            conditions: vec![ReportedCondition::of_report("one".to_owned())],
            orders: (0..100).map(|n| (format!("order-{n}"), "succeeded".to_owned())).collect(),
            observed_index: [("hostler/".to_owned(), 7)].into(),
            budgets: budgets(2),
            ..AgentReport::default()
        };
        assert_eq!(agent(report.clone(), 0), report);
        // A summary has bounded these before, and their counts stay true.
        let counted: Vec<String> = text::few(&vec!["p".to_owned(); 50], LEFT_BEHIND, 9);
        let report = OrderReport { killed_processes: counted, ..OrderReport::default() };
        assert_eq!(order(report.clone()), report);
    }
}
