//! The filltop daemon, its commands and its outputs. Data flows one way: probes → collect →
//! attribute → pipeline → snapshot → outputs and screen.

pub mod actions;
pub mod attribute;
mod check_cmd;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod doctor;
#[cfg(test)]
mod fixtures;
pub mod forecast_cmd;
pub mod forecasts;
pub mod held;
pub mod history;
pub mod host;
pub mod open_files;
pub mod outputs;
pub mod overhead;
pub mod pipeline;
pub mod probes;
mod quietly;
pub mod recent;
pub mod record_cmd;
pub mod residents;
pub mod rollup;
mod sampled;
pub mod service;
pub mod sinks;
pub mod snapshot;
mod snapshot_cmd;
pub mod stop_cmd;
pub mod top_cmd;
pub mod tui;
pub mod watch;
pub mod window;
mod zone;
