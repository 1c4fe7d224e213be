//! Stores into mappings that the filesystem refuses for lack of space: the process gets SIGBUS.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_get_current_task_btf;
use aya_ebpf::helpers::generated::bpf_find_vma;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::account::{REFUSED_FAULT, account_error};
use crate::kernel_read::{
    KernelPtr, ProbeRead, Read, config, current_proc, current_task, file_key, is_regular, load,
    offset,
};

/// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int
/// result)`
#[raw_tracepoint(tracepoint = "signal_generate")]
fn tp_signal_generate(ctx: RawTracePointContext) -> i32 {
    const SIGBUS: u32 = 7;
    // Smaller values of the pointer say who sent it.
    const SEND_SIG_PRIV: u64 = 1;
    // Offsets in siginfo_t, which is part of the kernel's interface: si_code, si_addr.
    const CODE: u32 = 8;
    const ADDRESS: u32 = 16;
    const BUS_ADRERR: i32 = 2;
    if ctx.arg::<u64>(0) as u32 != SIGBUS {
        return 0;
    }
    let info = KernelPtr(ctx.arg::<*const u8>(1));
    let task = KernelPtr(ctx.arg::<*const u8>(2));
    if info.addr() <= SEND_SIG_PRIV || task.addr() != current_task().addr() {
        return 0;
    }
    if ProbeRead::read::<i32>(info, CODE) == BUS_ADRERR {
        let address = ProbeRead::read(info, ADDRESS);
        // bpf_find_vma came with bpf_loop, in 5.17.
        if config!(has_loop) != 0 {
            on_fault(address);
        } else {
            on_area(area_at(address), address);
        }
    }
    0
}

/// Returns the area that an address is in, or null. Without a lock, as the helper would take: at
/// worst, a thread that changes the mappings at the same time hides it.
#[inline(never)]
fn area_at(address: u64) -> u64 {
    // Enough for 65,536 areas, as many as a process has by default.
    const STEPS: u32 = 32;
    // struct rb_node: parent and color, right, left.
    const RIGHT: u32 = 8;
    const LEFT: u32 = 16;
    let mut node =
        ProbeRead::follow(ProbeRead::follow(current_task(), offset!(task_mm)), offset!(mm_areas));
    for _ in 0..STEPS {
        if node.is_null() {
            break;
        }
        let area = KernelPtr::from_addr(node.addr().wrapping_sub(u64::from(offset!(vma_node))));
        let (start, end): (u64, u64) =
            (load!(ProbeRead, area, vma_start), load!(ProbeRead, area, vma_end));
        if address >= start && address < end {
            return area.addr();
        }
        node = ProbeRead::follow(node, if address < start { LEFT } else { RIGHT });
    }
    0
}

#[inline(never)]
fn on_fault(address: u64) {
    let mut address = address;
    let callback = found as *const () as *mut c_void;
    // SAFETY: the current task, and a callback that gets the address, which outlives the call.
    unsafe {
        bpf_find_vma(
            bpf_get_current_task_btf() as *mut _,
            address,
            callback,
            (&raw mut address).cast(),
            0,
        );
    }
}

/// `long callback(struct task_struct *task, struct vm_area_struct *vma, void *ctx)` of bpf_find_vma.
extern "C" fn found(_task: *const u8, area: *const u8, address: *mut u64) -> i64 {
    // SAFETY: the pointer that on_fault passed.
    on_area(area as u64, unsafe { *address });
    0
}

#[inline(never)]
fn on_area(area: u64, address: u64) {
    const PAGE: u64 = 4096;
    let area = KernelPtr::from_addr(area);
    let file = KernelPtr(load!(ProbeRead, area, vma_file));
    let inode = KernelPtr(load!(ProbeRead, file, file_inode));
    let start: u64 = load!(ProbeRead, area, vma_start);
    let first: u64 = load!(ProbeRead, area, vma_pgoff);
    let at = address.wrapping_sub(start).wrapping_add(first.wrapping_mul(PAGE));
    let size: u64 = load!(ProbeRead, inode, inode_size);
    // Beyond the end of the file, the fault is the program's own.
    if is_regular::<ProbeRead>(inode) && at < size.wrapping_add(PAGE - 1) & !(PAGE - 1) {
        account_error(current_proc(), file_key::<ProbeRead>(inode), REFUSED_FAULT);
    }
}
