//! Connects the stages: probes → collect → attribute → Snapshot. The only file that knows both a
//! stage and the next.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracer_common::records::CGROUP_DEV;
use tracer_common::{FileKey, ProcFileKey};
use tracer_model::sanitize::lossless_path;
use tracer_model::snapshot::{Snapshot, State};
use tracer_model::verdict;

use super::attribution::Attribution;
use super::build;
use super::context::{Context, Volumes};
use super::failures;
use super::interval::IntervalCounts;
use super::recent_changes::RecentChanges;
use super::scans::{Purpose, Scans};
use super::sources::Sources;
use super::space_sampler::SpaceSampler;
use super::suspects;
use super::turnovers::Turnovers;
use super::volume_tracker::VolumeTracker;
use tracer_host::clock;
use tracer_kernel::TracerOptions;
use tracer_kernel::read::{Deltas, Record};

/// How often the ring buffer is drained; it holds 2 MiB, some 20,000 names.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running tracer with its state: what was counted, and what the counts are attributed to.
pub struct Pipeline {
    sources: Sources,
    volumes: VolumeTracker,
    sampler: SpaceSampler,
    open_files: Scans,
    attribution: Attribution,
    interval: Interval,
    /// Recent changes of each device's space, to detect blind volumes.
    recent: RecentChanges,
    verdicts: verdict::Engine,
    /// Which directories of each volume come and go.
    turnovers: Turnovers,
    /// Whether a volume grew in the last interval in a way that could not be attributed.
    wants_suspects: bool,
    /// Whether a volume filled up or was full in the last interval.
    is_urgent: bool,
}

/// The interval that has begun.
struct Interval {
    counts: IntervalCounts,
    started: Instant,
    /// CPU time of this process at the start, seconds.
    cpu_at_start_s: f64,
}

impl Interval {
    fn begin() -> Self {
        Self {
            counts: IntervalCounts::default(),
            started: clock::instant(),
            cpu_at_start_s: clock::own_cpu_s(),
        }
    }
}

impl Pipeline {
    /// Loads the eBPF programs and starts the first interval.
    ///
    /// # Errors
    /// One line with what is missing and what to do.
    pub fn start(options: &TracerOptions) -> anyhow::Result<Self> {
        let mut pipeline = Self {
            sources: Sources::start(options)?,
            volumes: VolumeTracker::new(),
            sampler: SpaceSampler::default(),
            open_files: Scans::default(),
            attribution: Attribution::default(),
            interval: Interval::begin(),
            recent: RecentChanges::default(),
            verdicts: verdict::Engine::default(),
            turnovers: Turnovers::default(),
            wants_suspects: false,
            is_urgent: false,
        };
        pipeline.refresh_volumes()?;
        // Discards what was counted while the hooks were attached one by one: not a full interval.
        pipeline.sample()?;
        // So that the first interval, too, can report which deleted files grow.
        pipeline.scan_open_files(Purpose::Fresh);
        pipeline.begin_interval();
        tracing::info!("tracing with {}", pipeline.sources.tracer.write_backend().name());
        Ok(pipeline)
    }

    /// Drains the ring buffer and the eBPF log, and picks up new mounts. To be called every
    /// [`POLL_INTERVAL`]; [`MeasuringLoop`](super::measuring_loop::MeasuringLoop) does so.
    pub fn poll(&mut self) {
        // In every poll: if the mount loaded the filesystem's module, its writes are not counted
        // until its hooks are attached.
        if self.volumes.mounts_changed()
            && let Err(error) = self.refresh_volumes()
        {
            tracing::warn!("{error:#}");
        }
        let Self { sources, attribution, volumes, .. } = self;
        let Attribution { names, processes, groups, views, places, .. } = attribution;
        sources.collector.records(|record| match record {
            Record::Name(name) if name.file.dev == CGROUP_DEV => groups.add_cgroup(&name),
            Record::Name(name) => names.insert(&name),
            Record::Process(process) => {
                processes.insert(&process);
                groups.add_process(&process);
            }
            Record::Exit(proc) => processes.mark_ended(&proc),
            Record::Renamed(proc, name) => processes.rename(&proc, &name),
            Record::Thread(proc, name) => processes.set_thread(&proc, &name),
            Record::Place(place) => places.insert(&place, views),
        });
        places.end_batch();
        groups.assign_new(names, views, volumes.mounted());
        sources.tracer.flush_log();
        sources.overhead.tick(clock::instant(), &sources.tracer);
        volumes.look_at_nearly_full();
    }

