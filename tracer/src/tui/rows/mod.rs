//! Builds the rows of a table from a Snapshot: filtered, sorted, and expanded or collapsed.

mod identity;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tracer_model::snapshot::{GroupKind, Snapshot, Writer};

pub use self::identity::RowKey;
use super::state::{Sort, UiState, View, VolumeChoice};
use super::views;
use super::views::Value;

/// The item that a row shows: an index into the Snapshot, or into [`Rows::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the table it points into")]
pub enum Item {
    Writer(usize),
    Group(usize),
    Dir(usize),
    File(usize),
    Held(usize),
    Victim(usize),
}

/// Whether a row can be expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Nothing is below it.
    Leaf,
    /// Expanded: its children follow.
    Open,
    /// Collapsed: its children are hidden.
    Closed,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The item shown.
    pub item: Item,
    /// Depth in the tree, 0 at the top.
    pub depth: u8,
    /// Whether it is expanded, collapsed or a leaf.
    pub fold: Fold,
    /// Byte offset of the name in the path; the parent's row shows the part before it.
    pub name_from: usize,
}

/// Sums over the processes of a unit or container.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSum {
    /// The kind; `None` for processes without a group.
    pub kind: Option<GroupKind>,
    /// Name of the group; the process name for processes without a group.
    pub name: String,
    /// Path of its cgroup.
    pub cgroup: Option<String>,
    /// Indices of its writers in the Snapshot.
    pub members: Vec<usize>,
    /// Number of members that were running at the end of the window.
    pub alive: usize,
    /// Written bytes per second.
    pub written_bytes_per_s: f64,
    /// Growth, bytes per second.
    pub growth_bytes_per_s: f64,
    /// Share of the volume's growth.
    pub share: f64,
    /// Number of files; one that two members write counts twice.
    pub files: u64,
    /// Held space, bytes, of the members for which it is known; `None` if it is known for none.
    pub held_bytes: Option<u64>,
    /// Number of failed writes.
    pub errors: u64,
}

impl GroupSum {
    /// The name of its kind; `process` for processes without a group.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        self.kind.map_or("process", GroupKind::name)
    }
}

/// The Snapshot and the query settings from which rows were built.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    taken_at: Timestamp,
    interval: u64,
    lengths: [usize; 6],
    view: View,
    all: bool,
    focus: String,
    sort: Sort,
    filter: (String, bool),
    folds: (usize, Option<bool>),
}

/// The rows of one view.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    stamp: Option<Stamp>,
    /// In the order shown.
    pub rows: Vec<Row>,
    /// Sums per group, for the groups view.
    pub groups: Vec<GroupSum>,
    /// Number of rows of each view on the volume, unfiltered; 0 for groups, which are not counted.
    pub counts: [usize; 6],
}

impl Rows {
    /// Builds the rows for the view, volume, sort order, filter and folds in `state`.
    #[must_use]
    pub fn build(snapshot: &Snapshot, state: &UiState) -> Self {
        let mut rows = Self { stamp: Some(stamp(snapshot, state)), ..Self::default() };
        let here = |volume: &str| state.volume == VolumeChoice::All || volume == state.focus;
        rows.counts = [
            snapshot.writers.iter().filter(|row| here(&row.volume)).count(),
            0,
            snapshot.dirs.iter().filter(|row| here(&row.volume)).count(),
            snapshot.paths.iter().filter(|row| here(&row.volume)).count(),
            snapshot.held.iter().filter(|row| here(&row.volume)).count(),
            snapshot.victims.iter().filter(|row| here(&row.volume)).count(),
        ];
        match state.view {
            View::Groups => rows.group_rows(snapshot, state, here),
            View::Dirs if state.filter.is_empty() => rows.dir_tree(snapshot, state, here),
            _ => rows.flat(snapshot, state, here),
        }
        rows
    }

    /// Whether these rows were built from this Snapshot and the same query.
    #[must_use]
    pub fn fits(&self, snapshot: &Snapshot, state: &UiState) -> bool {
        self.stamp.as_ref() == Some(&stamp(snapshot, state))
    }

