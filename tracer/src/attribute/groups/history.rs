//! Groups over time: a culprit stays listed, with its peak, after its processes and files are gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tracer_common::ProcKey;
use tracer_model::snapshot::{Group, GroupRow, OnBehalf, Snapshot, Spawner, Writer};

use super::cgroup_path;
use super::membership::Membership;
use tracer_host::cgroup::{Hierarchies, processes};

/// How long an idle group stays listed.
pub const IDLE_RETENTION: Duration = Duration::from_secs(3_600);
/// Maximum number of listed groups; beyond it, those with the lowest peaks are dropped.
const MAX_ROWS: usize = 1_024;
/// Maximum number of processes remembered per group, to count each once. Beyond it, a process that
/// pauses for more than an interval may be counted again.
const MAX_MEMBERS: usize = 4_096;
/// How long after the end of its writers a group's cgroup is looked at, and for how many groups.
const RECENTLY: Duration = Duration::from_secs(20);
const MAX_LOOKED_UP: usize = 16;
/// Maximum number of ancestors counted per group and generation.
const MAX_ANCESTORS: usize = 256;

type Key = (Group, String);

#[derive(Default)]
struct Ancestor {
    comm: String,
    spawned: u64,
}

struct Entry {
    row: GroupRow,
    /// Highest growth of all intervals, including the group's logs, bytes per second.
    peak: f64,
    members: HashSet<ProcKey>,
    /// How many members each ancestor started: parents first, then grandparents.
    ancestors: [HashMap<ProcKey, Ancestor>; 2],
}

/// The history of all groups. Keyed by (group, mount point).
#[derive(Default)]
pub struct GroupHistory {
    entries: BTreeMap<Key, Entry>,
}

/// One process on one volume in an interval.
pub struct ActiveProcess<'a> {
    /// The process.
    pub proc: ProcKey,
    /// Mount point of the volume.
    pub volume: &'a str,
    /// Its group membership.
    pub member: &'a Membership,
    /// Number of inodes that it created.
    pub created: u64,
    /// Number of inodes that it removed.
    pub removed: u64,
}

