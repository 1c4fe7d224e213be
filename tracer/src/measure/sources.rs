//! Where the counts come from: the attached tracer and its maps.

use anyhow::Context as _;
use tracer_model::snapshot::{Backend, Loss};

use tracer_host::{clock, host_root};
use tracer_kernel::read::Collector;
use tracer_kernel::self_overhead::SelfOverhead;
use tracer_kernel::{Tracer, TracerOptions, capabilities, coverage};

/// The attached tracer, and facts about the machine that do not change.
pub(super) struct Sources {
    pub(super) tracer: Tracer,
    pub(super) collector: Collector,
    pub(super) overhead: SelfOverhead,
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
        let capabilities = capabilities::effective_capabilities();
        let mut tracer = Tracer::start(options)?;
        let collector = Collector::new(&mut tracer)?;
        let overhead = SelfOverhead::start(clock::instant(), &tracer);
        capabilities::drop_capabilities().context("cannot drop capabilities")?;
        Ok(Self {
            tracer,
            collector,
            overhead,
            lost: Vec::new(),
            host: host_root::host_name(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            capabilities,
        })
    }

    /// The tracer's health, without figures from the counts. `sampled_fs_types` are the filesystem
    /// types whose space is sampled instead of traced; `own_cpu` is the share of one CPU that this
    /// process used.
    pub(super) fn backend(
        &self,
        mut sampled_fs_types: Vec<String>,
        own_cpu: Option<f64>,
    ) -> Backend {
        let tracer = &self.tracer;
        let write = tracer.write_backend();
        let mut spots = coverage::of_backend(write, tracer.coverage());
        spots.extend(coverage::of_missing_hooks(
            tracer.follows_renames(),
            tracer.times_every_fsync(),
        ));
        if tracer.may_skip_calls() {
            spots.push(coverage::skipped_calls());
        }
        sampled_fs_types.sort_unstable();
        sampled_fs_types.dedup();
        if !sampled_fs_types.is_empty() {
            spots.push(coverage::sampled_space(&sampled_fs_types));
        }
        Backend {
            write,
            kernel: self.kernel.clone(),
            hooks: tracer.hooks(),
            blind_spot_kinds: spots.iter().map(|spot| spot.kind).collect(),
            blind_spots: spots.into_iter().map(|spot| spot.text).collect(),
            sampled_fs_types,
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