    fn flat(&mut self, snapshot: &Snapshot, state: &UiState, here: impl Fn(&str) -> bool) {
        let filter = &state.filter;
        let mut items: Vec<Item> = match state.view {
            View::Writers | View::Groups => (0..snapshot.writers.len())
                .filter(|&i| {
                    let writer = &snapshot.writers[i];
                    here(&writer.volume) && lets_writer(state, writer)
                })
                .map(Item::Writer)
                .collect(),
            View::Dirs => (0..snapshot.dirs.len())
                .filter(|&i| {
                    here(&snapshot.dirs[i].volume) && filter.lets([&*snapshot.dirs[i].path])
                })
                .map(Item::Dir)
                .collect(),
            View::Files => (0..snapshot.paths.len())
                .filter(|&i| {
                    let path = &snapshot.paths[i];
                    let inside = path.path_in_container.as_deref().unwrap_or("");
                    here(&path.volume) && filter.lets([&*path.path, inside])
                })
                .map(Item::File)
                .collect(),
            View::Held => (0..snapshot.held.len())
                .filter(|&i| {
                    let held = &snapshot.held[i];
                    let inside = held.path_in_container.as_deref().unwrap_or("");
                    let group = held.group.as_ref().map_or("", |group| &group.name);
                    here(&held.volume) && filter.lets([&*held.path, inside, &held.comm, group])
                })
                .map(Item::Held)
                .collect(),
            View::Victims => (0..snapshot.victims.len())
                .filter(|&i| {
                    here(&snapshot.victims[i].volume) && filter.lets([&*snapshot.victims[i].comm])
                })
                .map(Item::Victim)
                .collect(),
        };
        self.sort(snapshot, state.sort(), &mut items);
        self.rows = items
            .into_iter()
            .map(|item| Row { item, depth: 0, fold: Fold::Leaf, name_from: 0 })
            .collect();
    }

