//! Unsafe reads of kernel memory.
//!
//! There are two ways. [`BtfRead`] loads through pointers that the verifier has typed from BTF
//! (arguments of fentry/fexit programs), with a handful of instructions each. [`ProbeRead`] uses
//! `bpf_probe_read_kernel`, which is available to every program and returns 0 for a bad address.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf};
use tracer_common::offsets::field_mark;
use tracer_common::{FileKey, Offsets, ProcKey};

/// Offsets of kernel fields, filled in by the daemon before loading. Read with [`offset!`], so that
/// neither compiler folds the placeholder.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::UNKNOWN;

macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a valid static; volatile because the daemon rewrites it before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel_read::OFFSETS.$field) }
    }};
}

/// Reads a value of `Config` as a u64. The daemon puts the number into the instruction itself
/// before loading ([`config_mark`](tracer_common::offsets::config_mark)), so the verifier knows it,
/// and nothing is loaded.
macro_rules! config {
    ($field:ident) => {{
        let value: u64;
        // SAFETY: a move.
        unsafe {
            core::arch::asm!(
                "{v} = {m}",
                v = out(reg) value,
                m = const tracer_common::offsets::config_mark(core::mem::offset_of!(
                    tracer_common::offsets::Config,
                    $field
                )),
                options(pure, nomem, nostack)
            );
        }
        value
    }};
}
/// Reads a field of a structure through a [`Read`]: `load!(R, inode, inode_ino)`.
macro_rules! load {
    ($way:ty, $base:expr, $field:ident) => {
        <$way as $crate::kernel_read::Read>::field::<
            _,
            { core::mem::offset_of!(tracer_common::Offsets, $field) },
        >($base)
    };
}
/// Like [`load!`], but for 32 bits, as a u64: the compiler does not know that a load clears the
/// upper half, and would clear it again. Of a 64-bit field it reads the lower half, on a
/// little-endian machine.
#[allow(unused_macros, reason = "the fence has no use for it")]
macro_rules! load_u32 {
    ($way:ty, $base:expr, $field:ident) => {
        <$way as $crate::kernel_read::Read>::field_u32::<
            { core::mem::offset_of!(tracer_common::Offsets, $field) },
        >($base)
    };
}
pub(crate) use config;
pub(crate) use load;
pub(crate) use load_u32;
pub(crate) use offset;

/// An address in the kernel. Only a [`Read`] dereferences it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct KernelPtr(pub *const u8);

impl KernelPtr {
    /// Returns whether the address is 0.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address as a number, to be stored in a map.
    #[inline(always)]
    pub fn addr(self) -> u64 {
        self.0 as u64
    }

    /// The lower half of the address, as a number to calculate with. The verifier does not allow
    /// arithmetic with a pointer whose type it knows; a 32-bit move turns it into a number (with
    /// CAP_PERFMON).
    #[inline(always)]
    pub fn low(self) -> u32 {
        let mut low = self.addr();
        // SAFETY: a move.
        unsafe { asm!("w1 = w1", inout("r1") low, options(pure, nomem, nostack)) };
        low as u32
    }

    /// The whole address as a number, for functions that the verifier checks by themselves: they accept
    /// no pointer whose type it knows. Two negations turn it into a number (with CAP_PERFMON).
    #[inline(always)]
    pub fn number(self) -> u64 {
        let mut number = self.addr();
        // SAFETY: arithmetic.
        unsafe {
            asm!("{0} = -{0}", "{0} = -{0}", inout(reg) number, options(pure, nomem, nostack))
        };
        number
    }

    /// Restores an address from a map. Only for [`ProbeRead`].
    #[inline(always)]
    pub fn from_addr(addr: u64) -> Self {
        Self(addr as *const u8)
    }
}

/// A way to read kernel memory.
pub trait Read {
    /// Whether the verifier knows the type of what is read.
    const TYPED: bool;

