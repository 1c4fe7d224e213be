//! What btrfs's compression saved.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use tracer_common::offsets::OrderedEvent;
use tracer_common::{BtrfsFile, SelfStat};

use super::flags::BPF_NOEXIST;
use super::health::self_stat_add;
use super::slots::first_is_active;
use crate::atomic::atomic_add;

/// Bytes that compression saved since the last drain, by file. One map of a pair, as with the spill
/// maps. 4,096 files that are written back between two drains.
#[map]
pub static SAVED_A: HashMap<BtrfsFile, u64> = HashMap::with_max_entries(4_096, 0);

/// See [`SAVED_A`].
#[map]
pub static SAVED_B: HashMap<BtrfsFile, u64> = HashMap::with_max_entries(4_096, 0);

/// The format of btrfs's event. A map and not frozen data, because the module may be loaded later.
#[map]
pub static ORDERED_EVENT: Array<OrderedEvent> = Array::with_max_entries(1, 0);

/// Adds `bytes` to what compression saved of a file.
#[inline(always)]
pub fn count_saved(file: &BtrfsFile, bytes: u64) {
    let first = first_is_active();
    self_stat_add(if first { SelfStat::UsedSavedA } else { SelfStat::UsedSavedB }, 1);
    let map = if first { &SAVED_A } else { &SAVED_B };
    if map.get_ptr_mut(file).is_none() {
        let _ = map.insert(file, 0, BPF_NOEXIST);
    }
    match map.get_ptr_mut(file) {
        Some(sum) => atomic_add(sum, bytes),
        None => self_stat_add(SelfStat::SpaceFull, 1),
    }
}
