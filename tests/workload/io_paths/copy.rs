//! Bytes that come from another file or a pipe without passing through the process.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use super::{Done, ODD, ROUND, Site, check, create, noise};

/// A file in memory, on no volume.
fn memory(bytes: usize) -> anyhow::Result<File> {
    // SAFETY: a new descriptor that nothing else owns.
    let mut file = unsafe {
        let fd = check(i64::from(libc::memfd_create(c"source".as_ptr(), 0)))?;
        File::from(OwnedFd::from_raw_fd(fd as i32))
    };
    file.write_all(&noise(bytes))?;
    Ok(file)
}

pub fn splice(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let (reader, mut writer) = std::io::pipe()?;
    let mut written = 0;
    for part in noise(ODD).chunks(60_000) {
        writer.write_all(part)?;
        let mut left = part.len();
        while left > 0 {
            let (from, to) = (reader.as_raw_fd(), file.as_raw_fd());
            // SAFETY: no offsets are given.
            let n = check(unsafe {
                libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), left, 0) as i64
            })?;
            written += n;
            left -= n as usize;
        }
    }
    site.done(file, written)
}

pub fn sendfile(site: &Site) -> anyhow::Result<Done> {
    let source = memory(ODD)?;
    let file = site.create(0)?;
    let mut offset = 0;
    let mut written = 0;
    while written < ODD as u64 {
        let left = ODD - written as usize;
        // SAFETY: the offset is a local variable.
        written += check(unsafe {
            libc::sendfile(file.as_raw_fd(), source.as_raw_fd(), &raw mut offset, left) as i64
        })?;
    }
    site.done(file, written)
}

fn copied(source: &File, file: &File, bytes: usize) -> anyhow::Result<u64> {
    let (mut from, mut to) = (0, 0);
    let mut written = 0;
    while written < bytes as u64 {
        let left = bytes - written as usize;
        let (input, output) = (source.as_raw_fd(), file.as_raw_fd());
        // SAFETY: the offsets are local variables.
        let n = check(unsafe {
            libc::copy_file_range(input, &raw mut from, output, &raw mut to, left, 0) as i64
        })?;
        anyhow::ensure!(n > 0, "copy_file_range stopped at {written} bytes");
        written += n;
    }
    Ok(written)
}

/// Within one filesystem, which shares extents where it can.
pub fn copy_file_range(site: &Site) -> anyhow::Result<Done> {
    let mut source = create(&site.beside("-source"), 0)?;
    source.write_all(&noise(ROUND))?;
    source.sync_all()?;
    let shares = ficlone(&source, &create(&site.beside("-probe"), 0)?).is_ok();
    let file = site.create(0)?;
    let written = copied(&source, &file, ROUND)?;
    let done = site.done(file, written)?;
    Ok(if shares { Done { allocated: 0, freed: 0, ..done } } else { done })
}

pub fn copy_file_range_across(site: &Site) -> anyhow::Result<Done> {
    let source = memory(ODD)?;
    let file = site.create(0)?;
    let written = copied(&source, &file, ODD)?;
    site.done(file, written)
}

fn ficlone(source: &File, file: &File) -> std::io::Result<u64> {
    // SAFETY: both are open; the request takes a descriptor.
    check(unsafe { i64::from(libc::ioctl(file.as_raw_fd(), libc::FICLONE, source.as_raw_fd())) })
}

/// All extents are shared with another file: the volume loses no space.
pub fn reflink(site: &Site) -> anyhow::Result<Done> {
    let mut source = create(&site.beside("-source"), 0)?;
    source.write_all(&noise(ROUND))?;
    source.sync_all()?;
    let file = site.create(0)?;
    ficlone(&source, &file)?;
    let done = site.done(file, ROUND as u64)?;
    Ok(Done { allocated: 0, freed: 0, ..done })
}