    /// Adds what was counted since the last sample to the interval. Blocks for some 20 ms.
    ///
    /// # Errors
    /// If the kernel refuses to read the maps.
    pub fn sample(&mut self) -> anyhow::Result<()> {
        let began = SystemTime::now();
        let Sources { collector, tracer, .. } = &mut self.sources;
        let mut deltas = collector.read(tracer.missed_by_kernel())?;
        // Immediately, so that counts and space are of the same time: at 100 MB/s each ms is 0.1 %.
        let writers = deltas.pairs.keys().map(|pair| (pair.tgid, pair.file()));
        self.volumes.note_writers(writers);
        let places = &self.attribution.places;
        let no_space = failures::devices(&deltas.errors, places, |errors| {
            errors.enospc > 0 || errors.short > 0
        });
        let no_quota = failures::devices(&deltas.errors, places, |errors| errors.edquot > 0);
        self.volumes.sample_space(clock::boottime_s(), no_space, no_quota);
        // After the counts: a writer's record is sent before its bytes are counted.
        self.poll();
        deltas.errors = failures::settle(&mut deltas, &self.attribution.places, &mut self.volumes);
        self.find_container_tmpfs(&deltas)?;
        self.add_to_interval(deltas, began);
        self.forget_evicted_names();
        Ok(())
    }

    /// Adds the counts since the last sample, read from the time `began` on, to the interval.
    fn add_to_interval(&mut self, deltas: Deltas, began: SystemTime) {
        let Self { sources, volumes, sampler, attribution, interval, .. } = self;
        let counts = &mut interval.counts;
        let sampled: Vec<_> = volumes.sampled(&sources.tracer).collect();
        let names = &mut attribution.names;
        sampler.sample(&sampled, (&deltas, began), names, |key, sum| counts.add(key, sum));
        let is_sampled: HashSet<u32> = sampled.iter().map(|volume| volume.dev).collect();
        for (key, mut sum) in deltas.pairs {
            if is_sampled.contains(&key.dev) {
                // Space changes that a hook saw are already part of what was sampled.
                (sum.allocated, sum.freed) = (0, 0);
            }
            counts.add(key, &sum);
        }
        for (key, waits) in deltas.waits {
            counts.add_waits(key, &waits);
        }
        for (key, entries) in deltas.created {
            let Some(dev) = attribution.places.device(&key.process(), key.dev) else { continue };
            // ext4's own tracepoints count there.
            if key.dev == dev || !volumes.is_ext4(dev) {
                counts.created.entry(ProcFileKey { dev, ..key }).or_default().add(&entries);
            }
        }
        for (key, errors) in deltas.errors {
            counts.add_errors(key, &errors);
        }
        counts.other.add(&deltas.other);
        sources.lost = deltas.lost;
    }

    /// Drops the names of files that no longer have a row, and makes the eBPF side send them again
    /// when they are next written to.
    fn forget_evicted_names(&mut self) {
        let Self { sources, attribution, interval, .. } = self;
        let (names, counts) = (&mut attribution.names, &mut interval.counts);
        names.drop_marked(counts.files().chain(sources.collector.occupants()));
        for file in counts.take_evicted() {
            names.mark_unneeded(&file);
            sources.tracer.forget_name(&file);
        }
    }

