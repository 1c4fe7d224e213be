//! Options of a watch, beyond its configuration.

use std::path::PathBuf;
use std::time::Duration;

use tracer_kernel::TracerOptions;

use crate::service::ServeOptions;

/// Options of a watch, beyond its configuration.
#[derive(Debug, Clone)]
pub(crate) struct WatchOptions {
    /// The configuration file, read again on SIGHUP; `None`: the built-in rules.
    pub(crate) config: Option<PathBuf>,
    /// Print events as JSON, one object per line.
    pub(crate) json: bool,
    /// Time between two Snapshots; `None`: as configured.
    pub(crate) interval: Option<Duration>,
    /// What is served, and where.
    pub(crate) serve: ServeOptions,
    /// How to trace.
    pub(crate) tracer: TracerOptions,
}
