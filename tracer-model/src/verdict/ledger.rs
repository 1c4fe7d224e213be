//! The ledger of one volume: what each process took of its space and its inodes, interval by
//! interval, for up to a quarter of an hour.
//!
//! Sums over a window are exact: the change of the volume, the net growth of each process, and what
//! remains unexplained, are of the same intervals. While the volume is full and nothing changes, no
//! interval is added, so that the window that led to the full volume stays.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use jiff::Timestamp;

use super::window::{Amounts, MemberId, Slice, Window, index};
use crate::snapshot::{Ended, Group, GroupKind, Resource, Snapshot, Volume, Writer, space_is_late};

/// The ledger reaches back this many seconds in which the volume was not at rest and full.
const MAX_AGE_S: f64 = 900.0;
/// Intervals of the last minute keep their own slice; older ones are merged...
const FINE_SLICES: usize = 60;
/// ... into slices of this length, seconds.
const COARSE_S: f64 = 15.0;
/// Maximum number of processes with sums of their own in one slice; the others are summed up by group.
const MAX_PROCESSES: usize = 64;
/// Maximum number of groups with such a sum.
const MAX_GROUPS: usize = 64;
/// An interval in which less changes than this is idle, bytes per second.
const IDLE_BYTES_PER_S: f64 = 64.0 * 1024.0;
/// The same for inodes, per second.
const IDLE_INODES_PER_S: f64 = 1.0;
/// A process whose start time differs by at least this, seconds, is another one with a reused pid.
/// Smaller differences come from the clock: start times are wall-clock times.
const REUSED_PID_S: f64 = 1.0;
/// If one interval frees more than this share of what its processes had taken within the last
/// seconds, they have cleaned up.
const CLEANUP_SHARE: f64 = 0.5;
/// Length of those last seconds.
const CLEANUP_WINDOW_S: f64 = 20.0;
/// Less than this is not worth calling a clean-up, bytes.
const MIN_CLEANUP_BYTES: f64 = 1024.0 * 1024.0;
/// The row of an interval in which a writer was much slower replaces a kept one only after this
/// time, seconds: a writer is not slow because the volume has just become full.
const SLOW_ROW_S: f64 = 10.0;

/// Identifies a group: kind, name and, for a container, its id.
pub type GroupKey = (GroupKind, String, String);

/// The key of a group. The mount namespace is left out, because it may differ between its processes.
#[must_use]
pub fn group_key(group: &Group) -> GroupKey {
    (group.kind, group.name.clone(), group.container_id().unwrap_or_default().to_owned())
}

/// What is remembered of a process.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its row of the interval in which it was last about as fast as ever.
    pub(super) row: Writer,
    /// The container whose log it wrote.
    pub(super) behalf: Option<Group>,
    /// The directory that it filled.
    pub(super) directory: Option<String>,
    /// Whether it stands for all processes of its group that have no sums of their own; `row` is that of
    /// one of them.
    pub(super) is_rest: bool,
    rate: f64,
    at_s: f64,
}

impl Member {
    /// The group that its growth is charged to.
    pub(super) fn charged_group(&self) -> Option<&Group> {
        self.behalf.as_ref().or(self.row.group.as_ref())
    }
}

/// What the processes took before they cleaned up.
#[derive(Debug, Clone)]
struct BeforeCleanup {
    windows: [Window; 2],
    age_s: f64,
}

/// The ledger of one volume.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    slices: VecDeque<Slice>,
    members: HashMap<MemberId, Member>,
    ids: HashMap<(u32, Option<GroupKey>), MemberId>,
    next_id: MemberId,
    now_s: f64,
    /// Number of members above which those that are no longer needed are dropped.
    forget_above: usize,
    before_cleanup: Option<BeforeCleanup>,
    is_late: bool,
}

impl Ledger {
    /// Adds an interval of `length_s` seconds. `writers` are the volume's, largest growth first.
    pub(super) fn add(&mut self, length_s: f64, volume: &Volume, writers: &[&Writer]) {
        self.now_s += length_s;
        self.is_late = space_is_late(&volume.fs_type);
        let mut slice = Slice {
            length_s,
            change: [volume.used_delta_bytes as f64, volume.inodes_delta as f64],
            ..Slice::default()
        };
        let mut groups = HashSet::new();
        let mut processes = 0;
        for row in writers {
            for (behalf, amounts) in parts(row, length_s) {
                let known = self.ids.contains_key(&(row.pid, behalf.as_ref().map(group_key)));
                let takes = amounts.iter().any(|net| *net > 0.0);
                if (known || takes) && processes < MAX_PROCESSES {
                    processes += 1;
                    let id = self.member(row, behalf, amounts[0] / length_s.max(1e-3));
                    let sum = slice.taken.entry(id).or_default();
                    (0..2).for_each(|at| sum[at] += amounts[at]);
                } else if let Some(id) = self.rest(row, behalf, &mut groups) {
                    let sum = slice.taken.entry(id).or_default();
                    (0..2).for_each(|at| sum[at] += amounts[at]);
                } else {
                    (0..2).for_each(|at| slice.others[at] += amounts[at]);
                    slice.other_processes += 1;
                }
            }
        }
        if let Some(before) = &mut self.before_cleanup {
            before.age_s += length_s;
        }
        self.note_cleanup(&slice);
        if volume.full && is_idle(&slice) {
            return;
        }
        self.push(slice);
        // Only now and then: it looks at all slices.
        if self.members.len() > self.forget_above {
            self.forget();
            self.forget_above = 2 * self.members.len().max(MAX_PROCESSES);
        }
    }

