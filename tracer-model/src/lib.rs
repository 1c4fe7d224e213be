//! The pure core of filltop: no clock, no files, no async.
//!
//! All functions are deterministic in their arguments, so recorded data can be replayed through
//! them; the tests do so.

pub mod action;
pub mod alert;
pub mod forecast;
pub mod guard;
pub mod sanitize;
pub mod snapshot;
pub mod tree;
pub mod units;
