//! Files without a name that the daemon asked for.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tracer_common::records::UNLINKED_MAX;
use tracer_common::{UnlinkedRecord, UnlinkedSearch};

use super::flags::BPF_F_MMAPABLE;

/// The result of one search, 256 KiB. A volume with more such files is reported as not completely
/// searched. Mapped by the daemon, as [`SPILL_ACTIVE`](super::slots::SPILL_ACTIVE) is.
#[map]
pub static UNLINKED: Array<UnlinkedRecord> = Array::with_max_entries(UNLINKED_MAX, BPF_F_MMAPABLE);

/// The state of the search; one entry. Only one search runs at a time.
#[map]
pub static UNLINKED_SEARCH: Array<UnlinkedSearch> = Array::with_max_entries(1, BPF_F_MMAPABLE);
