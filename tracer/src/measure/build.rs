//! Builds the [`Snapshot`] of an interval from its counts: roll-ups, shares and rates.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::Timestamp;
use tracer_common::{Counters, FileKey, ProcKey};
use tracer_model::forecast::Forecast;
use tracer_model::sanitize;
use tracer_model::snapshot::{
    Backend, Blind, CountedBy, Gap, Group, Held, Moved, SCHEMA, Snapshot, WriteErrors, Writer,
};

use super::rows::{path_rows, volume_rows, writer_rows};
use crate::attribute::groups::Groups;
use crate::attribute::groups::volumes::Owner;
use crate::attribute::paths::Names;
use crate::attribute::process::Processes;
use crate::attribute::views::Views;
use crate::measure::interval::{Window, is_folded};
use crate::measure::recent::Recent;
use crate::measure::rollup;
use crate::measure::rollup::{Sees, Waited};
use tracer_host::clock;
use tracer_host::mounts::{MountedVolume, Space};
use tracer_host::users::Users;

/// Inputs of a Snapshot other than the counts.
pub struct Context<'a> {
    /// [`tracer_host::host_root::host_name`].
    pub host: &'a str,
    /// End of the interval.
    pub taken_at: Timestamp,
    /// Length of the interval, seconds.
    pub interval_s: f64,
    /// The tracer's health; [`build`] fills in its `unattributed_bytes` and `folded_files`.
    pub backend: Backend,
    /// All mounted volumes.
    pub volumes: Vec<VolumeState>,
    /// Deleted-but-open files.
    pub held: Vec<Held>,
    /// Resolves files to paths.
    pub names: &'a mut Names,
    /// Describes processes.
    pub processes: &'a mut Processes,
    /// Resolves user ids to names.
    pub users: &'a Users,
    /// Assigns processes to groups.
    pub groups: &'a mut Groups,
    /// Translates paths to what a container sees.
    pub views: &'a Views,
    /// Recent changes of each volume's space.
    pub recent: &'a mut Recent,
    /// Whether renames are traced.
    pub follows_renames: bool,
    /// Whether created and removed files are traced on every filesystem, not only on ext4.
    pub sees_files: bool,
}

/// A volume over one interval.
pub struct VolumeState {
    /// The device and its mounts.
    pub volume: MountedVolume,
    /// Space at the start of the interval, if the volume was mounted then.
    pub before: Option<Space>,
    /// Space at the end of the interval.
    pub now: Space,
    /// Whether allocated and freed bytes are known here, not only written ones.
    pub space_known: bool,
    /// Forecast of when it will be full.
    pub forecast: Forecast,
    /// The container or pod that it belongs to.
    pub owner: Owner,
    /// At which level its writes are counted.
    pub counted_by: Option<CountedBy>,
    /// Why they are not counted at the filesystem's own functions, if that can be changed.
    pub gap: Option<Gap>,
}

impl VolumeState {
    /// Change of the used space over the interval, bytes; 0 if the volume was not mounted before.
    pub(crate) fn used_delta(&self) -> i64 {
        self.before.map_or(0, |before| self.now.used.cast_signed() - before.used.cast_signed())
    }
}

/// Sums of one writer on one volume.
#[derive(Default)]
pub(crate) struct WriterSum {
    pub(crate) counters: Counters,
    pub(crate) files: HashSet<FileKey>,
    pub(crate) errors: WriteErrors,
    /// The part of its counters that went to the logs of containers, by container.
    pub(crate) logs: HashMap<Group, Counters>,
}

/// Sums of one file.
#[derive(Default)]
pub(crate) struct FileSum {
    pub(crate) counters: Counters,
    pub(crate) writers: Vec<ProcKey>,
}

