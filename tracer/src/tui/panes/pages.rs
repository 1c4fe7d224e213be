//! The help page and the tracer's status page.

use tracer_model::sanitize::display_for;
use tracer_model::snapshot::{HookState, Snapshot};
use tracer_model::units;

use super::{Line, label_value};
use crate::output::theme::Role;
use crate::tui::keys::BINDINGS;
use crate::tui::state::UiState;

/// Lines of the help page: every key, and a short legend.
#[must_use]
pub fn help() -> Vec<Line> {
    let mut lines: Vec<Line> = BINDINGS
        .iter()
        .map(|binding| Line::plain(label_value(binding.label, binding.description)))
        .collect();
    lines.extend([
        Line::plain(""),
        Line::plain("written: bytes actually written to a file; ~ means counted per page."),
        Line::plain("growth: space allocated minus space freed. held: deleted but still open."),
        Line::plain(
            "Bar: used, free, reserved for root. Unsafe characters are shown as \\ escapes.",
        ),
    ]);
    lines
}

/// Lines of the status page: backend, losses, overhead, history, blind spots, hooks.
#[must_use]
pub fn health(snapshot: &Snapshot, state: &UiState) -> Vec<Line> {
    let backend = &snapshot.backend;
    let safe = |text: &str| display_for(text, state.charset).into_owned();
    let unknown = || units::UNKNOWN.to_owned();
    let cost = backend.overhead_ns_per_write.map_or_else(unknown, |ns| format!("{ns:.0} ns"));
    let cpu =
        backend.own_cpu.map_or_else(unknown, |cpu| format!("{:.1}% of one core", cpu * 100.0));
    let bytes = state.units.bytes(backend.unattributed_bytes);
    let history = format!(
        "{} in {}",
        units::duration(state.position.span_s),
        state.units.bytes(state.position.bytes as u64)
    );
    let mut lines = vec![
        Line::plain(label_value("backend", backend.write.name())),
        Line::plain(label_value("kernel", &safe(&backend.kernel))),
        Line::plain(label_value("lost events", &backend.lost_events.to_string())),
        Line::plain(label_value("unattributed", &bytes)),
        Line::plain(label_value("per write", &cost)),
        Line::plain(label_value("own CPU", &cpu)),
        Line::plain(label_value("history", &history)),
    ];
    if backend.folded_files > 0 {
        let text = format!("{} without a row (least active)", backend.folded_files);
        lines.push(Line::plain(label_value("files", &text)));
    }
    for spot in &backend.blind_spots {
        lines.push(Line::new(label_value("blind spot", &safe(spot)), Role::Warning));
    }
    for hook in &backend.hooks {
        let (state, role) = match &hook.state {
            HookState::Ok => ("ok".to_owned(), Role::Plain),
            HookState::Unsupported { reason } => (format!("unsupported: {reason}"), Role::Faint),
            HookState::Broken { reason } => (format!("BROKEN: {reason}"), Role::Critical),
            HookState::NotApplicable { reason } => (format!("not needed: {reason}"), Role::Faint),
        };
        let text = format!("{} ({}): {}", safe(&hook.name), safe(hook.how.name()), safe(&state));
        lines.push(Line::new(label_value("hook", &text), role));
    }
    lines
}
