//! Sums intervals into counters that only go up, for a bounded number of label values.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_model::sanitize;
use tracer_model::snapshot::{GroupKind, Snapshot, WriteErrors};

/// Maximum width of a label, columns. Longer ones are cut; those that become equal are summed.
const MAX_LABEL: usize = 200;
/// Maximum number of volumes with series of their own, those closest to full first.
pub const MAX_VOLUMES: usize = 256;
/// Maximum number of declared directories.
pub const MAX_DIRECTORIES: usize = 64;
/// Half-life of a group's written bytes when groups compete for slots, seconds.
const HALF_LIFE_S: f64 = 300.0;

/// Bytes and errors since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Bytes written.
    pub written: u64,
    /// Bytes allocated; `None` where space is not traced.
    pub allocated: Option<u64>,
    /// Bytes freed; `None` where space is not traced.
    pub freed: Option<u64>,
    /// Failed writes by error.
    pub errors: WriteErrors,
}

impl Sums {
    fn add(&mut self, more: &Self) {
        let add_known = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
            (None, None) => None,
            (sum, more) => Some(sum.unwrap_or(0).saturating_add(more.unwrap_or(0))),
        };
        self.written = self.written.saturating_add(more.written);
        self.allocated = add_known(self.allocated, more.allocated);
        self.freed = add_known(self.freed, more.freed);
        self.errors.enospc += more.errors.enospc;
        self.errors.edquot += more.errors.edquot;
        self.errors.eio += more.errors.eio;
        self.errors.other += more.errors.other;
    }
}

/// Labels of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Display name of the group; `other` for all groups without a slot of their own.
    pub group: String,
    /// `unit`, `docker`, … as in the JSON; `other`, or `unknown` for writers without a known group.
    pub kind: String,
    /// Mount point of the volume.
    pub volume: String,
}

/// The numbers of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GroupSums {
    /// Sums since the group got its slot.
    pub sums: Sums,
    /// Growth over the last interval, bytes per second.
    pub growth: f64,
    /// Processes that wrote in the last interval.
    pub writers: u64,
    /// Bytes written lately, decaying; the group with the least may lose its slot.
    recent: f64,
}

/// The numbers of a declared directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DirectorySums {
    /// Mount point of its volume; empty until something was written to it.
    pub volume: String,
    /// Space allocated below it since the start, bytes.
    pub inflow: f64,
    /// Space freed below it since the start, bytes.
    pub outflow: f64,
}

/// All sums.
#[derive(Debug, Default)]
pub struct Totals {
    max_groups: usize,
    /// Volumes, by mount point.
    pub volumes: BTreeMap<String, Sums>,
    /// Groups with a slot, and the rest (`other`) of each volume.
    pub groups: BTreeMap<GroupKey, GroupSums>,
    /// Declared directories, by path.
    pub directories: BTreeMap<String, DirectorySums>,
    /// Bytes that could not be attributed.
    pub unattributed: u64,
    /// Number of Snapshots added.
    pub snapshots: u64,
}

impl Totals {
    /// Creates sums for at most `max_groups` groups (a group on two volumes takes two slots) and these
    /// directories.
    #[must_use]
    pub fn new(max_groups: usize, directories: &[String]) -> Self {
        let declared = directories.iter().take(MAX_DIRECTORIES);
        Self {
            max_groups: max_groups.max(1),
            directories: declared.map(|path| (path.clone(), DirectorySums::default())).collect(),
            ..Self::default()
        }
    }

    /// Adds one interval.
    pub fn add(&mut self, snapshot: &Snapshot) {
        self.snapshots += 1;
        self.unattributed = self.unattributed.saturating_add(snapshot.backend.unattributed_bytes);
        let labels: HashMap<&str, String> = snapshot
            .volumes
            .iter()
            .take(MAX_VOLUMES)
            .map(|volume| (&*volume.mount_point, label(&volume.mount_point)))
            .collect();
        let present: HashSet<&String> = labels.values().collect();
        self.volumes.retain(|volume, _| present.contains(volume));
        self.groups.retain(|key, _| present.contains(&key.volume));
        let mut errors: HashMap<&str, Sums> = HashMap::new();
        for writer in &snapshot.writers {
            let more = Sums { errors: writer.errors, ..Sums::default() };
            errors.entry(&writer.volume).or_default().add(&more);
        }
        for volume in &snapshot.volumes {
            let Some(name) = labels.get(&*volume.mount_point) else { continue };
            self.volumes.entry(name.clone()).or_default().add(&Sums {
                written: volume.written_bytes,
                allocated: volume.allocated_bytes,
                freed: volume.freed_bytes,
                errors: errors.get(&*volume.mount_point).copied().unwrap_or_default().errors,
            });
        }
        self.add_groups(snapshot, &labels);
        for (path, sums) in &mut self.directories {
            if let Some(row) = snapshot.dirs.iter().find(|row| row.path == *path) {
                sums.volume = label(&row.volume);
                sums.inflow += row.inflow_bytes_per_s * snapshot.interval_s;
                sums.outflow += row.outflow_bytes_per_s * snapshot.interval_s;
            }
        }
    }

