//! Stores through a mapping, where the function that makes a mapped page dirty is not hooked.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use tracer_common::Offsets;

use super::shared;
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read as _, any_dentry, config, current_task, offset,
};

/// `writeback_dirty_folio(struct folio *folio, struct address_space *mapping)`, before 5.18
/// `writeback_dirty_page(struct page *page, struct address_space *mapping)`: the folio has become
/// dirty. Usually that is part of a write; if the process is in a page fault, it is a store to the
/// mapping.
#[raw_tracepoint(tracepoint = "writeback_dirty_folio")]
fn tp_writeback_dirty_folio(ctx: RawTracePointContext) -> i32 {
    let bits: u32 = ProbeRead::read(current_task(), config!(fault_bits_at) as u32);
    if u64::from(bits) & config!(fault_bits) == 0 {
        return 0;
    }
    let inode = ProbeRead::follow(KernelPtr(ctx.arg::<*const u8>(1)), offset!(mapping_host));
    shared::pages_dirtied(inode, any_dentry(inode), pages(KernelPtr(ctx.arg::<*const u8>(0))));
    0
}

/// Returns the number of pages in the folio, all of which are written back. If there are several,
/// the second `struct page` has the number. That this one is a tail page is shown by the lowest bit
/// of the word after its flags.
#[inline(always)]
fn pages(folio: KernelPtr) -> u32 {
    let newer = offset!(folio_nr_pages);
    let count = if newer == Offsets::ABSENT { offset!(folio_nr_pages_v6_13) } else { newer };
    if count == Offsets::ABSENT {
        return 1;
    }
    let tail: u64 = ProbeRead::read(folio, offset!(folio_second_flags).wrapping_add(8));
    if tail & 1 == 0 { 1 } else { ProbeRead::read::<u32>(folio, count).max(1) }
}
