//! The filltop daemon, its commands and its outputs. Data flows one way: probes → collect →
//! attribute → pipeline → snapshot → outputs and screen.

pub(crate) mod actions;
pub mod alerting;
pub mod attribute;
pub mod cli;
pub mod config;
pub mod measure;
pub mod output;
pub mod recording;
pub mod service;
pub mod tui;
