//! The menu of actions on a process or group, and the confirmation.

use ratatui::layout::Rect;
use tracer_model::action::request::{ActionRequest, Operation, Target};
use tracer_model::sanitize::{display_for, truncate};

use super::{Line, Painter, draw_page, label_value};
use crate::output::theme::Role;
use crate::tui::action_menu;
use crate::tui::state::UiState;

/// Paints the menu.
pub fn draw(
    painter: &mut Painter<'_>,
    area: Rect,
    target: &Target,
    chosen: Operation,
    state: &UiState,
) {
    // Two rows of a long command identify the process; more could push the menu off the screen.
    let available = usize::from(area.width) * 2;
    let mut lines: Vec<Line> = action_menu::identity(target, state.charset)
        .into_iter()
        .map(|(label, text)| {
            Line::plain(truncate(&label_value(label, &text), available, state.charset).into_owned())
        })
        .collect();
    // On a low terminal, keep the menu: the title already names the target.
    if usize::from(area.height) < lines.len() + action_menu::ENTRIES.len() + 4 {
        lines.truncate(1);
    } else {
        lines.push(Line::plain(""));
    }
    for entry in action_menu::ENTRIES {
        let mark = if entry == chosen { ">" } else { " " };
        let (text, role) = match target.refusal(entry) {
            Some(reason) => (format!("refused: {reason}"), Role::Faint),
            None => (action_menu::effect(target, entry, state.units), Role::Plain),
        };
        let role = if entry == chosen { Role::Selected } else { role };
        lines.push(Line::new(format!("{mark} {:<9} {text}", entry.name()), role));
    }
    if target.refusal(chosen).is_none() {
        let command = display_for(&target.command(chosen), state.charset).into_owned();
        lines.push(Line::plain(""));
        lines.push(Line::new(label_value("command", &command), Role::Accent));
    }
    draw_page(painter, area, &title("Actions for", target, state), &lines, 0);
}

/// Paints the confirmation.
pub fn confirm(painter: &mut Painter<'_>, area: Rect, request: &ActionRequest, state: &UiState) {
    let ActionRequest { target, operation } = request;
    let command = display_for(&target.command(*operation), state.charset).into_owned();
    let mut lines: Vec<Line> =
        vec![Line::new(label_value("action", operation.name()), Role::Critical)];
    lines.extend(
        action_menu::identity(target, state.charset)
            .into_iter()
            .map(|(label, text)| Line::plain(label_value(label, &text))),
    );
    lines.push(Line::plain(label_value(
        "effect",
        &action_menu::effect(target, *operation, state.units),
    )));
    lines.push(Line::plain(""));
    if state.can_act {
        lines.push(Line::new("Press y to confirm, Esc to cancel.", Role::Head));
    } else {
        lines.push(Line::plain("This screen cannot act. Run this in another terminal:"));
        lines.push(Line::new(command, Role::Head));
    }
    draw_page(painter, area, &title("Confirm action on", target, state), &lines, 0);
}

fn title(what: &str, target: &Target, state: &UiState) -> String {
    let name = display_for(&target.comm, state.charset);
    match target.pid {
        Some(pid) => format!("{what} {name} ({pid})"),
        None => format!("{what} {name}"),
    }
}
