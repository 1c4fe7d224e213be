//! The terminal itself: what is sent to it, and how it is given back.

mod ansi;
mod pipe;
mod tty;
mod wide_chars;

pub use ansi::Ansi;
pub use pipe::Pipe;
pub use tty::Tty;
pub use wide_chars::blank_halves;
