//! Where the counts come from: the attached tracer and its maps.

use anyhow::Context as _;
use tracer_model::snapshot::{Backend, Loss};

use tracer_host::{clock, host_root};
use tracer_kernel::read::Collector;
use tracer_kernel::self_overhead::Overhead;
use tracer_kernel::{Tracer, TracerOptions, capabilities, coverage};

/// The attached tracer, and facts about the machine that do not change.
pub(super) struct Sources {
    pub(super) tracer: Tracer,
    pub(super) collector: Collector,
    pub(super) overhead: Overhead,
    /// Events lost since the start, by cause.
    pub(super) lost: Vec<Loss>,
    pub(super) host: String,
    kernel: String,
    /// Capabilities at attach time; they are dropped afterwards.
    capabilities: Vec<String>,
}

impl Sources {
    /// Loads and attaches the eBPF programs, and drops the privileges that this took.
    ///
    /// # Errors
    /// One line with what is missing and what to do.
    pub(super) fn start(options: &TracerOptions) -> anyhow::Result<Self> {
        host_root::check()?;
        let capabilities = capabilities::held_capabilities();
        let mut tracer = Tracer::start(options)?;
        let collector = Collector::new(&mut tracer)?;
        let overhead = Overhead::start(clock::instant(), &tracer);
        capabilities::drop_capabilities().context("cannot drop capabilities")?;
        Ok(Self {
            tracer,
            collector,
            overhead,
            lost: Vec::new(),
            host: host_root::name(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            capabilities,
        })
    }

    /// The tracer's health, without what the counts tell. `sampled_types` are the filesystem types
    /// whose space is sampled instead of traced; `own_cpu` is the share of one CPU that this
    /// process used.
    pub(super) fn backend(&self, mut sampled_types: Vec<&str>, own_cpu: Option<f64>) -> Backend {
        let tracer = &self.tracer;
        let write = tracer.write_backend();
        let mut blind_spots = coverage::of_backend(write, tracer.seen());
        blind_spots
            .extend(coverage::of_missing(tracer.follows_renames(), tracer.times_every_fsync()));
        if tracer.may_skip_calls() {
            blind_spots.push(coverage::SKIPPED_CALLS.to_owned());
        }
        if !sampled_types.is_empty() {
            sampled_types.sort_unstable();
            sampled_types.dedup();
            blind_spots.push(format!("{} ({})", coverage::SAMPLED_SPACE, sampled_types.join(", ")));
        }
        Backend {
            write,
            kernel: self.kernel.clone(),
            hooks: tracer.hooks(),
            blind_spots,
            lost_events: self.lost.iter().map(|loss| loss.events).sum(),
            lost: self.lost.clone(),
            unattributed_bytes: 0,
            folded_files: 0,
            overhead_ns_per_write: self.overhead.ns_per_write(tracer),
            own_cpu,
            capabilities: self.capabilities.clone(),
        }
    }
}
