//! For each line on standard input, tries everything that a fence may refuse and everything that it
//! must not, on files that were created before; prints the result of each. At `write`, just a
//! write.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use io_uring::{IoUring, opcode, types};

use crate::io_paths::write_by_aio;

const LEN: usize = 256 << 10;
const BLOCK: usize = 4096;

/// Files that were created before the fence.
struct Site {
    dir: PathBuf,
    elsewhere: PathBuf,
    /// All of its blocks are allocated.
    dense: File,
    /// None of its blocks is allocated.
    sparse: File,
    ring: IoUring,
    round: u32,
}

/// Runs until standard input ends.
pub fn run(dir: &Path, elsewhere: &Path) -> anyhow::Result<()> {
    let open = |name: &str| {
        let path = dir.join(name);
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)
    };
    let (dense, sparse) = (open("dense")?, open("sparse")?);
    (&dense).write_all(&vec![7; LEN])?;
    sparse.set_len(LEN as u64)?;
    dense.sync_all()?;
    let (dir, elsewhere) = (dir.to_owned(), elsewhere.to_owned());
    let mut site = Site { dir, elsewhere, dense, sparse, ring: IoUring::new(8)?, round: 0 };
    site.prepare()?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        if line? == "write" {
            println!("{}", word(&site.append(&[7; BLOCK])));
            continue;
        }
        println!("{}", serde_json::to_string(&site.try_all())?);
        site.round += 1;
    }
    Ok(())
}

type Results = BTreeMap<&'static str, String>;

impl Site {
    /// Creates what is removed and renamed later, because nothing can be created under the fence.
    fn prepare(&self) -> io::Result<()> {
        for n in 0..8 {
            fs::write(self.dir.join(format!("remove-{n}")), [7; BLOCK])?;
            fs::write(self.dir.join(format!("move-{n}")), [7; BLOCK])?;
        }
        fs::write(self.dir.join("cut"), vec![7; LEN])
    }

