//! Finds where a container's runtime keeps its state through the container's own mounts: these come
//! from the kernel, and are right whatever the runtime's data root is.
//!
//! Sources: moby/daemon (`hostname`, `hosts` and `resolv.conf` of `containers/ID` are mounted into each
//! container); containers/storage (`ROOT/DRIVER/…` and `ROOT/DRIVER-containers`).

use std::path::{Component, Path, PathBuf};

use tracer_host::mounts::Mount;

/// A directory on the host with a runtime's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateDir {
    /// `containers/ID` of Docker.
    Docker(Location),
    /// `ROOT/DRIVER-containers` of containers/storage: Podman, CRI-O.
    Storage(Location),
}

/// How a directory was located.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// By device and path from the root of that device's filesystem.
    On(u32, PathBuf),
    /// By host path.
    Host(PathBuf),
}

/// The files that Docker mounts from a container's state directory: (mount point, file name).
const DOCKER_FILES: [(&str, &str); 3] =
    [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")];

/// Drivers of containers/storage: (directory of the containers' roots below ROOT, directory of the
/// driver's lists).
const DRIVERS: [(&str, &str); 3] = [
    ("overlay", "overlay-containers"),
    ("vfs/dir", "vfs-containers"),
    ("btrfs/subvolumes", "btrfs-containers"),
];

/// The state directories that the mounts of a container lead to.
#[must_use]
pub fn of(mounts: &[Mount], id: &str) -> Vec<StateDir> {
    let docker = mounts.iter().filter_map(|mount| {
        let (_, file) =
            DOCKER_FILES.iter().find(|(point, _)| mount.mount_point == Path::new(point))?;
        let dir = mount.root.parent().filter(|_| mount.root.ends_with(file))?;
        let is_ours = dir.ends_with(Path::new("containers").join(id));
        is_ours.then(|| StateDir::Docker(Location::On(mount.dev, dir.to_path_buf())))
    });
    let mut found: Vec<StateDir> = docker.take(1).collect();
    // The last mount covers the earlier ones.
    let root = mounts.iter().rev().find(|mount| mount.mount_point == Path::new("/"));
    if let Some(root) = root {
        found.extend(storage(root).map(StateDir::Storage));
    }
    found
}

fn storage(root: &Mount) -> Option<Location> {
    let layer = match &root.upper_dir {
        // ROOT/overlay/LAYER/diff
        Some(upper) => upper.parent().filter(|_| upper.ends_with("diff"))?,
        None => &root.root,
    };
    let above = layer.parent()?;
    let (store, list) = DRIVERS.iter().find_map(|(driver, list)| {
        let depth = Path::new(driver).components().count();
        above.ends_with(driver).then(|| above.ancestors().nth(depth).map(|at| (at, list)))?
    })?;
    let dir = store.join(list);
    Some(match &root.upper_dir {
        Some(_) => Location::Host(dir),
        None => Location::On(root.dev, dir),
    })
}

/// Possible host paths of this directory, as (mount point, rest), one for each mount that shows it.
#[must_use]
pub fn on_host(located: &Location, host: &[Mount]) -> Vec<(PathBuf, PathBuf)> {
    match located {
        Location::Host(path) => {
            let rest = path.strip_prefix("/").ok().filter(|rest| is_plain(rest));
            rest.map(|rest| vec![("/".into(), rest.to_path_buf())]).unwrap_or_default()
        }
        Location::On(dev, path) => host
            .iter()
            .filter(|mount| mount.dev == *dev)
            .filter_map(|mount| {
                let rest = path.strip_prefix(&mount.root).ok().filter(|rest| is_plain(rest))?;
                Some((mount.mount_point.clone(), rest.to_path_buf()))
            })
            .collect(),
    }
}

/// Whether a path has no `..`: paths from the kernel have none, but an overlay's mount options are
/// arbitrary text.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use tracer_host::mounts::parse;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
    const DEV: u32 = 7 << 20 | 3;

    fn found(line: &str) -> Vec<StateDir> {
        of(&parse(line.replace("{ID}", ID).as_bytes()), ID)
    }

    #[rstest]
    #[case("hostname", "/etc/hostname")]
    #[case("hosts", "/etc/hosts")]
    #[case("resolv.conf", "/etc/resolv.conf")]
    fn dockers_state_directory_is_where_its_files_are_mounted_from(
        #[case] file: &str,
        #[case] point: &str,
    ) {
        let line = format!("9 1 7:3 /d/containers/{{ID}}/{file} {point} rw - ext4 /dev/loop3 rw\n");
        let dir = PathBuf::from(format!("/d/containers/{ID}"));
        assert_eq!(found(&line), [StateDir::Docker(Location::On(DEV, dir))]);
    }

    #[rstest]
    #[case::another_id("9 1 7:3 /d/containers/ab/hostname /etc/hostname rw - ext4 /dev/loop3 rw\n")]
    #[case::elsewhere(
        "9 1 7:3 /d/containers/{ID}/hostname /tmp/hostname rw - ext4 /dev/loop3 rw\n"
    )]
    #[case::another_file("9 1 7:3 /d/containers/{ID}/x /etc/hostname rw - ext4 /dev/loop3 rw\n")]
    #[case::not_a_layer("9 1 7:3 /srv/jail / rw - ext4 /dev/loop3 rw\n")]
    #[case::the_hosts_root("9 1 7:3 / / rw - ext4 /dev/loop3 rw\n")]
    #[case::dockers_overlay(
        "9 1 0:9 / / rw - overlay overlay rw,upperdir=/d/overlay2/b7/diff,workdir=/w\n"
    )]
    fn other_mounts_lead_to_no_state(#[case] line: &str) {
        assert_eq!(found(line), []);
    }

    #[rstest]
    #[case(
        "9 1 0:9 / / rw - overlay overlay rw,upperdir=/s/overlay/b7/diff,workdir=/w\n",
        Location::Host("/s/overlay-containers".into())
    )]
    #[case("9 1 7:3 /s/vfs/dir/b7 / rw - ext4 /dev/loop3 rw\n", Location::On(DEV, "/s/vfs-containers".into()))]
    #[case(
        "9 1 7:3 /s/btrfs/subvolumes/b7 / rw - btrfs /dev/loop3 rw\n",
        Location::On(DEV, "/s/btrfs-containers".into())
    )]
    fn the_root_names_the_store(#[case] line: &str, #[case] expected: Location) {
        assert_eq!(found(line), [StateDir::Storage(expected)]);
    }

    #[test]
    fn a_directory_is_found_below_the_hosts_mounts() {
        let host = parse(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 7:3 /part /srv rw - ext4 /dev/loop3 rw\n\
              3 1 7:3 / /mnt rw - ext4 /dev/loop3 rw\n",
        );
        let at = |located: &Location| on_host(located, &host);
        let path = |point: &str, rest: &str| (PathBuf::from(point), PathBuf::from(rest));
        assert_eq!(
            at(&Location::On(DEV, "/part/d".into())),
            [path("/srv", "d"), path("/mnt", "part/d")]
        );
        assert_eq!(at(&Location::On(DEV, "/other/d".into())), [path("/mnt", "other/d")]);
        assert_eq!(at(&Location::On(5, "/d".into())), []);
        assert_eq!(at(&Location::Host("/a/b".into())), [path("/", "a/b")]);
        assert_eq!(at(&Location::Host("/a/../b".into())), []);
    }
}
