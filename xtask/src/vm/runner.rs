//! Machines booted one after the other: what they run, and what their tests said.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use filltop_init::{BOOTED_DIR, JOB_PATH, Job, Report};

use super::booted::Software;
use super::debian::Series;
use super::emulator::Emulator;
use super::initramfs::{Contents, Userland};
use super::qemu::{GUEST_DISKS, GUEST_ROOT, Machine, Outcome};
use super::{Backend, DEFAULT_KERNEL, VmArgs, booted, debian, initramfs, modules};
use crate::tally::{Tally, first_line};
use crate::workspace::{Place, Workspace};
use crate::{build, native};

/// How many times as long an incident may take in an emulated machine (FILLTOP_SLOWNESS).
const SLOWNESS: &str = "5";

/// The variable by which tests start filltop with the unit's capabilities.
pub(crate) const RIGHTS_OF_THE_UNIT: (&str, &str) = ("FILLTOP_RIGHTS", "unit");

/// The suite of container runtimes, and those of its tests whose runtimes a Debian can have installed.
const RUNTIMES: &str = "runtimes";
const INSTALLED_RUNTIMES: [&str; 2] = ["docker::", "podman::"];

/// The suite that a whole Debian runs as well, where its systemd starts filltop under the unit's lines.
const UNDER_SYSTEMD: &str = "rights";
const STARTED_BY_SYSTEMD: &str = "FILLTOP_RIGHTS=systemd";

/// Boots of a machine whose kernel dies before it gets to us: emulated CPUs at times run into an instruction
/// that another one is just changing (int3, about one boot in a hundred).
const BOOTS: usize = 3;

/// What the arguments ask for, built.
pub(super) struct Runner<'a> {
    workspace: &'a Workspace,
    arguments: &'a VmArgs,
    emulator: Emulator,
    pub(super) kernels: Vec<&'static Series>,
    init: PathBuf,
    busybox: PathBuf,
    pub(super) programs: Vec<(String, PathBuf)>,
    pub(super) installed: Vec<String>,
    tests: Vec<String>,
}

/// What a machine of one kernel is booted from.
pub(super) struct Parts {
    /// The kernel's bzImage.
    kernel: PathBuf,
    pub(super) userland: Userland,
    /// The disk of the Debian to boot, if one is wanted.
    root: Option<PathBuf>,
}

impl<'a> Runner<'a> {
    /// With the tests that the arguments name, or all.
    pub(super) fn new(
        workspace: &'a Workspace,
        filltop: &Path,
        arguments: &'a VmArgs,
    ) -> Result<Self> {
        let place = if arguments.debian { Place::BootedOnly } else { Place::Anywhere };
        let mut names = native::names(&workspace.end_to_end, &[place]);
        if arguments.software == Software::Runtimes {
            names = vec![RUNTIMES];
        } else if arguments.debian {
            names.push(UNDER_SYSTEMD);
        }
        for wanted in &arguments.test {
            ensure!(names.contains(&wanted.as_str()), "no end-to-end test {wanted}: {names:?}");
        }
        names.retain(|name| arguments.test.is_empty() || arguments.test.iter().any(|t| t == name));
        Self::with_tests(workspace, filltop, arguments, &names)
    }

