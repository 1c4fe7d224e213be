//! `cargo xtask vm`: Debian kernels in QEMU without KVM, with a userland of our own.

mod cpio;
mod debian;
mod initramfs;
mod modules;
mod qemu;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use filltop_init::{JOB_PATH, Job, Report};

use crate::packages;
use crate::tally::{Tally, first_line};
use crate::workspace::Workspace;
use crate::{build, native};
use debian::Series;
pub(crate) use debian::{fleet, servers};
use initramfs::{Contents, Userland};
use qemu::{GUEST_DISKS, Machine, Outcome, QEMU};

/// Programs that make filesystems, and the Debian packages that have them.
pub(crate) const MKFS: &[(&str, &str)] =
    &[("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")];
const DEFAULT_KERNEL: &str = "6.1";
const ONLY_X86: &str = "the virtual machines are x86-64, and so have to be the binaries in them";
const TIMEOUT_SECONDS: u64 = 900;

/// What to boot, and what to do there.
#[derive(Args, Debug, Clone)]
pub(crate) struct VmArgs {
    /// Kernel series: 5.10, 6.1, 6.12 or 7.x; may be given more than once [default: 6.1]
    #[arg(long, conflicts_with = "all")]
    kernel: Vec<String>,
    /// All series of kernels, one after the other
    #[arg(long)]
    all: bool,
    /// Backends that the tests force, one boot for each [default: all of them]
    #[arg(long, value_delimiter = ',')]
    backend: Vec<Backend>,
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
    /// Only tests whose names contain this
    #[arg(long)]
    filter: Option<String>,
    /// Load this kernel module as well
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// Kill a machine that takes longer, in seconds
    #[arg(long, default_value_t = TIMEOUT_SECONDS)]
    timeout: u64,
    /// Run this instead of the tests (`-- sh` for a shell); on the terminal if there is one
    #[arg(last = true)]
    command: Vec<String>,
}

impl VmArgs {
    /// What `cargo xtask vm` without arguments means.
    fn plain() -> Self {
        Self {
            kernel: Vec::new(),
            all: false,
            backend: Vec::new(),
            smp: 2,
            memory: 1024,
            icount: false,
            fs: None,
            test: Vec::new(),
            filter: None,
            module: Vec::new(),
            append: String::new(),
            timeout: TIMEOUT_SECONDS,
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

/// Filesystems of which `cargo xtask test` performs all ways to write in virtual machines; the others
/// are named skips there, and run by `cargo xtask vm` and `cargo xtask kernels`.
const TESTED_FILESYSTEMS: &str = "ext4,tmpfs,overlay";

/// What `cargo xtask test` runs by kprobes, beside all that it runs by trampolines: what depends on how
/// bytes are counted. `cargo xtask vm` runs the others, too.
const TESTED_BY_KPROBES: [&str; 2] = ["accounting", "ways"];

/// The end-to-end tests by trampolines and by kprobes on the default kernel, as part of `cargo xtask
/// test`; tracepoints are tested on the machine itself.
pub(crate) fn test(workspace: &Workspace, filltop: &Path) -> Result<Tally> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Tally::skip(format!("vm {DEFAULT_KERNEL}: {ONLY_X86}")));
    }
    if let Err(error) = need_programs() {
        // Who may install packages has no excuse.
        eprintln!("{error:#}");
        let reason = first_line(&error);
        let what = format!("vm {DEFAULT_KERNEL}: {reason}");
        return Ok(if packages::can_install() { Tally::failure(what) } else { Tally::skip(what) });
    }
    let with = |backend, test| VmArgs {
        backend: vec![backend],
        fs: Some(TESTED_FILESYSTEMS.to_owned()),
        test,
        ..VmArgs::plain()
    };
    let by_kprobes = TESTED_BY_KPROBES.map(str::to_owned).to_vec();
    let mut tally = Tally::default();
    for arguments in [with(Backend::Fentry, Vec::new()), with(Backend::Kprobe, by_kprobes)] {
        tally.add(Runner::new(workspace, filltop, &arguments)?.tests()?);
    }
    for name in native::names(&workspace.end_to_end, true) {
        if !TESTED_BY_KPROBES.contains(&name) {
            tally.add(Tally::skip(format!(
                "vm {DEFAULT_KERNEL} kprobe {name}: left to `cargo xtask vm`"
            )));
        }
    }
    Ok(tally)
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
        timeout: guest.timeout,
        ..VmArgs::plain()
    };
    let mut runner = Runner::with_tests(workspace, filltop, &arguments, &[])?;
    runner.programs.extend_from_slice(guest.programs);
    runner.installed = guest.installed.to_vec();
    let (kernel, userland) = runner.userland(runner.kernels[0])?;
    let mut job = runner.job(&userland);
    job.commands.push(guest.command.clone());
    let outcome = runner.boot(&format!("bench {}", guest.kernel), &kernel, &userland, &job)?;
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
    let mut programs = vec![
        (QEMU, "qemu-system-x86"),
        ("xz", "xz-utils"),
        ("dpkg-deb", "dpkg"),
        ("apt-get", "apt"),
        ("ldd", "libc-bin"),
    ];
    programs.extend(MKFS);
    packages::need("a virtual machine", &programs)
}

