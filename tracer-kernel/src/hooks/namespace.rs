//! Tables of the hooks that report created and removed inodes, and the calls that fail for lack of space
//! before a file is open.

use super::Function;

/// A function that creates, removes or renames an inode.
pub(crate) struct NamespaceFunction {
    /// Filesystem that it belongs to, as /proc/self/mountinfo names it, which may be a module; `None`
    /// for a function of the kernel itself.
    pub fs_type: Option<&'static str>,
    /// The kernel function.
    pub name: &'static str,
    /// Programs for fexit: since 5.17, since 5.12, and before.
    pub fexit: [&'static str; 3],
    /// Programs for its kprobe: since 5.12, and before.
    pub kprobe: [&'static str; 2],
    /// Program for its kretprobe.
    pub kretprobe: &'static str,
}

const fn create(fs_type: &'static str, name: &'static str) -> NamespaceFunction {
    NamespaceFunction {
        fs_type: Some(fs_type),
        name,
        fexit: ["fexit_create", "fexit_create_v5_16", "fexit_create_v5_11"],
        kprobe: ["kprobe_create", "kprobe_create_v5_11"],
        kretprobe: "kretprobe_create",
    }
}

/// Functions that create a file for an open. There is no function that all filesystems go through.
pub(crate) const CREATES: &[NamespaceFunction] = &[
    create("ext4", "ext4_create"),
    create("tmpfs", "shmem_create"),
    create("xfs", "xfs_vn_create"),
    create("btrfs", "btrfs_create"),
];

/// The same for all other filesystems: one function knows the directory, the other one the result.
/// Attached as soon as such a filesystem is mounted.
pub(crate) const OPENS: &[Function] = &[
    Function::new("security_inode_create")
        .fentry("fentry_security_inode_create")
        .kprobe("kprobe_security_inode_create"),
    Function::new("do_filp_open").fexit("fexit_do_filp_open").kretprobe("kretprobe_do_filp_open"),
];

/// Functions that all filesystems go through.
pub(crate) const NAMESPACE: &[NamespaceFunction] = &[
    NamespaceFunction {
        fs_type: None,
        name: "vfs_mkdir",
        fexit: ["fexit_vfs_mkdir", "fexit_vfs_mkdir_v5_16", "fexit_vfs_mkdir_v5_11"],
        kprobe: ["kprobe_vfs_mkdir", "kprobe_vfs_mkdir_v5_11"],
        kretprobe: "kretprobe_vfs_mkdir",
    },
    NamespaceFunction {
        fs_type: None,
        name: "vfs_mknod",
        fexit: ["fexit_vfs_mknod", "fexit_vfs_mknod_v5_16", "fexit_vfs_mknod_v5_11"],
        kprobe: ["kprobe_vfs_mknod", "kprobe_vfs_mknod_v5_11"],
        kretprobe: "kretprobe_vfs_mknod",
    },
    NamespaceFunction {
        fs_type: None,
        name: "vfs_symlink",
        fexit: ["fexit_vfs_symlink", "fexit_vfs_symlink_v5_16", "fexit_vfs_symlink_v5_11"],
        kprobe: ["kprobe_vfs_symlink", "kprobe_vfs_symlink_v5_11"],
        kretprobe: "kretprobe_vfs_symlink",
    },
    NamespaceFunction {
        fs_type: None,
        name: "vfs_rmdir",
        fexit: ["fexit_vfs_rmdir", "fexit_vfs_rmdir_v5_16", "fexit_vfs_rmdir_v5_11"],
        kprobe: ["kprobe_vfs_rmdir", "kprobe_vfs_rmdir_v5_11"],
        kretprobe: "kretprobe_vfs_rmdir",
    },
    NamespaceFunction {
        fs_type: None,
        name: "vfs_link",
        fexit: ["fexit_vfs_link", "fexit_vfs_link_v5_16", "fexit_vfs_link_v5_11"],
        kprobe: ["kprobe_vfs_link", "kprobe_vfs_link_v5_11"],
        kretprobe: "kretprobe_vfs_link",
    },
    NamespaceFunction {
        fs_type: None,
        name: "vfs_rename",
        fexit: ["fexit_vfs_rename", "fexit_vfs_rename", "fexit_vfs_rename_v5_11"],
        kprobe: ["kprobe_vfs_rename", "kprobe_vfs_rename_v5_11"],
        kretprobe: "kretprobe_vfs_rename",
    },
];

/// Replace all of these on ext4, as far as they succeed.
pub(crate) const CREATE_TRACEPOINTS: &[(&str, &str)] =
    &[("ext4_allocate_inode", "tp_ext4_allocate_inode"), ("ext4_free_inode", "tp_ext4_free_inode")];

/// Replaces them on other filesystems, and reports the failures on all.
pub(crate) const PATH_TRACEPOINT: (&str, &str) = ("sys_exit", "tp_sys_exit_path");
