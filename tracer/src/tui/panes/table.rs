//! Paints the table of a view.

use ratatui::layout::Rect;
use tracer_model::sanitize::Charset;
use tracer_model::snapshot::Snapshot;

use super::Painter;
use crate::output::columns::Align;
use crate::output::theme::Role;
use crate::output::{columns, format};
use crate::tui::query::{Col, Query, View};
use crate::tui::rows::Rows;
use crate::tui::state::UiState;
use crate::tui::views::cells;
use crate::tui::views::cells::CellFormat;
use crate::tui::views::columns as view_columns;

/// The rows to paint and where to start.
pub struct TableContent<'a> {
    /// The view, its sort order and its volume.
    pub query: Query<'a>,
    /// Its rows.
    pub rows: &'a Rows,
    /// Index of the first row shown.
    pub from: usize,
    /// Index of the selected row, if any.
    pub selected: Option<usize>,
}

/// Paints the heading and the rows.
pub fn draw(
    painter: &mut Painter<'_>,
    area: Rect,
    snapshot: &Snapshot,
    state: &UiState,
    part: &TableContent<'_>,
) {
    if area.height == 0 || area.width < 2 {
        return;
    }
    // The marker of the selected row takes a column, so that it is visible without colour.
    let inner = Rect { x: area.x + 1, width: area.width - 1, ..area };
    let all = part.query.volume.is_none();
    let columns = view_columns::fitting(part.query.view, all, inner.width);
    let cell_format = CellFormat::new(state.units, state.charset, inner.width);
    let mark = match (part.query.sort.descending, state.charset) {
        (true, Charset::Unicode) => "▼",
        (false, Charset::Unicode) => "▲",
        (true, Charset::Ascii) => "v",
        (false, Charset::Ascii) => "^",
    };
    let mut x = inner.x;
    for (col, spec, width) in &columns {
        let sorted = *col == part.query.sort.column;
        let text = match spec.align {
            _ if !sorted => spec.title.to_owned(),
            Align::Right => format!("{mark}{}", spec.title),
            Align::Left | Align::Path => format!("{}{mark}", spec.title),
        };
        let cell = columns::cell(&text, spec.align, *width, false, state.charset);
        let available = (*width).min(usize::from(area.right().saturating_sub(x)));
        let role = if sorted { Role::Accent } else { Role::Head };
        put(painter, x, area.y, &cell, available, role);
        x = x.saturating_add(*width as u16 + 1);
    }
    if part.rows.rows.is_empty() && area.height > 1 {
        painter.put(
            inner.x,
            area.y + 1,
            empty_text(part.query.view, state),
            inner.width,
            Role::Faint,
        );
    }
    let rows = part.rows.rows.iter().enumerate().skip(part.from);
    for (y, (index, row)) in (area.y + 1..area.bottom()).zip(rows) {
        let mut x = inner.x;
        for (col, spec, width) in &columns {
            let cell = cells::cell(snapshot, &part.rows.groups, row, *col, &cell_format);
            let text = match col {
                Col::Tree => {
                    cells::tree_cell(snapshot, &part.rows.groups, row, &cell_format, *width)
                }
                _ => columns::cell(&cell.text, spec.align, *width, false, state.charset),
            };
            let available = (*width).min(usize::from(area.right().saturating_sub(x)));
            put(painter, x, y, &text, available, cell.role);
            x = x.saturating_add(*width as u16 + 1);
        }
        if part.selected == Some(index) {
            painter.put(area.x, y, ">", 1, Role::Plain);
            painter.tint(Rect { y, height: 1, ..area }, Role::Selected);
        }
    }
    if part.query.view == View::Victims {
        // An empty table shows one line of text.
        let rows = part.rows.rows.len().saturating_sub(part.from).max(1);
        let below =
            inner.y.saturating_add(u16::try_from(rows).unwrap_or(u16::MAX)).saturating_add(2);
        let residents = snapshot
            .residents
            .iter()
            .filter(|row| part.query.covers(&row.volume))
            .filter(|row| !row.databases.is_empty());
        for (y, row) in (below..area.bottom()).zip(residents) {
            let text = format::resident(row, state.units, state.charset);
            painter.put(inner.x, y, &text, inner.width, Role::Warning);
        }
    }
}

fn put(painter: &mut Painter<'_>, x: u16, y: u16, text: &str, width: usize, role: Role) {
    painter.put(x, y, text, u16::try_from(width).unwrap_or(u16::MAX), role);
}

/// The text shown in an empty table.
fn empty_text(view: View, state: &UiState) -> &'static str {
    if !state.filter.is_empty() {
        return "no rows match the filter (Esc clears it)";
    }
    match view {
        View::Writers | View::Groups => "no writes in this window",
        View::Dirs => "no directory changed in this window",
        View::Files => "no file was written in this window",
        View::Held => "no deleted files are held open here",
        View::Victims => "no victims on this volume",
    }
}
