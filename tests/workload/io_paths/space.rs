//! Space taken without write(2): with mmap, with fallocate, or not at all.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::ptr;

use super::{Done, ODD, ROUND, Site, blocks, check, noise, tmpfile};

/// Stores to every second page of a new, sparse file.
pub fn mmap(site: &Site) -> anyhow::Result<Done> {
    const PAGE: usize = 4096;
    let file = site.create(0)?;
    file.set_len(ROUND as u64)?;
    let mut written = 0;
    // SAFETY: a fresh mapping of ROUND bytes; the file is as long as that; unmapped once.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        let start = libc::mmap(ptr::null_mut(), ROUND, protection, libc::MAP_SHARED, fd, 0);
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        for page in (0..ROUND).step_by(2 * PAGE) {
            start.cast::<u8>().add(page).write_volatile(b'm');
            written += PAGE as u64;
        }
        libc::munmap(start, ROUND);
    }
    let done = site.done(file, written)?;
    Ok(Done { approximate: true, ..done })
}

fn allocate(file: &File, mode: i32, bytes: usize) -> std::io::Result<u64> {
    // SAFETY: the descriptor is open.
    check(unsafe { i64::from(libc::fallocate(file.as_raw_fd(), mode, 0, bytes as i64)) })
}

pub fn fallocate(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    allocate(&file, 0, ROUND)?;
    site.done(file, 0)
}

pub fn fallocate_keep_size(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    allocate(&file, libc::FALLOC_FL_KEEP_SIZE, ROUND)?;
    site.done(file, 0)
}

/// Over written data and beyond it.
pub fn fallocate_zero_range(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let written = file.write_at(&noise(ROUND / 2), 0)? as u64;
    file.sync_all()?;
    allocate(&file, libc::FALLOC_FL_ZERO_RANGE, ROUND)?;
    site.done(file, written)
}

/// Extends a file: a sparse file takes no space.
pub fn ftruncate_up(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    file.set_len(1 << 30)?;
    site.done(file, 0)
}

pub fn o_tmpfile(site: &Site) -> anyhow::Result<Done> {
    let file = tmpfile(&site.dir)?;
    let written = file.write_at(&noise(ODD), 0)? as u64;
    let allocated = blocks(&file)?;
    let ino = file.metadata()?.ino();
    // There is no name left: closing it frees all of it.
    Ok(Done { written, allocated, freed: allocated, ..Done::of(&site.dir, ino) })
}
