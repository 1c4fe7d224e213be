//! Connects the stages: probes → collect → attribute → Snapshot. The only file that knows both a
//! stage and the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tracer_common::Waits;
use tracer_common::records::CGROUP_DEV;
use tracer_model::snapshot::{Backend, Loss, Resident, Snapshot};

use crate::attribute::groups::Groups;
use crate::attribute::groups::history::History;
use crate::attribute::inside::Insides;
use crate::attribute::paths::Names;
use crate::attribute::process::Processes;
use crate::attribute::views::Views;
use crate::measure::build::{Context, VolumeState};
use crate::measure::deleted_files::HeldFiles;
use crate::measure::forecast_feed::Forecasts;
use crate::measure::interval::Window;
use crate::measure::recent::Recent;
use crate::measure::space_sampler::SampledSpace;
use crate::measure::{build, colocated, deleted_files, rollup, space_sampler};
use tracer_host::mounts::events::MountEvents;
use tracer_host::mounts::{MountedVolume, Space};
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::users::Users;
use tracer_host::{clock, host_root, mounts, open_files};
use tracer_kernel::read::{Collector, Deltas, Record};
use tracer_kernel::self_overhead::SelfOverhead;
use tracer_kernel::{Tracer, TracerOptions, capabilities, coverage};

/// How often the ring buffer is drained; it holds 2 MiB, some 20,000 names.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Age at which the scan of all open descriptors is repeated.
const HELD_INTERVAL: Duration = Duration::from_secs(10);

/// A running tracer with its state: what was counted, and what the counts are attributed to.
pub struct Pipeline {
    tracer: Tracer,
    collector: Collector,
    names: Names,
    processes: Processes,
    users: Users,
    groups: Groups,
    views: Views,
    history: History,
    volumes: Vec<MountedVolume>,
    insides: Insides,
    mount_events: MountEvents,
    window: Window,
    window_start: Instant,
    cpu_at_start: f64,
    overhead: SelfOverhead,
    /// Space of each volume, keyed by device, at the start of the interval and at the last sample.
    space_at_start: HashMap<u32, Space>,
    space_now: HashMap<u32, Space>,
    sampled: SampledSpace,
    forecasts: Forecasts,
    lost: Vec<Loss>,
    held: HeldFiles,
    residents: Vec<Resident>,
    held_at: Option<Instant>,
    host: String,
    kernel: String,
    /// Capabilities at attach time; they are dropped afterwards.
    capabilities: Vec<String>,
    /// Recent changes of each device's space, to detect blind volumes.
    recent: Recent,
}

impl Pipeline {
    /// Loads the eBPF programs and starts the first interval.
    ///
    /// # Errors
    /// One line with what is missing and what to do.
    pub fn start(options: &TracerOptions) -> anyhow::Result<Self> {
        host_root::check()?;
        let capabilities = capabilities::effective_capabilities();
        let mut tracer = Tracer::start(options)?;
        let collector = Collector::new(&mut tracer)?;
        let overhead = SelfOverhead::start(clock::instant(), &tracer);
        capabilities::drop_capabilities().context("cannot drop capabilities")?;
        let name = rustix::system::uname();
        let mut pipeline = Self {
            tracer,
            collector,
            names: Names::default(),
            processes: Processes::default(),
            users: Users::default(),
            groups: Groups::default(),
            views: Views::default(),
            history: History::default(),
            volumes: Vec::new(),
            insides: Insides::default(),
            mount_events: MountEvents::watch(),
            window: Window::default(),
            window_start: clock::instant(),
            cpu_at_start: clock::own_cpu_s(),
            overhead,
            space_at_start: HashMap::new(),
            space_now: HashMap::new(),
            sampled: SampledSpace::default(),
            forecasts: Forecasts::default(),
            lost: Vec::new(),
            held: HeldFiles::default(),
            residents: Vec::new(),
            held_at: None,
            host: host_root::host_name(),
            kernel: name.release().to_string_lossy().into_owned(),
            capabilities,
            recent: Recent::default(),
        };
        pipeline.refresh_volumes()?;
        // Discards what was counted while the hooks were attached one by one: not a full interval.
        pipeline.look()?;
        // So that the first interval, too, can report which deleted files grow.
        pipeline.look_for_held(true);
        pipeline.begin_window();
        tracing::info!("tracing with {}", pipeline.tracer.write_backend().name());
        Ok(pipeline)
    }