    /// Reads a `T` at `base + offset`.
    fn read<T: Copy>(base: KernelPtr, offset: u32) -> T;

    /// Reads the field whose offset is stored at the byte `FIELD` of [`Offsets`]; see [`load!`].
    fn field<T: Copy, const FIELD: usize>(base: KernelPtr) -> T;

    /// See [`load_u32!`].
    #[inline(always)]
    fn field_u32<const FIELD: usize>(base: KernelPtr) -> u64 {
        u64::from(Self::field::<u32, FIELD>(base))
    }

    /// Reads the pointer at `base + offset`.
    #[inline(always)]
    fn follow(base: KernelPtr, offset: u32) -> KernelPtr {
        KernelPtr(Self::read::<*const u8>(base, offset))
    }
}

/// Typed loads. The verifier makes a faulting load return 0.
pub struct BtfRead;

impl Read for BtfRead {
    const TYPED: bool = true;

    #[inline(always)]
    fn read<T: Copy>(base: KernelPtr, offset: u32) -> T {
        // SAFETY: `base` comes from a BTF-typed argument and `offset` from the running kernel's
        // BTF. The verifier checks that they name a field of the right size, or rejects the
        // program.
        unsafe { core::ptr::read_volatile(base.0.add(offset as usize).cast::<T>()) }
    }

    /// One instruction, whose offset the daemon fills in before it loads the program
    /// ([`field_mark`]). It costs half as much as a load with an offset from `OFFSETS`.
    #[inline(always)]
    fn field<T: Copy, const FIELD: usize>(base: KernelPtr) -> T {
        let base = base.0;
        let value: u64;
        // SAFETY: as above; the daemon replaces each of these offsets with the running kernel's, or
        // with one that the verifier rejects.
        unsafe {
            match size_of::<T>() {
                8 => asm!("{v} = *(u64 *)({b} + {o})", v = out(reg) value, b = in(reg) base,
                    o = const field_mark(FIELD), options(readonly, nostack)),
                4 => asm!("{v} = *(u32 *)({b} + {o})", v = out(reg) value, b = in(reg) base,
                    o = const field_mark(FIELD), options(readonly, nostack)),
                2 => asm!("{v} = *(u16 *)({b} + {o})", v = out(reg) value, b = in(reg) base,
                    o = const field_mark(FIELD), options(readonly, nostack)),
                _ => asm!("{v} = *(u8 *)({b} + {o})", v = out(reg) value, b = in(reg) base,
                    o = const field_mark(FIELD), options(readonly, nostack)),
            }
            core::mem::transmute_copy::<u64, T>(&value)
        }
    }

    #[inline(always)]
    fn field_u32<const FIELD: usize>(base: KernelPtr) -> u64 {
        let base = base.0;
        let value: u64;
        // SAFETY: as above.
        unsafe {
            asm!("{v} = *(u32 *)({b} + {o})", v = out(reg) value, b = in(reg) base,
                o = const field_mark(FIELD), options(readonly, nostack));
        }
        value
    }
}

/// Reads with `bpf_probe_read_kernel`.
pub struct ProbeRead;

impl Read for ProbeRead {
    const TYPED: bool = false;

    #[inline(always)]
    fn read<T: Copy>(base: KernelPtr, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper checks the source, and zeroes the destination if it cannot be read.
        // Its result is not checked: a branch here would double the verifier's work at each step of
        // a walk. `T` is an integer or a pointer that is never dereferenced, so 0 is valid.
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.0.wrapping_add(offset as usize).cast(),
            );
            value.assume_init()
        }
    }

    #[inline(always)]
    fn field<T: Copy, const FIELD: usize>(base: KernelPtr) -> T {
        // SAFETY: a field of a valid static, all of whose fields are u32; volatile because the daemon
        // rewrites it before loading.
        let offset = unsafe {
            core::ptr::read_volatile((&raw const OFFSETS).cast::<u8>().add(FIELD).cast::<u32>())
        };
        Self::read(base, offset)
    }
}

