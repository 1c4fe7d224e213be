//! Every way to write to a file and to free its space, one file each, with the truth about it.
//!
//! The space that a way allocated is `st_blocks` × 512 while its file is still open: every
//! filesystem tested here includes delayed allocation in it. Space that close gives back (xfs
//! preallocates) counts as freed.

mod aio;
mod copy;
mod free;
mod plain;
mod space;
mod uring;

pub use aio::write_all as write_by_aio;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::Context as _;
use serde::Serialize;

/// A round amount, suitable for O_DIRECT.
pub const ROUND: usize = 1 << 20;
/// An amount that ends within a block.
pub const ODD: usize = ROUND + 12_345;

/// What one way did.
#[derive(Serialize, Debug)]
pub struct WayTruth {
    name: &'static str,
    /// The path as this process knows it; for a file without a name, the directory it was created
    /// in.
    path: PathBuf,
    ino: u64,
    pid: u32,
    written: u64,
    allocated: u64,
    freed: u64,
    /// Written is counted per page, or the filesystem allocates and frees some blocks on its own.
    approximate: bool,
    /// Whether it is supported here.
    supported: bool,
    /// The reason if it is not.
    why_not: Option<String>,
}

type Way = fn(&Site) -> anyhow::Result<Done>;

/// All ways, in the order in which they are performed.
const WAYS: &[(&str, Way)] = &[
    ("write", plain::write),
    ("pwrite", plain::pwrite),
    ("writev", plain::writev),
    ("pwritev2", plain::pwritev2),
    ("append", plain::append),
    ("overwrite", plain::overwrite),
    ("cold-source", plain::cold_source),
    ("direct", plain::direct),
    ("sync", plain::sync),
    ("threads-dsync", plain::threads_dsync),
    ("io_uring-write", uring::write),
    ("io_uring-writev", uring::writev),
    ("io_uring-fixed", uring::fixed),
    ("io_uring-direct", uring::direct),
    ("io_uring-sqpoll", uring::sqpoll),
    ("libaio", aio::buffered),
    ("libaio-direct", aio::direct),
    ("mmap", space::mmap),
    ("splice", copy::splice),
    ("sendfile", copy::sendfile),
    ("copy_file_range", copy::copy_file_range),
    ("copy_file_range-across", copy::copy_file_range_across),
    ("reflink", copy::reflink),
    ("fallocate", space::fallocate),
    ("fallocate-keep-size", space::fallocate_keep_size),
    ("fallocate-zero-range", space::fallocate_zero_range),
    ("ftruncate-up", space::ftruncate_up),
    ("o_tmpfile", space::o_tmpfile),
    ("unlink", free::unlink),
    ("close-deleted", free::close_deleted),
    ("truncate", free::truncate),
    ("truncate-rewrite", free::truncate_rewrite),
    ("punch-rewrite", free::punch_rewrite),
    ("o_trunc", free::o_trunc),
    ("punch-hole", free::punch_hole),
    ("rename-over", free::rename_over),
    ("death-o_tmpfile", free::death_with_tmpfile),
];

/// Where a way does its work.
pub struct Site {
    dir: PathBuf,
    path: PathBuf,
}

impl Site {
    /// Another file, next to the way's own.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Creates a file at the way's own path, for reading and writing.
    fn create(&self, flags: i32) -> anyhow::Result<File> {
        create(&self.path, flags)
    }

    /// As [`Site::done`], for direct writes: btrfs records their extents a moment after they ended.
    fn done_later(&self, file: File, written: u64) -> anyhow::Result<Done> {
        file.sync_all()?;
        self.done(file, written)
    }

    /// The way has written this much; its file is closed now.
    fn done(&self, file: File, written: u64) -> anyhow::Result<Done> {
        self.closed(file, written, Duration::ZERO)
    }

