//! A table for people: columns as wide as their values, the last one as it is.

/// The lines of a table.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = head.get(column).map_or(0, |cell| cell.len());
        cells.max().unwrap_or_default().max(head)
    };
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            if column + 1 == N {
                line.push_str(cell);
            } else {
                let width = width(column) + 2;
                line.push_str(&format!("{cell:width$}"));
            }
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    lines.extend(
        rows.iter().map(|row| line(std::array::from_fn(|at| row.get(at).map_or("", String::as_str)))),
    );
    lines.join("\n")
}
