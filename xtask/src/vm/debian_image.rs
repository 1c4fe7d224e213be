//! Disk images with a complete Debian: for the tests of filltop under systemd, and for the incidents'
//! real software on kernels other than this machine's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::kernel::{Kernel, Series};
use crate::apt::{KEYRING, mirror};
use crate::command::{find_program, run_step};
use crate::packages;
use crate::privileges::is_root;
use crate::workspace::Workspace;

/// The generic kernel of each Debian that has an image; its filesystems are modules.
pub(super) const KERNELS: [&str; 2] = ["6.1-generic", "6.12-generic"];
/// The Debian releases of which mirrors still have the main suite, which debootstrap needs.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// Packages in addition to debootstrap's minimal set: systemd, the bus that systemctl uses, udev and kmod to load
/// modules, AppArmor, and the tools that make and mount filesystems.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,udev,kmod,apparmor,passwd,mount,e2fsprogs,xfsprogs,btrfs-progs";
/// Additional packages for the incidents.
const INCIDENTS: &str =
    "python3-minimal,lsof,apache2-bin,nginx,rclone,restic,etcd-server,rocksdb-tools,postgresql";
/// Additional packages for the suite `runtimes`. Their daemons start at boot, as their packages configure them.
const RUNTIMES: &str = "docker.io,podman,crun,netavark,busybox-static";
/// Files below the image's /etc that would start the incidents' services at boot; removed, because the tests start
/// those services themselves.
const STARTED_AT_BOOT: &[&str] = &[
    "systemd/system/multi-user.target.wants/nginx.service",
    "systemd/system/multi-user.target.wants/etcd.service",
    "systemd/system/multi-user.target.wants/postgresql.service",
    "postgresql",
];

/// The software in an image in addition to systemd and filesystem tools.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Software {
    /// No additional software
    Plain,
    /// The software of the incidents, with large test disks.
    #[value(skip)]
    Incidents,
    /// docker and podman, as Debian packages them
    Runtimes,
}

impl Software {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Incidents => "-incidents",
            Self::Runtimes => "-runtimes",
        }
    }

    fn packages(self) -> String {
        match self {
            Self::Plain => PACKAGES.to_owned(),
            Self::Incidents => format!("{PACKAGES},{INCIDENTS}"),
            Self::Runtimes => format!("{PACKAGES},{RUNTIMES}"),
        }
    }

    /// The size of the image, several times that of its contents. The file is sparse.
    const fn size(self) -> &'static str {
        match self {
            Self::Plain => "3G",
            Self::Incidents => "6G",
            Self::Runtimes => "8G",
        }
    }
}

/// Returns an ext4 image with a fresh Debian and all modules of `kernel`, a kernel of `series`. It is built the first
/// time, with debootstrap, and machines never write to it.
///
/// # Errors
/// If mirrors no longer have the release, if this process is not root, or if a step fails.
pub(super) fn build(
    workspace: &Workspace,
    series: &Series,
    kernel: &Kernel,
    software: Software,
) -> Result<PathBuf> {
    let release = series.debian();
    ensure!(
        RELEASES.contains(&release),
        "no Debian image for kernel {}: mirrors have only the security updates of {release}",
        series.name
    );
    let directory = workspace.target.join("vm/debian");
    // Each build of a kernel has its own modules.
    let name = format!("{release}{}-{}", software.suffix(), kernel.release);
    let image = directory.join(format!("{name}.ext4"));
    if image.exists() {
        return Ok(image);
    }
    if !is_root() {
        bail!("building a Debian image with debootstrap needs root; run as root");
    }
    packages::require(
        "building a Debian image",
        &[("debootstrap", "debootstrap"), ("unshare", "util-linux")],
    )?;
    fs::create_dir_all(&directory)?;
    let tree = directory.join(format!("{name}.tree"));
    ensure!(!tree.exists(), "{} is left over from an interrupted build; remove it", tree.display());
    // The mount namespace also removes debootstrap's mounts if it fails.
    let mut debootstrap = Command::new("unshare");
    debootstrap
        .args(["--mount", "--propagation", "private", "--", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", software.packages()))
        .args([format!("--keyring={KEYRING}"), release.to_owned()])
        .arg(&tree)
        .arg(mirror()?);
    run_step(&format!("debootstrap {name} (first time only)"), &mut debootstrap)?;
    for path in STARTED_AT_BOOT.iter().map(|path| tree.join("etc").join(path)) {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    add_modules(kernel, &tree)?;
    let part = directory.join(format!("{name}.part"));
    let mut mkfs = Command::new(find_program("mkfs.ext4").context("mkfs.ext4 not found")?);
    mkfs.args(["-q", "-F", "-d"]).arg(&tree).arg(&part).arg(software.size());
    run_step("mkfs.ext4", &mut mkfs)?;
    fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())?;
    fs::rename(&part, &image)?;
    Ok(image)
}

/// Adds what installing the kernel's package would add, without the kernel image itself.
fn add_modules(kernel: &Kernel, tree: &Path) -> Result<()> {
    let all = tree.join("usr/lib/modules");
    fs::create_dir_all(&all)?;
    let mut copy = Command::new("cp");
    copy.arg("--archive").arg(&kernel.modules).arg(all.join(&kernel.release));
    run_step("copy kernel modules", &mut copy)?;
    if kernel.config.exists() {
        let config = tree.join("boot").join(format!("config-{}", kernel.release));
        fs::copy(&kernel.config, &config).with_context(|| config.display().to_string())?;
    }
    run_step("depmod", Command::new("chroot").arg(tree).args(["depmod", &kernel.release]))?;
    Ok(())
}
