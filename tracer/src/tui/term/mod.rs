//! The terminal itself: what is sent to it, and how it is given back.

mod ansi;
mod halves;
mod pipe;
mod tty;

pub use ansi::Ansi;
pub use halves::blank_halves;
pub use pipe::Pipe;
pub use tty::Tty;
