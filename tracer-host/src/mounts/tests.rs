use super::*;

const INFO: &str = "\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw
23 22 0:21 / /proc rw - proc proc rw
30 22 259:1 /var/data /srv/my\\040data rw - ext4 /dev/nvme0n1p1 rw
31 22 0:40 /@home /home rw - btrfs /dev/sdb1 rw,subvol=/@home
32 22 0:41 / /snap/x ro - squashfs /dev/loop3 ro
33 22 7:1 / /mnt/ro rw - ext4 /dev/loop1 ro
garbage line
34 22 nonsense / / rw - ext4 x rw
";

#[test]
fn mounts_are_grouped_by_device_without_pseudo_filesystems() {
    let volumes = volumes(parse(INFO.as_bytes()));
    assert_eq!(volumes.len(), 2);
    assert_eq!(volumes[0].dev, 40);
    assert_eq!(volumes[1].dev, 259 << 20 | 1);
    assert_eq!(volumes[1].primary().mount_point, Path::new("/"));
    assert_eq!(volumes[1].mounts[1].mount_point, Path::new("/srv/my data"));
}

#[test]
fn paths_are_converted_to_host_paths() {
    let volumes = volumes(parse(INFO.as_bytes()));
    let on = |n: usize, path: &str| volumes[n].host_path(Path::new(path));
    assert_eq!(on(1, "/var/data/x"), Some(PathBuf::from("/var/data/x")));
    assert_eq!(on(0, "/@home/me/f"), Some(PathBuf::from("/home/me/f")));
    assert_eq!(on(0, "/@home"), Some(PathBuf::from("/home")));
    // In a subvolume that is not mounted anywhere.
    assert_eq!(on(0, "/@snapshots/1/f"), None);
}

#[test]
fn hidden_mounts_come_last() {
    let first = |info: &str| {
        let volumes = volumes(parse(info.as_bytes()));
        let volume = volumes.iter().find(|volume| volume.dev == 7 << 20 | 1).unwrap();
        volume.primary().mount_point.to_str().unwrap().to_owned()
    };
    let root = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
    let twice =
        "2 1 7:1 / /a rw - ext4 /dev/loop1 rw\n3 1 7:1 / /mnt/long rw - ext4 /dev/loop1 rw\n";
    assert_eq!(first(&format!("{root}{twice}")), "/a");
    let on_it = "4 2 0:9 / /a rw - tmpfs tmpfs rw\n";
    assert_eq!(first(&format!("{root}{twice}{on_it}")), "/mnt/long");
    let below = "4 2 0:9 / /a/b rw - tmpfs tmpfs rw\n";
    assert_eq!(first(&format!("{root}{twice}{below}")), "/a", "a part of it is covered");
    // On a parent directory, mounted later: the mount below it cannot be reached.
    let deep =
        "2 1 7:1 / /srv/a rw - ext4 /dev/loop1 rw\n3 1 7:1 / /mnt/longer rw - ext4 /dev/loop1 rw\n";
    let above = "4 1 0:9 / /srv rw - tmpfs tmpfs rw\n";
    assert_eq!(first(&format!("{root}{deep}{above}")), "/mnt/longer");
    let within =
        "2 4 7:1 / /srv/a rw - ext4 /dev/loop1 rw\n3 1 7:1 / /mnt/longer rw - ext4 /dev/loop1 rw\n";
    assert_eq!(first(&format!("{root}{above}{within}")), "/srv/a", "mounted after it");
}

#[test]
fn a_pods_mount_is_preferred_to_kubelets_own_mount() {
    let pvc = "pvc-7c1f/globalmount";
    let info = format!(
        "2 1 7:1 / /var/lib/kubelet/plugins/kubernetes.io/csi/pv/{pvc} rw - ext4 /dev/loop1 rw\n\
             3 1 7:1 / /var/lib/kubelet/pods/5fb2a3c4-d5e6-4789-8abc-0123456789ab/volumes/kubernetes.io~csi/pvc-7c1f/mount rw - ext4 /dev/loop1 rw\n"
    );
    let volumes = volumes(parse(info.as_bytes()));
    assert!(volumes[0].primary().mount_point.ends_with("kubernetes.io~csi/pvc-7c1f/mount"));
}

#[test]
fn reads_this_machine() {
    let volumes = read().unwrap();
    assert!(volumes.iter().any(|volume| volume.space().is_some_and(|s| s.total > 0)));
}

#[test]
fn a_path_below_a_later_mount_is_hidden() {
    let info = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 7:1 / /data rw - ext4 /dev/loop1 rw
3 2 7:2 / /data rw - ext4 /dev/loop2 rw
4 1 7:3 / /srv/a rw - ext4 /dev/loop3 rw
5 1 0:9 / /srv rw - tmpfs tmpfs rw
6 1 8:1 /home /mnt/home rw - ext4 /dev/sda1 rw
7 1 0:10 / /home rw - tmpfs tmpfs rw
8 1 8:1 /var /var rw - ext4 /dev/sda1 rw
";
    let volumes = volumes(parse(info.as_bytes()));
    let of = |dev: u32| volumes.iter().find(|volume| volume.dev == dev).unwrap();
    let root = of(8 << 20 | 1);
    let by = |volume: &MountedVolume, path: &str| {
        volume.hidden_by(Path::new(path)).map(|by| by.to_str().unwrap().to_owned())
    };
    assert_eq!(by(root, "/data/x"), Some("/data".to_owned()));
    assert_eq!(by(root, "/srv/a/x"), Some("/srv".to_owned()), "the highest of several");
    assert_eq!(by(root, "/database"), None);
    // Its own mount shows the same file there.
    assert_eq!(by(root, "/var/log/x"), None);
    let host = |within: &str| root.host_path(Path::new(within)).unwrap();
    assert_eq!(host("/home/x"), Path::new("/mnt/home/x"), "shown elsewhere");
    assert_eq!(host("/srv/x"), Path::new("/srv/x"), "shown nowhere");
    assert_eq!(host("/var/x"), Path::new("/var/x"));
    let hidden = [7 << 20 | 1, 7 << 20 | 3].map(|dev| of(dev).is_hidden());
    assert_eq!(hidden, [true, true]);
    assert_eq!(by(of(7 << 20 | 3), "/srv/a/x"), Some("/srv".to_owned()));
    let shown = [7 << 20 | 2, 8 << 20 | 1, 9, 10].map(|dev| of(dev).is_hidden());
    assert_eq!(shown, [false; 4]);
    // Both are mounted at /data; rows are told apart by this name.
    assert_eq!(of(7 << 20 | 2).name(), "/data");
    assert_eq!(of(7 << 20 | 1).name(), "/data (hidden, /dev/loop1)");
    assert_eq!(of(7 << 20 | 3).name(), "/srv/a");
}
