//! What leaves the program: pure functions from a [`Snapshot`](tracer_model::snapshot::Snapshot).

pub mod columns;
pub mod format;
pub mod json;
pub mod openmetrics;
pub mod terminal;
pub mod text;
pub mod theme;