    fn add_groups(&mut self, snapshot: &Snapshot, labels: &HashMap<&str, String>) {
        let mut interval: HashMap<GroupKey, GroupSums> = HashMap::new();
        for writer in &snapshot.writers {
            let Some(volume) = labels.get(&*writer.volume) else { continue };
            let (kind, group) = writer.group.as_ref().map_or(("unknown", String::new()), |group| {
                (group.kind.name(), display_name(group))
            });
            let key = GroupKey { group, kind: kind.to_owned(), volume: volume.clone() };
            let row = interval.entry(key).or_default();
            row.sums.add(&Sums {
                written: writer.written_bytes,
                allocated: writer.allocated_bytes,
                freed: writer.freed_bytes,
                errors: writer.errors,
            });
            row.growth += writer.growth_bytes_per_s;
            row.writers += 1;
            row.recent += writer.written_bytes as f64;
        }
        let decay = 0.5_f64.powf(snapshot.interval_s.max(0.0) / HALF_LIFE_S);
        for slot in self.groups.values_mut() {
            (slot.growth, slot.writers) = (0.0, 0);
            slot.recent *= decay;
        }
        let mut newcomers = Vec::new();
        for (key, added) in &interval {
            match self.groups.get_mut(key) {
                Some(slot) => slot.recent += added.recent,
                None => newcomers.push((added.recent, key.clone())),
            }
        }
        newcomers.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (recent, key) in newcomers {
            if self.make_slot(recent) {
                self.groups.insert(key, GroupSums { recent, ..GroupSums::default() });
            }
        }
        // Only now: a slot filled here stays until the next interval.
        for (key, added) in interval {
            let key = if self.groups.contains_key(&key) { key } else { other_of(key.volume) };
            let slot = self.groups.entry(key).or_default();
            slot.sums.add(&added.sums);
            slot.growth += added.growth;
            slot.writers += added.writers;
        }
    }

    /// Makes a slot for a group that wrote this much: a free one, or that of the group that wrote
    /// least lately, if that is less. Returns whether there is one.
    fn make_slot(&mut self, recent: f64) -> bool {
        let own = || self.groups.iter().filter(|(key, _)| !is_other(key));
        if own().count() < self.max_groups {
            return true;
        }
        let least = own().min_by(|a, b| a.1.recent.total_cmp(&b.1.recent));
        let Some((least, _)) = least.filter(|(_, slot)| slot.recent < recent) else {
            return false;
        };
        let least = least.clone();
        self.groups.remove(&least);
        true
    }
}

fn other_of(volume: String) -> GroupKey {
    GroupKey { group: "other".to_owned(), kind: "other".to_owned(), volume }
}

fn is_other(key: &GroupKey) -> bool {
    key.kind == "other"
}

