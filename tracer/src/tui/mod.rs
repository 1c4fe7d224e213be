//! The live screen. [`draw`](draw()) and [`update`](update()) are pure; only [`run`](run()) touches
//! a terminal.
//!
//! A key goes through [`update`](update()), a Snapshot through [`UiState::reconcile`]. [`App`] adds
//! the history kept in memory, and [`run`](run()) adds the terminal.

mod action_menu;
mod app;
mod draw;
pub mod keys;
mod layout;
mod panes;
mod query;
mod reconcile;
mod rows;
mod run;
mod state;
mod svg;
pub mod term;
#[cfg(test)]
mod tests;
mod update;
mod views;

pub use self::app::App;
pub use self::draw::draw;
pub use self::run::{Options, run, run_attached, run_replay};
pub use self::state::UiState;
pub use self::svg::render_svg;
pub use self::update::update;
