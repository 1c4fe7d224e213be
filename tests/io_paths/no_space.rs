//! Calls that fail because the volume is full, whatever the call, the filesystem and the path.

use std::fs::{self, File};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, Measured, TestVolume, fill, fill_up_to, need_tracing, workload};
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, fallocate, mknodat};
use tracer_model::snapshot::{Victim, Volume};

use crate::{Result, wanted};

const MIB: u64 = 1 << 20;

/// Creates a volume that has neither space nor inodes left; `taken` and `sparse` exist on it.
fn full(fs_type: &str) -> anyhow::Result<TestVolume> {
    let options = if fs_type == "tmpfs" { "nr_inodes=100" } else { "" };
    let volume = TestVolume::with_options(fs_type, 300, options)?;
    File::create(volume.path().join("taken"))?;
    File::create(volume.path().join("sparse"))?.set_len(MIB)?;
    let all = volume.path().join("all");
    fill(&all)?;
    let many = volume.path().join("many");
    let is_full = fs::create_dir(&many).is_err();
    for n in 0..1_000_000 {
        if is_full || File::create(many.join(n.to_string())).is_err() {
            // Also what is left after the last inode.
            fill(&volume.path().join("taken"))?;
            return Ok(volume);
        }
    }
    anyhow::bail!("{fs_type} does not run out of inodes")
}

fn volume_row<'m>(measured: &'m Measured, volume: &TestVolume) -> anyhow::Result<&'m Volume> {
    let rows = &mut measured.snapshot.volumes.iter();
    rows.find(|row| Path::new(&row.mount_point) == volume.path()).context("no volume")
}

fn victim<'m>(measured: &'m Measured, pid: u32, volume: &TestVolume) -> anyhow::Result<&'m Victim> {
    let mut rows = measured.snapshot.victims.iter();
    rows.find(|row| row.pid == pid && Path::new(&row.volume) == volume.path())
        .with_context(|| format!("{pid} is not in {:?}", measured.snapshot.victims))
}

/// Counts the calls that fail with ENOSPC.
fn tried<T>(failed: &mut u64, result: io::Result<T>) {
    if result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC)) {
        *failed += 1;
    }
}

