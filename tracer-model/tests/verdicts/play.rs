//! Plays a scenario: computes what statvfs and the probes would have shown in each second, forecasts
//! with the program's own forecaster, and passes the Snapshots to the verdict engine.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tracer_model::fixtures;
use tracer_model::forecast::{Forecaster, Limit, LimitUsage, Outcome, Policy, Sample};
use tracer_model::snapshot::{
    BtrfsSpace, Ended, Group, GroupKind, GroupRow, Held, HeldBy, HeldKind, LogSender, OnBehalf,
    Parent, QuotaUse, Resident, Snapshot, Suspect, Victim, Volume, WriteErrors, Writer,
};
use tracer_model::units::parse;
use tracer_model::verdict::Engine;

use super::scenario::{HeldSpec, Phase, ProcessSpec, Scenario, VolumeSpec};

/// A size as the scenario writes it, bytes.
pub fn size(text: &str) -> u64 {
    parse::bytes(text).unwrap_or_else(|error| panic!("{text}: {error}")) as u64
}

fn optional(text: Option<&String>) -> u64 {
    text.map_or(0, |text| size(text))
}

/// `KIND NAME` as a group.
fn group(text: &str) -> Group {
    let (kind, name) = text.split_once(' ').expect("KIND NAME");
    let kind: GroupKind = serde_json::from_value(kind.into()).expect("a kind");
    Group { kind, name: name.to_owned(), cgroup: Some(format!("/test/{name}")), ..Group::default() }
}

/// A volume as it is now.
struct State {
    spec: VolumeSpec,
    used: u64,
    inodes_used: u64,
    metadata_used: u64,
    /// Growth of the user whose quota it is.
    grown_by_user: u64,
    forecaster: Forecaster,
}

impl State {
    fn new(spec: &VolumeSpec) -> Self {
        Self {
            used: size(&spec.used),
            inodes_used: spec.inodes_used,
            metadata_used: spec.metadata.as_ref().map_or(0, |[_, used]| size(used)),
            grown_by_user: 0,
            forecaster: Forecaster::new(Policy::default()),
            spec: spec.clone(),
        }
    }

    fn avail(&self) -> u64 {
        size(&self.spec.size).saturating_sub(self.used)
    }

    fn inodes_free(&self) -> u64 {
        self.spec.inodes.saturating_sub(self.inodes_used)
    }

    fn metadata_max(&self) -> Option<u64> {
        let [total, _] = self.spec.metadata.as_ref()?;
        Some(size(total) + optional(self.spec.unallocated.as_ref()))
    }

    fn quota_user(&self) -> Option<&str> {
        self.spec.quota.as_ref()?.0.strip_prefix("user ")
    }

    /// The quota's name, use and limit: what was used at the start counts, and all growth since.
    fn quota(&self) -> Option<QuotaUse> {
        let (name, used, limit) = self.spec.quota.as_ref()?;
        let user = self.quota_user().map(str::to_owned);
        let grown = match user {
            Some(_) => self.grown_by_user,
            None => self.used.saturating_sub(size(&self.spec.used)),
        };
        Some(QuotaUse {
            name: name.clone(),
            user,
            used_bytes: size(used) + grown,
            limit_bytes: Some(size(limit)),
            used_inodes: 0,
            limit_inodes: None,
        })
    }
}

/// Plays all phases, and returns the last Snapshot, with its verdicts.
pub fn play(scenario: &Scenario) -> Snapshot {
    play_all(scenario).pop().expect("a phase")
}

/// Plays all phases, and returns all Snapshots, with their verdicts.
pub fn play_all(scenario: &Scenario) -> Vec<Snapshot> {
    let mut states: Vec<State> = scenario.volume.iter().map(State::new).collect();
    let mut engine = Engine::default();
    let mut groups: BTreeMap<(String, String), GroupRow> = BTreeMap::new();
    let mut history = Vec::new();
    let mut second = 0;
    // So that the forecaster and the engine know the volume at rest.
    let rest = Phase {
        seconds: 1,
        process: vec![],
        unseen: None,
        unseen_inodes: 0,
        held: vec![],
        held_unknown: None,
        suspect: vec![],
        ended: vec![],
        empty: vec![],
        touches_zero: false,
    };
    for phase in std::iter::once(&rest).chain(&scenario.phase) {
        for at in 0..phase.seconds {
            let is_last = at + 1 == phase.seconds;
            let mut snapshot = step(scenario, &mut states, phase, second, is_last, &mut groups);
            if at == 0 {
                snapshot.ended = phase.ended.iter().map(|pid| ended(*pid)).collect();
            }
            engine.judge(&mut snapshot);
            history.push(snapshot);
            second += 1;
        }
    }
    history
}

