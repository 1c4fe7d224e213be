//! Whole Debians on disks, for the tests of what systemd does with filltop, and for the incidents'
//! real software on kernels that this machine does not have.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::debian::{KEYRING, Kernel, Series, mirror};
use crate::packages;
use crate::step::step;
use crate::workspace::Workspace;

/// The kernels that Debian installs on a computer, on each of the Debians that are booted: filesystems are modules.
pub(super) const KERNELS: [&str; 2] = ["6.1-generic", "6.12-generic"];
/// The Debians that the mirrors still have whole, which debootstrap needs.
const DEBIANS: [&str; 2] = ["bookworm", "trixie"];

/// Beside what every Debian has: its init, the bus that systemctl asks, what finds and loads modules, AppArmor's
/// profiles, and what makes and mounts filesystems.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,udev,kmod,apparmor,passwd,mount,e2fsprogs,xfsprogs,btrfs-progs";
/// What else the incidents run.
const SOFTWARE: &str =
    "python3-minimal,lsof,apache2-bin,nginx,rclone,restic,etcd-server,rocksdb-tools,postgresql";
/// What the suite `runtimes` runs there. Their daemons start at boot, as on people's machines.
const RUNTIMES: &str = "docker.io,podman,crun,netavark,busybox-static";
/// What packages of the incidents would start at boot, below the tree's /etc; the tests start them as they want.
const STARTED: &[&str] = &[
    "systemd/system/multi-user.target.wants/nginx.service",
    "systemd/system/multi-user.target.wants/etcd.service",
    "systemd/system/multi-user.target.wants/postgresql.service",
    "postgresql",
];

/// What a Debian has beside what systemd and filesystems need.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Software {
    /// Nothing.
    Plain,
    /// What the incidents run, which have large test disks.
    #[value(skip)]
    Incidents,
    /// docker and podman as Debian has them
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
            Self::Incidents => format!("{PACKAGES},{SOFTWARE}"),
            Self::Runtimes => format!("{PACKAGES},{RUNTIMES}"),
        }
    }

    /// Some times what is in it. The file is sparse.
    const fn size(self) -> &'static str {
        match self {
            Self::Plain => "3G",
            Self::Incidents => "6G",
            Self::Runtimes => "8G",
        }
    }
}

/// The image of an ext4 with a fresh Debian and all modules of this kernel, which is of the series; made once,
/// and never written to by a machine.
pub(super) fn image(
    workspace: &Workspace,
    series: &Series,
    kernel: &Kernel,
    software: Software,
) -> Result<PathBuf> {
    let debian = series.debian();
    ensure!(
        DEBIANS.contains(&debian),
        "there is no Debian to boot with kernel {}: of {} the mirrors keep updates alone",
        series.name,
        debian
    );
    let directory = workspace.target.join("vm/debian");
    // A newer build of the kernel has other modules.
    let name = format!("{debian}{}-{}", software.suffix(), kernel.release);
    let image = directory.join(format!("{name}.ext4"));
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
    let tree = directory.join(format!("{name}.tree"));
    // What debootstrap mounts there goes with its mount namespace, however it ends.
    ensure!(
        !tree.exists(),
        "{} is left from an attempt that was cut off: remove it",
        tree.display()
    );
    let mut debootstrap = Command::new("unshare");
    debootstrap
        .args(["--mount", "--propagation", "private", "--", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", software.packages()))
        .args([format!("--keyring={KEYRING}"), debian.to_owned()])
        .arg(&tree)
        .arg(mirror()?);
    step(&format!("Debian {debian} to boot ({name}), once"), &mut debootstrap)?;
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
    add_modules(kernel, &tree)?;
    let part = directory.join(format!("{name}.part"));
    let mut mkfs = Command::new(packages::program("mkfs.ext4").context("mkfs.ext4 is not here")?);
    mkfs.args(["-q", "-F", "-d"]).arg(&tree).arg(&part).arg(software.size());
    step("its disk", &mut mkfs)?;
    fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())?;
    fs::rename(&part, &image)?;
    Ok(image)
}

/// What installing the kernel's package leaves there, but for the kernel itself.
fn add_modules(kernel: &Kernel, tree: &Path) -> Result<()> {
    let all = tree.join("usr/lib/modules");
    fs::create_dir_all(&all)?;
    let mut copy = Command::new("cp");
    copy.arg("--archive").arg(&kernel.modules).arg(all.join(&kernel.release));
    step("modules of its kernel", &mut copy)?;
    if kernel.config.exists() {
        let config = tree.join("boot").join(format!("config-{}", kernel.release));
        fs::copy(&kernel.config, &config).with_context(|| config.display().to_string())?;
    }
    step("depmod", Command::new("chroot").arg(tree).args(["depmod", &kernel.release]))?;
    Ok(())
}
