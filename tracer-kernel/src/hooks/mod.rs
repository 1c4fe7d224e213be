//! Tables of the hooked functions and the eBPF programs attached to them: data, no code.

pub(crate) mod btf_functions;
mod namespace;
#[cfg(test)]
mod tests;

pub(crate) use namespace::{
    CREATE_TRACEPOINTS, CREATES, NAMESPACE, NamespaceFunction, OPENS, PATH_TRACEPOINT,
};

/// How to count the writes of one filesystem type at its own write_iter.
pub(crate) struct WriteIter {
    /// Name as in /proc/self/mountinfo; also the name of its module, if it is in one.
    pub fs_type: &'static str,
    /// `super_block::s_magic`.
    pub magic: u32,
    /// Functions to try, newest kernel first; the first that exists is used.
    pub functions: &'static [WriteIterFunction],
}

/// One of [`WriteIter::functions`].
pub(crate) struct WriteIterFunction {
    /// The kernel function.
    pub name: &'static str,
    /// Program for fexit.
    pub fexit: &'static str,
    /// Program for its kprobe; the return probe is always `kretprobe_write_iter`.
    pub kprobe: &'static str,
}

const fn plain(name: &'static str, fexit: &'static str) -> WriteIterFunction {
    WriteIterFunction { name, fexit, kprobe: "kprobe_write_iter" }
}

/// All filesystems that are counted at their own write_iter.
pub(crate) const WRITE_ITERS: &[WriteIter] = &[
    WriteIter {
        fs_type: "ext4",
        magic: 0xEF53,
        functions: &[plain("ext4_file_write_iter", "fexit_ext4_file_write_iter")],
    },
    WriteIter {
        fs_type: "xfs",
        magic: 0x5846_5342,
        functions: &[plain("xfs_file_write_iter", "fexit_xfs_file_write_iter")],
    },
    WriteIter {
        fs_type: "btrfs",
        magic: 0x9123_683E,
        functions: &[plain("btrfs_file_write_iter", "fexit_btrfs_file_write_iter")],
    },
    WriteIter {
        fs_type: "tmpfs",
        magic: 0x0102_1994,
        functions: &[
            plain("shmem_file_write_iter", "fexit_shmem_file_write_iter"),
            WriteIterFunction {
                name: "generic_file_write_iter",
                fexit: "fexit_generic_file_write_iter",
                kprobe: "kprobe_generic_write_iter",
            },
        ],
    },
];

/// `s_magic` of overlayfs, whose writes are counted at the filesystem below.
pub(crate) const OVERLAY_MAGIC: u32 = 0x794C_7630;

/// A function with a program at its entry, at its exit, or at both.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    /// The kernel function.
    pub name: &'static str,
    /// Program at its entry, if any.
    pub fentry: Option<&'static str>,
    /// Program at its exit, if any.
    pub fexit: Option<&'static str>,
    /// Program of its kprobe, if any.
    pub kprobe: Option<&'static str>,
    /// Program of its kretprobe, if any.
    pub kretprobe: Option<&'static str>,
}

impl Function {
    const fn new(name: &'static str) -> Self {
        Self { name, fentry: None, fexit: None, kprobe: None, kretprobe: None }
    }

    const fn fentry(self, program: &'static str) -> Self {
        Self { fentry: Some(program), ..self }
    }

    const fn fexit(self, program: &'static str) -> Self {
        Self { fexit: Some(program), ..self }
    }

    const fn kprobe(self, program: &'static str) -> Self {
        Self { kprobe: Some(program), ..self }
    }

    const fn kretprobe(self, program: &'static str) -> Self {
        Self { kretprobe: Some(program), ..self }
    }
}

/// The common path of filesystems whose write_iter is not known.
pub(crate) const VFS_WRITE: &[Function] = &[
    Function::new("vfs_write")
        .fexit("fexit_vfs_write")
        .kprobe("kprobe_vfs_write")
        .kretprobe("kretprobe_vfs_write"),
    Function::new("do_iter_readv_writev")
        .fexit("fexit_do_iter_readv_writev")
        .kprobe("kprobe_do_iter_readv_writev")
        .kretprobe("kretprobe_do_iter_readv_writev"),
];

/// Functions whose programs count space, or bytes that no write_iter returns.
pub(crate) const SPACE: &[Function] = &[
    Function::new("evict").fentry("fentry_evict").kprobe("kprobe_evict"),
    Function::new("vfs_fallocate")
        .fexit("fexit_vfs_fallocate")
        .kprobe("kprobe_vfs_fallocate")
        .kretprobe("kretprobe_vfs_fallocate"),
    Function::new("security_file_open")
        .fentry("fentry_security_file_open")
        .kprobe("kprobe_security_file_open"),
    Function::new("fault_dirty_shared_page")
        .fentry("fentry_fault_dirty_shared_page")
        .kprobe("kprobe_fault_dirty_shared_page"),
    Function::new("iomap_dio_complete")
        .fexit("fexit_iomap_dio_complete")
        .kprobe("kprobe_iomap_dio_complete"),
];

