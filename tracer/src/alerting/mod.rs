//! `filltop watch`: Snapshots → rules → sinks, until stopped.

mod dir_sizes;
mod evaluation;
mod guard_events;
mod options;
pub(crate) mod replay;
mod run;
pub(crate) mod sinks;
mod watch;

pub(crate) use dir_sizes::DirectorySizes;
pub(crate) use evaluation::{eval_time, ignore_volumes};
pub(crate) use options::WatchOptions;
pub(crate) use run::run;