    fn try_all(&mut self) -> Results {
        let mut results = Results::new();
        let mut note = |name, result: io::Result<u64>| {
            results.insert(name, word(&result));
        };
        note("write", self.append(&[7; BLOCK]));
        note("write in place", self.overwrite());
        note("pwrite in place", self.dense.write_at(&[8; BLOCK], BLOCK as u64).map(|n| n as u64));
        note("pwrite at the end", self.dense.write_at(&[8; BLOCK], LEN as u64).map(|n| n as u64));
        note("pwrite into a hole", self.sparse.write_at(&[8; BLOCK], 0).map(|n| n as u64));
        note("append", self.append_mode());
        note("writev", self.vectors());
        note("io_uring", self.ring());
        note("aio", write_by_aio(&self.sparse, &[7; 4 * BLOCK]).map_err(cause));
        note("sendfile", self.sendfile());
        note("copy_file_range", self.copy());
        note("splice", self.splice());
        note("fallocate", self.allocate(0));
        note("punch hole", self.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE));
        note("mmap of a hole", self.map(&self.sparse, libc::PROT_READ | libc::PROT_WRITE));
        note("mprotect of a hole", self.map(&self.sparse, libc::PROT_READ));
        note("create", File::create(self.at("new")).map(drop_it));
        note("mkdir", fs::create_dir(self.at("dir")).map(drop_it));
        note("symlink", symlink("x", self.at("link")).map(drop_it));
        note("mknod", self.fifo());
        note("tmpfile", self.tmpfile());
        note("a child", self.child());
        note("read", self.read());
        note("unlink", fs::remove_file(self.at("remove")).map(drop_it));
        note("rename", fs::rename(self.at("move"), self.at("moved")).map(drop_it));
        note("truncate down", self.cut(BLOCK as u64));
        note("truncate up", self.cut(LEN as u64));
        note("fsync", self.dense.sync_all().map(drop_it));
        note("elsewhere", fs::write(self.elsewhere.join("f"), [7; BLOCK]).map(drop_it));
        // Restores the hole, and removes what was appended.
        let _ = self.sparse.set_len(0).and_then(|()| self.sparse.set_len(LEN as u64));
        let _ = self.dense.set_len(LEN as u64);
        results
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}-{}", self.round))
    }

    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut file = &self.dense;
        file.seek(SeekFrom::Start(LEN as u64))?;
        file.write(bytes).map(|n| n as u64)
    }

    fn overwrite(&self) -> io::Result<u64> {
        let mut file = &self.dense;
        file.seek(SeekFrom::Start(0))?;
        file.write(&[9; BLOCK]).map(|n| n as u64)
    }

    fn append_mode(&self) -> io::Result<u64> {
        let file = OpenOptions::new().append(true).open(self.dir.join("dense"))?;
        // With O_APPEND, Linux appends whatever offset pwrite(2) is given.
        file.write_at(&[7; BLOCK], 0).map(|n| n as u64)
    }

    fn vectors(&self) -> io::Result<u64> {
        let mut file = &self.dense;
        file.seek(SeekFrom::Start(LEN as u64))?;
        file.write_vectored(&[io::IoSlice::new(&[7; 100]); 2]).map(|n| n as u64)
    }

    fn ring(&mut self) -> io::Result<u64> {
        let buffer = [7u8; BLOCK];
        let fd = types::Fd(self.sparse.as_raw_fd());
        let entry = opcode::Write::new(fd, buffer.as_ptr(), BLOCK as u32).build();
        // SAFETY: the buffer outlives this call, which waits for the completion.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.ring.submit_and_wait(1)?;
        let entry = self.ring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?;
        result(i64::from(entry.result()))
    }

    fn sendfile(&self) -> io::Result<u64> {
        let (out, source) = (self.sparse.as_raw_fd(), self.dense.as_raw_fd());
        let mut at = 0;
        // SAFETY: the offset is an integer of this frame.
        check(unsafe { libc::sendfile(out, source, &raw mut at, BLOCK) } as i64)
    }

    fn copy(&self) -> io::Result<u64> {
        let (mut from, mut to) = (0, 0);
        let (source, out) = (self.dense.as_raw_fd(), self.sparse.as_raw_fd());
        // SAFETY: the offsets are integers of this frame.
        let copied =
            unsafe { libc::copy_file_range(source, &raw mut from, out, &raw mut to, BLOCK, 0) };
        check(copied as i64)
    }

    fn splice(&self) -> io::Result<u64> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&[7; BLOCK])?;
        let mut at = 0;
        let (pipe, out) = (reader.as_raw_fd(), self.sparse.as_raw_fd());
        // SAFETY: the offset is an integer of this frame.
        let moved = unsafe { libc::splice(pipe, ptr::null_mut(), out, &raw mut at, BLOCK, 0) };
        check(moved as i64)
    }

    fn allocate(&self, mode: i32) -> io::Result<u64> {
        // SAFETY: no pointers.
        let done = unsafe { libc::fallocate(self.sparse.as_raw_fd(), mode, 0, BLOCK as i64) };
        check(i64::from(done))
    }

    /// Maps it shared, and makes it writable afterwards if it was not at first.
    fn map(&self, file: &File, protection: i32) -> io::Result<u64> {
        const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which is unmapped before this returns.
        unsafe {
            let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
            let at = libc::mmap(ptr::null_mut(), BLOCK, protection, shared, fd, 0);
            if at == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let asked = check(i64::from(libc::mprotect(at, BLOCK, WRITABLE)));
            libc::munmap(at, BLOCK);
            asked
        }
    }

    fn fifo(&self) -> io::Result<u64> {
        let path = CString::new(self.at("fifo").as_os_str().as_bytes())?;
        // SAFETY: a C string that outlives the call.
        check(i64::from(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }))
    }

    fn tmpfile(&self) -> io::Result<u64> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE).open(&self.dir).map(drop_it)
    }

    /// A child process: fenced like its parent.
    fn child(&self) -> io::Result<u64> {
        let own = std::env::current_exe()?;
        let path = self.at("child");
        let done = Command::new(own).arg("write").arg(path).args(["--bytes", "4096"]).output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() {
            Ok(0)
        } else if said.contains("os error 122") {
            Err(io::Error::from_raw_os_error(libc::EDQUOT))
        } else {
            Err(io::Error::other(said))
        }
    }

    fn read(&self) -> io::Result<u64> {
        let mut text = Vec::new();
        File::open(self.dir.join("dense"))?.read_to_end(&mut text).map(|n| n as u64)
    }

    fn cut(&self, len: u64) -> io::Result<u64> {
        OpenOptions::new().write(true).open(self.dir.join("cut"))?.set_len(len).map(drop_it)
    }
}

fn word(result: &io::Result<u64>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EDQUOT) => "EDQUOT".to_owned(),
            Some(libc::EOPNOTSUPP) => "EOPNOTSUPP".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn drop_it<T>(_: T) -> u64 {
    0
}

fn check(returned: i64) -> io::Result<u64> {
    u64::try_from(returned).map_err(|_| io::Error::last_os_error())
}

/// The result of a request that returns a negative errno.
fn result(returned: i64) -> io::Result<u64> {
    u64::try_from(returned).map_err(|_| io::Error::from_raw_os_error(-returned as i32))
}

fn cause(error: anyhow::Error) -> io::Error {
    error.downcast().unwrap_or_else(io::Error::other)
}
