//! One boot of a virtual machine, from power on to a verdict.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use filltop_init::Report;

use super::emulator::Emulator;

/// What the kernel says on its console when it is no longer to be trusted.
const PANICS: [&str; 3] = ["Kernel panic", "Oops:", "BUG: "];
/// How often we look at the console and the clock while the machine is silent.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a machine may take to power itself off when it is done.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a machine that broke may go on printing why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The test disks and the size of each in bytes. The files are sparse.
const DISKS: ([&str; 2], u64) = (["disk-a.raw", "disk-b.raw"], 600 << 20);
/// The same for volumes that have to be large.
const LARGE_DISKS: ([&str; 2], u64) = (["large-a.raw", "large-b.raw"], 3100 << 20);
/// The names of [`DISKS`] or [`LARGE_DISKS`] inside the machine.
pub(crate) const GUEST_DISKS: &str = "/dev/vda,/dev/vdb";

/// The name of [`Machine::root`] inside the machine.
pub(crate) const GUEST_ROOT: &str = "/dev/vdc";

/// The machine to boot.
pub(crate) struct Machine {
    /// What emulates it.
    pub(crate) emulator: Emulator,
    /// The kernel's bzImage.
    pub(crate) kernel: PathBuf,
    /// The initramfs, job included.
    pub(crate) initrd: PathBuf,
    /// Where the console's text goes.
    pub(crate) console: PathBuf,
    /// Where the test disks are.
    pub(crate) disks: PathBuf,
    /// Whether they are [`LARGE_DISKS`].
    pub(crate) large_disks: bool,
    /// The disk with a whole system to hand over to.
    pub(crate) root: Option<PathBuf>,
    /// Number of CPUs.
    pub(crate) smp: u32,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// Count instructions instead of time: they repeat exactly. Takes one CPU.
    pub(crate) icount: bool,
    /// More words for the kernel's command line.
    pub(crate) append: String,
    /// How long the whole run may take.
    pub(crate) timeout: Duration,
    /// The terminal becomes the machine's console.
    pub(crate) interactive: bool,
}

/// How a run of a machine ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Everything PID 1 said.
    pub(crate) reports: Vec<Report>,
    /// Why the run was no good, with the console's last lines; `None` when PID 1 came to its end.
    pub(crate) broken: Option<String>,
}

impl Machine {
    /// Boots it and stays until it is off. Calls `seen` with each report as it comes.
    pub(crate) fn run(&self, seen: impl FnMut(&Report)) -> Result<Outcome> {
        self.make_disks()?;
        let _ = fs::remove_file(&self.console);
        let mut command = self.command();
        let mut machine = Running(command.spawn().context("running QEMU")?);
        if self.interactive {
            machine.0.wait()?;
            let text = fs::read_to_string(&self.console).unwrap_or_default();
            let reports: Vec<_> = text.lines().filter_map(Report::parse).collect();
            let broken =
                (!reports.contains(&Report::Done)).then(|| "the machine stopped".to_owned());
            return Ok(Outcome { reports, broken });
        }
        let output = machine.0.stdout.take().context("QEMU's stdout was piped")?;
        Ok(self.watch(&mut machine, &reports(output), seen))
    }

