//! The loops: each a batch of one operation, repeated. Loops that write allocate nothing, because
//! every file has its full length from the start.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use filltop_tests::TestVolume;
use io_uring::{IoUring, opcode, types};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Number of files in the loops over many files.
const FILES: usize = 10_000;
const PAGE: usize = 4096;

/// Directories for the loops' files.
pub struct Places<'a> {
    /// On a tmpfs of its own.
    pub tmpfs: &'a Path,
    /// On an ext4 of its own.
    pub ext4: &'a Path,
}

/// An operation that is repeated many times.
pub struct Loop {
    /// The name in the table.
    pub name: String,
    /// Operations in a batch.
    pub operations: usize,
    body: Body,
}

/// What a batch does.
enum Body {
    /// Runs in this process, and is timed from outside.
    Here(Box<dyn FnMut() -> io::Result<()>>),
    /// Runs in another process, which times itself.
    Apart(Box<dyn FnMut() -> io::Result<Duration>>),
}

impl Loop {
    /// Does the operation [`Loop::operations`] times; returns how long that took.
    pub fn batch(&mut self) -> io::Result<Duration> {
        match &mut self.body {
            Body::Here(body) => {
                let start = Instant::now();
                body()?;
                Ok(start.elapsed())
            }
            Body::Apart(body) => body(),
        }
    }
}

/// Creates the loop of this name, with its files.
pub fn make(name: &str, places: &Places<'_>) -> anyhow::Result<Loop> {
    let (tmpfs, ext4) = (places.tmpfs, places.ext4);
    let (operations, body) = match name {
        "write1-tmpfs" => overwrite(tmpfs, 1, 1000)?,
        "write1-ext4" => overwrite(ext4, 1, 1000)?,
        "write4k-tmpfs" => overwrite(tmpfs, PAGE, 500)?,
        "write4k-ext4" => overwrite(ext4, PAGE, 500)?,
        "write1-xfs" => on_its_own("xfs")?,
        "write1-btrfs" => on_its_own("btrfs")?,
        "write64k-tmpfs" => overwrite(tmpfs, 16 * PAGE, 50)?,
        "write64k-ext4" => overwrite(ext4, 16 * PAGE, 50)?,
        "write1-10kfiles" => many_files(tmpfs)?,
        "write1-10kfiles-ext4" => many_files(ext4)?,
        "devnull" => devnull()?,
        "pipe" => pipe()?,
        "socket" => socket()?,
        "create-write-unlink" => storm(tmpfs)?,
        "create-write-unlink-ext4" => storm(ext4)?,
        "mmap" => stores(ext4)?,
        "io_uring" => {
            let path = tmpfs.join("uring");
            let body = Body::Apart(Box::new(move || apart(|| uring(&path))));
            return Ok(Loop { name: name.to_owned(), operations: URING_OPERATIONS, body });
        }
        "threads-one" => return threads(name, tmpfs.join("threads-one"), 1, false),
        "threads-own" => return threads(name, tmpfs.join("threads-own"), cpus()?, false),
        "threads-shared" => return threads(name, tmpfs.join("threads-shared"), cpus()?, true),
        other => bail!("unknown loop {other:?}"),
    };
    Ok(Loop { name: name.to_owned(), operations, body: Body::Here(body) })
}

type Batch = (usize, Box<dyn FnMut() -> io::Result<()>>);

fn create(path: &Path, length: usize) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(&vec![0x5a; length])?;
    file.rewind()?;
    Ok(file)
}

/// Overwrites one file again and again, `block` bytes per write.
fn overwrite(dir: &Path, block: usize, operations: usize) -> anyhow::Result<Batch> {
    let mut file = create(&dir.join(format!("write-{block}")), (block * operations).max(PAGE))?;
    rustix::fs::syncfs(&file)?;
    let buffer = vec![0x5a; block];
    let body = move || {
        file.rewind()?;
        for _ in 0..operations {
            file.write_all(&buffer)?;
        }
        Ok(())
    };
    Ok((operations, Box::new(body)))
}

/// One byte per write, on a volume of this type that only this loop uses.
fn on_its_own(fs_type: &str) -> anyhow::Result<Batch> {
    let volume = TestVolume::new(fs_type, 320)?;
    let (operations, mut body) = overwrite(volume.path(), 1, 1000)?;
    let mounted = move || {
        let _ = &volume;
        body()
    };
    Ok((operations, Box::new(mounted)))
}

/// One byte into each of many files, round-robin.
fn many_files(dir: &Path) -> anyhow::Result<Batch> {
    let count = openable(FILES)?;
    let mut files = Vec::with_capacity(count);
    for n in 0..count {
        files.push(create(&dir.join(format!("file-{n:05}")), PAGE)?);
    }
    rustix::fs::syncfs(&files[0])?;
    let mut at = 0;
    let body = move || {
        if at == PAGE {
            at = 0;
            files.iter_mut().try_for_each(File::rewind)?;
        }
        at += 1;
        files.iter_mut().try_for_each(|file| file.write_all(b"Z"))
    };
    Ok((count, Box::new(body)))
}

/// This many files, or as many as this process may have open twice, because the loops on both
/// filesystems exist at the same time.
fn openable(files: usize) -> io::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const OTHERS: u64 = 1_000;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let each = maximum.map_or(u64::MAX, |maximum| maximum.saturating_sub(OTHERS) / 2);
    Ok(files.min(usize::try_from(each).unwrap_or(usize::MAX)))
}