fn step(
    scenario: &Scenario,
    states: &mut [State],
    phase: &Phase,
    second: u32,
    is_last: bool,
    groups: &mut BTreeMap<(String, String), GroupRow>,
) -> Snapshot {
    let start = Timestamp::from_second(fixtures::NOW).unwrap();
    let taken_at = start + SignedDuration::from_secs(i64::from(second));
    let mut snapshot = Snapshot { interval_s: 1.0, taken_at, volumes: vec![], ..fixtures::idle() };
    let before: Vec<(u64, u64)> = states.iter().map(|one| (one.used, one.inodes_used)).collect();
    let first = scenario.volume[0].mount.clone();
    for spec in &phase.process {
        let mount = spec.on.clone().unwrap_or_else(|| first.clone());
        let state = states.iter_mut().find(|one| one.spec.mount == mount).expect("its volume");
        for number in 0..spec.processes {
            process(&mut snapshot, state, spec, second, number, is_last && spec.ends);
        }
    }
    if let Some(state) = states.first_mut() {
        if let Some(unseen) = &phase.unseen {
            let gets = size(unseen).min(state.avail());
            state.used += gets;
        }
        state.inodes_used = state.inodes_used.saturating_add_signed(phase.unseen_inodes);
    }
    for (state, (used, inodes)) in states.iter_mut().zip(before) {
        let mut volume = volume(state, phase, second, used, inodes, state.spec.mount == first);
        // A write that finds no space means that there was none, whatever is freed afterwards.
        let here = snapshot.victims.iter().filter(|row| row.volume == volume.mount_point);
        volume.was_full |= here.into_iter().any(|row| row.errors.enospc > 0);
        snapshot.volumes.push(volume);
    }
    snapshot.held = phase.held.iter().map(|one| held(one, &first)).collect();
    for spec in &scenario.resident {
        snapshot.residents.push(Resident {
            group: group(&spec.group),
            volume: first.clone(),
            processes: 3,
            files: 9,
            bytes: 50 << 20,
            largest: format!("{first}/db/base"),
            databases: vec![spec.database.clone()],
        });
    }
    roll_up(&mut snapshot, groups);
    for row in &mut snapshot.groups {
        row.empty = phase.empty.contains(&row.group.name);
    }
    snapshot.writers.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
    snapshot
}

