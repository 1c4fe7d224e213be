//! The pure core of filltop: no clock, no files, no async.
//!
//! Functions take values and return values, so everything here can be replayed, and is tested that
//! way.

pub mod action;
pub mod alert;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod forecast;
pub mod guard;
pub mod history;
pub mod log_lines;
pub mod remedy;
pub mod sanitize;
pub mod snapshot;
pub mod tree;
pub mod units;
pub mod verdict;
