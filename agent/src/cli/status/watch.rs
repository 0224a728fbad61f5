//! What `--watch` shows of orders: one host's whole report, or the group's summary; and when they are over.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;

use super::rows::{Question, Row, Rows};
use super::summary::{is_over, longest, summary};
use super::view;
use crate::cli::connection::Connection;
use crate::cli::exit::Exit;
use crate::cli::fleet::Fleet;
use crate::cli::history::usual;
use crate::cli::progress::detail;
use crate::cli::watch::{Look, watch};
use crate::cli::{Failure, screen};
use crate::domain::name::Name;
use crate::host::clock;

/// One that watches.
pub(in crate::cli) struct Watch<'a> {
    place: &'a Connection,
    question: &'a Question,
    /// Nothing is shown, only waited for.
    blind: bool,
    /// How long it usually takes; asked once for each host.
    usual: BTreeMap<Name, Option<SignedDuration>>,
    /// What was seen last.
    seen: Option<Rows>,
}

impl<'a> Watch<'a> {
    /// Nothing is shown yet.
    pub(in crate::cli) fn new(place: &'a Connection, question: &'a Question) -> Self {
        // Only where there is an end that one can wait for without seeing anything.
        let blind = screen::quiet() && question.order.is_some();
        Self { place, question, blind, usual: BTreeMap::new(), seen: None }
    }

    /// Waits only.
    pub(in crate::cli) fn without_view(self) -> Self {
        Self { blind: true, ..self }
    }

    /// Watches until it is over, or for as long as `most`, or until Ctrl-C; gives what was seen last.
    pub(in crate::cli) async fn watch(
        mut self,
        most: Option<Duration>,
    ) -> Result<(Exit, Option<Rows>), Failure> {
        // Only an order can be over; anything else was shown for as long as was asked.
        let unfinished = if self.question.order.is_some() { Exit::Pending } else { Exit::Success };
        let exit = watch(most, self.blind, unfinished, async || {
            let (text, rows) = self.look().await?;
            let is_end = |rows: &Rows| rows.rows.iter().all(|row| row.key.is_none() || is_over(row.standing));
            let over = rows.as_ref().filter(|rows| is_end(rows)).map(Rows::exit);
            self.seen = rows.or(self.seen.take());
            Ok(Look { text, over })
        });
        let exit = exit.await?;
        Ok((exit, self.seen))
    }

    /// One view; rows only where an order was asked for, since only an order can be over.
    async fn look(&mut self) -> Result<(String, Option<Rows>), Failure> {
        let now = clock::now();
        let fleet = Fleet::read(self.place).await?;
        let Question { order, group, .. } = self.question;
        let rows = Rows::read(self.place, fleet, self.question, now).await?;
        if self.question.is_all() {
            let view = view::overview(&rows, screen::quiet(), !screen::terminal());
            return Ok((format!("{}{view}", view::freezes(&rows)), None));
        }
        let text = match (&*rows.rows, order) {
            // Nobody sees it change: a line for each change, without what changes with the clock alone.
            (rows_now, Some(_)) if !screen::terminal() => match rows_now {
                [Row { report: Some(report), .. }] => format!("{:<10} {}\n", report.phase, detail(report)),
                _ => format!("{}\n", rows.in_words()),
            },
            ([row], Some(_)) => {
                let host = row.host.clone();
                let task = row.report.as_ref().and_then(|report| report.task.clone());
                self.learn(&host, task.as_deref()).await?;
                view::whole(row, &rows.fleet, now, self.usual.get(&host).copied().flatten())
            }
            (_, Some(order)) => {
                let running = longest(&rows).into_iter();
                let running = running.map(|row| {
                    (row.host.clone(), row.report.as_ref().and_then(|report| report.task.clone()))
                });
                for (host, task) in running.collect::<Vec<_>>() {
                    self.learn(&host, task.as_deref()).await?;
                }
                let known = self.usual.iter().filter_map(|(host, usual)| Some((host.clone(), (*usual)?)));
                let title = match group {
                    Some(group) => format!("{order} in group {group}"),
                    None => order.to_string(),
                };
                summary(&rows, &title, &known.collect(), screen::width())
            }
            (_, None) => view::table(&rows, screen::quiet(), !screen::terminal()),
        };
        let ends = order.is_some();
        Ok((text, ends.then_some(rows)))
    }

    /// Asks how long a task usually takes on a host, once.
    async fn learn(&mut self, host: &Name, task: Option<&str>) -> Result<(), Failure> {
        if let Some(task) = task
            && !self.usual.contains_key(host)
        {
            let usual = usual(self.place, host, task).await?;
            self.usual.insert(host.clone(), usual);
        }
        Ok(())
    }
}
