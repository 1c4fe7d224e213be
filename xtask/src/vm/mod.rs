//! `cargo xtask vm`: Debian kernels in QEMU without KVM, with a userland of our own.

mod booted;
mod cpio;
mod debian;
mod emulator;
mod initramfs;
mod modules;
mod qemu;
mod queue;
mod runner;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use filltop_init::Report;

use crate::tally::{Tally, first_line};
use crate::workspace::{Place, Workspace};
use crate::{native, packages};
use booted::Software;
pub(crate) use debian::{fleet, runtimes, servers};
use queue::Queue;
pub(crate) use runner::RIGHTS_OF_THE_UNIT;
use runner::Runner;

/// Programs that make filesystems, and the Debian packages that have them.
pub(crate) const MKFS: &[(&str, &str)] =
    &[("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")];
const DEFAULT_KERNEL: &str = "6.1";
const ONLY_X86: &str = "the virtual machines are x86-64, and so have to be the binaries in them";
const TIMEOUT_SECONDS: u64 = 900;
/// Every way to write on every filesystem, by two filltops at a time.
const DEBIAN_SECONDS: u64 = 2400;

/// What to boot, and what to do there.
#[derive(Args, Debug, Clone)]
pub(crate) struct VmArgs {
    /// Kernel series: 5.10, 6.1, 6.12 or 7.x, of cloud flavour; 6.1-generic or 6.12-generic, where ext4 is a
    /// module, too; may be given more than once [default: 6.1]
    #[arg(long, conflicts_with = "all")]
    kernel: Vec<String>,
    /// All series of kernels, one after the other
    #[arg(long)]
    all: bool,
    /// Backends that the tests force, one boot for each [default: all of them]
    #[arg(long, value_delimiter = ',')]
    backend: Vec<Backend>,
    /// filltop gets the capabilities of the systemd unit alone in the tests that measure with it, and chooses its
    /// backend
    #[arg(long, conflicts_with_all = ["backend", "debian"])]
    as_service: bool,
    /// Boot a whole Debian with its systemd, and run the tests that change the system: Debian 12 with 6.1-generic,
    /// its own kernel, unless --kernel says another, or with --all Debian 13 with 6.12-generic, too
    #[arg(long)]
    debian: bool,
    /// What that Debian has; with `runtimes` the suite of that name runs there
    #[arg(long, value_enum, requires = "debian", default_value_t = Software::Plain)]
    software: Software,
    /// Number of CPUs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    smp: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MB", value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Count instructions instead of time, on one CPU: counts then repeat exactly
    #[arg(long)]
    icount: bool,
    /// Filesystems for the tests (FILLTOP_TEST_FS), comma-separated
    #[arg(long)]
    fs: Option<String>,
    /// Only the end-to-end tests of this name (the name of the test binary)
    #[arg(long)]
    test: Vec<String>,
    /// Only tests whose names contain this; may be given more than once
    #[arg(long)]
    filter: Vec<String>,
    /// Load this kernel module as well
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// Kill a machine that takes longer, in seconds [default: 900, with --debian 2400]
    #[arg(long)]
    timeout: Option<u64>,
    /// Run this instead of the tests (`-- sh` for a shell); on the terminal if there is one
    #[arg(last = true)]
    command: Vec<String>,
}

impl VmArgs {
    /// How long a machine may take.
    fn patience(&self) -> Duration {
        let usual = if self.debian { DEBIAN_SECONDS } else { TIMEOUT_SECONDS };
        Duration::from_secs(self.timeout.unwrap_or(usual))
    }

    /// What `cargo xtask vm` without arguments means.
    fn plain() -> Self {
        Self {
            kernel: Vec::new(),
            all: false,
            backend: Vec::new(),
            as_service: false,
            debian: false,
            software: Software::Plain,
            smp: 2,
            memory: 1024,
            icount: false,
            fs: None,
            test: Vec::new(),
            filter: Vec::new(),
            module: Vec::new(),
            append: String::new(),
            timeout: None,
            command: Vec::new(),
        }
    }
}

/// A way of attaching to the kernel that tests can force.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Fentry,
    Kprobe,
    Tracepoint,
}

