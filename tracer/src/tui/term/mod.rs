//! The terminal: the bytes sent to it, and restoring it on exit.

mod ansi;
mod halves;
mod pipe;
mod tty;

pub use ansi::Ansi;
pub use halves::blank_halves;
pub use pipe::Pipe;
pub use tty::Tty;
