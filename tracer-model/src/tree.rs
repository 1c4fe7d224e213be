//! Traffic per directory, rolled up, in bounded memory.
//!
//! Each amount is added to its directory and to all its ancestors immediately. So the sum of a
//! directory stays exact however many directories below it are evicted. A directory that was itself
//! evicted, as one of the quietest, starts from zero when it reappears.

use std::collections::HashMap;

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
    /// The rule is in `docs/decisions/hottest-directories.md`.
    #[must_use]
    pub fn rows(&self, limit: usize) -> Vec<Row> {
        let hot = self.hottest();
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
    /// traffic, not counting hot directories below it.
    fn hottest(&self) -> Vec<usize> {
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
            if own < bar {
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
            let mut tops: Vec<usize> =
                (1..self.nodes.len()).filter(|at| self.nodes[*at].parent == 0).collect();
            let below: u64 = tops.iter().map(|at| self.nodes[*at].sum.heat()).sum();
            tops.sort_by_key(|at| std::cmp::Reverse(self.nodes[*at].sum.heat()));
            tops.truncate(MAX_SUBSTITUTES);
            let few: u64 = tops.iter().map(|at| self.nodes[*at].sum.heat()).sum();
            hot = if below * 2 < total || few < bar { vec![0] } else { tops };
        }
        hot
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflow(bytes: u64) -> Traffic {
        Traffic { inflow: bytes, ..Traffic::default() }
    }

    fn hot(tree: &Tree) -> Vec<String> {
        let mut hot: Vec<String> = tree
            .rows(usize::MAX)
            .into_iter()
            .filter(|row| row.hot)
            .map(|row| String::from_utf8(row.path).unwrap())
            .collect();
        hot.sort();
        hot
    }

    #[test]
    fn the_directory_that_fills_is_hot() {
        let mut tree = Tree::default();
        tree.add(b"/var/mod_gzip", &inflow(9_000));
        tree.add(b"/var/log", &inflow(500));
        tree.add(b"/home/ann", &inflow(400));
        assert_eq!(hot(&tree), ["var/mod_gzip"]);
    }

    #[test]
    fn the_parent_of_many_leaves_is_hot() {
        let mut tree = Tree::default();
        for n in 0..10_000 {
            tree.add(format!("/srv/store/bucket/{}/{n}", n % 100).as_bytes(), &inflow(100));
        }
        tree.add(b"/var/log", &inflow(1_000));
        assert_eq!(hot(&tree), ["srv/store/bucket"]);
    }

    #[test]
    fn two_culprits_are_both_hot() {
        let mut tree = Tree::default();
        for n in 0..100 {
            tree.add(format!("/srv/a/{n}").as_bytes(), &inflow(60));
            tree.add(format!("/srv/b/{n}").as_bytes(), &inflow(40));
        }
        assert_eq!(hot(&tree), ["srv/a", "srv/b"]);
    }

    #[test]
    fn the_root_is_hot_only_because_of_its_own_files() {
        let mut tree = Tree::default();
        for n in 0..8 {
            tree.add(format!("/{n}/x").as_bytes(), &inflow(100 + n));
        }
        assert_eq!(hot(&tree), ["3", "4", "5", "6", "7"]);
        tree.add(b"/", &inflow(10_000));
        assert_eq!(hot(&tree), [""]);
        assert!(hot(&Tree::default()).is_empty());
    }

    #[test]
    fn a_storm_of_empty_files_is_hot() {
        let mut tree = Tree::default();
        tree.add(b"/sessions", &Traffic { created: 10_000, ..Traffic::default() });
        tree.add(b"/log", &inflow(100_000));
        assert_eq!(hot(&tree), ["sessions"]);
    }

    #[test]
    fn memory_is_bounded_for_any_input() {
        let mut tree = Tree::with_limit(1_000);
        for n in 0..50_000u32 {
            tree.add(format!("/s/{:03}/{:06}", n % 100, n).as_bytes(), &inflow(10));
            assert!(tree.len() <= 1_000 + MAX_DEPTH);
        }
        tree.add(b"/other", &inflow(1));
        let rows = tree.rows(10);
        assert_eq!(rows[0], Row { path: b"s".to_vec(), traffic: inflow(500_000), hot: true });
    }

    #[test]
    fn traffic_below_the_maximum_depth_counts_for_the_deepest_level() {
        let mut tree = Tree::default();
        let path = "/d".repeat(3_000);
        tree.add(path.as_bytes(), &inflow(7));
        assert_eq!(tree.len(), MAX_DEPTH + 1);
        assert_eq!(tree.rows(1)[0].traffic.inflow, 7);
    }

    fn paths() -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
        let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("\u{1b}["), Just("..")];
        let path = prop::collection::vec(name, 0..6).prop_map(|parts| parts.join("/").into_bytes());
        prop::collection::vec((path, 0u64..1_000_000), 0..200)
    }

    proptest! {
        /// Whatever is evicted, the remaining directories have exact sums, and the root has all.
        #[test]
        fn sums_stay_exact(adds in paths(), limit in 2usize..40) {
            let mut small = Tree::with_limit(limit);
            let mut whole = Tree::default();
            for (path, bytes) in &adds {
                small.add(path, &inflow(*bytes));
                whole.add(path, &inflow(*bytes));
            }
            let truth: HashMap<Vec<u8>, Traffic> =
                whole.rows(usize::MAX).into_iter().map(|row| (row.path, row.traffic)).collect();
            let total: u64 = adds.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(small.nodes[0].sum.inflow, total);
            if small.len() == whole.len() {
                for row in small.rows(usize::MAX) {
                    prop_assert_eq!(row.traffic, truth[&row.path]);
                }
            }
        }

        /// No sum exceeds its parent's. If there is traffic, there is a hot directory, and at most
        /// as many as the threshold allows.
        #[test]
        fn there_is_always_a_useful_level(adds in paths()) {
            let mut tree = Tree::default();
            for (path, bytes) in &adds {
                tree.add(path, &inflow(*bytes));
            }
            for node in &tree.nodes[1..] {
                prop_assert!(node.sum.inflow <= tree.nodes[node.parent].sum.inflow);
            }
            let hot = tree.hottest();
            prop_assert_eq!(hot.is_empty(), tree.is_empty());
            prop_assert!(hot.len() <= MAX_SUBSTITUTES);
        }
    }
}
