//! The fence: an object of its own, which only the supervisor of an action loads, to block a group
//! from a volume. Calls of fenced processes that would take space there fail with EDQUOT.
//! Everything else still works: reading, removing, truncating, and overwriting allocated blocks.
//!
//! Security hooks run before the operation and do not know what it will allocate. A write is
//! allowed only if it is certain to allocate nothing; in case of doubt, it fails.

#![no_std]
#![no_main]
// For the loads in kernel_read.rs.
#![feature(asm_experimental_arch)]

#[expect(dead_code, reason = "the tracer's own object uses all of it")]
mod filesystem;
mod inode_usage;
#[expect(dead_code, unused_imports, reason = "the tracer's own object uses all of it")]
mod kernel_read;
#[expect(dead_code, reason = "the tracer's own object uses all of it")]
mod syscall;

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf, bpf_task_pt_regs,
};
use aya_ebpf::macros::{lsm, map, raw_tracepoint};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{LsmContext, RawTracePointContext};
use tracer_common::fence::{FenceConfig, MAX_FENCED, NS_PER_TICK};
use tracer_common::offsets::{Offsets, usage_kind};

use crate::filesystem::kind_of;
use crate::inode_usage::usage;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, current_proc, is_regular, magic, offset,
};

/// What to fence; filled in by the daemon before loading.
#[unsafe(no_mangle)]
static FENCE: FenceConfig = FenceConfig::NONE;

macro_rules! fence {
    ($field:ident) => {{
        // SAFETY: a valid static; volatile because the daemon rewrites it before loading.
        unsafe { core::ptr::read_volatile(&raw const FENCE.$field) }
    }};
}

/// Processes that are fenced individually: pid → start in clock ticks since boot. A child is added
/// before it runs.
#[map]
static FENCED: HashMap<u32, u64> = HashMap::with_max_entries(MAX_FENCED, 0);

/// Not 0 once the fence is lifted. That takes effect immediately; detaching all programs takes the
/// kernel more than a second.
#[map]
static LIFTED: Array<u32> = Array::with_max_entries(1, 0);

/// Per CPU: at 0, calls that the fence denied; at 1, children that found [`FENCED`] full and are
/// not fenced.
#[map]
static REFUSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

const EDQUOT: i32 = 122;
const MAY_WRITE: u32 = 2;
const O_APPEND: u32 = 0o2000;
/// Without O_DIRECTORY, which always comes with it.
const O_TMPFILE: u32 = 0o20_000_000;
const PROT_WRITE: u64 = 2;
const MAP_TYPE: u64 = 0xF;
const MAP_SHARED: u64 = 1;
const MAP_SHARED_VALIDATE: u64 = 3;
const VM_SHARED: u64 = 8;
const FALLOC_FL_PUNCH_HOLE: u64 = 2;
const FALLOC_FL_COLLAPSE_RANGE: u64 = 8;

/// `int file_permission(struct file *file, int mask)`: write(2) and its variants, sendfile, splice,
/// copy_file_range, reflinks, io_uring, aio, fallocate.
#[lsm(hook = "file_permission")]
fn fence_file_permission(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(1) & MAY_WRITE == 0 {
        return 0;
    }
    let file = KernelPtr(ctx.arg::<*const u8>(0));
    let inode = BtfRead::follow(file, offset!(file_inode));
    if !on_volume(inode) || !is_regular::<BtfRead>(inode) || !is_fenced() {
        return 0;
    }
    if call_allocates_nothing(file, inode) { 0 } else { deny() }
}

/// `int file_open(struct file *file)`: opening creates files without a name (O_TMPFILE).
#[lsm(hook = "file_open")]
fn fence_file_open(ctx: LsmContext) -> i32 {
    let file = KernelPtr(ctx.arg::<*const u8>(0));
    if BtfRead::read::<u32>(file, offset!(file_flags)) & O_TMPFILE == 0 {
        return 0;
    }
    let inode = BtfRead::follow(file, offset!(file_inode));
    if on_volume(inode) && is_fenced() { deny() } else { 0 }
}

