//! Progress: one line that changes on a terminal, a line for each change anywhere else.

use std::io;

use super::{screen, show, table};

/// What is shown now.
pub(super) struct StatusLine {
    last: String,
    width: Option<usize>,
    /// A line is there that the next one replaces.
    open: bool,
}

impl StatusLine {
    /// Nothing is shown yet.
    pub(super) fn new() -> Self {
        Self { last: String::new(), width: screen::width(), open: false }
    }

    /// Shows a line, unless it is there already.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        if screen::quiet() {
            return Ok(());
        }
        let text = show::inline(text.trim_end());
        if text == self.last {
            return Ok(());
        }
        match self.width {
            None => show::line(&text)?,
            Some(width) => {
                show::raw(format!("\r\x1b[K{}", table::cut(&text, width.saturating_sub(1))).as_bytes())?;
                self.open = true;
            }
        }
        self.last = text;
        Ok(())
    }

    /// Leaves the line as it is; what follows begins a new one.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.open) {
            show::raw(b"\n")?;
        }
        Ok(())
    }
}
