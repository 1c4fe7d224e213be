//! The terminal: the bytes sent to it, and restoring it on exit.

mod ansi;
mod pipe;
mod tty;
mod wide_chars;

pub use ansi::Ansi;
pub use pipe::Pipe;
pub use tty::Tty;
pub use wide_chars::blank_halves;
