//! Traffic per directory, rolled up, in bounded memory.
//!
//! Each amount is added to its directory and to all its ancestors immediately. So the sum of a
//! directory stays exact however many directories below it are evicted. A directory that was itself
//! evicted, as one of the quietest, starts from zero when it reappears.

#[cfg(test)]
mod tests;
mod turnover;

use std::collections::HashMap;

pub use turnover::{Birth, Turnover};

/// Most directories kept, some 120 bytes each; beyond that the quietest leaves are evicted.
pub const MAX_DIRECTORIES: usize = 65_536;
/// Deepest directory level kept; traffic below it counts for that level.
const MAX_DEPTH: usize = 128;
/// A directory is hot if it has this share of all traffic, not counting hot directories below it.
const HOT_SHARE: f64 = 0.2;
/// Number of top-level directories reported instead of the root when no directory is hot.
const MAX_SUBSTITUTES: usize = 5;
/// Bytes that a created or removed file counts for in the choice of hot directories: its inode and
/// its directory entry, so that a storm of empty files is hot, too.
const FILE_COST: u64 = 512;

/// The changes in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes allocated.
    pub inflow: u64,
    /// Bytes freed.
    pub outflow: u64,
    /// Files created.
    pub created: u64,
    /// Files removed.
    pub removed: u64,
}

impl Traffic {
    /// Adds other traffic to this.
    pub const fn add(&mut self, other: &Self) {
        self.inflow += other.inflow;
        self.outflow += other.outflow;
        self.created += other.created;
        self.removed += other.removed;
    }

    /// Weight in the choice of hot directories, bytes.
    const fn heat(&self) -> u64 {
        self.inflow + self.outflow + FILE_COST * (self.created + self.removed)
    }
}

#[derive(Debug, Default)]
struct Node {
    name: Box<[u8]>,
    parent: usize,
    /// Traffic, including all directories below.
    sum: Traffic,
    children: usize,
    depth: u16,
}

/// The directory tree of one volume.
#[derive(Debug)]
pub struct Tree {
    /// The first node is the root.
    nodes: Vec<Node>,
    /// (parent, name) → index.
    index: HashMap<(usize, Box<[u8]>), usize>,
    limit: usize,
}

/// A directory, including everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Path from the volume's root: no slash at either end, empty for the root itself.
    pub path: Vec<u8>,
    /// Traffic, including all directories below.
    pub traffic: Traffic,
    /// Whether it is one of the hottest useful levels.
    pub hot: bool,
}

impl Default for Tree {
    fn default() -> Self {
        Self::with_limit(MAX_DIRECTORIES)
    }
}

