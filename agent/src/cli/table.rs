//! Plain tables: aligned columns, cut to the terminal's width and never cut anywhere else.

use super::screen::{self, Severity};
use super::show;

/// Between two columns.
const GAP: usize = 2;

/// A column is never cut shorter than this.
const LEAST: usize = 8;

/// A table under way.
pub(super) struct Table {
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    /// A column, and what its word says.
    tone: Option<(usize, Severity)>,
}

impl Table {
    /// With these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let cells = headings.iter().map(|heading| (*heading).to_owned()).collect();
        Self { rows: vec![Row { cells, tone: None }] }
    }

    /// Adds a row; a cell may come from outside.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(&cells);
    }

    /// As [`Table::row`], where the columns are chosen for the screen.
    pub(super) fn cells(&mut self, cells: &[String]) {
        self.rows.push(Row { cells: cells.iter().map(|cell| show::inline(cell)).collect(), tone: None });
    }

    /// Adds a row with a word in it that can be seen from afar.
    pub(super) fn toned<const N: usize>(&mut self, column: usize, tone: Severity, cells: [String; N]) {
        self.row(cells);
        if let Some(row) = self.rows.last_mut() {
            row.tone = Some((column, tone));
        }
    }

    /// Whether there is nothing but the headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// As it fits the screen.
    pub(super) fn shown(&self) -> String {
        self.text(screen::width())
    }

    fn text(&self, most: Option<usize>) -> String {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
        let longest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = (0..columns).map(longest).collect();
        if let Some(most) = most {
            fit(&mut widths, most);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.cells.iter().zip(&widths).enumerate() {
                let shown = cut(cell, *width);
                match row.tone {
                    Some((toned, tone)) if toned == column => line.push_str(&screen::paint(&shown, tone)),
                    _ => line.push_str(&shown),
                }
                line.push_str(&" ".repeat(GAP + width.saturating_sub(cell.chars().count())));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Takes from the last column, which explains, then from the widest. The first one names what the row is about,
/// and a name that is cut is of no use.
fn fit(widths: &mut [usize], most: usize) {
    let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let mut over = total.saturating_sub(most);
    if let [_, .., last] = widths {
        let taken = over.min(last.saturating_sub(LEAST));
        *last -= taken;
        over -= taken;
    }
    for _ in 0..over {
        let widest = widths.iter_mut().skip(1).max();
        match widest.filter(|widest| **widest > LEAST) {
            Some(widest) => *widest -= 1,
            None => return,
        }
    }
}

/// The beginning of a text that is too long.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["HOST", "ERROR"]);
        table.row(["db1".into(), "one two three four five six".into()]);
        table.row(["database-22".into(), String::new()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_without_a_terminal() {
        assert_eq!(
            table().text(None),
            "HOST         ERROR\ndb1          one two three four five six\ndatabase-22\n"
        );
    }

    #[test]
    fn the_last_column_gives_way_first_and_the_first_one_never() {
        let text = table().text(Some(30));
        assert_eq!(text, "HOST         ERROR\ndb1          one two three fo…\ndatabase-22\n");
        assert_eq!(table().text(Some(1)), "HOST         ERROR\ndb1          one two…\ndatabase-22\n");
    }

    #[test]
    fn a_cell_from_outside_stays_one_cell() {
        let mut table = Table::new(&["A"]);
        table.row(["x\ny\x1b[31m".into()]);
        assert_eq!(table.text(None), "A\nx y\\u{1b}[31m\n");
    }
}
