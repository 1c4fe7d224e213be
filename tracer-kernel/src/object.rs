//! The eBPF object with the tracing programs, embedded into the binary.

/// The eBPF object, as compiled by `cargo xtask build`.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FILLTOP_EBPF_OBJECT_PATH"));
