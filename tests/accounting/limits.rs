//! Limits other than the space of a volume, and what a volume is stored in.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, need_tracing};
use tracer_model::snapshot::{LimitKind, Volume};

use super::Result;

const MIB: u64 = 1 << 20;

fn row<'m>(measured: &'m Measured, mount: &Path) -> anyhow::Result<&'m Volume> {
    let rows = &measured.snapshot.volumes;
    let row = rows.iter().find(|row| Some(row.mount_point.as_str()) == mount.to_str());
    row.with_context(|| format!("no row for {}", mount.display()))
}

/// Fills all chunks for data, frees a third of it, then creates files until that fails: `df` shows
/// free space to the end.
#[test]
fn a_btrfs_whose_metadata_is_used_up_is_full() -> Result {
    need_tracing!();
    let volume = TestVolume::new("btrfs", 320)?;
    let block = vec![7_u8; 4 << 20];
    let data = |n: usize| volume.path().join(format!("data-{n}"));
    let written = (0..).take_while(|n| fs::write(data(*n), &block).is_ok()).count();
    ensure!(written > 10, "{written} files");
    for n in (0..=written).step_by(3) {
        fs::remove_file(data(n))?;
    }
    fs::File::open(volume.path())?.sync_all()?;
    let filltop = Filltop::start(&[])?;
    let small = vec![7_u8; 1_800];
    let mut created = 0;
    while fs::write(volume.path().join(format!("mail-{created}")), &small).is_ok() {
        created += 1;
    }
    let free = rustix::fs::statvfs(volume.path())?;
    let free = free.f_bavail * free.f_frsize;
    let measured = filltop.stop()?;
    println!("{created} files were created, {free} bytes are available");
    ensure!(free > 16 * MIB, "{free} bytes are available: the metadata was not used up first");
    let row = row(&measured, volume.path())?;
    ensure!(row.full && row.limit == LimitKind::Metadata, "{row:?}");
    let space = row.btrfs.context("its space is unknown")?;
    ensure!(space.unallocated_bytes < 8 * MIB, "{space:?}");
    ensure!(space.data_total_bytes - space.data_used_bytes > 16 * MIB, "{space:?}");
    let left = space.metadata_total_bytes - space.metadata_used_bytes;
    ensure!(left < 8 * MIB, "{space:?}");
    Ok(())
}

#[test]
fn a_fresh_btrfs_has_space_of_all_kinds() -> Result {
    need_tracing!();
    let volume = TestVolume::new("btrfs", 320)?;
    let filltop = Filltop::start(&[])?;
    fs::write(volume.path().join("a"), vec![7; 1 << 20])?;
    let measured = filltop.stop()?;
    let row = row(&measured, volume.path())?;
    let space = row.btrfs.context("its space is unknown")?;
    ensure!(!row.full && space.unallocated_bytes > 100 * MIB, "{row:?}");
    // Metadata has two copies.
    let parts = space.data_total_bytes + 2 * space.metadata_total_bytes + space.unallocated_bytes;
    ensure!(parts <= row.total_bytes && parts > row.total_bytes / 10 * 9, "{row:?}");
    Ok(())
}

/// The image of a loop device is named, by the path that it has on the host.
#[test]
fn a_volume_in_a_file_names_the_file() -> Result {
    need_tracing!();
    let below = TestVolume::new("ext4", 200)?;
    let volume = TestVolume::in_image(below.path(), "ext4", 64)?;
    let measured = Filltop::start(&[])?.stop()?;
    let row = row(&measured, volume.path())?;
    let image = below.path().join("image");
    ensure!(row.backing_file.as_deref() == image.to_str(), "{row:?}");
    Ok(())
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Default)]
struct QuotaLimits {
    hard_kib: u64,
    soft_kib: u64,
    space: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    grace: [u64; 2],
    valid: u32,
    pad: u32,
}

/// Puts a directory, and what will be created in it, into a project with a limit.
fn limit_project(dir: &Path, project: u32, hard_kib: u64) -> Result {
    const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
    const FS_XFLAG_PROJINHERIT: u32 = 0x200;
    /// QCMD(Q_SETQUOTA, PRJQUOTA)
    const SET: u32 = 0x80_0008 << 8 | 2;
    const QIF_BLIMITS: u32 = 1;
    let opened = fs::File::open(dir)?;
    let attributes = FileAttributes { flags: FS_XFLAG_PROJINHERIT, project, ..Default::default() };
    let limits = QuotaLimits { hard_kib, valid: QIF_BLIMITS, ..Default::default() };
    let fd = opened.as_raw_fd();
    // SAFETY: both calls read a struct of the size that they expect.
    unsafe {
        ensure!(
            libc::ioctl(fd, FS_IOC_FSSETXATTR, &raw const attributes) == 0,
            "FS_IOC_FSSETXATTR: {}",
            std::io::Error::last_os_error()
        );
        ensure!(
            libc::syscall(libc::SYS_quotactl_fd, fd, SET, project, &raw const limits) == 0,
            "quotactl_fd: {}",
            std::io::Error::last_os_error()
        );
    }
    Ok(())
}

/// A project's quota is used up while the volume has nearly all of its space left.
#[test]
fn a_project_quota_is_a_limit() -> Result {
    need_tracing!();
    let Ok(volume) = TestVolume::with_options("xfs", 400, "prjquota") else {
        println!("SKIP a_project_quota_is_a_limit: xfs has no quotas here (CONFIG_XFS_QUOTA)");
        return Ok(());
    };
    let dir = volume.path().join("tenant");
    fs::create_dir(&dir)?;
    limit_project(&dir, 42, 16 << 10)?;
    let filltop = Filltop::start(&[])?;
    let block = vec![7_u8; 1 << 20];
    let written = (0..).take_while(|n| fs::write(dir.join(format!("{n}")), &block).is_ok()).count();
    ensure!((14..=16).contains(&written), "{written} MiB were written");
    let measured = filltop.stop()?;
    let row = row(&measured, volume.path())?;
    let [quota] = &row.quotas[..] else { bail!("{row:?}") };
    ensure!(quota.name == "project 42" && quota.limit_bytes == Some(16 * MIB), "{quota:?}");
    ensure!(quota.used_bytes > 13 * MIB, "{quota:?}");
    ensure!(row.limit == LimitKind::Quota, "{row:?}");
    Ok(())
}
