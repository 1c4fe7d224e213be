//! Plays the incidents of `tests/incidents/` through the model alone, as numbers. The same scenario
//! files list what must be reported, and by when.

mod play;

use play::{Act, MOUNT, Play};
use tracer_model::alert::{Condition, Glob, Rule};
use tracer_model::guard::{GuardConfig, Seconds};

macro_rules! scenario {
    ($name:literal) => {
        include_str!(concat!("../../../tests/incidents/", $name, ".toml"))
    };
}

const MB: u64 = 1_000_000;
const STAGING: &str = "/srv/staging";

fn here(rule: Rule) -> Rule {
    Rule { volumes: vec![Glob::new(MOUNT)], ..rule }
}

#[test]
fn staging() {
    let drain = Condition::Drain { path: STAGING.to_owned() };
    let rule = Rule { hold_s: 10.0, ..Rule::new("staging-drain", drain, Some(1.0), None) };
    let mut play = Play::new(scenario!("staging"), vec![rule], &[("group", "/sink")]);
    play.guard(GuardConfig {
        enabled: true,
        dry_run: false,
        within: Seconds(10.0),
        length: Seconds(5.0),
        ..GuardConfig::default()
    });
    play.resident("/db", "PostgreSQL");
    let path = format!("{STAGING}/part");
    let mut backlog = 128 * MB;
    let mut run = |play: &mut Play, takes: u64| {
        backlog += takes;
        let gives_back = backlog.min(20 * MB);
        backlog -= gives_back;
        let sink = Act {
            pid: 7,
            comm: "rclone",
            group: "/sink",
            path: &path,
            takes,
            gives_back,
            ..Act::default()
        };
        let wal = format!("{MOUNT}/postgres/pg_wal/1");
        let database = Act {
            pid: 9,
            comm: "postgres",
            group: "/db",
            path: &wal,
            takes: 8192,
            fsync_ms: 150.0,
            ..Act::default()
        };
        play.second(&[sink, database])
    };
    play.begin("two clients");
    for _ in 0..60 {
        let snapshot = run(&mut play, 16 * MB);
        assert!(snapshot.victims.iter().any(|row| row.comm == "postgres"));
    }
    assert_eq!(play.fired_since("two clients", "staging-drain"), 0, "16 MB/s are drained");
    play.begin("ten clients");
    while play.avail() > 80 * MB {
        let snapshot = run(&mut play, 80 * MB);
        let truth = play.avail() as f64 / (60.0 * MB as f64);
        if truth <= 30.0 {
            let eta = snapshot.volumes[0].eta_s.expect("an estimate");
            assert!((eta + 1.0) / (truth + 1.0) <= 2.0, "{eta} s, in truth {truth} s");
            assert!((truth + 1.0) / (eta + 1.0) <= 2.0, "{eta} s, in truth {truth} s");
        }
    }
    play.check();
    let (at, words) = &play.decided[0];
    assert!(*at < play.now_s() - 5.0, "only {at} of {} s: {words}", play.now_s());
}

#[test]
fn spool() {
    let held = Rule {
        clear_s: 1.0,
        ..here(Rule::new("held", Condition::Held, Some(250.0 * f64::from(1 << 20)), None))
    };
    let mut play = Play::new(scenario!("spool"), vec![held], &[]);
    play.begin("spooling");
    let path = format!("{MOUNT}/#7");
    for second in 0..20 {
        let script = Act {
            pid: 7,
            comm: "python3",
            group: "/job",
            path: &path,
            takes: 30 << 20,
            ..Act::default()
        };
        play.second(if second < 10 { std::slice::from_ref(&script) } else { &[] });
        play.held = vec![(7, (second + 1).min(10) * (30 << 20)), (8, 1 << 20)];
    }
    play.begin("truncated");
    play.held = vec![(7, 0), (8, 1 << 20)];
    let cut = Act {
        pid: 7,
        comm: "filltop",
        group: "/job",
        path: &path,
        gives_back: 300 << 20,
        ..Act::default()
    };
    play.second(&[cut]);
    (0..5).for_each(|_| drop(play.second(&[])));
    play.check();
}

#[test]
fn jail() {
    let rules = vec![
        Rule { clear_s: 2.0, ..Rule::new("full", Condition::Full, None, Some(0.5)) },
        here(Rule::new("cleaned-in-vain", Condition::Refill, Some(300.0), None)),
    ];
    let mut play = Play::new(scenario!("jail"), rules, &[("group", "/jail")]);
    let path = format!("{MOUNT}/jail/tmp/mod_gzip/x");
    let mut worker = 100;
    // New workers every second, four at a time.
    let mut run = |play: &mut Play, takes: u64, deleted: u64| {
        let mut acts: Vec<Act<'_>> = (0..4)
            .map(|n| Act {
                pid: worker + n,
                comm: "apache2",
                group: "/jail",
                path: &path,
                takes: takes / 4,
                ..Act::default()
            })
            .collect();
        let rm = Act {
            pid: 50,
            comm: "rm",
            group: "/shell",
            path: &path,
            gives_back: deleted,
            ends: true,
            ..Act::default()
        };
        acts.extend((deleted > 0).then_some(rm));
        worker += 4;
        play.second(&acts)
    };
    play.begin("filling");
    while play.avail() > 0 {
        run(&mut play, 36 * MB, 0);
    }
    (0..3).for_each(|_| drop(run(&mut play, 36 * MB, 0)));
    for turn in 1..=3 {
        play.begin(&format!("deleted {turn}"));
        let start = play.now_s();
        let mut snapshot = run(&mut play, 36 * MB, 300 * MB);
        while play.avail() > 0 {
            snapshot = run(&mut play, 36 * MB, 0);
        }
        let refill = snapshot.volumes[0].refill.expect("it was filled again");
        let took = play.now_s() - start;
        assert!((refill.gone_in_s - took).abs() <= 2.0, "{refill:?}, in truth {took} s");
        assert!(refill.freed_bytes.abs_diff(300 * MB) <= 36 * MB, "{refill:?}");
    }
    play.begin("stopped");
    run(&mut play, 0, 300 * MB);
    (0..10).for_each(|_| drop(run(&mut play, 0, 0)));
    play.check();
}

