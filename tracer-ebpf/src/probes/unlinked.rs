//! Files without a name that the kernel has not evicted, whoever holds them: a mapping, a loop
//! device, the kernel's NFS server, or a descriptor in a message that nobody has received.
//!
//! Found by a walk over the inodes that a filesystem has in memory (`super_block::s_inodes`), so this
//! needs no hook, and also finds files that were removed before filltop started. An inode in use is
//! always in memory. Needs bpf_loop (5.17).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tracer_common::UnlinkedSearch;
use tracer_common::records::{UNLINKED_NAME, unlinked};

use super::open_files::{TaskFileCtx, charged_bytes};
use super::shared;
use crate::behind;
use crate::filesystem::OVERLAY_MAGIC;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read as _, any_dentry, config, file_key, is_regular, load_u32,
    magic, offset,
};
use crate::maps::unlinked::{UNLINKED, UNLINKED_SEARCH};

/// The position of a walk over a filesystem's inodes. Addresses are stored as numbers.
#[repr(C)]
struct InodeWalk {
    /// `struct list_head *` in the super block: the end of the list.
    head: u64,
    /// `struct list_head *` in the next inode.
    node: u64,
    /// See `UnlinkedSearch::status`.
    status: u64,
}

/// Searches the filesystem of an open file for files without a name: at most as many inodes as the
/// second argument says; the first is the descriptor. The state is in `UNLINKED_SEARCH`. Not attached:
/// the daemon runs it (BPF_PROG_TEST_RUN) until it has seen all inodes, so that it holds up nothing on
/// its CPU for long.
#[raw_tracepoint]
fn run_unlinked(ctx: RawTracePointContext) -> i32 {
    let Some(search) = UNLINKED_SEARCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: a valid pointer from the map. Only one search runs at a time.
    let search = unsafe { &mut *search };
    search.status = unlinked::BROKEN;
    if config!(has_loop) == 0 {
        return 0;
    }
    let (fd, limit) = (ctx.arg::<u64>(0) as u32, ctx.arg::<u64>(1) as u32);
    let file = shared::file_of_fd(fd);
    let sb = ProbeRead::follow(ProbeRead::follow(file, offset!(file_inode)), offset!(inode_sb));
    if sb.is_null() {
        return 0;
    }
    let head = sb.addr().wrapping_add(u64::from(offset!(sb_inodes)));
    let mut node = search.node;
    if node == 0 {
        node = ProbeRead::follow(KernelPtr::from_addr(head), 0).addr();
    } else if !is_listed(node, sb, search) {
        return 0;
    }
    let mut walk = InodeWalk { head, node, status: unlinked::GOES_ON };
    // SAFETY: the callback gets the walk, which outlives the call.
    unsafe {
        let callback = walk_step as *const () as *mut c_void;
        bpf_loop(limit, callback, (&raw mut walk).cast(), 0);
    }
    let inode = inode_of(walk.node);
    search.status = walk.status;
    search.node = walk.node;
    search.ino = ProbeRead::read(inode, offset!(inode_ino));
    search.generation = ProbeRead::read::<u32>(inode, offset!(inode_generation)).into();
    0
}

/// Whether the inode at which the last run ended is still the same one, and in use: its memory may
/// have been freed since.
#[inline(always)]
fn is_listed(node: u64, sb: KernelPtr, search: &UnlinkedSearch) -> bool {
    let inode = inode_of(node);
    let next = ProbeRead::follow(KernelPtr::from_addr(node), 0);
    // `list_head::prev`
    let back = ProbeRead::follow(next, 8).addr();
    let generation: u32 = ProbeRead::read(inode, offset!(inode_generation));
    ProbeRead::follow(inode, offset!(inode_sb)).addr() == sb.addr()
        && ProbeRead::read::<u64>(inode, offset!(inode_ino)) == search.ino
        && u64::from(generation) == search.generation
        && next.addr() != node
        && back == node
}

/// The inode that contains a node of its filesystem's list.
#[inline(always)]
fn inode_of(node: u64) -> KernelPtr {
    KernelPtr::from_addr(node.wrapping_sub(u64::from(offset!(inode_sb_list))))
}

/// `long callback(u32 index, void *ctx)` of bpf_loop; returns 1 to end the loop.
///
/// The list is read without its lock. A program runs within RCU, so no inode is freed meanwhile; one
/// that leaves the list points to itself then (`list_del_init`).
extern "C" fn walk_step(_index: u32, walk: *mut InodeWalk) -> i64 {
    // SAFETY: the pointer that run_unlinked passed.
    let walk = unsafe { &mut *walk };
    let node = walk.node;
    if node == walk.head {
        walk.status = unlinked::COMPLETE;
        return 1;
    }
    let next = ProbeRead::follow(KernelPtr::from_addr(node), 0).addr();
    if next == 0 || next == node {
        walk.status = unlinked::BROKEN;
        return 1;
    }
    walk.node = next;
    let inode = inode_of(node);
    if ProbeRead::read::<u32>(inode, offset!(inode_nlink)) == 0 {
        found(inode, 0);
    }
    0
}

/// The position of a walk over a socket's messages and the descriptors in them.
#[repr(C)]
struct MessageWalk {
    /// `struct sk_buff_head *`: the end of the queue.
    head: u64,
    /// `struct sk_buff *`: the next message.
    message: u64,
    /// `struct scm_fp_list *` of the current message.
    files: u64,
    /// Next descriptor in it.
    index: u32,
    /// Number of descriptors in it.
    count: u32,
    /// Pid of the process that has the socket open.
    pid: u32,
    /// Always 0.
    pad: u32,
}