impl Backend {
    /// Its name in `FILLTOP_BACKEND`.
    fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// How long a machine of `cargo xtask test` may take.
const TESTED_SECONDS: u64 = 2_400;
/// Filesystems of which `cargo xtask test` performs all ways to write in virtual machines; the others
/// are named skips there, and run by `cargo xtask vm` and `cargo xtask kernels`.
const TESTED_FILESYSTEMS: &str = "ext4,tmpfs,overlay";

/// What `cargo xtask test` runs by kprobes, beside all that it runs by trampolines: what depends on how
/// bytes are counted. `cargo xtask vm` runs the others, too.
const TESTED_BY_KPROBES: [&str; 2] = ["accounting", "ways"];

/// The kernel whose filesystems are modules, and those of which `cargo xtask test` performs all ways there, by
/// trampolines.
const TESTED_MODULES: (&str, &str) = ("6.1-generic", "ext4,xfs,btrfs");

/// What `cargo xtask test` runs by tracepoints on a kernel that has others, too: all ways to write, of which
/// it misses what is expected. On the machine itself it runs everything by what that has, which may be
/// tracepoints alone.
const TESTED_BY_TRACEPOINTS: (&str, &str) = ("ways", "all_ways");

/// The end-to-end tests by trampolines, by kprobes and by tracepoints on the default kernel, as part of
/// `cargo xtask test`, and `beside` them what else it runs. A machine keeps one core busy and waits, most of the time:
/// one at a time runs beside those others, which come first ([`Emulator`]), and two once they have ended.
pub(crate) fn test(workspace: &Workspace, filltop: &Path, beside: impl FnOnce() -> Tally) -> Tally {
    if !cfg!(target_arch = "x86_64") {
        let mut tally = beside();
        tally.add(Tally::skip(format!("vm {DEFAULT_KERNEL}: {ONLY_X86}")));
        return tally;
    }
    if let Err(error) = need_programs() {
        // Who may install packages has no excuse.
        eprintln!("{error:#}");
        let reason = first_line(&error);
        let what = format!("vm {DEFAULT_KERNEL}: {reason}");
        let mut tally = beside();
        tally.add(if packages::can_install() { Tally::failure(what) } else { Tally::skip(what) });
        return tally;
    }
    let with = |backend, test: &[&str]| VmArgs {
        backend: vec![backend],
        fs: Some(TESTED_FILESYSTEMS.to_owned()),
        test: test.iter().map(|&name| name.to_owned()).collect(),
        // Others run beside them, and come first.
        timeout: Some(TESTED_SECONDS),
        ..VmArgs::plain()
    };
    let all = native::names(&workspace.end_to_end, &[Place::Anywhere]);
    let (counting, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|name| TESTED_BY_KPROBES.contains(name));
    let (ways, filter) = TESTED_BY_TRACEPOINTS;
    let by_tracepoints =
        VmArgs { filter: vec![filter.to_owned()], ..with(Backend::Tracepoint, &[ways]) };
    let (kernel, modules) = TESTED_MODULES;
    let on_modules = VmArgs {
        kernel: vec![kernel.to_owned()],
        fs: Some(modules.to_owned()),
        filter: vec![filter.to_owned()],
        ..with(Backend::Fentry, &[ways])
    };
    // First those that compare numbers and may take their time; those that others wait for have the machine for
    // themselves in the end. The longest of them first.
    let mut machines = vec![
        with(Backend::Fentry, &counting),
        with(Backend::Kprobe, &TESTED_BY_KPROBES),
        on_modules,
        by_tracepoints,
    ];
    let mut tally = Tally::default();
    match debian_to_boot(workspace, Software::Plain) {
        Ok(_) => machines.push(VmArgs { debian: true, ..VmArgs::plain() }),
        Err(error) => {
            let what = format!("vm Debian: {}", first_line(&error));
            tally.add(if packages::can_install() {
                Tally::failure(what)
            } else {
                Tally::skip(what)
            });
        }
    }
    machines.push(with(Backend::Fentry, &others));
    // They run natively as well, and take longest there.
    tally.add(Tally::skip(
        "vm Debian runtimes: left to `cargo xtask vm --debian --software runtimes`".to_owned(),
    ));
    // Built one after the other.
    let runners = machines
        .iter()
        .map(|arguments| Runner::new(workspace, filltop, arguments))
        .collect::<Result<Vec<_>>>();
    let runners = match runners {
        Ok(runners) => runners,
        Err(error) => {
            tally.add(beside());
            tally.add(Tally::of("vm", Err(error)));
            return tally;
        }
    };
    let queue = Queue::new(runners.len(), |number| queue::all_of(&runners[number]));
    let others = thread::scope(|scope| {
        scope.spawn(|| queue.take_part());
        let others = beside();
        if thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            queue.take_part();
        }
        others
    });
    tally.add(others);
    tally.add(Tally::of("vm", queue.sum()));
    for name in all {
        let left = [
            ("kprobe", !TESTED_BY_KPROBES.contains(&name)),
            ("tracepoint", TESTED_BY_TRACEPOINTS.0 != name),
        ];
        for (by, _) in left.iter().filter(|(_, is_left)| *is_left) {
            tally.add(Tally::skip(format!(
                "vm {DEFAULT_KERNEL} {by} {name}: left to `cargo xtask vm`"
            )));
        }
    }
    tally
}

