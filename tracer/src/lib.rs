//! x
#[cfg(test)]
mod fixtures;
pub mod outputs;
pub mod tui;
