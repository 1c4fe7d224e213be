//! Where the running kernel keeps the fields that the probes read. rustc emits no CO-RE
//! relocations, so the daemon resolves them from `/sys/kernel/btf/vmlinux` and hands them over as
//! frozen read-only data, which the verifier treats as constants.

use crate::pod;

/// Declares [`Offsets`] and the table of `(struct, path of members, field)` that fills it.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident = $st:literal . $member:literal),+ $(,)?) => {
        /// Byte offsets of kernel fields. [`Offsets::ABSENT`] where this kernel has no such field.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)+
        }

        impl Offsets {
            /// All unknown: what the kernel side is compiled with.
            pub const UNKNOWN: Self = Self { $($field: Self::ABSENT,)+ };

            /// `(struct, dotted member path, setter)` for each field.
            #[cfg(feature = "user")]
            #[allow(clippy::type_complexity, reason = "a table, read in one place")]
            pub const TABLE: &'static [(&'static str, &'static str, fn(&mut Self, u32))] = &[
                $(($st, $member, |o, v| o.$field = v),)+
            ];
        }
    };
}

offsets! {
    /// Thread group id.
    task_tgid = "task_struct"."tgid",
    /// `struct task_struct *` of the main thread.
    task_group_leader = "task_struct"."group_leader",
    /// Nanoseconds since boot, suspend included.
    task_start_boottime = "task_struct"."start_boottime",
    /// `struct task_struct *` that forked it.
    task_real_parent = "task_struct"."real_parent",
    /// PF_* bits.
    task_flags = "task_struct"."flags",
    /// `struct mm_struct *`; null for kernel threads.
    task_mm = "task_struct"."mm",
    /// `struct files_struct *`.
    task_files = "task_struct"."files",
    /// `struct signal_struct *`.
    task_signal = "task_struct"."signal",
    /// `atomic_t`: threads that still live.
    signal_live = "signal_struct"."live",
    /// `struct file *` of the executable.
    mm_exe_file = "mm_struct"."exe_file",
    /// Start of the command line in user memory.
    mm_arg_start = "mm_struct"."arg_start",
    /// Its end.
    mm_arg_end = "mm_struct"."arg_end",
    /// `struct fdtable *`.
    files_fdt = "files_struct"."fdt",
    /// `struct file **`.
    fdt_fd = "fdtable"."fd",
    /// Length of that array.
    fdt_max_fds = "fdtable"."max_fds",
    /// `struct inode *`.
    file_inode = "file"."f_inode",
    /// `struct dentry *`.
    file_dentry = "file"."f_path.dentry",
    /// `struct file *`.
    kiocb_filp = "kiocb"."ki_filp",
    /// IOCB_* bits.
    kiocb_flags = "kiocb"."ki_flags",
    /// Position after the bytes that were done.
    kiocb_pos = "kiocb"."ki_pos",
    /// FMODE_* bits.
    file_mode = "file"."f_mode",
    /// O_* flags.
    file_flags = "file"."f_flags",
    /// `struct vm_area_struct *`.
    fault_vma = "vm_fault"."vma",
    /// `struct file *` behind a mapping.
    vma_file = "vm_area_struct"."vm_file",
    /// VM_* bits.
    vma_flags = "vm_area_struct"."vm_flags",
    /// Which attributes change: ATTR_SIZE is 8.
    iattr_valid = "iattr"."ia_valid",
    /// `struct kiocb *` of direct I/O.
    dio_iocb = "iomap_dio"."iocb",
    /// Bytes done so far, loff_t.
    dio_size = "iomap_dio"."size",
    /// The first error, int; 0 for none.
    dio_error = "iomap_dio"."error",
    /// Does the submitter wait, u8/bool?
    dio_waits = "iomap_dio"."wait_for_completion",
    /// u8/bool: true for a write's source (iov_iter).
    iter_data_source = "iov_iter"."data_source",
    /// Inode number.
    inode_ino = "inode"."i_ino",
    /// Distinguishes reuses of an inode number.
    inode_generation = "inode"."i_generation",
    /// `struct super_block *`.
    inode_sb = "inode"."i_sb",
    /// Type and permissions, u16.
    inode_mode = "inode"."i_mode",
    /// Blocks of 512 bytes that are charged to it.
    inode_blocks = "inode"."i_blocks",
    /// Bytes beyond them, u16.
    inode_bytes = "inode"."i_bytes",
    /// log2 of the filesystem's block size, u8.
    inode_blkbits = "inode"."i_blkbits",
    /// Its length.
    inode_size = "inode"."i_size",
    /// First of its dentries (hlist_head).
    inode_dentry = "inode"."i_dentry.first",
    /// Number of names.
    inode_nlink = "inode"."i_nlink",
    /// Device number, major << 20 | minor.
    sb_dev = "super_block"."s_dev",
    /// Filesystem's magic number.
    sb_magic = "super_block"."s_magic",
    /// `struct dentry *` of the directory above.
    dentry_parent = "dentry"."d_parent",
    /// `struct inode *`; null for a negative dentry.
    dentry_inode = "dentry"."d_inode",
    /// Link in the inode's list of dentries (hlist_node); where it shares its place with others.
    dentry_alias = "dentry"."d_u.d_alias",
    /// The same where it has a place of its own (seen in 7.3).
    dentry_alias_v7 = "dentry"."d_alias",
    /// Name.
    dentry_name = "dentry"."d_name.name",
    /// Hash (low half) and length (high half) of the name.
    dentry_name_len = "dentry"."d_name.len",
    /// Name.
    task_comm = "task_struct"."comm",
    /// `struct css_set *`.
    task_cgroups = "task_struct"."cgroups",
    /// `struct nsproxy *`; null for a task that ends.
    task_nsproxy = "task_struct"."nsproxy",
    /// `struct fs_struct *`; null for a task that ends.
    task_fs = "task_struct"."fs",
    /// `struct pid *[PIDTYPE_MAX]`.
    signal_pids = "signal_struct"."pids",
    /// `struct upid []`: one per pid namespace, the initial one first.
    pid_numbers = "pid"."numbers",
    /// The task's `struct cgroup *` in the v2 hierarchy.
    cset_dfl = "css_set"."dfl_cgrp",
    /// `struct kernfs_node *`.
    cgroup_kn = "cgroup"."kn",
    /// `struct cgroup_root *`: its hierarchy.
    cgroup_root = "cgroup"."root",
    /// Number of a hierarchy; 0 for v2.
    root_hierarchy = "cgroup_root"."hierarchy_id",
    /// Inode number.
    kn_id = "kernfs_node"."id",
    /// Name.
    kn_name = "kernfs_node"."name",
    /// Directory above; until 6.14.
    kn_parent = "kernfs_node"."parent",
    /// Directory above; since 6.15.
    kn_parent_v6_15 = "kernfs_node"."__parent",
    /// `struct mnt_namespace *`.
    nsproxy_mnt = "nsproxy"."mnt_ns",
    /// Number of the namespace.
    mnt_ns_inum = "mnt_namespace"."ns.inum",
    /// `struct dentry *` of the root directory.
    fs_root = "fs_struct"."root.dentry",
    /// `struct backing_dev_info *`.
    wb_bdi = "bdi_writeback"."bdi",
    /// `struct device *`.
    bdi_dev = "backing_dev_info"."dev",
    /// Number of the device, major << 20 | minor.
    device_devt = "device"."devt",
    /// Number of the system call (x86-64).
    regs_orig_ax = "pt_regs"."orig_ax",
    /// First argument of a system call (x86-64).
    regs_di = "pt_regs"."di",
    /// Second argument of a system call (x86-64).
    regs_si = "pt_regs"."si",
    /// Third argument of a system call (x86-64).
    regs_dx = "pt_regs"."dx",
    /// Fourth argument of a system call (x86-64).
    regs_r10 = "pt_regs"."r10",
    /// Which IORING_OP_*, u8.
    request_opcode = "io_kiocb"."opcode",
    /// `struct file *` that it is for; since 5.19.
    request_file = "io_kiocb"."file",
    /// Its result, i32; since 5.19.
    request_result = "io_kiocb"."cqe.res",
    /// `struct task_struct *` that submitted it; until 6.12.
    request_task = "io_kiocb"."task",
    /// `struct io_uring_task *` of who submitted it; since 6.13.
    request_tctx = "io_kiocb"."tctx",
    /// `struct task_struct *`.
    tctx_task = "io_uring_task"."task",
    /// `struct inode *`.
    mapping_host = "address_space"."host",
    /// Flags of a folio's second page.
    folio_second_flags = "folio"."_flags_1",
    /// Number of its pages, u32; since 6.14.
    folio_nr_pages = "folio"."_nr_pages",
    /// The same until 6.13.
    folio_nr_pages_v6_13 = "folio"."_folio_nr_pages",
    /// Code segment: tells 64-bit calls from 32-bit ones (x86-64).
    regs_cs = "pt_regs"."cs",
}

