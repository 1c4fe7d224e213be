//! Definitions shared by filltop's eBPF programs and its daemon: keys, counters, records,
//! self-statistics and the kernel's field offsets. `no_std`, no allocation, `repr(C)` without
//! padding holes.
//!
//! All values are in the running host's byte order: the eBPF side is compiled for the host.

#![cfg_attr(not(feature = "user"), no_std)]

pub mod counters;
pub mod fence;
pub mod offsets;
pub mod records;
pub mod waits;

pub use counters::{
    BtrfsFile, Counters, Entries, ErrorKey, Errors, FileKey, InodeSpace, ProcFileKey, ProcKey,
    SelfStat, Slot, slot_flags,
};
pub use fence::FenceConfig;
pub use offsets::Offsets;
pub use records::{
    NameRecord, OpenFileRecord, ProcRecord, RecordHeader, RecordKind, UnlinkedRecord,
    UnlinkedSearch,
};
pub use waits::{WaitKey, WaitKind, Waits};

/// Implements `Pod` for the daemon. The eBPF side only writes these types and does not need it.
macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {$(
        #[cfg(feature = "user")]
        // SAFETY: `repr(C)`, only integers and arrays of integers, and a size check below each type
        // proves that there is no padding.
        unsafe impl bytemuck::Zeroable for $ty {}
        #[cfg(feature = "user")]
        // SAFETY: as above.
        unsafe impl bytemuck::Pod for $ty {}
    )+};
}
pub(crate) use pod;