/// Makes the disk of a Debian that `cargo xtask test` boots.
fn debian_to_boot(workspace: &Workspace, software: Software) -> Result<PathBuf> {
    let series = debian::series(booted::KERNELS[0])?;
    booted::image(workspace, series, &debian::kernel(workspace, series)?, software)
}

/// Boots what the arguments ask for.
pub(crate) fn run(workspace: &Workspace, filltop: &Path, arguments: &VmArgs) -> Result<ExitCode> {
    need_programs()?;
    let runner = Runner::new(workspace, filltop, arguments)?;
    if arguments.command.is_empty() {
        return Ok(crate::verdict(&runner.tests()?));
    }
    let mut status = 0;
    for series in &runner.kernels {
        status = status.max(runner.command(series)?);
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// What the incidents need there: the drained parts of an upload sink lie in memory.
const INCIDENTS_MEMORY: u32 = 4096;
/// An emulated machine takes some five times as long as a real one.
const INCIDENTS_SECONDS: u64 = 3600;

/// The tests of one suite in a Debian that has what the incidents run; those whose names hold one of
/// `filters`.
pub(crate) fn incidents(
    workspace: &Workspace,
    filltop: &Path,
    suite: &str,
    filters: &[String],
) -> Result<Tally> {
    need_programs()?;
    // They take minutes each: what they say is shown as they say it.
    let filter = filters.iter().cloned().chain(["--nocapture".to_owned()]).collect();
    let arguments = VmArgs {
        debian: true,
        software: Software::Incidents,
        filter,
        memory: INCIDENTS_MEMORY,
        timeout: Some(INCIDENTS_SECONDS),
        ..VmArgs::plain()
    };
    Runner::with_tests(workspace, filltop, &arguments, &[suite])?.tests()
}

/// A command to run in one machine, beside what every machine has.
pub(crate) struct Guest<'a> {
    /// The kernel's series.
    pub(crate) kernel: &'a str,
    /// More programs, by the path that they get in the machine.
    pub(crate) programs: &'a [(String, PathBuf)],
    /// Names of programs of this machine that come along with their libraries.
    pub(crate) installed: &'a [String],
    /// The command.
    pub(crate) command: Vec<String>,
    /// Count instructions, on one CPU; else this many CPUs.
    pub(crate) cpus: Option<u32>,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// How long it may take, in seconds.
    pub(crate) timeout: u64,
}

/// Runs a command in a machine; the kernel's release and the lines that it printed.
pub(crate) fn lines_of(
    workspace: &Workspace,
    filltop: &Path,
    guest: &Guest<'_>,
) -> Result<(String, Vec<String>)> {
    need_programs()?;
    let arguments = VmArgs {
        kernel: vec![guest.kernel.to_owned()],
        smp: guest.cpus.unwrap_or(1),
        memory: guest.memory,
        icount: guest.cpus.is_none(),
        timeout: Some(guest.timeout),
        ..VmArgs::plain()
    };
    let mut runner = Runner::with_tests(workspace, filltop, &arguments, &[])?;
    runner.programs.extend_from_slice(guest.programs);
    runner.installed = guest.installed.to_vec();
    let parts = runner.parts(runner.kernels[0])?;
    let mut job = runner.job(&parts.userland);
    job.commands.push(guest.command.clone());
    let outcome = runner.boot(&format!("bench {}", guest.kernel), &parts, &job)?;
    if let Some(broken) = outcome.broken {
        anyhow::bail!("bench {}: {broken}", guest.kernel);
    }
    let (mut release, mut lines) = (String::new(), Vec::new());
    for report in outcome.reports {
        match report {
            Report::Booted { release: found, .. } => release = found,
            Report::Output(line) => lines.push(line),
            Report::End { status, .. } if status != 0 => {
                anyhow::bail!("bench {}: it ended with status {status}", guest.kernel);
            }
            Report::Warning(_) | Report::Begin(_) | Report::End { .. } | Report::Done => {}
        }
    }
    Ok((release, lines))
}

fn need_programs() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), ONLY_X86);
    let mut programs =
        vec![("xz", "xz-utils"), ("dpkg-deb", "dpkg"), ("apt-get", "apt"), ("ldd", "libc-bin")];
    programs.extend(MKFS);
    packages::need("a virtual machine", &programs)
}
