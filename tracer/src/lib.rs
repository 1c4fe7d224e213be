//! The daemon and its faces. A byte's way through is one-way: probes → collect → attribute →
//! pipeline → snapshot → outputs and screen.

pub mod collect;
pub mod forecast_cmd;
pub mod probes;
