//! Stores into a mapping of a file until the kernel ends the process with SIGBUS.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::mm::{MapFlags, ProtFlags, mmap};

const PAGE: usize = 4096;

/// Stores one byte into each page of a mapping of a sparse file of so many pages, and of one more page
/// beyond its end if `beyond`. The file exists already if there is no space for its name.
pub fn run(path: &Path, pages: usize, beyond: bool) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    file.set_len((pages * PAGE) as u64)?;
    // The standard library's handler lets the store fail once more.
    // SAFETY: the default action, before any other thread exists.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    let mapped = pages + usize::from(beyond);
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping, of which nothing else knows.
    let start = unsafe { mmap(std::ptr::null_mut(), mapped * PAGE, access, flags, &file, 0) }?;
    for page in 0..mapped {
        // SAFETY: within the mapping.
        unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(7) };
    }
    Ok(())
}
