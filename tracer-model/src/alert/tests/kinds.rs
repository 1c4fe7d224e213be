//! Each kind of condition.

use super::*;

#[test]
fn directory_rules_fire_on_size_growth_and_drain() {
    let dir = "/srv/uploads".to_owned();
    let rules = vec![
        Rule::new("cap", Condition::DirSize { path: dir.clone() }, None, Some(10.0 * GIB as f64)),
        Rule::new(
            "budget",
            Condition::DirGrowth { path: dir.clone(), per_s: 600.0 },
            Some(GIB as f64),
            None,
        ),
        Rule {
            hold_s: 30.0,
            ..Rule::new("drain", Condition::Drain { path: dir.clone() }, Some(1.0), None)
        },
    ];
    let mut host = Host::new(rules);
    host.sizes = vec![DirectorySize { path: dir.clone(), bytes: 9 * GIB }];
    host.snapshot.paths =
        vec![path("/srv/uploads/a/part.1", 10 << 20, 10 << 20), path("/srv/uploadsx", 9 * GIB, 0)];
    for _ in 0..60 {
        let snapshot = host.snapshot.clone();
        host.sizes[0].add_flow(&snapshot);
        assert!(host.run(1).is_empty());
    }
    assert_eq!(host.sizes[0].bytes, 9 * GIB);
    host.snapshot.paths[0].freed_bytes = Some(0);
    let mut events = Vec::new();
    for _ in 0..180 {
        let snapshot = host.snapshot.clone();
        host.sizes[0].add_flow(&snapshot);
        events.extend(host.run(1));
    }
    let rules: Vec<&str> = events.iter().map(|event| event.rule.as_str()).collect();
    assert_eq!(rules, ["drain", "cap", "budget"]);
    assert!(events.iter().all(|event| event.directory.as_deref() == Some("/srv/uploads")));
    assert!(
        events[1].summary.starts_with("/srv/uploads holds 10.0 GiB, over its limit of 10.0 GiB"),
        "{}",
        events[1].summary
    );
}

#[test]
fn rates_are_summed_by_name_so_that_a_restart_loop_is_one_writer() {
    let names = Glob::new("back*");
    let rule = Rule::new("fast", Condition::WriterRate { names }, Some(50e6), None);
    let mut host = Host::new(vec![rule]);
    let mut events = Vec::new();
    for pid in 0..60 {
        host.snapshot.writers = vec![
            writer(100 + 2 * pid, "backup", 30e6),
            writer(101 + 2 * pid, "backup", 30e6),
            writer(1, "other", 90e6),
        ];
        events.extend(host.run(1));
    }
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].summary.starts_with("backup writes 57.2 MiB/s to /srv"),
        "{}",
        events[0].summary
    );
    host.snapshot.writers.clear();
    assert_eq!(host.notices(400), ["resolved warning fast"]);
}

#[test]
fn errors_fsync_held_inodes_refill_and_growth_fire() {
    let rules = vec![
        Rule::new("eio", Condition::WriteErrors, Some(0.0), None),
        Rule::new("fsync", Condition::FsyncWait, Some(1.0), None),
        Rule::new("held", Condition::Held, Some(1e9), None),
        Rule::new("inodes", Condition::InodesRatio, Some(0.9), None),
        Rule::new("refill", Condition::Refill, Some(1200.0), None),
        Rule::new("growth", Condition::Growth, Some(50e6), None),
    ];
    let mut host = Host::new(rules);
    host.volume().refill = Some(Refill { freed_bytes: 7, gone_in_s: 5.0 });
    assert!(host.run(5).is_empty(), "a refill from before the start is not reported");
    let mut row = writer(5, "db", 1e5);
    row.errors.eio = 1;
    row.fsync = Some(Fsync { count: 1, max_ms: 2500.0, p99_ms: 2500.0 });
    host.snapshot.writers = vec![row];
    host.snapshot.held = vec![Held {
        held_by: HeldBy::Descriptor,
        pid: 5,
        comm: "db".to_owned(),
        fd: Some(3),
        path: "/srv/x".to_owned(),
        path_in_container: None,
        group: None,
        volume: "/srv".to_owned(),
        bytes: 2_000_000_000,
        growing: false,
        kind: HeldKind::Deleted,
        holders: vec![5],
        dev: None,
        ino: None,
    }];
    let volume = host.volume();
    volume.held_bytes = Some(2_000_000_000);
    volume.inodes_total = 1000;
    volume.inodes_free = 50;
    volume.refill = Some(Refill { freed_bytes: 10 * GIB, gone_in_s: 540.0 });
    volume.growth_bytes_per_s = 1e9;
    let events = host.run(2);
    let rules: Vec<&str> = events.iter().map(|event| event.rule.as_str()).collect();
    assert_eq!(rules, ["eio", "fsync", "held", "inodes", "refill", "growth"], "{events:#?}");
    let suggestion = events[2].suggestion.as_ref().unwrap();
    assert_eq!((suggestion.how.as_str(), suggestion.frees_bytes), ("term", 2_000_000_000));
    assert!(
        events[4].summary.starts_with("10.0 GiB freed on /srv was used up again within 9 min"),
        "{}",
        events[4].summary
    );
}
