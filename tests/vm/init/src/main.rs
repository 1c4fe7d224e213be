//! PID 1 of a test machine: sets up what a small Linux needs, runs its [`Job`], reports, powers off.
//!
//! Where the job names a disk with a Debian on it, it hands over to that one's init instead (`root.rs`),
//! and runs the commands as a unit there.

mod root;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use filltop_init::{BOOTED_DIR, JOB_PATH, Job, Report};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use rustix::system::RebootCommand;
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

const CONSOLE: &str = "/dev/ttyS0";
const REPORT: &str = "/dev/ttyS1";

/// Filesystems that a test machine has, in mounting order: type, mount point, data.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
];

/// The second serial port; cloned into the thread that reads a command's output.
#[derive(Clone)]
struct Reporter(Arc<Mutex<File>>);

impl Reporter {
    fn open() -> Result<Self> {
        let port = OpenOptions::new().write(true).read(true).open(REPORT).context(REPORT)?;
        let mut attributes = tcgetattr(&port)?;
        attributes.make_raw();
        tcsetattr(&port, OptionalActions::Now, &attributes)?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    fn send(&self, report: &Report) {
        // A report that cannot be sent has nobody to tell: the runner sees that `done` is missing.
        if let Ok(mut port) = self.0.lock() {
            let _ = port.write_all(format!("{report}\n").as_bytes());
        }
    }

    fn attempt<T>(&self, what: &str, result: Result<T>) {
        if let Err(error) = result {
            self.send(&Report::Warning(format!("{what}: {error:#}")));
        }
    }
}

fn main() {
    let result = if std::process::id() == 1 { boot() } else { serve() };
    if let Err(error) = result {
        eprintln!("init: {error:#}");
    }
    rustix::fs::sync();
    // It only returns on failure, and then PID 1 ends, which the runner sees as a kernel panic.
    let failed = rustix::system::reboot(RebootCommand::PowerOff);
    eprintln!("init: cannot power off: {failed:?}");
}

/// As PID 1.
fn boot() -> Result<()> {
    attach("devtmpfs", "/dev", "")?;
    let reporter = Reporter::open()?;
    for (kind, target, data) in MOUNTS {
        reporter.attempt(target, attach(kind, target, data));
    }
    set_up(&reporter);

    let job = job(JOB_PATH)?;
    for module in &job.modules {
        reporter.attempt(module, load(module));
    }
    if let Some(device) = &job.root {
        return root::hand_over(device);
    }
    run(&job, &reporter)
}

/// As a unit of the Debian that was handed over to.
fn serve() -> Result<()> {
    let reporter = Reporter::open()?;
    run(&job(&format!("{BOOTED_DIR}{JOB_PATH}"))?, &reporter)
}

fn job(path: &str) -> Result<Job> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    Job::decode(&text).map_err(|line| anyhow::anyhow!("bad line in the job: {line}"))
}

fn run(job: &Job, reporter: &Reporter) -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    reporter.send(&Report::Booted { release, uptime_ms: uptime_ms()? });

    for (index, argv) in job.commands.iter().enumerate() {
        reporter.send(&Report::Begin(index));
        let started = Instant::now();
        let status = match execute(job, argv, reporter) {
            Ok(status) => status,
            Err(error) => {
                reporter.send(&Report::Output(format!("{}: {error:#}", argv.join(" "))));
                127
            }
        };
        let ms = u64::try_from(started.elapsed().as_millis())?;
        reporter.send(&Report::End { command: index, status, ms });
    }
    reporter.send(&Report::Done);
    Ok(())
}

fn attach(kind: &str, target: &str, data: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    let data = std::ffi::CString::new(data)?;
    mount(kind, target, kind, MountFlags::empty(), data.as_c_str())?;
    Ok(())
}

/// Small things that programs expect of a running system.
fn set_up(reporter: &Reporter) {
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        reporter.attempt(link, symlink(target, link).map_err(Into::into));
    }
    reporter.attempt("hostname", rustix::system::sethostname(b"filltop-vm").map_err(Into::into));
    reporter.attempt("loopback", run_quietly("/bin/busybox", &["ip", "link", "set", "lo", "up"]));
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let enabled = fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
        reporter.attempt(controller, enabled.map_err(Into::into));
    }
}

fn run_quietly(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}

fn load(module: &str) -> Result<()> {
    match rustix::system::finit_module(File::open(module)?, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn uptime_ms() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let (seconds, _) = text.split_once(' ').context("/proc/uptime")?;
    let (whole, hundredths) = seconds.split_once('.').context("/proc/uptime")?;
    Ok(whole.parse::<u64>()? * 1000 + hundredths.parse::<u64>()? * 10)
}

/// Runs one command to its end and returns its status as a shell counts it.
fn execute(job: &Job, argv: &[String], reporter: &Reporter) -> Result<i32> {
    let (program, arguments) = argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/root");
    let mut reader = None;
    if let Some((rows, columns)) = job.console {
        let console = OpenOptions::new().read(true).write(true).open(CONSOLE)?;
        tcsetwinsize(
            &console,
            Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
        // setsid gives the command a controlling terminal, which job control and Ctrl-C need.
        command = Command::new("setsid");
        command.args(["-c"]).args(argv).current_dir("/root");
        command.stdin(console.try_clone()?).stdout(console.try_clone()?).stderr(console);
    } else {
        let (output, input) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).process_group(0);
        let reporter = reporter.clone();
        reader = Some(std::thread::spawn(move || forward(output, &reporter)));
    }
    let child = command.env_clear().envs(job.env.iter().cloned()).spawn()?;
    // The command holds our ends of the pipe until it is dropped.
    drop(command);
    let pid = Pid::from_child(&child);
    let status = reap_until(pid)?;
    if std::process::id() == 1 {
        // What the command left behind would hold the pipe open and disturb the next command. A group
        // of 1 makes kill(2)'s -1: everyone but PID 1.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    } else {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    Ok(status)
}

/// Waits as PID 1 must, for every child there is, until this one has ended.
fn reap_until(wanted: Pid) -> Result<i32> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if pid == wanted {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            return status.exit_status().or(signal).context("neither exited nor killed");
        }
    }
}

fn forward(output: PipeReader, reporter: &Reporter) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        reporter.send(&Report::Output(text.trim_end_matches(['\n', '\r']).to_owned()));
        line.clear();
    }
}
