//! One run of a virtual machine, from power on to its outcome.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use filltop_init::Report;

use super::qemu::Qemu;

/// Console messages after which the kernel is not to be trusted.
const PANICS: [&str; 3] = ["Kernel panic", "Oops:", "BUG: "];
/// How often the console and the clock are checked while the machine sends no report.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long a machine may take to power off after its last report.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a machine that panicked may continue to print.
const PANIC_OUTPUT_TIME: Duration = Duration::from_secs(1);
/// The files of the test disks, and the size of each in bytes. The files are sparse.
const DISKS: ([&str; 2], u64) = (["disk-a.raw", "disk-b.raw"], 600 << 20);
/// The same for tests of large volumes.
const LARGE_DISKS: ([&str; 2], u64) = (["large-a.raw", "large-b.raw"], 3100 << 20);
/// The test disks inside the machine, comma-separated.
pub(crate) const GUEST_DISKS: &str = "/dev/vda,/dev/vdb";

/// The disk [`Machine::root`] inside the machine.
pub(crate) const GUEST_ROOT: &str = "/dev/vdc";

/// A machine to boot.
pub(crate) struct Machine {
    /// The emulator.
    pub(crate) qemu: Qemu,
    /// The kernel's bzImage.
    pub(crate) kernel: PathBuf,
    /// The initramfs, job included.
    pub(crate) initrd: PathBuf,
    /// The file that receives the output of the console.
    pub(crate) console: PathBuf,
    /// The directory of the test disks.
    pub(crate) disks: PathBuf,
    /// Whether the test disks are [`LARGE_DISKS`].
    pub(crate) large_disks: bool,
    /// The disk image of a complete system that PID 1 switches to.
    pub(crate) root: Option<PathBuf>,
    /// Number of CPUs.
    pub(crate) smp: u32,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// Whether to count instructions instead of time, so that counts repeat exactly. Uses one CPU.
    pub(crate) icount: bool,
    /// Additional parameters for the kernel command line.
    pub(crate) append: String,
    /// The longest that the machine may run.
    pub(crate) timeout: Duration,
    /// Whether the terminal is the machine's console.
    pub(crate) interactive: bool,
}

/// The outcome of a machine's run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All reports from PID 1.
    pub(crate) reports: Vec<Report>,
    /// Why the run failed, with the last lines of the console; `None` if PID 1 finished its job.
    pub(crate) failure: Option<String>,
}

impl Machine {
    /// Boots the machine and waits until it is off. Calls `on_report` with each report when it arrives.
    pub(crate) fn run(&self, on_report: impl FnMut(&Report)) -> Result<Outcome> {
        self.create_disks()?;
        let _ = fs::remove_file(&self.console);
        let mut command = self.command();
        let mut machine = Running(command.spawn().context("running QEMU")?);
        if self.interactive {
            machine.0.wait()?;
            let text = fs::read_to_string(&self.console).unwrap_or_default();
            let reports: Vec<_> = text.lines().filter_map(Report::parse).collect();
            let failure =
                (!reports.contains(&Report::Done)).then(|| "the machine stopped early".to_owned());
            return Ok(Outcome { reports, failure });
        }
        let output = machine.0.stdout.take().context("QEMU's stdout was piped")?;
        Ok(self.watch(&mut machine, &reports(output), on_report))
    }

