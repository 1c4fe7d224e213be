//! Writers that are hard to suspend: at a steady rate, and in processes that come and go in every
//! possible way.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

#[derive(Subcommand)]
pub enum Restless {
    /// One file, appended to at a fixed rate, until it is killed
    Pace {
        path: PathBuf,
        /// Bytes per second while it runs
        #[arg(long)]
        rate: u64,
        #[arg(long, default_value_t = 1 << 20)]
        block: usize,
    },
    /// Lines of 1,024 bytes on standard output at a fixed rate, until it is killed
    Print {
        /// Bytes per second while it runs
        #[arg(long)]
        rate: u64,
    },
    /// One file, appended to while the process moves from cgroup to cgroup, until it is killed; it
    /// prints a line once it has begun
    Hop {
        path: PathBuf,
        /// Directories of cgroups
        cgroups: Vec<PathBuf>,
    },
    /// Children that append to one file and exit, until it is killed; it prints a line once it has
    /// begun
    Escape {
        path: PathBuf,
        #[arg(long, value_enum)]
        kind: Kind,
        /// Lifetime of each, milliseconds
        #[arg(long, default_value_t = 30)]
        life_ms: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Children that are waited for
    Fork,
    /// Children whose parent exits immediately
    DoubleFork,
    /// The same, in sessions of their own
    Daemon,
}

pub fn run(work: Restless) -> anyhow::Result<()> {
    match work {
        Restless::Pace { path, rate, block } => {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            pace(file, &vec![0x5a; block], rate)
        }
        Restless::Print { rate } => {
            let mut line = [b'z'; 1024];
            line[1023] = b'\n';
            // As few system calls as a program makes whose output is a pipe.
            pace(io::stdout().lock(), &line.repeat(64), rate)
        }
        Restless::Hop { path, cgroups } => hop(&path, &cgroups),
        Restless::Escape { path, kind, life_ms } => {
            escape(&path, kind, Duration::from_millis(life_ms))
        }
    }
}

fn pace(mut into: impl io::Write, data: &[u8], rate: u64) -> anyhow::Result<()> {
    let pause = Duration::from_secs_f64(data.len() as f64 / rate as f64);
    loop {
        let start = std::time::Instant::now();
        into.write_all(data)?;
        into.flush()?;
        std::thread::sleep(pause.saturating_sub(start.elapsed()));
    }
}

fn hop(path: &Path, cgroups: &[PathBuf]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut began = false;
    for cgroup in cgroups.iter().cycle() {
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
        if !began {
            began = true;
            println!("began");
            io::stdout().flush()?;
        }
        file.write_all(&[7; 4096])?;
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

fn escape(path: &Path, kind: Kind, life: Duration) -> anyhow::Result<()> {
    let mut began = false;
    loop {
        let child = fork()?;
        if child == 0 {
            if kind != Kind::Fork && fork()? != 0 {
                std::process::exit(0);
            }
            if kind == Kind::Daemon {
                // SAFETY: setsid(2) takes no arguments.
                unsafe { libc::setsid() };
            }
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            let start = std::time::Instant::now();
            while start.elapsed() < life {
                file.write_all(&[7; 4096])?;
                std::thread::sleep(Duration::from_millis(1));
            }
            std::process::exit(0);
        }
        if !began {
            began = true;
            println!("began");
            io::stdout().flush()?;
        }
        let mut status = 0;
        // SAFETY: a valid pointer to an integer.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fork() -> io::Result<i32> {
    // SAFETY: this process has one thread, so that the child may do whatever its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}
