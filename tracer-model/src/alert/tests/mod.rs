//! The behaviour of alerts, over hand-made and random histories.

mod blind;
mod culprits;
mod kinds;
mod properties;
mod repeats;

use jiff::Timestamp;

use super::sizes::DirectorySize;
use super::*;
use crate::snapshot::*;

const GIB: u64 = 1 << 30;
const START: i64 = 1_795_230_727;

/// A simulated host with one volume of 100 GiB, and a clock.
struct Host {
    engine: Engine,
    second: i64,
    wall_shift: i64,
    minute: u16,
    sizes: Vec<DirectorySize>,
    snapshot: Snapshot,
}

impl Host {
    fn new(rules: Vec<Rule>) -> Self {
        let sample = crate::forecast::Sample {
            time_s: START as f64,
            total: 100 * GIB,
            used: 50 * GIB,
            avail: 50 * GIB,
            ..Default::default()
        };
        let (_, mut snapshot) = replay::Replay::new("/srv").push(&sample);
        snapshot.host = "db1".to_owned();
        snapshot.interval_s = 1.0;
        Self {
            engine: Engine::new(rules),
            second: 0,
            wall_shift: 0,
            minute: 720,
            sizes: Vec::new(),
            snapshot,
        }
    }

    fn volume(&mut self) -> &mut Volume {
        &mut self.snapshot.volumes[0]
    }

    /// Advances by `seconds` with one sample per second, and returns the events.
    fn run(&mut self, seconds: i64) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..seconds {
            self.second += 1;
            let wall = Timestamp::from_second(START + self.second + self.wall_shift).unwrap();
            self.snapshot.taken_at = wall;
            let at = EvalTime { steady_s: self.second as f64, wall, minute: self.minute };
            events.extend(self.engine.evaluate(&at, &self.snapshot, &self.sizes));
        }
        events
    }

    fn notices(&mut self, seconds: i64) -> Vec<String> {
        let word = |e: &Event| format!("{} {} {}", e.event.name(), e.severity.name(), e.rule);
        self.run(seconds).iter().map(word).collect()
    }
}

fn writer(pid: u32, comm: &str, growth: f64) -> Writer {
    Writer {
        thread: None,
        inodes_created: Some(0),
        inodes_removed: Some(0),
        pid,
        start_time: Timestamp::from_second(START - i64::from(pid)).unwrap(),
        comm: comm.to_owned(),
        exe: None,
        cmdline: None,
        uid: 0,
        user: None,
        group: Some(Group {
            kind: GroupKind::Unit,
            name: format!("{comm}.service"),
            ..Group::default()
        }),
        alive: true,
        volume: "/srv".to_owned(),
        written_bytes: growth.abs() as u64,
        allocated_bytes: None,
        freed_bytes: None,
        held_bytes: None,
        written_bytes_per_s: growth.abs(),
        growth_bytes_per_s: growth,
        share: 0.0,
        files: 1,
        errors: WriteErrors::default(),
        fsync: None,
        parents: vec![],
        on_behalf_of: vec![],
        log_senders: Vec::new(),
    }
}

fn path(path: &str, allocated: u64, freed: u64) -> PathRow {
    PathRow {
        size_bytes: None,
        space_bytes: None,
        growth_bytes_per_s: 0.0,
        hidden: false,
        hidden_by: None,
        path: path.to_owned(),
        path_in_container: None,
        container: None,
        log_of: None,
        volume: "/srv".to_owned(),
        dev: "254:17".to_owned(),
        ino: 1,
        written_bytes: allocated,
        allocated_bytes: Some(allocated),
        freed_bytes: Some(freed),
        deleted: false,
        approximate: false,
        writers: vec![],
    }
}

#[test]
fn the_built_in_rules_warn_turn_critical_report_full_and_resolve() {
    let mut host = Host::new(Rule::defaults());
    assert!(host.notices(10).is_empty());
    host.volume().eta_s = Some(3.9 * 3600.0);
    assert_eq!(host.notices(10), ["firing warning time-to-full"]);
    host.volume().eta_s = Some(1500.0);
    assert_eq!(host.notices(10), ["firing critical time-to-full"]);
    host.volume().avail_bytes = 0;
    host.volume().full = true;
    host.volume().eta_s = Some(0.0);
    assert_eq!(host.notices(10), ["firing critical full"]);
    // Full for two hours: reminders of `full` alone, and nothing resolves.
    let events = host.notices(7200);
    assert_eq!(events, ["repeat critical full"; 4]);
    host.volume().avail_bytes = 40 * GIB;
    host.volume().full = false;
    host.volume().eta_s = None;
    assert_eq!(host.notices(290), [""; 0]);
    let mut events = host.notices(20);
    events.sort();
    assert_eq!(events, ["resolved critical full", "resolved critical time-to-full"]);
    assert!(host.notices(7200).is_empty());
}