    /// Sorts `items`. Stable, so that equal rows keep the Snapshot's order.
    fn sort(&self, snapshot: &Snapshot, sort: Sort, items: &mut Vec<Item>) {
        let value = |item: Item| views::value(snapshot, self, item, sort.column);
        let mut valued: Vec<(Value<'_>, Item)> =
            items.iter().map(|&item| (value(item), item)).collect();
        valued.sort_by(|(a, _), (b, _)| {
            let order = match (a, b) {
                (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
                // Reversed: "descending" starts at A for text.
                (Value::Text(a), Value::Text(b)) => b.cmp(a),
                _ => Ordering::Equal,
            };
            if sort.descending { order.reverse() } else { order }
        });
        items.clear();
        items.extend(valued.into_iter().map(|(_, item)| item));
    }

    fn group_rows(&mut self, snapshot: &Snapshot, state: &UiState, here: impl Fn(&str) -> bool) {
        let mut by_name: HashMap<(Option<GroupKind>, &str), usize> = HashMap::new();
        for (i, writer) in snapshot.writers.iter().enumerate() {
            if !here(&writer.volume) || !lets_writer(state, writer) {
                continue;
            }
            let (kind, name) = group_name(writer);
            let at = *by_name.entry((kind, name)).or_insert_with(|| {
                self.groups.push(GroupSum {
                    kind,
                    name: name.to_owned(),
                    cgroup: writer.group.as_ref().and_then(|group| group.cgroup.clone()),
                    members: vec![],
                    alive: 0,
                    written_bytes_per_s: 0.0,
                    growth_bytes_per_s: 0.0,
                    share: 0.0,
                    files: 0,
                    held_bytes: None,
                    errors: 0,
                });
                self.groups.len() - 1
            });
            let group = &mut self.groups[at];
            group.members.push(i);
            group.alive += usize::from(writer.alive);
            group.written_bytes_per_s += writer.written_bytes_per_s;
            group.growth_bytes_per_s += writer.growth_bytes_per_s;
            group.share += writer.share;
            group.files = group.files.saturating_add(writer.files);
            group.errors = group.errors.saturating_add(writer.errors.total());
            if let Some(held) = writer.held_bytes {
                let sum = group.held_bytes.get_or_insert(0);
                *sum = sum.saturating_add(held);
            }
        }
        let mut items: Vec<Item> = (0..self.groups.len()).map(Item::Group).collect();
        self.sort(snapshot, state.sort(), &mut items);
        for item in items {
            let Item::Group(at) = item else { continue };
            let open = state.is_open(&group_fold(&self.groups[at]), false);
            let fold = if open { Fold::Open } else { Fold::Closed };
            self.rows.push(Row { item, depth: 0, fold, name_from: 0 });
            if open {
                let mut members: Vec<Item> =
                    self.groups[at].members.iter().map(|&i| Item::Writer(i)).collect();
                self.sort(snapshot, state.sort(), &mut members);
                self.rows.extend(members.into_iter().map(|item| Row {
                    item,
                    depth: 1,
                    fold: Fold::Leaf,
                    name_from: 0,
                }));
            }
        }
    }

    fn dir_tree(&mut self, snapshot: &Snapshot, state: &UiState, here: impl Fn(&str) -> bool) {
        let dirs = &snapshot.dirs;
        let known: HashMap<&str, usize> = (0..dirs.len())
            .filter(|&i| here(&dirs[i].volume))
            .map(|i| (dirs[i].path.as_str(), i))
            .collect();
        let mut below: HashMap<usize, Vec<Item>> = HashMap::new();
        let mut roots: Vec<Item> = vec![];
        for (&path, &i) in &known {
            let parent = ancestors(path).find_map(|above| known.get(above).copied());
            match parent {
                Some(parent) => below.entry(parent).or_default().push(Item::Dir(i)),
                None => roots.push(Item::Dir(i)),
            }
        }
        // The order of a hash map is random: let equal rows keep the Snapshot's order instead.
        let place = |item: &Item| if let Item::Dir(i) = item { *i } else { 0 };
        let ordered = |rows: &Self, mut items: Vec<Item>| {
            items.sort_by_key(place);
            rows.sort(snapshot, state.sort(), &mut items);
            items.reverse();
            items
        };
        // The ancestors of the hottest directories, which the user wants to see.
        let hot = known.values().filter(|&&i| dirs[i].hot);
        let leads: HashSet<&str> = hot.flat_map(|&i| ancestors(&dirs[i].path)).collect();
        let mut todo: Vec<(Item, u8, usize)> =
            ordered(self, roots).into_iter().map(|item| (item, 0, 0)).collect();
        while let Some((item, depth, name_from)) = todo.pop() {
            let Item::Dir(i) = item else { continue };
            let children = below.remove(&i).unwrap_or_default();
            // By default, expand down to the hottest directories, or else the first two levels.
            let by_default =
                if leads.is_empty() { depth < 2 } else { leads.contains(&*dirs[i].path) };
            let open = state.is_open(&dirs[i].path, by_default);
            let fold = match (children.is_empty(), open) {
                (true, _) => Fold::Leaf,
                (false, true) => Fold::Open,
                (false, false) => Fold::Closed,
            };
            self.rows.push(Row { item, depth, fold, name_from });
            if fold == Fold::Open {
                let from = if dirs[i].path == "/" { 1 } else { dirs[i].path.len() + 1 };
                let children = ordered(self, children).into_iter();
                todo.extend(children.map(|child| (child, depth.saturating_add(1), from)));
            }
        }
    }
}

fn stamp(snapshot: &Snapshot, state: &UiState) -> Stamp {
    Stamp {
        taken_at: snapshot.taken_at,
        interval: snapshot.interval_s.to_bits(),
        lengths: [
            snapshot.volumes.len(),
            snapshot.writers.len(),
            snapshot.dirs.len(),
            snapshot.paths.len(),
            snapshot.held.len(),
            snapshot.victims.len(),
        ],
        view: state.view,
        all: state.volume == VolumeChoice::All,
        focus: state.focus.clone(),
        sort: state.sort(),
        filter: (state.filter.text().to_owned(), state.filter.is_regex()),
        folds: (state.fold_changes, state.fold_all),
    }
}

/// Kind and name of a writer's group; for a process without one, its own name.
fn group_name(writer: &Writer) -> (Option<GroupKind>, &str) {
    match &writer.group {
        Some(group) => (Some(group.kind), &group.name),
        None => (None, &writer.comm),
    }
}

fn group_fold(group: &GroupSum) -> String {
    // A path starts with a slash, so no directory has this name.
    format!("{} {}", group.kind_name(), group.name)
}

/// The directories above `path`, nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut at = if path == "/" { None } else { Some(path) };
    std::iter::from_fn(move || {
        let path = at?;
        let cut = path.rfind('/')?;
        let above = if cut == 0 { "/" } else { &path[..cut] };
        at = (above != "/").then_some(above);
        Some(above)
    })
}

fn lets_writer(state: &UiState, writer: &Writer) -> bool {
    if state.filter.is_empty() {
        return true;
    }
    let pid = writer.pid.to_string();
    let group = writer.group.as_ref().map_or("", |group| &*group.name);
    state.filter.lets([
        &*writer.comm,
        writer.cmdline.as_deref().unwrap_or(""),
        writer.user.as_deref().unwrap_or(""),
        group,
        &*pid,
    ])
}
