//! `cargo xtask bench`: what filltop adds to an operation, beside an empty hook (the floor) and what
//! people use today. In virtual machines that count instructions, so that figures repeat, and on
//! this machine, which knows caches and locks.

mod daemon;
mod document;
mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::step::{capture, follow};
use crate::workspace::Workspace;
use crate::{build, native, packages, vm};
use measure::{Line, Part};

/// What to measure.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// One kernel, five loops, and of programs the floor, filltop and bpftrace alone; under 5 minutes
    #[arg(long, conflicts_with_all = ["kernel", "only"])]
    quick: bool,
    /// Write all figures into this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Kernel series of the virtual machines; may be given more than once [default: 6.1 and 7.x]
    #[arg(long)]
    kernel: Vec<String>,
    /// Only these parts; the document keeps what the others measured last
    #[arg(long, value_delimiter = ',')]
    only: Vec<Piece>,
    /// Only these loops
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// Only these programs
    #[arg(long, value_delimiter = ',')]
    program: Vec<String>,
    /// Measure nothing: write the document again from what was measured last
    #[arg(long, conflicts_with_all = ["quick", "kernel", "only", "json"])]
    rewrite: bool,
    /// Only print how often and how long each BPF program runs in one batch of each loop
    #[arg(long)]
    profile: bool,
}

/// A part of the whole.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Instructions, in virtual machines
    Vm,
    /// Nanoseconds, here
    Native,
    /// Processor time and memory of filltop itself, here
    Daemon,
    /// Nanoseconds of as many threads as there are CPUs, in virtual machines of 1 to 16
    Scale,
}

const KERNELS: &[&str] = &["6.1", "7.x"];
const QUICK_KERNEL: &str = "6.1";
const QUICK_CASES: &[&str] =
    &["write1-tmpfs", "write1-ext4", "write1-10kfiles", "devnull", "create-write-unlink"];
const QUICK_PROGRAMS: &[&str] = &["empty-fexit", "filltop-fexit", "bpftrace-inode"];
/// In the order of the tables. Between them, tests/workload/bench/loops.rs says what each does.
const CASES: &[&str] = &[
    "write1-tmpfs",
    "write1-ext4",
    "write1-xfs",
    "write1-btrfs",
    "write4k-tmpfs",
    "write4k-ext4",
    "write64k-tmpfs",
    "write64k-ext4",
    "write1-10kfiles",
    "write1-10kfiles-ext4",
    "devnull",
    "pipe",
    "socket",
    "create-write-unlink",
    "create-write-unlink-ext4",
    "io_uring",
    "mmap",
    "threads-one",
    "threads-own",
    "threads-shared",
];
/// As tests/workload/bench/programs.rs has them.
const PROGRAMS: &[&str] = &[
    "empty-fexit",
    "empty-fexit-ext4",
    "empty-kprobe",
    "empty-kretprobe",
    "empty-raw-tp-sys_exit",
    "filter-raw-tp-sys_exit",
    "hash-raw-tp-sys_exit",
    "filltop-fexit",
    "filltop-kprobe",
    "filltop-tracepoint",
    "bpftrace-inode",
    "bpftrace-name",
    "bpftrace-sys_exit_write",
    "filetop",
    "biotop",
    "fatrace",
    "strace",
];
/// Program and Debian package.
const PEERS: &[(&str, &str)] = &[
    ("bpftrace", "bpftrace"),
    ("filetop", "libbpf-tools"),
    ("biotop", "libbpf-tools"),
    ("fatrace", "fatrace"),
    ("strace", "strace"),
];
/// Room for bpftrace and its compiler, unpacked.
const MEMORY_MB: u32 = 3072;
const TIMEOUT_SECONDS: u64 = 3600;
/// Where the daemon's own figures are kept.
const DAEMON: &str = "daemon.json";
/// Of the machine's time: figures repeat, so that little is enough.
const MACHINE_BUDGET_MS: &str = "25";
/// Numbers of simulated CPUs.
const SCALE: &[u32] = &[1, 2, 4, 16];
const THREADS: &str = "threads-own,threads-shared";
const NATIVE_ROUNDS: &str = "5";
const NATIVE_BUDGET_MS: &str = "60";

