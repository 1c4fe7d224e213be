//! `cargo xtask bench`: the cost that filltop, an empty hook (the floor) and other tools add to an operation. It is
//! measured in virtual machines that count instructions, so that figures repeat, and on this machine, with the
//! effects of caches and locks.

mod catalog;
mod daemon;
mod document;
mod measure;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::command::tee;
use crate::privileges::as_root;
use crate::workspace::{Workspace, kernel_version};
use crate::{build, packages, vm};
use catalog::{CASES, OTHER_TOOLS, PROGRAMS, QUICK_CASES, QUICK_PROGRAMS};
use measure::{Line, Part};

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Measure only one kernel, five loops, and the floor, filltop and bpftrace; takes under 5 minutes
    #[arg(long, conflicts_with_all = ["kernel", "only"])]
    quick: bool,
    /// Also write all figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Kernel series of the virtual machines; repeatable [default: 6.1 and 7.x]
    #[arg(long)]
    kernel: Vec<String>,
    /// Measure only these parts; the document keeps the last figures of the others
    #[arg(long, value_delimiter = ',')]
    only: Vec<PartKind>,
    /// Measure only these loops
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Measure only these programs
    #[arg(long, value_delimiter = ',')]
    program: Vec<String>,
    /// Only write the document, from the last figures
    #[arg(long, conflicts_with_all = ["quick", "kernel", "only", "json"])]
    rewrite: bool,
    /// Only print the number and duration of runs of each BPF program in one batch of each loop
    #[arg(long)]
    profile: bool,
}

/// A kind of measurement.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum PartKind {
    /// Instructions in virtual machines
    Vm,
    /// Nanoseconds on this machine
    Native,
    /// CPU time and memory of filltop itself on this machine
    Daemon,
    /// Nanoseconds of one thread for each CPU, in virtual machines with 1 to 16 CPUs
    Scale,
}

const KERNELS: &[&str] = &["6.1", "7.x"];
const QUICK_KERNEL: &str = "6.1";
/// Enough for bpftrace and its compiler, unpacked in the initramfs.
const MEMORY_MB: u32 = 3072;
const TIMEOUT_SECONDS: u64 = 3600;
/// The file with the last figures of the daemon.
const DAEMON_FILE: &str = "daemon.json";
/// In the machine's time. Little is enough, because figures repeat.
const VM_BUDGET_MS: &str = "25";
/// Numbers of simulated CPUs.
const SCALE_CPUS: &[u32] = &[1, 2, 4, 16];
const THREAD_CASES: &str = "threads-own,threads-shared";
const NATIVE_ROUNDS: &str = "5";
const NATIVE_BUDGET_MS: &str = "60";

/// Measures, prints the tables, and writes the document unless only a selection was measured.
pub(crate) fn run(workspace: &Workspace, filltop: &Path, arguments: &BenchArgs) -> Result<()> {
    let tools =
        OTHER_TOOLS.iter().copied().filter(|(name, _)| !arguments.quick || *name == "bpftrace");
    packages::require("comparing filltop with other tools", &tools.collect::<Vec<_>>())?;
    let floor = build::example(workspace, "tracer-kernel", "floor")?;
    let store = workspace.target.join("bench");
    fs::create_dir_all(&store)?;
    let bench = Bench { workspace, filltop, floor, arguments };
    let wanted =
        |kind| !arguments.rewrite && (arguments.only.is_empty() || arguments.only.contains(&kind));
    let mut parts = Vec::new();
    if wanted(PartKind::Vm) {
        for kernel in bench.kernels() {
            let (release, lines) = bench.in_vm(kernel)?;
            if !arguments.profile {
                let name = format!("vm-{kernel}");
                parts.push(Part::from_instruction_counts(
                    &name,
                    &release,
                    &Line::parse_all(&lines)?,
                )?);
            }
        }
    }
    if wanted(PartKind::Native) && !arguments.quick && !arguments.profile {
        parts.push(bench.native()?);
    }
    if wanted(PartKind::Scale) && !arguments.quick && !arguments.profile {
        for cpus in SCALE_CPUS {
            parts.push(bench.scaling(*cpus)?);
        }
    }
    let mut daemon = None;
    if wanted(PartKind::Daemon) && !arguments.quick && !arguments.profile {
        daemon = Some(daemon::measure(workspace, filltop)?);
    }
    for part in &parts {
        println!("{}", document::tables(part));
    }
    if let Some(daemon) = &daemon {
        println!("{}", daemon.tables());
    }
    if let Some(path) = &arguments.json {
        fs::write(path, measure::json(&parts)?).with_context(|| path.display().to_string())?;
    }
    if arguments.quick
        || arguments.profile
        || !arguments.case.is_empty()
        || !arguments.program.is_empty()
    {
        return Ok(());
    }
    for part in &parts {
        fs::write(store.join(format!("{}.json", part.name)), serde_json::to_string(part)?)?;
    }
    if let Some(daemon) = &daemon {
        fs::write(store.join(DAEMON_FILE), serde_json::to_string(daemon)?)?;
    }
    let (mut known, mut daemon) = (Vec::new(), None);
    for entry in fs::read_dir(&store)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if path.ends_with(DAEMON_FILE) {
            daemon = Some(serde_json::from_str(&text)?);
        } else {
            known.push(serde_json::from_str(&text)?);
        }
    }
    let path = workspace.root.join("docs/benchmarks.md");
    fs::write(&path, document::generate(known, daemon.as_ref()))?;
    println!("{}", workspace.display(&path));
    Ok(())
}

