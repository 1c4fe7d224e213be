//! Flags of maps and of their updates (linux/bpf.h).

use aya_ebpf::bindings;

/// The map's memory can be mapped by the daemon.
pub const BPF_F_MMAPABLE: u32 = bindings::BPF_F_MMAPABLE;

/// Insert only if the key is not there. Used where another CPU may insert the same key first: its
/// entry is kept, and is as good.
pub const BPF_NOEXIST: u64 = bindings::BPF_NOEXIST as u64;
