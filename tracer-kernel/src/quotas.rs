//! Quotas of users, groups and projects, as the kernel keeps them for ext4, xfs, f2fs and tmpfs.
//!
//! Reading those of others requires CAP_SYS_ADMIN, which only the helper process keeps, and
//! quotactl_fd(2) of Linux 5.14.

use std::io;
use std::os::fd::BorrowedFd;

use crate::btf::helper::{NextQuota, QUOTA_KINDS};
use crate::btf::modules::ModuleBtf;
use crate::kernel_version::kernel_at_least;

/// Whom a quota is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaKind {
    /// The owner of the files.
    User,
    /// The group of the files.
    Group,
    /// The project id of the files (`chattr -p`, `xfs_quota`).
    Project,
}

/// A quota that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Whom it is for.
    pub kind: QuotaKind,
    /// The number of the user, group or project.
    pub id: u32,
    /// Space in use, bytes.
    pub used_bytes: u64,
    /// The limit, bytes.
    pub limit_bytes: Option<u64>,
    /// Inodes in use.
    pub used_inodes: u64,
    /// The limit of inodes.
    pub limit_inodes: Option<u64>,
}

/// In the order of the kernel's numbers.
const KINDS: [QuotaKind; QUOTA_KINDS as usize] =
    [QuotaKind::User, QuotaKind::Group, QuotaKind::Project];
/// Maximum number of ids that are examined for each kind.
const MAX_IDS: usize = 4_096;

/// Returns all quotas of the filesystem of `root` that have a limit; none where they cannot be read.
#[must_use]
pub fn limited(root: BorrowedFd<'_>) -> Vec<Quota> {
    let mut found = Vec::new();
    for kind in KINDS {
        let mut id = 0;
        for _ in 0..MAX_IDS {
            let Some(next) = next(root, kind, id) else { break };
            found.extend(quota(kind, &next));
            let Some(following) = next.id.checked_add(1) else { break };
            id = following;
        }
    }
    found
}

/// Reads quotas again. Those that are gone, or have no limit any more, are left out.
#[must_use]
pub fn read(root: BorrowedFd<'_>, quotas: &[(QuotaKind, u32)]) -> Vec<Quota> {
    let read = quotas.iter().filter_map(|&(kind, id)| {
        let next = next(root, kind, id).filter(|next| next.id == id)?;
        quota(kind, &next)
    });
    read.collect()
}

fn next(root: BorrowedFd<'_>, kind: QuotaKind, id: u32) -> Option<NextQuota> {
    if !kernel_at_least(5, 14) {
        return None;
    }
    let mut shared = ModuleBtf::shared();
    let answer: io::Result<_> = shared.helper()?.next_quota(root, kind as u8, id);
    answer.unwrap_or_else(|error| {
        shared.helper_failed(&error);
        None
    })
}

/// A soft limit becomes a hard one after its grace time; it counts where there is no other.
fn quota(kind: QuotaKind, next: &NextQuota) -> Option<Quota> {
    const UNIT: u64 = 1_024;
    let limit = |hard, soft| [hard, soft].into_iter().find(|limit| *limit != 0);
    let limit_bytes = limit(next.hard_blocks, next.soft_blocks);
    let limit_inodes = limit(next.hard_inodes, next.soft_inodes);
    (limit_bytes.is_some() || limit_inodes.is_some()).then_some(Quota {
        kind,
        id: next.id,
        used_bytes: next.space,
        limit_bytes: limit_bytes.map(|blocks| blocks.saturating_mul(UNIT)),
        used_inodes: next.inodes,
        limit_inodes,
    })
}
