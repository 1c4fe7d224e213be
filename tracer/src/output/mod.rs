//! Output formats: pure functions of a [`Snapshot`](tracer_model::snapshot::Snapshot).

pub mod columns;
pub mod format;
pub mod json;
pub mod openmetrics;
pub mod terminal;
pub mod text;
pub mod theme;
