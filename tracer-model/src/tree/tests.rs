use proptest::prelude::*;

use super::*;

fn inflow(bytes: u64) -> Traffic {
    Traffic { inflow: bytes, ..Traffic::default() }
}

fn hot(tree: &Tree) -> Vec<String> {
    let mut hot: Vec<String> = tree
        .rows(usize::MAX, |_| false)
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
    let rows = tree.rows(10, |_| false);
    assert_eq!(rows[0], Row { path: b"s".to_vec(), traffic: inflow(500_000), hot: true });
}

#[test]
fn traffic_below_the_maximum_depth_counts_for_the_deepest_level() {
    let mut tree = Tree::default();
    let path = "/d".repeat(3_000);
    tree.add(path.as_bytes(), &inflow(7));
    assert_eq!(tree.len(), MAX_DEPTH + 1);
    assert_eq!(tree.rows(1, |_| false)[0].traffic.inflow, 7);
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
            whole.rows(usize::MAX, |_| false).into_iter().map(|row| (row.path, row.traffic)).collect();
        let total: u64 = adds.iter().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(small.nodes[0].sum.inflow, total);
        if small.len() == whole.len() {
            for row in small.rows(usize::MAX, |_| false) {
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
        let hot = tree.hottest(&|_| false);
        prop_assert_eq!(hot.is_empty(), tree.is_empty());
        prop_assert!(hot.len() <= MAX_SUBSTITUTES);
    }
}
