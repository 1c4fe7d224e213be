//! The metric families: text of a scrape from a Snapshot and the sums.

use std::collections::HashSet;

use tracer_model::snapshot::{Culprit, HookState, Snapshot, State, Verdict, Volume};

use super::exposition::{Exposition, Family, Format, Kind};
use super::totals::{Totals, label};

/// Statistics of filltop's own process at the time of a scrape.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessStats {
    /// CPU time so far, seconds.
    pub cpu_s: f64,
    /// Resident memory, bytes; `None` if unknown.
    pub resident_bytes: Option<u64>,
    /// Clients connected to the socket.
    pub clients: usize,
    /// Clients refused so far.
    pub refused: u64,
    /// Memory used by the stored history, bytes.
    pub history_bytes: usize,
    /// Length of the stored history, seconds.
    pub history_s: f64,
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

/// A metric of volumes: the family, and its value for a volume if that is known.
type VolumeRow = (Family, fn(&Volume) -> Option<f64>);

const VOLUME: &[VolumeRow] = &[
    (gauge("filltop_volume_size_bytes", "Size of the volume."), |v| Some(v.total_bytes as f64)),
    (gauge("filltop_volume_used_bytes", "Space in use."), |v| Some(v.used_bytes as f64)),
    (gauge("filltop_volume_avail_bytes", "Space available to users other than root."), |v| {
        Some(v.avail_bytes as f64)
    }),
    (gauge("filltop_volume_reserved_bytes", "Space available to root only."), |v| {
        Some(v.reserved_bytes as f64)
    }),
    (gauge("filltop_volume_held_bytes", "Space of deleted files that are still open."), |v| {
        v.held_bytes.map(|bytes| bytes as f64)
    }),
    (gauge("filltop_volume_inodes", "Total inodes; 0 if the number is not fixed."), |v| {
        Some(v.inodes_total as f64)
    }),
    (gauge("filltop_volume_inodes_free", "Free inodes."), |v| Some(v.inodes_free as f64)),
    (gauge("filltop_volume_full", "1 when a limit is reached: space, inodes or a quota."), |v| {
        Some(f64::from(u8::from(v.full)))
    }),
    (
        gauge(
            "filltop_volume_time_to_full_seconds",
            "Estimated time until the volume is full; 0 if it is, absent if it is not forecast to fill.",
        ),
        |v| v.eta_s,
    ),
    (
        gauge(
            "filltop_volume_time_to_full_earliest_seconds",
            "Lower end of the 80 % interval of the time to full.",
        ),
        |v| v.eta_lo_s,
    ),
    (
        gauge(
            "filltop_volume_time_to_full_latest_seconds",
            "Upper end of the 80 % interval of the time to full.",
        ),
        |v| v.eta_hi_s,
    ),
    (
        gauge(
            "filltop_volume_pace_to_full_seconds",
            "Time until the volume is full if the present pace goes on; absent if it does not grow now.",
        ),
        |v| v.pace_s,
    ),
    (
        gauge(
            "filltop_volume_pace_to_full_earliest_seconds",
            "Lower end of the 80 % interval of the time to full at the present pace.",
        ),
        |v| v.pace_lo_s,
    ),
    (
        gauge(
            "filltop_volume_pace_to_full_latest_seconds",
            "Upper end of the 80 % interval of the time to full at the present pace.",
        ),
        |v| v.pace_hi_s,
    ),
    (gauge("filltop_volume_growth_bytes_per_second", "Growth over the last interval."), |v| {
        Some(v.growth_bytes_per_s)
    }),
    (
        gauge(
            "filltop_volume_explained_ratio",
            "Share of the change of used space that traced growth accounts for.",
        ),
        |v| v.explained,
    ),
];

/// Formats all metrics as text; a pure function.
#[must_use]
pub fn render(
    snapshot: &Snapshot,
    totals: &Totals,
    stats: &ProcessStats,
    format: Format,
) -> String {
    let mut text = Exposition::new(format);
    volumes(&mut text, snapshot, totals);
    groups(&mut text, totals);
    directories(&mut text, snapshot, totals);
    tracer(&mut text, snapshot, totals);
    process(&mut text, stats);
    text.finish()
}