/// The measurements of one run.
struct Bench<'a> {
    workspace: &'a Workspace,
    filltop: &'a Path,
    floor: PathBuf,
    arguments: &'a BenchArgs,
}

impl Bench<'_> {
    fn kernels(&self) -> Vec<&str> {
        if self.arguments.quick {
            vec![QUICK_KERNEL]
        } else if self.arguments.kernel.is_empty() {
            KERNELS.to_vec()
        } else {
            self.arguments.kernel.iter().map(String::as_str).collect()
        }
    }

    fn cases(&self) -> Vec<&str> {
        chosen(&self.arguments.case, if self.arguments.quick { QUICK_CASES } else { CASES })
    }

    /// The loops with a single thread, because a machine that counts instructions has one CPU.
    fn single_threaded_cases(&self) -> Vec<&str> {
        self.cases().into_iter().filter(|case| !case.starts_with("threads-")).collect()
    }

    fn programs(&self) -> Vec<&str> {
        chosen(
            &self.arguments.program,
            if self.arguments.quick { QUICK_PROGRAMS } else { PROGRAMS },
        )
    }

    /// The arguments of filltop-workload.
    fn arguments(&self, cases: &[&str], programs: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.join(",");
        let mut work = ["bench", "--cases", &list(cases), "--programs", &list(programs)]
            .map(str::to_owned)
            .to_vec();
        if self.arguments.profile {
            work.push("--profile".to_owned());
        }
        work
    }

    /// Counts instructions on a kernel, and returns its release and the output.
    fn in_vm(&self, kernel: &str) -> Result<(String, Vec<String>)> {
        let programs = self.programs();
        let mut command = vec!["/bin/filltop-workload".to_owned()];
        command.extend(self.arguments(&self.single_threaded_cases(), &programs));
        command.extend(["--budget-ms", VM_BUDGET_MS].map(str::to_owned));
        let installed: Vec<String> = OTHER_TOOLS
            .iter()
            .map(|(name, _)| *name)
            .filter(|tool| programs.iter().any(|name| name.split('-').next() == Some(tool)))
            .map(str::to_owned)
            .collect();
        let guest = vm::GuestCommand {
            kernel,
            programs: &[("/bin/floor".to_owned(), self.floor.clone())],
            installed: &installed,
            command,
            cpus: None,
            memory: MEMORY_MB,
            timeout: TIMEOUT_SECONDS,
        };
        vm::output_of(self.workspace, self.filltop, &guest)
    }

    /// Measures the nanoseconds of one thread for each of `cpus` CPUs, which QEMU runs as threads of the host.
    fn scaling(&self, cpus: u32) -> Result<Part> {
        let rounds = ["--rounds", "3", "--budget-ms", VM_BUDGET_MS];
        let work = ["bench", "--cases", THREAD_CASES, "--programs", "filltop-fexit"];
        let command = ["/bin/filltop-workload"].into_iter().chain(work).chain(rounds);
        let guest = vm::GuestCommand {
            kernel: QUICK_KERNEL,
            programs: &[],
            installed: &[],
            command: command.map(str::to_owned).collect(),
            cpus: Some(cpus),
            memory: MEMORY_MB,
            timeout: TIMEOUT_SECONDS,
        };
        let (release, lines) = vm::output_of(self.workspace, self.filltop, &guest)?;
        let place = format!("{release}, {cpus} CPUs");
        Part::from_timings(&format!("scale-{cpus:02}"), &place, &Line::parse_all(&lines)?)
    }

    /// Measures nanoseconds on this machine, with and without each program in turns.
    fn native(&self) -> Result<Part> {
        let binaries = build::end_to_end(self.workspace, &[])?;
        let mut command = as_root(Path::new("/usr/bin/env"))?;
        command
            .arg(format!("FILLTOP_BIN={}", self.filltop.display()))
            .arg(format!("FILLTOP_FLOOR={}", self.floor.display()))
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(binaries.workload)
            .args(self.arguments(&self.cases(), &self.programs()))
            .args(["--rounds", NATIVE_ROUNDS, "--budget-ms", NATIVE_BUDGET_MS]);
        let (success, lines) = tee(&mut command)?;
        ensure!(success, "measuring on this machine failed");
        Part::from_timings("native", &kernel_version()?, &Line::parse_all(&lines)?)
    }
}

/// The names that were given, or else the default.
fn chosen<'a>(given: &'a [String], default: &[&'a str]) -> Vec<&'a str> {
    if given.is_empty() { default.to_vec() } else { given.iter().map(String::as_str).collect() }
}
