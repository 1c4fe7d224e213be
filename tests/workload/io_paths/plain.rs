//! write(2) and its family.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ptr, slice};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{Aligned, Done, ODD, ROUND, Site, blocks, check, create, noise};

pub fn write(site: &Site) -> anyhow::Result<Done> {
    let mut file = site.create(0)?;
    let buffer = noise(ODD);
    let mut written = 0;
    for part in buffer.chunks(77_777) {
        written += file.write(part)? as u64;
    }
    site.done(file, written)
}

pub fn pwrite(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let written = file.write_at(&noise(ODD), 0)? as u64;
    site.done(file, written)
}

pub fn writev(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let buffer = noise(ODD);
    let parts = vectors(&buffer);
    // SAFETY: the vectors describe `buffer`.
    let result = unsafe { libc::writev(file.as_raw_fd(), parts.as_ptr(), parts.len() as i32) };
    site.done(file, check(result as i64)?)
}

pub fn pwritev2(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let buffer = noise(ODD);
    let parts = vectors(&buffer);
    // SAFETY: the vectors describe `buffer`.
    let result = unsafe {
        let (fd, count) = (file.as_raw_fd(), parts.len() as i32);
        libc::pwritev2(fd, parts.as_ptr(), count, 0, libc::RWF_DSYNC)
    };
    site.done(file, check(result as i64)?)
}

/// A buffer in two parts.
pub fn vectors(buffer: &[u8]) -> [libc::iovec; 2] {
    let (a, b) = buffer.split_at(buffer.len() / 3);
    [a, b]
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
}

pub fn append(site: &Site) -> anyhow::Result<Done> {
    let mut file = OpenOptions::new().create(true).append(true).open(&site.path)?;
    let mut written = 0;
    for part in noise(ODD).chunks(50_000) {
        written += file.write(part)? as u64;
    }
    site.done(file, written)
}

/// The second write is in place: it allocates nothing.
pub fn overwrite(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let buffer = noise(ROUND);
    let mut written = file.write_at(&buffer, 0)? as u64;
    written += file.write_at(&buffer, 0)? as u64;
    site.done(file, written)
}

/// Writes from memory of which only the beginning is resident: the kernel copies up to the missing
/// page, faults it in and continues, and may have to copy again what it had.
pub fn cold_source(site: &Site) -> anyhow::Result<Done> {
    const OFFSET: usize = 1_234;
    let file = site.create(0)?;
    let source = rustix::fs::memfd_create("filltop-source", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::io::write(&source, &noise(ODD + OFFSET))?;
    let mut written = 0;
    // To new pages of the file, and to existing ones.
    for _ in 0..2 {
        // SAFETY: a new mapping of a file of that length that does not change, read within its
        // length until it is unmapped.
        unsafe {
            let (length, protection) = (ODD + OFFSET, ProtFlags::READ);
            let start = mmap(ptr::null_mut(), length, protection, MapFlags::PRIVATE, &source, 0)?;
            let bytes = slice::from_raw_parts(start.cast::<u8>().add(OFFSET), ODD);
            std::hint::black_box(ptr::read_volatile(bytes.as_ptr()));
            written += file.write_at(bytes, 0)? as u64;
            munmap(start, length)?;
        }
    }
    site.done(file, written)
}

pub fn direct(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(libc::O_DIRECT)?;
    let written = file.write_at(&Aligned::new(ROUND), 0)? as u64;
    site.done_later(file, written)
}

pub fn sync(site: &Site) -> anyhow::Result<Done> {
    let mut file = site.create(libc::O_SYNC)?;
    let written = file.write(&noise(ODD))? as u64;
    site.done(file, written)
}

/// 64 threads at the same time, each with its own part of the file: return probes with too few
/// slots lose most of this.
pub fn threads_dsync(site: &Site) -> anyhow::Result<Done> {
    const THREADS: u64 = 64;
    const WRITES: u64 = 16;
    const EACH: u64 = 4096;
    // One descriptor: with more of them, xfs frees its preallocated space each time one is closed,
    // and how often that happens is not known.
    let file = site.create(libc::O_DSYNC)?;
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (file, written) = (&file, &written);
                scope.spawn(move || -> std::io::Result<()> {
                    let buffer = noise(EACH as usize);
                    for n in 0..WRITES {
                        let at = (thread * WRITES + n) * EACH;
                        let done = file.write_at(&buffer, at)? as u64;
                        written.fetch_add(done, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    let done = site.done(file, written.into_inner())?;
    // The filesystem allocates and frees blocks for its tree of extents as they are merged.
    Ok(Done { approximate: true, ..done })
}

/// Creates a file with data, for the ways that free space.
pub fn filled(site: &Site) -> anyhow::Result<(std::fs::File, Done)> {
    let file = create(&site.path, 0)?;
    let done = fill(site, &file)?;
    Ok((file, done))
}

/// Fills an open file.
pub fn fill(site: &Site, file: &std::fs::File) -> anyhow::Result<Done> {
    use std::os::unix::fs::MetadataExt as _;
    let written = file.write_at(&noise(ROUND), 0)? as u64;
    let allocated = blocks(file)?;
    Ok(Done { written, allocated, ..Done::of(&site.path, file.metadata()?.ino()) })
}