impl GroupHistory {
    /// Adds an interval, and puts the rows of all groups into its Snapshot. `active` are the
    /// processes behind the Snapshot's writers.
    pub(crate) fn update(&mut self, snapshot: &mut Snapshot, active: &[ActiveProcess<'_>]) {
        let now = snapshot.taken_at;
        for entry in self.entries.values_mut() {
            let row = &mut entry.row;
            (row.written_bytes, row.alive, row.empty) = (0, 0, false);
            (row.files_created, row.files_removed) = (0, 0);
            (row.written_bytes_per_s, row.growth_bytes_per_s, row.share) = (0.0, 0.0, 0.0);
            (row.log_bytes_per_s, row.log_growth_bytes_per_s) = (0.0, 0.0);
            row.on_behalf_growth_bytes_per_s = 0.0;
        }
        for one in active {
            let entry = self.entry(&one.member.group, one.volume, now);
            entry.row.files_created += one.created;
            entry.row.files_removed += one.removed;
            entry.add_process(one);
        }
        for writer in &snapshot.writers {
            let Some(group) = &writer.group else { continue };
            self.entry(group, &writer.volume, now).add_writer(writer);
        }
        for writer in &snapshot.writers {
            for log in &writer.on_behalf_of {
                self.add_log(log, &writer.volume, now);
            }
        }
        for entry in self.entries.values_mut().filter(|entry| entry.row.last_seen == now) {
            entry.end_interval(now);
        }
        self.drop_idle(now);
        self.look_for_processes(now);
        snapshot.groups = self.rows(now);
    }

    /// Finds out which groups have no process left, among those whose writers have just ended.
    fn look_for_processes(&mut self, now: Timestamp) {
        let recently =
            |row: &GroupRow| now.duration_since(row.last_seen).unsigned_abs() <= RECENTLY;
        let silent = self.entries.values_mut().map(|entry| &mut entry.row);
        let silent = silent.filter(|row| row.alive == 0 && recently(row));
        let mut hierarchies = None;
        for row in silent.take(MAX_LOOKED_UP) {
            let Some(cgroup) = &row.group.cgroup else { continue };
            let hierarchies = hierarchies.get_or_insert_with(Hierarchies::read);
            let is_visible = hierarchies.v2.is_some() || !hierarchies.v1.is_empty();
            let mut dirs = hierarchies.directories(cgroup_path::directory(cgroup)).into_iter();
            row.empty = is_visible && dirs.all(|dir| processes(&dir).is_empty());
        }
    }

    /// Sets the directory that received most of a group's bytes.
    pub(crate) fn set_directory(&mut self, group: &Group, volume: &str, directory: String) {
        if let Some(entry) = self.entries.get_mut(&(group.clone(), volume.to_owned())) {
            entry.row.directory = Some(directory);
        }
    }

    fn entry(&mut self, group: &Group, volume: &str, now: Timestamp) -> &mut Entry {
        let entry = self
            .entries
            .entry((group.clone(), volume.to_owned()))
            .or_insert_with(|| Entry::new(group, volume, now));
        entry.row.last_seen = now;
        entry
    }

    /// Adds what was written to a container's log to the container's own row, whose group may
    /// differ in its root or mount namespace.
    fn add_log(&mut self, log: &OnBehalf, volume: &str, now: Timestamp) {
        let own = self.entries.iter().filter(|((group, at), entry)| {
            at == volume
                && entry.row.last_seen == now
                && (&group.kind, &group.name) == (&log.group.kind, &log.group.name)
                && group.container_id() == log.group.container_id()
        });
        let own = own.map(|((group, _), _)| group.clone()).next();
        let row = &mut self.entry(own.as_ref().unwrap_or(&log.group), volume, now).row;
        row.log_bytes_per_s += log.written_bytes_per_s;
        row.log_growth_bytes_per_s += log.growth_bytes_per_s;
    }

    fn drop_idle(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| {
            now.duration_since(entry.row.last_seen).unsigned_abs() <= IDLE_RETENTION
        });
        if self.entries.len() > MAX_ROWS {
            let mut peaks: Vec<(f64, Key)> =
                self.entries.iter().map(|(key, entry)| (entry.peak, key.clone())).collect();
            peaks.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (_, key) in &peaks[..peaks.len() - MAX_ROWS] {
                self.entries.remove(key);
            }
        }
    }

    /// Active groups by the growth that is charged to them, then idle ones by their peak.
    fn rows(&self, now: Timestamp) -> Vec<GroupRow> {
        let mut rows: Vec<GroupRow> =
            self.entries.values().map(|entry| entry.row.clone()).collect();
        rows.sort_by(|a, b| {
            (b.last_seen == now)
                .cmp(&(a.last_seen == now))
                .then(b.charged_growth().total_cmp(&a.charged_growth()))
                .then(b.written_bytes.cmp(&a.written_bytes))
                .then(b.peak_bytes_per_s.total_cmp(&a.peak_bytes_per_s))
                .then_with(|| a.group.cmp(&b.group))
        });
        rows
    }
}

impl Entry {
    fn new(group: &Group, volume: &str, now: Timestamp) -> Self {
        Self {
            row: GroupRow {
                files_removed: 0,
                group: group.clone(),
                volume: volume.to_owned(),
                processes: 0,
                alive: 0,
                empty: false,
                written_bytes: 0,
                written_total_bytes: 0,
                written_bytes_per_s: 0.0,
                growth_bytes_per_s: 0.0,
                share: 0.0,
                files_created: 0,
                peak_bytes_per_s: 0.0,
                peak_at: now,
                first_seen: now,
                last_seen: now,
                spawner: None,
                directory: None,
                log_bytes_per_s: 0.0,
                log_growth_bytes_per_s: 0.0,
                on_behalf_growth_bytes_per_s: 0.0,
            },
            peak: 0.0,
            members: HashSet::new(),
            ancestors: Default::default(),
        }
    }

