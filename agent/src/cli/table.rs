//! Plain tables: aligned columns, cut to the terminal's width and never cut anywhere else.

use std::io;

use super::show;

/// Between two columns.
const GAP: usize = 2;

/// A column is never cut shorter than this.
const LEAST: usize = 8;

/// A table under way.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row; a cell may come from outside.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| show::inline(cell)).collect());
    }

    /// Prints it.
    pub(super) fn print(&self) -> io::Result<()> {
        show::raw(self.text(show::width()).as_bytes())
    }

    fn text(&self, most: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let longest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = (0..columns).map(longest).collect();
        if let Some(most) = most {
            fit(&mut widths, most);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&cut(cell, *width));
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