/// Searches the messages that wait at a UNIX socket for descriptors of files without a name.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn iter_in_flight(ctx: *const TaskFileCtx) -> i32 {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    const AF_UNIX: u16 = 1;
    /// Steps per socket: messages and descriptors. A socket holds no more than some hundred messages
    /// (`net.core.wmem_default`).
    const STEPS: u32 = 16_384;
    // SAFETY: the context that the kernel passes.
    let TaskFileCtx { task, file, .. } = unsafe { core::ptr::read(ctx) };
    if task.is_null() || file.is_null() || config!(has_loop) == 0 {
        return 0;
    }
    let file = KernelPtr(file);
    let inode = ProbeRead::follow(file, offset!(file_inode));
    if ProbeRead::read::<u16>(inode, offset!(inode_mode)) & S_IFMT != S_IFSOCK {
        return 0;
    }
    let socket = ProbeRead::follow(file, offset!(file_private));
    let sk = ProbeRead::follow(socket, offset!(socket_sk));
    if sk.is_null() || ProbeRead::read::<u16>(sk, offset!(sock_family)) != AF_UNIX {
        return 0;
    }
    let head = sk.addr().wrapping_add(u64::from(offset!(sock_queue)));
    let first = ProbeRead::follow(KernelPtr::from_addr(head), 0).addr();
    if first == head {
        return 0;
    }
    let pid = BtfRead::read(KernelPtr(task), offset!(task_tgid));
    // Zero, which the verifier must not know: before 6.7 it follows a callback only once, with the
    // values of the first call, and removes what that call does not reach.
    let none = ProbeRead::read::<u32>(KernelPtr::from_addr(0), 0);
    let files = none.into();
    let mut walk =
        MessageWalk { head, message: first, files, index: none, count: none, pid, pad: 0 };
    // SAFETY: the callback gets the walk, which outlives the call.
    unsafe {
        let callback = message_step as *const () as *mut c_void;
        bpf_loop(STEPS, callback, (&raw mut walk).cast(), 0);
    }
    0
}

/// See [`walk_step`]. The queue, too, is read without its lock: what it leads to is only believed if
/// it is a regular file without a name, and the daemon compares it with the volume's inodes.
extern "C" fn message_step(_index: u32, walk: *mut MessageWalk) -> i64 {
    /// SCM_MAX_FD.
    const MAX_FDS: u32 = 253;
    // SAFETY: the pointer that iter_in_flight passed.
    let walk = unsafe { &mut *walk };
    if walk.index < walk.count {
        let at = u64::from(offset!(fp_files)).wrapping_add(u64::from(walk.index) * 8);
        let file = ProbeRead::follow(KernelPtr::from_addr(walk.files.wrapping_add(at)), 0);
        walk.index += 1;
        let mut inode = ProbeRead::follow(file, offset!(file_inode));
        if magic::<ProbeRead>(inode) == OVERLAY_MAGIC {
            inode = behind::real_inode(inode);
        }
        if ProbeRead::read::<u32>(inode, offset!(inode_nlink)) == 0 {
            found(inode, walk.pid);
        }
        return 0;
    }
    if walk.message == walk.head || walk.message == 0 {
        return 1;
    }
    let message = KernelPtr::from_addr(walk.message);
    let data = KernelPtr::from_addr(message.addr().wrapping_add(u64::from(offset!(skb_cb))));
    walk.files = ProbeRead::follow(data, offset!(unix_fp)).addr();
    walk.index = 0;
    walk.count = if walk.files == 0 {
        0
    } else {
        let count: u16 = ProbeRead::read(KernelPtr::from_addr(walk.files), offset!(fp_count));
        u32::from(count).min(MAX_FDS)
    };
    walk.message = ProbeRead::follow(message, offset!(skb_next)).addr();
    0
}

/// Adds a file to the result, if it is a regular file. `pid`: see `UnlinkedRecord::pid`.
#[inline(always)]
fn found(inode: KernelPtr, pid: u32) {
    if inode.is_null() || !is_regular::<ProbeRead>(inode) {
        return;
    }
    let Some(search) = UNLINKED_SEARCH.get_ptr_mut(0) else { return };
    // SAFETY: a valid pointer from the map. Not atomic: only one search runs at a time.
    let search = unsafe { &mut *search };
    let at = search.count;
    search.count = at.wrapping_add(1);
    let Some(record) = UNLINKED.get_ptr_mut(at as u32) else { return };
    // SAFETY: a valid pointer from the map, which the daemon reads later.
    let record = unsafe { &mut *record };
    let key = file_key::<ProbeRead>(inode);
    record.ino = key.ino;
    record.dev = key.dev;
    record.generation = key.generation;
    record.bytes = charged_bytes(inode);
    record.flags = ProbeRead::read(inode, offset!(inode_flags));
    record.pid = pid;
    record.name_len = 0;
    record.pad = 0;
    // A file that is in use keeps the dentry of its last name.
    let dentry = any_dentry(inode);
    if dentry.is_null() {
        return;
    }
    let len = load_u32!(ProbeRead, dentry, dentry_name_len) as u32;
    if len as usize > UNLINKED_NAME {
        return;
    }
    let name = ProbeRead::follow(dentry, offset!(dentry_name));
    // SAFETY: `len` bytes are within the destination; the helper checks the source.
    let read =
        unsafe { bpf_probe_read_kernel(record.name.as_mut_ptr().cast(), len, name.0.cast()) };
    if read == 0 {
        record.name_len = len;
    }
}
