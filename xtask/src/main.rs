//! `cargo xtask`: builds filltop from nothing, runs it, and tests it on this machine and in
//! virtual machines. docs/building.md says what it installs and where it keeps things.

mod bench;
mod build;
mod compiler;
mod dist;
mod incidents;
mod kernels;
mod kubernetes;
mod manifests;
mod native;
mod packages;
mod step;
mod tally;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use tally::Tally;
use workspace::Workspace;

/// Builds, runs and tests filltop.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    /// Install missing Debian packages without asking (root; the same where there is no terminal)
    #[arg(short, long, global = true)]
    yes: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build target/release/filltop, and before it whatever that needs
    Build,
    /// Build, then run filltop with the rights it needs (sudo only for that)
    Run {
        /// Arguments of filltop
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run all tests: unit tests, end to end on this kernel, end to end in a virtual machine
    Test(TestArgs),
    /// Write target/dist: the program, manual pages, shell completions and the systemd unit
    Dist,
    /// Make those files of contrib/ anew that are made from others: the manifest in one file, the rules
    /// in Kubernetes' form
    Manifests,
    /// Take the pictures in docs/pictures from the real screen under a real load (root)
    Pictures,
    /// Boot a Debian kernel in QEMU (without KVM) and run the end-to-end tests, or a command, in it
    Vm(vm::VmArgs),
    /// Measure what filltop costs beside an empty hook and what people use today (root)
    Bench(bench::BenchArgs),
    /// Re-enact the incidents of docs/incidents.md with real software, and write it anew (root)
    Incidents(incidents::IncidentsArgs),
    /// Perform every way to write on all kernels and write docs/kernels.md
    Kernels(kernels::KernelsArgs),
}

#[derive(Args)]
struct TestArgs {
    /// Leave out the virtual machines
    #[arg(long, conflicts_with = "vm_only")]
    native_only: bool,
    /// Only the virtual machines
    #[arg(long)]
    vm_only: bool,
    /// Only this suite of end-to-end tests (a name in tests/Cargo.toml), on this kernel
    #[arg(long, value_name = "NAME", conflicts_with_all = ["native_only", "vm_only"])]
    suite: Option<String>,
    /// Only tests of the suite whose names contain one of these
    #[arg(requires = "suite")]
    filter: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    if cli.yes {
        packages::agree();
    }
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Build => build::build(&workspace).map(|_| ExitCode::SUCCESS),
        Task::Run { arguments } => {
            let binary = build::build(&workspace)?;
            native::run(&binary, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Test(arguments) => Ok(verdict(&test(&workspace, &arguments))),
        Task::Bench(arguments) => {
            let filltop = build::build(&workspace)?;
            bench::run(&workspace, &filltop, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Kernels(arguments) => {
            let filltop = build::build(&workspace)?;
            kernels::write(&workspace, &filltop, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Dist => {
            let filltop = build::build(&workspace)?;
            dist::write(&workspace, &filltop).map(|()| ExitCode::SUCCESS)
        }
        Task::Manifests => manifests::write(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Incidents(arguments) => {
            incidents::run(&workspace, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Pictures => {
            build::build(&workspace)?;
            native::pictures(&workspace).map(|()| ExitCode::SUCCESS)
        }
        Task::Vm(arguments) => {
            let filltop = build::build(&workspace)?;
            vm::run(&workspace, &filltop, &arguments)
        }
    }
}

/// Every part, even after one that failed: the closing line counts them all.
fn test(workspace: &Workspace, arguments: &TestArgs) -> Tally {
    let filltop = match build::build(workspace) {
        Ok(filltop) => filltop,
        Err(error) => return Tally::of("build", Err(error)),
    };
    if let Some(suite) = &arguments.suite {
        let run = native::suite(workspace, &filltop, suite, &arguments.filter, &[]);
        return Tally::of(suite, run);
    }
    let mut tally = Tally::default();
    if !arguments.vm_only {
        // Before the virtual machines: to compile them keeps all cores busy.
        tally.add(Tally::of("unit", native::unit_tests(workspace)));
    }
    let native = || {
        if arguments.vm_only {
            return Tally::default();
        }
        Tally::of("native", native::end_to_end(workspace, &filltop))
    };
    tally.add(if arguments.native_only { native() } else { vm::test(workspace, &filltop, native) });
    tally
}

fn verdict(tally: &Tally) -> ExitCode {
    tally.close();
    if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
