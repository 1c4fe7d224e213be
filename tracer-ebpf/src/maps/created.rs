//! Created files.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use tracer_common::{ProcFileKey, SelfStat};

use super::flags::BPF_NOEXIST;
use super::health::self_stat_add;
use super::slots::first_is_active;
use crate::atomic::atomic_add;

/// Files created since the last drain, by process and *directory* (which takes the file's place in
/// the key). One map of a pair, as with the spill maps.
#[map]
pub static CREATED_A: HashMap<ProcFileKey, u64> = HashMap::with_max_entries(16_384, 0);

/// See [`CREATED_A`].
#[map]
pub static CREATED_B: HashMap<ProcFileKey, u64> = HashMap::with_max_entries(16_384, 0);

/// The device on which each thread last requested an inode. The device of a failed mkdir or open,
/// which the return of the system call does not give. Keyed by pid_tgid.
#[map]
pub static LAST_CREATE_DEV: LruHashMap<u64, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Counts a file that was created in a directory. Returns whether it is the first one of its key
/// since the last drain.
#[inline(always)]
pub fn count_created(key: &ProcFileKey) -> bool {
    let first = first_is_active();
    self_stat_add(if first { SelfStat::UsedCreatedA } else { SelfStat::UsedCreatedB }, 1);
    let map = if first { &CREATED_A } else { &CREATED_B };
    if let Some(count) = map.get_ptr_mut(key) {
        atomic_add(count, 1);
        return false;
    }
    let _ = map.insert(key, 0, BPF_NOEXIST);
    match map.get_ptr_mut(key) {
        Some(count) => atomic_add(count, 1),
        None => self_stat_add(SelfStat::OtherWaits, 1),
    }
    true
}
