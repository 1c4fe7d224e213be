//! `cargo xtask`: builds filltop from a fresh checkout, runs it, and tests it on this machine and in virtual
//! machines. docs/building.md describes what it installs and where it stores files.

mod apt;
mod bench;
mod build;
mod command;
mod compiler;
mod dist;
mod docs;
mod incidents;
mod kernels;
mod kubernetes;
mod manifests;
mod native;
mod packages;
mod privileges;
mod suite;
mod tally;
mod test_tools;
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
    /// Install missing Debian packages without asking (as root; the default without a terminal)
    #[arg(short, long, global = true)]
    yes: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build target/release/filltop and what it needs
    Build {
        /// Build only the eBPF objects, which `cargo check` and `cargo test` embed
        #[arg(long)]
        object: bool,
    },
    /// Build filltop, then run it as root (through sudo if needed)
    Run {
        /// Arguments for filltop
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run all tests: unit tests, and end-to-end tests on this kernel and in virtual machines
    Test(TestArgs),
    /// Write target/dist: the program, manual pages, shell completions and systemd unit
    Dist,
    /// Regenerate the generated files of contrib/: the Kubernetes manifest in one file, and the alert rules in
    /// Kubernetes' and Helm's form
    Manifests,
    /// Regenerate the reference pages in docs/reference from the source
    Docs,
    /// Retake the pictures in docs/pictures: the real screen under a real load (root)
    Pictures,
    /// Boot a Debian kernel in QEMU (without KVM) and run the end-to-end tests or a command in it
    Vm(vm::VmArgs),
    /// Measure the overhead of filltop, of an empty hook and of other tools, and regenerate docs/benchmarks.md
    /// (root)
    Bench(bench::BenchArgs),
    /// Re-enact the incidents of docs/incidents.md with real software and regenerate that file (root)
    Incidents(incidents::IncidentsArgs),
    /// Test every way to write on all kernels and regenerate docs/kernels.md
    Kernels(kernels::KernelsArgs),
}

#[derive(Args)]
struct TestArgs {
    /// Run only what a contributor runs before each commit: formatting, unit tests, and the tests of imports,
    /// spelling and generated documents. Needs no root
    #[arg(long, conflicts_with_all = ["native_only", "vm_only", "suite"])]
    quick: bool,
    /// Skip the virtual machines
    #[arg(long, conflicts_with = "vm_only")]
    native_only: bool,
    /// Run only the virtual machines
    #[arg(long)]
    vm_only: bool,
    /// Run only this suite of end-to-end tests (a name in tests/Cargo.toml), on this kernel
    #[arg(long, value_name = "NAME", conflicts_with_all = ["native_only", "vm_only"])]
    suite: Option<String>,
    /// Run only tests of the suite whose names contain one of these
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
        packages::assume_yes();
    }
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Build { object: true } => build::ebpf_objects(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Build { object: false } => build::build(&workspace).map(|_| ExitCode::SUCCESS),
        Task::Run { arguments } => {
            let binary = build::build(&workspace)?;
            native::run(&binary, &arguments).map(|()| ExitCode::SUCCESS)
        }
        Task::Test(arguments) => Ok(test(&workspace, &arguments).finish()),
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
        Task::Docs => docs::write(&workspace).map(|()| ExitCode::SUCCESS),
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

/// Runs every part, also after one that failed.
fn test(workspace: &Workspace, arguments: &TestArgs) -> Tally {
    if arguments.quick {
        return quick_test(workspace);
    }
    let filltop = match build::build(workspace) {
        Ok(filltop) => filltop,
        Err(error) => return Tally::from_result("build", Err(error)),
    };
    if let Some(name) = &arguments.suite {
        let run = suite::run(workspace, &filltop, name, &arguments.filter, &[]);
        return Tally::from_result(name, run);
    }
    let mut tally = Tally::default();
    if !arguments.vm_only {
        // Before the virtual machines, because compiling unit tests keeps all cores busy.
        tally.add(Tally::from_result("unit", native::unit_tests(workspace, &[])));
    }
    let native = || {
        if arguments.vm_only {
            return Tally::default();
        }
        Tally::from_result("native", native::end_to_end(workspace, &filltop))
    };
    tally.add(if arguments.native_only {
        native()
    } else {
        vm::run_tests(workspace, &filltop, native)
    });
    tally
}

/// Runs what takes no root and no release build.
fn quick_test(workspace: &Workspace) -> Tally {
    let mut tally = Tally::from_result("format", native::formatting(workspace));
    match build::ebpf_objects(workspace) {
        Ok(()) => tally.add(Tally::from_result("unit", native::unit_tests(workspace, &[]))),
        // Where LLVM cannot be installed, all other crates can still be tested.
        Err(error) if !packages::can_install() => {
            tally.add(Tally::skip(format!("unit tracer-kernel: {}", tally::first_line(&error))));
            let without = [native::EBPF_USER];
            tally.add(Tally::from_result("unit", native::unit_tests(workspace, &without)));
        }
        Err(error) => tally.add(Tally::from_result("eBPF objects", Err(error))),
    }
    tally
}
