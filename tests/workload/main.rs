//! Writes known amounts and prints what was really written as one JSON object: the truth that the
//! tests compare filltop's figures with.

mod bench;
mod fenced;
mod hold;
mod io_paths;
mod mapped;
mod places;
mod restless;
mod storms;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// One file, written in blocks
    Write {
        path: PathBuf,
        #[arg(long)]
        bytes: u64,
        #[arg(long, default_value_t = 1 << 20)]
        block: usize,
        /// Wait for a line on stdin before the first write
        #[arg(long)]
        wait: bool,
        /// Open an existing file for appending
        #[arg(long)]
        append: bool,
        /// Remove the file's name before the first write
        #[arg(long)]
        unlink: bool,
        /// Change the root directory first
        #[arg(long)]
        chroot: Option<PathBuf>,
        /// Before anything else, write four bytes to this file and a line to stdout
        #[arg(long)]
        log: Option<PathBuf>,
        /// Create the directory above it first
        #[arg(long)]
        parents: bool,
        /// Keep the file open until a line comes on stdin
        #[arg(long)]
        hold: bool,
    },
    /// Many files in one directory
    Many {
        dir: PathBuf,
        #[arg(long)]
        files: u32,
        #[arg(long)]
        bytes: usize,
    },
    #[command(flatten)]
    Storms(storms::Storms),
    /// A file, until writes fail for want of space, by a quota or by a broken disk; then a few more
    Fill {
        path: PathBuf,
        #[arg(long, default_value_t = 16 << 10)]
        block: usize,
        #[arg(long, default_value_t = 5)]
        failures: u32,
        /// Bypass the page cache, where disk errors are returned by the write itself
        #[arg(long)]
        direct: bool,
    },
    /// Stores into a mapping of a sparse file, one byte for each page
    Mapped {
        path: PathBuf,
        #[arg(long)]
        pages: usize,
        /// Store into one more page, beyond the end of the file
        #[arg(long)]
        beyond: bool,
    },
    /// Every way to write and to free, one file each; prints the truth of each as a JSON array
    Ways {
        dir: PathBuf,
        /// Only these ways, by name
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Everything that a fence may refuse and everything that it must not, at each line on stdin
    Fenced {
        dir: PathBuf,
        /// A directory on another volume
        #[arg(long)]
        elsewhere: PathBuf,
    },
    /// A file without a name that no descriptor of the process leads to, until a line comes on stdin
    Hold(hold::Hold),
    #[command(flatten)]
    Places(places::Places),
    #[command(flatten)]
    Restless(restless::Restless),
    /// What operations cost with and without each of several tracers
    Bench(bench::Bench),
    /// What filltop itself uses with many files and many processes
    BenchDaemon(bench::Daemon),
    /// A pipe, a socket, a terminal and /dev/null: none of them is a file on a volume
    NotFiles {
        #[arg(long)]
        bytes: usize,
    },
}

/// What was really written. Keyed by path as this process saw it.
#[derive(Serialize)]
struct Truth {
    pid: u32,
    written: BTreeMap<PathBuf, u64>,
    /// Failed writes by errno's name.
    errors: BTreeMap<&'static str, u64>,
    /// Processes that it started, one file each, in the order of `written`.
    children: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    let mut truth = Truth {
        pid: std::process::id(),
        written: BTreeMap::new(),
        errors: BTreeMap::new(),
        children: Vec::new(),
    };
    match Cli::parse().work {
        Work::Write { path, bytes, block, wait, append, unlink, chroot, log, parents, hold } => {
            if let Some(log) = log {
                fs::write(&log, "log\n")?;
                println!("begun");
                io::stdout().flush()?;
            }
            if wait {
                wait_for_line()?;
            }
            if let Some(root) = chroot {
                std::os::unix::fs::chroot(&root)?;
                std::env::set_current_dir("/")?;
            }
            if let Some(dir) = path.parent().filter(|_| parents) {
                fs::create_dir_all(dir)?;
            }
            let file = OpenOptions::new().create(true).write(true).append(append).open(&path)?;
            if unlink {
                fs::remove_file(&path)?;
            }
            truth.written.insert(path, write_blocks(&file, bytes, block)?);
            if hold {
                print(&truth)?;
                return wait_for_line();
            }
        }
        Work::Many { dir, files, bytes } => {
            for n in 0..files {
                let path = dir.join(format!("file-{n:05}"));
                truth
                    .written
                    .insert(path.clone(), write_blocks(&create(&path)?, bytes as u64, bytes)?);
            }
        }
        Work::Storms(work) => storms::run(work, &mut truth)?,
        Work::Fill { path, block, failures, direct } => {
            fill(&path, block, failures, direct, &mut truth)?;
        }
        Work::Mapped { path, pages, beyond } => mapped::run(&path, pages, beyond)?,
        Work::Ways { dir, only } => {
            println!("{}", serde_json::to_string(&io_paths::perform(&dir, &only)?)?);
            return Ok(());
        }
        Work::Fenced { dir, elsewhere } => return fenced::run(&dir, &elsewhere),
        Work::Hold(work) => return hold::run(work, &mut truth),
        Work::Restless(work) => return restless::run(work),
        Work::Places(work) => places::run(work, &mut truth)?,
        Work::Bench(bench) => return bench::run(&bench),
        Work::BenchDaemon(daemon) => return bench::measure_daemon(&daemon),
        Work::NotFiles { bytes } => write_to_everything_else(bytes)?,
    }
    print(&truth)
}

