//! What filltop itself uses: processor time and memory with many files and many processes, and how
//! long it takes to start.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use filltop_tests::{TestVolume, filltop};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::NamedTempFile;
use tracer_model::snapshot::Snapshot;

/// Options of this benchmark.
#[derive(Args)]
pub struct Daemon {
    /// Numbers of files that are written to
    #[arg(long, value_delimiter = ',', default_value = "0,1000,10000,100000,1000000")]
    files: Vec<usize>,
    /// Numbers of processes that have written and sleep
    #[arg(long, value_delimiter = ',', default_value = "10,10000")]
    processes: Vec<usize>,
}

/// How long it is measured while idle, or while one process writes steadily.
const WATCHED: Duration = Duration::from_secs(10);
/// Files in one directory.
const SIBLINGS: usize = 1000;
/// With at most this many files, its final output is checked.
const CHECKED: usize = 100_000;
/// The steady writer: this many bytes, a thousand times a second.
const BLOCK: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Start {
    /// From its start to the message that all hooks are attached, median of five.
    tracing_ms: f64,
    /// Processor time used until then, median of five.
    cpu_ms: f64,
    /// From its start to the first figures on an 80 × 24 screen, median of five.
    screen_ms: f64,
}

#[derive(Serialize)]
struct Files {
    files: usize,
    /// How long the writers took.
    seconds: f64,
    /// Processor time of the daemon from its start until it was idle again.
    cpu_ms: f64,
    rss_kb: u64,
    /// Its share of a processor when idle, in per cent.
    idle_percent: f64,
    /// Rows of files that it reported, the bytes in them, bytes that it counted but attributed to
    /// no file, and the number of lost events.
    told: Option<(usize, u64, u64, u64)>,
}

#[derive(Serialize)]
struct Processes {
    processes: usize,
    /// Throughput of the steady writer.
    megabytes_per_s: f64,
    rss_kb: u64,
    /// Its share of a processor meanwhile, in per cent.
    percent: f64,
}

/// Measures and prints one JSON object per line.
pub fn run(daemon: &Daemon) -> anyhow::Result<()> {
    print(&start_up()?)?;
    for count in &daemon.files {
        print(&files(*count)?)?;
    }
    for count in &daemon.processes {
        print(&processes(*count)?)?;
    }
    Ok(())
}

fn print(row: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(row)?);
    Ok(())
}

fn start_up() -> anyhow::Result<Start> {
    let mut taken = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        let running = Running::start(1)?;
        taken.0.push(start.elapsed().as_secs_f64() * 1e3);
        taken.1.push(running.cpu()? * 1e3);
        running.stop()?;
        taken.2.push(until_screen()?);
    }
    let median = |mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (tracing, cpu, screen) = taken;
    Ok(Start { tracing_ms: median(tracing), cpu_ms: median(cpu), screen_ms: median(screen) })
}

/// Time to the first screen that shows a volume, read from a pseudo-terminal.
fn until_screen() -> anyhow::Result<f64> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?;
    let side = OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&side, size)?;
    let start = Instant::now();
    let mut child = Command::new(filltop())
        .env("TERM", "xterm-256color")
        .stdin(OwnedFd::from(side.try_clone()?))
        .stdout(OwnedFd::from(side.try_clone()?))
        .stderr(Stdio::null())
        .spawn()?;
    let mut shown = Vec::new();
    let mut terminal = File::from(terminal);
    let mut part = [0; 4096];
    // The head of the first table; before it, the screen only shows that it is measuring.
    while !shown.windows(6).any(|bytes| bytes == b"VOLUME") {
        anyhow::ensure!(start.elapsed() < PATIENCE, "no screen within {} s", PATIENCE.as_secs());
        let read = terminal.read(&mut part)?;
        shown.extend_from_slice(&part[..read]);
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    // With SIGTERM it would restore the terminal first, and wait for that output to be read.
    child.kill()?;
    child.wait()?;
    Ok(took)
}