    /// Drains the ring buffer and the eBPF log, and picks up new mounts. To be called every
    /// [`POLL_INTERVAL`].
    pub fn poll(&mut self) {
        // Soon: a filesystem whose module was loaded for the mount is not counted before this.
        if self.mount_events.changed()
            && let Err(error) = self.refresh_volumes()
        {
            tracing::warn!("{error:#}");
        }
        let Self { collector, names, processes, groups, .. } = self;
        collector.records(|record| match record {
            Record::Name(name) if name.file.dev == CGROUP_DEV => groups.named(&name),
            Record::Name(name) => names.insert(&name),
            Record::Process(process) => {
                processes.describe(&process);
                groups.seen(&process);
            }
            Record::Exit(proc) => processes.ended(&proc),
        });
        self.groups.settle(&mut self.names, &mut self.views, &self.volumes);
        self.tracer.flush_log();
        self.overhead.tick(clock::instant(), &self.tracer);
    }

    /// Adds what was counted since the last sample to the interval. Blocks for some 20 ms.
    ///
    /// # Errors
    /// If the kernel refuses to read the maps.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let began = SystemTime::now();
        let deltas = self.collector.read(self.tracer.missed_by_kernel())?;
        // Immediately, so that counts and space are of the same time: at 100 MB/s each ms is 0.1 %.
        self.space_now = space_of(&self.volumes);
        let now_s = clock::boottime_s();
        for key in deltas.errors.iter().filter(|(_, errors)| errors.enospc > 0).map(|(key, _)| key)
        {
            self.forecasts.refused(now_s, key.dev);
        }
        self.forecasts.push(now_s, &self.space_now);
        // After the counts: a writer's record is sent before its bytes are counted.
        self.poll();
        self.learn_of_insides(&deltas)?;
        let Self { tracer, volumes, sampled, names, window, .. } = self;
        let volumes: Vec<_> = volumes.iter().filter(|volume| is_sampled(tracer, volume)).collect();
        sampled.look(&volumes, (&deltas, began), names, |key, counters| window.add(key, counters));
        for (key, mut counters) in deltas.pairs {
            if volumes.iter().any(|volume| volume.dev == key.dev) {
                // Space changes that a hook saw are already part of what was sampled.
                (counters.allocated, counters.freed) = (0, 0);
            }
            window.add(key, &counters);
        }
        self.names.drop_forgotten(self.window.files().chain(self.collector.occupants()));
        for file in self.window.take_nameless() {
            self.names.forget(&file);
            self.tracer.forget_name(&file);
        }
        for (key, waits) in deltas.waits {
            self.window.waits.entry(key).or_insert(Waits::ZERO).add(&waits);
        }
        for (key, count) in deltas.created {
            *self.window.created.entry(key).or_default() += count;
        }
        for (key, errors) in deltas.errors {
            let sum = self.window.errors.entry(key).or_default();
            sum.enospc += errors.enospc;
            sum.edquot += errors.edquot;
            sum.eio += errors.eio;
            sum.other += errors.other;
        }
        self.window.other.add(&deltas.other);
        self.lost = deltas.lost;
        Ok(())
    }

    /// Ends the interval and begins the next one. `fresh_held` scans all descriptors now; otherwise
    /// the last scan is used while it is recent.
    ///
    /// # Errors
    /// If the kernel refuses to read the maps.
    pub fn snapshot(&mut self, fresh_held: bool) -> anyhow::Result<Arc<Snapshot>> {
        self.look()?;
        self.refresh_volumes()?;
        self.users.refresh();
        self.look_for_held(fresh_held);
        let interval_s = self.window_start.elapsed().as_secs_f64();
        let backend = self.tracer.write_backend();
        let volumes: Vec<_> = self
            .volumes
            .iter()
            .filter_map(|volume| {
                Some(VolumeState {
                    before: self.space_at_start.get(&volume.dev).copied(),
                    now: *self.space_now.get(&volume.dev)?,
                    space_known: self.tracer.traces_space(&volume.fs_type)
                        || is_sampled(&self.tracer, volume),
                    forecast: self.forecasts.of(volume.dev),
                    owner: self.groups.owner(volume),
                    counted_by: self.tracer.counted_by(&volume.fs_type),
                    gap: self.tracer.gap(&volume.fs_type),
                    volume: volume.clone(),
                })
            })
            .collect();
        let renames = self.tracer.follows_renames();
        let every_fsync = self.tracer.times_every_fsync();
        let mut spots = coverage::of_backend(backend, self.tracer.coverage());
        spots.extend(coverage::of_missing_hooks(renames, every_fsync));
        if self.tracer.may_skip_calls() {
            spots.push(coverage::skipped_calls());
        }
        let sampled_fs_types = self.sampled_types();
        if !sampled_fs_types.is_empty() {
            spots.push(coverage::sampled_space(&sampled_fs_types));
        }
        let mut snapshot = build::build(
            &self.window,
            Context {
                host: &self.host,
                taken_at: clock::now(),
                interval_s,
                backend: Backend {
                    write: backend,
                    kernel: self.kernel.clone(),
                    hooks: self.tracer.hooks(),
                    blind_spot_kinds: spots.iter().map(|spot| spot.kind).collect(),
                    blind_spots: spots.into_iter().map(|spot| spot.text).collect(),
                    sampled_fs_types,
                    lost_events: self.lost.iter().map(|loss| loss.events).sum(),
                    lost: self.lost.clone(),
                    unattributed_bytes: 0,
                    folded_files: 0,
                    overhead_ns_per_write: self.overhead.ns_per_write(&self.tracer),
                    own_cpu: (interval_s > 0.0)
                        .then(|| (clock::own_cpu_s() - self.cpu_at_start) / interval_s),
                    capabilities: self.capabilities.clone(),
                },
                volumes,
                held: self.held.files.clone(),
                names: &mut self.names,
                processes: &mut self.processes,
                users: &self.users,
                groups: &mut self.groups,
                views: &self.views,
                recent: &mut self.recent,
                follows_renames: renames,
                sees_files: every_fsync,
            },
        );
        rollup::groups(
            &mut self.history,
            &mut snapshot,
            &self.window,
            &mut self.groups,
            &self.volumes,
        );
        snapshot.residents = self.residents.clone();
        self.begin_window();
        Ok(Arc::new(snapshot))
    }

    fn begin_window(&mut self) {
        self.window = Window::default();
        self.window_start = clock::instant();
        self.cpu_at_start = clock::own_cpu_s();
        self.space_at_start = self.space_now.clone();
        for dropped in self.names.next_window() {
            self.tracer.forget_name(&dropped);
        }
        self.processes.next_window();
        self.groups.next_window();
        self.insides.next_window();
    }

    /// Returns the types of the mounted filesystems whose space is sampled, sorted.
    fn sampled_types(&self) -> Vec<String> {
        let sampled = self.volumes.iter().filter(|volume| is_sampled(&self.tracer, volume));
        let mut types: Vec<String> = sampled.map(|volume| volume.fs_type.clone()).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    fn refresh_volumes(&mut self) -> anyhow::Result<()> {
        let mut volumes =
            mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
        let insides = self.insides.still_there(&volumes, &self.groups).to_vec();
        volumes.extend(insides);
        if volumes != self.volumes {
            self.volumes = volumes;
            let space = space_of(&self.volumes);
            self.space_now.retain(|dev, _| space.contains_key(dev));
            for (dev, space) in space {
                self.space_now.entry(dev).or_insert(space);
            }
        }
        // Even if the volumes are the same: an overlay is not a volume, but mounting it may have
        // loaded its module.
        let types: Vec<&str> = self.volumes.iter().map(|v| v.fs_type.as_str()).collect();
        self.tracer.mounts_changed(&types);
        Ok(())
    }

    /// Finds memory filesystems of containers among the devices that were written to.
    fn learn_of_insides(&mut self, deltas: &Deltas) -> anyhow::Result<()> {
        let devices: HashSet<u32> = self.volumes.iter().map(|volume| volume.dev).collect();
        let unknown = deltas.pairs.keys();
        let unknown = unknown.filter(|pair| !devices.contains(&pair.dev));
        let written = unknown.map(|pair| (pair.dev, pair.process()));
        if self.insides.learn(written, &mut self.groups, &self.views) {
            self.refresh_volumes()?;
        }
        Ok(())
    }

    fn look_for_held(&mut self, fresh: bool) {
        if fresh || self.held_at.is_none_or(|at| at.elapsed() >= HELD_INTERVAL) {
            let before = self.held_at.map(|_| &self.held);
            let lookup = MountLookup::new(&self.volumes);
            let open = match self.tracer.open_files() {
                Some(records) => open_files::from_bpf(&records, &lookup),
                None => open_files::from_proc(&lookup),
            };
            let Self { volumes, groups, .. } = self;
            let held = deleted_files::of(&open, volumes, &lookup, groups, before);
            self.residents = colocated::of(&open, volumes, &lookup, groups);
            self.held = held;
            self.held_at = Some(clock::instant());
        }
    }
}

/// Whether the volume's space is sampled from the filesystem because no hook covers it.
fn is_sampled(tracer: &Tracer, volume: &MountedVolume) -> bool {
    space_sampler::can_sample(&volume.fs_type) && !tracer.traces_space(&volume.fs_type)
}

/// statvfs of all volumes that have blocks, keyed by device.
fn space_of(volumes: &[MountedVolume]) -> HashMap<u32, Space> {
    volumes
        .iter()
        .filter_map(|volume| Some((volume.dev, volume.space().filter(|space| space.total > 0)?)))
        .collect()
}
