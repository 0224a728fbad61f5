//! `--watch`: the same view again and again, until everything that was asked for is over.
//!
//! On a terminal the view replaces itself; anywhere else it is printed again where it has changed. Trouble with the
//! store is a line, and no end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep_until};

use super::rows::{Question, Row, Rows};
use super::summary::{is_over, longest, summary};
use super::view;
use crate::cli::exit::Exit;
use crate::cli::fleet::Fleet;
use crate::cli::history::usual;
use crate::cli::place::Place;
use crate::cli::progress::detail;
use crate::cli::{Failure, screen, show};
use crate::domain::name::Name;
use crate::host::clock;
use crate::store::StoreError;

/// Between two looks. A thousand hosts are twenty requests each time.
const EVERY: Duration = Duration::from_secs(2);

/// One that watches.
pub(in crate::cli) struct Watch<'a> {
    place: &'a Place,
    question: &'a Question,
    /// What was shown last.
    last: String,
    /// Nothing is shown, only waited for.
    blind: bool,
    /// How long it usually takes; asked once for each host.
    usual: BTreeMap<Name, Option<SignedDuration>>,
}

impl<'a> Watch<'a> {
    /// Nothing is shown yet.
    pub(in crate::cli) fn new(place: &'a Place, question: &'a Question) -> Self {
        Self { place, question, last: String::new(), blind: screen::quiet(), usual: BTreeMap::new() }
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
        let until = most.map(|most| Instant::now() + most);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut seen = None;
        loop {
            let next = Instant::now() + EVERY;
            match self.look().await {
                Ok((text, rows)) => {
                    self.show(&text)?;
                    if let Some(rows) = rows {
                        if rows.rows.iter().all(|row| row.key.is_none() || is_over(row.standing)) {
                            return Ok((rows.exit(), Some(rows)));
                        }
                        seen = Some(rows);
                    }
                }
                Err(error) => match error.downcast::<StoreError>() {
                    Ok(error) if error.is_away() => self.show(&format!("(no view: {error})\n"))?,
                    Ok(error) => return Err(error),
                    Err(error) => return Err(error),
                },
            }
            let deadline = until.unwrap_or(next).max(Instant::now());
            tokio::select! {
                () = sleep_until(next.min(deadline)) => {
                    if until.is_some_and(|until| until <= Instant::now()) {
                        return Ok((Exit::GoesOn, seen));
                    }
                }
                _ = &mut interrupt => return Ok((Exit::Interrupted, seen)),
            }
        }
    }

    /// One view; rows only where an order was asked for, since only an order can be over.
    async fn look(&mut self) -> Result<(String, Option<Rows>), Failure> {
        let now = clock::now();
        let fleet = Fleet::read(self.place).await?;
        let Question { order, host, group } = self.question;
        if order.is_none() && host.is_none() && group.is_none() {
            return Ok((view::overview(&fleet, now), None));
        }
        let rows = Rows::read(self.place, fleet, self.question, now).await?;
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
            (_, None) => view::table(&rows, screen::quiet()),
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

    fn show(&mut self, text: &str) -> Result<(), Failure> {
        if self.blind || *text == self.last {
            return Ok(());
        }
        match (screen::width(), screen::height()) {
            (Some(width), Some(height)) => {
                // To the corner, each line to its end, and away with what is left below: nothing flickers.
                let lines = text.lines().take(height.saturating_sub(2));
                let lines: Vec<String> = lines.map(|line| format!("{line}\x1b[K")).collect();
                let hint =
                    crate::cli::table::cut("Ctrl-C ends the watch; the orders stay", width.saturating_sub(1));
                let clear = if self.last.is_empty() { "\x1b[2J" } else { "" };
                let frame = format!(
                    "{clear}\x1b[H{}\n{}\x1b[K\x1b[J\n",
                    lines.join("\n"),
                    screen::paint(&hint, screen::Tone::Dim)
                );
                show::raw(frame.as_bytes())?;
            }
            _ => show::raw(text.as_bytes())?,
        }
        text.clone_into(&mut self.last);
        Ok(())
    }
}