#[test]
fn a_nearly_full_idle_volume_warns_once() {
    let mut host = Host::new(Rule::defaults());
    host.volume().avail_bytes = 2 * GIB;
    let events = host.run(86_400);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].rule.as_str(), events[0].event), ("nearly-full", EventKind::Firing));
    assert_eq!(
        events[0].summary,
        "/srv is nearly full, but not growing, 2% available; 2.0 GiB left"
    );
    host.volume().avail_bytes = GIB;
    assert_eq!(host.notices(60), ["firing warning low-space"], "it lost half of what was left");
}

#[test]
fn an_alert_that_eases_says_so_and_does_not_flap_at_the_threshold() {
    let mut host = Host::new(Rule::defaults());
    host.volume().eta_s = Some(1200.0);
    assert_eq!(host.notices(5), ["firing critical time-to-full"]);
    for n in 0..600 {
        host.volume().eta_s = Some(if n % 2 == 0 { 1700.0 } else { 1900.0 });
        assert!(host.run(1).is_empty());
    }
    host.volume().eta_s = Some(2.0 * 3600.0);
    let events = host.run(400);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].event, events[0].severity), (EventKind::Firing, Severity::Warning));
    assert!(
        events[0].summary.starts_with("less urgent now: /srv will be full in"),
        "{}",
        events[0].summary
    );
}

#[test]
fn for_delays_an_alert_and_an_interruption_restarts_the_delay() {
    let rule = Rule {
        hold_s: 60.0,
        ..Rule::new("used", Condition::UsedBytes, Some(60.0 * GIB as f64), None)
    };
    let mut host = Host::new(vec![rule]);
    host.volume().used_bytes = 70 * GIB;
    assert!(host.run(59).is_empty());
    host.volume().used_bytes = 10 * GIB;
    host.run(1);
    host.volume().used_bytes = 70 * GIB;
    assert!(host.run(60).is_empty());
    assert_eq!(host.notices(1), ["firing warning used"]);
}

#[test]
fn unmounting_a_volume_resolves_its_alerts() {
    let mut host = Host::new(Rule::defaults());
    host.volume().eta_s = Some(600.0);
    host.run(5);
    host.snapshot.volumes.clear();
    let events = host.run(60);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (events[0].event, events[0].summary.as_str()),
        (EventKind::Resolved, "/srv is no longer mounted")
    );
}

#[test]
fn unmounting_a_volume_that_a_rule_names_is_reported() {
    let rule = Rule {
        volumes: vec![Glob::new("/srv")],
        ..Rule::new("used", Condition::UsedBytes, Some(1e15), None)
    };
    let mut host = Host::new(vec![rule]);
    host.run(5);
    host.snapshot.volumes.clear();
    let events = host.run(60);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].event, events[0].rule.as_str()), (EventKind::Health, "volume"));
}

#[test]
fn the_summary_is_correct_for_unusual_names_and_limits() {
    let mut host = Host::new(Rule::defaults());
    host.volume().mount_point = "/srv/full in".to_owned();
    host.volume().limit = LimitKind::Inodes;
    host.volume().eta_s = Some(240.0);
    let events = host.run(1);
    assert!(
        events[0].summary.starts_with("/srv/full in will run out of inodes in 4 min"),
        "{}",
        events[0].summary
    );
}

#[test]
fn read_only_volumes_are_ignored() {
    let mut host = Host::new(Rule::defaults());
    host.volume().read_only = true;
    host.volume().full = true;
    host.volume().avail_bytes = 0;
    assert!(host.run(60).is_empty());
}

#[test]
fn health_events_report_clock_steps_gaps_hooks_and_losses_once() {
    let mut host = Host::new(Rule::defaults());
    let about = |events: Vec<Event>| events.iter().map(|e| e.rule.clone()).collect::<Vec<_>>();
    host.run(5);
    host.wall_shift = 3600;
    assert_eq!(about(host.run(5)), ["clock-step"]);
    host.second += 100;
    assert_eq!(about(host.run(5)), ["gap"]);
    host.snapshot.backend.hooks = vec![Hook {
        name: "ext4_file_write_iter".to_owned(),
        how: HookMethod::Fexit,
        state: HookState::Broken { reason: "gone".to_owned() },
    }];
    assert_eq!(about(host.run(5)), ["backend"]);
    host.snapshot.backend.hooks[0].state = HookState::Ok;
    assert_eq!(about(host.run(5)), ["backend"]);
    host.snapshot.backend.lost_events = 7;
    host.snapshot.backend.unattributed_bytes = 4096;
    assert_eq!(about(host.run(600)), ["lost-events", "map-full"]);
}

#[test]
fn a_reload_keeps_active_alerts() {
    let mut host = Host::new(Rule::defaults());
    host.volume().eta_s = Some(600.0);
    host.run(5);
    let rules =
        Rule::defaults().into_iter().map(|rule| Rule { repeat_s: Some(60.0), ..rule }).collect();
    host.engine.replace_rules(rules);
    assert_eq!(host.notices(60), ["repeat critical time-to-full"]);
    host.engine.replace_rules(Vec::new());
    assert!(host.notices(600).is_empty());
}