struct Runner<'a> {
    workspace: &'a Workspace,
    arguments: &'a VmArgs,
    kernels: Vec<&'static Series>,
    init: PathBuf,
    busybox: PathBuf,
    programs: Vec<(String, PathBuf)>,
    installed: Vec<String>,
    tests: Vec<String>,
}

impl<'a> Runner<'a> {
    /// With the tests that the arguments name, or all.
    fn new(workspace: &'a Workspace, filltop: &Path, arguments: &'a VmArgs) -> Result<Self> {
        let mut names = native::names(&workspace.end_to_end, true);
        for wanted in &arguments.test {
            ensure!(names.contains(&wanted.as_str()), "no end-to-end test {wanted}: {names:?}");
        }
        names.retain(|name| arguments.test.is_empty() || arguments.test.iter().any(|t| t == name));
        Self::with_tests(workspace, filltop, arguments, &names)
    }

    fn with_tests(
        workspace: &'a Workspace,
        filltop: &Path,
        arguments: &'a VmArgs,
        tests: &[&str],
    ) -> Result<Self> {
        let kernels = if arguments.all {
            debian::SERIES.iter().collect()
        } else if arguments.kernel.is_empty() {
            vec![debian::series(DEFAULT_KERNEL)?]
        } else {
            arguments.kernel.iter().map(|name| debian::series(name)).collect::<Result<_>>()?
        };
        let binaries = build::end_to_end(workspace, tests)?;
        let mut programs = vec![
            ("/bin/filltop".to_owned(), filltop.to_owned()),
            ("/bin/filltop-workload".to_owned(), binaries.workload),
        ];
        let tests = binaries.tests.iter().map(|(name, _)| name.clone()).collect();
        programs.extend(binaries.tests.into_iter().map(|(n, file)| (format!("/tests/{n}"), file)));
        let busybox = debian::busybox(workspace)?;
        Ok(Self {
            init: build::init(workspace)?,
            workspace,
            arguments,
            kernels,
            busybox,
            programs,
            installed: Vec::new(),
            tests,
        })
    }

    /// Every test on every kernel with every backend; a machine that breaks is a failure.
    fn tests(&self) -> Result<Tally> {
        let mut tally = Tally::default();
        let backends = if self.arguments.backend.is_empty() {
            Backend::value_variants()
        } else {
            &self.arguments.backend
        };
        for series in &self.kernels {
            if self.tests.is_empty() {
                tally.add(Tally::skip(format!("vm {}: there is no end-to-end test", series.name)));
                continue;
            }
            match self.userland(series) {
                Ok((kernel, userland)) => {
                    for backend in backends {
                        let suite = format!("vm {} {}", series.name, backend.name());
                        tally.add(self.tests_with(&suite, *backend, &kernel, &userland)?);
                    }
                }
                Err(error) => {
                    eprintln!("{error:#}");
                    let reason = first_line(&error);
                    tally.add(Tally::failure(format!("vm {}: {reason}", series.name)));
                }
            }
        }
        Ok(tally)
    }

    fn tests_with(
        &self,
        suite: &str,
        backend: Backend,
        kernel: &Path,
        userland: &Userland,
    ) -> Result<Tally> {
        let mut job = self.job(userland);
        job.env.push(("FILLTOP_BACKEND".into(), backend.name().into()));
        for test in &self.tests {
            let mut command = vec![format!("/tests/{test}")];
            command.extend(["--test-threads=1", "--show-output"].map(str::to_owned));
            command.extend(self.arguments.filter.clone());
            job.commands.push(command);
        }
        println!("== {suite}");
        let outcome = self.boot(suite, kernel, userland, &job)?;
        Ok(tally(suite, &self.tests, &outcome))
    }

    /// Runs the command that was given, on the terminal if we have one.
    fn command(&self, series: &Series) -> Result<i32> {
        let (kernel, userland) = self.userland(series)?;
        let mut job = self.job(&userland);
        if let Some(backend) = self.arguments.backend.first() {
            job.env.push(("FILLTOP_BACKEND".into(), backend.name().into()));
        }
        job.commands.push(self.arguments.command.clone());
        if std::io::stdin().is_terminal() {
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
            // A terminal that does not know its size says 0 × 0.
            let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
            job.console = Some(size.map_or((24, 80), |size| (size.ws_row, size.ws_col)));
            job.env.push(("TERM".into(), crate::workspace::env_or("TERM", "vt220")));
        }
        let outcome = self.boot(&format!("vm {}", series.name), &kernel, &userland, &job)?;
        if let Some(broken) = outcome.broken {
            anyhow::bail!("vm {}: {broken}", series.name);
        }
        let ends = outcome.reports.iter().filter_map(|report| match report {
            Report::End { status, .. } => Some(*status),
            _ => None,
        });
        Ok(ends.max().unwrap_or(1))
    }

