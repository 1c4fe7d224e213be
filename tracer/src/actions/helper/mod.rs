//! The privileged helper of a long-running filltop: the screen and the guard drop their privileges
//! once everything is attached, so a separate process, started before, acts for them.
//!
//! The helper owns what it suspends through a socket, and its parent owns the helper: if either exits,
//! every target is resumed immediately.

pub(crate) mod client;
pub(crate) mod process;
pub(crate) mod protocol;
