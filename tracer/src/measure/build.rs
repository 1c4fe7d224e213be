//! Builds the [`Snapshot`] of an interval from its counts: sums, roll-ups, rows.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tracer_model::snapshot::{Blind, Ended, SCHEMA, Snapshot, SpaceChange, Writer, space_is_late};

use super::context::Context;
use super::directories::{Directories, Traced, directories};
use super::groups::add_groups;
use super::interval::IntervalCounts;
use super::log_senders;
use super::rows::{path_rows, volume_rows, writer_rows};
use super::sums::Sums;
use super::victims::victims;
use tracer_host::clock;

/// Builds the Snapshot of one interval. Counts on devices that are not volumes (memfd, container
/// internals) are ignored.
pub(super) fn build(counts: &IntervalCounts, mut context: Context<'_>) -> Snapshot {
    let mut sums = Sums::of(counts, &context.volumes, context.unlinks_counted, clock::jiffy_ms());
    context.backend.unattributed_bytes = counts.other.written;
    context.backend.folded_files = counts.aggregated();
    let blind = blind(&sums, &mut context);
    let (paths, logs) = path_rows(&sums.files, &mut context);
    sums.add_logs(counts, &logs);
    let traced = Traced {
        space: paths.iter().any(|(_, row)| row.freed_bytes.is_some()),
        unlinks: context.unlinks_counted,
    };
    let Context { volumes, interval_s, attribution, turnovers, .. } = &mut context;
    let (names, created) = (&mut attribution.names, &counts.created);
    let Directories { rows: dirs, passing } =
        directories(&paths, created, volumes, names, turnovers, *interval_s, traced);
    let (writers, waiting): (Vec<Writer>, Vec<f64>) =
        writer_rows(&sums, &blind, &mut context).into_iter().unzip();
    let ended = ended(&writers, &context);
    let mut snapshot = Snapshot {
        schema: SCHEMA,
        host: context.host.to_owned(),
        taken_at: context.taken_at,
        interval_s: context.interval_s,
        victims: victims(&writers, &waiting, context.interval_s),
        volumes: volume_rows(&sums, &blind, &context),
        writers,
        ended,
        dirs,
        paths: paths.into_iter().map(|(_, row)| row).collect(),
        held: context.held.files.clone(),
        uninspected_processes: context.held.unreadable as u64,
        groups: Vec::new(),
        residents: context.residents,
        backend: context.backend,
    };
    let (groups, history) =
        (&mut context.attribution.groups, &mut context.attribution.group_history);
    add_groups(&mut snapshot, &sums, &context.volumes, &passing, groups, history);
    log_senders::fill(&mut snapshot);
    snapshot
}

/// The processes that ended in the interval without a row in it.
fn ended(writers: &[Writer], context: &Context<'_>) -> Vec<Ended> {
    let rows: HashSet<(u32, Timestamp)> =
        writers.iter().map(|row| (row.pid, row.start_time)).collect();
    let ended = context
        .attribution
        .processes
        .ended_now()
        .map(|proc| Ended { pid: proc.tgid, start_time: clock::at_boottime(proc.start_ns) });
    let mut without_row: Vec<Ended> =
        ended.filter(|one| !rows.contains(&(one.pid, one.start_time))).collect();
    without_row.sort_by_key(|one| (one.pid, one.start_time));
    without_row
}

/// The blind volumes, keyed by device: too little of their growth is traced.
fn blind(sums: &Sums, context: &mut Context<'_>) -> HashMap<u32, Blind> {
    let Context { volumes, recent, interval_s, .. } = context;
    recent.retain(|dev| volumes.contains(dev));
    let found = volumes.iter().filter_map(|state| {
        let dev = state.volume.dev;
        let sum = sums.volume(dev);
        let change = SpaceChange {
            used_delta: state.used_delta(),
            allocated: state.space_known.then_some(sum.allocated),
            written: sum.written,
            over_s: *interval_s,
        };
        let is_late = space_is_late(&state.volume.fs_type);
        Some((dev, recent.add(dev, change, is_late).blind(state.gap)?))
    });
    found.collect()
}
