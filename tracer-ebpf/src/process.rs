//! Describes each writer once, while it runs: a process that lives for 5 ms is gone before the
//! daemon could read /proc.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns};
use aya_log_ebpf::debug;
use tracer_common::records::{CMDLINE_MAX, CommRecord, ExitRecord};
use tracer_common::{FileKey, ProcKey, ProcRecord, RecordHeader, RecordKind, SelfStat};

use crate::kernel_read::{
    BtfRead, KernelPtr, ProbeRead, Read, config, current_task, current_task_typed, file_key, load,
    offset,
};
use crate::maps::events::{Described, EMITTED_PROCS, NAMED, PROC_SCRATCH};
use crate::maps::health::self_stat_add;
use crate::{names, scratch};

/// Describes `proc`, which must be the current process, unless it was described before and its
/// filesystem context is still the same. Sends the name of the thread if another one was sent.
#[inline(always)]
pub fn emit_process_once(proc: ProcKey) {
    match missing_of_process(proc.start_ns, proc.tgid) {
        NOTHING => {}
        THREAD => {
            emit_thread(proc.start_ns, proc.tgid);
        }
        _ => {
            let exe = emit_process(proc.start_ns, proc.tgid);
            if exe != 0 {
                names::emit_path_walk(exe);
            }
        }
    }
}

/// Results of [`missing_of_process`].
const NOTHING: u32 = 0;
const THREAD: u32 = 1;
const ALL: u32 = 2;

/// Returns what is to be sent of `proc`: [`ALL`] unless it was described in its present filesystem
/// context. A server writes its log before its chroot, and a container's first process mounts its
/// root before it switches to it: both are described again afterwards.
#[unsafe(no_mangle)]
extern "C" fn missing_of_process(start_ns: u64, tgid: u32) -> u32 {
    let proc = &ProcKey { start_ns, tgid, pad: 0 };
    // SAFETY: the value is copied immediately.
    let Some(sent) = (unsafe { EMITTED_PROCS.get(proc) }).copied() else { return ALL };
    let thread = bpf_get_current_pid_tgid();
    if (thread >> 32) as u32 != proc.tgid {
        return NOTHING;
    }
    let context = if config!(has_task_btf) != 0 {
        fs_context::<BtfRead>(current_task_typed())
    } else {
        fs_context::<ProbeRead>(current_task())
    };
    if sent.context != context {
        ALL
    } else if sent.thread != thread as u32 && now_s() != sent.at_s {
        // At most once a second: many threads may write in turns.
        THREAD
    } else {
        NOTHING
    }
}

/// Seconds since boot.
#[inline(always)]
pub fn now_s() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_ns() } / 1_000_000_000) as u32
}

/// Sends the name of the current thread, which belongs to `proc`.
#[unsafe(no_mangle)]
extern "C" fn emit_thread(start_ns: u64, tgid: u32) -> u32 {
    let proc = &ProcKey { start_ns, tgid, pad: 0 };
    let mut record = CommRecord {
        header: RecordHeader { kind: RecordKind::Thread as u32, len: 0 },
        proc: *proc,
        comm: [0; 16],
    };
    // SAFETY: the helper writes exactly the 16 bytes given.
    unsafe { bpf_get_current_comm(record.comm.as_mut_ptr().cast(), 16) };
    send_comm(&record);
    if let Some(sent) = EMITTED_PROCS.get_ptr_mut(proc) {
        // SAFETY: a valid pointer from the map.
        unsafe {
            (*sent).thread = bpf_get_current_pid_tgid() as u32;
            (*sent).at_s = now_s();
        }
    }
    0
}

#[inline(always)]
fn send_comm(record: &CommRecord) {
    // SAFETY: a complete record.
    if !unsafe { names::emit_bytes((record as *const CommRecord).cast(), size_of::<CommRecord>()) }
    {
        self_stat_add(SelfStat::RingFull, 1);
    }
}

/// Handles the change of a task's name, before the change. Only the name of a main thread is the
/// name of a process.
#[inline(always)]
pub fn on_rename(task: KernelPtr, comm: KernelPtr) {
    let leader = ProbeRead::follow(task, offset!(task_group_leader));
    if leader.addr() != task.addr() {
        return;
    }
    let proc = ProcKey {
        start_ns: ProbeRead::read(task, offset!(task_start_boottime)),
        tgid: ProbeRead::read(task, offset!(task_tgid)),
        pad: 0,
    };
    // Others are described with the name that they have when they write.
    if EMITTED_PROCS.get_ptr(proc).is_some() {
        emit_rename(&proc, comm.addr());
    }
}

