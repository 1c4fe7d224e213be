//! Space that statvfs does not describe: how a btrfs divides its space, and quotas.

use serde::{Deserialize, Serialize};

/// The space of a btrfs, bytes, without copies (`RAID1` counts once). Source:
/// `/sys/fs/btrfs/UUID/allocation`, as `btrfs filesystem usage` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BtrfsSpace {
    /// Size of the chunks for data.
    pub data_total_bytes: u64,
    /// Used part of them.
    pub data_used_bytes: u64,
    /// Size of the chunks for metadata.
    pub metadata_total_bytes: u64,
    /// Used part of them, with the global reserve, which only a few operations may use.
    pub metadata_used_bytes: u64,
    /// Space in no chunk yet, from which chunks of either kind can be made.
    pub unallocated_bytes: u64,
}

/// A quota that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// What it applies to: `user deploy`, `project 42`, `qgroup 0/257`.
    pub name: String,
    /// The user, if it is a user's quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Space in use, bytes.
    pub used_bytes: u64,
    /// The hard limit, bytes; `None` if only inodes are limited.
    pub limit_bytes: Option<u64>,
    /// Inodes in use.
    pub used_inodes: u64,
    /// The hard limit of inodes; `None` if only space is limited.
    pub limit_inodes: Option<u64>,
}