    fn add_process(&mut self, one: &ActiveProcess<'_>) {
        if !self.members.insert(one.proc) {
            return;
        }
        self.row.processes += 1;
        if self.members.len() > MAX_MEMBERS {
            self.members.clear();
            self.members.insert(one.proc);
        }
        for (counts, (proc, comm)) in self.ancestors.iter_mut().zip(&one.member.ancestors) {
            // Skip init, an ancestor of everything, and kthreadd, the parent of kernel threads.
            if proc.tgid <= 2 || (counts.len() >= MAX_ANCESTORS && !counts.contains_key(proc)) {
                continue;
            }
            let ancestor = counts.entry(*proc).or_default();
            ancestor.comm.clone_from(comm);
            ancestor.spawned += 1;
        }
    }

    fn add_writer(&mut self, writer: &Writer) {
        let row = &mut self.row;
        row.alive += u64::from(writer.alive);
        row.written_bytes += writer.written_bytes;
        row.written_bytes_per_s += writer.written_bytes_per_s;
        row.growth_bytes_per_s += writer.growth_bytes_per_s;
        row.share += writer.share;
        row.on_behalf_growth_bytes_per_s +=
            writer.on_behalf_of.iter().map(|log| log.growth_bytes_per_s).sum::<f64>();
    }

