//! Output formats: pure functions of a [`Snapshot`](tracer_model::snapshot::Snapshot).

pub(crate) mod columns;
pub(crate) mod format;
pub(crate) mod json;
pub mod openmetrics;
pub(crate) mod terminal;
pub(crate) mod text;
pub(crate) mod theme;