/// Like [`SPACE`], for functions of filesystems that may be modules and be loaded later:
/// (filesystem, function).
pub(crate) const FS_SPACE: &[(&str, Function)] = &[
    (
        "xfs",
        Function::new("xfs_file_remap_range")
            .fentry("fentry_remap_file_range")
            .fexit("fexit_remap_file_range")
            .kprobe("kprobe_remap_file_range")
            .kretprobe("kretprobe_remap_file_range"),
    ),
    (
        "xfs",
        Function::new("xfs_file_release")
            .fentry("fentry_file_release")
            .fexit("fexit_settle")
            .kprobe("kprobe_file_release")
            .kretprobe("kretprobe_settle"),
    ),
    (
        "btrfs",
        Function::new("btrfs_remap_file_range")
            .fentry("fentry_remap_file_range")
            .fexit("fexit_remap_file_range")
            .kprobe("kprobe_remap_file_range")
            .kretprobe("kretprobe_remap_file_range"),
    ),
    (
        "btrfs",
        Function::new("btrfs_finish_one_ordered")
            .fentry("fentry_finish_ordered")
            .fexit("fexit_settle")
            .kprobe("kprobe_finish_ordered")
            .kretprobe("kretprobe_settle"),
    ),
    // Name before 6.4; later it is a wrapper of `btrfs_finish_one_ordered`.
    (
        "btrfs",
        Function::new("btrfs_finish_ordered_io")
            .fentry("fentry_finish_ordered")
            .fexit("fexit_settle")
            .kprobe("kprobe_finish_ordered")
            .kretprobe("kretprobe_settle"),
    ),
];

/// Functions with a dentry argument, whose position moved by one in 5.12: the newer form, the
/// position of its dentry, and the older form. The newer one is used if BTF has the dentry at that
/// position.
pub(crate) const DENTRY_FUNCTIONS: &[(Function, usize, Function)] = &[
    (
        Function::new("vfs_unlink")
            .fentry("fentry_vfs_unlink")
            .fexit("fexit_vfs_unlink")
            .kprobe("kprobe_vfs_unlink")
            .kretprobe("kretprobe_vfs_unlink"),
        2,
        Function::new("vfs_unlink")
            .fentry("fentry_vfs_unlink_v5_11")
            .fexit("fexit_vfs_unlink_v5_11")
            .kprobe("kprobe_vfs_unlink_v5_11")
            .kretprobe("kretprobe_vfs_unlink"),
    ),
    (
        Function::new("notify_change")
            .fentry("fentry_notify_change")
            .fexit("fexit_notify_change")
            .kprobe("kprobe_notify_change")
            .kretprobe("kretprobe_notify_change"),
        1,
        Function::new("notify_change")
            .fentry("fentry_notify_change_v5_11")
            .fexit("fexit_notify_change_v5_11")
            .kprobe("kprobe_notify_change_v5_11")
            .kretprobe("kretprobe_notify_change"),
    ),
];

/// Hooks for process lifecycle events, on every backend.
pub(crate) struct Lifecycle {
    /// Name of the tracepoint.
    pub tracepoint: &'static str,
    /// Program for the tracepoint.
    pub program: &'static str,
    /// A function that the kernel calls near it, for kernels that can preempt the tracepoint's
    /// programs.
    pub function: &'static str,
    /// Program for the function's kprobe.
    pub kprobe: &'static str,
}

/// Exit of a process, exec, and change of its name.
pub(crate) const LIFECYCLE: &[Lifecycle] = &[
    Lifecycle {
        tracepoint: "sched_process_exit",
        program: "tp_sched_process_exit",
        function: "acct_process",
        kprobe: "kprobe_acct_process",
    },
    Lifecycle {
        tracepoint: "sched_process_exec",
        program: "tp_sched_process_exec",
        function: "proc_exec_connector",
        kprobe: "kprobe_proc_exec_connector",
    },
    Lifecycle {
        tracepoint: "task_rename",
        program: "tp_task_rename",
        function: "__set_task_comm",
        kprobe: "kprobe_set_task_comm",
    },
];

/// Tracepoints that replace ext4's write_iter: (tracepoint, program).
pub(crate) const EXT4_TRACEPOINTS: &[(&str, &str)] = &[
    // First the one that older kernels lack (6.6): without it, none is attached.
    ("iomap_dio_rw_begin", "tp_iomap_dio_rw_begin"),
    ("iomap_dio_complete", "tp_iomap_dio_complete"),
    ("ext4_da_write_end", "tp_ext4_write_end"),
    ("ext4_write_end", "tp_ext4_write_end"),
    ("ext4_journalled_write_end", "tp_ext4_write_end"),
];

