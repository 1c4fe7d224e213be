//! Layouts of the space that this kernel's filesystems charge to an inode. Some filesystems are
//! modules, which may be loaded after startup.

use aya::Ebpf;
use aya::maps::Array;
use tracer_common::offsets::{InodeUsageLayout, UsagePart, usage_kind};

use super::cache::KernelTypes;
use super::structs::{BTRFS_INODE, BTRFS_ORDERED, EXT4_INODE, XFS_INODE};

/// How the space usage of an inode is computed on one filesystem.
struct Recipe {
    fs_type: &'static str,
    kind: u32,
    uses_i_blocks: bool,
    /// The filesystem's own inode struct, and its member that is the `struct inode`.
    own: Option<(&'static str, &'static str)>,
    /// Members of the own inode: name, size in bytes, whether it counts blocks.
    parts: &'static [(&'static str, u32, bool)],
}

/// statvfs counts the sum of these, including delayed allocation. xfs's own counters are in blocks;
/// ext4 and btrfs keep reservations separately from `i_blocks`.
const RECIPES: &[Recipe] = &[
    Recipe {
        fs_type: "ext4",
        kind: usage_kind::EXT4,
        uses_i_blocks: true,
        own: Some((EXT4_INODE, "vfs_inode")),
        parts: &[("i_reserved_data_blocks", 4, true)],
    },
    Recipe {
        fs_type: "xfs",
        kind: usage_kind::XFS,
        uses_i_blocks: false,
        own: Some((XFS_INODE, "i_vnode")),
        parts: &[("i_nblocks", 8, true), ("i_delayed_blks", 8, true)],
    },
    Recipe {
        fs_type: "btrfs",
        kind: usage_kind::BTRFS,
        uses_i_blocks: true,
        own: Some((BTRFS_INODE, "vfs_inode")),
        parts: &[("new_delalloc_bytes", 8, false)],
    },
    Recipe {
        fs_type: "tmpfs",
        kind: usage_kind::TMPFS,
        uses_i_blocks: true,
        own: None,
        parts: &[],
    },
];

/// Passes all layouts known now to the eBPF side, and returns the filesystem types whose space is
/// traced.
pub(crate) fn install(ebpf: &mut Ebpf, types: &KernelTypes) -> Vec<&'static str> {
    let Some(map) = ebpf.map_mut("GAUGES") else { return Vec::new() };
    let Ok(mut map) = Array::<_, [u8; size_of::<InodeUsageLayout>()]>::try_from(map) else {
        return Vec::new();
    };
    let mut known = Vec::new();
    for recipe in RECIPES {
        let Some(layout) = recipe.resolve(types) else { continue };
        let bytes: [u8; size_of::<InodeUsageLayout>()] = bytemuck::cast(layout);
        if map.set(recipe.kind, bytes, 0).is_ok() {
            known.push(recipe.fs_type);
        }
    }
    known
}

impl Recipe {
    fn resolve(&self, types: &KernelTypes) -> Option<InodeUsageLayout> {
        let mut layout = InodeUsageLayout {
            known: 1,
            uses_i_blocks: u32::from(self.uses_i_blocks),
            ..InodeUsageLayout::default()
        };
        let Some((own, vfs_inode)) = self.own else { return Some(layout) };
        // Built in, or in its own module.
        let module = types.module(self.fs_type);
        let btf = module.as_ref().unwrap_or(&types.kernel);
        layout.vfs_inode = btf.member_offset(own, vfs_inode)?;
        for (part, (member, size, in_blocks)) in layout.parts.iter_mut().zip(self.parts) {
            *part = UsagePart {
                offset: btf.member_offset(own, member)?,
                size: *size,
                in_blocks: u32::from(*in_blocks),
                pad: 0,
            };
        }
        if self.kind == usage_kind::BTRFS {
            let lengths = (
                btf.member_offset(BTRFS_ORDERED, "num_bytes"),
                btf.member_offset(BTRFS_ORDERED, "disk_num_bytes"),
            );
            if let (Some(in_file), Some(on_disk)) = lengths {
                layout.ordered_num_bytes = in_file;
                layout.ordered_disk_num_bytes = on_disk;
            }
            layout.ordered_inode = btf.member_offset(BTRFS_ORDERED, "inode")?;
            layout.ordered_is_own = u32::from(btf.points_to(BTRFS_ORDERED, "inode", own));
        }
        Some(layout)
    }
}
