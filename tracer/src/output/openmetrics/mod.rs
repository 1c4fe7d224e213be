//! Metrics in the formats of Prometheus; docs/metrics.md lists them.
//!
//! A scrape is a pure function of the newest Snapshot and of the sums over all Snapshots. The number
//! of series is bounded: volumes, the groups that write most, and declared directories, but never
//! paths or pids.

mod auth;
mod exposition;
mod families;
mod http;
mod metrics;
#[cfg(test)]
mod tests;
mod totals;

pub(crate) use self::auth::Auth;
pub use self::exposition::Format;
pub use self::families::ProcessStats;
pub(crate) use self::http::{Endpoint, bind, serve};
pub use self::metrics::Metrics;
pub(crate) use self::totals::MAX_DIRECTORIES;
pub use self::totals::Totals;