    /// The kernel's image, and what is packed for it.
    fn userland(&self, series: &Series) -> Result<(PathBuf, Userland)> {
        let kernel = debian::kernel(self.workspace, series)?;
        let contents = Contents {
            init: &self.init,
            busybox: &self.busybox,
            programs: self.programs.clone(),
            installed: &self.installed,
            extra_modules: &self.arguments.module,
        };
        let userland = initramfs::pack(&kernel, &contents)?;
        Ok((kernel.image, userland))
    }

    fn job(&self, userland: &Userland) -> Job {
        let mut env = vec![
            ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("RUST_BACKTRACE", "1"),
            ("FILLTOP_BIN", "/bin/filltop"),
            ("FILLTOP_WORKLOAD", "/bin/filltop-workload"),
            ("FILLTOP_TEST_DISKS", GUEST_DISKS),
            ("FILLTOP_IN_VM", "1"),
        ];
        if let Some(fs) = &self.arguments.fs {
            env.push(("FILLTOP_TEST_FS", fs));
        }
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Job { modules: userland.modules.clone(), env, ..Job::default() }
    }

    fn boot(&self, name: &str, kernel: &Path, userland: &Userland, job: &Job) -> Result<Outcome> {
        let directory = self.workspace.target.join("vm/run").join(name.replace(' ', "-"));
        fs::create_dir_all(&directory)?;
        let mut archive = userland.archive.clone();
        archive.file(JOB_PATH, 0o644, job.encode().as_bytes());
        let initrd = directory.join("initramfs.cpio");
        fs::write(&initrd, archive.finish())?;
        let machine = Machine {
            kernel: kernel.to_owned(),
            initrd,
            console: directory.join("console.log"),
            disks: self.workspace.target.join("vm/disks"),
            smp: self.arguments.smp,
            memory: self.arguments.memory,
            icount: self.arguments.icount,
            append: self.arguments.append.clone(),
            timeout: Duration::from_secs(self.arguments.timeout),
            interactive: job.console.is_some(),
        };
        if machine.interactive {
            eprintln!("{name}: Ctrl-A X ends the machine");
        }
        let started = Instant::now();
        let outcome = machine.run(|report| match report {
            Report::Booted { release, uptime_ms } => eprintln!(
                "{name}: Linux {release}, up after {:.1} s of its time and {:.1} s of ours",
                Duration::from_millis(*uptime_ms).as_secs_f64(),
                started.elapsed().as_secs_f64()
            ),
            Report::Warning(text) => eprintln!("{name}: {text}"),
            Report::Output(text) => println!("{text}"),
            Report::Begin(_) | Report::End { .. } | Report::Done => {}
        })?;
        eprintln!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        Ok(outcome)
    }
}

/// Counts what the test binaries of one machine said.
fn tally(suite: &str, tests: &[String], outcome: &Outcome) -> Tally {
    let mut tally = Tally::default();
    let mut lines: Vec<&str> = Vec::new();
    let mut ended = 0;
    for report in &outcome.reports {
        match report {
            Report::Begin(_) => lines.clear(),
            Report::Output(line) => lines.push(line),
            Report::End { command, status, .. } => {
                let test = tests.get(*command).map_or("?", String::as_str);
                let suite = format!("{suite} {test}");
                tally.add(Tally::read(&suite, lines.drain(..), *status == 0));
                ended += 1;
            }
            Report::Booted { .. } | Report::Warning(_) | Report::Done => {}
        }
    }
    if let Some(broken) = &outcome.broken {
        eprintln!("{suite}: {broken}");
        let reason = broken.lines().next().unwrap_or_default();
        let during = tests.get(ended).map_or("the end", String::as_str);
        tally.add(Tally::failure(format!("{suite}: {reason} (during {during})")));
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["accounting".into(), "names".into()]
    }

    fn output(line: &str) -> Report {
        Report::Output(line.into())
    }

    #[test]
    fn each_test_binary_of_a_machine_is_counted() {
        let reports = vec![
            Report::Begin(0),
            output("---- a stdout ----"),
            output("SKIP a: no xfs"),
            output("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Report::End { command: 0, status: 0, ms: 1 },
            Report::Begin(1),
            Report::End { command: 1, status: 139, ms: 1 },
            Report::Done,
        ];
        let tally = tally("vm 6.1 kprobe", &names(), &Outcome { reports, broken: None });
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failed, ["vm 6.1 kprobe names: ended before its tests did"]);
    }

    #[test]
    fn a_machine_that_panics_fails_and_keeps_what_was_counted() {
        let reports = vec![
            Report::Begin(0),
            output("test result: ok. 3 passed; 0 failed; 0 ignored"),
            Report::End { command: 0, status: 0, ms: 1 },
            Report::Begin(1),
            output("test x ... "),
        ];
        let broken = Some("[ 9.1] Kernel panic - not syncing\n    | more".to_owned());
        let tally = tally("vm 6.1 fentry", &names(), &Outcome { reports, broken });
        assert_eq!(tally.passed, 3);
        assert_eq!(
            tally.failed,
            ["vm 6.1 fentry: [ 9.1] Kernel panic - not syncing (during names)"]
        );
    }
}
