//! Offsets of the fields that the probes read in the running kernel. rustc emits no CO-RE
//! relocations, so the daemon resolves them from `/sys/kernel/btf/vmlinux` and passes them as
//! frozen read-only data, which the verifier treats as constants.

use crate::pod;

/// Declares [`Offsets`] and the table of `(struct, path of members, field)` that fills it.
macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident = $st:literal . $member:literal),+ $(,)?) => {
        /// Byte offsets of kernel fields; [`Offsets::ABSENT`] if this kernel has no such field.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)+
        }

        impl Offsets {
            /// All fields absent: the value the eBPF object is compiled with.
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
    /// `struct task_struct *` of the parent.
    task_real_parent = "task_struct"."real_parent",
    /// PF_* bits.
    task_flags = "task_struct"."flags",
    /// `struct mm_struct *`; null for kernel threads.
    task_mm = "task_struct"."mm",
    /// `struct files_struct *`.
    task_files = "task_struct"."files",
    /// `struct signal_struct *`.
    task_signal = "task_struct"."signal",
    /// `atomic_t`: number of live threads.
    signal_live = "signal_struct"."live",
    /// `struct file *` of the executable.
    mm_exe_file = "mm_struct"."exe_file",
    /// Root of the tree of areas, `struct rb_node *`; until 6.0.
    mm_areas = "mm_struct"."mm_rb.rb_node",
    /// Start of the command line in user memory.
    mm_arg_start = "mm_struct"."arg_start",
    /// End of the command line in user memory.
    mm_arg_end = "mm_struct"."arg_end",
    /// `struct fdtable *`.
    files_fdt = "files_struct"."fdt",
    /// `struct file **`.
    fdt_fd = "fdtable"."fd",
    /// Length of the `fd` array.
    fdt_max_fds = "fdtable"."max_fds",
    /// `struct inode *`.
    file_inode = "file"."f_inode",
    /// `struct dentry *`.
    file_dentry = "file"."f_path.dentry",
    /// `struct file *`.
    kiocb_filp = "kiocb"."ki_filp",
    /// IOCB_* bits.
    kiocb_flags = "kiocb"."ki_flags",
    /// Position after the bytes completed so far.
    kiocb_pos = "kiocb"."ki_pos",
    /// FMODE_* bits.
    file_mode = "file"."f_mode",
    /// O_* flags.
    file_flags = "file"."f_flags",
    /// `struct vm_area_struct *`.
    fault_vma = "vm_fault"."vma",
    /// `struct file *` that the area maps.
    vma_file = "vm_area_struct"."vm_file",
    /// First address of the area.
    vma_start = "vm_area_struct"."vm_start",
    /// First address behind the area.
    vma_end = "vm_area_struct"."vm_end",
    /// Node in the tree of areas (rb_node); until 6.0.
    vma_node = "vm_area_struct"."vm_rb",
    /// Position of the area's start in the file, pages.
    vma_pgoff = "vm_area_struct"."vm_pgoff",
    /// VM_* bits.
    vma_flags = "vm_area_struct"."vm_flags",
    /// Bit mask of the attributes that change; ATTR_SIZE is 8.
    iattr_valid = "iattr"."ia_valid",
    /// `struct kiocb *` of direct I/O.
    dio_iocb = "iomap_dio"."iocb",
    /// Bytes completed so far, loff_t.
    dio_size = "iomap_dio"."size",
    /// The first error, int; 0 for none.
    dio_error = "iomap_dio"."error",
    /// Whether the submitter waits for completion, u8/bool.
    dio_waits = "iomap_dio"."wait_for_completion",
    /// Bytes left in the iterator.
    iter_count = "iov_iter"."count",
    /// u8/bool: true if the iterator is the source of a write.
    iter_data_source = "iov_iter"."data_source",
    /// Inode number.
    inode_ino = "inode"."i_ino",
    /// Distinguishes files that reuse an inode number.
    inode_generation = "inode"."i_generation",
    /// `struct super_block *`.
    inode_sb = "inode"."i_sb",
    /// Type and permissions, u16.
    inode_mode = "inode"."i_mode",
    /// Blocks of 512 bytes charged to the inode.
    inode_blocks = "inode"."i_blocks",
    /// Bytes charged in addition to the blocks, u16.
    inode_bytes = "inode"."i_bytes",
    /// log2 of the filesystem's block size, u8.
    inode_blkbits = "inode"."i_blkbits",
    /// Length of the file, bytes.
    inode_size = "inode"."i_size",
    /// First dentry of the inode (hlist_head).
    inode_dentry = "inode"."i_dentry.first",
    /// Number of names (hard links).
    inode_nlink = "inode"."i_nlink",
    /// Device number, major << 20 | minor.
    sb_dev = "super_block"."s_dev",
    /// Filesystem's magic number.
    sb_magic = "super_block"."s_magic",
    /// `struct dentry *` of the parent directory.
    dentry_parent = "dentry"."d_parent",
    /// `struct inode *`; null for a negative dentry.
    dentry_inode = "dentry"."d_inode",
    /// Link in the inode's list of dentries (hlist_node), on kernels where it is in a union.
    dentry_alias = "dentry"."d_u.d_alias",
    /// The same on kernels where it is a field of its own (seen in 7.3).
    dentry_alias_v7 = "dentry"."d_alias",
    /// Name, `const unsigned char *`.
    dentry_name = "dentry"."d_name.name",
    /// Hash (low half) and length (high half) of the name.
    dentry_name_len = "dentry"."d_name.len",
    /// Name of the thread, NUL-padded.
    task_comm = "task_struct"."comm",
    /// `struct css_set *`.
    task_cgroups = "task_struct"."cgroups",
    /// `struct nsproxy *`; null for an exiting task.
    task_nsproxy = "task_struct"."nsproxy",
    /// `struct fs_struct *`; null for an exiting task.
    task_fs = "task_struct"."fs",
    /// `struct pid *[PIDTYPE_MAX]`.
    signal_pids = "signal_struct"."pids",
    /// `struct upid []`: one entry per pid namespace, the initial one first.
    pid_numbers = "pid"."numbers",
    /// The task's `struct cgroup *` in the v2 hierarchy.
    cset_dfl = "css_set"."dfl_cgrp",
    /// `struct kernfs_node *`.
    cgroup_kn = "cgroup"."kn",
    /// `struct cgroup_root *`: its hierarchy.
    cgroup_root = "cgroup"."root",
    /// Id of the hierarchy; 0 for v2.
    root_hierarchy = "cgroup_root"."hierarchy_id",
    /// Inode number of the cgroup's directory.
    kn_id = "kernfs_node"."id",
    /// Name of the cgroup's directory.
    kn_name = "kernfs_node"."name",
    /// Parent directory; until 6.14.
    kn_parent = "kernfs_node"."parent",
    /// Parent directory; since 6.15.
    kn_parent_v6_15 = "kernfs_node"."__parent",
    /// `struct mnt_namespace *`.
    nsproxy_mnt = "nsproxy"."mnt_ns",
    /// Inode number of the namespace.
    mnt_ns_inum = "mnt_namespace"."ns.inum",
    /// `struct dentry *` of the root directory.
    fs_root = "fs_struct"."root.dentry",
    /// `struct dentry *` of the working directory.
    fs_pwd = "fs_struct"."pwd.dentry",
    /// `struct dentry *` of what is renamed; since 5.12.
    rename_old_dentry = "renamedata"."old_dentry",
    /// `struct backing_dev_info *`.
    wb_bdi = "bdi_writeback"."bdi",
    /// `struct device *`.
    bdi_dev = "backing_dev_info"."dev",
    /// Device number, major << 20 | minor.
    device_devt = "device"."devt",
    /// System call number (x86-64).
    regs_orig_ax = "pt_regs"."orig_ax",
    /// First argument of a system call (x86-64).
    regs_di = "pt_regs"."di",
    /// Second argument of a system call (x86-64).
    regs_si = "pt_regs"."si",
    /// Third argument of a system call (x86-64).
    regs_dx = "pt_regs"."dx",
    /// Fourth argument of a system call (x86-64).
    regs_r10 = "pt_regs"."r10",
    /// IORING_OP_* of the request, u8.
    request_opcode = "io_kiocb"."opcode",
    /// `struct file *` of the request; since 5.19.
    request_file = "io_kiocb"."file",
    /// Result of the request, i32; since 5.19.
    request_result = "io_kiocb"."cqe.res",
    /// `struct task_struct *` that submitted the request; until 6.12.
    request_task = "io_kiocb"."task",
    /// `struct io_uring_task *` that submitted the request; since 6.13.
    request_tctx = "io_kiocb"."tctx",
    /// `struct task_struct *`.
    tctx_task = "io_uring_task"."task",
    /// `struct inode *`.
    mapping_host = "address_space"."host",
    /// Flags of a folio's second page.
    folio_second_flags = "folio"."_flags_1",
    /// Number of pages in the folio, u32; since 6.14.
    folio_nr_pages = "folio"."_nr_pages",
    /// The same until 6.13.
    folio_nr_pages_v6_13 = "folio"."_folio_nr_pages",
    /// Code segment: distinguishes 64-bit calls from 32-bit ones (x86-64).
    regs_cs = "pt_regs"."cs",
    /// S_* bits of the inode.
    inode_flags = "inode"."i_flags",
    /// Link in the filesystem's list of inodes (list_head).
    inode_sb_list = "inode"."i_sb_list",
    /// The filesystem's inodes in memory (list_head).
    sb_inodes = "super_block"."s_inodes",
    /// For a socket's file: its `struct socket *`.
    file_private = "file"."private_data",
    /// `struct sock *`.
    socket_sk = "socket"."sk",
    /// Address family, u16.
    sock_family = "sock"."__sk_common.skc_family",
    /// Messages that were not received yet (sk_buff_head).
    sock_queue = "sock"."sk_receive_queue",
    /// Next message in the queue.
    skb_next = "sk_buff"."next",
    /// What the protocol keeps with a message.
    skb_cb = "sk_buff"."cb",
    /// In a message of a UNIX socket's `cb`: `struct scm_fp_list *`, the descriptors sent with it.
    unix_fp = "unix_skb_parms"."fp",
    /// Their number, u16.
    fp_count = "scm_fp_list"."count",
    /// `struct file *[]`.
    fp_files = "scm_fp_list"."fp",
}

