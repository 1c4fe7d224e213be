//! Machines booted one after the other: what they run, and the results of their tests.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use filltop_init::{DEBIAN_FILES_DIR, JOB_PATH, Job, Report};

use super::args::{Backend, DEFAULT_KERNEL, VmArgs};
use super::boot::boot;
use super::debian_image::{self, Software};
use super::initramfs::{self, Contents, Userland};
use super::kernel::{self, Series};
use super::machine::{GUEST_DISKS, GUEST_ROOT, Machine, Outcome};
use super::modules;
use super::qemu::Qemu;
use super::results::tally;
use crate::build;
use crate::packages::{self, MKFS};
use crate::tally::{Tally, first_line};
use crate::workspace::{Place, Workspace, env_or};

/// Why there are no virtual machines on other architectures.
pub(super) const ONLY_X86: &str = "virtual machines need an x86-64 host, whose binaries they run";

/// How many times as long an incident may take in an emulated machine (FILLTOP_SLOWNESS).
const SLOWNESS: &str = "5";

/// The variable with which tests start filltop with only the unit's capabilities.
pub(crate) const UNIT_CAPABILITIES: (&str, &str) = ("FILLTOP_RIGHTS", "unit");

/// The suite of container runtimes, and filters for those of its tests whose runtimes Debian installs.
const RUNTIMES: &str = "runtimes";
const INSTALLED_RUNTIMES: [&str; 2] = ["docker::", "podman::"];

/// A suite that also runs in a complete Debian, where systemd starts filltop with the unit's settings.
const SYSTEMD_SUITE: &str = "rights";
const STARTED_BY_SYSTEMD: &str = "FILLTOP_RIGHTS=systemd";

/// What the arguments ask for, built and ready to boot.
pub(super) struct Runner<'a> {
    workspace: &'a Workspace,
    arguments: &'a VmArgs,
    qemu: Qemu,
    /// One boot for each, and for each backend.
    pub(super) kernels: Vec<&'static Series>,
    init: PathBuf,
    busybox: PathBuf,
    /// Programs: the path in the machine, and the file here.
    pub(super) programs: Vec<(String, PathBuf)>,
    /// Names of programs installed here that are copied with their libraries.
    pub(super) installed: Vec<String>,
    /// Names of the test binaries, in the order in which they run.
    tests: Vec<String>,
}

/// The files that a machine is booted from.
pub(super) struct BootFiles {
    /// The kernel's bzImage.
    kernel: PathBuf,
    pub(super) userland: Userland,
    /// The disk image of the Debian to boot, if any.
    root: Option<PathBuf>,
}

impl<'a> Runner<'a> {
    /// A runner for the tests that the arguments name, or for all.
    pub(super) fn new(
        workspace: &'a Workspace,
        filltop: &Path,
        arguments: &'a VmArgs,
    ) -> Result<Self> {
        let place = if arguments.debian { Place::DebianVmOnly } else { Place::Anywhere };
        let mut names = workspace.tests_in(&[place]);
        if arguments.software == Software::Runtimes {
            names = vec![RUNTIMES];
        } else if arguments.debian {
            names.push(SYSTEMD_SUITE);
        }
        for wanted in &arguments.test {
            ensure!(
                names.contains(&wanted.as_str()),
                "no end-to-end test {wanted} for this machine; there are: {}",
                names.join(", ")
            );
        }
        names.retain(|name| arguments.test.is_empty() || arguments.test.iter().any(|t| t == name));
        Self::with_tests(workspace, filltop, arguments, &names)
    }

