//! Arguments of `cargo xtask vm`, which its other callers fill in themselves.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::debian_image::Software;

/// The kernel series to boot if none is given.
pub(super) const DEFAULT_KERNEL: &str = "6.1";
const TIMEOUT_SECONDS: u64 = 900;
/// Every way to write on every filesystem, for two instances of filltop at a time.
const DEBIAN_TIMEOUT_SECONDS: u64 = 2400;

/// What to boot, and what to run in it.
#[derive(Args, Debug, Clone)]
pub(crate) struct VmArgs {
    /// Kernel series: 5.10, 6.1, 6.12 or 7.x (cloud flavour), 6.1-generic or 6.12-generic (ext4 is a module
    /// there as well); repeatable [default: 6.1]
    #[arg(long, conflicts_with = "all")]
    pub(super) kernel: Vec<String>,
    /// All kernel series, one after the other
    #[arg(long)]
    pub(super) all: bool,
    /// Backends to force in the tests, one boot for each [default: all of them]
    #[arg(long, value_delimiter = ',')]
    pub(super) backend: Vec<Backend>,
    /// Run each filltop that measures with only the capabilities of the systemd unit; it chooses its own
    /// backend
    #[arg(long, conflicts_with_all = ["backend", "debian"])]
    pub(super) as_service: bool,
    /// Boot a complete Debian with systemd and run the tests that change the system: Debian 12 with its own
    /// kernel 6.1-generic, unless --kernel names another; with --all also Debian 13 with 6.12-generic
    #[arg(long)]
    pub(super) debian: bool,
    /// Additional software in that Debian; `runtimes` also selects the suite `runtimes`
    #[arg(long, value_enum, requires = "debian", default_value_t = Software::Plain)]
    pub(super) software: Software,
    /// Number of CPUs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) smp: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MB", value_parser = clap::value_parser!(u32).range(256..))]
    pub(super) memory: u32,
    /// Count instructions instead of time, on one CPU, so that counts repeat exactly
    #[arg(long)]
    pub(super) icount: bool,
    /// Filesystems for the tests (FILLTOP_TEST_FS), comma-separated
    #[arg(long)]
    pub(super) fs: Option<String>,
    /// Run only the end-to-end test binary of this name; repeatable
    #[arg(long)]
    pub(super) test: Vec<String>,
    /// Run only tests whose names contain this; repeatable
    #[arg(long)]
    pub(super) filter: Vec<String>,
    /// Leave out tests whose names contain this; repeatable
    #[arg(long)]
    pub(super) skip: Vec<String>,
    /// Also load this kernel module; repeatable
    #[arg(long, value_name = "NAME")]
    pub(super) module: Vec<String>,
    /// Append to the kernel command line
    #[arg(long, default_value = "")]
    pub(super) append: String,
    /// Kill a machine that runs longer, in seconds [default: 900, with --debian 2400]
    #[arg(long)]
    pub(super) timeout: Option<u64>,
    /// Run this command instead of the tests (`-- sh` for a shell); it gets the terminal if there is one
    #[arg(last = true)]
    pub(super) command: Vec<String>,
}

impl VmArgs {
    /// The longest that one machine may run.
    pub(super) fn timeout(&self) -> Duration {
        let default = if self.debian { DEBIAN_TIMEOUT_SECONDS } else { TIMEOUT_SECONDS };
        Duration::from_secs(self.timeout.unwrap_or(default))
    }
}

/// The arguments of `cargo xtask vm` with nothing after it.
impl Default for VmArgs {
    fn default() -> Self {
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
            skip: Vec::new(),
            module: Vec::new(),
            append: String::new(),
            timeout: None,
            command: Vec::new(),
        }
    }
}

/// A write backend that tests can force.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Fentry,
    Kprobe,
    Tracepoint,
}

impl Backend {
    /// The value of `FILLTOP_BACKEND`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}
