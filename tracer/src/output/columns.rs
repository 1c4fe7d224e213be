//! Fits a table into the width of a terminal, for the text output and the live screen.

use tracer_model::sanitize;
use tracer_model::sanitize::Charset;

/// Alignment of a cell, and where it is cut if it is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Right-aligned numbers, which are never narrowed.
    Right,
    /// Left-aligned labels, cut at the end.
    Left,
    /// Left-aligned paths, cut in the middle so that the last component stays.
    Path,
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading of the column.
    pub title: &'static str,
    /// Alignment of heading and cells.
    pub align: Align,
    /// Minimum useful width, columns of the terminal.
    pub min: usize,
    /// Order in which columns are dropped when space is short: highest rank first, rank 0 never.
    pub rank: u8,
}

impl Column {
    /// Creates a column.
    #[must_use]
    pub const fn new(title: &'static str, align: Align, min: usize, rank: u8) -> Self {
        Self { title, align, min, rank }
    }
}

/// Computes the width of each column in a line of `total` columns, with `gap` blanks between two; 0
/// for a dropped one.
///
/// `wanted` is the width of each column's widest cell, heading included. Numbers get their full
/// width; labels and paths share the rest, at least `min` each.
#[must_use]
pub fn widths(columns: &[Column], wanted: &[usize], total: usize, gap: usize) -> Vec<usize> {
    let floor = |i: usize| match columns[i].align {
        Align::Right => wanted[i],
        Align::Left | Align::Path => wanted[i].min(columns[i].min),
    };
    let mut kept: Vec<bool> = vec![true; columns.len()];
    let needed = |kept: &[bool]| {
        let used = (0..columns.len()).filter(|&i| kept[i]);
        let count = used.clone().count();
        used.map(floor).sum::<usize>() + gap * count.saturating_sub(1)
    };
    while needed(&kept) > total {
        // Drop the last column of the highest rank; rank 0 always stays.
        let Some(out) = (0..columns.len())
            .filter(|&i| kept[i] && columns[i].rank > 0)
            .max_by_key(|&i| (columns[i].rank, i))
        else {
            break;
        };
        kept[out] = false;
    }
    let mut widths: Vec<usize> =
        (0..columns.len()).map(|i| if kept[i] { floor(i) } else { 0 }).collect();
    let mut left = total.saturating_sub(needed(&kept));
    // The rest goes to the smallest requests first, so that one long path does not starve the
    // others.
    let mut wishes: Vec<(usize, usize)> = (0..columns.len())
        .filter(|&i| kept[i] && wanted[i] > widths[i])
        .map(|i| (wanted[i] - widths[i], i))
        .collect();
    wishes.sort_unstable();
    let count = wishes.len();
    for (done, (wish, i)) in wishes.into_iter().enumerate() {
        let given = wish.min(left / (count - done));
        widths[i] += given;
        left -= given;
    }
    widths
}

/// Formats `text` (already escaped) in exactly `width` columns, or at most that if `pad` is false.
#[must_use]
pub fn cell(text: &str, align: Align, width: usize, pad: bool, charset: Charset) -> String {
    let text = match align {
        Align::Path => sanitize::fit(text, width, charset),
        Align::Left | Align::Right => sanitize::truncate(text, width, charset),
    };
    let blanks = if pad { width.saturating_sub(sanitize::width(&text)) } else { 0 };
    match align {
        Align::Right => {
            format!("{}{text}", " ".repeat(width.saturating_sub(sanitize::width(&text))))
        }
        Align::Left | Align::Path => format!("{text}{}", " ".repeat(blanks)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("PID", Align::Right, 3, 0),
        Column::new("RATE", Align::Right, 4, 1),
        Column::new("USER", Align::Left, 4, 2),
        Column::new("PATH", Align::Path, 8, 0),
    ];

    #[test]
    fn columns_are_dropped_by_rank() {
        let wanted = [5, 10, 8, 40];
        assert_eq!(widths(&COLUMNS, &wanted, 80, 1), [5, 10, 8, 40]);
        assert_eq!(widths(&COLUMNS, &wanted, 40, 1), [5, 10, 8, 14]);
        assert_eq!(widths(&COLUMNS, &wanted, 26, 1), [5, 10, 0, 9]);
        assert_eq!(widths(&COLUMNS, &wanted, 20, 1), [5, 0, 0, 14]);
    }

    proptest! {
        #[test]
        fn a_line_is_never_longer_than_its_terminal(
            wanted in prop::collection::vec(3usize..60, 4),
            total in 80usize..300,
        ) {
            let widths = widths(&COLUMNS, &wanted, total, 1);
            let used = widths.iter().filter(|&&w| w > 0).count();
            prop_assert!(widths.iter().sum::<usize>() + used - 1 <= total);
        }
    }
}