fn creations_fail_on(fs_type: &str) -> Result {
    need_tracing!();
    if !wanted(fs_type) {
        return Ok(());
    }
    let volume = full(fs_type)?;
    let at = |name: &str| volume.path().join(name);
    let (long, longer) = (at(&"n".repeat(250)), at(&"m".repeat(250)));
    let filltop = Filltop::start(&[])?;
    let mut failed = 0;
    tried(&mut failed, File::create(at("a file")));
    tried(&mut failed, fs::create_dir(at("a directory")));
    tried(&mut failed, symlink("x".repeat(200), at("a link")));
    let pipe = mknodat(CWD, at("a pipe"), FileType::Fifo, Mode::RWXU, 0);
    tried(&mut failed, pipe.map_err(io::Error::from));
    ensure!(failed >= 2, "only {failed} calls failed for lack of space");
    tried(&mut failed, fs::hard_link(at("taken"), long));
    tried(&mut failed, fs::rename(at("taken"), longer));
    let reserved = fallocate(
        File::options().write(true).open(at("all"))?,
        FallocateFlags::KEEP_SIZE,
        1 << 30,
        MIB,
    );
    tried(&mut failed, reserved.map_err(io::Error::from));
    let mut children = Vec::new();
    for (dir, name) in [(volume.path(), "by name".into()), (Path::new("/"), at("by path"))] {
        let child = Command::new("mkdir").arg(name).current_dir(dir).stderr(Stdio::null()).spawn();
        children.push(child?);
    }
    for child in &mut children {
        ensure!(!child.wait()?.success(), "it was created");
    }
    let measured = filltop.stop()?;
    let own = victim(&measured, std::process::id(), &volume)?;
    ensure!(own.errors.enospc == failed, "{} of {failed}: {own:?}", own.errors.enospc);
    for child in children {
        let child = victim(&measured, child.id(), &volume)?;
        ensure!(child.errors.enospc == 1 && child.comm == "mkdir", "{child:?}");
    }
    ensure!(volume_row(&measured, &volume)?.was_full);
    let elsewhere = measured.snapshot.victims.iter();
    let elsewhere = elsewhere.filter(|row| Path::new(&row.volume) != volume.path());
    ensure!(
        elsewhere.clone().all(|row| row.errors.enospc == 0),
        "{:?}",
        elsewhere.collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn creations_that_fail_on_ext4() -> Result {
    creations_fail_on("ext4")
}

#[test]
fn creations_that_fail_on_xfs() -> Result {
    creations_fail_on("xfs")
}

#[test]
fn creations_that_fail_on_btrfs() -> Result {
    creations_fail_on("btrfs")
}

#[test]
fn creations_that_fail_on_tmpfs() -> Result {
    creations_fail_on("tmpfs")
}

fn stores_fail_on(fs_type: &str) -> Result {
    need_tracing!();
    if !wanted(fs_type) {
        return Ok(());
    }
    let volume = full(fs_type)?;
    let roomy = TestVolume::new("tmpfs", 16)?;
    let filltop = Filltop::start(&[])?;
    let store = |path: &Path, arguments: &[&str]| {
        workload().arg("mapped").arg(path).args(arguments).stdout(Stdio::null()).spawn()
    };
    let mut refused = store(&volume.path().join("sparse"), &["--pages", "256"])?;
    let status = refused.wait()?;
    ensure!(status.signal() == Some(libc::SIGBUS), "{status}");
    // The program's own mistake.
    let mut beyond = store(&roomy.path().join("short"), &["--pages", "1", "--beyond"])?;
    let status = beyond.wait()?;
    ensure!(status.signal() == Some(libc::SIGBUS), "{status}");
    let measured = filltop.stop()?;
    let victim = victim(&measured, refused.id(), &volume)?;
    ensure!(victim.errors.enospc == 1 && victim.errors.eio == 0, "{victim:?}");
    let innocent = measured.snapshot.victims.iter().find(|row| row.pid == beyond.id());
    ensure!(innocent.is_none(), "{innocent:?}");
    Ok(())
}

#[test]
fn stores_into_a_mapping_that_fail_on_ext4() -> Result {
    stores_fail_on("ext4")
}

#[test]
fn stores_into_a_mapping_that_fail_on_xfs() -> Result {
    stores_fail_on("xfs")
}

#[test]
fn stores_into_a_mapping_that_fail_on_tmpfs() -> Result {
    stores_fail_on("tmpfs")
}

/// A server whose write comes back short gives up and removes its file: no call has failed, and the
/// volume is never seen full.
fn short_writes_on(fs_type: &str) -> Result {
    need_tracing!();
    if !wanted(fs_type) {
        return Ok(());
    }
    let volume = TestVolume::new(fs_type, 300)?;
    let block = vec![7; 24 << 20];
    fill_up_to(volume.path(), 40 * MIB)?;
    let filltop = Filltop::start(&[])?;
    let path = volume.path().join("a body");
    let mut short = 0;
    for vectored in [false, true] {
        let mut file = File::create(&path)?;
        loop {
            let parts: Vec<_> = block.chunks(2 << 20).map(IoSlice::new).collect();
            let wrote = if vectored { file.write_vectored(&parts) } else { file.write(&block) };
            match wrote {
                Ok(n) if n == block.len() => {}
                Ok(_) => {
                    short += 1;
                    break;
                }
                // The last write ended exactly at the end of the space.
                Err(error) => {
                    ensure!(error.raw_os_error() == Some(libc::ENOSPC), "{error}");
                    break;
                }
            }
        }
        drop(file);
        fs::remove_file(&path)?;
    }
    // btrfs gives the space back with its next transaction.
    rustix::fs::sync();
    let measured = filltop.stop()?;
    ensure!(short > 0, "no write came back short");
    let victim = victim(&measured, std::process::id(), &volume)?;
    ensure!(victim.errors.short == short, "{short}, but {victim:?}");
    let row = volume_row(&measured, &volume)?;
    ensure!(row.was_full, "{row:?}");
    ensure!(row.avail_bytes > 20 * MIB, "{row:?}");
    Ok(())
}

#[test]
fn short_writes_on_ext4() -> Result {
    short_writes_on("ext4")
}

#[test]
fn short_writes_on_xfs() -> Result {
    short_writes_on("xfs")
}

#[test]
fn short_writes_on_btrfs() -> Result {
    short_writes_on("btrfs")
}

#[test]
fn short_writes_on_tmpfs() -> Result {
    short_writes_on("tmpfs")
}

/// A limit of the process's own makes its write short, too, and a reservation that is larger than the
/// volume fails on a volume with much space left.
#[test]
fn other_limits_do_not_make_a_volume_full() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 128)?;
    let memory = TestVolume::new("tmpfs", 128)?;
    let filltop = Filltop::start(&[])?;
    let path = volume.path().join("limited");
    let mut limited = Command::new("sh")
        .args(["-c", "ulimit -f 16; exec dd if=/dev/zero bs=1048576 count=1"])
        .stdout(File::create(&path)?)
        .stderr(Stdio::null())
        .spawn()?;
    ensure!(!limited.wait()?.success() && path.metadata()?.len() < MIB, "it was not limited");
    let file = File::create(memory.path().join("too large"))?;
    ensure!(fallocate(&file, FallocateFlags::empty(), 0, 1 << 40) == Err(rustix::io::Errno::NOSPC));
    let measured = filltop.stop()?;
    let short = measured.writers_of(limited.id()).map(|row| row.errors.short).sum::<u64>();
    ensure!(short == 0, "{short} short writes");
    let own = victim(&measured, std::process::id(), &memory)?;
    ensure!(own.errors.enospc == 1, "{own:?}");
    for volume in [&volume, &memory] {
        let row = volume_row(&measured, volume)?;
        ensure!(!row.was_full && !row.full, "{row:?}");
    }
    Ok(())
}
