//! PID 1 of a test machine: sets up a minimal Linux, runs its [`Job`], sends reports, and powers off.
//!
//! If the job names a disk with a Debian, it switches to that root and executes its init instead
//! (`switch_root.rs`). systemd then starts this program again as a unit, which runs the job.

mod switch_root;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use filltop_init::{DEBIAN_FILES_DIR, JOB_PATH, Job, Report};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};
use rustix::system::RebootCommand;
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

const CONSOLE: &str = "/dev/ttyS0";
const REPORT_PORT: &str = "/dev/ttyS1";

/// Filesystems to mount, in order: type, mount point, mount options.
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

/// The second serial port, to which reports are written. Clones share it.
#[derive(Clone)]
struct Reporter(Arc<Mutex<File>>);

impl Reporter {
    fn open() -> Result<Self> {
        let port =
            OpenOptions::new().write(true).read(true).open(REPORT_PORT).context(REPORT_PORT)?;
        let mut attributes = tcgetattr(&port)?;
        attributes.make_raw();
        tcsetattr(&port, OptionalActions::Now, &attributes)?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    fn send(&self, report: &Report) {
        // A failure to send cannot be reported; the runner notices that `done` is missing.
        if let Ok(mut port) = self.0.lock() {
            let _ = port.write_all(format!("{report}\n").as_bytes());
        }
    }

    /// Sends a warning if something failed that the job may not need.
    fn warn_on_error<T>(&self, what: &str, result: Result<T>) {
        if let Err(error) = result {
            self.send(&Report::Warning(format!("{what}: {error:#}")));
        }
    }
}

fn main() {
    let result = if std::process::id() == 1 { run_as_pid_1() } else { run_as_unit() };
    if let Err(error) = result {
        eprintln!("init: {error:#}");
    }
    rustix::fs::sync();
    // reboot returns only on failure. PID 1 then exits, which the runner sees as a kernel panic.
    let failed = rustix::system::reboot(RebootCommand::PowerOff);
    eprintln!("init: cannot power off: {failed:?}");
}

/// Sets up the machine, and runs the job or switches to the Debian on disk.
fn run_as_pid_1() -> Result<()> {
    mount_at("devtmpfs", "/dev", "")?;
    let reporter = Reporter::open()?;
    for (kind, target, data) in MOUNTS {
        reporter.warn_on_error(target, mount_at(kind, target, data));
    }
    set_up(&reporter);

    let job = read_job(JOB_PATH)?;
    for module in &job.modules {
        reporter.warn_on_error(module, load_module(module));
    }
    if let Some(device) = &job.root {
        return switch_root::switch_root(device);
    }
    run(&job, &reporter)
}

/// Runs the job as a unit of the Debian on disk.
fn run_as_unit() -> Result<()> {
    let reporter = Reporter::open()?;
    run(&read_job(&format!("{DEBIAN_FILES_DIR}{JOB_PATH}"))?, &reporter)
}

fn read_job(path: &str) -> Result<Job> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    Job::decode(&text).map_err(|line| anyhow::anyhow!("invalid line in the job: {line}"))
}

/// Runs the commands of a job and sends reports.
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

/// Mounts a filesystem and creates its mount point.
fn mount_at(kind: &str, target: &str, data: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    let data = std::ffi::CString::new(data)?;
    mount(kind, target, kind, MountFlags::empty(), data.as_c_str())?;
    Ok(())
}

/// Sets up links, the host name, the loopback interface and cgroup controllers, which programs expect.
fn set_up(reporter: &Reporter) {
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        reporter.warn_on_error(link, symlink(target, link).map_err(Into::into));
    }
    reporter
        .warn_on_error("hostname", rustix::system::sethostname(b"filltop-vm").map_err(Into::into));
    reporter
        .warn_on_error("loopback", run_program("/bin/busybox", &["ip", "link", "set", "lo", "up"]));
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let enabled = fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{controller}"));
        reporter.warn_on_error(controller, enabled.map_err(Into::into));
    }
}

fn run_program(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status()?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}

fn load_module(module: &str) -> Result<()> {
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

/// Runs a command until it exits, and returns its status as a shell reports it.
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
        // `setsid -c` sets the controlling terminal, which job control and Ctrl-C need.
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
    // Closes this process's write ends of the pipe.
    drop(command);
    let pid = Pid::from_child(&child);
    let status = reap_until(pid)?;
    if std::process::id() == 1 {
        // Processes that the command left would keep the pipe open and disturb the next command. Process
        // group 1 makes this kill(-1), which means all processes except PID 1.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    } else {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    Ok(status)
}

/// Reaps all children, which PID 1 has to do, until this one has exited; returns its status.
fn reap_until(wanted: Pid) -> Result<i32> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if pid == wanted {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            return status.exit_status().or(signal).context("neither exited nor killed");
        }
    }
}

/// Sends each line of a command's output as a report.
fn forward(output: PipeReader, reporter: &Reporter) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        reporter.send(&Report::Output(text.trim_end_matches(['\n', '\r']).to_owned()));
        line.clear();
    }
}
