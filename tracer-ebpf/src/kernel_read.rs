//! Every unsafe read of kernel memory.
//!
//! Two ways in: [`Direct`] loads through pointers that the verifier has typed from BTF (arguments of
//! fentry/fexit), at a handful of instructions each, and [`Probed`] through
//! `bpf_probe_read_kernel`, which any program may use and which gives 0 where the address is bad.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf,
    generated::bpf_probe_read_kernel,
};
use tracer_common::{FileKey, Offsets, ProcKey, offsets::Config};

/// Filled in by the daemon before loading; read with [`offset!`] so that neither compiler folds
/// the placeholder.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Filled in by the daemon before loading.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    slot_mask: 0,
    exit_has_group_dead: 0,
    has_task_btf: 1,
    has_cmpxchg: 1,
    reserve_has_count: 1,
    has_loop: 1,
};

macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a valid static; volatile because the daemon rewrites it before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel_read::OFFSETS.$field) }
    }};
}

macro_rules! config {
    ($($field:tt)+) => {{
        // SAFETY: a valid static; volatile because the daemon rewrites it before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel_read::CONFIG.$($field)+) }
    }};
}
pub(crate) use config;
pub(crate) use offset;

/// An address in the kernel. Never dereferenced but by a [`Read`].
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Kptr(pub *const u8);

impl Kptr {
    /// Is there anything?
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// As a number, to be kept in a map.
    #[inline(always)]
    pub fn addr(self) -> u64 {
        self.0 as u64
    }

    /// Back from a map: only for [`Probed`].
    #[inline(always)]
    pub fn from_addr(addr: u64) -> Self {
        Self(addr as *const u8)
    }
}

/// A way to read kernel memory.
pub trait Read {
    /// Reads a `T` at `base + offset`.
    fn read<T: Copy>(base: Kptr, offset: u32) -> T;

    /// Follows a pointer at `base + offset`.
    #[inline(always)]
    fn follow(base: Kptr, offset: u32) -> Kptr {
        Kptr(Self::read::<*const u8>(base, offset))
    }
}

/// Typed loads; the verifier turns a fault into a 0.
pub struct Direct;

impl Read for Direct {
    #[inline(always)]
    fn read<T: Copy>(base: Kptr, offset: u32) -> T {
        // SAFETY: `base` comes from a BTF-typed argument and `offset` from the running kernel's
        // BTF; the verifier checks that they name a field of the right size, or refuses to load.
        unsafe { core::ptr::read_volatile(base.0.add(offset as usize).cast::<T>()) }
    }
}

/// `bpf_probe_read_kernel`.
pub struct Probed;

impl Read for Probed {
    #[inline(always)]
    fn read<T: Copy>(base: Kptr, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper checks the source, and zeroes the destination when it cannot be read.
        // Its result is not looked at: a branch here would double the verifier's work at each step
        // of a walk. `T` is an integer or a pointer that is never dereferenced, so 0 is valid.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.0.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }
}

/// The process that runs now.
#[inline(always)]
pub fn current_proc() -> ProcKey {
    if config!(has_task_btf) != 0 {
        // SAFETY: a helper without arguments.
        let task = Kptr(unsafe { bpf_get_current_task_btf() } as *const u8);
        let leader = Direct::follow(task, offset!(task_group_leader));
        ProcKey {
            start_ns: Direct::read(leader, offset!(task_start_boottime)),
            tgid: Direct::read(task, offset!(task_tgid)),
            pad: 0,
        }
    } else {
        let task = current_task();
        let leader = Probed::follow(task, offset!(task_group_leader));
        ProcKey {
            start_ns: Probed::read(leader, offset!(task_start_boottime)),
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            pad: 0,
        }
    }
}

/// `current`, for [`Probed`] reads.
#[inline(always)]
pub fn current_task() -> Kptr {
    // SAFETY: a helper without arguments.
    Kptr(unsafe { bpf_get_current_task() } as *const u8)
}

/// The key of an inode.
#[inline(always)]
pub fn file_key<R: Read>(inode: Kptr) -> FileKey {
    let sb = R::follow(inode, offset!(inode_sb));
    FileKey {
        ino: R::read(inode, offset!(inode_ino)),
        generation: R::read(inode, offset!(inode_generation)),
        dev: R::read(sb, offset!(sb_dev)),
    }
}

/// Is it a regular file? Pipes, sockets, ttys and devices are not counted.
#[inline(always)]
pub fn is_regular<R: Read>(inode: Kptr) -> bool {
    const S_IFMT: u16 = 0o170_000;
    const S_IFREG: u16 = 0o100_000;
    R::read::<u16>(inode, offset!(inode_mode)) & S_IFMT == S_IFREG
}

/// `super_block::s_magic` of an inode's filesystem.
#[inline(always)]
pub fn magic<R: Read>(inode: Kptr) -> u32 {
    let sb = R::follow(inode, offset!(inode_sb));
    R::read::<u64>(sb, offset!(sb_magic)) as u32
}

/// Puts a value into a map's cell if the old one is still there, atomically where BPF can (5.12);
/// before that always: two CPUs that allocate for one inode in the same instant may be charged
/// alike.
#[inline(always)]
pub fn exchange(cell: *mut u64, old: u64, new: u64) -> bool {
    if config!(has_cmpxchg) != 0 {
        let found: u64;
        // SAFETY: a field of a map value, aligned to 8.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({cell} + 0, r0, {new})",
                cell = in(reg) cell,
                new = in(reg) new,
                inout("r0") old => found,
            );
        }
        found == old
    } else {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(cell, new) };
        true
    }
}