/// Builds the Snapshot of one interval. Counts on devices that are not volumes (memfd, container
/// internals) are ignored.
pub fn build(window: &Window, mut context: Context<'_>) -> Snapshot {
    let mut writers: HashMap<(ProcKey, u32), WriterSum> = HashMap::new();
    let mut files: HashMap<FileKey, FileSum> = HashMap::new();
    let devices: HashSet<u32> = context.volumes.iter().map(|state| state.volume.dev).collect();
    for (pair, counters) in window.pairs() {
        if !devices.contains(&pair.dev) {
            continue;
        }
        let writer = writers.entry((pair.process(), pair.dev)).or_default();
        writer.counters.add(counters);
        if is_folded(pair) {
            continue;
        }
        writer.files.insert(pair.file());
        let file = files.entry(pair.file()).or_default();
        file.counters.add(counters);
        if counters.written > 0 {
            file.writers.push(pair.process());
        }
    }
    for (key, errors) in &window.errors {
        if devices.contains(&key.dev) {
            let proc = ProcKey { start_ns: key.start_ns, tgid: key.tgid, pad: 0 };
            let writer = writers.entry((proc, key.dev)).or_default();
            writer.errors = WriteErrors {
                enospc: errors.enospc,
                edquot: errors.edquot,
                eio: errors.eio,
                other: errors.other,
            };
        }
    }
    let mut waited = rollup::waits(&window.waits, &devices, clock::jiffy_ms());
    for (proc, dev) in waited.keys() {
        if devices.contains(dev) {
            writers.entry((*proc, *dev)).or_default();
        }
    }
    place_unplaced(&mut waited, &writers);
    let mut by_volume: HashMap<u32, Counters> = HashMap::new();
    for ((_, dev), sum) in &writers {
        by_volume.entry(*dev).or_default().add(&sum.counters);
    }
    context.backend.unattributed_bytes = window.other.written;
    context.backend.folded_files = window.folded();
    let blind = blind(&by_volume, &mut context);
    let (paths, logs) = path_rows(&files, &mut context);
    for (pair, counters) in window.pairs() {
        if let Some(container) = logs.get(&pair.file())
            && let Some(writer) = writers.get_mut(&(pair.process(), pair.dev))
        {
            writer.logs.entry(container.clone()).or_default().add(counters);
        }
    }
    let volumes: Vec<MountedVolume> =
        context.volumes.iter().map(|state| state.volume.clone()).collect();
    let sees = Sees {
        space: paths.iter().any(|(_, row)| row.freed_bytes.is_some()),
        files: context.sees_files,
    };
    let dirs = rollup::directories(
        &paths,
        &window.created,
        &volumes,
        context.names,
        context.interval_s,
        sees,
    );
    let (writer_rows, waiting): (Vec<Writer>, Vec<f64>) =
        writer_rows(&writers, &by_volume, &blind, &waited, &mut context).into_iter().unzip();
    Snapshot {
        schema: SCHEMA,
        host: context.host.to_owned(),
        taken_at: context.taken_at,
        interval_s: context.interval_s,
        victims: rollup::victims(&writer_rows, &waiting, context.interval_s),
        volumes: volume_rows(&by_volume, &blind, &context),
        writers: writer_rows,
        dirs,
        paths: paths.into_iter().map(|(_, row)| row).collect(),
        held: context.held,
        groups: Vec::new(),
        residents: Vec::new(),
        backend: context.backend,
    }
}

/// The blind volumes, keyed by device: too little of their growth is traced.
fn blind(sums: &HashMap<u32, Counters>, context: &mut Context<'_>) -> HashMap<u32, Blind> {
    let Context { volumes, recent, interval_s, .. } = context;
    recent.keep(&volumes.iter().map(|state| state.volume.dev).collect());
    let found = volumes.iter().filter_map(|state| {
        let dev = state.volume.dev;
        let sum = sums.get(&dev).copied().unwrap_or_default();
        let window = Moved {
            used_delta: state.used_delta(),
            allocated: state.space_known.then_some(sum.allocated),
            written: sum.written,
            over_s: *interval_s,
        };
        Some((dev, recent.add(dev, window).blind(state.gap)?))
    });
    found.collect()
}

/// Allocated − freed, bytes.
pub(crate) fn signed_growth(sum: &Counters) -> i64 {
    sum.allocated.cast_signed().wrapping_sub(sum.freed.cast_signed())
}

/// The share of the change of a volume's used space that the counted growth accounts for, 0..1.
/// `None` if it changed by less than 1 MiB, because that little can be the filesystem's own
/// housekeeping.
pub(crate) fn explained(used_delta: i64, growth: i64) -> Option<f64> {
    const HARDLY: u64 = 1 << 20;
    let moved = used_delta.unsigned_abs();
    (moved >= HARDLY)
        .then(|| (1.0 - used_delta.abs_diff(growth) as f64 / moved as f64).clamp(0.0, 1.0))
}

/// Assigns waits on an unknown device to the volume that the process wrote most to.
fn place_unplaced(
    waited: &mut HashMap<(ProcKey, u32), Waited>,
    writers: &HashMap<(ProcKey, u32), WriterSum>,
) {
    let unplaced: Vec<ProcKey> =
        waited.keys().filter(|(_, dev)| *dev == 0).map(|(proc, _)| *proc).collect();
    for proc in unplaced {
        let most = writers
            .iter()
            .filter(|((writer, _), _)| *writer == proc)
            .max_by_key(|(_, sum)| sum.counters.written)
            .map(|((_, dev), _)| *dev);
        if let (Some(dev), Some(wait)) = (most, waited.remove(&(proc, 0))) {
            waited.entry((proc, dev)).or_default().waiting_ms += wait.waiting_ms;
        }
    }
}

pub(crate) fn per_second(bytes: f64, interval_s: f64) -> f64 {
    if interval_s > 0.0 { bytes / interval_s } else { 0.0 }
}

pub(crate) fn mount_name(volume: &MountedVolume) -> String {
    lossless(&volume.primary().mount_point)
}

pub(crate) fn lossless(path: &Path) -> String {
    sanitize::lossless(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explained_is_the_share_that_growth_accounts_for() {
        let mib = 1 << 20;
        assert_eq!(explained(100 * mib, 100 * mib), Some(1.0));
        assert_eq!(explained(100 * mib, 99 * mib), Some(0.99));
        assert_eq!(explained(-100 * mib, -150 * mib), Some(0.5));
        assert_eq!(explained(10 * mib, -10 * mib), Some(0.0));
        assert_eq!(explained(mib - 1, mib - 1), None);
    }
}