impl Offsets {
    /// Value for a field that this kernel does not have.
    pub const ABSENT: u32 = u32::MAX;
}

/// First of the reserved offsets that mark loads in the eBPF code as loads of a field. No structure
/// that the code reads has a field so far from its start.
pub const FIELD_MARKS: usize = 0x7000;

/// Offset that a load instruction contains until the daemon replaces it with the running kernel's
/// offset: [`FIELD_MARKS`] + the field's position in [`Offsets`].
#[must_use]
pub const fn field_mark(place: usize) -> usize {
    FIELD_MARKS + place
}

const _: () = assert!(field_mark(size_of::<Offsets>()) < i16::MAX as usize);

/// First of the reserved immediates that mark moves in the eBPF code as moves of a [`Config`]
/// field. No other constant in the code is near it.
pub const CONFIG_MARKS: usize = 0x5A5A_0000;

/// Immediate that a move instruction contains until the daemon replaces it with the field's value:
/// [`CONFIG_MARKS`] + the field's position in [`Config`].
#[must_use]
pub const fn config_mark(place: usize) -> usize {
    CONFIG_MARKS + place
}

/// Layout of the space that a filesystem charges to an inode, in bytes: `i_blocks × 512 + i_bytes`
/// (if `uses_i_blocks`) plus the two parts. In the map `GAUGES`, not in frozen data, because the
/// filesystem's module may be loaded later. Indexed by [`usage_kind`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeUsageLayout {
    /// 1 if this kernel's layout is known.
    pub known: u32,
    /// 1 if `inode::i_blocks` and `i_bytes` count.
    pub uses_i_blocks: u32,
    /// Offset of the `struct inode` within the filesystem's own inode.
    pub vfs_inode: u32,
    /// btrfs: offset of the inode in `btrfs_ordered_extent`.
    pub ordered_inode: u32,
    /// btrfs: 1 if that field points to the filesystem's own inode (6.10), 0 if to a `struct
    /// inode`.
    pub ordered_is_own: u32,
    /// btrfs: offset of an ordered extent's length in the file; 0 if unknown.
    pub ordered_num_bytes: u32,
    /// btrfs: offset of an ordered extent's length on disk, which is less if it is compressed.
    pub ordered_disk_num_bytes: u32,
    /// Up to two more fields of the filesystem's own inode.
    pub parts: [UsagePart; 2],
}

