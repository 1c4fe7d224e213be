//! Options of [`Tracer::start`](crate::Tracer::start).

use tracer_model::snapshot::WriteBackend;

/// Options chosen by the user.
#[derive(Debug, Clone, Default)]
pub struct TracerOptions {
    /// Use only this backend.
    pub backend: Option<WriteBackend>,
    /// Extra functions to hook, by name: `vfs_write`.
    pub hooks: Vec<String>,
    /// Enable logging in the eBPF programs.
    pub kernel_log: bool,
    /// Whether filltop runs in a container: advice on missing privileges is then for a container.
    pub in_container: bool,
}