    pub(super) fn with_tests(
        workspace: &'a Workspace,
        filltop: &Path,
        arguments: &'a VmArgs,
        tests: &[&str],
    ) -> Result<Self> {
        let given: Vec<&str> = arguments.kernel.iter().map(String::as_str).collect();
        let names: Vec<&str> = match (&given[..], arguments.debian) {
            (_, true) if arguments.all => booted::KERNELS.to_vec(),
            (_, false) if arguments.all => debian::SERIES.iter().map(|one| one.name).collect(),
            ([], true) => booted::KERNELS[..1].to_vec(),
            ([], false) => vec![DEFAULT_KERNEL],
            (some, _) => some.to_vec(),
        };
        let kernels = names.into_iter().map(debian::series).collect::<Result<_>>()?;
        let binaries = build::end_to_end(workspace, tests)?;
        let mut programs = vec![
            ("/bin/filltop".to_owned(), filltop.to_owned()),
            ("/bin/filltop-workload".to_owned(), binaries.workload),
        ];
        let tests = binaries.tests.iter().map(|(name, _)| name.clone()).collect();
        programs.extend(binaries.tests.into_iter().map(|(n, file)| (format!("/tests/{n}"), file)));
        let busybox = debian::busybox(workspace)?;
        Ok(Self {
            emulator: Emulator::find(workspace)?,
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
    pub(super) fn tests(&self) -> Result<Tally> {
        self.tests_into(&mut |line| println!("{line}"))
    }

    /// The same; each line of output goes to `print`.
    pub(super) fn tests_into(&self, print: &mut dyn FnMut(&str)) -> Result<Tally> {
        let mut tally = Tally::default();
        let given = |backends: &[Backend]| backends.iter().copied().map(Some).collect();
        let backends: Vec<Option<Backend>> = match &self.arguments.backend[..] {
            // The unit chooses there, as on people's machines.
            [] if self.arguments.debian || self.arguments.as_service => vec![None],
            [] => given(Backend::value_variants()),
            some => given(some),
        };
        for series in &self.kernels {
            if self.tests.is_empty() {
                tally.add(Tally::skip(format!("vm {}: there is no end-to-end test", series.name)));
                continue;
            }
            match self.parts(series) {
                Ok(parts) => {
                    for backend in &backends {
                        let chosen = if self.arguments.debian { "Debian" } else { "service" };
                        let by = backend.map_or(chosen, Backend::name);
                        let suite = format!("vm {} {by}", series.name);
                        tally.add(self.tests_with(&suite, *backend, &parts, print)?);
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
        backend: Option<Backend>,
        parts: &Parts,
        print: &mut dyn FnMut(&str),
    ) -> Result<Tally> {
        let mut job = self.job(&parts.userland);
        job.env.extend(backend.map(|by| ("FILLTOP_BACKEND".into(), by.name().into())));
        for test in &self.tests {
            let mut command = vec![format!("{}/tests/{test}", self.prefix())];
            if self.arguments.debian && test == UNDER_SYSTEMD {
                command.splice(0..0, ["env", STARTED_BY_SYSTEMD].map(str::to_owned));
            }
            command.extend(["--test-threads=1", "--show-output"].map(str::to_owned));
            command.extend(self.arguments.filter.clone());
            if self.arguments.software == Software::Runtimes && self.arguments.filter.is_empty() {
                command.extend(INSTALLED_RUNTIMES.map(str::to_owned));
            }
            job.commands.push(command);
        }
        print(&format!("== {suite}"));
        let started = Instant::now();
        let outcome = self.boot_into(suite, parts, &job, print)?;
        let part = format!("{suite}: {}", self.tests.join(", "));
        Ok(tally(suite, &self.tests, &outcome).since(&part, started))
    }

    /// Runs the command that was given, on the terminal if we have one.
    pub(super) fn command(&self, series: &Series) -> Result<i32> {
        let parts = self.parts(series)?;
        let mut job = self.job(&parts.userland);
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
        let outcome = self.boot(&format!("vm {}", series.name), &parts, &job)?;
        if let Some(broken) = outcome.broken {
            anyhow::bail!("vm {}: {broken}", series.name);
        }
        let ends = outcome.reports.iter().filter_map(|report| match report {
            Report::End { status, .. } => Some(*status),
            _ => None,
        });
        Ok(ends.max().unwrap_or(1))
    }

    /// The kernel's image, what is packed for it, and its Debian's disk.
    pub(super) fn parts(&self, series: &Series) -> Result<Parts> {
        // A kernel is fetched once, whoever wants it first.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        let kernel = debian::kernel(self.workspace, series)?;
        let contents = Contents {
            init: &self.init,
            busybox: &self.busybox,
            programs: self.programs.clone(),
            installed: &self.installed,
            modules: if self.arguments.debian { modules::FOR_ROOT } else { modules::WANTED },
            extra_modules: &self.arguments.module,
        };
        let userland = initramfs::pack(&kernel, &contents)?;
        let software = self.arguments.software;
        let image = || booted::image(self.workspace, series, &kernel, software);
        let root = self.arguments.debian.then(image).transpose()?;
        Ok(Parts { kernel: kernel.image, userland, root })
    }

    /// What stands before the paths of what came with the initramfs.
    fn prefix(&self) -> &'static str {
        if self.arguments.debian { BOOTED_DIR } else { "" }
    }

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
            env.push(RIGHTS_OF_THE_UNIT);
        }
        if let Some(fs) = &self.arguments.fs {
            env.push(("FILLTOP_TEST_FS", fs));
        }
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let root = self.arguments.debian.then(|| GUEST_ROOT.to_owned());
        Job { modules: userland.modules.clone(), env, root, ..Job::default() }
    }

    pub(super) fn boot(&self, name: &str, parts: &Parts, job: &Job) -> Result<Outcome> {
        self.boot_into(name, parts, job, &mut |line| println!("{line}"))
    }

    fn boot_into(
        &self,
        name: &str,
        parts: &Parts,
        job: &Job,
        print: &mut dyn FnMut(&str),
    ) -> Result<Outcome> {
        // Two machines may have the same name but for their tests.
        let tests = self.tests.first().map(|first| format!("-{first}")).unwrap_or_default();
        let directory = name.replace(' ', "-") + &tests;
        let directory = self.workspace.target.join("vm/run").join(directory);
        fs::create_dir_all(&directory)?;
        let mut archive = parts.userland.archive.clone();
        archive.file(JOB_PATH, 0o644, job.encode().as_bytes());
        let initrd = directory.join("initramfs.cpio");
        fs::write(&initrd, archive.finish())?;
        let machine = Machine {
            emulator: self.emulator.clone(),
            kernel: parts.kernel.clone(),
            initrd,
            console: directory.join("console.log"),
            disks: self.workspace.target.join("vm/disks"),
            large_disks: self.arguments.software == Software::Incidents,
            root: parts.root.clone(),
            smp: self.arguments.smp,
            memory: self.arguments.memory,
            icount: self.arguments.icount,
            append: self.arguments.append.clone(),
            timeout: self.arguments.patience(),
            interactive: job.console.is_some(),
        };
        if machine.interactive {
            eprintln!("{name}: Ctrl-A X ends the machine");
        }
        let started = Instant::now();
        let mut once = || {
            machine.run(|report| match report {
                Report::Booted { release, uptime_ms } => eprintln!(
                    "{name}: Linux {release}, up after {:.1} s of its time and {:.1} s of ours",
                    Duration::from_millis(*uptime_ms).as_secs_f64(),
                    started.elapsed().as_secs_f64()
                ),
                Report::Warning(text) => eprintln!("{name}: {text}"),
                Report::Output(text) => print(text),
                Report::Begin(_) | Report::End { .. } | Report::Done => {}
            })
        };
        let mut outcome = once()?;
        for _ in 1..BOOTS {
            let Some(broken) = died_early(&outcome) else { break };
            eprintln!("{name}: {broken}: its kernel did not come up, so it is booted again");
            outcome = once()?;
        }
        eprintln!("{name}: {:.1} s", started.elapsed().as_secs_f64());
        Ok(outcome)
    }
}

/// What a kernel said that died before it started any program of ours.
fn died_early(outcome: &Outcome) -> Option<&str> {
    let came_up = outcome.reports.iter().any(|report| matches!(report, Report::Booted { .. }));
    let broken = outcome.broken.as_deref().filter(|_| !came_up)?;
    broken.lines().next()
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
    fn a_kernel_that_dies_before_our_programs_is_booted_again() {
        let broken = Some("[ 1.3] Oops: int3\n    | more".to_owned());
        let early = Outcome { reports: vec![], broken: broken.clone() };
        assert_eq!(died_early(&early), Some("[ 1.3] Oops: int3"));
        let reports = vec![Report::Booted { release: "6.12".into(), uptime_ms: 1 }];
        assert_eq!(died_early(&Outcome { reports, broken }), None);
        assert_eq!(died_early(&Outcome { reports: vec![], broken: None }), None);
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
