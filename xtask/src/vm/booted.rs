//! Whole Debians on disks, for the tests of what systemd does with filltop, and for the incidents'
//! real software on kernels that this machine does not have.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::debian::{KEYRING, mirror};
use crate::packages;
use crate::step::step;
use crate::workspace::Workspace;

const SUITE: &str = "bookworm";
/// Beside what every Debian has: its init, and the bus that systemctl asks.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,kmod";
/// What else the incidents run.
const SOFTWARE: &str = "e2fsprogs,xfsprogs,btrfs-progs,mount,python3-minimal,lsof,apache2-bin,nginx,rclone,\
    restic,etcd-server,rocksdb-tools,postgresql-15";
/// What their packages would start at boot, below the tree's /etc; the tests start them as they want.
const STARTED: &[&str] = &[
    "systemd/system/multi-user.target.wants/nginx.service",
    "systemd/system/multi-user.target.wants/etcd.service",
    "systemd/system/multi-user.target.wants/postgresql.service",
    "postgresql",
];

/// A Debian 12 on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Debian {
    /// The least that systemd runs on.
    Plain,
    /// With what the incidents run.
    Incidents,
}

impl Debian {
    fn name(self) -> String {
        match self {
            Self::Plain => SUITE.to_owned(),
            Self::Incidents => format!("{SUITE}-incidents"),
        }
    }

    fn packages(self) -> String {
        match self {
            Self::Plain => PACKAGES.to_owned(),
            Self::Incidents => format!("{PACKAGES},{SOFTWARE}"),
        }
    }

    /// Three times what is in it. The file is sparse.
    fn size(self) -> &'static str {
        match self {
            Self::Plain => "1G",
            Self::Incidents => "4G",
        }
    }
}

/// The image of an ext4 with a fresh Debian 12; made once, and never written to by a machine.
pub(super) fn image(workspace: &Workspace, debian: Debian) -> Result<PathBuf> {
    let directory = workspace.target.join("vm/debian");
    let image = directory.join(format!("{}.ext4", debian.name()));
    if image.exists() {
        return Ok(image);
    }
    if !packages::is_root() {
        bail!("a Debian is put together by debootstrap, which needs root");
    }
    packages::need(
        "a Debian to boot",
        &[("debootstrap", "debootstrap"), ("unshare", "util-linux")],
    )?;
    fs::create_dir_all(&directory)?;
    let tree = directory.join(format!("{}.tree", debian.name()));
    // What debootstrap mounts there goes with its mount namespace, however it ends.
    ensure!(
        !tree.exists(),
        "{} is left from an attempt that was cut off: remove it",
        tree.display()
    );
    let mut debootstrap = Command::new("unshare");
    debootstrap
        .args(["--mount", "--propagation", "private", "--", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", debian.packages()))
        .args([format!("--keyring={KEYRING}"), SUITE.to_owned()])
        .arg(&tree)
        .arg(mirror()?);
    step(&format!("Debian 12 to boot ({}), once", debian.name()), &mut debootstrap)?;
    for path in STARTED.iter().map(|path| tree.join("etc").join(path)) {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    let part = directory.join(format!("{}.part", debian.name()));
    let mut mkfs = Command::new(packages::program("mkfs.ext4").context("mkfs.ext4 is not here")?);
    mkfs.args(["-q", "-F", "-d"]).arg(&tree).arg(&part).arg(debian.size());
    step("its disk", &mut mkfs)?;
    fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())?;
    fs::rename(&part, &image)?;
    Ok(image)
}
