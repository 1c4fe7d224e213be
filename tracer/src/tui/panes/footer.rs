//! The last line: the keys available now, or the latest message.

use ratatui::layout::Rect;
use tracer_model::sanitize;
use tracer_model::sanitize::display_for;

use super::Painter;
use crate::output::theme::Role;
use crate::tui::query::{View, Window};
use crate::tui::state::{Overlay, UiState};

/// Paints the footer.
pub fn draw(painter: &mut Painter<'_>, area: Rect, state: &UiState) {
    if state.typing {
        prompt(painter, area, state);
        return;
    }
    if let Some(notice) = &state.notice {
        painter.put(area.x, area.y, notice, area.width, Role::Warning);
        return;
    }
    let mut x = area.x;
    for (key, does) in hints(state) {
        let width = (sanitize::width(key) + sanitize::width(&does) + 1) as u16;
        if x + width > area.right() {
            continue;
        }
        x += painter.put(x, area.y, key, area.right() - x, Role::Accent);
        x += 1;
        x += painter.put(x, area.y, &does, area.right().saturating_sub(x), Role::Plain) + 2;
    }
}

fn prompt(painter: &mut Painter<'_>, area: Rect, state: &UiState) {
    let kind = if state.filter.is_regex() { "regex" } else { "text" };
    let text = display_for(state.filter.text(), state.charset);
    let mut line = format!("filter ({kind}): {text}_");
    let mut role = Role::Head;
    if let Some(error) = state.filter.error() {
        let first = error.lines().last().unwrap_or(error);
        line = format!("{line}  {}", display_for(first, state.charset));
        role = Role::Warning;
    }
    let x = area.x + painter.put(area.x, area.y, &line, area.width, role) + 2;
    let hint = "Enter done  Esc clear  Ctrl-R regex";
    if x + hint.len() as u16 <= area.right() {
        painter.put(x, area.y, hint, area.right() - x, Role::Faint);
    }
}

/// The key hints, most useful first; those that do not fit are left out.
fn hints(state: &UiState) -> Vec<(&'static str, String)> {
    let hint = |key, does: &str| (key, does.to_owned());
    match &state.overlay {
        Overlay::Menu(..) => {
            return vec![hint("Enter", "select"), hint("↑↓", "move"), hint("Esc", "back")];
        }
        Overlay::Confirm(_) if state.can_act => {
            return vec![hint("y", "confirm"), hint("Esc", "cancel")];
        }
        Overlay::Confirm(_) => return vec![hint("Esc", "back")],
        Overlay::Help(_) | Overlay::Health(_) => {
            return vec![hint("Esc", "close"), hint("↑↓", "scroll"), hint("q", "quit")];
        }
        Overlay::Detail(_) => {
            let mut hints = vec![hint("Esc", "close"), hint("↑↓", "scroll")];
            if state.target.is_some() {
                hints.push(hint("x", "act"));
            }
            hints.extend([hint("←→", "time"), hint("q", "quit")]);
            return hints;
        }
        Overlay::None => {}
    }
    let window = match state.window {
        Window::Last => "last",
        Window::TenSeconds => "10 s",
        Window::Minute => "1 min",
        Window::Start => "start",
    };
    let mut hints = vec![hint("?", "help"), hint("q", "quit")];
    if state.position.at.is_some() {
        hints.extend([hint("Space", "live"), hint("←→", "time")]);
    }
    if !state.rows.rows.is_empty() {
        hints.push(hint("Enter", "detail"));
    }
    if state.target.is_some() {
        hints.push(hint("x", "act"));
    }
    if matches!(state.view, View::Groups | View::Dirs) {
        hints.push(hint("e", "expand"));
    }
    hints.extend([hint("/", "filter"), hint("s", "sort")]);
    hints.push(("w", format!("rate {window}")));
    if state.position.at.is_none() {
        hints.extend([hint("Space", "pause"), hint("←", "back in time")]);
    }
    hints.extend([hint("[ ]", "volume"), hint("u", "units"), hint("c", "colours")]);
    hints
}
