//! Identity of rows, independent of their position, so that the selection follows the item.

use jiff::Timestamp;
use tracer_model::snapshot::{GroupKind, Snapshot};

use super::{Fold, Item, Rows, group_fold};

/// Identifies a row independently of its position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields that identify a row, named as in the Snapshot")]
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

impl Rows {
    /// The key of the row at `index`.
    #[must_use]
    pub fn key(&self, snapshot: &Snapshot, index: usize) -> Option<RowKey> {
        Some(match self.rows.get(index)?.item {
            Item::Writer(i) => {
                let writer = snapshot.writers.get(i)?;
                RowKey::Writer {
                    pid: writer.pid,
                    start_time: writer.start_time,
                    volume: writer.volume.clone(),
                }
            }
            Item::Group(i) => {
                let group = self.groups.get(i)?;
                RowKey::Group { kind: group.kind, name: group.name.clone() }
            }
            Item::Dir(i) => {
                let dir = snapshot.dirs.get(i)?;
                RowKey::Dir { path: dir.path.clone(), volume: dir.volume.clone() }
            }
            Item::File(i) => {
                let path = snapshot.paths.get(i)?;
                RowKey::File { dev: path.dev.clone(), ino: path.ino, path: path.path.clone() }
            }
            Item::Held(i) => {
                let held = snapshot.held.get(i)?;
                RowKey::Held { pid: held.pid, fd: held.fd, path: held.path.clone() }
            }
            Item::Victim(i) => {
                let victim = snapshot.victims.get(i)?;
                RowKey::Victim { pid: victim.pid, volume: victim.volume.clone() }
            }
        })
    }

    /// The current index of the row with this key.
    #[must_use]
    pub fn find(&self, snapshot: &Snapshot, key: &RowKey) -> Option<usize> {
        self.rows.iter().position(|row| match (row.item, key) {
            (Item::Writer(i), RowKey::Writer { pid, start_time, volume }) => {
                snapshot.writers.get(i).is_some_and(|writer| {
                    writer.pid == *pid
                        && writer.start_time == *start_time
                        && writer.volume == *volume
                })
            }
            (Item::Group(i), RowKey::Group { kind, name }) => {
                self.groups.get(i).is_some_and(|group| group.kind == *kind && group.name == *name)
            }
            (Item::Dir(i), RowKey::Dir { path, volume }) => {
                snapshot.dirs.get(i).is_some_and(|dir| dir.path == *path && dir.volume == *volume)
            }
            (Item::File(i), RowKey::File { dev, ino, path }) => snapshot
                .paths
                .get(i)
                .is_some_and(|row| row.ino == *ino && row.dev == *dev && row.path == *path),
            (Item::Held(i), RowKey::Held { pid, fd, path }) => snapshot
                .held
                .get(i)
                .is_some_and(|held| held.pid == *pid && held.fd == *fd && held.path == *path),
            (Item::Victim(i), RowKey::Victim { pid, volume }) => snapshot
                .victims
                .get(i)
                .is_some_and(|victim| victim.pid == *pid && victim.volume == *volume),
            _ => false,
        })
    }

    /// The name under which the fold of the row at `index` is stored, and whether the row is now
    /// expanded; `None` if nothing is below it.
    #[must_use]
    pub fn fold_name(&self, snapshot: &Snapshot, index: usize) -> Option<(String, bool)> {
        let row = self.rows.get(index).filter(|row| row.fold != Fold::Leaf)?;
        let name = match row.item {
            Item::Group(i) => group_fold(self.groups.get(i)?),
            Item::Dir(i) => snapshot.dirs.get(i)?.path.clone(),
            _ => return None,
        };
        Some((name, row.fold == Fold::Open))
    }
}