impl Offsets {
    /// This kernel has no such field.
    pub const ABSENT: u32 = u32::MAX;
}

/// First offset of the loads in the kernel side's code that stand for a field: no structure that it
/// reads has a field so far from its start.
pub const FIELD_MARKS: usize = 0x7000;

/// What the kernel side's loads have for an offset in their instruction, until the daemon puts in the
/// running kernel's: [`FIELD_MARKS`] + the field's place in [`Offsets`].
#[must_use]
pub const fn field_mark(place: usize) -> usize {
    FIELD_MARKS + place
}

const _: () = assert!(field_mark(size_of::<Offsets>()) < i16::MAX as usize);

/// First number of the moves in the kernel side's code that stand for a field of [`Config`]: no other
/// number in it is near.
pub const CONFIG_MARKS: usize = 0x5A5A_0000;

/// What the kernel side's moves have for a number until the daemon puts in the field's: [`CONFIG_MARKS`] +
/// the field's place in [`Config`].
#[must_use]
pub const fn config_mark(place: usize) -> usize {
    CONFIG_MARKS + place
}

/// Where a filesystem keeps the space that is charged to an inode: [`Gauge::bytes`] of it is
/// `i_blocks × 512 + i_bytes` (if `uses_i_blocks`) plus the two parts. Not frozen, in the map
/// `GAUGES`, because the module may be loaded later. Indexed by [`gauge_kind`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauge {
    /// 1 if this kernel's layout is known.
    pub known: u32,
    /// Count `inode::i_blocks` and `i_bytes`?
    pub uses_i_blocks: u32,
    /// Offset of the `struct inode` within the filesystem's own inode.
    pub vfs_inode: u32,
    /// btrfs: offset of the inode in `btrfs_ordered_extent`.
    pub ordered_inode: u32,
    /// btrfs: does that point to the filesystem's own inode (6.10) and not to a `struct inode`?
    pub ordered_is_own: u32,
    /// btrfs: offset of an ordered extent's length in the file; 0 if not known.
    pub ordered_num_bytes: u32,
    /// btrfs: offset of its length on disk, which is less if it is compressed.
    pub ordered_disk_num_bytes: u32,
    /// Two more fields of the filesystem's own inode.
    pub parts: [GaugePart; 2],
}

