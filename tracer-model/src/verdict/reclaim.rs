//! What can be freed on a volume, safest first.

use super::protected::is_untouchable;
use super::text;
use crate::sanitize::{display, shell_word};
use crate::snapshot::{
    Held, HeldBy, LimitKind, NoSuggestion, PathRow, Reclaim, Resource, Safety, Snapshot, State,
    Verdict, Volume,
};
use crate::units::Units;

/// Held space and files below this share of the volume are not worth a line.
const MIN_SHARE: f64 = 0.01;
/// Maximum number of deleted files, and of files, that are listed.
const MAX_HELD: usize = 3;
const MAX_FILES: usize = 3;
const IEC: Units = Units::Iec;

/// What can be freed; empty if the volume is not in danger and holds nothing.
pub(super) fn of(snapshot: &Snapshot, volume: &Volume, verdict: &Verdict) -> Vec<Reclaim> {
    let mut all = Vec::new();
    if verdict.limit == LimitKind::Metadata {
        all.extend(balance(volume));
    }
    if verdict.resource == Resource::Bytes {
        all.extend(held(snapshot, volume));
    }
    if matches!(verdict.state, State::Filling | State::Full) {
        all.extend(own_files(snapshot, volume, verdict));
    }
    all
}

fn is_worth(volume: &Volume, bytes: u64) -> bool {
    bytes as f64 >= MIN_SHARE * volume.total_bytes as f64 && bytes > 0
}

/// Deleted files that are still held, largest first.
fn held(snapshot: &Snapshot, volume: &Volume) -> Vec<Reclaim> {
    let here = snapshot.held.iter().filter(|row| row.volume == volume.mount_point);
    let mut rows: Vec<&Held> = here.filter(|row| is_worth(volume, row.bytes)).collect();
    rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let known: Vec<Reclaim> = rows
        .iter()
        .filter(|row| row.held_by != HeldBy::Unknown)
        .take(MAX_HELD)
        .map(|row| held_row(snapshot, volume, row))
        .collect();
    let unknown = volume.held_unknown_bytes.filter(|bytes| is_worth(volume, *bytes));
    known
        .into_iter()
        .chain(unknown.map(|bytes| Reclaim {
            what: "deleted files, held, holder unknown".to_owned(),
            bytes: Some(bytes),
            how: "find the holder: a descriptor in flight in a UNIX socket, a loop device, swap, or \
                  the kernel"
                .to_owned(),
            command: None,
            safety: Safety::Check,
            held_by: Some(HeldBy::Unknown),
        }))
        .collect()
}

fn held_row(snapshot: &Snapshot, volume: &Volume, row: &Held) -> Reclaim {
    let path = display(&row.path);
    let holder = text::process(&row.comm, row.pid);
    let (how, command) = match row.held_by {
        HeldBy::LoopDevice => ("detach the loop device (losetup -d)".to_owned(), None),
        HeldBy::Swap => ("swapoff".to_owned(), None),
        _ if row.pid <= 1 || row.holders.len() > 1 => {
            ("end all processes that hold it".to_owned(), None)
        }
        _ if is_untouchable(snapshot, row) => {
            (format!("make {holder} reopen its files; it is not to be ended"), None)
        }
        _ => (format!("end {holder}"), Some(format!("filltop stop {} --how term", row.pid))),
    };
    Reclaim {
        what: format!("deleted file {path}, held by {holder}"),
        bytes: Some(row.bytes.min(volume.used_bytes)),
        how,
        command,
        safety: Safety::Check,
        held_by: Some(row.held_by),
    }
}

/// The files that grew most and whose writers are culprits, by the space that they take. Not what a loop
/// device has mounted.
fn own_files(snapshot: &Snapshot, volume: &Volume, verdict: &Verdict) -> Vec<Reclaim> {
    if verdict.mostly_unexplained || verdict.no_suggestion == Some(NoSuggestion::Database) {
        return Vec::new();
    }
    let pids: Vec<u32> =
        verdict.culprits.iter().flat_map(|culprit| culprit.pids.iter().copied()).collect();
    let is_theirs = |row: &&PathRow| {
        row.volume == volume.mount_point
            && !row.deleted
            && !is_mounted(snapshot, &row.path)
            && row.writers.iter().any(|pid| pids.contains(pid))
    };
    let mut rows: Vec<(&PathRow, u64)> = snapshot
        .paths
        .iter()
        .filter(is_theirs)
        .filter_map(|row| Some((row, row.space_bytes.or(row.size_bytes).or(row.allocated_bytes)?)))
        .filter(|(_, bytes)| is_worth(volume, *bytes))
        .collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.path.cmp(&b.0.path)));
    rows.truncate(MAX_FILES);
    rows.into_iter()
        .map(|(row, bytes)| Reclaim {
            what: format!("file {}, which grows", display(&row.path)),
            bytes: Some(bytes),
            how: "delete or move it, if it is not needed".to_owned(),
            command: Some(format!("ls -l {}", shell_word(&row.path))),
            safety: Safety::Destructive,
            held_by: None,
        })
        .collect()
}

/// Whether a volume is stored in this file.
fn is_mounted(snapshot: &Snapshot, path: &str) -> bool {
    snapshot.volumes.iter().any(|volume| volume.backing_file.as_deref() == Some(path))
}

/// What helps a btrfs whose metadata is exhausted: data chunks that are hardly used.
fn balance(volume: &Volume) -> Option<Reclaim> {
    let space = volume.btrfs?;
    let unused = space.data_total_bytes.saturating_sub(space.data_used_bytes);
    (unused > 0).then(|| Reclaim {
        what: format!("{} in data chunks that are allocated and not used", IEC.bytes(unused)),
        bytes: Some(unused),
        how: "return them with a balance, so that chunks for metadata can be made; if even that finds \
              no space, add a device or truncate a file first"
            .to_owned(),
        command: Some(format!(
            "btrfs balance start -dusage=50 {}",
            shell_word(&volume.mount_point)
        )),
        safety: Safety::Safe,
        held_by: None,
    })
}