    /// The process with this id.
    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// What the processes of one user took, as if nobody else had taken anything.
    pub(super) fn of_user(&self, window: Window, user: &str) -> Window {
        let is_theirs = |id: MemberId| {
            self.get(id).is_some_and(|member| member.row.user.as_deref() == Some(user))
        };
        let taken: Vec<_> = window.taken.into_iter().filter(|(id, _)| is_theirs(*id)).collect();
        let change = taken.iter().map(|(_, net)| net).sum();
        Window { taken, change, others: 0.0, ..window }
    }

    /// Remembers the directory that a process fills.
    pub(super) fn set_directory(&mut self, id: MemberId, directory: String) {
        if let Some(member) = self.members.get_mut(&id) {
            member.directory = Some(directory);
        }
    }

    /// Length of the ledger, seconds.
    pub(super) fn length_s(&self) -> f64 {
        self.slices.iter().map(|slice| slice.length_s).sum()
    }

    /// The sums of the last `length_s` seconds, or of the whole ledger if it is shorter; whole slices
    /// only. If the processes have cleaned up since, and nothing as large has grown afterwards, those
    /// from before the clean-up.
    pub(super) fn window(&self, length_s: f64, resource: Resource) -> Window {
        let mut windows = self.windows(&[length_s], resource);
        windows.pop().unwrap_or_else(|| Slice::default().window(resource, self.is_late))
    }

    /// The same for several lengths, shortest first, which are longer than the ledger at most once.
    pub(super) fn windows(&self, lengths_s: &[f64], resource: Resource) -> Vec<Window> {
        let mut windows = self.present(lengths_s, resource);
        if let Some(before) = &self.before_cleanup {
            let before = &before.windows[index(resource)];
            let gains = before.gains();
            for window in windows.iter_mut().filter(|window| gains > window.gains()) {
                *window = before.clone();
            }
        }
        windows
    }

    /// The sums of the last seconds, whatever was before.
    fn present(&self, lengths_s: &[f64], resource: Resource) -> Vec<Window> {
        let mut lengths = lengths_s.iter().copied().peekable();
        let mut windows = Vec::with_capacity(lengths_s.len());
        let mut sum = Slice::default();
        // Length of the idle slices at the beginning: what happened began after them.
        let mut idle_s = 0.0;
        for slice in self.slices.iter().rev() {
            // Half a slice more is still "the last N seconds".
            while lengths.peek().is_some_and(|length_s| {
                sum.length_s > 0.0 && sum.length_s + 0.5 * slice.length_s > *length_s
            }) {
                windows.push(sum.window(resource, self.is_late).without(idle_s));
                lengths.next();
            }
            if lengths.peek().is_none() {
                return windows;
            }
            sum.merge(slice);
            idle_s = if is_idle(slice) { idle_s + slice.length_s } else { 0.0 };
        }
        windows.push(sum.window(resource, self.is_late).without(idle_s));
        windows
    }

    /// The id of the rest of the process's group; `None` if it has none, or there are too many. `groups`
    /// are those of this slice.
    fn rest(
        &mut self,
        row: &Writer,
        behalf: Option<Group>,
        groups: &mut HashSet<GroupKey>,
    ) -> Option<MemberId> {
        /// No process has this number.
        const NO_PID: u32 = 0;
        let group = group_key(behalf.as_ref().or(row.group.as_ref())?);
        if !groups.contains(&group) && groups.len() == MAX_GROUPS {
            return None;
        }
        groups.insert(group.clone());
        let key = (NO_PID, Some(group));
        if let Some(id) = self.ids.get(&key).copied()
            && let Some(member) = self.members.get_mut(&id)
        {
            // One that still runs stands for the others.
            if row.alive || !member.row.alive {
                member.row = row.clone();
            }
            return Some(id);
        }
        let id = self.next_id;
        self.next_id += 1;
        let (rate, at_s) = (0.0, self.now_s);
        let member =
            Member { row: row.clone(), behalf, directory: None, is_rest: true, rate, at_s };
        self.members.insert(id, member);
        self.ids.insert(key, id);
        Some(id)
    }