    fn command(&self) -> Command {
        let mut command = self.emulator.command();
        let threads = if self.icount { "tcg,thread=single" } else { "tcg,thread=multi" };
        // Without -cx16, kernels of 6.12 panicked in one boot of three under emulation.
        // A string instruction counts as one, however much it copies.
        let cpu = if self.icount { "max,-cx16,-erms,-fsrm" } else { "max,-cx16" };
        command.args(["-accel", threads, "-cpu", cpu, "-no-reboot", "-display", "none"]);
        command.args(["-nodefaults", "-m", &self.memory.to_string()]);
        command.args(["-smp", &if self.icount { 1 } else { self.smp }.to_string()]);
        if self.icount {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        let quiet = if self.interactive { "quiet" } else { "loglevel=5" };
        // An emulated timer that comes late, on a busy machine, is no reason to panic.
        // Nobody logs in on the serial ports, of which one is the runner's.
        let line = format!(
            "console=ttyS0 panic=-1 oops=panic no_timer_check systemd.getty_auto=no {quiet} {}",
            self.append
        );
        command.args(["-append", line.trim_end()]);
        // The first port is the kernel's console, the second PID 1's reports.
        let console = format!("file:{}", self.console.display());
        if self.interactive {
            command.args(["-serial", "mon:stdio", "-serial", &console]);
        } else {
            command.args(["-serial", &console, "-serial", "stdio"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
        }
        let (names, _) = self.kind_of_disks();
        let disks = names.iter().map(|disk| self.disks.join(disk));
        for file in disks.chain(self.root.clone()) {
            let drive = format!("file={},format=raw,if=virtio,snapshot=on", file.display());
            command.args(["-drive", &drive]);
        }
        command
    }

    /// Empty disks; each machine writes into a snapshot of its own that QEMU throws away.
    fn make_disks(&self) -> Result<()> {
        fs::create_dir_all(&self.disks)?;
        let (names, bytes) = self.kind_of_disks();
        for disk in names {
            let path = self.disks.join(disk);
            File::options().create(true).append(true).open(&path)?.set_len(bytes)?;
        }
        Ok(())
    }

    const fn kind_of_disks(&self) -> ([&'static str; 2], u64) {
        if self.large_disks { LARGE_DISKS } else { DISKS }
    }

    fn watch(
        &self,
        machine: &mut Running,
        incoming: &Receiver<Report>,
        mut seen: impl FnMut(&Report),
    ) -> Outcome {
        let started = Instant::now();
        let mut reports = Vec::new();
        let mut console = Console::new(&self.console);
        let mut looked = Instant::now();
        let broken = loop {
            match incoming.recv_timeout(PATIENCE) {
                Ok(report) => {
                    seen(&report);
                    reports.push(report);
                    if reports.last() == Some(&Report::Done) {
                        machine.wait_at_most(FAREWELL);
                        break None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let panic = console.panic();
                    break Some(panic.unwrap_or_else(|| "the machine stopped".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if started.elapsed() > self.timeout {
                break Some(format!("no end after {} s", self.timeout.as_secs()));
            }
            if looked.elapsed() > PATIENCE {
                looked = Instant::now();
                if let Some(panic) = console.panic() {
                    break Some(panic);
                }
            }
        };
        if broken.is_some() {
            // The kernel has not finished telling.
            machine.wait_at_most(LAST_WORDS);
        }
        let broken = broken.map(|why| format!("{why}\n{}", tail(&self.console).trim_end()));
        Outcome { reports, broken }
    }
}

/// A QEMU that does not outlive us, however we leave.
struct Running(Child);

impl Running {
    fn wait_at_most(&mut self, patience: Duration) {
        let started = Instant::now();
        while started.elapsed() < patience {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads reports in a thread of its own, so that waiting for one can end.
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

/// The console's file, read as it grows.
struct Console<'a> {
    path: &'a Path,
    read: u64,
    line: String,
}

impl<'a> Console<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, read: 0, line: String::new() }
    }

    /// The first line since the last call that says the kernel broke.
    fn panic(&mut self) -> Option<String> {
        let mut file = File::open(self.path).ok()?;
        file.seek(std::io::SeekFrom::Start(self.read)).ok()?;
        let mut bytes = Vec::new();
        self.read += u64::try_from(file.read_to_end(&mut bytes).ok()?).ok()?;
        self.line += &String::from_utf8_lossy(&bytes);
        let whole = self.line.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.line.drain(..whole).collect();
        lines.lines().find(|line| is_panic(line)).map(|line| line.trim_end().to_owned())
    }
}

fn is_panic(line: &str) -> bool {
    // The watchdog's `BUG: soft lockup` only says that the emulator had to wait for its own CPU.
    PANICS.iter().any(|panic| line.contains(panic)) && !line.contains("lockup")
}

/// The console's last lines.
fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let from = lines.len().saturating_sub(40);
    lines[from..].iter().map(|line| format!("    | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_seen_once_and_only_in_whole_lines() {
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
    fn ordinary_lines_are_no_panic() {
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
