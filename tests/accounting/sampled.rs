//! Space over several samples. Where no hook reports it, filltop reads it from the filesystem once
//! a second, and by then a file may have another name, another length, or no name.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing};

use super::Result;

const LONGER_THAN_AN_INTERVAL: Duration = Duration::from_millis(1_300);
const MIB: u64 = 1 << 20;

/// A file is renamed, truncated, unlinked while open, and closed.
fn follows_a_file_to_its_end(fs_type: &str) -> Result {
    need_tracing!();
    let volume = TestVolume::new(fs_type, 400)?;
    let at = |name: &str| volume.path().join(name);
    let filltop = Filltop::start(&[])?;
    let mut file = File::create(at("a"))?;
    let ino = file.metadata()?.ino();
    file.write_all(&vec![7; 8 << 20])?;
    thread::sleep(LONGER_THAN_AN_INTERVAL);
    fs::rename(at("a"), at("b"))?;
    file.set_len(2 << 20)?;
    thread::sleep(LONGER_THAN_AN_INTERVAL);
    fs::remove_file(at("b"))?;
    thread::sleep(LONGER_THAN_AN_INTERVAL);
    drop(file);
    thread::sleep(LONGER_THAN_AN_INTERVAL);
    // All space is back, and no process is left charged for it.
    let measured = filltop.stop()?;
    let rows = measured.snapshot.paths.iter();
    let row = rows
        .filter(|row| row.ino == ino && Some(row.volume.as_str()) == volume.path().to_str())
        .max_by_key(|row| row.written_bytes)
        .context("no row")?;
    let (allocated, freed) = row.allocated_bytes.zip(row.freed_bytes).context("no space")?;
    ensure!(row.written_bytes == 8 * MIB && row.deleted, "{row:?}");
    ensure!(row.writers == [std::process::id()], "{row:?}");
    // xfs preallocates some space, and frees it on close.
    ensure!((8 * MIB..24 * MIB).contains(&allocated) && allocated == freed, "{row:?}");
    Ok(())
}

#[test]
fn a_file_is_followed_to_its_end_on_xfs() -> Result {
    follows_a_file_to_its_end("xfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_btrfs() -> Result {
    follows_a_file_to_its_end("btrfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_tmpfs() -> Result {
    follows_a_file_to_its_end("tmpfs")
}

#[test]
fn a_file_is_followed_to_its_end_on_ext4() -> Result {
    follows_a_file_to_its_end("ext4")
}

/// Stores through a mapping, which no tracepoint reports.
fn store(file: &File, offset: usize, bytes: usize) -> Result {
    // SAFETY: a new mapping of that length, within the length of the file; unmapped once.
    unsafe {
        let whole = offset + bytes;
        let (rights, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        let start = libc::mmap(std::ptr::null_mut(), whole, rights, libc::MAP_SHARED, fd, 0);
        ensure!(start != libc::MAP_FAILED, std::io::Error::last_os_error());
        start.cast::<u8>().add(offset).write_bytes(b'm', bytes);
        libc::munmap(start, whole);
    }
    Ok(file.sync_all()?)
}

/// Files are created, written a moment later, and extended in a way that may not be seen. Wherever
/// a sample falls in between, all of their space is reported.
#[test]
fn a_file_created_just_before_a_sample_has_all_its_space() -> Result {
    const HALF: usize = 64 << 10;
    need_tracing!();
    let volume = TestVolume::new("xfs", 400)?;
    let filltop = Filltop::start(&["--top", "100000"])?;
    let begun = Instant::now();
    let mut paths = Vec::new();
    while begun.elapsed() < Duration::from_secs(8) {
        let several: Vec<_> = (0..8)
            .map(|n| volume.path().join(format!("file-{}-{n}", paths.len())))
            .map(|path| {
                File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .map(|file| (path, file))
            })
            .collect::<std::io::Result<_>>()?;
        thread::sleep(Duration::from_millis(50));
        for (path, mut file) in several {
            file.write_all(&[7; HALF])?;
            file.set_len(2 * HALF as u64)?;
            store(&file, HALF, HALF)?;
            paths.push(path);
        }
    }
    thread::sleep(LONGER_THAN_AN_INTERVAL);
    let measured = filltop.stop()?;
    let mut short = 0;
    for path in &paths {
        let row = measured.path(path)?;
        let (allocated, freed) = row.allocated_bytes.zip(row.freed_bytes).context("no space")?;
        short += usize::from(allocated - freed < 2 * HALF as u64);
    }
    ensure!(short == 0, "{short} of {} files lack some of their space", paths.len());
    Ok(())
}