    /// The id of a process, new if it is not known yet or its pid is that of another process now.
    fn member(&mut self, row: &Writer, behalf: Option<Group>, rate: f64) -> MemberId {
        let key = (row.pid, behalf.as_ref().map(group_key));
        if let Some(id) = self.ids.get(&key).copied()
            && let Some(member) = self.members.get_mut(&id)
        {
            let apart = row.start_time.duration_since(member.row.start_time);
            if apart.as_secs_f64().abs() < REUSED_PID_S {
                let is_slow = rate < 0.5 * member.rate && self.now_s - member.at_s < SLOW_ROW_S;
                if rate > 0.0 && !is_slow {
                    (member.row, member.rate, member.at_s) = (row.clone(), rate, self.now_s);
                }
                member.row.alive = row.alive;
                member.row.comm.clone_from(&row.comm);
                return id;
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(key, id);
        let row = row.clone();
        let (directory, at_s) = (None, self.now_s);
        let member = Member { row, behalf, directory, is_rest: false, rate, at_s };
        self.members.insert(id, member);
        id
    }

    /// Keeps the sums from before this slice, if it frees most of what its processes had taken: a
    /// program that runs out of space removes its files as it exits.
    fn note_cleanup(&mut self, slice: &Slice) {
        if slice.taken.values().all(|net| net[0] >= 0.0) && self.before_cleanup.is_none() {
            return;
        }
        let recent = |resource| {
            let mut windows = self.present(&[CLEANUP_WINDOW_S], resource);
            windows.pop().unwrap_or_else(|| Slice::default().window(resource, self.is_late))
        };
        let (recent, inodes) = (recent(Resource::Bytes), recent(Resource::Inodes));
        let taken: BTreeMap<MemberId, f64> = recent.taken.iter().copied().collect();
        let freed: f64 = slice
            .taken
            .iter()
            .map(|(id, net)| (-net[0]).clamp(0.0, taken.get(id).copied().unwrap_or(0.0).max(0.0)))
            .sum();
        let gains: f64 = recent.taken.iter().map(|(_, net)| net.max(0.0)).sum();
        if freed > (CLEANUP_SHARE * gains).max(MIN_CLEANUP_BYTES) {
            self.before_cleanup = Some(BeforeCleanup { windows: [recent, inodes], age_s: 0.0 });
            self.slices.clear();
        }
        if self.before_cleanup.as_ref().is_some_and(|before| before.age_s > MAX_AGE_S) {
            self.before_cleanup = None;
        }
    }

    fn push(&mut self, slice: Slice) {
        self.slices.push_back(slice);
        // Merge what has become old into the coarse slice before it.
        if self.slices.len() > FINE_SLICES {
            let fine_from = self.slices.len() - FINE_SLICES;
            if fine_from >= 2
                && self.slices[fine_from - 2].length_s + self.slices[fine_from - 1].length_s
                    <= COARSE_S
                && let Some(newer) = self.slices.remove(fine_from - 1)
            {
                self.slices[fine_from - 2].merge(&newer);
            }
        }
        let mut length_s = self.length_s();
        while length_s > MAX_AGE_S
            && let Some(oldest) = self.slices.pop_front()
        {
            length_s -= oldest.length_s;
        }
    }

    /// Drops processes that are in no slice any more.
    fn forget(&mut self) {
        let before = self.before_cleanup.iter().flat_map(|before| &before.windows);
        let kept: HashSet<MemberId> = self
            .slices
            .iter()
            .flat_map(|slice| slice.taken.keys().copied())
            .chain(before.flat_map(|window| window.taken.iter().map(|(id, _)| *id)))
            .collect();
        self.members.retain(|id, _| kept.contains(id));
        self.ids.retain(|_, id| kept.contains(id));
    }

    /// Updates which of the remembered processes still run, from rows of any volume and from those
    /// that ended without one.
    pub(super) fn note_ended(&mut self, snapshot: &Snapshot) {
        let with_row = snapshot.writers.iter().filter(|row| !row.alive);
        let with_row = with_row.map(|row| Ended { pid: row.pid, start_time: row.start_time });
        let ended: HashMap<u32, Timestamp> = with_row
            .chain(snapshot.ended.iter().copied())
            .map(|one| (one.pid, one.start_time))
            .collect();
        if ended.is_empty() {
            return;
        }
        for member in self.members.values_mut() {
            let Some(start_time) = ended.get(&member.row.pid) else { continue };
            let apart = start_time.duration_since(member.row.start_time);
            if apart.as_secs_f64().abs() < REUSED_PID_S {
                member.row.alive = false;
            }
        }
    }
}

/// Splits what a process took into its own part and those of the containers whose logs it wrote.
fn parts(row: &Writer, length_s: f64) -> Vec<(Option<Group>, Amounts)> {
    let inodes = row.inodes_created.unwrap_or(0) as f64 - row.inodes_removed.unwrap_or(0) as f64;
    let mut own = [row.growth_bytes_per_s * length_s, inodes];
    let mut parts = Vec::new();
    for log in &row.on_behalf_of {
        let bytes = log.growth_bytes_per_s * length_s;
        own[0] -= bytes;
        parts.push((Some(log.group.clone()), [bytes, 0.0]));
    }
    parts.push((None, own));
    parts
}

fn is_idle(slice: &Slice) -> bool {
    let limits = [IDLE_BYTES_PER_S * slice.length_s, IDLE_INODES_PER_S * slice.length_s];
    let moved = |at: usize| {
        let named = slice.taken.values().map(|net| net[at].abs()).fold(0.0, f64::max);
        named.max(slice.change[at].abs()).max(slice.others[at].abs())
    };
    (0..2).all(|at| moved(at) < limits[at])
}