    fn command(&self) -> Command {
        let mut command = self.qemu.command();
        let threads = if self.icount { "tcg,thread=single" } else { "tcg,thread=multi" };
        // Without -cx16, 6.12 kernels panicked in one of three boots under emulation.
        // erms and fsrm make kernels copy with string instructions, each of which counts as one instruction
        // whatever its length.
        let cpu = if self.icount { "max,-cx16,-erms,-fsrm" } else { "max,-cx16" };
        command.args(["-accel", threads, "-cpu", cpu, "-no-reboot", "-display", "none"]);
        command.args(["-nodefaults", "-m", &self.memory.to_string()]);
        command.args(["-smp", &if self.icount { 1 } else { self.smp }.to_string()]);
        if self.icount {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        let quiet = if self.interactive { "quiet" } else { "loglevel=5" };
        // no_timer_check: on a busy host, an emulated timer can be late, which is no reason to panic.
        // getty_auto=no: no logins on the serial ports, one of which carries reports.
        let line = format!(
            "console=ttyS0 panic=-1 oops=panic no_timer_check systemd.getty_auto=no {quiet} {}",
            self.append
        );
        command.args(["-append", line.trim_end()]);
        // The first serial port is the kernel's console, the second carries PID 1's reports.
        let console = format!("file:{}", self.console.display());
        if self.interactive {
            command.args(["-serial", "mon:stdio", "-serial", &console]);
        } else {
            command.args(["-serial", &console, "-serial", "stdio"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
        }
        let (names, _) = self.disk_files();
        let disks = names.iter().map(|disk| self.disks.join(disk));
        for file in disks.chain(self.root.clone()) {
            let drive = format!("file={},format=raw,if=virtio,snapshot=on", file.display());
            command.args(["-drive", &drive]);
        }
        command
    }

    /// Creates empty test disks. Each machine writes to a snapshot of its own, which QEMU discards.
    fn create_disks(&self) -> Result<()> {
        fs::create_dir_all(&self.disks)?;
        let (names, bytes) = self.disk_files();
        for disk in names {
            let path = self.disks.join(disk);
            File::options().create(true).append(true).open(&path)?.set_len(bytes)?;
        }
        Ok(())
    }

    const fn disk_files(&self) -> ([&'static str; 2], u64) {
        if self.large_disks { LARGE_DISKS } else { DISKS }
    }

    fn watch(
        &self,
        machine: &mut Running,
        incoming: &Receiver<Report>,
        mut on_report: impl FnMut(&Report),
    ) -> Outcome {
        let started = Instant::now();
        let mut reports = Vec::new();
        let mut console = Console::new(&self.console);
        let mut last_check = Instant::now();
        let failure = loop {
            match incoming.recv_timeout(POLL_INTERVAL) {
                Ok(report) => {
                    on_report(&report);
                    reports.push(report);
                    if reports.last() == Some(&Report::Done) {
                        machine.wait_at_most(POWER_OFF_TIMEOUT);
                        break None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let panic = console.panic();
                    break Some(panic.unwrap_or_else(|| "the machine stopped early".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if started.elapsed() > self.timeout {
                break Some(format!("not finished after {} s; killed", self.timeout.as_secs()));
            }
            if last_check.elapsed() > POLL_INTERVAL {
                last_check = Instant::now();
                if let Some(panic) = console.panic() {
                    break Some(panic);
                }
            }
        };
        if failure.is_some() {
            // The kernel may still be printing.
            machine.wait_at_most(PANIC_OUTPUT_TIME);
        }
        let failure = failure.map(|why| format!("{why}\n{}", tail(&self.console).trim_end()));
        Outcome { reports, failure }
    }
}

/// A QEMU process that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn wait_at_most(&mut self, timeout: Duration) {
        let started = Instant::now();
        while started.elapsed() < timeout {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads reports in a thread, so that waiting for one can time out.
fn reports(output: ChildStdout) -> Receiver<Report> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if let Some(report) = Report::parse(text.trim_end_matches(['\n', '\r']))
                && sender.send(report).is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// The console's output file, read incrementally.
struct Console<'a> {
    path: &'a Path,
    offset: u64,
    /// Text after the last newline.
    partial: String,
}

impl<'a> Console<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, offset: 0, partial: String::new() }
    }

    /// The first line since the last call that reports a panic or an oops.
    fn panic(&mut self) -> Option<String> {
        let mut file = File::open(self.path).ok()?;
        file.seek(std::io::SeekFrom::Start(self.offset)).ok()?;
        let mut bytes = Vec::new();
        self.offset += u64::try_from(file.read_to_end(&mut bytes).ok()?).ok()?;
        self.partial += &String::from_utf8_lossy(&bytes);
        let whole = self.partial.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.partial.drain(..whole).collect();
        lines.lines().find(|line| is_panic(line)).map(|line| line.trim_end().to_owned())
    }
}

fn is_panic(line: &str) -> bool {
    // The watchdog's `BUG: soft lockup` only means that QEMU waited for a CPU of the host.
    PANICS.iter().any(|panic| line.contains(panic)) && !line.contains("lockup")
}

/// The last lines of the console.
fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let start = lines.len().saturating_sub(40);
    lines[start..].iter().map(|line| format!("    | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_once_and_only_in_complete_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        fs::write(&path, "[ 0.1] Linux version 6.1\n[ 1.0] Kernel pa").unwrap();
        let mut console = Console::new(&path);
        assert_eq!(console.panic(), None);
        fs::write(&path, "[ 0.1] Linux version 6.1\n[ 1.0] Kernel panic - not syncing\r\n")
            .unwrap();
        assert_eq!(console.panic(), Some("[ 1.0] Kernel panic - not syncing".to_owned()));
        assert_eq!(console.panic(), None);
    }

    #[test]
    fn other_lines_are_not_panics() {
        for line in [
            "debug: BUGs are fun",
            "WARNING: CPU: 0",
            "panic=-1 oops=panic",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
            "traps: crasher[99] general protection fault ip:401000",
        ] {
            assert!(!is_panic(line), "{line}");
        }
        assert!(is_panic("BUG: unable to handle page fault for address: 0000"));
    }
}
