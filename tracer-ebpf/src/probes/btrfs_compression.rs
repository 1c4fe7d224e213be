//! What btrfs's compression saves, where no hook reports its space: read from an event of btrfs.
//! Its record needs none of the module's types, which 5.10 does not provide.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use tracer_common::BtrfsFile;

use crate::kernel_read::{KernelPtr, ProbeRead, Read as _};
use crate::maps::btrfs::{ORDERED_EVENT, count_saved};

/// `btrfs:btrfs_ordered_extent_remove`: delayed allocation has become an extent, possibly a
/// compressed one.
#[tracepoint]
fn event_ordered_removed(ctx: TracePointContext) -> u32 {
    let Some(format) = ORDERED_EVENT.get(0) else { return 0 };
    let record = KernelPtr(ctx.as_ptr().cast());
    // The verifier requires a bound; records are shorter than this one.
    let field = |offset: u32| ProbeRead::read::<u64>(record, offset & 0xff);
    let saved = field(format.len).saturating_sub(field(format.disk_len));
    if saved == 0 {
        return 0;
    }
    let file = BtrfsFile {
        fsid: [field(format.fsid), field(format.fsid.wrapping_add(8))],
        root: field(format.root),
        ino: field(format.ino),
    };
    count_saved(&file, saved);
    0
}