fn print(truth: &Truth) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(truth)?);
    Ok(io::stdout().flush()?)
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| path.display().to_string())
}

fn wait_for_line() -> anyhow::Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Writes `bytes`, summing what each write returned.
fn write_blocks(mut file: &File, bytes: u64, block: usize) -> anyhow::Result<u64> {
    let buffer = vec![0x5a; block];
    let mut done = 0;
    while done < bytes {
        let want = usize::try_from(bytes - done).map_or(block, |rest| rest.min(block));
        done += file.write(&buffer[..want])? as u64;
    }
    Ok(done)
}

fn fill(
    path: &Path,
    block: usize,
    failures: u32,
    direct: bool,
    truth: &mut Truth,
) -> anyhow::Result<()> {
    const ALIGNMENT: usize = 4096;
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .custom_flags(flags)
        .open(path)?;
    let buffer = vec![0x5a; block + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let mut done = 0;
    let mut failed = 0;
    while failed < failures {
        match file.write(&buffer[start..start + block]) {
            Ok(n) => done += n as u64,
            Err(error) => {
                let name = match error.raw_os_error() {
                    // The filesystem went read-only, as it should on such a disk.
                    Some(libc::EROFS) if failed > 0 => break,
                    Some(libc::ENOSPC) => "ENOSPC",
                    Some(libc::EDQUOT) => "EDQUOT",
                    Some(libc::EIO) => "EIO",
                    _ => return Err(error.into()),
                };
                failed += 1;
                *truth.errors.entry(name).or_default() += 1;
            }
        }
    }
    truth.written.insert(path.to_path_buf(), done);
    Ok(())
}

fn write_to_everything_else(bytes: usize) -> anyhow::Result<()> {
    let buffer = vec![0x5a; 4096];
    let blocks = bytes.div_ceil(buffer.len());
    let (mut reader, mut writer) = io::pipe()?;
    let drain = std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    for _ in 0..blocks {
        writer.write_all(&buffer)?;
    }
    drop(writer);
    drain.join().expect("the reader does not panic")?;
    let (mut sender, mut receiver) = UnixStream::pair()?;
    let drain = std::thread::spawn(move || io::copy(&mut receiver, &mut io::sink()));
    for _ in 0..blocks {
        sender.write_all(&buffer)?;
    }
    drop(sender);
    drain.join().expect("the reader does not panic")?;
    let mut null = OpenOptions::new().write(true).open("/dev/null")?;
    for _ in 0..blocks {
        null.write_all(&buffer)?;
    }
    // A terminal that is not read accepts what fits and no more.
    if let Ok(terminal) = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR) {
        rustix::pty::grantpt(&terminal)?;
        rustix::pty::unlockpt(&terminal)?;
        let name = rustix::pty::ptsname(&terminal, Vec::new())?;
        let mut tty = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(name.to_str()?)?;
        let _ = tty.write(&buffer)?;
    }
    Ok(())
}
