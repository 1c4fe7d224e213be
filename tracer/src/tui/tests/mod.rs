//! Tests of the whole screen: golden frames, every key, and invariants.

mod frames;
mod history;
mod keys;
mod properties;
mod pty;
mod volume_contents;

use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Size;
use tracer_model::snapshot::Snapshot;

use super::app::App;
use super::draw;
use super::keys::Key;
use super::state::UiState;
use tracer_model::history::retention::Limits;

/// A state reconciled with `snapshot` at this size.
fn reconciled(snapshot: &Snapshot, width: u16, height: u16) -> UiState {
    UiState { size: Size::new(width, height), ..UiState::default() }.reconcile(snapshot)
}

fn paint(snapshot: &Snapshot, state: &UiState) -> Buffer {
    let mut terminal =
        Terminal::new(TestBackend::new(state.size.width, state.size.height)).unwrap();
    terminal.draw(|frame| draw(snapshot, state, frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// An app with one busy Snapshot on 80 × 24.
fn app() -> App {
    let mut app = App::new(UiState::default(), Limits::default());
    app.add_snapshot(Arc::new(tracer_model::fixtures::busy()));
    app
}

fn screen(app: &App) -> Buffer {
    app.frame()
}

fn press(app: &mut App, keys: &str) {
    for c in keys.chars() {
        app.press(Key::Char(c));
    }
}

/// The text of a frame, without trailing blanks.
fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut x = buffer.area.left();
        while x < buffer.area.right() {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += tracer_model::sanitize::width(symbol).max(1) as u16;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The text, followed by every run of cells with a style: `line: from-to style`.
fn golden(buffer: &Buffer) -> String {
    // The memory of the history depends on the sizes of structs, not on what is drawn.
    let memory = regex_lite::Regex::new(r"(history +30 s(?:,| in)) [0-9.]+ KiB").unwrap();
    let mut out = memory.replace_all(&text(buffer), "$1 ... KiB").into_owned();
    out.push_str("---\n");
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut runs: Vec<(u16, u16, String)> = vec![];
        for x in buffer.area.left()..buffer.area.right() {
            let cell = &buffer[(x, y)];
            let mut look = vec![];
            if cell.fg != ratatui::style::Color::Reset {
                look.push(format!("{:?}", cell.fg));
            }
            if cell.bg != ratatui::style::Color::Reset {
                look.push(format!("on {:?}", cell.bg));
            }
            if !cell.modifier.is_empty() {
                look.push(format!("{:?}", cell.modifier));
            }
            let look = look.join(" ");
            match runs.last_mut() {
                Some((_, to, last)) if *last == look && *to == x => *to = x + 1,
                _ => runs.push((x, x + 1, look)),
            }
        }
        for (from, to, look) in runs.into_iter().filter(|(_, _, look)| !look.is_empty()) {
            out.push_str(&format!("{y}: {from}-{to} {look}\n"));
        }
    }
    out
}
