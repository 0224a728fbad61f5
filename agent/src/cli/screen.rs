//! The screen of whoever types: how wide it is, whether it has colours, how much is to be said, and the pager.
//!
//! It is settled once, before anything is printed, from the options and from what programs of this kind look at
//! (`NO_COLOR`, `TERM`, `PAGER`). Where nothing was settled, as in tests, the output is no terminal and has no colours.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{env, runtime};
use crate::exec::pager;

/// Where nobody knows better.
const WIDTH: usize = 80;
/// A narrower screen gets lines that it wraps itself.
const LEAST_WIDTH: usize = 40;

/// Options of each command.
#[derive(Args)]
pub(super) struct ScreenArgs {
    /// Say only what was asked for and what is wrong: no notes, no progress, nothing that is as it should be
    #[arg(long, short, global = true, help_heading = "Screen")]
    quiet: bool,
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", help_heading = "Screen")]
    color: Color,
    /// Never show what is longer than the screen in a pager (HOSTLER_PAGER, PAGER, less)
    #[arg(long, global = true, help_heading = "Screen")]
    no_pager: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// What `less` is to do where its user says nothing: end on a single screen, pass colours on, leave the screen as it is.
const LESS: &str = "FRX";

struct Screen {
    quiet: bool,
    colors: bool,
    /// None: not a terminal.
    size: Option<(usize, usize)>,
    pager: Option<String>,
}

/// Of the process, as its standard output is.
static SCREEN: OnceLock<Screen> = OnceLock::new();

const NO_SCREEN: Screen = Screen { quiet: false, colors: false, size: None, pager: None };

fn screen() -> &'static Screen {
    SCREEN.get().unwrap_or(&NO_SCREEN)
}

/// Settles how this process shows things.
pub(super) fn apply(arguments: &ScreenArgs) {
    let terminal = io::stdout().is_terminal();
    let said = |name: &str| env(name).filter(|value| !value.is_empty());
    let size = terminal.then(|| {
        terminal_size::terminal_size().map_or((WIDTH, 24), |(width, height)| {
            (usize::from(width.0).max(LEAST_WIDTH), usize::from(height.0))
        })
    });
    let colors = match arguments.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            terminal && said("NO_COLOR").is_none() && said("TERM").is_none_or(|term| term != "dumb")
        }
    };
    let pager = said("HOSTLER_PAGER").or_else(|| said("PAGER")).unwrap_or_else(|| "less".to_owned());
    let pager = Some(pager).filter(|_| terminal && !arguments.no_pager && io::stdin().is_terminal());
    // A second call, in a test, changes nothing.
    let _ = SCREEN.set(Screen { quiet: arguments.quiet, colors, size, pager });
}

/// Whether only the answer and what is wrong is to be said.
pub(super) fn quiet() -> bool {
    screen().quiet
}

/// Whether standard output is a terminal.
pub(super) fn terminal() -> bool {
    screen().size.is_some()
}

/// The width of the terminal; `None`: it is not one, and nothing is cut.
pub(super) fn width() -> Option<usize> {
    screen().size.map(|(width, _)| width)
}

/// The height of the terminal.
pub(super) fn height() -> Option<usize> {
    screen().size.map(|(_, height)| height)
}

/// What a word says, so that it can be seen from afar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Wants a look.
    Wait,
    /// Wrong.
    Bad,
    /// Of less weight.
    Dim,
}

/// The text in the colour of its tone, where there are colours.
pub(super) fn paint(text: &str, tone: Severity) -> String {
    if screen().colors { painted(text, tone) } else { text.to_owned() }
}

fn painted(text: &str, tone: Severity) -> String {
    // The eight colours that each terminal has, in the reader's own shades.
    let code = match tone {
        Severity::Good => "32",
        Severity::Busy => "36",
        Severity::Wait => "33",
        Severity::Bad => "31",
        Severity::Dim => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Shows a text in the pager where it is longer than the screen; false: it is to be printed.
pub(super) fn paged(text: &str) -> io::Result<bool> {
    let screen = screen();
    let (Some(command), Some((_, height))) = (&screen.pager, screen.size) else { return Ok(false) };
    if text.lines().count() < height {
        return Ok(false);
    }
    let mut extra = Vec::new();
    if env("LESS").is_none() {
        extra.push(("LESS", LESS));
    }
    if env("SUDO_USER").is_some() {
        // Whoever became root to ask must not get a shell from it.
        extra.push(("LESSSECURE", "1"));
    }
    // Ctrl-C is meant for the pager: who dies of it would leave the terminal to two programs.
    let runtime = runtime()?;
    let deaf = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let shown = pager::show(command, text, &extra);
    drop(deaf);
    runtime.shutdown_background();
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_ends_where_its_word_ends() {
        assert_eq!(painted("failed", Severity::Bad), "\x1b[31mfailed\x1b[0m");
        assert_eq!(paint("failed", Severity::Bad), "failed", "no terminal, no colours");
    }
}
