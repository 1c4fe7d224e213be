//! The virtual machines that `cargo xtask test` boots.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Result;

use super::args::{Backend, DEFAULT_KERNEL, VmArgs};
use super::debian_image::{self, Software};
use super::kernel;
use super::queue::{self, WorkQueue};
use super::runner::{ONLY_X86, Runner, require_programs};
use crate::packages;
use crate::tally::{Tally, first_line};
use crate::workspace::{Place, Workspace};

/// The longest that one machine may run. Native tests with a higher priority run at the same time.
const TIMEOUT_SECONDS: u64 = 2_400;
/// Filesystems on which all ways to write are tested. The others are skipped by name, and tested by
/// `cargo xtask vm` and `cargo xtask kernels`.
const FILESYSTEMS: &str = "ext4,tmpfs,overlay";

/// Suites that also run with kprobes, the first one in part: those that depend on how bytes are counted. All
/// suites run with fentry. `cargo xtask vm` runs the remaining suites with kprobes, too.
const KPROBE_SUITES: [&str; 2] = ["accounting", "io_paths"];

/// Tests of the suite `accounting` that depend little on the kernel, and that run natively. `cargo xtask vm`
/// runs them in machines, too.
const NATIVE_TESTS: [&str; 2] = ["overlays::", "limits::"];
/// Those that in addition depend little on how bytes are counted: not with kprobes.
const FENTRY_TESTS: [&str; 4] = ["held::", "files::", "refusals::", "sampled::"];

/// A kernel whose filesystems are modules, and those filesystems on which all ways to write are tested
/// there, with fentry.
const MODULE_KERNEL: (&str, &str) = ("6.1-generic", "ext4,xfs,btrfs");

/// The suite and filter that run with tracepoints, on a kernel that supports the other backends as well: all
/// ways to write, of which tracepoints miss the expected ones. The native tests run everything with the
/// backend that this machine's kernel supports, which may be tracepoints alone.
const TRACEPOINT_TESTS: (&str, &str) = ("io_paths", "all_ways");