/// Hooks that create something in a directory, which is their first argument.
macro_rules! creates {
    ($($name:ident: $hook:literal),+ $(,)?) => {$(
        #[lsm(hook = $hook)]
        fn $name(ctx: LsmContext) -> i32 {
            if on_volume(KernelPtr(ctx.arg::<*const u8>(0))) && is_fenced() { deny() } else { 0 }
        }
    )+};
}

creates!(
    fence_inode_create: "inode_create",
    fence_inode_mkdir: "inode_mkdir",
    fence_inode_symlink: "inode_symlink",
    fence_inode_mknod: "inode_mknod",
);

/// `int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot, unsigned long
/// flags)`: a shared writable mapping. The file is null for anonymous memory.
#[lsm(hook = "mmap_file")]
fn fence_mmap_file(ctx: LsmContext) -> i32 {
    let map_type = ctx.arg::<u64>(3) & MAP_TYPE;
    let shared = map_type == MAP_SHARED || map_type == MAP_SHARED_VALIDATE;
    if !shared || ctx.arg::<u64>(2) & PROT_WRITE == 0 {
        return 0;
    }
    check_mapping(KernelPtr(ctx.arg::<*const u8>(0)))
}

/// `int file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)`: a
/// mapping that becomes writable.
#[lsm(hook = "file_mprotect")]
fn fence_file_mprotect(ctx: LsmContext) -> i32 {
    if ctx.arg::<u64>(2) & PROT_WRITE == 0 {
        return 0;
    }
    let vma = KernelPtr(ctx.arg::<*const u8>(0));
    if BtfRead::read::<u64>(vma, offset!(vma_flags)) & VM_SHARED == 0 {
        return 0;
    }
    check_mapping(BtfRead::follow(vma, offset!(vma_file)))
}