    /// As [`Site::done`], where a kernel thread may be the last to release the file: only then
    /// preallocated space is given back.
    fn done_by_a_worker(&self, file: File, written: u64) -> anyhow::Result<Done> {
        self.closed(file, written, Duration::from_secs(1))
    }

    fn closed(&self, file: File, written: u64, patience: Duration) -> anyhow::Result<Done> {
        const AHEAD: u64 = 1 << 16;
        let (meta, allocated) = (file.metadata()?, blocks(&file)?);
        drop(file);
        let start = Instant::now();
        let left = loop {
            let left = fs::metadata(&self.path)?.blocks() * 512;
            if left <= meta.len() + AHEAD || start.elapsed() >= patience {
                break left;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let freed = allocated.saturating_sub(left);
        Ok(Done { allocated, freed, written, ..Done::of(&self.path, meta.ino()) })
    }
}

/// The result of a way on its file.
struct Done {
    path: PathBuf,
    ino: u64,
    pid: u32,
    written: u64,
    allocated: u64,
    freed: u64,
    approximate: bool,
}

impl Done {
    fn of(path: &Path, ino: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            ino,
            pid: std::process::id(),
            written: 0,
            allocated: 0,
            freed: 0,
            approximate: false,
        }
    }
}

/// Performs all ways in `dir`, or the named ones, and syncs the filesystem at the end so that its
/// own accounting has settled.
pub fn perform(dir: &Path, only: &[String]) -> anyhow::Result<Vec<WayTruth>> {
    if let Some(unknown) = only.iter().find(|name| WAYS.iter().all(|(known, _)| known != name)) {
        anyhow::bail!("unknown way {unknown:?}");
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|other| other == name);
    let mut truths = Vec::new();
    for (name, way) in WAYS.iter().filter(|(name, _)| wanted(name)) {
        let site = Site { dir: dir.to_path_buf(), path: dir.join(format!("way-{name}")) };
        truths.push(match way(&site) {
            Ok(done) => WayTruth {
                name,
                path: done.path,
                ino: done.ino,
                pid: done.pid,
                written: done.written,
                allocated: done.allocated,
                freed: done.freed,
                approximate: done.approximate,
                supported: true,
                why_not: None,
            },
            Err(error) if is_unsupported(&error) => WayTruth {
                name,
                path: site.path,
                ino: 0,
                pid: std::process::id(),
                written: 0,
                allocated: 0,
                freed: 0,
                approximate: false,
                supported: false,
                why_not: Some(format!("{error:#}")),
            },
            Err(error) => return Err(error.context(format!("way {name}"))),
        });
    }
    let dir = File::open(dir)?;
    // SAFETY: the descriptor is open.
    check(i64::from(unsafe { libc::syncfs(dir.as_raw_fd()) }))?;
    Ok(truths)
}

/// Whether the kernel or the filesystem reports that it does not support this at all.
fn is_unsupported(error: &anyhow::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    let cannot = [
        libc::ENOSYS,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::EXDEV,
        libc::EISDIR,
        libc::EPERM,
        ENOTSUPP,
    ];
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
        .is_some_and(|errno| cannot.contains(&errno))
}

fn create(path: &Path, flags: i32) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .context(path.display().to_string())
}

/// A file without a name in `dir`.
fn tmpfile(dir: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(dir);
    Ok(file?)
}

/// `st_blocks` × 512.
fn blocks(file: &File) -> anyhow::Result<u64> {
    Ok(file.metadata()?.blocks() * 512)
}

/// The result of a system call that returns −1 and sets errno.
fn check(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The result of a request that is errno itself when negative.
fn completed(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))
}

/// `len` bytes that begin at a multiple of 4,096, for O_DIRECT.
struct Aligned {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let room = noise(len + 4096);
        let start = room.as_ptr().align_offset(4096);
        Self { room, start, len }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

/// Data of which half compresses, so that compression shows in the allocated space.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    (0..len)
        .map(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if n & 4096 == 0 { state as u8 } else { b'z' }
        })
        .collect()
}