    /// Ends the interval and begins the next one. `fresh_held` scans all descriptors now; otherwise
    /// the last scan is used while it is recent.
    ///
    /// # Errors
    /// If the kernel refuses to read the maps.
    pub fn snapshot(&mut self, fresh_held: bool) -> anyhow::Result<Arc<Snapshot>> {
        self.sample()?;
        self.refresh_volumes()?;
        self.attribution.users.refresh();
        self.scan_open_files(match fresh_held {
            true => Purpose::Fresh,
            false if self.wants_suspects => Purpose::Suspects,
            false if self.is_urgent => Purpose::Urgent,
            false => Purpose::Periodic,
        });
        let Self { sources, volumes, open_files, attribution, interval, recent, turnovers, .. } =
            self;
        let tracer = &sources.tracer;
        let interval_s = interval.started.elapsed().as_secs_f64();
        let own_cpu =
            (interval_s > 0.0).then(|| (clock::own_cpu_s() - interval.cpu_at_start_s) / interval_s);
        let sampled_fs_types = volumes.sampled(tracer).map(|volume| volume.fs_type.clone());
        let mut snapshot = build::build(
            &interval.counts,
            Context {
                host: &sources.host,
                taken_at: clock::now(),
                interval_s,
                backend: sources.backend(sampled_fs_types.collect(), own_cpu),
                volumes: Volumes::new(volumes.states(tracer, &mut attribution.groups)),
                held: open_files.held(),
                suspects: open_files.suspects(),
                residents: open_files.residents(),
                traces_renames: tracer.follows_renames(),
                unlinks_counted: tracer.traces_directories(),
                attribution,
                recent,
                turnovers,
            },
        );
        let wanted_before = self.wants_suspects;
        self.wants_suspects = snapshot.volumes.iter().any(suspects::are_wanted);
        self.verdicts.judge(&mut snapshot);
        // Who may be behind it is named with the first verdict that blames nobody.
        if self.wants_suspects && !wanted_before {
            self.scan_open_files(Purpose::Suspects);
            self.fill_in_suspects(&mut snapshot);
            self.verdicts.judge_again(&mut snapshot);
        }
        self.is_urgent = snapshot.volumes.iter().any(|volume| {
            volume.verdict.as_ref().is_some_and(|verdict| verdict.state != State::Calm)
        });
        self.begin_interval();
        Ok(Arc::new(snapshot))
    }

    fn fill_in_suspects(&self, snapshot: &mut Snapshot) {
        for volume in self.volumes.mounted() {
            let name = lossless_path(&volume.primary().mount_point);
            let row = snapshot.volumes.iter_mut().find(|row| row.mount_point == name);
            if let (Some(row), Some(found)) = (row, self.open_files.suspects().get(&volume.dev)) {
                row.suspects.clone_from(found);
            }
        }
    }

    fn begin_interval(&mut self) {
        self.interval = Interval::begin();
        self.volumes.begin_interval();
        let Attribution { names, processes, groups, container_tmpfs, .. } = &mut self.attribution;
        for dropped in names.next_interval() {
            self.sources.tracer.forget_name(&dropped);
        }
        processes.next_interval();
        groups.next_interval();
        container_tmpfs.next_interval();
    }

    fn refresh_volumes(&mut self) -> anyhow::Result<()> {
        let Attribution { container_tmpfs, groups, .. } = &mut self.attribution;
        self.volumes.refresh(&mut self.sources.tracer, container_tmpfs, groups)
    }

    /// Finds memory filesystems of containers among the devices that were written to.
    fn find_container_tmpfs(&mut self, deltas: &Deltas) -> anyhow::Result<()> {
        let devices = self.volumes.devices();
        let unknown = deltas.pairs.keys().filter(|pair| !devices.contains(&pair.dev));
        let written = unknown.map(|pair| (pair.dev, pair.process()));
        let Attribution { container_tmpfs, groups, .. } = &mut self.attribution;
        if container_tmpfs.discover(written, groups) {
            self.refresh_volumes()?;
        }
        Ok(())
    }

    fn scan_open_files(&mut self, purpose: Purpose) {
        let Self { sources, volumes, open_files, attribution, interval, .. } = self;
        let Attribution { groups, names, .. } = attribution;
        let mounted = volumes.mounted();
        let mut path = |file: &FileKey| {
            let found = names.path(file).filter(|found| found.complete)?;
            let volume = mounted.iter().find(|volume| volume.dev == file.dev)?;
            volume.host_path(&found.path)
        };
        let counts = &interval.counts;
        open_files.refresh(purpose, &mut sources.tracer, mounted, groups, &mut path, counts);
    }
}
