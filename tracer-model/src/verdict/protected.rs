//! What no step may be suggested against.

use crate::action::protect;
use crate::snapshot::{Group, Held, Snapshot, Volume};

/// Whether the holder must not be ended automatically or by suggestion.
pub(super) fn is_untouchable(snapshot: &Snapshot, row: &Held) -> bool {
    row.pid <= 1
        || protect::is_protected_name(&row.comm, None)
        || row.group.as_ref().is_some_and(|group| {
            protect::unit_rule(group.kind, &group.name).is_some()
                || has_database(snapshot, &row.volume, group)
        })
        || serves_a_volume(snapshot, row.pid)
}

/// Whether a group has a database on the volume.
pub(super) fn has_database(snapshot: &Snapshot, volume: &str, group: &Group) -> bool {
    snapshot.residents.iter().any(|row| {
        row.volume == volume && row.group.name == group.name && !row.databases.is_empty()
    })
}

/// Whether the process serves a mounted FUSE filesystem.
pub(super) fn serves_a_volume(snapshot: &Snapshot, pid: u32) -> bool {
    let server = |volume: &Volume| volume.served_by.as_ref().is_some_and(|by| by.pid == pid);
    snapshot.volumes.iter().any(server)
}
