//! Writes that fail because of a quota or a broken disk: what was written before counts, and the
//! failures are counted by kind.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, Truth, need_tracing, run_workload, workload};
use rustix::io::Errno;
use tracer_model::snapshot::{LimitKind, Volume, WriteErrors, Writer};

use crate::{Result, wanted};

const MIB: u64 = 1 << 20;

/// Fills a file until writes fail, and compares filltop's figures with the truth.
fn fill(volume: &TestVolume, arguments: &[&str]) -> anyhow::Result<(Truth, Writer)> {
    fill_volume(volume, arguments).map(|(truth, writer, _)| (truth, writer))
}

/// The same, with the row of the volume.
fn fill_volume(volume: &TestVolume, arguments: &[&str]) -> anyhow::Result<(Truth, Writer, Volume)> {
    let filltop = Filltop::start(&[])?;
    let path = volume.path().join("fills");
    let truth = run_workload(workload().arg("fill").arg(&path).args(arguments))?;
    let measured = filltop.stop()?;
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == truth.total(), "{} of {}", row.written_bytes, truth.total());
    let writer = measured.writers_of(truth.pid).next().context("no writer")?;
    let mount = volume.path().to_str();
    let volumes = &measured.snapshot.volumes;
    let row = volumes.iter().find(|row| Some(row.mount_point.as_str()) == mount);
    Ok((truth, writer.clone(), row.context("no volume")?.clone()))
}

#[test]
fn a_quota_that_is_exceeded() -> Result {
    need_tracing!();
    if !wanted("btrfs") {
        return Ok(());
    }
    let volume = TestVolume::new("btrfs", 256)?;
    limit_space(volume.path(), 20 * MIB)?;
    let (truth, writer, row) = fill_volume(&volume, &["--block", "1000003"])?;
    ensure!(
        truth.errors.get("EDQUOT") == Some(&5),
        "the quota was not enforced: {:?}",
        truth.errors
    );
    ensure!(truth.total() < 20 * MIB, "{} bytes were written", truth.total());
    let WriteErrors { edquot, enospc, .. } = writer.errors;
    ensure!(edquot >= 5 && enospc == 0, "{:?}", writer.errors);
    let quota = row.quotas.first().context("no quota")?;
    ensure!(quota.name == "qgroup 0/5" && quota.limit_bytes == Some(20 * MIB), "{quota:?}");
    ensure!(row.full && row.limit == LimitKind::Quota, "{row:?}");
    Ok(())
}

/// A disk image on a volume without space for it: what cannot be stored is refused as by a broken
/// disk.
#[test]
fn a_disk_that_breaks() -> Result {
    need_tracing!();
    let below = TestVolume::new("tmpfs", 32)?;
    let volume = TestVolume::in_image(below.path(), "ext4", 128)?;
    let (truth, writer) = fill(&volume, &["--block", "65536", "--direct", "--failures", "3"])?;
    let of = |name| truth.errors.get(name).copied().unwrap_or(0);
    let (eio, enospc) = (of("EIO"), of("ENOSPC"));
    ensure!(eio + enospc > 0, "{:?}", truth.errors);
    if eio == 0 {
        println!("the loop device returns ENOSPC: no EIO here");
    }
    let found = writer.errors;
    ensure!(found.eio >= eio && found.enospc >= enospc, "{found:?}, not {:?}", truth.errors);
    ensure!((found.eio == 0) == (eio == 0) && (found.enospc == 0) == (enospc == 0), "{found:?}");
    // Its cached data cannot be written any longer, and must not block the rest.
    fs::remove_file(below.path().join("image"))?;
    Ok(())
}

/// Limits the space of a btrfs volume, as `btrfs quota enable` and `btrfs qgroup limit` do.
fn limit_space(mount_point: &Path, bytes: u64) -> anyhow::Result<()> {
    const QUOTA_ENABLE: u64 = 1;
    const TOP_LEVEL: u64 = 5;
    const LIMIT_REFERENCED: u64 = 1;
    // linux/btrfs.h: BTRFS_IOC_QUOTA_CTL, BTRFS_IOC_QGROUP_LIMIT
    let volume = fs::File::open(mount_point)?;
    ioctl::<0xc010_9428, 2>(&volume, [QUOTA_ENABLE, 0]).context("BTRFS_IOC_QUOTA_CTL")?;
    let limit = [TOP_LEVEL, LIMIT_REFERENCED, bytes, 0, 0, 0];
    ioctl::<0x8030_942b, 6>(&volume, limit).context("BTRFS_IOC_QGROUP_LIMIT")
}

fn ioctl<const CODE: libc::c_ulong, const N: usize>(
    file: &fs::File,
    mut argument: [u64; N],
) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the argument is as large as the code encodes, and lives as long as the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), CODE as _, argument.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).context("errno")?.into()),
    }
}