fn process(
    snapshot: &mut Snapshot,
    state: &mut State,
    spec: &ProcessSpec,
    second: u32,
    number: u32,
    ends: bool,
) {
    let wants = optional(spec.takes.as_ref());
    let gets = wants.min(state.avail());
    let frees = optional(spec.frees.as_ref()).min(state.used + gets);
    let rewrites = optional(spec.rewrites.as_ref());
    state.used = state.used + gets - frees;
    if spec.user.is_some() && spec.user.as_deref() == state.quota_user() {
        state.grown_by_user = (state.grown_by_user + gets).saturating_sub(frees);
    }
    let creates = match (state.spec.inodes, state.metadata_max()) {
        (0, None) => spec.creates,
        (0, Some(max)) => {
            // 4 KiB of metadata for each file.
            let creates = spec.creates.min(max.saturating_sub(state.metadata_used) / 4096);
            state.metadata_used += creates * 4096;
            creates
        }
        _ => spec.creates.min(state.inodes_free()),
    };
    let removes = spec.removes.min(state.inodes_used + creates);
    state.inodes_used = state.inodes_used + creates - removes;
    let failed = u64::from(gets < wants) + (spec.creates - creates) + spec.enospc;
    let errors = WriteErrors { enospc: failed, short: spec.short, ..WriteErrors::default() };
    let first = if spec.respawns { spec.pid + second * spec.processes } else { spec.pid };
    let pid = first + number;
    let traced = !state.spec.untraced;
    let growth = if traced { gets as f64 - frees as f64 } else { (gets + rewrites) as f64 };
    let mount = state.spec.mount.clone();
    let mut row = Writer {
        thread: spec.thread.clone(),
        user: spec.user.clone(),
        group: spec.group.as_deref().map(group),
        cmdline: spec.cmdline.clone(),
        inodes_created: Some(creates),
        inodes_removed: Some(removes),
        alive: !(ends || spec.respawns),
        allocated_bytes: traced.then_some(gets),
        freed_bytes: traced.then_some(frees),
        written_bytes_per_s: (gets + rewrites) as f64,
        growth_bytes_per_s: growth,
        errors,
        ..fixtures::writer(pid, &spec.comm, &mount, gets + rewrites)
    };
    row.start_time = Timestamp::from_second(fixtures::NOW - 7200).unwrap()
        + SignedDuration::from_secs(i64::from(if spec.respawns { second } else { 0 }));
    if spec.kernel {
        row.parents = vec![Parent { pid: 2, comm: "kthreadd".to_owned() }];
    }
    if let Some(container) = &spec.log_of {
        row.on_behalf_of = vec![OnBehalf {
            group: group(container),
            written_bytes: gets,
            written_bytes_per_s: gets as f64,
            growth_bytes_per_s: growth,
        }];
    }
    row.log_senders = spec
        .senders
        .iter()
        .map(|(name, share)| LogSender { name: name.clone(), pid: None, share: *share })
        .collect();
    if errors.no_space() > 0 {
        snapshot.victims.push(Victim {
            pid,
            comm: spec.comm.clone(),
            volume: mount.clone(),
            errors,
            waiting_ms: None,
        });
    }
    if let Some(path) = &spec.path {
        let path = path.replace("{second}", &second.to_string());
        let mut file = fixtures::path(&path, &mount, u64::from(pid), gets + rewrites, pid);
        file.allocated_bytes = Some(gets);
        file.freed_bytes = Some(frees);
        file.growth_bytes_per_s = growth;
        file.size_bytes = Some(gets.max(64 << 20));
        snapshot.paths.push(file);
    }
    if let Some(dir) = &spec.dir {
        let mut row = fixtures::dir(dir, &mount, gets as f64, frees as f64);
        row.hot = true;
        row.files_created = Some(creates);
        row.files_removed = Some(removes);
        snapshot.dirs.push(row);
    }
    snapshot.writers.push(row);
}

fn volume(
    state: &mut State,
    phase: &Phase,
    second: u32,
    used: u64,
    inodes: u64,
    is_first: bool,
) -> Volume {
    let spec = &state.spec;
    let (total, avail) = (size(&spec.size), state.avail());
    let quota = state.quota();
    let mut limits = Vec::new();
    if spec.inodes > 0 {
        let (used, max) = (state.inodes_used, spec.inodes);
        limits.push(LimitUsage { limit: Limit::Inodes, used, max });
    }
    if let Some(max) = state.metadata_max() {
        limits.push(LimitUsage { limit: Limit::Metadata, used: state.metadata_used, max });
    }
    if let Some(QuotaUse { name, used_bytes, limit_bytes: Some(max), .. }) = &quota {
        let limit = Limit::Quota(name.clone());
        limits.push(LimitUsage { limit, used: *used_bytes, max: *max });
    }
    state.forecaster.push(&Sample {
        time_s: f64::from(second),
        total,
        used: state.used,
        avail,
        limits,
        flow: None,
    });
    let forecast = state.forecaster.forecast();
    let interval = forecast.outcome.interval_s();
    let held = phase.held.iter().map(|one| size(&one.size)).sum::<u64>();
    let unknown = phase.held_unknown.as_deref().map(size);
    let delta = state.used.cast_signed() - used.cast_signed();
    let traced = (!spec.untraced).then_some(0);
    Volume {
        fs_type: spec.fs.clone(),
        total_bytes: total,
        used_bytes: state.used,
        avail_bytes: avail,
        reserved_bytes: 0,
        inodes_total: spec.inodes,
        inodes_free: state.inodes_free(),
        inodes_delta: state.inodes_used.cast_signed() - inodes.cast_signed(),
        used_delta_bytes: delta,
        growth_bytes_per_s: delta as f64,
        allocated_bytes: traced,
        freed_bytes: traced,
        full: matches!(forecast.outcome, Outcome::Full { .. }),
        was_full: is_first && phase.touches_zero,
        limit: forecast.limit.kind(),
        eta_s: forecast.outcome.eta_s(),
        eta_lo_s: interval.map(|(earliest, _)| earliest),
        eta_hi_s: interval.map(|(_, latest)| latest),
        pace_s: forecast.pace.map(|pace| pace.eta_s),
        pace_lo_s: forecast.pace.map(|pace| pace.lo_s),
        pace_hi_s: forecast.pace.map(|pace| pace.hi_s),
        no_eta: match forecast.outcome {
            Outcome::DoesNotFill { reason } => Some(reason),
            _ => None,
        },
        held_bytes: is_first.then_some(held + unknown.unwrap_or(0)),
        held_unknown_bytes: unknown.filter(|_| is_first),
        served_by: spec.served_by.clone().map(|(pid, comm)| Parent { pid, comm }),
        backing_file: spec.backing_file.clone(),
        btrfs: spec.metadata.as_ref().map(|[metadata, _]| BtrfsSpace {
            data_total_bytes: total,
            data_used_bytes: state.used,
            metadata_total_bytes: size(metadata),
            metadata_used_bytes: state.metadata_used,
            unallocated_bytes: optional(spec.unallocated.as_ref()),
        }),
        quotas: quota.into_iter().collect(),
        suspects: if is_first { phase.suspect.iter().map(suspect).collect() } else { vec![] },
        ..fixtures::volume(&spec.mount)
    }
}