#[inline(never)]
fn emit_rename(proc: &ProcKey, comm: u64) {
    let mut record = CommRecord {
        header: RecordHeader { kind: RecordKind::Renamed as u32, len: 0 },
        proc: *proc,
        comm: [0; 16],
    };
    // SAFETY: the helper writes at most the 16 bytes of the destination and checks the source.
    unsafe { bpf_probe_read_kernel_str(record.comm.as_mut_ptr().cast(), 16, comm as *const _) };
    send_comm(&record);
}

/// Hash of how a task's process sees files: its root directory and its mount namespace.
#[inline(always)]
fn fs_context<R: Read>(task: KernelPtr) -> u64 {
    // Of the main thread, because threads can have roots of their own: the process would be
    // described again each time another thread writes.
    let context = fs_context_of::<R>(KernelPtr(load!(R, task, task_group_leader)));
    // The main thread may have ended before the others.
    if context == 0 { fs_context_of::<R>(task) } else { context }
}

#[inline(always)]
fn fs_context_of<R: Read>(task: KernelPtr) -> u64 {
    let root = KernelPtr(load!(R, KernelPtr(load!(R, task, task_fs)), fs_root));
    let mounts = KernelPtr(load!(R, KernelPtr(load!(R, task, task_nsproxy)), nsproxy_mnt));
    u64::from(root.low()) << 32 | u64::from(mounts.low())
}

/// Describes the current process. Returns the address of its executable's dentry if that has to be
/// named, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn emit_process(start_ns: u64, tgid: u32) -> u64 {
    let proc = &ProcKey { start_ns, tgid, pad: 0 };
    let task = current_task();
    if ProbeRead::read::<u32>(task, offset!(task_tgid)) != proc.tgid {
        // Direct I/O that completes in a kernel worker: its process was described when the I/O was
        // submitted.
        return 0;
    }
    let Some(buffer) = scratch::acquire(&PROC_SCRATCH) else {
        self_stat_add(SelfStat::RingFull, 1);
        return 0;
    };
    fill_ancestry(buffer);
    let exe = fill_and_send(buffer, proc);
    scratch::release(&PROC_SCRATCH, buffer);
    exe
}

#[inline(never)]
fn fill_and_send(buffer: u32, proc: &ProcKey) -> u64 {
    let Some(record) = scratch::get(&PROC_SCRATCH, buffer) else { return 0 };
    let task = current_task();
    let parent = ProbeRead::follow(task, offset!(task_real_parent));
    let parent_leader = ProbeRead::follow(parent, offset!(task_group_leader));
    let mm = ProbeRead::follow(task, offset!(task_mm));
    record.header.kind = RecordKind::Proc as u32;
    record.proc = *proc;
    record.parent = ProcKey {
        start_ns: ProbeRead::read(parent_leader, offset!(task_start_boottime)),
        tgid: ProbeRead::read(parent, offset!(task_tgid)),
        pad: 0,
    };
    record.task_flags = ProbeRead::read(task, offset!(task_flags));
    record.uid = bpf_get_current_uid_gid() as u32;
    let leader = ProbeRead::follow(task, offset!(task_group_leader));
    record.comm = ProbeRead::read(leader, offset!(task_comm));
    // SAFETY: a helper without arguments, and one that writes exactly the 16 bytes given.
    unsafe {
        record.cgroup_id = bpf_get_current_cgroup_id();
        bpf_get_current_comm(record.thread.as_mut_ptr().cast(), 16);
    }
    record.exe = FileKey { ino: 0, generation: 0, dev: 0 };
    record.header.len = 0;
    let mut exe_dentry = KernelPtr::from_addr(0);
    if !mm.is_null() {
        let exe = ProbeRead::follow(mm, offset!(mm_exe_file));
        if !exe.is_null() {
            record.exe = file_key::<ProbeRead>(ProbeRead::follow(exe, offset!(file_inode)));
            exe_dentry = ProbeRead::follow(exe, offset!(file_dentry));
        }
        read_cmdline(record, mm);
    }
    // SAFETY: a complete record.
    if unsafe { names::emit_bytes((&raw const *record).cast(), size_of::<ProcRecord>()) } {
        let context = fs_context::<ProbeRead>(task);
        let thread = bpf_get_current_pid_tgid() as u32;
        let _ = EMITTED_PROCS.insert(proc, Described { context, thread, at_s: now_s() }, 0);
    } else {
        self_stat_add(SelfStat::RingFull, 1);
    }
    debug!((), "new writer {}, cgroup {}", proc.tgid, record.cgroup_id);
    if NAMED.get_ptr(&record.exe).is_some() { 0 } else { exe_dentry.addr() }
}

