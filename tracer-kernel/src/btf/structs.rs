//! Names of the structs that are looked up in BTF and may be in modules.

pub(crate) const EXT4_INODE: &str = "ext4_inode_info";
pub(crate) const XFS_INODE: &str = "xfs_inode";
pub(crate) const BTRFS_INODE: &str = "btrfs_inode";
pub(crate) const BTRFS_ORDERED: &str = "btrfs_ordered_extent";
/// overlayfs's own inode.
pub(crate) const OVL_INODE: &str = "ovl_inode";
pub(crate) const OVL_ENTRY: &str = "ovl_entry";
pub(crate) const OVL_PATH: &str = "ovl_path";

/// All of the above.
pub(crate) const ALL: [&str; 7] =
    [EXT4_INODE, XFS_INODE, BTRFS_INODE, BTRFS_ORDERED, OVL_INODE, OVL_ENTRY, OVL_PATH];
