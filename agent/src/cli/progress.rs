//! Progress as people read it: what a run does now, how far it is, and how long it usually takes on this host.

use jiff::{SignedDuration, Timestamp};

use super::show;
use crate::report::document::OrderReport;

/// The bar's places between its brackets.
const BAR: usize = 20;

/// How far, as a bar: `part` of `whole`.
pub(super) fn bar(part: u64, whole: u64) -> String {
    let filled = part.min(whole).saturating_mul(BAR as u64) / whole.max(1);
    let filled = usize::try_from(filled).unwrap_or(BAR).min(BAR);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled))
}

/// How far a run is, in percent of all its steps; each step counts the same, since nobody knows better.
pub(super) fn percent(report: &OrderReport) -> Option<u64> {
    let step = report.step.as_ref()?;
    let count = step.count.max(1);
    let before = step.index.saturating_sub(1).saturating_mul(100);
    let so_far = before.saturating_add(usize::from(report.progress.unwrap_or_default()));
    u64::try_from(so_far / count).map(|percent| percent.min(100)).ok()
}

/// What a report says in one line.
pub(super) fn detail(report: &OrderReport) -> String {
    let step = report.step.as_ref().map(|step| format!("step {}/{} {}", step.index, step.count, step.name));
    let over = report.ended.is_some();
    let parts = [
        // Of what is over, why it went wrong is what is asked for first.
        report.error.clone().filter(|_| over),
        report.reason.clone(),
        report.until.map(|_| format!("until {}", show::time(report.until))),
        step.filter(|_| !over),
        report.progress.filter(|_| !over).map(|percent| format!("{percent} %")),
        report.message.clone().filter(|_| report.error.is_none()),
        report.probe.clone().filter(|_| report.drifted),
        report.error.clone().filter(|_| !over),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How long it has been going on, and how long that usually takes; nothing for what has not begun or is over.
pub(super) fn elapsed(report: &OrderReport, usual: Option<SignedDuration>, now: Timestamp) -> Option<String> {
    let started = report.started.filter(|_| report.ended.is_none())?;
    let elapsed = show::length(now.duration_since(started));
    Some(match usual {
        Some(usual) => format!("{elapsed} of usually {}", show::length(usual)),
        None => elapsed,
    })
}

/// One line that changes while the run goes on.
pub(super) fn live(report: &OrderReport, usual: Option<SignedDuration>, now: Timestamp) -> String {
    let going = report.phase == "running";
    let bar = percent(report).filter(|_| going).map(|percent| bar(percent, 100));
    let parts = [bar, elapsed(report, usual, now), Some(detail(report))];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    format!("{:<10} {}", report.phase, parts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::summary::StepSummary;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn running(index: usize, count: usize, progress: Option<u8>) -> OrderReport {
        OrderReport {
            phase: "running".into(),
            step: Some(StepSummary { index, count, name: "copy".into() }),
            progress,
            started: Some(at("2030-01-01T12:00:00Z")),
            ..OrderReport::default()
        }
    }

    #[test]
    fn a_bar_is_full_when_all_is_done_and_never_longer() {
        assert_eq!(bar(0, 100), "[--------------------]");
        assert_eq!(bar(50, 100), "[##########----------]");
        assert_eq!(bar(100, 100), bar(700, 100));
        assert_eq!(bar(0, 0), bar(0, 100));
    }

    #[test]
    fn steps_count_the_same() {
        for (index, count, progress, expected) in [
            (1, 4, None, 0),
            (2, 4, Some(50), 37),
            (4, 4, Some(100), 100),
            (1, 1, Some(40), 40),
            (0, 0, None, 0),
        ] {
            assert_eq!(percent(&running(index, count, progress)), Some(expected), "{index}/{count}");
        }
        assert_eq!(percent(&OrderReport::default()), None);
    }

    #[test]
    fn the_line_tells_how_long_it_takes_and_how_long_it_usually_does() {
        let now = at("2030-01-01T12:01:01Z");
        let report = running(1, 2, Some(50));
        let usual = Some(SignedDuration::from_secs(180));
        assert_eq!(
            live(&report, usual, now),
            "running    [#####---------------]  1m1s of usually 3m0s  step 1/2 copy, 50 %"
        );
        assert_eq!(elapsed(&report, None, now).as_deref(), Some("1m1s"));
        let over = OrderReport { phase: "succeeded".into(), ended: Some(now), ..report };
        assert_eq!(live(&over, usual, now).trim_end(), "succeeded");
    }
}
