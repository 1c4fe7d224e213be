//! Filesystems by their magic number (`super_block::s_magic`, linux/magic.h).

use tracer_common::offsets::usage_kind;

/// `EXT4_SUPER_MAGIC`; ext2 and ext3 have the same number.
pub const EXT4_MAGIC: u32 = 0xEF53;
/// `XFS_SUPER_MAGIC`.
pub const XFS_MAGIC: u32 = 0x5846_5342;
/// `BTRFS_SUPER_MAGIC`.
pub const BTRFS_MAGIC: u32 = 0x9123_683E;
/// `TMPFS_MAGIC`.
pub const TMPFS_MAGIC: u32 = 0x0102_1994;
/// `OVERLAYFS_SUPER_MAGIC`.
pub const OVERLAY_MAGIC: u32 = 0x794C_7630;

/// Kind of usage layout (`offsets::usage_kind`) of a filesystem, by its magic number.
#[inline(always)]
pub fn kind_of(magic: u32) -> u32 {
    match magic {
        EXT4_MAGIC => usage_kind::EXT4,
        XFS_MAGIC => usage_kind::XFS,
        BTRFS_MAGIC => usage_kind::BTRFS,
        TMPFS_MAGIC => usage_kind::TMPFS,
        _ => usage_kind::NONE,
    }
}
