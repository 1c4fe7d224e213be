//! Mounts that hide others, or a part of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tracer_model::sanitize;
use tracer_model::sanitize::lossless_path;

use super::{Mount, MountedVolume};

/// Fills in the mount points that hide each mount, or a part of it.
pub(super) fn find(mounts: &mut [Mount]) {
    let ids: HashMap<u32, usize> =
        mounts.iter().zip(0..).map(|(mount, at)| (mount.id, at)).collect();
    // Indices of the mounts on each mount.
    let mut on: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, mount) in mounts.iter().enumerate().filter(|(_, mount)| mount.parent != mount.id) {
        on.entry(mount.parent).or_default().push(at);
    }
    let points_on = |id: u32| on.get(&id).into_iter().flatten().map(|at| &mounts[*at]);
    let covers: Vec<HashSet<PathBuf>> = mounts
        .iter()
        .map(|mount| {
            // Mounts on this one hide what is below their mount points.
            let mut covers: HashSet<PathBuf> =
                points_on(mount.id).map(|child| child.mount_point.clone()).collect();
            // Another mount on its parent, at a directory between the parent's root and this one,
            // hides all of it.
            let mut child = mount;
            for _ in 0..mounts.len() {
                let parent = ids.get(&child.parent).map(|at| &mounts[*at]);
                let Some(parent) = parent.filter(|parent| parent.id != child.id) else { break };
                let hiding = points_on(parent.id).filter(|other| {
                    other.id != child.id
                        && child.mount_point.starts_with(&other.mount_point)
                        && other.mount_point.starts_with(&parent.mount_point)
                });
                covers.extend(hiding.map(|other| other.mount_point.clone()));
                child = parent;
            }
            covers
        })
        .collect();
    for (mount, covers) in mounts.iter_mut().zip(covers) {
        mount.covers = covers;
    }
}

/// Marks hidden volumes with the same mount point as another volume.
pub(super) fn tell_apart(volumes: &mut [MountedVolume]) {
    let mut at: HashMap<PathBuf, usize> = HashMap::new();
    for volume in volumes.iter() {
        *at.entry(volume.primary().mount_point.clone()).or_default() += 1;
    }
    for volume in volumes.iter_mut().filter(|volume| volume.is_hidden()) {
        volume.shares_mount_point = at.get(&volume.primary().mount_point).is_some_and(|n| *n > 1);
    }
}

impl Mount {
    /// The mount point of a later mount that hides this path, which is below this mount's own mount
    /// point; of several, the highest. `None` if the path leads to what this mount shows there.
    #[must_use]
    pub fn hidden_by<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        if self.covers.is_empty() {
            return None;
        }
        path.ancestors().filter(|at| self.covers.contains(*at)).last()
    }

    /// Whether later mounts hide all of it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.hidden_by(&self.mount_point).is_some()
    }
}

impl MountedVolume {
    /// The name of the volume in all rows: its first mount point, escaped if it is not UTF-8. For a
    /// hidden volume, which another one may have, it includes the device.
    #[must_use]
    pub fn name(&self) -> String {
        let mount_point = lossless_path(&self.primary().mount_point);
        if self.shares_mount_point {
            format!("{mount_point} (hidden, {})", sanitize::lossless(self.source.as_bytes()))
        } else {
            mount_point
        }
    }

    /// The mount point of the later mount that hides a path of the host on this volume. `None` if
    /// the path leads to this volume's file.
    #[must_use]
    pub fn hidden_by<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        if self.container.is_some() {
            return None;
        }
        let mut mounts = self.mounts.iter().filter(|mount| path.starts_with(&mount.mount_point));
        let hidden = mounts.next()?.hidden_by(path)?;
        // Another of its mounts may be the one that hides it, and show the same file.
        mounts.all(|mount| mount.hidden_by(path).is_some()).then_some(hidden)
    }

    /// Whether later mounts hide all its mount points, so that no path of the host leads to it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.container.is_none() && self.mounts.iter().all(Mount::is_hidden)
    }
}
