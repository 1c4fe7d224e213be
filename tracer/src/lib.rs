//! The program filltop: its commands and its outputs. Data flows one way: probes (`tracer_kernel`) and
//! readers of the host (`tracer_host`) → attribute → measure → Snapshot → outputs and screen.

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
