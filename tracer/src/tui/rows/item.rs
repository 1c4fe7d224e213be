//! A row, and what it shows.

use tracer_model::snapshot::{GroupKind, Writer};

/// The item that a row shows: an index into the table of the Snapshot that the variant names, or
/// into the sums per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl Row {
    /// A row without children, at this depth.
    pub(super) const fn leaf(item: Item, depth: u8) -> Self {
        Self { item, depth, fold: Fold::Leaf, name_from: 0 }
    }
}

/// Sums over the processes of a unit or container.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// An empty sum for the group of `writer`.
    pub(super) fn new(writer: &Writer) -> Self {
        let (kind, name) = group_of(writer);
        Self {
            kind,
            name: name.to_owned(),
            cgroup: writer.group.as_ref().and_then(|group| group.cgroup.clone()),
            ..Self::default()
        }
    }

    /// Adds the writer at `index` in the Snapshot.
    pub(super) fn add(&mut self, index: usize, writer: &Writer) {
        self.members.push(index);
        self.alive += usize::from(writer.alive);
        self.written_bytes_per_s += writer.written_bytes_per_s;
        self.growth_bytes_per_s += writer.growth_bytes_per_s;
        self.share += writer.share;
        self.files = self.files.saturating_add(writer.files);
        self.errors = self.errors.saturating_add(writer.errors.total());
        if let Some(held) = writer.held_bytes {
            let sum = self.held_bytes.get_or_insert(0);
            *sum = sum.saturating_add(held);
        }
    }

    /// The name of its kind; `process` for processes without a group.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        self.kind.map_or("process", GroupKind::name)
    }

    /// The name under which its fold is stored. A path starts with a slash, so no directory has
    /// this name.
    pub(super) fn fold_name(&self) -> String {
        format!("{} {}", self.kind_name(), self.name)
    }
}

/// Kind and name of a writer's group; for a process without one, its own name.
pub(super) fn group_of(writer: &Writer) -> (Option<GroupKind>, &str) {
    match &writer.group {
        Some(group) => (Some(group.kind), &group.name),
        None => (None, &writer.comm),
    }
}