/// A process that was no new one in each second.
fn ended(pid: u32) -> Ended {
    Ended { pid, start_time: Timestamp::from_second(fixtures::NOW - 7200).unwrap() }
}

fn suspect((pid, comm, bytes): &(u32, String, String)) -> Suspect {
    Suspect {
        pid: *pid,
        comm: comm.clone(),
        group: None,
        bytes: size(bytes),
        files: 1,
        gone: false,
    }
}

fn held(spec: &HeldSpec, mount: &str) -> Held {
    let mut holders = vec![spec.pid];
    holders.extend(&spec.also);
    let by = spec.by.as_deref().unwrap_or("descriptor");
    Held {
        pid: spec.pid,
        comm: spec.comm.clone(),
        fd: Some(3),
        path: spec.path.clone(),
        path_in_container: None,
        group: spec.group.as_deref().map(group),
        volume: mount.to_owned(),
        bytes: size(&spec.size),
        growing: false,
        kind: HeldKind::Deleted,
        held_by: serde_json::from_value::<HeldBy>(by.into()).unwrap(),
        holders,
        dev: None,
        ino: Some(u64::from(spec.pid)),
    }
}

/// The rows of the groups, which remember the processes that have ended.
fn roll_up(snapshot: &mut Snapshot, known: &mut BTreeMap<(String, String), GroupRow>) {
    for row in known.values_mut() {
        (row.growth_bytes_per_s, row.alive) = (0.0, 0);
    }
    for writer in &snapshot.writers {
        let Some(group) = &writer.group else { continue };
        let key = (writer.volume.clone(), group.name.clone());
        let row = known.entry(key).or_insert_with(|| GroupRow {
            group: group.clone(),
            volume: writer.volume.clone(),
            processes: 0,
            alive: 0,
            empty: false,
            written_bytes: 0,
            written_total_bytes: 0,
            written_bytes_per_s: 0.0,
            growth_bytes_per_s: 0.0,
            share: 0.0,
            files_created: 0,
            files_removed: 0,
            peak_bytes_per_s: 0.0,
            peak_at: snapshot.taken_at,
            first_seen: snapshot.taken_at,
            last_seen: snapshot.taken_at,
            spawner: None,
            directory: None,
            log_bytes_per_s: 0.0,
            log_growth_bytes_per_s: 0.0,
            on_behalf_growth_bytes_per_s: 0.0,
        });
        row.growth_bytes_per_s += writer.growth_bytes_per_s;
        row.last_seen = snapshot.taken_at;
        row.alive += u64::from(writer.alive);
        row.processes = row.processes.max(row.alive);
    }
    snapshot.groups = known.values().cloned().collect();
}