impl Tree {
    /// A tree of at most `limit` directories (at least two).
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { nodes: vec![Node::default()], index: HashMap::new(), limit: limit.max(2) }
    }

    /// Adds traffic to a directory. `path` is relative to the volume's root, with or without a
    /// leading slash.
    pub fn add(&mut self, path: &[u8], traffic: &Traffic) {
        let mut at = 0;
        self.nodes[0].sum.add(traffic);
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if usize::from(self.nodes[at].depth) >= MAX_DEPTH {
                break;
            }
            at = self.child(at, name);
            self.nodes[at].sum.add(traffic);
        }
        // Only now, because no index may change while a path is walked.
        if self.nodes.len() > self.limit + MAX_DEPTH {
            self.evict_quietest();
        }
    }

    /// Number of directories kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no traffic was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes[0].sum == Traffic::default()
    }

    /// Returns at most `limit` rows: the hottest useful levels first, then the others by traffic.
    /// `passes` says of a path whether the directory only passes, so that its parent is the useful
    /// level; see [`Turnover::passing`]. The rule is in `docs/decisions/hottest-directories.md`.
    #[must_use]
    pub fn rows(&self, limit: usize, passes: impl Fn(&[u8]) -> bool) -> Vec<Row> {
        let hot = self.hottest(&passes);
        let heat = |at: &usize| self.nodes[*at].sum.heat();
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|at| heat(at) > 0).collect();
        // A directory precedes those below it if they are equally hot.
        order.sort_by_key(|at| {
            (!hot.contains(at), std::cmp::Reverse(heat(at)), self.nodes[*at].depth)
        });
        order.truncate(limit);
        order
            .into_iter()
            .map(|at| Row {
                path: self.path(at),
                traffic: self.nodes[at].sum,
                hot: hot.contains(&at),
            })
            .collect()
    }

    /// Hierarchical heavy hitters: from the leaves up, each directory that has [`HOT_SHARE`] of all
    /// traffic, not counting hot directories below it. One that passes leaves its traffic to its
    /// parent.
    fn hottest(&self, passes: &dyn Fn(&[u8]) -> bool) -> Vec<usize> {
        let total = self.nodes[0].sum.heat();
        if total == 0 {
            return Vec::new();
        }
        let bar = ((total as f64 * HOT_SHARE) as u64).max(1);
        let mut rest: Vec<u64> = self.nodes.iter().map(|node| node.sum.heat()).collect();
        let mut order: Vec<usize> = (1..self.nodes.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.nodes[*at].depth));
        let mut hot = Vec::new();
        for at in order {
            let own = rest[at];
            if own < bar || passes(&self.path(at)) {
                continue;
            }
            hot.push(at);
            // Accounted for here: subtract it from all ancestors.
            let mut up = at;
            while up != 0 {
                up = self.nodes[up].parent;
                rest[up] = rest[up].saturating_sub(own);
            }
        }
        if hot.is_empty() {
            // Traffic is spread over the top-level directories: the largest of them are more useful
            // than the root. If most of it is in the root's own files, report the root.
            let mut tops: Vec<usize> = (1..self.nodes.len())
                .filter(|at| self.nodes[*at].parent == 0 && !passes(&self.path(*at)))
                .collect();
            let below: u64 = tops.iter().map(|at| self.nodes[*at].sum.heat()).sum();
            tops.sort_by_key(|at| std::cmp::Reverse(self.nodes[*at].sum.heat()));
            tops.truncate(MAX_SUBSTITUTES);
            let few: u64 = tops.iter().map(|at| self.nodes[*at].sum.heat()).sum();
            hot = if below * 2 < total || few < bar { vec![0] } else { tops };
        }
        hot
    }

    /// The directories with at least this share of all traffic, without the root: path and traffic.
    /// A directory precedes those below it.
    fn large(&self, share: f64) -> impl Iterator<Item = (Vec<u8>, &Traffic)> {
        let bar = ((self.nodes[0].sum.heat() as f64 * share) as u64).max(1);
        let large = (1..self.nodes.len()).filter(move |at| self.nodes[*at].sum.heat() >= bar);
        large.map(|at| (self.path(at), &self.nodes[at].sum))
    }

    fn child(&mut self, parent: usize, name: &[u8]) -> usize {
        let key = (parent, Box::from(name));
        if let Some(at) = self.index.get(&key) {
            return *at;
        }
        let at = self.nodes.len();
        let depth = self.nodes[parent].depth + 1;
        self.nodes.push(Node { name: key.1.clone(), parent, depth, ..Node::default() });
        self.nodes[parent].children += 1;
        self.index.insert(key, at);
        at
    }

    fn path(&self, mut at: usize) -> Vec<u8> {
        let mut parts = Vec::new();
        while at != 0 {
            parts.push(&self.nodes[at].name[..]);
            at = self.nodes[at].parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Evicts the quietest leaves until half of the limit is left. Their traffic stays in their
    /// ancestors.
    fn evict_quietest(&mut self) {
        let target = (self.limit / 2).max(1);
        let mut keep = vec![true; self.nodes.len()];
        let mut kept = self.nodes.len();
        // Quietest first. A directory is never quieter than those below it, and deeper ones come
        // first among equals, so a parent is visited after all its children.
        let mut order: Vec<usize> = (1..self.nodes.len()).collect();
        order.sort_by_key(|at| {
            (self.nodes[*at].sum.heat(), std::cmp::Reverse(self.nodes[*at].depth))
        });
        for at in order {
            if kept <= target {
                break;
            }
            if self.nodes[at].children == 0 {
                keep[at] = false;
                kept -= 1;
                let parent = self.nodes[at].parent;
                self.nodes[parent].children -= 1;
            }
        }
        let mut moved = vec![0; self.nodes.len()];
        let mut nodes = Vec::with_capacity(kept);
        for (at, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            if keep[at] {
                moved[at] = nodes.len();
                // Parents precede their children.
                node.parent = moved[node.parent];
                nodes.push(node);
            }
        }
        self.nodes = nodes;
        self.index = self
            .nodes
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, node)| ((node.parent, node.name.clone()), at))
            .collect();
    }
}
