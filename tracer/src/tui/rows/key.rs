//! Identity of rows, independent of their position, so that the selection follows the item.

use jiff::Timestamp;
use tracer_model::snapshot::{GroupKind, Snapshot};

use super::item::{GroupSum, Item};

/// Identifies a row independently of its position, by fields named as in the Snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    Writer { pid: u32, start_time: Timestamp, volume: String },
    Group { kind: Option<GroupKind>, name: String },
    Dir { path: String, volume: String },
    File { dev: String, ino: u64, path: String },
    Held { pid: u32, fd: Option<i32>, path: String },
    Victim { pid: u32, volume: String },
}

impl RowKey {
    /// The item's name, not yet escaped for display.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Writer { pid, .. } | Self::Victim { pid, .. } => format!("process {pid}"),
            Self::Group { name, .. } => name.clone(),
            Self::Dir { path, .. } | Self::File { path, .. } | Self::Held { path, .. } => {
                path.clone()
            }
        }
    }
}

impl RowKey {
    /// The key of an item; `None` if the Snapshot or the sums do not contain it.
    pub(super) fn of(snapshot: &Snapshot, groups: &[GroupSum], item: Item) -> Option<Self> {
        Some(match item {
            Item::Writer(i) => {
                let writer = snapshot.writers.get(i)?;
                Self::Writer {
                    pid: writer.pid,
                    start_time: writer.start_time,
                    volume: writer.volume.clone(),
                }
            }
            Item::Group(i) => {
                let group = groups.get(i)?;
                Self::Group { kind: group.kind, name: group.name.clone() }
            }
            Item::Dir(i) => {
                let dir = snapshot.dirs.get(i)?;
                Self::Dir { path: dir.path.clone(), volume: dir.volume.clone() }
            }
            Item::File(i) => {
                let path = snapshot.paths.get(i)?;
                Self::File { dev: path.dev.clone(), ino: path.ino, path: path.path.clone() }
            }
            Item::Held(i) => {
                let held = snapshot.held.get(i)?;
                Self::Held { pid: held.pid, fd: held.fd, path: held.path.clone() }
            }
            Item::Victim(i) => {
                let victim = snapshot.victims.get(i)?;
                Self::Victim { pid: victim.pid, volume: victim.volume.clone() }
            }
        })
    }

    /// Whether this is the key of `item`.
    pub(super) fn is_of(&self, snapshot: &Snapshot, groups: &[GroupSum], item: Item) -> bool {
        match (item, self) {
            (Item::Writer(i), Self::Writer { pid, start_time, volume }) => {
                snapshot.writers.get(i).is_some_and(|writer| {
                    writer.pid == *pid
                        && writer.start_time == *start_time
                        && writer.volume == *volume
                })
            }
            (Item::Group(i), Self::Group { kind, name }) => {
                groups.get(i).is_some_and(|group| group.kind == *kind && group.name == *name)
            }
            (Item::Dir(i), Self::Dir { path, volume }) => {
                snapshot.dirs.get(i).is_some_and(|dir| dir.path == *path && dir.volume == *volume)
            }
            (Item::File(i), Self::File { dev, ino, path }) => snapshot
                .paths
                .get(i)
                .is_some_and(|row| row.ino == *ino && row.dev == *dev && row.path == *path),
            (Item::Held(i), Self::Held { pid, fd, path }) => snapshot
                .held
                .get(i)
                .is_some_and(|held| held.pid == *pid && held.fd == *fd && held.path == *path),
            (Item::Victim(i), Self::Victim { pid, volume }) => snapshot
                .victims
                .get(i)
                .is_some_and(|victim| victim.pid == *pid && victim.volume == *volume),
            _ => false,
        }
    }
}
