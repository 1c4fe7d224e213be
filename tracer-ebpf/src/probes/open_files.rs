//! All open files, for the daemon to read: an iterator over tasks and their descriptors
//! (`bpf_iter_task_file`, 5.8), and one over their mappings (`bpf_iter_task_vma`, 5.12). Ten times as
//! fast as a walk through /proc.

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_common::{OpenFileRecord, ProcKey};

use crate::filesystem::{OVERLAY_MAGIC, kind_of};
use crate::inode_usage::usage;
use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, file_key, is_regular, magic, offset,
};
use crate::{behind, space};

const FMODE_WRITE: u32 = 2;

/// `struct bpf_iter__task_file`
#[repr(C)]
pub struct TaskFileCtx {
    /// `struct bpf_iter_meta *`, whose first field is the `struct seq_file *`.
    meta: *const u8,
    /// `struct task_struct *`; null at the end.
    pub task: *const u8,
    fd: u32,
    /// `struct file *`; null at the end.
    pub file: *const u8,
}

/// `struct bpf_iter__task_vma`
#[repr(C)]
pub struct TaskVmaCtx {
    /// `struct bpf_iter_meta *`, whose first field is the `struct seq_file *`.
    meta: *const u8,
    /// `struct task_struct *`; null at the end.
    task: *const u8,
    /// `struct vm_area_struct *`; null at the end.
    vma: *const u8,
}

/// Writes one [`OpenFileRecord`] for a regular file that is open for writing, or has no name left.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn iter_open_files(ctx: *const TaskFileCtx) -> i32 {
    // SAFETY: the context that the kernel passes.
    let TaskFileCtx { meta, task, fd, file } = unsafe { core::ptr::read(ctx) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // Typed loads up to here; from here on by address.
    let inode = KernelPtr::from_addr(BtfRead::follow(KernelPtr(file), offset!(file_inode)).addr());
    let writable = BtfRead::read::<u32>(KernelPtr(file), offset!(file_mode)) & FMODE_WRITE != 0;
    if let Some(record) = record(inode, writable) {
        let pid = BtfRead::read(KernelPtr(task), offset!(task_tgid));
        write(meta, &OpenFileRecord { pid, fd, ..record });
    }
    0
}

/// Records the space of each file that is open for writing and not known yet, for files that were
/// opened before their opening could be seen. Writes nothing.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn iter_baselines(ctx: *const TaskFileCtx) -> i32 {
    // SAFETY: the context that the kernel passes.
    let TaskFileCtx { task, file, .. } = unsafe { core::ptr::read(ctx) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    if BtfRead::read::<u32>(KernelPtr(file), offset!(file_mode)) & FMODE_WRITE == 0 {
        return 0;
    }
    let leader = BtfRead::follow(KernelPtr(task), offset!(task_group_leader));
    let owner = ProcKey {
        start_ns: BtfRead::read(leader, offset!(task_start_boottime)),
        tgid: BtfRead::read(KernelPtr(task), offset!(task_tgid)),
        pad: 0,
    };
    let mut inode =
        KernelPtr::from_addr(BtfRead::follow(KernelPtr(file), offset!(file_inode)).addr());
    if magic::<ProbeRead>(inode) == OVERLAY_MAGIC {
        inode = behind::real_inode(inode);
    }
    if !inode.is_null() {
        space::record_baseline_of(inode, &owner);
    }
    0
}

/// Writes one [`OpenFileRecord`] for a mapping of a regular file that is shared and writable, or has
/// no name left.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_vma")]
extern "C" fn iter_mappings(ctx: *const TaskVmaCtx) -> i32 {
    const VM_WRITE: u64 = 2;
    const VM_SHARED: u64 = 8;
    // SAFETY: the context that the kernel passes.
    let TaskVmaCtx { meta, task, vma } = unsafe { core::ptr::read(ctx) };
    if task.is_null() || vma.is_null() {
        return 0;
    }
    let vma = KernelPtr(vma);
    let file = ProbeRead::follow(vma, offset!(vma_file));
    if file.is_null() {
        return 0;
    }
    let flags: u64 = ProbeRead::read(vma, offset!(vma_flags));
    let writable = flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED;
    if let Some(record) = record(ProbeRead::follow(file, offset!(file_inode)), writable) {
        let pid = BtfRead::read(KernelPtr(task), offset!(task_tgid));
        let start = ProbeRead::read(vma, offset!(vma_start));
        write(meta, &OpenFileRecord { pid, start, ..record });
    }
    0
}

/// Describes a file, without its process; `None` if it is not relevant.
#[inline(always)]
fn record(inode: KernelPtr, writable: bool) -> Option<OpenFileRecord> {
    let mut inode = inode;
    if !is_regular::<ProbeRead>(inode) {
        return None;
    }
    let mut overlay = false;
    if magic::<ProbeRead>(inode) == OVERLAY_MAGIC {
        let file = behind::real_inode(inode);
        overlay = file.is_null();
        if !overlay {
            inode = file;
        }
    }
    let links = ProbeRead::read::<u32>(inode, offset!(inode_nlink));
    if !writable && links != 0 {
        return None;
    }
    let key = file_key::<ProbeRead>(inode);
    Some(OpenFileRecord {
        ino: key.ino,
        bytes: charged_bytes(inode),
        dev: key.dev,
        pid: 0,
        fd: 0,
        links,
        writable: u32::from(writable),
        overlay: u32::from(overlay),
        start: 0,
    })
}

/// Returns the space that is charged to an inode, bytes.
#[inline(always)]
pub fn charged_bytes(inode: KernelPtr) -> u64 {
    usage::<ProbeRead>(kind_of(magic::<ProbeRead>(inode)), inode).unwrap_or_else(|| {
        (ProbeRead::read::<u64>(inode, offset!(inode_blocks)) << 9)
            + u64::from(ProbeRead::read::<u16>(inode, offset!(inode_bytes)))
    })
}

/// Writes a record to the iterator's output.
#[inline(always)]
fn write(meta: *const u8, record: &OpenFileRecord) {
    let seq = BtfRead::follow(KernelPtr(meta), 0);
    // SAFETY: a typed pointer, and a complete record. If it does not fit, the kernel calls the
    // program again with a larger buffer.
    unsafe {
        bpf_seq_write(
            seq.0.cast_mut().cast(),
            (&raw const *record).cast_mut().cast(),
            size_of::<OpenFileRecord>() as u32,
        );
    }
}