/// One field that counts space, in the filesystem's own inode.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsagePart {
    /// Byte offset of the field.
    pub offset: u32,
    /// Size of the field in bytes: 8, 4, or 0 for none.
    pub size: u32,
    /// 1 if the field counts blocks (of `1 << i_blkbits` bytes), 0 if bytes.
    pub in_blocks: u32,
    /// Always 0.
    pub pad: u32,
}

/// Offsets of fields in a record of the event `btrfs:btrfs_ordered_extent_remove`, from its format
/// in tracefs. The event reports what compression saved even without the module's type information.
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

/// Layout that leads from an overlayfs inode (its `struct inode`) to the file behind it. In the map
/// `BEHIND`, because overlayfs may be a module that is loaded later.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayInode {
    /// 1 if this kernel's layout is known.
    pub known: u32,
    /// `ovl_inode::__upperdentry`: the file's dentry on the upper layer; null if it has none there.
    pub upper: u32,
    /// Kind of pointer that leads to a file that is only on a lower layer: see [`lower_kind`].
    pub lower_kind: u32,
    /// Offset of that pointer.
    pub lower: u32,
    /// [`lower_kind::STACK`]: offset of the first dentry in what it points to.
    pub first: u32,
}

/// Kinds of pointer from an `ovl_inode` to the file on the topmost lower layer.
pub mod lower_kind {
    /// Unknown layout.
    pub const NONE: u32 = 0;
    /// `lower`: a `struct inode *` (until 5.19).
    pub const INODE: u32 = 1;
    /// `lowerpath.dentry`: a `struct dentry *` (6.0 to 6.4).
    pub const DENTRY: u32 = 2;
    /// `oe`: a `struct ovl_entry *`, which contains an array of dentries (since 6.5).
    pub const STACK: u32 = 3;
}

