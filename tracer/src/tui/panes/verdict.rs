//! The verdict on the focused volume: what runs out, who takes it, and the next step.

use ratatui::layout::Rect;
use tracer_model::sanitize::display_for;
use tracer_model::snapshot::{Snapshot, State, Verdict};

use super::Painter;
use super::volumes::urgency_role;
use crate::output::theme::Role;
use crate::tui::state::UiState;

/// Paints one line, and the next step in a second one if there is room.
pub fn draw(painter: &mut Painter<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    let Some(volume) = snapshot.volumes.iter().find(|row| row.mount_point == state.focus) else {
        return;
    };
    let name = display_for(volume.shown_as(), state.charset);
    // Recordings of older versions have no verdict.
    let Some(verdict) = &volume.verdict else { return };
    let role = match verdict.state {
        State::Full => Role::Critical,
        _ => urgency_role(volume),
    };
    // Its own texts are escaped already.
    let text = format!("{name}: {}", verdict.summary);
    painter.put(area.x, area.y, &text, area.width, role);
    if area.height > 1 {
        painter.put(area.x, area.y + 1, &next(verdict), area.width, Role::Plain);
    }
}

/// The next step, or why there is none; empty if none is needed.
fn next(verdict: &Verdict) -> String {
    match (&verdict.suggestion, &verdict.why_no_suggestion) {
        (Some(next), _) => format!("next step: {}", next.command),
        (None, Some(why)) => format!("no next step: {why}"),
        (None, None) => String::new(),
    }
}
