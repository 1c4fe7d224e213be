//! What calls created and removed in directories, and those that failed for lack of space.

use tracer_common::{Entries, FileKey, ProcFileKey};

use crate::account::account_error;
use crate::errno::{EDQUOT, EIO, ENOSPC};
use crate::kernel_read::{KernelPtr, ProbeRead, Read, any_dentry, current_proc, file_key};
use crate::maps::created::{NEW_DIRS, count_entries};
use crate::maps::events::NAMED;
use crate::{names, process};

/// Returns whether the error is EIO, ENOSPC or EDQUOT.
#[inline(always)]
pub fn is_out_of_space(error: i64) -> bool {
    error == EIO || error == ENOSPC || error == EDQUOT
}

/// Counts an error that a process got on a device before a file was open.
#[inline(always)]
pub fn count_failure_on(dev: u32, error: i64) {
    let nowhere = FileKey { ino: 0, generation: 0, dev };
    account_error(current_proc(), nowhere, error);
}

/// The key of what a process does in the directory `dir`, an inode.
#[inline(always)]
pub fn directory_key<R: Read>(dir: KernelPtr) -> ProcFileKey {
    ProcFileKey::new(current_proc(), file_key::<R>(dir))
}

/// Handles the end of a call that creates an inode in `dir`, with its error or 0.
#[inline(always)]
pub fn on_created(key: ProcFileKey, dir: KernelPtr, result: i64) {
    if is_out_of_space(result) {
        count_failure_on(key.dev, result);
    } else if result == 0 {
        count_and_emit(&key, dir.addr(), &Entries::CREATED);
    }
}

/// Counts inodes that were created or removed in a directory, and sends its name and the process if they
/// are new. `dir` is the directory's inode, or 0 if it is not known.
#[inline(never)]
pub fn count_and_emit(key: &ProcFileKey, dir: u64, entries: &Entries) {
    if !count_entries(key, entries) {
        return;
    }
    if dir != 0 && NAMED.get_ptr(key.file()).is_none() && !is_new(&key.file()) {
        names::emit_path_walk(any_dentry(KernelPtr::from_addr(dir)).addr());
    }
    process::emit_process_once(key.process());
}

/// Remembers a directory that was just created and may be renamed unseen: a snapshot, a package, a
/// download gets its name at the end. Until it is older, what is created in it does not send its name.
#[inline(always)]
pub fn on_new_directory(dir: KernelPtr) {
    let _ = NEW_DIRS.insert(file_key::<ProbeRead>(dir), process::now_s(), 0);
}

#[inline(always)]
fn is_new(dir: &FileKey) -> bool {
    const SECONDS: u32 = 10;
    // SAFETY: the value is copied immediately.
    let created = unsafe { NEW_DIRS.get(dir) }.copied();
    created.is_some_and(|at| process::now_s().wrapping_sub(at) < SECONDS)
}
