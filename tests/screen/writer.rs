//! Processes that fill a volume: forked from the test itself, so that they run in any root
//! directory.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// What a writer does.
pub struct Job<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its root directory, which it writes to.
    pub root: &'a Path,
    /// Maximum bytes of one write, up to 64 KiB; the minimum is half of it.
    pub block: usize,
    /// Milliseconds between two writes; with workers the lifetime of each.
    pub every_ms: u32,
    /// Number of workers, which write one block each to a file of its own; 0: it writes itself, to
    /// one file.
    pub workers: u32,
    /// The cgroup that it moves itself to first.
    pub cgroup: Option<&'a Path>,
}

/// A process that writes until it is dropped.
pub struct Writer {
    pid: libc::pid_t,
}

static BLOCK: [u8; 64 << 10] = [0x5a; 64 << 10];

impl Writer {
    pub fn start(job: &Job<'_>) -> anyhow::Result<Self> {
        let name = CString::new(job.name)?;
        let root = CString::new(job.root.as_os_str().as_bytes())?;
        let procs = job.cgroup.map(|cgroup| cgroup.join("cgroup.procs"));
        let procs = procs.map(|procs| CString::new(procs.as_os_str().as_bytes())).transpose()?;
        ensure!(job.block <= BLOCK.len());
        // SAFETY: the child only makes system calls, on memory that was allocated before.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "{}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: as above; every pointer is to memory that lives until _exit.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
                if let Some(procs) = &procs {
                    let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
                    if libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                        libc::_exit(2);
                    }
                    libc::close(file);
                }
                if libc::chroot(root.as_ptr()) != 0 || libc::chdir(c"/".as_ptr()) != 0 {
                    libc::_exit(3);
                }
                if job.workers == 0 {
                    write_alone(job);
                }
                keep_workers(job)
            }
        }
        Ok(Self { pid })
    }

    /// Its process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        u32::try_from(self.pid).context("a pid is positive")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // SAFETY: no pointers but to `status`; the child is ours and not yet waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// # Safety
/// Only in a forked child, which it ends.
unsafe fn write_alone(job: &Job<'_>) -> ! {
    // SAFETY: system calls on static memory.
    unsafe {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND;
        let file = libc::open(c"grows.log".as_ptr(), flags, 0o600);
        let mut random = libc::getpid().cast_unsigned();
        loop {
            // From half a block to a whole one: no two seconds are the same.
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let part = job.block / 2 * (random >> 16) as usize / 0xffff;
            libc::write(file, BLOCK.as_ptr().cast(), job.block / 2 + part);
            libc::usleep(job.every_ms * 1000);
        }
    }
}

/// # Safety
/// Only in a forked child, which it ends.
unsafe fn keep_workers(job: &Job<'_>) -> ! {
    // SAFETY: system calls on static memory and on the stack.
    unsafe {
        let mut alive = 0;
        loop {
            while alive < job.workers {
                if libc::fork() == 0 {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    // mkstemp's template.
                    let mut name = [b'X'; 7];
                    name[6] = 0;
                    let file = libc::mkstemp(name.as_mut_ptr().cast());
                    libc::write(file, BLOCK.as_ptr().cast(), job.block);
                    libc::usleep(job.every_ms * 1000);
                    libc::_exit(0);
                }
                alive += 1;
            }
            if libc::waitpid(-1, std::ptr::null_mut(), 0) > 0 {
                alive -= 1;
            }
        }
    }
}
