//! What the screen remembers between two key presses.

use tracer_model::sanitize::Charset;
use tracer_model::units::Units;

use super::theme::Theme;

/// Everything that [`draw`](super::draw) needs beside the Snapshot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UiState {
    /// IEC or SI.
    pub units: Units,
    /// Colours.
    pub theme: Theme,
    /// What the terminal can show.
    pub charset: Charset,
    /// First row of the table that is shown.
    pub scroll: usize,
}

/// What is to be done outside the screen after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// End the program.
    Quit,
    /// Stop, as the shell's job control has it.
    Suspend,
    /// Send the whole screen again.
    Redraw,
}

/// In the order in which they are to be done.
pub type Effects = Vec<Effect>;
