//! `--watch`: the same view again and again, until it is over, for as long as was asked, or until Ctrl-C.
//!
//! Whoever is watched says what a look shows and whether more can come; when the next look is, how a view replaces
//! the one before it and what trouble with the store means is settled here, once for all commands. On a terminal
//! the view replaces itself; anywhere else it is printed again where it has changed. Trouble with the store is
//! a line, and no end.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::exit::Exit;
use super::screen::{self, Severity};
use super::{Failure, show, table};
use crate::domain::span::Span;
use crate::store::StoreError;

/// Between two looks. A thousand hosts are twenty requests each time.
const EVERY: Duration = Duration::from_secs(2);

/// Options of each command that can be watched.
#[derive(Args)]
pub(super) struct WatchArgs {
    /// Show it again and again, until Ctrl-C or until what was asked for is over; for people, so not with --json:
    /// a program asks as often as it likes
    #[arg(long, short, conflicts_with = "json")]
    pub(super) watch: bool,
    /// With --watch: no longer than this
    #[arg(long, value_name = "SPAN", requires = "watch")]
    wait: Option<Span>,
}

impl WatchArgs {
    /// How long at most.
    pub(super) fn most(&self) -> Option<Duration> {
        self.wait.map(|span| span.0)
    }
}

/// What was seen.
pub(super) struct Look {
    /// What is shown of it.
    pub(super) text: String,
    /// How it ended, if nothing more can come.
    pub(super) over: Option<Exit>,
}

/// Watches a view without an end of its own: when the time is up, it has been shown as was asked.
pub(super) async fn endless(
    arguments: &WatchArgs,
    mut look: impl AsyncFnMut() -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    let look = async || Ok(Look { text: look().await?, over: None });
    watch(arguments.most(), false, Exit::Success, look).await
}

/// Watches until it is over, for as long as `most`, or until Ctrl-C. `blind`: nothing is shown, only waited for;
/// `unfinished`: the end when the time is up first.
pub(super) async fn watch(
    most: Option<Duration>,
    blind: bool,
    unfinished: Exit,
    mut look: impl AsyncFnMut() -> Result<Look, Failure>,
) -> Result<Exit, Failure> {
    let until = most.map(|most| Instant::now() + most);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut frame = Frame { last: String::new(), blind };
    loop {
        let next = Instant::now() + EVERY;
        let away = match look().await {
            Ok(Look { text, over }) => {
                frame.show(&text, over.is_some())?;
                if let Some(exit) = over {
                    return Ok(exit);
                }
                None
            }
            Err(error) => match error.downcast::<StoreError>() {
                Ok(error) if error.is_away() => {
                    frame.show(&format!("(no view: {})\n", show::inline(&error.to_string())), false)?;
                    Some(error)
                }
                Ok(error) => return Err(error),
                Err(error) => return Err(error),
            },
        };
        let deadline = until.unwrap_or(next).max(Instant::now());
        tokio::select! {
            () = sleep_until(next.min(deadline)) => {
                if until.is_some_and(|until| until <= Instant::now()) {
                    // Nothing good can be said of what could not be seen.
                    return away.filter(|_| unfinished == Exit::Success).map_or(Ok(unfinished), |away| Err(away));
                }
            }
            _ = &mut interrupt => return Ok(Exit::Interrupted),
        }
    }
}

/// What is on the screen.
struct Frame {
    last: String,
    blind: bool,
}

impl Frame {
    /// Shows a view; `last`: nothing more comes.
    fn show(&mut self, text: &str, last: bool) -> Result<(), Failure> {
        if self.blind || *text == self.last {
            return Ok(());
        }
        match (screen::width(), screen::height()) {
            (Some(width), Some(height)) => {
                // To the corner, each line to its end, and away with what is left below: nothing flickers. A line
                // that is too long ends at the edge: one that went on below would push the view off its place.
                let fits = height.saturating_sub(2);
                let lines: Vec<String> =
                    text.lines().take(fits).map(|line| format!("{line}\x1b[K")).collect();
                let hidden = text.lines().count().saturating_sub(fits);
                let hint = table::cut(&hint(hidden, last), width.saturating_sub(1));
                let clear = if self.last.is_empty() { "\x1b[2J" } else { "" };
                let frame = format!(
                    "{clear}\x1b[?7l\x1b[H{}\n{}\x1b[K\x1b[J\x1b[?7h\n",
                    lines.join("\n"),
                    screen::paint(&hint, Severity::Dim)
                );
                show::raw(frame.as_bytes())?;
            }
            _ => show::raw(text.as_bytes())?,
        }
        text.clone_into(&mut self.last);
        Ok(())
    }
}

/// The line below a view of which so many lines find no room.
fn hint(hidden: usize, last: bool) -> String {
    let more = match hidden {
        0 => String::new(),
        1 => "1 more line does not fit; ".to_owned(),
        hidden => format!("{hidden} more lines do not fit; "),
    };
    if last { more } else { format!("{more}Ctrl-C ends the watch; the orders stay") }
}
