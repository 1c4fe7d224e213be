//! From the kernel side's counts to a Snapshot.

pub mod build;
pub mod colocated;
pub mod deleted_files;
pub mod forecast_feed;
pub mod interval;
pub mod pipeline;
pub mod recent;
pub mod rollup;
mod rows;
mod space_sampler;
