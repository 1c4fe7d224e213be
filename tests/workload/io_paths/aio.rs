//! io_submit(2), the system call under libaio.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::ptr;

use super::{Aligned, Done, ROUND, Site, check, completed};

/// `struct iocb` of linux/aio_abi.h, little-endian.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const IOCB_CMD_PWRITE: u16 = 1;

/// Submits four requests at the same time, and waits for all of them.
pub fn write_all(file: &File, buffer: &[u8]) -> anyhow::Result<u64> {
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes one word.
    check(unsafe { libc::syscall(libc::SYS_io_setup, 8, &raw mut context) })?;
    let part = buffer.len() / 4;
    let mut requests: Vec<Iocb> = (0..4)
        .map(|n| Iocb {
            opcode: IOCB_CMD_PWRITE,
            fd: file.as_raw_fd() as u32,
            buffer: buffer[n * part..].as_ptr() as u64,
            bytes: part as u64,
            offset: (n * part) as i64,
            ..Iocb::default()
        })
        .collect();
    let mut pointers: Vec<*mut Iocb> = requests.iter_mut().map(ptr::from_mut).collect();
    let mut events: [Event; 4] = std::array::from_fn(|_| Event::default());
    let mut done = 0;
    let mut written = 0;
    // SAFETY: requests, buffers and events outlive all four requests.
    unsafe {
        let n = check(libc::syscall(libc::SYS_io_submit, context, 4, pointers.as_mut_ptr()))?;
        anyhow::ensure!(n == 4, "{n} of 4 requests submitted");
        while done < 4 {
            let (room, none) = (4 - done, ptr::null::<libc::timespec>());
            let at = events.as_mut_ptr().add(done as usize);
            done += check(libc::syscall(libc::SYS_io_getevents, context, 1, room, at, none))?;
        }
        check(libc::syscall(libc::SYS_io_destroy, context))?;
    }
    for event in &events {
        written += completed(event.result)?;
    }
    Ok(written)
}

pub fn buffered(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(0)?;
    let written = write_all(&file, &Aligned::new(ROUND))?;
    site.done(file, written)
}

pub fn direct(site: &Site) -> anyhow::Result<Done> {
    let file = site.create(libc::O_DIRECT)?;
    let written = write_all(&file, &Aligned::new(ROUND))?;
    site.done_later(file, written)
}
