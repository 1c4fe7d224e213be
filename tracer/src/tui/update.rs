//! What a key does: a pure function.

use super::keys::Key;
use super::state::{Effect, Effects, UiState};

/// The state after `key`, and what is to be done outside.
#[must_use]
pub fn update(mut state: UiState, key: Key) -> (UiState, Effects) {
    let mut effects = Effects::new();
    match key {
        Key::Char('q') | Key::Ctrl('c') => effects.push(Effect::Quit),
        Key::Ctrl('z') => effects.push(Effect::Suspend),
        Key::Ctrl('l') => effects.push(Effect::Redraw),
        Key::Down | Key::Char('j') => state.scroll = state.scroll.saturating_add(1),
        Key::Up | Key::Char('k') => state.scroll = state.scroll.saturating_sub(1),
        _ => {}
    }
    (state, effects)
}