/// A group's name without a pid: a terminal session is named `bash[1234]`, which would create a
/// series per login.
fn display_name(group: &tracer_model::snapshot::Group) -> String {
    let name = &*group.name;
    let short = (group.kind == GroupKind::Session)
        .then(|| name.strip_suffix(']')?.rsplit_once('['))
        .flatten()
        .filter(|(_, pid)| pid.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(name, |(short, _)| short);
    label(short)
}

/// Makes a name fit for a label value: deceptive characters are escaped, and the length is limited.
#[must_use]
pub fn label(name: &str) -> String {
    let shown = sanitize::display(name);
    sanitize::truncate(&shown, MAX_LABEL, sanitize::Charset::Unicode).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tracer_model::fixtures;

    fn key(group: &str, kind: &str, volume: &str) -> GroupKey {
        GroupKey { group: group.to_owned(), kind: kind.to_owned(), volume: volume.to_owned() }
    }

    #[test]
    fn intervals_add_up() {
        let mut totals = Totals::new(50, &["/srv/store/pg".to_owned(), "/quiet".to_owned()]);
        for _ in 0..3 {
            totals.add(&fixtures::busy());
        }
        let store = &totals.volumes["/srv/store"];
        assert_eq!(store.written, 3 * (560 << 20));
        assert_eq!((store.freed, store.errors.enospc), (Some(3 * (28 << 20)), 6));
        let minio = &totals.groups[&key("minio.service", "unit", "/srv/store")];
        assert_eq!((minio.sums.written, minio.writers), (3 * (500 << 20), 1));
        let unknown = &totals.groups[&key("", "unknown", "/")];
        assert_eq!((unknown.sums.written, unknown.sums.allocated), (3 * (3 << 20), None));
        let pg = &totals.directories["/srv/store/pg"];
        assert_eq!((pg.inflow, &*pg.volume), (3.0 * 40.0 * f64::from(1 << 20), "/srv/store"));
        assert_eq!(totals.directories["/quiet"].inflow, 0.0);
        assert_eq!(totals.snapshots, 3);
    }

    #[test]
    fn a_newcomer_that_writes_more_gets_the_slot_of_the_quietest() {
        let mut totals = Totals::new(2, &[]);
        let window = |rows: &[(&str, u64)]| {
            let mut snapshot = fixtures::idle();
            snapshot.writers = (1..)
                .zip(rows)
                .map(|(pid, (name, written))| fixtures::writer(pid, name, "/", *written))
                .collect();
            snapshot
        };
        totals.add(&window(&[("a", 100), ("b", 50), ("c", 10)]));
        let written = |totals: &Totals, name: &str| {
            let of_unit = |key: &GroupKey| key.group == format!("{name}.service");
            let found = totals.groups.iter().find(|(key, _)| of_unit(key) || key.group == name);
            found.map(|(_, row)| row.sums.written)
        };
        assert_eq!(written(&totals, "c"), None);
        assert_eq!(written(&totals, "other"), Some(10));
        // The runaway is named immediately; bytes from before it had a slot stay in `other`.
        totals.add(&window(&[("c", 1000)]));
        assert_eq!(written(&totals, "c"), Some(1000));
        assert_eq!(written(&totals, "b"), None);
        assert_eq!(written(&totals, "other"), Some(10));
        assert_eq!(totals.groups[&key("a.service", "unit", "/")].writers, 0);
    }

    #[test]
    fn no_pid_becomes_a_label() {
        let group = |kind, name: &str| tracer_model::snapshot::Group {
            kind,
            name: name.to_owned(),
            ..Default::default()
        };
        assert_eq!(display_name(&group(GroupKind::Session, "bash[1234]")), "bash");
        assert_eq!(display_name(&group(GroupKind::Session, "odd[12a]")), "odd[12a]");
        assert_eq!(display_name(&group(GroupKind::Unit, "x[1].service")), "x[1].service");
        assert_eq!(display_name(&group(GroupKind::Unit, "a\u{202e}\n")), "a\\u{202e}\\n");
        assert_eq!(label(&"x".repeat(5000)).chars().count(), MAX_LABEL);
    }

    proptest! {
        /// Whatever groups come and go: their number is bounded, a counter goes down only when its
        /// slot is lost, and every byte of an interval is in some series.
        #[test]
        fn counters_only_go_up(
            windows in prop::collection::vec(
                prop::collection::vec((0u32..12, 0u64..1000), 0..12), 1..30),
        ) {
            let mut totals = Totals::new(4, &[]);
            for rows in windows {
                let before = totals.groups.clone();
                let mut snapshot = fixtures::idle();
                let name = |n: &u32| format!("g{n}");
                snapshot.writers = rows
                    .iter()
                    .map(|(n, written)| fixtures::writer(*n, &name(n), "/", *written))
                    .collect();
                totals.add(&snapshot);
                prop_assert!(totals.groups.len() <= 5);
                let mut more = 0;
                for (key, row) in &totals.groups {
                    let earlier = before.get(key).map_or(0, |row| row.sums.written);
                    prop_assert!(row.sums.written >= earlier);
                    more += row.sums.written - earlier;
                }
                prop_assert_eq!(more, rows.iter().map(|(_, written)| written).sum::<u64>());
            }
        }
    }
}