    /// A runner for these test binaries.
    pub(super) fn with_tests(
        workspace: &'a Workspace,
        filltop: &Path,
        arguments: &'a VmArgs,
        tests: &[&str],
    ) -> Result<Self> {
        let given: Vec<&str> = arguments.kernel.iter().map(String::as_str).collect();
        let names: Vec<&str> = match (&given[..], arguments.debian) {
            (_, true) if arguments.all => debian_image::KERNELS.to_vec(),
            (_, false) if arguments.all => kernel::SERIES.iter().map(|one| one.name).collect(),
            ([], true) => debian_image::KERNELS[..1].to_vec(),
            ([], false) => vec![DEFAULT_KERNEL],
            (some, _) => some.to_vec(),
        };
        let kernels = names.into_iter().map(kernel::series).collect::<Result<_>>()?;
        let binaries = build::end_to_end(workspace, tests)?;
        let mut programs = vec![
            ("/bin/filltop".to_owned(), filltop.to_owned()),
            ("/bin/filltop-workload".to_owned(), binaries.workload),
        ];
        let tests = binaries.tests.iter().map(|(name, _)| name.clone()).collect();
        programs.extend(binaries.tests.into_iter().map(|(n, file)| (format!("/tests/{n}"), file)));
        let busybox = initramfs::busybox(workspace)?;
        Ok(Self {
            qemu: Qemu::find(workspace)?,
            init: build::vm_init(workspace)?,
            workspace,
            arguments,
            kernels,
            busybox,
            programs,
            installed: Vec::new(),
            tests,
        })
    }

