//! The tabs: names of the tables with their keys, and the active volume and filter.

use ratatui::layout::Rect;
use tracer_model::sanitize;
use tracer_model::sanitize::display_for;

use super::Painter;
use crate::output::theme::Role;
use crate::tui::query::{View, VolumeChoice};
use crate::tui::rows::Rows;
use crate::tui::state::UiState;

/// From this width on, all tables have their names; below it, only the current one.
const NAMES_FROM: u16 = 64;

/// The label of a tab: `1 writers 12`.
fn label(state: &UiState, rows: &Rows, view: View) -> String {
    let key = view.index() + 1;
    let count = rows.counts[view.index()];
    if state.size.width < NAMES_FROM && view != state.view {
        return key.to_string();
    }
    match count {
        0 => format!("{key} {}", view.name()),
        _ => format!("{key} {} {count}", view.name()),
    }
}

/// The columns of each tab: first, and one past the last.
#[must_use]
pub fn ranges(state: &UiState) -> Vec<(View, u16, u16)> {
    let mut x = 0;
    View::ALL
        .into_iter()
        .map(|view| {
            let from = x;
            x += sanitize::width(&label(state, &state.rows, view)) as u16 + 2;
            (view, from, x)
        })
        .collect()
}

/// Paints the tabs.
pub fn draw(painter: &mut Painter<'_>, area: Rect, rows: &Rows, state: &UiState) {
    let mut x = area.x;
    for view in View::ALL {
        let role = if view == state.view { Role::Selected } else { Role::Plain };
        let text = format!(" {} ", label(state, rows, view));
        x += painter.put(x, area.y, &text, area.right().saturating_sub(x), role);
    }
    let volume = match &state.volume {
        VolumeChoice::All => "all volumes".to_owned(),
        _ => display_for(&state.focus, state.charset).into_owned(),
    };
    let available = usize::from(area.right().saturating_sub(x)).saturating_sub(1);
    let note = if state.filter.is_empty() || state.typing {
        volume
    } else {
        let filter = format!("/{}/", display_for(state.filter.text(), state.charset));
        let found = format!("{filter} {} found", rows.rows.len());
        // As much as fits. The filter comes before the volume: it explains why rows are missing.
        [format!("{volume}  {found}"), found]
            .into_iter()
            .find(|note| sanitize::width(note) <= available)
            .unwrap_or(filter)
    };
    let note = sanitize::fit(&note, available, state.charset);
    let start = area.right() - sanitize::width(&note) as u16;
    let role = if state.filter.is_empty() { Role::Faint } else { Role::Warning };
    painter.put(start, area.y, &note, area.right() - start, role);
}
