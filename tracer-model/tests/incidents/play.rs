//! An incident as numbers: how much space each process takes and frees in each second, and what the
//! forecast, the rules and the guard conclude from it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use tracer_model::alert::replay::Replay;
use tracer_model::alert::sizes::{DirectorySize, flow};
use tracer_model::alert::{Engine, Event, EventKind, Rule, Severity};
use tracer_model::forecast::Sample;
use tracer_model::guard::{GuardConfig, Policy};
use tracer_model::snapshot::{
    Directory, Fsync, Group, GroupKind, GroupRow, Held, HeldBy, HeldKind, PathRow, Resident,
    Snapshot, Victim, WriteErrors, Writer,
};

/// Where the volume is mounted.
pub const MOUNT: &str = "/srv";
const START: f64 = 1_795_230_727.0;

/// The part of a scenario file that lists what must be reported: the same as in the incidents with
/// real software.
#[derive(Deserialize)]
struct Scenario {
    volume: VolumeSpec,
    say: Vec<Say>,
}

#[derive(Deserialize)]
struct VolumeSpec {
    mib: u64,
}

#[derive(Deserialize)]
struct Say {
    id: String,
    after: String,
    within_s: f64,
    rule: String,
    event: EventKind,
    severity: Option<Severity>,
    #[serde(default)]
    words: Vec<String>,
}

/// What a process does in one second.
#[derive(Default)]
pub struct Act<'a> {
    pub pid: u32,
    pub comm: &'a str,
    /// Path of its cgroup.
    pub group: &'a str,
    pub path: &'a str,
    /// Bytes that it tries to allocate; it gets at most what is available.
    pub takes: u64,
    /// Bytes that it frees.
    pub gives_back: u64,
    /// The longest fsync, milliseconds.
    pub fsync_ms: f64,
    /// Whether it exits in this second.
    pub ends: bool,
}