/// One field that counts space.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GaugePart {
    /// Its offset.
    pub offset: u32,
    /// Its size: 8, 4, or 0 for none.
    pub size: u32,
    /// Is it in blocks (of `1 << i_blkbits`) and not in bytes?
    pub in_blocks: u32,
    /// Always 0.
    pub pad: u32,
}

/// Where the fields are in a record of the event `btrfs:btrfs_ordered_extent_remove`, by its format in tracefs:
/// it tells what compression saved also where nothing is known of the module's types.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderedEvent {
    /// `fsid`, 16 bytes.
    pub fsid: u32,
    /// `root_objectid`, 8 bytes.
    pub root: u32,
    /// `ino`, 8 bytes.
    pub ino: u32,
    /// `len`, 8 bytes: the extent's length in the file.
    pub len: u32,
    /// `disk_len`, 8 bytes: less if it is compressed.
    pub disk_len: u32,
}

/// Where overlayfs keeps the files behind one of its own, from the `struct inode` on. In the map `BEHIND`,
/// because overlayfs may be a module that is loaded later.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayInode {
    /// 1 if this kernel's layout is known.
    pub known: u32,
    /// `ovl_inode::__upperdentry`: the file's dentry on the upper layer, null if it has none there.
    pub upper: u32,
    /// What leads to a file that is only on a lower layer: see [`lower_kind`].
    pub lower_kind: u32,
    /// Offset of that pointer.
    pub lower: u32,
    /// [`lower_kind::STACK`]: offset of the first dentry in what it points to.
    pub first: u32,
}

/// How an `ovl_inode` leads to the file on the topmost lower layer.
pub mod lower_kind {
    /// Not known.
    pub const NONE: u32 = 0;
    /// `lower`: a `struct inode *` (until 5.19).
    pub const INODE: u32 = 1;
    /// `lowerpath.dentry`: a `struct dentry *` (6.0 to 6.4).
    pub const DENTRY: u32 = 2;
    /// `oe`: a `struct ovl_entry *`, which has an array of dentries (since 6.5).
    pub const STACK: u32 = 3;
}

/// Index into the map `GAUGES`.
pub mod gauge_kind {
    /// ext4.
    pub const EXT4: u32 = 0;
    /// xfs.
    pub const XFS: u32 = 1;
    /// btrfs.
    pub const BTRFS: u32 = 2;
    /// tmpfs.
    pub const TMPFS: u32 = 3;
    /// How many there are; also "no gauge".
    pub const NONE: u32 = 4;
}

/// What else the daemon tells the kernel side before it loads: see [`config_mark`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Cells per CPU of the direct-mapped table − 1; a power of two − 1.
    pub slot_mask: u32,
    /// `slot_mask` + 1.
    pub slots_per_cpu: u32,
    /// Does `sched_process_exit` say itself whether the whole group ended (6.17)?
    pub exit_has_group_dead: u32,
    /// Has the kernel bpf_get_current_task_btf (5.11)?
    pub has_task_btf: u32,
    /// Has the kernel atomic exchange in BPF (5.12)?
    pub has_cmpxchg: u32,
    /// Does `ext4_da_reserve_space` say how many blocks (6.11), or is it one?
    pub reserve_has_count: u32,
    /// Has the kernel bpf_loop (5.17)?
    pub has_loop: u32,
    /// Where in `task_struct` the word is with the bits that say that a fault is handled.
    pub fault_bits_at: u32,
    /// Which bits; 0 if this kernel has none.
    pub fault_bits: u32,
}

/// Values of the map `COUNTED`, keyed by `super_block::s_magic`: how a filesystem's writes are
/// counted below vfs_write and the system calls.
pub mod counted {
    /// At its write_iter: results and errors.
    pub const RESULTS: u32 = 1;
    /// At its tracepoints: they tell of successes alone.
    pub const SUCCESSES: u32 = 2;
    /// An overlay's: at the same place, for the upper file, as that one's filesystem is counted.
    pub const UPPER: u32 = 3;
}

pod!(Offsets, Config, Gauge, GaugePart, OrderedEvent, OverlayInode);