/// Tracepoints for ext4's space changes other than writes: (tracepoint, program).
pub(crate) const EXT4_SPACE_TRACEPOINTS: &[(&str, &str)] = &[
    ("ext4_da_reserve_space", "tp_ext4_da_reserve_space"),
    ("ext4_truncate_enter", "tp_ext4_truncate_enter"),
    ("ext4_truncate_exit", "tp_ext4_space_changed"),
    // Also for writes through overlayfs, where sys_exit sees only overlayfs's own file.
    ("ext4_fallocate_enter", "tp_ext4_truncate_enter"),
    ("ext4_fallocate_exit", "tp_ext4_space_changed"),
    // These end with the system call.
    ("ext4_zero_range", "tp_ext4_range_changes"),
    ("ext4_punch_hole", "tp_ext4_range_changes"),
    ("ext4_ext_remove_space_done", "tp_ext4_space_changed"),
    ("ext4_evict_inode", "tp_ext4_evict_inode"),
];

/// Replaces vfs_write.
pub(crate) const SYSCALL_TRACEPOINT: (&str, &str) = ("sys_exit", "tp_sys_exit");

/// In addition to sys_exit, for io_uring requests.
pub(crate) const URING_TRACEPOINT: (&str, &str) = ("io_uring_complete", "tp_io_uring_complete");

/// Replaces fault_dirty_shared_page: its name since 5.18, and before.
pub(crate) const DIRTY_TRACEPOINTS: [&str; 2] = ["writeback_dirty_folio", "writeback_dirty_page"];

/// Program for [`DIRTY_TRACEPOINTS`].
pub(crate) const DIRTY_PROGRAM: &str = "tp_writeback_dirty_folio";

/// Bits of `task_struct` that are set while a page fault is handled. The first is set only for
/// faults of the program itself, for cgroup v1 limits (CONFIG_MEMCG, since 6.11 CONFIG_MEMCG_V1).
/// The second is set for the kernel's faults, too, but not if madvise(2) announced how the mapping
/// will be read (6.1, CONFIG_LRU_GEN).
pub(crate) const FAULT_BITS: [&str; 2] = ["in_user_fault", "in_lru_fault"];

/// Replaces vfs_unlink.
pub(crate) const UNLINK_TRACEPOINT: (&str, &str) = ("ext4_unlink_exit", "tp_ext4_unlink_exit");

/// An event that a filesystem defines in tracefs.
pub(crate) struct Event {
    /// Name as in /proc/self/mountinfo; also the event's system in tracefs.
    pub fs_type: &'static str,
    /// Name of the event.
    pub name: &'static str,
    /// Program for the event.
    pub program: &'static str,
}

/// Reports what compression saved, if no hook traces btrfs's space.
pub(crate) const ORDERED_EVENT: Event = Event {
    fs_type: "btrfs",
    name: "btrfs_ordered_extent_remove",
    program: "event_ordered_removed",
};

/// A function with a program only at its entry.
pub(crate) struct Entry {
    /// The kernel function.
    pub name: &'static str,
    /// Program at its entry.
    pub fentry: &'static str,
    /// Program of its kprobe.
    pub kprobe: &'static str,
}

/// Functions that every rename goes through.
pub(crate) const RENAMES: &[Entry] = &[
    Entry { name: "d_move", fentry: "fentry_d_move", kprobe: "kprobe_d_move" },
    Entry { name: "d_exchange", fentry: "fentry_d_exchange", kprobe: "kprobe_d_exchange" },
];

/// A filesystem's fsync, which also serves fdatasync and O_SYNC.
pub(crate) struct Fsync {
    /// As /proc/self/mountinfo names it.
    pub fs_type: &'static str,
    /// The kernel function.
    pub name: &'static str,
}

/// Functions in which fsync is timed.
pub(crate) const FSYNCS: &[Fsync] = &[
    Fsync { fs_type: "ext4", name: "ext4_sync_file" },
    Fsync { fs_type: "xfs", name: "xfs_file_fsync" },
    Fsync { fs_type: "btrfs", name: "btrfs_sync_file" },
];

impl Fsync {
    /// Returns the function with its programs.
    #[must_use]
    pub(crate) const fn function(&self) -> Function {
        Function::new(self.name)
            .fentry("fentry_file_fsync")
            .fexit("fexit_file_fsync")
            .kprobe("kprobe_file_fsync")
            .kretprobe("kretprobe_file_fsync")
    }
}

/// Replace ext4's fsync: (tracepoint, program). The exit comes first, because an entry without its
/// exit would fill the map of in-flight calls.
pub(crate) const FSYNC_TRACEPOINTS: &[(&str, &str)] = &[
    ("ext4_sync_file_exit", "tp_ext4_sync_file_exit"),
    ("ext4_sync_file_enter", "tp_ext4_sync_file_enter"),
];

/// Tracepoint for throttled writers, on every backend.
pub(crate) const THROTTLE: &str = "balance_dirty_pages";

/// Tracepoint for stores into mappings that are refused, on every backend.
pub(crate) const SIGNALS: (&str, &str) = ("signal_generate", "tp_signal_generate");

/// Tracepoint for new cgroups, on every backend.
pub(crate) const CGROUPS: (&str, &str) = ("cgroup_mkdir", "tp_cgroup_mkdir");