#[inline(always)]
fn check_mapping(file: KernelPtr) -> i32 {
    if file.is_null() {
        return 0;
    }
    let inode = ProbeRead::follow(file, offset!(file_inode));
    let sb = ProbeRead::follow(inode, offset!(inode_sb));
    if ProbeRead::read::<u32>(sb, offset!(sb_dev)) != fence!(dev) || !is_fenced() {
        return 0;
    }
    if is_dense(inode, ProbeRead::read::<u64>(inode, offset!(inode_size))) { 0 } else { deny() }
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`: called before the
/// child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn fence_fork(ctx: RawTracePointContext) -> i32 {
    let child = KernelPtr(ctx.arg::<*const u8>(1));
    if !is_leader(child) || !process_is_fenced() {
        return 0;
    }
    let start = ProbeRead::read::<u64>(child, offset!(task_start_boottime)) / NS_PER_TICK;
    let tgid = ProbeRead::read::<u32>(child, offset!(task_tgid));
    if FENCED.insert(&tgid, start, 0).is_err() {
        count(1);
    }
    0
}

/// `sched_process_free(struct task_struct *task)`: the task has ended and was reaped, after all its
/// threads. Its pid may already be reused.
#[raw_tracepoint(tracepoint = "sched_process_free")]
fn fence_free(ctx: RawTracePointContext) -> i32 {
    let task = KernelPtr(ctx.arg::<*const u8>(0));
    if !is_leader(task) {
        return 0;
    }
    let tgid = ProbeRead::read::<u32>(task, offset!(task_tgid));
    let start = ProbeRead::read::<u64>(task, offset!(task_start_boottime)) / NS_PER_TICK;
    if fenced_start(tgid) == Some(start) {
        let _ = FENCED.remove(&tgid);
    }
    0
}

/// `sched_process_exit(struct task_struct *task, …)`: the task begins to exit, for whatever reason.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn fence_owner_exit(_: RawTracePointContext) -> i32 {
    if current_proc().tgid == fence!(owner)
        && let Some(lifted) = LIFTED.get_ptr_mut(0)
    {
        // SAFETY: a valid, aligned pointer; the only value ever written is 1.
        unsafe { *lifted = 1 };
    }
    0
}

/// Returns whether the task is the main thread of its process.
#[inline(always)]
fn is_leader(task: KernelPtr) -> bool {
    ProbeRead::follow(task, offset!(task_group_leader)).addr() == task.addr()
}

/// Returns the start of a process that is fenced individually, in clock ticks.
#[inline(always)]
fn fenced_start(tgid: u32) -> Option<u64> {
    // SAFETY: plain integers, which are replaced as a whole.
    unsafe { FENCED.get(tgid) }.copied()
}

/// Returns whether the inode, of a file or a directory, is on the fenced volume.
#[inline(always)]
fn on_volume(inode: KernelPtr) -> bool {
    let sb = BtfRead::follow(inode, offset!(inode_sb));
    BtfRead::read::<u32>(sb, offset!(sb_dev)) == fence!(dev)
}

/// Returns whether the current task is fenced. Workers of io_uring are threads of their process, in
/// its cgroup.
#[inline(always)]
fn is_fenced() -> bool {
    let level = fence!(level);
    if level == 0 {
        return process_is_fenced() && !is_lifted();
    }
    // SAFETY: a helper that takes a number; it returns 0 if the task's cgroup is not that deep.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
    ancestor == fence!(cgroup) && !is_lifted()
}

#[inline(always)]
fn is_lifted() -> bool {
    // SAFETY: a plain integer.
    LIFTED.get(0).is_some_and(|lifted| unsafe { core::ptr::read_volatile(lifted) } != 0)
}

#[inline(always)]
fn process_is_fenced() -> bool {
    let proc = current_proc();
    fenced_start(proc.tgid) == Some(proc.start_ns / NS_PER_TICK)
}

#[inline(always)]
fn deny() -> i32 {
    count(0);
    -EDQUOT
}

#[inline(always)]
fn count(cell: u32) {
    if let Some(value) = REFUSED.get_ptr_mut(cell) {
        // SAFETY: a valid, aligned pointer from the map to this CPU's own value.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

/// Returns whether the current system call certainly takes no space. That is known of pwrite64,
/// whose position is in its arguments, if it overwrites allocated blocks; and of fallocate, if it
/// frees space. The position of the other calls is known only to the kernel, as is that of
/// io_uring's requests and of calls on other architectures.
#[inline(always)]
fn call_allocates_nothing(file: KernelPtr, inode: KernelPtr) -> bool {
    if offset!(regs_orig_ax) == Offsets::ABSENT {
        return false;
    }
    // SAFETY: the task is the current one, whose saved registers do not change while it is in the
    // kernel.
    let regs = KernelPtr(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8);
    // 32-bit programs have other numbers for their calls.
    if ProbeRead::read::<u64>(regs, offset!(regs_cs)) as u16 != syscall::USER_CS {
        return false;
    }
    match ProbeRead::read::<u64>(regs, offset!(regs_orig_ax)) {
        syscall::PWRITE64 => {
            let end = ProbeRead::read::<u64>(regs, offset!(regs_r10))
                .saturating_add(ProbeRead::read::<u64>(regs, offset!(regs_dx)));
            let size = BtfRead::read::<u64>(inode, offset!(inode_size));
            let appends = BtfRead::read::<u32>(file, offset!(file_flags)) & O_APPEND != 0;
            !appends && end <= size && is_dense(inode, size)
        }
        syscall::FALLOCATE => {
            let mode = ProbeRead::read::<u64>(regs, offset!(regs_si));
            mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE) != 0
        }
        _ => false,
    }
}

/// Returns whether the file has all its blocks up to its size, on a filesystem that overwrites them
/// in place. btrfs does not. The usage includes an extent tree's own blocks, so a hole that is no
/// larger than those is not detected.
#[inline(always)]
fn is_dense(inode: KernelPtr, size: u64) -> bool {
    let kind = kind_of(magic::<ProbeRead>(inode));
    kind != usage_kind::BTRFS && usage::<ProbeRead>(kind, inode).is_some_and(|bytes| bytes >= size)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier rejects programs that could panic, and rustc removes this
    // function.
    loop {}
}

/// LSM programs must be GPL-compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