    fn end_interval(&mut self, now: Timestamp) {
        let row = &mut self.row;
        self.peak = self.peak.max(row.charged_growth());
        row.written_total_bytes += row.written_bytes;
        row.share = row.share.min(1.0);
        if row.growth_bytes_per_s > row.peak_bytes_per_s {
            row.peak_bytes_per_s = row.growth_bytes_per_s;
            row.peak_at = now;
        }
        // Parents first: a grandparent counts as the spawner only of jobs that each have their own
        // shell.
        row.spawner = self.ancestors.iter().find_map(|counts| {
            let (proc, most) = counts
                .iter()
                .max_by_key(|(proc, ancestor)| (ancestor.spawned, std::cmp::Reverse(proc.tgid)))?;
            (most.spawned >= 2).then(|| Spawner {
                pid: proc.tgid,
                comm: most.comm.clone(),
                spawned: most.spawned,
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use tracer_model::snapshot::GroupKind;

    use super::*;
    use tracer_model::fixtures;

    fn member_of(parent: u32) -> Membership {
        let proc = |tgid| ProcKey { start_ns: 1, tgid, pad: 0 };
        Membership {
            group: Group { kind: GroupKind::Session, name: "job".into(), ..Group::default() },
            ancestors: [(proc(parent), "sh".to_owned()), (proc(50), "supervisor".to_owned())],
            ..Membership::default()
        }
    }

    /// Adds an interval, `minute` minutes after the first one, with these (pid, parent, bytes).
    fn interval(history: &mut GroupHistory, minute: i64, jobs: &[(u32, u32, u64)]) -> Snapshot {
        let mut snapshot = fixtures::idle();
        snapshot.taken_at = Timestamp::from_second(fixtures::NOW + minute * 60).unwrap();
        let members: Vec<Membership> =
            jobs.iter().map(|(_, parent, _)| member_of(*parent)).collect();
        let mut seen = Vec::new();
        for ((pid, _, bytes), member) in jobs.iter().zip(&members) {
            let mut writer = fixtures::writer(*pid, "job", "/", *bytes);
            writer.group = Some(member.group.clone());
            writer.alive = false;
            snapshot.writers.push(writer);
            let proc = ProcKey { start_ns: u64::from(*pid), tgid: *pid, pad: 0 };
            seen.push(ActiveProcess { proc, volume: "/", member, created: 1, removed: 0 });
        }
        history.update(&mut snapshot, &seen);
        snapshot
    }

    #[test]
    fn jobs_with_a_new_pid_each_time_are_one_group_with_its_spawner() {
        let mut history = GroupHistory::default();
        interval(&mut history, 0, &[(100, 99, 500)]);
        let snapshot = interval(&mut history, 1, &[(200, 199, 1_000), (201, 198, 500)]);
        assert_eq!(snapshot.groups.len(), 1);
        let row = &snapshot.groups[0];
        assert_eq!((row.processes, row.alive, row.files_created), (3, 0, 2));
        assert_eq!((row.written_bytes, row.written_total_bytes), (1_500, 2_000));
        let spawner = row.spawner.as_ref().unwrap();
        assert_eq!((spawner.pid, spawner.comm.as_str(), spawner.spawned), (50, "supervisor", 3));
    }

    #[test]
    fn a_parent_that_forks_all_is_the_spawner() {
        let mut history = GroupHistory::default();
        let snapshot = interval(&mut history, 0, &[(100, 99, 5), (101, 99, 5)]);
        assert_eq!(snapshot.groups[0].spawner.as_ref().unwrap().pid, 99);
    }

    #[test]
    fn a_culprit_stays_listed_with_its_peak_for_an_hour() {
        let mut history = GroupHistory::default();
        interval(&mut history, 0, &[(100, 99, 5_000)]);
        let later = interval(&mut history, 59, &[]);
        let row = &later.groups[0];
        assert_eq!((row.written_bytes, row.growth_bytes_per_s), (0, 0.0));
        assert_eq!((row.peak_bytes_per_s, row.written_total_bytes), (1_000.0, 5_000));
        assert_eq!(row.last_seen, Timestamp::from_second(fixtures::NOW).unwrap());
        assert!(interval(&mut history, 62, &[]).groups.is_empty());
    }

    #[test]
    fn a_containers_log_is_charged_to_the_container() {
        let group = |kind, name: &str| Group { kind, name: name.to_owned(), ..Group::default() };
        let web = group(GroupKind::Docker, "web-d");
        let log = OnBehalf {
            group: web.clone(),
            written_bytes: 4_000,
            written_bytes_per_s: 800.0,
            growth_bytes_per_s: 700.0,
        };
        let mut snapshot = fixtures::idle();
        let daemon = group(GroupKind::Unit, "docker.service");
        snapshot.writers = vec![
            Writer {
                group: Some(daemon.clone()),
                on_behalf_of: vec![log],
                ..fixtures::writer(7, "dockerd", "/", 5_000)
            },
            // The container's own processes have another root than the log's group.
            Writer {
                group: Some(Group { root: Some("/srv/vfs/b7".to_owned()), ..web.clone() }),
                ..fixtures::writer(8, "w", "/", 500)
            },
        ];
        let mut history = GroupHistory::default();
        history.update(&mut snapshot, &[]);
        let names: Vec<&str> = snapshot.groups.iter().map(|row| &*row.group.name).collect();
        assert_eq!(names, ["web-d", "docker.service"], "one row each, the container first");
        let [web, daemon] = &*snapshot.groups else { panic!() };
        assert_eq!((web.log_bytes_per_s, web.log_growth_bytes_per_s), (800.0, 700.0));
        assert_eq!((web.growth_bytes_per_s, web.charged_growth()), (100.0, 800.0));
        assert_eq!((daemon.growth_bytes_per_s, daemon.charged_growth()), (1_000.0, 300.0));
        // In the next interval, none of it is left.
        let mut quiet = fixtures::idle();
        history.update(&mut quiet, &[]);
        assert!(quiet.groups.iter().all(|row| row.charged_growth() == 0.0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = GroupHistory::default();
        for n in 0..MAX_ROWS + 100 {
            let mut snapshot = fixtures::idle();
            let mut writer = fixtures::writer(7, "job", "/", n as u64);
            writer.group = Some(Group { name: format!("{n:05}"), ..Group::default() });
            snapshot.writers = vec![writer];
            history.update(&mut snapshot, &[]);
        }
        assert_eq!(history.entries.len(), MAX_ROWS);
        assert!(history.entries.keys().all(|(group, _)| group.name.as_str() >= "00100"));
    }
}
