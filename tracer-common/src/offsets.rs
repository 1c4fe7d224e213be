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
    /// Link in the inode's list of dentries (hlist_node).
    dentry_alias = "dentry"."d_u.d_alias",
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
    /// Third argument of a system call (x86-64).
    regs_dx = "pt_regs"."dx",
    /// Code segment: tells 64-bit calls from 32-bit ones (x86-64).
    regs_cs = "pt_regs"."cs",
}

impl Offsets {
    /// This kernel has no such field.
    pub const ABSENT: u32 = u32::MAX;
}

/// What else the daemon tells the kernel side before it loads: frozen, too.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Cells per CPU of the direct-mapped table − 1; a power of two − 1.
    pub slot_mask: u32,
    /// Does `sched_process_exit` say itself whether the whole group ended (6.17)?
    pub exit_has_group_dead: u32,
    /// Has the kernel bpf_get_current_task_btf (5.11)?
    pub has_task_btf: u32,
    /// Always 0.
    pub pad: u32,
}

/// Values of the map `COUNTED`, keyed by `super_block::s_magic`: how a filesystem's writes are
/// counted below vfs_write and the system calls.
pub mod counted {
    /// At its write_iter: results and errors.
    pub const RESULTS: u32 = 1;
    /// At its tracepoints: they tell of successes alone.
    pub const SUCCESSES: u32 = 2;
}

pod!(Offsets, Config);