    /// Runs every test on every kernel with every backend, and passes each line of output to `print`. A
    /// machine that breaks is a failure.
    pub(super) fn run_tests(&self, print: &mut dyn FnMut(&str)) -> Result<Tally> {
        let mut tally = Tally::default();
        let forced = |backends: &[Backend]| backends.iter().copied().map(Some).collect();
        let backends: Vec<Option<Backend>> = match &self.arguments.backend[..] {
            // filltop chooses, as it does in production.
            [] if self.arguments.debian || self.arguments.as_service => vec![None],
            [] => forced(Backend::value_variants()),
            some => forced(some),
        };
        for series in &self.kernels {
            if self.tests.is_empty() {
                tally.add(Tally::skip(format!("vm {}: there is no end-to-end test", series.name)));
                continue;
            }
            match self.boot_files(series) {
                Ok(files) => {
                    for backend in &backends {
                        let unforced = if self.arguments.debian { "Debian" } else { "service" };
                        let variant = backend.map_or(unforced, Backend::name);
                        let suite = format!("vm {} {variant}", series.name);
                        tally.add(self.run_tests_with(&suite, *backend, &files, print)?);
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

    fn run_tests_with(
        &self,
        suite: &str,
        backend: Option<Backend>,
        files: &BootFiles,
        print: &mut dyn FnMut(&str),
    ) -> Result<Tally> {
        let mut job = self.job(&files.userland);
        job.env.extend(backend.map(|b| ("FILLTOP_BACKEND".into(), b.name().into())));
        for test in &self.tests {
            let mut command = vec![format!("{}/tests/{test}", self.prefix())];
            if self.arguments.debian && test == SYSTEMD_SUITE {
                command.splice(0..0, ["env", STARTED_BY_SYSTEMD].map(str::to_owned));
            }
            command.extend(["--test-threads=1", "--show-output"].map(str::to_owned));
            let skipped = self.arguments.skip.iter();
            command.extend(skipped.flat_map(|name| ["--skip".to_owned(), name.clone()]));
            command.extend(self.arguments.filter.clone());
            if self.arguments.software == Software::Runtimes && self.arguments.filter.is_empty() {
                command.extend(INSTALLED_RUNTIMES.map(str::to_owned));
            }
            job.commands.push(command);
        }
        print(&format!("== {suite}"));
        let started = Instant::now();
        let outcome = self.boot(suite, files, &job, print)?;
        let part = format!("{suite}: {}", self.tests.join(", "));
        Ok(tally(suite, &self.tests, &outcome).with_duration(&part, started))
    }

    /// Runs the command of the arguments, on the terminal if there is one, and returns its exit status.
    pub(super) fn run_command(&self, series: &Series) -> Result<i32> {
        let files = self.boot_files(series)?;
        let mut job = self.job(&files.userland);
        if let Some(backend) = self.arguments.backend.first() {
            job.env.push(("FILLTOP_BACKEND".into(), backend.name().into()));
        }
        job.commands.push(self.arguments.command.clone());
        if std::io::stdin().is_terminal() {
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
            // A terminal that does not know its size reports 0 × 0.
            let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
            job.console = Some(size.map_or((24, 80), |size| (size.ws_row, size.ws_col)));
            job.env.push(("TERM".into(), env_or("TERM", "vt220")));
        }
        let name = format!("vm {}", series.name);
        let outcome = self.boot(&name, &files, &job, &mut |line| println!("{line}"))?;
        if let Some(failure) = outcome.failure {
            bail!("{name}: {failure}");
        }
        let statuses = outcome.reports.iter().filter_map(|report| match report {
            Report::End { status, .. } => Some(*status),
            _ => None,
        });
        Ok(statuses.max().unwrap_or(1))
    }

    /// The kernel's image, the userland packed for it, and the Debian's disk image; downloaded and built if
    /// they are missing.
    pub(super) fn boot_files(&self, series: &Series) -> Result<BootFiles> {
        // Runners in several threads may need the same kernel; it is downloaded once.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let kernel = kernel::download(self.workspace, series)?;
        let debian = self.arguments.debian;
        let contents = Contents {
            init: &self.init,
            busybox: &self.busybox,
            programs: self.programs.clone(),
            installed: &self.installed,
            modules: if debian { modules::FOR_ROOT } else { modules::FOR_TESTS },
            extra_modules: &self.arguments.module,
        };
        let userland = initramfs::pack(&kernel, &contents)?;
        let software = self.arguments.software;
        let image = || debian_image::build(self.workspace, series, &kernel, software);
        let root = debian.then(image).transpose()?;
        Ok(BootFiles { kernel: kernel.image, userland, root })
    }

    /// The directory in the machine below which the files of the initramfs are.
    fn prefix(&self) -> &'static str {
        if self.arguments.debian { DEBIAN_FILES_DIR } else { "" }
    }

    /// A job without commands: the modules to load and the environment of the tests.
    pub(super) fn job(&self, userland: &Userland) -> Job {
        let (filltop, workload) = (
            format!("{}/bin/filltop", self.prefix()),
            format!("{}/bin/filltop-workload", self.prefix()),
        );
        let mut env = vec![
            ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("RUST_BACKTRACE", "1"),
            ("FILLTOP_BIN", filltop.as_str()),
            ("FILLTOP_WORKLOAD", &workload),
            ("FILLTOP_TEST_DISKS", GUEST_DISKS),
            ("FILLTOP_IN_VM", "1"),
        ];
        if self.arguments.software == Software::Incidents {
            env.push(("FILLTOP_SLOWNESS", SLOWNESS));
        }
        if self.arguments.as_service {
            env.push(UNIT_CAPABILITIES);
        }
        if let Some(fs) = &self.arguments.fs {
            env.push(("FILLTOP_TEST_FS", fs));
        }
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let root = self.arguments.debian.then(|| GUEST_ROOT.to_owned());
        Job { modules: userland.modules.clone(), env, root, ..Job::default() }
    }

    /// Boots a machine with this job and passes each line that its commands print to `print`.
    pub(super) fn boot(
        &self,
        name: &str,
        files: &BootFiles,
        job: &Job,
        print: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        // Two machines of one name may differ in nothing but their tests.
        let tests = self.tests.first().map(|first| format!("-{first}")).unwrap_or_default();
        let directory = name.replace(' ', "-") + &tests;
        let directory = self.workspace.target.join("vm/run").join(directory);
        fs::create_dir_all(&directory)?;
        let mut archive = files.userland.archive.clone();
        archive.file(JOB_PATH, 0o644, job.encode().as_bytes());
        let initrd = directory.join("initramfs.cpio");
        fs::write(&initrd, archive.finish())?;
        let machine = Machine {
            qemu: self.qemu.clone(),
            kernel: files.kernel.clone(),
            initrd,
            console: directory.join("console.log"),
            disks: self.workspace.target.join("vm/disks"),
            large_disks: self.arguments.software == Software::Incidents,
            root: files.root.clone(),
            smp: self.arguments.smp,
            memory: self.arguments.memory,
            icount: self.arguments.icount,
            append: self.arguments.append.clone(),
            timeout: self.arguments.timeout(),
            interactive: job.console.is_some(),
        };
        if machine.interactive {
            eprintln!("{name}: Ctrl-A X ends the machine");
        }
        boot(name, &machine, print)
    }
}

/// Makes sure that the programs that prepare a machine are installed.
pub(super) fn require_programs() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), ONLY_X86);
    let mut programs =
        vec![("xz", "xz-utils"), ("dpkg-deb", "dpkg"), ("apt-get", "apt"), ("ldd", "libc-bin")];
    programs.extend(MKFS);
    packages::require("a virtual machine", &programs)
}