/// Returns the key of the current process.
#[inline(always)]
pub fn current_proc() -> ProcKey {
    if config!(has_task_btf) != 0 {
        let task = current_task_typed();
        let leader = KernelPtr(load!(BtfRead, task, task_group_leader));
        ProcKey {
            start_ns: load!(BtfRead, leader, task_start_boottime),
            tgid: load!(BtfRead, task, task_tgid),
            pad: 0,
        }
    } else {
        let task = current_task();
        let leader = ProbeRead::follow(task, offset!(task_group_leader));
        ProcKey {
            start_ns: ProbeRead::read(leader, offset!(task_start_boottime)),
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            pad: 0,
        }
    }
}

/// Returns the main thread of the current process, and its start time.
#[inline(always)]
pub fn current_leader() -> (KernelPtr, u64) {
    if config!(has_task_btf) != 0 {
        let task = current_task_typed();
        let leader = KernelPtr(load!(BtfRead, task, task_group_leader));
        (leader, load!(BtfRead, leader, task_start_boottime))
    } else {
        let leader = KernelPtr(load!(ProbeRead, current_task(), task_group_leader));
        (leader, load!(ProbeRead, leader, task_start_boottime))
    }
}

/// `current`, for [`BtfRead`]; since 5.11 (`Config::has_task_btf`).
#[inline(always)]
pub fn current_task_typed() -> KernelPtr {
    // SAFETY: a helper without arguments.
    KernelPtr(unsafe { bpf_get_current_task_btf() } as *const u8)
}

/// `current`, for [`ProbeRead`].
#[inline(always)]
pub fn current_task() -> KernelPtr {
    // SAFETY: a helper without arguments.
    KernelPtr(unsafe { bpf_get_current_task() } as *const u8)
}

/// Returns the key of an inode.
#[inline(always)]
pub fn file_key<R: Read>(inode: KernelPtr) -> FileKey {
    FileKey {
        ino: load!(R, inode, inode_ino),
        generation: load!(R, inode, inode_generation),
        dev: load!(R, KernelPtr(load!(R, inode, inode_sb)), sb_dev),
    }
}

const S_IFMT: u16 = 0o170_000;

/// Returns whether the inode is a directory.
#[inline(always)]
#[allow(dead_code, reason = "the fence has no use for it")]
pub fn is_directory(inode: KernelPtr) -> bool {
    const S_IFDIR: u16 = 0o040_000;
    let mode: u16 = load!(ProbeRead, inode, inode_mode);
    mode & S_IFMT == S_IFDIR
}

/// Returns whether the inode is a regular file. Pipes, sockets, ttys and devices are not counted.
#[inline(always)]
pub fn is_regular<R: Read>(inode: KernelPtr) -> bool {
    const S_IFREG: u16 = 0o100_000;
    let mode: u16 = load!(R, inode, inode_mode);
    mode & S_IFMT == S_IFREG
}

/// Returns `super_block::s_magic` of the inode's filesystem.
#[inline(always)]
pub fn magic<R: Read>(inode: KernelPtr) -> u32 {
    let magic: u64 = load!(R, KernelPtr(load!(R, inode, inode_sb)), sb_magic);
    magic as u32
}

/// Returns one of the inode's dentries (`i_dentry`, linked through `d_u.d_alias`), or null.
#[inline(always)]
pub fn any_dentry(inode: KernelPtr) -> KernelPtr {
    let first = ProbeRead::follow(inode, offset!(inode_dentry));
    if first.is_null() {
        return first;
    }
    let alias = if offset!(dentry_alias) == Offsets::ABSENT {
        offset!(dentry_alias_v7)
    } else {
        offset!(dentry_alias)
    };
    KernelPtr::from_addr(first.addr().wrapping_sub(u64::from(alias)))
}