fn volumes(text: &mut Exposition, snapshot: &Snapshot, totals: &Totals) {
    // Two very long mount points can have the same label; the first is the one closer to full.
    let mut seen = HashSet::new();
    let rows: Vec<(String, &Volume)> = snapshot
        .volumes
        .iter()
        .map(|volume| (label(&volume.mount_point), volume))
        .filter(|(name, _)| totals.volumes.contains_key(name) && seen.insert(name.clone()))
        .collect();
    for (family, value) in VOLUME {
        let samples = rows.iter().filter_map(|(name, volume)| Some(([&**name], value(volume)?)));
        text.family(*family, ["volume"], samples);
    }
    let about: Vec<[String; 3]> = rows
        .iter()
        .map(|(_, volume)| {
            [label(&volume.device), label(&volume.fs_type), volume.limit.name().to_owned()]
        })
        .collect();
    text.family(
        gauge("filltop_volume_info", "Device and type of the volume, and its nearest limit."),
        ["volume", "device", "fs_type", "limit"],
        rows.iter().zip(&about).map(|((name, _), [device, fs_type, limit])| {
            ([&**name, &**device, &**fs_type, &**limit], 1.0)
        }),
    );
    text.family(
        gauge(
            "filltop_volume_blind",
            "1 while filltop cannot see enough of the writes to the volume, by cause; otherwise absent.",
        ),
        ["volume", "cause"],
        rows.iter().filter_map(|(name, volume)| Some(([&**name, volume.blind?.cause.name()], 1.0))),
    );
    text.family(
        gauge(
            "filltop_volume_unexplained_bytes",
            "Growth of the last seconds that no traced write accounts for; absent unless the volume is blind.",
        ),
        ["volume"],
        rows.iter()
            .filter_map(|(name, volume)| Some(([&**name], volume.blind?.unexplained_bytes as f64))),
    );
    text.family(
        gauge(
            "filltop_volume_state",
            "1 for the state that the verdict gives the volume: calm, filling, full or unknown.",
        ),
        ["volume", "state"],
        rows.iter().filter_map(|(name, volume)| {
            Some(([&**name, volume.verdict.as_ref()?.state.name()], 1.0))
        }),
    );
    let culprits: Vec<(&str, [String; 2], f64)> = rows
        .iter()
        .filter_map(|(name, volume)| {
            let first = culprit(volume.verdict.as_ref()?)?;
            let group = first.group.as_ref().map_or("", |group| &*group.name);
            Some((&**name, [label(&first.comm), label(group)], first.share))
        })
        .collect();
    text.family(
        gauge(
            "filltop_volume_culprit_share_ratio",
            "Share of the growth of the first culprit; absent unless the volume fills or is full, and the \
             culprit is known.",
        ),
        ["volume", "process", "group"],
        culprits.iter().map(|(name, [comm, group], share)| ([*name, &**comm, &**group], *share)),
    );
    let victims =
        |name: &str| snapshot.victims.iter().filter(|victim| victim.volume == name).count() as f64;
    text.family(
        gauge(
            "filltop_volume_victims",
            "Processes whose writes failed or waited long in the last interval because of the volume.",
        ),
        ["volume"],
        rows.iter().map(|(name, volume)| ([&**name], victims(&volume.mount_point))),
    );
    volume_counters(text, totals);
}

/// The first culprit of a volume that fills or is full, if anybody may be blamed.
fn culprit(verdict: &Verdict) -> Option<&Culprit> {
    let in_danger = matches!(verdict.state, State::Filling | State::Full);
    verdict.culprits.first().filter(|_| in_danger && !verdict.mostly_unexplained)
}

fn volume_counters(text: &mut Exposition, totals: &Totals) {
    let sums = &totals.volumes;
    text.family(
        counter("filltop_volume_written_bytes", "Bytes written."),
        ["volume"],
        sums.iter().map(|(name, sums)| ([&**name], sums.written as f64)),
    );
    text.family(
        counter("filltop_volume_allocated_bytes", "Space allocated to files."),
        ["volume"],
        sums.iter().filter_map(|(name, sums)| Some(([&**name], sums.allocated? as f64))),
    );
    text.family(
        counter("filltop_volume_freed_bytes", "Space freed by files."),
        ["volume"],
        sums.iter().filter_map(|(name, sums)| Some(([&**name], sums.freed? as f64))),
    );
    text.family(
        counter("filltop_volume_write_errors", "Failed writes."),
        ["volume", "error"],
        sums.iter().flat_map(|(name, sums)| {
            let errors = sums.errors;
            [
                ("ENOSPC", errors.enospc),
                ("EDQUOT", errors.edquot),
                ("EIO", errors.eio),
                ("other", errors.other),
            ]
            .map(|(error, count)| ([&**name, error], count as f64))
        }),
    );
}

fn groups(text: &mut Exposition, totals: &Totals) {
    const LABELS: [&str; 3] = ["group", "kind", "volume"];
    let rows =
        || totals.groups.iter().map(|(key, row)| ([&*key.group, &*key.kind, &*key.volume], row));
    text.family(
        counter("filltop_group_written_bytes", "Bytes written by a unit, container or session."),
        LABELS,
        rows().map(|(labels, row)| (labels, row.sums.written as f64)),
    );
    text.family(
        counter("filltop_group_allocated_bytes", "Space allocated to files by the group."),
        LABELS,
        rows().filter_map(|(labels, row)| Some((labels, row.sums.allocated? as f64))),
    );
    text.family(
        counter("filltop_group_freed_bytes", "Space freed by the group."),
        LABELS,
        rows().filter_map(|(labels, row)| Some((labels, row.sums.freed? as f64))),
    );
    text.family(
        counter("filltop_group_no_space_errors", "Writes that failed with ENOSPC or EDQUOT."),
        LABELS,
        rows().map(|(labels, row)| (labels, row.sums.errors.no_space() as f64)),
    );
    text.family(
        gauge("filltop_group_growth_bytes_per_second", "Growth over the last interval."),
        LABELS,
        rows().map(|(labels, row)| (labels, row.growth)),
    );
    text.family(
        gauge("filltop_group_writers", "Processes of the group that wrote in the last interval."),
        LABELS,
        rows().map(|(labels, row)| (labels, row.writers as f64)),
    );
}