/// Index into the map `GAUGES`.
pub mod usage_kind {
    /// ext4.
    pub const EXT4: u32 = 0;
    /// xfs.
    pub const XFS: u32 = 1;
    /// btrfs.
    pub const BTRFS: u32 = 2;
    /// tmpfs.
    pub const TMPFS: u32 = 3;
    /// Number of kinds; also stands for "unknown filesystem".
    pub const NONE: u32 = 4;
}

/// Other configuration that the daemon writes into the eBPF code before loading it: see
/// [`config_mark`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Slots per CPU of the slot table − 1; a power of two − 1.
    pub slot_mask: u32,
    /// `slot_mask` + 1.
    pub slots_per_cpu: u32,
    /// 1 if `sched_process_exit` reports whether the whole group exited (6.17).
    pub exit_has_group_dead: u32,
    /// 1 if the kernel has bpf_get_current_task_btf (5.11).
    pub has_task_btf: u32,
    /// 1 if the kernel has atomic exchange in BPF (5.12).
    pub has_cmpxchg: u32,
    /// 1 if `ext4_da_reserve_space` reports the number of blocks (6.11); otherwise it reserves one.
    pub reserve_has_count: u32,
    /// 1 if the kernel has bpf_loop (5.17).
    pub has_loop: u32,
    /// Offset in `task_struct` of the 32-bit word with the bits that are set while a fault is
    /// handled.
    pub fault_bits_at: u32,
    /// Mask of those bits; 0 if this kernel has none.
    pub fault_bits: u32,
}

/// Values of the map `COUNTED`, keyed by `super_block::s_magic`: how a filesystem's writes are
/// counted below vfs_write and the system calls.
pub mod counted {
    /// At its write_iter, which reports results and errors.
    pub const RESULTS: u32 = 1;
    /// At its tracepoints, which report only successes.
    pub const SUCCESSES: u32 = 2;
    /// An overlay: counted at the same place as the filesystem of the upper file.
    pub const UPPER: u32 = 3;
}

pod!(Offsets, Config, InodeUsageLayout, UsagePart, OrderedEvent, OverlayInode);