fn devnull() -> anyhow::Result<Batch> {
    const OPERATIONS: usize = 2000;
    let mut null = OpenOptions::new().write(true).open("/dev/null")?;
    let body = move || (0..OPERATIONS).try_for_each(|_| null.write_all(b"Z"));
    Ok((OPERATIONS, Box::new(body)))
}

/// A byte in, a byte out.
fn pipe() -> anyhow::Result<Batch> {
    const OPERATIONS: usize = 500;
    let (mut reader, mut writer) = io::pipe()?;
    let body = move || {
        for _ in 0..OPERATIONS {
            writer.write_all(b"Z")?;
            reader.read_exact(&mut [0])?;
        }
        Ok(())
    };
    Ok((OPERATIONS, Box::new(body)))
}

/// A byte in, a byte out, with send(2), which is how std writes to sockets.
fn socket() -> anyhow::Result<Batch> {
    const OPERATIONS: usize = 500;
    let (mut sender, mut receiver) = UnixStream::pair()?;
    let body = move || {
        for _ in 0..OPERATIONS {
            sender.write_all(b"Z")?;
            receiver.read_exact(&mut [0])?;
        }
        Ok(())
    };
    Ok((OPERATIONS, Box::new(body)))
}

/// Creates a file, writes a page, and removes it.
fn storm(dir: &Path) -> anyhow::Result<Batch> {
    const OPERATIONS: usize = 50;
    let names: Vec<CString> = (0..OPERATIONS)
        .map(|n| CString::new(dir.join(format!("storm-{n}")).as_os_str().as_bytes()))
        .collect::<Result<_, _>>()?;
    let page = [0x5a; PAGE];
    let body = move || {
        use rustix::fs::{Mode, OFlags, open, unlink};
        for name in &names {
            let file = open(name.as_c_str(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
            rustix::io::write(file.as_fd(), &page)?;
            drop(file);
            unlink(name.as_c_str())?;
        }
        Ok(())
    };
    Ok((OPERATIONS, Box::new(body)))
}

/// Does the work in a child. A process that has a ring may get kernel threads that share its
/// descriptors, and from then on pays more for each of its system calls.
fn apart(work: impl FnOnce() -> io::Result<Duration>) -> io::Result<Duration> {
    let (mut reader, mut writer) = io::pipe()?;
    // SAFETY: this process has one thread, so that the child may do whatever its parent could.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let done = work().and_then(|took| writer.write_all(&took.as_nanos().to_ne_bytes()));
        // SAFETY: ends the child without running its parent's exit handlers.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    drop(writer);
    let mut nanoseconds = [0; 16];
    let told = reader.read_exact(&mut nanoseconds);
    // SAFETY: waits for a child of this process; the status is not needed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    told?;
    Ok(Duration::from_nanos(u128::from_ne_bytes(nanoseconds) as u64))
}

const URING_OPERATIONS: usize = 500;

/// One byte per request, each waited for; a batch to warm up, and a timed one.
fn uring(path: &Path) -> io::Result<Duration> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all(&[0; PAGE])?;
    let mut ring = IoUring::new(8)?;
    let mut start = Instant::now();
    for n in 0..2 * URING_OPERATIONS {
        if n == URING_OPERATIONS {
            start = Instant::now();
        }
        let entry =
            opcode::Write::new(types::Fd(file.as_raw_fd()), b"Z".as_ptr(), 1).offset(0).build();
        // SAFETY: what the entry points to is static.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        let result = ring.completion().next().map_or(-libc::EIO, |done| done.result());
        if result != 1 {
            return Err(io::Error::from_raw_os_error(-result));
        }
    }
    Ok(start.elapsed())
}

fn cpus() -> io::Result<usize> {
    Ok(std::thread::available_parallelism()?.get())
}

/// One thread on each of `cpus` processors; all begin at the same time and write a byte into a file
/// of their own, or all into one file. An operation is one write of each thread.
fn threads(name: &str, path: PathBuf, cpus: usize, shared: bool) -> anyhow::Result<Loop> {
    const OPERATIONS: usize = 2000;
    let work = move || -> io::Result<Duration> {
        let barrier = Barrier::new(cpus);
        let one = |cpu: usize| -> io::Result<Duration> {
            let mut path = path.clone();
            if !shared {
                path.add_extension(cpu.to_string());
            }
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            let mut set = rustix::thread::CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set)?;
            // Not write(2): threads would wait for each other for the position of a shared file.
            file.write_all_at(b"Z", cpu as u64)?;
            barrier.wait();
            let start = Instant::now();
            (0..OPERATIONS).try_for_each(|_| file.write_all_at(b"Z", cpu as u64))?;
            Ok(start.elapsed())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || one(cpu))).collect();
            let took = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            took.collect::<io::Result<Vec<_>>>()
                .map(|took| took.into_iter().max().unwrap_or_default())
        })
    };
    let body = Body::Apart(Box::new(move || apart(&work)));
    Ok(Loop { name: name.to_owned(), operations: OPERATIONS, body })
}

/// A store into each page of a fresh shared mapping.
fn stores(dir: &Path) -> anyhow::Result<Batch> {
    const PAGES: usize = 256;
    let file = create(&dir.join("mapped"), PAGES * PAGE)?;
    rustix::fs::syncfs(&file)?;
    let body = move || {
        let length = PAGES * PAGE;
        // SAFETY: a new mapping of a file of that length, used only here; every store is inside it,
        // and it is unmapped after the last.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let start = mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0)?;
            for page in 0..PAGES {
                start.cast::<u8>().add(page * PAGE).write_volatile(0x5b);
            }
            munmap(start, length)?;
        }
        Ok(())
    };
    Ok((PAGES, Box::new(body)))
}