/// A volume with 5 % reserved for root, and everything that watches it.
pub struct Play {
    scenario: Scenario,
    words: Vec<(&'static str, String)>,
    replay: Replay,
    engine: Engine,
    guard: Option<Policy>,
    sizes: Vec<DirectorySize>,
    now_s: f64,
    used: u64,
    phases: BTreeMap<String, f64>,
    reported: Vec<(f64, Event)>,
    /// The decisions of the guard, with their times.
    pub decided: Vec<(f64, String)>,
    /// Deleted files that are still open: the pid of the holder, and bytes.
    pub held: Vec<(u32, u64)>,
    residents: Vec<Resident>,
    processes: BTreeMap<String, BTreeSet<u32>>,
}

impl Play {
    /// Creates a play with these rules in addition to the built-in ones. `words` are the values of
    /// the placeholders in braces that the scenario has.
    pub fn new(scenario: &str, rules: Vec<Rule>, words: &[(&'static str, &str)]) -> Self {
        let scenario: Scenario = toml::from_str(scenario).expect("a scenario");
        let sizes = rules.iter().filter_map(|rule| rule.condition.directory());
        let sizes = sizes.map(|path| DirectorySize { path: path.to_owned(), bytes: 0 }).collect();
        let mut all = Rule::defaults();
        all.retain(|rule| rules.iter().all(|other| other.name != rule.name));
        all.extend(rules);
        let known = words.iter().map(|(word, value)| (*word, (*value).to_owned()));
        Self {
            scenario,
            words: known.chain([("mount", MOUNT.to_owned())]).collect(),
            replay: Replay::new(MOUNT),
            engine: Engine::new(all),
            guard: None,
            sizes,
            now_s: 0.0,
            used: 0,
            phases: BTreeMap::from([("attached".to_owned(), 0.0)]),
            reported: Vec::new(),
            decided: Vec::new(),
            held: Vec::new(),
            residents: Vec::new(),
            processes: BTreeMap::new(),
        }
    }

    /// Enables the guard.
    pub fn guard(&mut self, config: GuardConfig) {
        self.guard = Some(Policy::new(config));
    }

    /// Adds a database with files on the volume.
    pub fn resident(&mut self, group: &str, database: &str) {
        self.residents.push(Resident {
            group: as_group(group),
            volume: MOUNT.to_owned(),
            processes: 5,
            files: 9,
            bytes: 50 << 20,
            largest: format!("{MOUNT}/postgres/base"),
            databases: vec![database.to_owned()],
        });
    }

    pub fn total(&self) -> u64 {
        self.scenario.volume.mib << 20
    }

    /// Bytes that ordinary users can still take.
    pub fn avail(&self) -> u64 {
        (self.total() / 20 * 19).saturating_sub(self.used)
    }

    /// Begins a phase at the present time.
    pub fn begin(&mut self, phase: &str) {
        self.phases.insert(phase.to_owned(), self.now_s);
    }

    pub fn now_s(&self) -> f64 {
        self.now_s
    }

    /// Number of times that the rule has fired since the phase began.
    pub fn fired_since(&self, phase: &str, rule: &str) -> usize {
        let from = self.phases[phase];
        let fired = self.reported.iter().filter(|(at, event)| {
            *at >= from && event.rule == rule && event.event == EventKind::Firing
        });
        fired.count()
    }

    /// Plays one second, and returns its Snapshot.
    pub fn second(&mut self, acts: &[Act<'_>]) -> Snapshot {
        let mut taken = Vec::new();
        let before = self.used;
        for act in acts {
            let gets = act.takes.min(self.avail());
            self.used = (self.used + gets).saturating_sub(act.gives_back);
            taken.push(gets);
        }
        self.now_s += 1.0;
        let sample = Sample {
            time_s: START + self.now_s,
            total: self.total(),
            used: self.used,
            avail: self.avail(),
            ..Sample::default()
        };
        let (at, mut snapshot) = self.replay.push(&sample);
        let delta = self.used as f64 - before as f64;
        self.rows(&mut snapshot, acts, &taken, delta);
        for size in &mut self.sizes {
            size.add_flow(&snapshot);
        }
        let reported = self.engine.evaluate(&at, &snapshot, &self.sizes);
        self.reported.extend(reported.into_iter().map(|event| (self.now_s, event)));
        if let Some(guard) = &mut self.guard {
            let decisions = guard.evaluate(self.now_s, &snapshot, &BTreeSet::new());
            let now_s = self.now_s;
            self.decided.extend(decisions.into_iter().map(|one| (now_s, one.explanation)));
        }
        snapshot
    }

    fn rows(&mut self, snapshot: &mut Snapshot, acts: &[Act<'_>], taken: &[u64], delta: f64) {
        for (act, gets) in acts.iter().zip(taken) {
            let growth = *gets as f64 - act.gives_back as f64;
            let enospc = u64::from(*gets < act.takes);
            let errors = WriteErrors { enospc, ..WriteErrors::default() };
            let processes = self.processes.entry(act.group.to_owned()).or_default();
            processes.insert(act.pid);
            let share = if delta > 0.0 { (growth / delta).clamp(0.0, 1.0) } else { 0.0 };
            snapshot.writers.push(Writer {
                thread: None,
                inodes_created: Some(0),
                inodes_removed: Some(0),
                pid: act.pid,
                start_time: Timestamp::UNIX_EPOCH,
                comm: act.comm.to_owned(),
                exe: None,
                cmdline: None,
                uid: 0,
                user: None,
                group: Some(as_group(act.group)),
                alive: !act.ends,
                volume: MOUNT.to_owned(),
                written_bytes: *gets,
                allocated_bytes: Some(*gets),
                freed_bytes: Some(act.gives_back),
                held_bytes: None,
                written_bytes_per_s: *gets as f64,
                growth_bytes_per_s: growth,
                share,
                files: 1,
                errors,
                fsync: Some(Fsync { count: 1, max_ms: act.fsync_ms, p99_ms: act.fsync_ms }),
                parents: vec![],
                on_behalf_of: vec![],
                log_senders: Vec::new(),
            });
            if enospc > 0 || act.fsync_ms > 100.0 {
                snapshot.victims.push(Victim {
                    pid: act.pid,
                    comm: act.comm.to_owned(),
                    volume: MOUNT.to_owned(),
                    errors,
                    waiting_ms: Some(act.fsync_ms),
                });
            }
            snapshot.paths.push(PathRow {
                size_bytes: None,
                space_bytes: None,
                growth_bytes_per_s: 0.0,
                hidden: false,
                hidden_by: None,
                path: act.path.to_owned(),
                path_in_container: None,
                container: None,
                log_of: None,
                volume: MOUNT.to_owned(),
                dev: "7:0".to_owned(),
                ino: u64::from(act.pid),
                written_bytes: *gets,
                allocated_bytes: Some(*gets),
                freed_bytes: Some(act.gives_back),
                deleted: false,
                approximate: false,
                writers: vec![act.pid],
            });
            self.group_row(snapshot, act, *gets, growth, share);
        }
        snapshot.writers.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
        snapshot.groups.sort_by(|a, b| b.growth_bytes_per_s.total_cmp(&a.growth_bytes_per_s));
        snapshot.residents = self.residents.clone();
        for (pid, bytes) in &self.held {
            snapshot.held.push(Held {
                held_by: HeldBy::Descriptor,
                pid: *pid,
                comm: "holder".to_owned(),
                fd: Some(3),
                path: format!("{MOUNT}/#{pid}"),
                path_in_container: None,
                group: None,
                volume: MOUNT.to_owned(),
                bytes: *bytes,
                growing: false,
                kind: HeldKind::Deleted,
                holders: vec![*pid],
                dev: None,
                ino: None,
            });
        }
        let held = self.held.iter().map(|(_, bytes)| bytes).sum();
        snapshot.volumes[0].held_bytes = Some(held);
    }

    fn group_row(
        &self,
        snapshot: &mut Snapshot,
        act: &Act<'_>,
        gets: u64,
        growth: f64,
        share: f64,
    ) {
        let directory = act.path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        if let Some(row) = snapshot.groups.iter_mut().find(|row| row.group.name == act.group) {
            row.written_bytes += gets;
            row.growth_bytes_per_s += growth;
            row.share += share;
            return;
        }
        if let Some(path) = &directory {
            let flow = flow(snapshot, path);
            snapshot.dirs.push(Directory {
                path: path.clone(),
                volume: MOUNT.to_owned(),
                inflow_bytes_per_s: flow.inflow_bytes as f64,
                outflow_bytes_per_s: flow.outflow_bytes.unwrap_or(0) as f64,
                drain: None,
                files_created: None,
                files_removed: None,
                hot: true,
            });
        }
        let now = snapshot.taken_at;
        snapshot.groups.push(GroupRow {
            files_removed: 0,
            group: as_group(act.group),
            volume: MOUNT.to_owned(),
            processes: self.processes[act.group].len() as u64,
            alive: 1,
            empty: false,
            written_bytes: gets,
            written_total_bytes: gets,
            written_bytes_per_s: gets as f64,
            growth_bytes_per_s: growth,
            share,
            files_created: 1,
            peak_bytes_per_s: growth,
            peak_at: now,
            first_seen: now,
            last_seen: now,
            spawner: None,
            directory,
            log_bytes_per_s: 0.0,
            log_growth_bytes_per_s: 0.0,
            on_behalf_growth_bytes_per_s: 0.0,
        });
    }

    /// Checks that everything the scenario requires was reported in time.
    pub fn check(&self) {
        for say in &self.scenario.say {
            // Results of actions are not part of the model.
            if say.event == EventKind::Action && say.id != "guard" {
                continue;
            }
            let from = self.phases[&say.after];
            let words: Vec<String> = say.words.iter().map(|word| self.filled(word)).collect();
            let in_time = |at: f64| at >= from && at <= from + say.within_s;
            let all_in = |text: &str| words.iter().all(|word| text.contains(word));
            let found = self.reported.iter().any(|(at, event)| {
                in_time(*at)
                    && event.rule == say.rule
                    && event.event == say.event
                    && say.severity.is_none_or(|severity| severity == event.severity)
                    && all_in(&event.summary)
            });
            let decided = self.decided.iter().any(|(at, text)| in_time(*at) && all_in(text));
            assert!(
                found || (say.id == "guard" && decided),
                "{} was not reported with {words:?} within {} s of {from}, but {:#?} {:#?}",
                say.id,
                say.within_s,
                self.reported
                    .iter()
                    .map(|(at, e)| (at, &e.rule, e.event, &e.summary))
                    .collect::<Vec<_>>(),
                self.decided,
            );
        }
    }

    fn filled(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| {
            text.replace(&format!("{{{word}}}"), value)
        })
    }
}

fn as_group(name: &str) -> Group {
    Group {
        kind: GroupKind::Cgroup,
        name: name.to_owned(),
        cgroup: Some(name.to_owned()),
        ..Group::default()
    }
}
