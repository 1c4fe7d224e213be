//! Many processes: one after another, all at the same time, and forks of forks.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use clap::Subcommand;

use super::{Truth, create, write_blocks};

#[derive(Subcommand)]
pub enum Storms {
    /// Many processes, one after another, that write one file each and exit
    Spawn {
        dir: PathBuf,
        #[arg(long)]
        processes: u32,
        #[arg(long)]
        bytes: u64,
        /// All of them live at the same time, and write when all have started
        #[arg(long)]
        at_once: bool,
    },
    /// A process that forks two, which fork two each, and so on; each writes a file and exits after
    /// its own children
    Bomb {
        dir: PathBuf,
        #[arg(long)]
        generations: u32,
        #[arg(long)]
        bytes: u64,
    },
}

pub fn run(work: Storms, truth: &mut Truth) -> anyhow::Result<()> {
    match work {
        Storms::Spawn { dir, processes, bytes, at_once } => {
            spawn(&dir, processes, bytes, at_once, truth)
        }
        Storms::Bomb { dir, generations, bytes } => {
            for name in bomb_names(generations) {
                truth.written.insert(dir.join(name), bytes);
            }
            bomb(&dir, "b", generations, bytes)
        }
    }
}

fn spawn(
    dir: &Path,
    processes: u32,
    bytes: u64,
    at_once: bool,
    truth: &mut Truth,
) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let own = std::env::current_exe()?;
    if at_once {
        // One pipe each.
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    let mut waiting: Vec<Child> = Vec::new();
    for n in 0..processes {
        let path = dir.join(format!("short-{n:05}"));
        let mut command = Command::new(&own);
        command.args(["write", "--block", "65536", "--bytes", &bytes.to_string()]).arg(&path);
        if at_once {
            command.arg("--wait").stdin(Stdio::piped());
        }
        let mut child =
            command.stdout(Stdio::null()).spawn().with_context(|| format!("child {n}"))?;
        truth.children.push(child.id());
        truth.written.insert(path, bytes);
        if at_once {
            waiting.push(child);
        } else {
            anyhow::ensure!(child.wait()?.success(), "child {n} failed");
        }
    }
    for child in &mut waiting {
        child.stdin.take().context("a pipe")?.write_all(b"\n")?;
    }
    for child in &mut waiting {
        anyhow::ensure!(child.wait()?.success(), "child {} failed", child.id());
    }
    Ok(())
}

/// The names of all files of a bomb: each is its parent's with one more digit.
fn bomb_names(generations: u32) -> Vec<String> {
    let mut names = vec!["b".to_owned()];
    let mut last = names.clone();
    for _ in 0..generations {
        last = last.iter().flat_map(|name| [format!("{name}0"), format!("{name}1")]).collect();
        names.extend_from_slice(&last);
    }
    names
}

fn bomb(dir: &Path, name: &str, generations: u32, bytes: u64) -> anyhow::Result<()> {
    let mut children = Vec::new();
    for digit in ["0", "1"].iter().filter(|_| generations > 0) {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error().into()),
            0 => {
                let result = bomb(dir, &format!("{name}{digit}"), generations - 1, bytes);
                std::process::exit(i32::from(result.is_err()));
            }
            pid => children.push(pid),
        }
    }
    write_blocks(&create(&dir.join(name))?, bytes, 65_536)?;
    for pid in children {
        let mut status = 0;
        // SAFETY: waits for a child of this process.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        anyhow::ensure!(ended == pid && status == 0, "a child ended with {status:#x}");
    }
    Ok(())
}
