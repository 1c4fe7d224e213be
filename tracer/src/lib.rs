//! The filltop daemon, its commands and its outputs. Data flows one way: probes → collect →
//! attribute → pipeline → snapshot → outputs and screen.

mod actions;
mod alerting;
pub mod attribute;
pub mod cli;
mod config;
pub mod measure;
pub mod output;
pub(crate) mod recording;
pub mod service;
mod signals;
pub mod tui;
