//! Inodes that were created or removed.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use tracer_common::{Entries, FileKey, ProcFileKey, SelfStat};

use super::flags::BPF_NOEXIST;
use super::health::self_stat_add;
use super::slots::first_is_active;
use crate::atomic::atomic_add;

/// Inodes created and removed since the last drain, by process and *directory* (which takes the
/// file's place in the key). One map of a pair, as with the spill maps.
#[map]
pub static CREATED_A: HashMap<ProcFileKey, Entries> = HashMap::with_max_entries(16_384, 0);

/// See [`CREATED_A`].
#[map]
pub static CREATED_B: HashMap<ProcFileKey, Entries> = HashMap::with_max_entries(16_384, 0);

/// The device on which each thread last began to create an inode, on filesystems whose own function
/// is not hooked. The device of an open that fails, which its return does not give. Keyed by
/// pid_tgid; 0 for a filesystem whose own function reports the failure.
#[map]
pub static LAST_CREATE_DEV: LruHashMap<u64, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Directories that were created lately, where their renames are not seen, with the second since boot
/// in which that was.
#[map]
pub static NEW_DIRS: LruHashMap<FileKey, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Counts inodes that were created or removed in a directory. Returns whether they are the first of
/// their key since the last drain.
#[inline(always)]
pub fn count_entries(key: &ProcFileKey, entries: &Entries) -> bool {
    let first = first_is_active();
    self_stat_add(if first { SelfStat::UsedCreatedA } else { SelfStat::UsedCreatedB }, 1);
    let map = if first { &CREATED_A } else { &CREATED_B };
    if let Some(sum) = map.get_ptr_mut(key) {
        add(sum, entries);
        return false;
    }
    let _ = map.insert(key, Entries::NONE, BPF_NOEXIST);
    match map.get_ptr_mut(key) {
        Some(sum) => add(sum, entries),
        None => self_stat_add(SelfStat::OtherWaits, 1),
    }
    true
}

#[inline(always)]
fn add(sum: *mut Entries, entries: &Entries) {
    // SAFETY: valid pointers from the map.
    let (created, removed, renamed) =
        unsafe { (&raw mut (*sum).created, &raw mut (*sum).removed, &raw mut (*sum).renamed) };
    atomic_add(created, entries.created);
    atomic_add(removed, entries.removed);
    atomic_add(renamed, entries.renamed);
}