/// Fills in the parent's name, the grandparent, the session, the mount namespace and the root.
/// Called before [`fill_and_send`], not from it: all frames of a call chain share 512 bytes.
#[inline(never)]
fn fill_ancestry(buffer: u32) {
    let Some(record) = scratch::get(&PROC_SCRATCH, buffer) else { return };
    let task = current_task();
    let parent = ProbeRead::follow(task, offset!(task_real_parent));
    let parent = ProbeRead::follow(parent, offset!(task_group_leader));
    record.parent_comm = ProbeRead::read(parent, offset!(task_comm));
    let grandparent = ProbeRead::follow(parent, offset!(task_real_parent));
    let grandparent = ProbeRead::follow(grandparent, offset!(task_group_leader));
    record.grandparent = ProcKey {
        start_ns: ProbeRead::read(grandparent, offset!(task_start_boottime)),
        tgid: ProbeRead::read(grandparent, offset!(task_tgid)),
        pad: 0,
    };
    record.grandparent_comm = ProbeRead::read(grandparent, offset!(task_comm));
    record.session = session(task);
    // As in [`fs_context`].
    let leader = ProbeRead::follow(task, offset!(task_group_leader));
    let has_context = !ProbeRead::follow(leader, offset!(task_fs)).is_null();
    let task = if has_context { leader } else { task };
    let namespaces = ProbeRead::follow(task, offset!(task_nsproxy));
    let mounts = ProbeRead::follow(namespaces, offset!(nsproxy_mnt));
    record.mnt_ns = ProbeRead::read(mounts, offset!(mnt_ns_inum));
    let root = ProbeRead::follow(ProbeRead::follow(task, offset!(task_fs)), offset!(fs_root));
    record.root = file_key::<ProbeRead>(ProbeRead::follow(root, offset!(dentry_inode)));
}

/// Returns the number of the task's session in the initial pid namespace.
#[inline(always)]
fn session(task: KernelPtr) -> u32 {
    // enum pid_type: PID, TGID, PGID, SID (since 4.19).
    const PIDTYPE_SID: u32 = 3;
    let signal = ProbeRead::follow(task, offset!(task_signal));
    let pid = ProbeRead::follow(signal, offset!(signal_pids).wrapping_add(PIDTYPE_SID * 8));
    ProbeRead::read(pid, offset!(pid_numbers))
}

#[inline(always)]
fn read_cmdline(record: &mut ProcRecord, mm: KernelPtr) {
    let start = ProbeRead::read::<u64>(mm, offset!(mm_arg_start));
    let end = ProbeRead::read::<u64>(mm, offset!(mm_arg_end));
    let mut len = end.wrapping_sub(start);
    if len > CMDLINE_MAX as u64 {
        len = CMDLINE_MAX as u64;
    }
    // SAFETY: `len` is at most the destination's size; the helper checks the source.
    let read = unsafe {
        bpf_probe_read_user(record.cmdline.as_mut_ptr().cast(), len as u32, start as *const _)
    };
    // The arguments may be swapped out, and this context cannot wait for them. Then the daemon
    // reads /proc.
    record.header.len = if read == 0 { len as u32 } else { 0 };
}

/// Reports the end of the current process, whose last thread is ending, if it was described.
#[inline(always)]
pub fn on_exit(proc: ProcKey) {
    if EMITTED_PROCS.get_ptr(proc).is_none() {
        return;
    }
    let record =
        ExitRecord { header: RecordHeader { kind: RecordKind::Exit as u32, len: 0 }, proc };
    // SAFETY: a complete record.
    if !unsafe { names::emit_bytes((&raw const record).cast(), size_of::<ExitRecord>()) } {
        self_stat_add(SelfStat::RingFull, 1);
    }
    let _ = EMITTED_PROCS.remove(proc);
}

/// Handles an execve of the current process: it is described again. Not at its next write, because
/// a write to a file that was open before may take the fast path.
#[inline(always)]
pub fn on_exec(proc: ProcKey) {
    if EMITTED_PROCS.get_ptr(proc).is_some() {
        let _ = EMITTED_PROCS.remove(proc);
        emit_process_once(proc);
    }
}
