//! The live screen: `draw` and `update` are pure, `run` is the only place with a clock or a terminal.

pub mod keys;
pub mod run;
pub mod state;
pub mod term;
pub mod theme;
mod update;

use ratatui::Frame;
use tracer_model::snapshot::Snapshot;

pub use self::run::{Options, run};
pub use self::state::{Effect, Effects, UiState};
pub use self::update::update;
use crate::outputs::text::{self, TextOptions};

/// Paints one frame: a pure function of its arguments.
pub fn draw(snapshot: &Snapshot, state: &UiState, frame: &mut Frame<'_>) {
    let area = frame.area();
    let options = TextOptions {
        width: usize::from(area.width),
        units: state.units,
        top: usize::from(area.height),
        color: false,
        charset: state.charset,
    };
    let page = text::snapshot(snapshot, &options);
    let style = state.theme.style(theme::Tone::Plain);
    let buffer = frame.buffer_mut();
    for (y, line) in page.lines().skip(state.scroll).take(usize::from(area.height)).enumerate() {
        buffer.set_stringn(area.x, area.y + y as u16, line, usize::from(area.width), style);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::keys::Key;
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_first_screen_shows_volumes_and_writers() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let state = UiState::default();
        terminal.draw(|frame| draw(&fixtures::busy(), &state, frame)).unwrap();
        let screen = terminal.backend().to_string();
        assert!(screen.contains("4 min (3–6)"), "{screen}");
        assert!(screen.contains("minio"), "{screen}");
    }

    #[test]
    fn q_quits() {
        assert_eq!(update(UiState::default(), Key::Char('q')).1, [Effect::Quit]);
    }
}
