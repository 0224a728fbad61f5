//! Plain tables: aligned columns, cut to the terminal's width and never cut anywhere else.

use super::screen::{self, Severity};
use super::show;

/// Between two columns.
const GAP: usize = 2;

/// A column is never cut shorter than this.
const LEAST: usize = 8;

/// The last column, which explains, has at least so much room before others are left out for it.
const EXPLAINS: usize = 24;

/// A table under way.
pub(super) struct Table {
    rows: Vec<Row>,
    /// So many of the first columns are names, and are never cut.
    names: usize,
    /// Columns that a narrow screen does without, the first one first.
    spare: &'static [&'static str],
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
        Self { rows: vec![Row { cells, tone: None }], names: 1, spare: &[] }
    }

    /// How many of the first columns are names, which are never cut; and the columns that a narrow screen does without.
    pub(super) fn names(self, names: usize, spare: &'static [&'static str]) -> Self {
        Self { names, spare, ..self }
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
        let mut widths: Vec<Option<usize>> = (0..columns).map(|column| Some(longest(column))).collect();
        if let Some(most) = most {
            self.spare(&mut widths, most);
            fit(&mut widths, most, self.names);
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.cells.iter().zip(&widths).enumerate() {
                let Some(width) = width else { continue };
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

impl Table {
    /// Leaves columns out until the last one has room to explain.
    fn spare(&self, widths: &mut [Option<usize>], most: usize) {
        let Some(headings) = self.rows.first() else { return };
        for name in self.spare {
            let last = widths.last().copied().flatten().unwrap_or_default();
            if total(widths).saturating_sub(last.saturating_sub(EXPLAINS)) <= most {
                return;
            }
            let at = headings.cells.iter().position(|heading| heading == name);
            if let Some(width) = at.and_then(|at| widths.get_mut(at)) {
                *width = None;
            }
        }
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)
}

/// Takes from the last column, which explains, then from the widest. The first ones name what the row is about,
/// and a name that is cut is of no use.
fn fit(widths: &mut [Option<usize>], most: usize, names: usize) {
    let mut over = total(widths).saturating_sub(most);
    if let [_, .., Some(last)] = widths {
        let taken = over.min(last.saturating_sub(LEAST));
        *last -= taken;
        over -= taken;
    }
    for _ in 0..over {
        let widest = widths.iter_mut().skip(names).flatten().max();
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
    fn a_narrow_screen_does_without_columns_and_cuts_no_name() {
        let mut table = Table::new(&["HOST", "ORDER", "FROM", "DETAIL"]).names(2, &["FROM"]);
        let order = "a-rather-long-name-of-an-order";
        table.row(["db1".into(), order.into(), "groups/hana".into(), "why it went wrong, in words".into()]);
        let text = table.text(Some(60));
        assert!(
            text.contains(order) && !text.contains("FROM") && text.contains("why it went wrong, in"),
            "{text}"
        );
        assert!(table.text(Some(90)).contains("groups/hana"));
        assert!(table.text(Some(40)).contains(order), "a name is never cut");
    }

    #[test]
    fn a_cell_from_outside_stays_one_cell() {
        let mut table = Table::new(&["A"]);
        table.row(["x\ny\x1b[31m".into()]);
        assert_eq!(table.text(None), "A\nx y\\u{1b}[31m\n");
    }
}