fn files(count: usize) -> anyhow::Result<Files> {
    let volume = TestVolume::new("tmpfs", 4096)?;
    for n in 0..count.div_ceil(SIBLINGS) {
        fs::create_dir(volume.path().join(n.to_string()))?;
    }
    let running = Running::start(if count > CHECKED { 20 } else { 2 * CHECKED })?;
    let begun = running.cpu()?;
    let start = Instant::now();
    for n in 0..count {
        let path = volume.path().join((n / SIBLINGS).to_string()).join(n.to_string());
        let mut file = File::create(path)?;
        file.write_all(b"Z")?;
        // The file stays, without a page of memory.
        file.set_len(0)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    // Idle when a second costs no more than the one before.
    let mut before = running.cpu()?;
    let mut last = f64::MAX;
    loop {
        sleep(Duration::from_secs(1));
        let now = running.cpu()?;
        let took = now - before;
        before = now;
        if took >= last * 0.9 {
            break;
        }
        last = took;
    }
    let cpu_ms = (before - begun) * 1e3;
    sleep(WATCHED);
    let idle_percent = (running.cpu()? - before) / WATCHED.as_secs_f64() * 100.0;
    let rss_kb = running.rss_kb()?;
    let ours = volume.path().to_str().context("a test's path is UTF-8")?.to_owned();
    let snapshot = running.stop()?;
    let told = (count <= CHECKED).then(|| -> anyhow::Result<_> {
        let snapshot: Snapshot = serde_json::from_str(&snapshot)?;
        let rows = snapshot.paths.iter().filter(|row| row.path.starts_with(&ours));
        let bytes: u64 = rows.clone().map(|row| row.written_bytes).sum();
        let backend = &snapshot.backend;
        Ok((rows.count(), bytes, backend.unattributed_bytes, backend.lost_events))
    });
    Ok(Files { files: count, seconds, cpu_ms, rss_kb, idle_percent, told: told.transpose()? })
}

fn processes(count: usize) -> anyhow::Result<Processes> {
    let volume = TestVolume::new("tmpfs", 512)?;
    let running = Running::start(20)?;
    let mut sleepers = Sleepers(Vec::new());
    for n in 0..count {
        let path = volume.path().join(n.to_string());
        // SAFETY: this process has one thread, so that the child may do whatever its parent could.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let _ = fs::write(path, b"Z");
            loop {
                // SAFETY: it takes no arguments and ends with a signal.
                unsafe { libc::pause() };
            }
        }
        anyhow::ensure!(pid > 0, "cannot fork: {}", std::io::Error::last_os_error());
        sleepers.0.push(pid);
    }
    sleep(Duration::from_secs(5));
    let mut file = File::create(volume.path().join("steady"))?;
    let buffer = vec![0x5a; BLOCK];
    let (start, before) = (Instant::now(), running.cpu()?);
    let mut written = 0;
    while start.elapsed() < WATCHED {
        if written % (64 << 20) < BLOCK as u64 {
            file.rewind()?;
        }
        file.write_all(&buffer)?;
        written += BLOCK as u64;
        let due = Duration::from_micros(written / BLOCK as u64 * 1000);
        sleep(due.saturating_sub(start.elapsed()));
    }
    let seconds = start.elapsed().as_secs_f64();
    let percent = (running.cpu()? - before) / seconds * 100.0;
    let rss_kb = running.rss_kb()?;
    running.stop()?;
    Ok(Processes {
        processes: count,
        megabytes_per_s: written as f64 / 1e6 / seconds,
        rss_kb,
        percent,
    })
}

/// Processes that are killed on drop.
struct Sleepers(Vec<libc::pid_t>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for pid in &self.0 {
            // SAFETY: signals and reaps a child of this process.
            unsafe {
                libc::kill(*pid, libc::SIGKILL);
                libc::waitpid(*pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// A filltop that measures until it is stopped. Killed on drop.
struct Running {
    child: Child,
    told: NamedTempFile,
}

impl Running {
    fn start(top: usize) -> anyhow::Result<Self> {
        let (told, said) = (NamedTempFile::new()?, NamedTempFile::new()?);
        let mut child = Command::new(filltop())
            .args(["snapshot", "--json", "--for", "60m", "-v", "--top", &top.to_string()])
            .stdin(Stdio::null())
            .stdout(told.reopen()?)
            .stderr(said.reopen()?)
            .spawn()?;
        let start = Instant::now();
        while !fs::read_to_string(said.path())?.contains("tracing with") {
            if child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                bail!("filltop: {}", fs::read_to_string(said.path())?);
            }
            sleep(Duration::from_millis(1));
        }
        Ok(Self { child, told })
    }

    /// Its processor time so far, in seconds.
    fn cpu(&self) -> anyhow::Result<f64> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both write only into the given buffers.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.child.id() as libc::pid_t, &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        anyhow::ensure!(!failed, "filltop has ended");
        Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }

    fn rss_kb(&self) -> anyhow::Result<u64> {
        let path = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let status = fs::read_to_string(path)?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Its final output.
    fn stop(mut self) -> anyhow::Result<String> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        self.child.wait()?;
        Ok(fs::read_to_string(self.told.path())?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
