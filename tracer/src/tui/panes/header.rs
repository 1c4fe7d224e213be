//! The first line: host, time, losses and backend.

use ratatui::layout::Rect;
use tracer_model::sanitize::display_for;
use tracer_model::snapshot::Snapshot;
use tracer_model::{sanitize, units};

use super::Painter;
use crate::output::format::{blind_short, least_explained};
use crate::output::theme::Role;
use crate::tui::query::Window;
use crate::tui::state::UiState;

/// Paints the header.
pub fn draw(painter: &mut Painter<'_>, area: Rect, snapshot: &Snapshot, state: &UiState) {
    let mut x = area.x;
    for (i, (text, role)) in facts(snapshot, state).into_iter().enumerate() {
        let gap = if i == 0 { "" } else { " · " };
        let width = (sanitize::width(gap) + sanitize::width(&text)) as u16;
        // A fact that does not fit is left out entirely; the first one is truncated.
        if i > 0 && x + width > area.right() {
            continue;
        }
        x += painter.put(x, area.y, gap, area.right() - x, Role::Faint);
        x += painter.put(x, area.y, &text, area.right() - x, role);
    }
}

/// The facts by priority: without the first ones, the others could be misread.
fn facts(snapshot: &Snapshot, state: &UiState) -> Vec<(String, Role)> {
    let backend = &snapshot.backend;
    let host = display_for(&snapshot.host, state.charset);
    let mut facts = vec![(format!("filltop {host}"), Role::Head)];
    let time = snapshot.taken_at.strftime("%H:%M:%SZ");
    match state.position.at {
        Some(_) => {
            let behind = units::duration(state.position.behind_s);
            let what = if state.position.behind_s > 0.0 { "PAST" } else { "PAUSED" };
            facts.push((format!("{what} {time}, {behind} ago"), Role::Warning));
        }
        None if state.position.replay => facts.push((format!("REPLAY {time}"), Role::Warning)),
        None => facts.push((time.to_string(), Role::Plain)),
    }
    if let Some(volume) = snapshot.volumes.iter().find(|volume| volume.blind.is_some()) {
        let name = display_for(&volume.mount_point, state.charset);
        facts.push((format!("{name}: {}", blind_short(volume)), Role::Critical));
    }
    let over = match state.window {
        Window::Last => format!("{:.1} s", snapshot.interval_s),
        Window::Start => format!("since start, {}", units::duration(snapshot.interval_s)),
        _ => format!("over {}", units::duration(snapshot.interval_s)),
    };
    facts.push((over, Role::Plain));
    let lost = backend.lost_events;
    let role = if lost > 0 { Role::Critical } else { Role::Plain };
    facts.push((format!("lost {lost}"), role));
    if backend.unattributed_bytes > 0 {
        let bytes = state.units.bytes(backend.unattributed_bytes);
        facts.push((format!("unattributed {bytes}"), Role::Warning));
    }
    let explained = least_explained(snapshot);
    let role = match explained {
        Some(ratio) if ratio < 0.9 => Role::Warning,
        _ => Role::Plain,
    };
    facts.push((format!("explained {}", units::percent_or_unknown(explained)), role));
    facts.push((backend.write.name().to_owned(), Role::Plain));
    if let Some(cpu) = backend.own_cpu {
        facts.push((format!("own CPU {:.1}%", cpu * 100.0), Role::Plain));
    }
    if let Some(ns) = backend.overhead_ns_per_write {
        facts.push((format!("{ns:.0} ns/write"), Role::Plain));
    }
    if state.position.span_s > 0.0 {
        let span = units::duration(state.position.span_s);
        let bytes = state.units.bytes(state.position.bytes as u64);
        facts.push((format!("history {span}, {bytes}"), Role::Faint));
    }
    facts.push((format!("Linux {}", display_for(&backend.kernel, state.charset)), Role::Faint));
    facts
}