#[test]
fn engine() {
    let room =
        here(Rule::new("make-room", Condition::AvailBytes { shrinking: false }, None, Some(150e6)));
    let mut play = Play::new(scenario!("engine"), vec![room], &[]);
    let path = format!("{MOUNT}/hot/x.sst");
    // Each compaction temporarily takes space, which it then frees.
    let mut second = 0u64;
    let mut run = |play: &mut Play, grows: u64, removed: u64| {
        second += 1;
        let tooth = if second % 6 < 3 { (20 * MB, 0) } else { (0, 20 * MB) };
        let (takes, gives_back) = (grows + tooth.0, tooth.1 + removed);
        play.second(&[Act {
            pid: 7,
            comm: "db_bench",
            group: "/engine",
            path: &path,
            takes,
            gives_back,
            ..Act::default()
        }])
    };
    play.begin("cold");
    (0..12).for_each(|_| drop(run(&mut play, 12 * MB, 0)));
    play.begin("hot");
    let mut has_room = false;
    while play.avail() > 0 {
        let removed = if !has_room && play.avail() < 150 * MB { 100 * MB } else { 0 };
        has_room |= removed > 0;
        run(&mut play, 20 * MB, removed);
        assert!(play.now_s() < 300.0, "it never fills");
    }
    run(&mut play, 20 * MB, 0);
    play.check();
    assert!(play.fired_since("cold", "time-to-full") <= 3, "it flaps");
}

#[test]
fn cache() {
    let size = Condition::DirSize { path: format!("{MOUNT}/cache") };
    let rules = vec![
        Rule::new("cache-cap", size, None, Some(200e6)),
        here(Rule::new("slow-fsync", Condition::FsyncWait, Some(0.020), None)),
    ];
    let mut play = Play::new(scenario!("cache"), rules, &[("group", "/jobs")]);
    let path = format!("{MOUNT}/cache/data/x");
    let wal = format!("{MOUNT}/etcd/wal");
    play.begin("building");
    for second in 0..30 {
        let job = Act {
            pid: 100 + second,
            comm: "restic",
            group: "/jobs",
            path: &path,
            takes: 25 * MB,
            ends: true,
            ..Act::default()
        };
        let store = Act {
            pid: 9,
            comm: "etcd",
            group: "/etcd",
            path: &wal,
            takes: 4096,
            fsync_ms: 120.0,
            ..Act::default()
        };
        let snapshot = play.second(&[job, store]);
        assert_eq!(snapshot.victims[0].comm, "etcd");
        let over = play.fired_since("building", "cache-cap") > 0;
        assert_eq!(over, u64::from(second + 1) * 25 * MB > 200 * MB, "second {second}");
    }
    play.check();
}

#[test]
fn late() {
    let mut play = Play::new(scenario!("late"), vec![], &[("pid", "7")]);
    // Space that was used before the first sample.
    play.second(&[Act { takes: play.avail() - 90 * MB, ..Act::default() }]);
    let path = format!("{MOUNT}/journal");
    while play.avail() > 0 {
        play.second(&[Act {
            pid: 7,
            comm: "app",
            group: "/app",
            path: &path,
            takes: 3 * MB,
            ..Act::default()
        }]);
    }
    play.check();
}

#[test]
fn sort() {
    let errors = Rule {
        clear_s: 2.0,
        ..Rule::new("no-space-errors", Condition::NoSpaceErrors, None, Some(0.0))
    };
    let mut play = Play::new(scenario!("sort"), vec![errors], &[("pid", "7")]);
    let path = format!("{MOUNT}/sortXYZ");
    let sort = |takes: u64, gives_back: u64| Act {
        pid: 7,
        comm: "sort",
        group: "/sort",
        path: &path,
        takes,
        gives_back,
        ends: gives_back > 0,
        ..Act::default()
    };
    play.begin("sorting");
    let mut taken = 0;
    while play.avail() > 40 * MB {
        play.second(&[sort(40 * MB, 0)]);
        taken += 40 * MB;
    }
    // It takes the remaining space, fails, and removes all of its files within one interval.
    let rest = play.avail();
    play.second(&[sort(60 * MB, taken + rest)]);
    play.begin("died");
    (0..10).for_each(|_| drop(play.second(&[])));
    play.check();
}
