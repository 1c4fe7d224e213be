//! A whole Debian on a disk, for the tests of what systemd does with filltop.

use std::fs;
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
/// Three times what is in it.
const SIZE: &str = "1G";

/// The image of an ext4 with a fresh Debian 12; made once, and never written to by a machine.
pub(super) fn image(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("vm/debian");
    let image = directory.join(format!("{SUITE}.ext4"));
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
    let tree = directory.join("tree");
    // What debootstrap mounts there goes with its mount namespace, however it ends.
    ensure!(
        !tree.exists(),
        "{} is left from an attempt that was cut off: remove it",
        tree.display()
    );
    let mut debootstrap = Command::new("unshare");
    debootstrap
        .args(["--mount", "--propagation", "private", "--", "debootstrap", "--variant=minbase"])
        .args([format!("--include={PACKAGES}"), format!("--keyring={KEYRING}"), SUITE.to_owned()])
        .arg(&tree)
        .arg(mirror()?);
    step("Debian 12 to boot, once", &mut debootstrap)?;
    let part = directory.join("part");
    let mut mkfs = Command::new(packages::program("mkfs.ext4").context("mkfs.ext4 is not here")?);
    mkfs.args(["-q", "-F", "-d"]).arg(&tree).arg(&part).arg(SIZE);
    step("its disk", &mut mkfs)?;
    fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())?;
    fs::rename(&part, &image)?;
    Ok(image)
}
