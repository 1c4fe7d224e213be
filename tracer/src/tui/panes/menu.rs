//! The menu of actions on a process or group, and the confirmation.

use ratatui::layout::Rect;
use tracer_model::sanitize::{display_for, truncate};

use super::{Ink, Line, fact, page};
use crate::tui::action::{ActionRequest, How, Target};
use crate::tui::state::UiState;
use crate::tui::theme::Tone;

/// Paints the menu.
pub fn draw(ink: &mut Ink<'_>, area: Rect, target: &Target, chosen: How, state: &UiState) {
    // Two rows of a long command identify the process; more could push the menu off the screen.
    let room = usize::from(area.width) * 2;
    let mut lines: Vec<Line> = target
        .facts(state.charset)
        .into_iter()
        .map(|(label, text)| {
            Line::plain(truncate(&fact(label, &text), room, state.charset).into_owned())
        })
        .collect();
    // On a low terminal, keep the menu: the title already names the target.
    if usize::from(area.height) < lines.len() + How::ALL.len() + 4 {
        lines.truncate(1);
    } else {
        lines.push(Line::plain(""));
    }
    for how in How::ALL {
        let mark = if how == chosen { ">" } else { " " };
        let (text, tone) = match target.refusal(how) {
            Some(reason) => (format!("refused: {reason}"), Tone::Faint),
            None => (target.gain(how, state.units), Tone::Plain),
        };
        let tone = if how == chosen { Tone::Selected } else { tone };
        lines.push(Line::new(format!("{mark} {:<9} {text}", how.name()), tone));
    }
    if target.refusal(chosen).is_none() {
        let command = display_for(&target.command(chosen), state.charset).into_owned();
        lines.push(Line::plain(""));
        lines.push(Line::new(fact("command", &command), Tone::Accent));
    }
    page(ink, area, &title("Actions for", target, state), &lines, 0);
}

/// Paints the confirmation.
pub fn confirm(ink: &mut Ink<'_>, area: Rect, request: &ActionRequest, state: &UiState) {
    let ActionRequest { target, how } = request;
    let command = display_for(&target.command(*how), state.charset).into_owned();
    let mut lines: Vec<Line> = vec![Line::new(fact("action", how.name()), Tone::Critical)];
    lines.extend(
        target
            .facts(state.charset)
            .into_iter()
            .map(|(label, text)| Line::plain(fact(label, &text))),
    );
    lines.push(Line::plain(fact("effect", &target.gain(*how, state.units))));
    lines.push(Line::plain(""));
    if state.can_act {
        lines.push(Line::new("Press y to confirm, Esc to cancel.", Tone::Head));
    } else {
        lines.push(Line::plain("This screen cannot act. Run this in another terminal:"));
        lines.push(Line::new(command, Tone::Head));
    }
    page(ink, area, &title("Confirm action on", target, state), &lines, 0);
}

fn title(what: &str, target: &Target, state: &UiState) -> String {
    let name = display_for(&target.comm, state.charset);
    match target.pid {
        Some(pid) => format!("{what} {name} ({pid})"),
        None => format!("{what} {name}"),
    }
}