/// Runs the end-to-end tests on the default kernel with each backend as part of `cargo xtask test`, and
/// `alongside` at the same time.
///
/// Two machines run at a time, from the start and at a lower priority ([`super::qemu::Qemu::command`]): the
/// native suites wait most of the time. Machines whose tests have deadlines run when the native tests have ended.
pub(crate) fn run_tests(
    workspace: &Workspace,
    filltop: &Path,
    alongside: impl FnOnce() -> Tally,
) -> Tally {
    if !cfg!(target_arch = "x86_64") {
        let mut tally = alongside();
        tally.add(Tally::skip(format!("vm {DEFAULT_KERNEL}: {ONLY_X86}")));
        return tally;
    }
    if let Err(error) = require_programs() {
        eprintln!("{error:#}");
        let reason = first_line(&error);
        let mut tally = alongside();
        tally.add(not_run(format!("vm {DEFAULT_KERNEL}: {reason}")));
        return tally;
    }
    let with = |backend, suites: &[&str]| VmArgs {
        backend: vec![backend],
        fs: Some(FILESYSTEMS.to_owned()),
        test: suites.iter().map(|&name| name.to_owned()).collect(),
        timeout: Some(TIMEOUT_SECONDS),
        ..VmArgs::default()
    };
    let all = workspace.tests_in(&[Place::Anywhere]);
    let others: Vec<&str> =
        all.iter().copied().filter(|name| !KPROBE_SUITES.contains(name)).collect();
    let accounting = |backend, skipped: &[&[&str]]| VmArgs {
        skip: skipped.concat().iter().map(|&name| name.to_owned()).collect(),
        ..with(backend, &KPROBE_SUITES[..1])
    };
    let (suite, filter) = TRACEPOINT_TESTS;
    let with_tracepoints =
        VmArgs { filter: vec![filter.to_owned()], ..with(Backend::Tracepoint, &[suite]) };
    let (kernel, modules) = MODULE_KERNEL;
    let on_modules = VmArgs {
        kernel: vec![kernel.to_owned()],
        fs: Some(modules.to_owned()),
        filter: vec![filter.to_owned()],
        ..with(Backend::Fentry, &[suite])
    };
    // These compare numbers and may be slowed down: they run beside the native tests, the longest first.
    let patient = [
        accounting(Backend::Fentry, &[&NATIVE_TESTS]),
        with(Backend::Fentry, &KPROBE_SUITES[1..]),
        with(Backend::Kprobe, &KPROBE_SUITES[1..]),
        accounting(Backend::Kprobe, &[&NATIVE_TESTS, &FENTRY_TESTS]),
        on_modules,
        with_tracepoints,
    ];
    // These have deadlines: systemd gives a unit 90 s to start, and a stop has to take effect within a second.
    // Beside busy native tests an emulated machine misses them.
    let mut timed = vec![with(Backend::Fentry, &others)];
    let mut tally = Tally::default();
    match build_debian_image(workspace) {
        Ok(_) => timed.push(VmArgs { debian: true, ..VmArgs::default() }),
        Err(error) => tally.add(not_run(format!("vm Debian: {}", first_line(&error)))),
    }
    // They run natively as well, and take longest there.
    tally.add(Tally::skip(
        "vm Debian runtimes: only run by `cargo xtask vm --debian --software runtimes`".to_owned(),
    ));
    // Built one after the other.
    let runners = patient
        .iter()
        .chain(&timed)
        .map(|arguments| Runner::new(workspace, filltop, arguments))
        .collect::<Result<Vec<_>>>();
    let runners = match runners {
        Ok(runners) => runners,
        Err(error) => {
            tally.add(alongside());
            tally.add(Tally::from_result("vm", Err(error)));
            return tally;
        }
    };
    let (patient, timed) = runners.split_at(patient.len());
    let workers =
        if thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) { 2 } else { 1 };
    let run = |runners: &[Runner<'_>], alongside: &mut dyn FnMut()| {
        let queue = WorkQueue::new(runners.len(), |index| queue::run_buffered(&runners[index]));
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| queue.work());
            }
            alongside();
        });
        Tally::from_result("vm", queue.sum())
    };
    let mut native = Some(alongside);
    let patient = run(patient, &mut || {
        if let Some(native) = native.take() {
            tally.add(native());
        }
    });
    tally.add(patient);
    tally.add(run(timed, &mut || {}));
    for (backend, names) in [
        ("fentry", &NATIVE_TESTS[..]),
        ("kprobe", &NATIVE_TESTS[..]),
        ("kprobe", &FENTRY_TESTS[..]),
    ] {
        for name in names {
            tally.add(Tally::skip(format!(
                "vm {DEFAULT_KERNEL} {backend} accounting {name}: only run by `cargo xtask vm`"
            )));
        }
    }
    for name in all {
        let omitted = [
            ("kprobe", !KPROBE_SUITES.contains(&name)),
            ("tracepoint", TRACEPOINT_TESTS.0 != name),
        ];
        for (backend, _) in omitted.iter().filter(|(_, is_omitted)| *is_omitted) {
            tally.add(Tally::skip(format!(
                "vm {DEFAULT_KERNEL} {backend} {name}: only run by `cargo xtask vm`"
            )));
        }
    }
    tally
}

/// A part that could not be prepared: a failure where xtask may install what is missing, otherwise a skip.
fn not_run(what: String) -> Tally {
    if packages::can_install() { Tally::failure(what) } else { Tally::skip(what) }
}

/// Builds the disk image of the Debian that `cargo xtask test` boots.
fn build_debian_image(workspace: &Workspace) -> Result<PathBuf> {
    let series = kernel::series(debian_image::KERNELS[0])?;
    let kernel = kernel::download(workspace, series)?;
    debian_image::build(workspace, series, &kernel, Software::Plain)
}