fn directories(text: &mut Exposition, snapshot: &Snapshot, totals: &Totals) {
    const LABELS: [&str; 2] = ["directory", "volume"];
    let names: Vec<(String, &str)> =
        totals.directories.iter().map(|(path, sums)| (label(path), &*sums.volume)).collect();
    let rows = || names.iter().zip(&totals.directories);
    text.family(
        counter("filltop_directory_inflow_bytes", "Space allocated below a declared directory."),
        LABELS,
        rows().map(|((name, volume), (_, sums))| ([&**name, *volume], sums.inflow)),
    );
    text.family(
        counter("filltop_directory_outflow_bytes", "Space freed below a declared directory."),
        LABELS,
        rows().map(|((name, volume), (_, sums))| ([&**name, *volume], sums.outflow)),
    );
    text.family(
        gauge(
            "filltop_directory_drain_ratio",
            "Outflow over inflow in the last interval; absent without inflow.",
        ),
        LABELS,
        rows().filter_map(|((name, volume), (path, _))| {
            let row = snapshot.dirs.iter().find(|row| row.path == *path)?;
            Some(([&**name, *volume], row.drain?))
        }),
    );
}

fn tracer(text: &mut Exposition, snapshot: &Snapshot, totals: &Totals) {
    let backend = &snapshot.backend;
    text.family(
        gauge("filltop_build_info", "Version of filltop and of the kernel, and the kind of probe."),
        ["version", "kernel", "backend"],
        [([env!("CARGO_PKG_VERSION"), &*backend.kernel, backend.write.name()], 1.0)],
    );
    text.family(
        gauge("filltop_host_info", "Host name; in a pod, that of the node."),
        ["host"],
        [([&*snapshot.host], 1.0)],
    );
    text.family(
        gauge("filltop_capability", "1 for each capability that filltop had when attaching."),
        ["capability"],
        backend.capabilities.iter().map(|name| ([&**name], 1.0)),
    );
    let hooks = |wanted: fn(&HookState) -> bool| {
        backend.hooks.iter().filter(|hook| wanted(&hook.state)).count() as f64
    };
    text.family(
        gauge(
            "filltop_hooks",
            "Hooks by state; a broken hook should work on this host but does not.",
        ),
        ["state"],
        [
            (["ok"], hooks(|state| matches!(state, HookState::Ok))),
            (["broken"], hooks(|state| matches!(state, HookState::Broken { .. }))),
            (["unsupported"], hooks(|state| matches!(state, HookState::Unsupported { .. }))),
        ],
    );
    text.family(
        counter("filltop_lost_events", "Events known to have been lost."),
        [],
        [([], backend.lost_events as f64)],
    );
    text.family(
        counter(
            "filltop_unattributed_bytes",
            "Bytes in a volume's total that could not be attributed to a writer.",
        ),
        [],
        [([], totals.unattributed as f64)],
    );
    text.family(
        gauge(
            "filltop_write_overhead_seconds",
            "Overhead per write, from the kernel's statistics.",
        ),
        [],
        backend.overhead_ns_per_write.map(|ns| ([], ns / 1e9)),
    );
    text.family(
        counter("filltop_snapshots", "Snapshots taken so far."),
        [],
        [([], totals.snapshots as f64)],
    );
    text.family(
        gauge("filltop_snapshot_interval_seconds", "Length of the last interval."),
        [],
        [([], snapshot.interval_s)],
    );
    text.family(
        gauge("filltop_snapshot_timestamp_seconds", "End of the last interval, since the epoch."),
        [],
        [([], snapshot.taken_at.as_millisecond() as f64 / 1e3)],
    );
}

fn process(text: &mut Exposition, stats: &ProcessStats) {
    text.family(
        counter("process_cpu_seconds", "CPU time of filltop itself."),
        [],
        [([], stats.cpu_s)],
    );
    text.family(
        gauge("process_resident_memory_bytes", "Resident memory of filltop, without BPF maps."),
        [],
        stats.resident_bytes.map(|bytes| ([], bytes as f64)),
    );
    text.family(
        gauge("filltop_service_clients", "Clients connected to the service's socket."),
        [],
        [([], stats.clients as f64)],
    );
    text.family(
        counter("filltop_service_refused_clients", "Clients refused by the service."),
        [],
        [([], stats.refused as f64)],
    );
    text.family(
        gauge("filltop_service_history_bytes", "Memory used by the history for clients."),
        [],
        [([], stats.history_bytes as f64)],
    );
    text.family(
        gauge("filltop_service_history_seconds", "Length of the history for clients."),
        [],
        [([], stats.history_s)],
    );
}
