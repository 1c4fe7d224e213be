//! The quota groups of a btrfs that have a limit: `/sys/fs/btrfs/UUID/qgroups` (Linux 5.9).

use std::fs;
use std::path::{Path, PathBuf};

use tracer_model::snapshot::QuotaUse;

use crate::btrfs::number;

/// `BTRFS_QGROUP_LIMIT_MAX_RFER` and `BTRFS_QGROUP_LIMIT_MAX_EXCL` (linux/btrfs.h).
const LIMITS_REFERENCED: u64 = 1 << 0;
const LIMITS_EXCLUSIVE: u64 = 1 << 1;

/// Space that was promised to writes that are not on disk yet.
const RESERVED: [&str; 3] = ["rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc"];

/// The directories of the groups that have a limit. Each snapshot has a group, so that there may be
/// thousands without one.
#[must_use]
pub fn limited(sysfs: &Path) -> Vec<PathBuf> {
    let groups = fs::read_dir(sysfs.join("qgroups")).into_iter().flatten().flatten();
    let has_limit = |group: &PathBuf| number(&group.join("limit_flags")).is_some_and(|it| it != 0);
    groups.map(|entry| entry.path()).filter(has_limit).collect()
}

/// Reads groups, in no particular order. For a group with limits of both kinds, the nearer one
/// counts. Groups that are gone, or have no limit any more, are left out.
#[must_use]
pub fn read(groups: &[PathBuf]) -> Vec<QuotaUse> {
    groups.iter().filter_map(|directory| group(directory)).collect()
}

fn group(directory: &Path) -> Option<QuotaUse> {
    let read = |name| number(&directory.join(name));
    // `0_257` for the group 0/257; other entries describe the whole.
    let name = directory.file_name()?.to_str()?;
    let (level, id) = name.split_once('_')?;
    let (level, id) = (level.parse::<u16>().ok()?, id.parse::<u64>().ok()?);
    let flags = read("limit_flags")?;
    let kinds = [
        (LIMITS_REFERENCED, "referenced", "max_referenced"),
        (LIMITS_EXCLUSIVE, "exclusive", "max_exclusive"),
    ];
    let limits = kinds.into_iter().filter(|(flag, ..)| flags & flag != 0);
    // What is not on disk yet is reserved; the kernel checks the sum.
    let reserved: u64 = RESERVED.into_iter().filter_map(read).sum();
    let limits = limits.filter_map(|(_, used, max)| Some((read(used)? + reserved, read(max)?)));
    let (used_bytes, limit) = limits.min_by_key(|(used, max)| max.saturating_sub(*used))?;
    Some(QuotaUse {
        name: format!("qgroup {level}/{id}"),
        user: None,
        used_bytes,
        limit_bytes: Some(limit),
        used_inodes: 0,
        limit_inodes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_with_a_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(limited(dir.path()).is_empty());
        let make = |name: &str, values: &[(&str, u64)]| {
            let group = dir.path().join("qgroups").join(name);
            fs::create_dir_all(&group).unwrap();
            for (file, value) in values {
                fs::write(group.join(file), format!("{value}\n")).unwrap();
            }
        };
        let unlimited = [("referenced", 5), ("max_referenced", 0), ("limit_flags", 0)];
        make("0_5", &unlimited);
        make(
            "0_257",
            &[
                ("referenced", 60),
                ("rsv_data", 7),
                ("rsv_meta_prealloc", 3),
                ("max_referenced", 100),
                ("limit_flags", 1),
            ],
        );
        make(
            "1_9",
            &[
                ("referenced", 70),
                ("max_referenced", 100),
                ("exclusive", 40),
                ("max_exclusive", 41),
                ("limit_flags", 3),
            ],
        );
        fs::write(dir.path().join("qgroups/enabled"), "1\n").unwrap();
        let groups = limited(dir.path());
        assert_eq!(groups.len(), 2);
        let mut read = read(&groups);
        read.sort_by(|a, b| a.name.cmp(&b.name));
        let row = |quota: &QuotaUse| (quota.name.clone(), quota.used_bytes, quota.limit_bytes);
        let rows: Vec<_> = read.iter().map(row).collect();
        let expected = [("qgroup 0/257", 70, 100), ("qgroup 1/9", 40, 41)];
        assert_eq!(rows, expected.map(|(name, used, max)| (name.to_owned(), used, Some(max))));
    }
}
