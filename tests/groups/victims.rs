//! Victims: calls that fail because the volume is full, waits in fsync, and residents of a volume.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing};
use rustix::fs::{FallocateFlags, fallocate};

use super::Result;

#[test]
fn every_call_that_fails_with_enospc_makes_a_victim() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 50)?;
    let mut file = File::create(volume.path().join("all"))?;
    // Uses up all inodes and all blocks.
    let mut n = 0;
    let no_inode = loop {
        match File::create(volume.path().join(format!("{n}"))) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    ensure!(no_inode.raw_os_error() == Some(libc::ENOSPC), "{no_inode}");
    while file.write_all(&vec![7; 1 << 20]).is_ok() {}
    let filltop = Filltop::start(&[])?;
    let is_enospc = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOSPC);
    ensure!(fs::create_dir(volume.path().join("dir")).is_err_and(is_enospc));
    ensure!(File::create(volume.path().join("file")).is_err_and(is_enospc));
    let refused = fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 30, 1 << 20);
    ensure!(refused == Err(rustix::io::Errno::NOSPC), "{refused:?}");
    ensure!(file.write(&vec![7; 1 << 20]).is_err_and(is_enospc));
    let measured = filltop.stop()?;
    let own = std::process::id();
    let mount = volume.path().to_str().context("UTF-8")?;
    let victim = measured.snapshot.victims.iter().find(|row| row.pid == own && row.volume == mount);
    let victim = victim.with_context(|| format!("{:?}", measured.snapshot.victims))?;
    // One each: mkdir, create, fallocate, write.
    ensure!(victim.errors.enospc == 4, "{victim:?}");
    Ok(())
}

#[test]
fn fsync_is_timed() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let mut file = File::create(volume.path().join("wal"))?;
    let mut longest = 0.0f64;
    let mut all = 0.0f64;
    for n in 0..50 {
        file.write_all(&[7; 8192])?;
        let start = std::time::Instant::now();
        if n % 2 == 0 {
            file.sync_all()?;
        } else {
            file.sync_data()?;
        }
        let took = start.elapsed().as_secs_f64() * 1e3;
        longest = longest.max(took);
        all += took;
    }
    let measured = filltop.stop()?;
    let writer = measured.writers_of(std::process::id()).next().context("no row")?;
    let fsync = writer.fsync.context("fsync was not timed")?;
    ensure!(fsync.count == 50, "{fsync:?}");
    ensure!(fsync.max_ms > 0.0 && fsync.max_ms <= longest, "{fsync:?}, longest {longest} ms");
    ensure!(fsync.p99_ms > 0.0 && fsync.p99_ms <= fsync.max_ms, "{fsync:?}");
    ensure!(fsync.max_ms * 50.0 >= all * 0.1, "{fsync:?}, all {all} ms");
    Ok(())
}

#[test]
fn residents_of_a_volume_are_listed() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let wal = volume.path().join("main/pg_wal");
    fs::create_dir_all(&wal)?;
    let mut segment = File::create(wal.join("000000010000000000000001"))?;
    segment.write_all(&vec![7; 1 << 20])?;
    segment.sync_all()?;
    let mut table = File::create(volume.path().join("main/2619"))?;
    table.write_all(&vec![7; 4 << 20])?;
    table.sync_all()?;
    let _reader = File::open(volume.path().join("main/2619"))?;
    let measured = Filltop::start(&[])?.stop()?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let rows: Vec<_> =
        measured.snapshot.residents.iter().filter(|row| row.volume == mount).collect();
    ensure!(rows.len() == 1, "{rows:?}");
    let row = rows[0];
    ensure!(row.databases == ["PostgreSQL"], "{row:?}");
    ensure!((row.processes, row.files, row.bytes) == (1, 2, 5 << 20), "{row:?}");
    ensure!(row.largest.ends_with("main/2619"), "{row:?}");
    Ok(())
}
