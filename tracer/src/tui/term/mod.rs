//! The terminal: the bytes sent to it, and restoring it on exit.

mod ansi;
mod frame_writer;
mod tty;
mod wide_chars;

pub use ansi::Ansi;
pub use frame_writer::FrameWriter;
pub use tty::Tty;
pub use wide_chars::blank_half_covered;