/// Measures, prints the tables, and writes the document unless it was only a quick look.
pub(crate) fn run(workspace: &Workspace, filltop: &Path, arguments: &BenchArgs) -> Result<()> {
    let peers = PEERS.iter().copied().filter(|(name, _)| !arguments.quick || *name == "bpftrace");
    packages::need("comparing filltop with others", &peers.collect::<Vec<_>>())?;
    let floor = build::example(workspace, "tracer-kernel", "floor")?;
    let store = workspace.target.join("bench");
    fs::create_dir_all(&store)?;
    let bench = Bench { workspace, filltop, floor, arguments };
    let wanted = |piece| {
        !arguments.rewrite && (arguments.only.is_empty() || arguments.only.contains(&piece))
    };
    let mut parts = Vec::new();
    if wanted(Piece::Vm) {
        for kernel in bench.kernels() {
            let (release, lines) = bench.machine(kernel)?;
            if !arguments.profile {
                let name = format!("vm-{kernel}");
                parts.push(Part::counted(&name, &release, &Line::read_all(&lines)?)?);
            }
        }
    }
    if wanted(Piece::Native) && !arguments.quick && !arguments.profile {
        parts.push(bench.here()?);
    }
    if wanted(Piece::Scale) && !arguments.quick && !arguments.profile {
        for cpus in SCALE {
            parts.push(bench.threads(*cpus)?);
        }
    }
    let mut own = None;
    if wanted(Piece::Daemon) && !arguments.quick && !arguments.profile {
        own = Some(daemon::measure(workspace, filltop)?);
    }
    for part in &parts {
        println!("{}", document::tables(part));
    }
    if let Some(own) = &own {
        println!("{}", own.tables());
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
    if let Some(own) = &own {
        fs::write(store.join(DAEMON), serde_json::to_string(own)?)?;
    }
    let (mut known, mut own) = (Vec::new(), None);
    for entry in fs::read_dir(&store)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if path.ends_with(DAEMON) {
            own = Some(serde_json::from_str(&text)?);
        } else {
            known.push(serde_json::from_str(&text)?);
        }
    }
    let path = workspace.root.join("docs/benchmarks.md");
    fs::write(&path, document::write(known, own.as_ref()))?;
    println!("{}", workspace.shown(&path));
    Ok(())
}

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

    /// Those of one thread alone: a machine that counts instructions has one CPU.
    fn counted_cases(&self) -> Vec<&str> {
        self.cases().into_iter().filter(|case| !case.starts_with("threads-")).collect()
    }

    fn programs(&self) -> Vec<&str> {
        chosen(
            &self.arguments.program,
            if self.arguments.quick { QUICK_PROGRAMS } else { PROGRAMS },
        )
    }

    /// Arguments of filltop-workload.
    fn work(&self, cases: &[&str], programs: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.join(",");
        let mut work = ["bench", "--cases", &list(cases), "--programs", &list(programs)]
            .map(str::to_owned)
            .to_vec();
        if self.arguments.profile {
            work.push("--profile".to_owned());
        }
        work
    }

    /// Instructions, on this kernel.
    fn machine(&self, kernel: &str) -> Result<(String, Vec<String>)> {
        let programs = self.programs();
        let mut command = vec!["/bin/filltop-workload".to_owned()];
        command.extend(self.work(&self.counted_cases(), &programs));
        command.extend(["--budget-ms", MACHINE_BUDGET_MS].map(str::to_owned));
        let installed: Vec<String> = PEERS
            .iter()
            .map(|(name, _)| *name)
            .filter(|peer| programs.iter().any(|name| name.split('-').next() == Some(peer)))
            .map(str::to_owned)
            .collect();
        let guest = vm::Guest {
            kernel,
            programs: &[("/bin/floor".to_owned(), self.floor.clone())],
            installed: &installed,
            command,
            cpus: None,
            memory: MEMORY_MB,
            timeout: TIMEOUT_SECONDS,
        };
        vm::lines_of(self.workspace, self.filltop, &guest)
    }

    /// Nanoseconds of threads on so many CPUs, which the emulator runs as threads of its own.
    fn threads(&self, cpus: u32) -> Result<Part> {
        let rounds = ["--rounds", "3", "--budget-ms", MACHINE_BUDGET_MS];
        let work = ["bench", "--cases", THREADS, "--programs", "filltop-fexit"];
        let command = ["/bin/filltop-workload"].into_iter().chain(work).chain(rounds);
        let guest = vm::Guest {
            kernel: QUICK_KERNEL,
            programs: &[],
            installed: &[],
            command: command.map(str::to_owned).collect(),
            cpus: Some(cpus),
            memory: MEMORY_MB,
            timeout: TIMEOUT_SECONDS,
        };
        let (release, lines) = vm::lines_of(self.workspace, self.filltop, &guest)?;
        let place = format!("{release}, {cpus} CPUs");
        Part::timed(&format!("scale-{cpus:02}"), &place, &Line::read_all(&lines)?)
    }

    /// Nanoseconds, with and without each program in turns.
    fn here(&self) -> Result<Part> {
        let binaries = build::end_to_end(self.workspace, &[])?;
        let mut command = native::as_root(Path::new("/usr/bin/env"))?;
        command
            .arg(format!("FILLTOP_BIN={}", self.filltop.display()))
            .arg(format!("FILLTOP_FLOOR={}", self.floor.display()))
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(binaries.workload)
            .args(self.work(&self.cases(), &self.programs()))
            .args(["--rounds", NATIVE_ROUNDS, "--budget-ms", NATIVE_BUDGET_MS]);
        let (success, lines) = follow(&mut command)?;
        ensure!(success, "the measurement on this machine failed");
        Part::timed("native", &version()?, &Line::read_all(&lines)?)
    }
}

/// The version of this machine's kernel, without what its builders added to it.
fn version() -> Result<String> {
    let release = capture(Command::new("uname").arg("-r"))?;
    Ok(release.trim().split('-').next().unwrap_or_default().to_owned())
}

fn chosen<'a>(given: &'a [String], usual: &[&'a str]) -> Vec<&'a str> {
    if given.is_empty() { usual.to_vec() } else { given.iter().map(String::as_str).collect() }
}
