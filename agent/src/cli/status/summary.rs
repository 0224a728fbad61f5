//! An order on many hosts at a glance: how many stand how, which take the longest, and which went wrong, with why.
//!
//! Of a thousand hosts a person wants to know a dozen: so each list has an end, and says how many it leaves out.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::next::{Reason, reasons};
use super::rows::{Row, Rows};
use super::view::{explained, tone};
use crate::cli::fleet::OrderStatus;
use crate::cli::progress::{bar, detail, elapsed};
use crate::cli::screen::paint;
use crate::cli::show;
use crate::cli::table::cut;
use crate::domain::name::Name;

/// So many hosts in each list.
pub(super) const MAX_ROWS: usize = 8;

/// Lists, each with the standings that belong into it.
const LISTS: [(&str, &[OrderStatus]); 4] = [
    ("running longest", &[OrderStatus::Running]),
    ("drifted", &[OrderStatus::Drifted]),
    ("failed", &[OrderStatus::Failed]),
    ("not answering or held", &[OrderStatus::Held, OrderStatus::Stale]),
];

/// The hosts on which the order runs longest: for those it is worth asking how long it usually takes.
pub(super) fn longest(rows: &Rows) -> Vec<&Row> {
    let mut running: Vec<&Row> =
        rows.rows.iter().filter(|row| row.standing == OrderStatus::Running).collect();
    running.sort_by_key(|row| row.report.as_ref().and_then(|report| report.started));
    running.truncate(MAX_ROWS);
    running
}

/// The summary; `usual`: how long it takes on the hosts where that is known; `width`: of the screen.
pub(super) fn summary(
    rows: &Rows,
    title: &str,
    usual: &BTreeMap<Name, SignedDuration>,
    width: Option<usize>,
) -> String {
    let over = rows.rows.iter().filter(|row| is_over(row.standing)).count();
    let (over, all) =
        (u64::try_from(over).unwrap_or(u64::MAX), u64::try_from(rows.rows.len()).unwrap_or(u64::MAX));
    let mut text = format!("{title}: {all} hosts\n{} {over} over\n", bar(over, all));
    let mut used = 0;
    for (standing, count) in rows.counts() {
        let word = format!("{count} {}", standing.as_str());
        let gap = match used {
            0 => "",
            _ if width.is_some_and(|width| used + word.len() + 3 > width) => ",\n",
            _ => ", ",
        };
        used = word.len() + if gap == ", " { used + gap.len() } else { 0 };
        text.push_str(&format!("{gap}{}", paint(&word, tone(standing))));
    }
    text.push('\n');
    for (heading, standings) in LISTS {
        let all = rows.rows.iter().filter(|row| standings.contains(&row.standing)).count();
        let (listed, counted): (Vec<(String, String)>, usize) = if standings == [OrderStatus::Running] {
            let listed = longest(rows);
            let said = |row: &&Row| (row.host.to_string(), said(row, rows, usual));
            (listed.iter().map(said).collect(), listed.len())
        } else {
            let listed: Vec<Reason<'_>> = reasons(rows, standings).into_iter().take(MAX_ROWS).collect();
            let counted = listed.iter().map(|reason| reason.hosts.len()).sum();
            (listed.into_iter().map(|reason| (reason.whose(), reason.text)).collect(), counted)
        };
        if listed.is_empty() {
            continue;
        }
        text.push_str(&format!("{heading}\n"));
        for (whose, said) in &listed {
            let line = format!("  {whose:<12} {}", show::inline(said));
            text.push_str(&width.map_or_else(|| line.clone(), |width| cut(&line, width.saturating_sub(1))));
            text.push('\n');
        }
        if all > counted {
            text.push_str(&format!(
                "  and {} more: hostler status without --watch lists all\n",
                all - counted
            ));
        }
    }
    text
}

fn said(row: &Row, rows: &Rows, usual: &BTreeMap<Name, SignedDuration>) -> String {
    match (&row.report, row.standing) {
        (Some(report), OrderStatus::Running) => {
            let time = elapsed(report, usual.get(&row.host).copied(), rows.now).unwrap_or_default();
            format!("{time}  {}", detail(report))
        }
        _ => explained(row, &rows.fleet, rows.now),
    }
}

/// Whether nothing more comes by itself.
pub(super) fn is_over(standing: OrderStatus) -> bool {
    match standing {
        OrderStatus::Done | OrderStatus::Drifted | OrderStatus::Failed | OrderStatus::Held => true,
        OrderStatus::Waiting | OrderStatus::Running | OrderStatus::NoReport | OrderStatus::Stale => false,
    }
}
