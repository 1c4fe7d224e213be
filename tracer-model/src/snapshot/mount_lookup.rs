//! Where a path lies.

use super::Snapshot;

/// Whether `path` is the directory or lies below it. Paths are those of the Snapshot.
#[must_use]
pub fn is_below(path: &str, directory: &str) -> bool {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the mount point of the volume that a path lies on: the longest one above it.
#[must_use]
pub fn volume_of<'s>(snapshot: &'s Snapshot, path: &str) -> Option<&'s str> {
    snapshot
        .volumes
        .iter()
        .flat_map(|volume| volume.mount_points.iter().map(move |point| (point, volume)))
        .filter(|(point, _)| is_below(path, point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, volume)| volume.mount_point.as_str())
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn is_below_compares_whole_names() {
        assert!(is_below("/srv/a/b", "/srv/a"));
        assert!(is_below("/srv/a", "/srv/a/"));
        assert!(is_below("/srv", "/"));
        assert!(!is_below("/srv/ab", "/srv/a"));
        assert!(!is_below("/srv", "/srv/a"));
    }
}
