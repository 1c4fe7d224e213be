//! The help page and the tracer's status page.

use tracer_model::sanitize::display_for;
use tracer_model::snapshot::{HookState, Snapshot};
use tracer_model::units;

use super::{Line, fact};
use crate::tui::keys::BINDINGS;
use crate::tui::state::UiState;
use crate::tui::theme::Tone;

/// Lines of the help page: every key, and a short legend.
#[must_use]
pub fn help() -> Vec<Line> {
    let mut lines: Vec<Line> =
        BINDINGS.iter().map(|binding| Line::plain(fact(binding.label, binding.does))).collect();
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
        units::duration(state.past.span_s),
        state.units.bytes(state.past.bytes as u64)
    );
    let mut lines = vec![
        Line::plain(fact("backend", backend.write.name())),
        Line::plain(fact("kernel", &safe(&backend.kernel))),
        Line::plain(fact("lost events", &backend.lost_events.to_string())),
        Line::plain(fact("unattributed", &bytes)),
        Line::plain(fact("per write", &cost)),
        Line::plain(fact("own CPU", &cpu)),
        Line::plain(fact("history", &history)),
    ];
    if backend.folded_files > 0 {
        let text = format!("{} without a row (least active)", backend.folded_files);
        lines.push(Line::plain(fact("files", &text)));
    }
    for spot in &backend.blind_spots {
        lines.push(Line::new(fact("blind spot", &safe(spot)), Tone::Warning));
    }
    for hook in &backend.hooks {
        let (state, tone) = match &hook.state {
            HookState::Ok => ("ok".to_owned(), Tone::Plain),
            HookState::Unsupported { reason } => (format!("unsupported: {reason}"), Tone::Faint),
            HookState::Broken { reason } => (format!("BROKEN: {reason}"), Tone::Critical),
            HookState::NotApplicable { reason } => (format!("not needed: {reason}"), Tone::Faint),
        };
        let text = format!("{} ({}): {}", safe(&hook.name), safe(hook.how.name()), safe(&state));
        lines.push(Line::new(fact("hook", &text), tone));
    }
    lines
}
