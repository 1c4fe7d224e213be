//! Which limit of a volume runs out, and what it is counted in.

use crate::snapshot::{LimitKind, Resource, Volume};

/// The limit that runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// The limit.
    pub(super) kind: LimitKind,
    /// By what culprits are ranked: a btrfs's metadata is taken by files, whatever their size.
    pub(super) resource: Resource,
    /// What is left: bytes, or inodes if that is the limit.
    pub(super) left: u64,
}

/// Whether the volume has anything that could run out.
pub(super) fn has_limit(volume: &Volume) -> bool {
    volume.total_bytes > 0 || volume.inodes_total > 0
}

/// The user whose quota runs out. Only that user's processes take something of it.
pub(super) fn limited_user(volume: &Volume) -> Option<&str> {
    let quota = volume.quotas.first().filter(|_| volume.limit == LimitKind::Quota)?;
    quota.user.as_deref()
}

/// The limit that is reached first, as the forecast found it.
pub(super) fn limit_of(volume: &Volume) -> Limits {
    let kind = match volume.limit {
        // The forecast knows one limit; without inodes nothing can be created, whatever it says.
        LimitKind::Avail if volume.inodes_total > 0 && volume.inodes_free == 0 => LimitKind::Inodes,
        kind => kind,
    };
    let resource = match kind {
        LimitKind::Inodes | LimitKind::Metadata => Resource::Inodes,
        LimitKind::Avail | LimitKind::RootReserve | LimitKind::Quota | LimitKind::ThinPool => {
            Resource::Bytes
        }
    };
    let left = match kind {
        LimitKind::Inodes => volume.inodes_free,
        LimitKind::Metadata => volume.btrfs.map_or(0, |space| {
            space.metadata_total_bytes.saturating_sub(space.metadata_used_bytes)
                + space.unallocated_bytes
        }),
        LimitKind::RootReserve => volume.avail_bytes + volume.reserved_bytes,
        LimitKind::Quota => volume
            .quotas
            .first()
            .and_then(|quota| Some(quota.limit_bytes?.saturating_sub(quota.used_bytes)))
            .unwrap_or(volume.avail_bytes),
        LimitKind::Avail | LimitKind::ThinPool => volume.avail_bytes,
    };
    Limits { kind, resource, left }
}
