//! From the kernel side's counts to a Snapshot.

mod attribution;
mod build;
pub mod colocated;
mod context;
pub mod deleted_files;
mod directories;
mod forecast_feed;
mod groups;
mod interval;
pub(crate) mod measuring_loop;
mod open_file_scan;
pub mod pipeline;
mod recent_changes;
mod rows;
mod sources;
mod space_sampler;
mod sums;
mod victims;
mod volume_tracker;
mod waits;
