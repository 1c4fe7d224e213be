//! io_uring: no system call per write, and perhaps none at all.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use io_uring::{IoUring, opcode, squeue, types};

use super::plain::vectors;
use super::{Aligned, Done, ODD, ROUND, Site, completed, noise};

/// Submits one request and waits for it.
fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> anyhow::Result<u64> {
    // SAFETY: what the entry points to outlives this call, which waits for its completion.
    unsafe { ring.submission().push(entry)? };
    ring.submit_and_wait(1)?;
    let entry = ring.completion().next().context("no completion")?;
    Ok(completed(i64::from(entry.result()))?)
}

fn write_all(ring: &mut IoUring, file: &File, buffer: &[u8]) -> anyhow::Result<u64> {
    let mut written = 0;
    for (n, part) in buffer.chunks(ROUND / 4).enumerate() {
        let fd = types::Fd(file.as_raw_fd());
        let entry = opcode::Write::new(fd, part.as_ptr(), part.len() as u32)
            .offset((n * ROUND / 4) as u64)
            .build();
        written += submit(ring, &entry)?;
    }
    Ok(written)
}

pub fn write(site: &Site) -> anyhow::Result<Done> {
    let mut ring = IoUring::new(8)?;
    let file = site.create(0)?;
    let written = write_all(&mut ring, &file, &noise(ODD))?;
    site.done_by_a_worker(file, written)
}

pub fn writev(site: &Site) -> anyhow::Result<Done> {
    let mut ring = IoUring::new(8)?;
    let file = site.create(0)?;
    let buffer = noise(ODD);
    let parts = vectors(&buffer);
    let fd = types::Fd(file.as_raw_fd());
    let written =
        submit(&mut ring, &opcode::Writev::new(fd, parts.as_ptr(), parts.len() as u32).build())?;
    site.done_by_a_worker(file, written)
}

pub fn fixed(site: &Site) -> anyhow::Result<Done> {
    let mut ring = IoUring::new(8)?;
    let file = site.create(0)?;
    let buffer = Aligned::new(ROUND);
    let vector = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() };
    // SAFETY: the buffer outlives the ring's last request.
    unsafe { ring.submitter().register_buffers(&[vector])? };
    let fd = types::Fd(file.as_raw_fd());
    let entry = opcode::WriteFixed::new(fd, buffer.as_ptr(), buffer.len() as u32, 0).build();
    let written = submit(&mut ring, &entry)?;
    site.done_by_a_worker(file, written)
}

pub fn direct(site: &Site) -> anyhow::Result<Done> {
    let mut ring = IoUring::new(8)?;
    let file = site.create(libc::O_DIRECT)?;
    let written = write_all(&mut ring, &file, &Aligned::new(ROUND))?;
    site.done_later(file, written)
}

/// A kernel thread takes the requests.
pub fn sqpoll(site: &Site) -> anyhow::Result<Done> {
    let mut ring = IoUring::builder().setup_sqpoll(100).build(8)?;
    let file = site.create(0)?;
    let buffer = noise(ODD);
    // A registered file, which 5.10 requires here.
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let entry = opcode::Write::new(types::Fixed(0), buffer.as_ptr(), buffer.len() as u32).build();
    let written = submit(&mut ring, &entry)?;
    drop(ring);
    site.done_by_a_worker(file, written)
}
