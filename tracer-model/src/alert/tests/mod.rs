//! The behaviour of alerts, over hand-made and random histories.

mod blind;
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
    }
}

fn path(path: &str, allocated: u64, freed: u64) -> PathRow {
    PathRow {
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
fn the_culprit_is_the_writer_that_grew_and_stays_named_after_it_exits() {
    let mut host = Host::new(Rule::defaults());
    host.snapshot.writers = vec![writer(1, "steady", 1e6)];
    host.run(600);
    host.snapshot.writers = vec![writer(7, "runaway", 100e6), writer(1, "steady", 1e6)];
    host.volume().eta_s = Some(500.0);
    let events = host.run(3);
    assert_eq!(events[0].culprits[0].comm, "runaway");
    assert_eq!(events[0].suggestion.as_ref().unwrap().command, "filltop stop 7 --how freeze");
    assert!(
        events[0].summary.contains("runaway (pid 7, runaway.service) adds 95.4 MiB/s"),
        "{}",
        events[0].summary
    );
    host.run(60);
    host.snapshot.writers.clear();
    host.volume().full = true;
    let events = host.run(3);
    assert_eq!(events[0].rule, "full");
    assert_eq!(events[0].culprits[0].comm, "runaway");
    let later = host.run(3 * 3600);
    assert!(!later.is_empty());
    assert!(later.iter().all(|event| event.culprits[0].comm == "runaway"), "{later:?}");
}

#[test]
fn a_containers_log_is_attributed_to_the_container_and_not_to_the_daemon() {
    let container = |cgroup: Option<&str>| Group {
        kind: GroupKind::Docker,
        name: "web-d".to_owned(),
        cgroup: cgroup.map(str::to_owned),
        ..Group::default()
    };
    let alert = |share: f64, group: Group| {
        let mut host = Host::new(Rule::defaults());
        let log = OnBehalf {
            group,
            written_bytes: 0,
            written_bytes_per_s: share * 100e6,
            growth_bytes_per_s: share * 100e6,
        };
        let daemon = Writer { on_behalf_of: vec![log], ..writer(7, "dockerd", 100e6) };
        host.snapshot.writers = vec![daemon];
        host.volume().eta_s = Some(500.0);
        host.run(3).remove(0)
    };
    let events = alert(0.9, container(Some("/docker/9f")));
    assert_eq!(events.suggestion.unwrap().command, "filltop stop docker/web-d --how freeze");
    let text = "the log of docker web-d, written by dockerd (pid 7, dockerd.service) adds 95.4";
    assert!(events.summary.contains(text), "{}", events.summary);
    // Most of the growth is something else, and the daemon itself must never be frozen.
    assert!(alert(0.3, container(Some("/docker/9f"))).suggestion.is_none());
    assert!(alert(0.9, container(None)).suggestion.is_none(), "it no longer runs");
}

#[test]
fn a_process_that_runs_out_of_space_and_removes_its_files_is_still_named() {
    let mut host = Host::new(Rule::defaults());
    for _ in 0..10 {
        host.snapshot.writers = vec![writer(7, "sort", 80e6), writer(1, "logger", 2e3)];
        host.run(1);
    }
    let mut dead = writer(7, "sort", -790e6);
    (dead.alive, dead.errors.enospc) = (false, 1);
    host.snapshot.writers = vec![writer(1, "logger", 2e3), dead];
    let events = host.run(1);
    assert_eq!(events[0].rule, "no-space-errors");
    assert!(events[0].summary.contains("sort (pid 7, sort.service, ended) added"), "{events:?}");
    assert!(events[0].suggestion.is_none(), "it has exited");
    // A new process that grows by more becomes the culprit.
    for second in 0..40 {
        host.snapshot.writers = vec![writer(9, "copy", 80e6)];
        host.volume().eta_s = (second > 30).then_some(500.0);
        if let Some(event) = host.run(1).first() {
            assert_eq!(event.culprits[0].comm, "copy");
        }
    }
}

#[test]
fn short_lived_workers_are_one_group() {
    let mut host = Host::new(Rule::defaults());
    let group =
        Group { kind: GroupKind::Unit, name: "apache2.service".to_owned(), ..Group::default() };
    let now = Timestamp::from_second(START).unwrap();
    host.volume().eta_s = Some(600.0);
    for second in 0..10u32 {
        host.snapshot.writers = (0..20)
            .map(|n| Writer {
                group: Some(group.clone()),
                share: 0.05,
                ..writer(100 + second * 20 + n, "apache2", 5e6)
            })
            .collect();
        host.volume().full = second == 9;
        host.snapshot.groups = vec![GroupRow {
            group: group.clone(),
            volume: "/srv".to_owned(),
            processes: u64::from(second + 1) * 20,
            alive: 0,
            written_bytes: 100_000_000,
            written_total_bytes: 0,
            written_bytes_per_s: 1e8,
            growth_bytes_per_s: 1e8,
            share: 1.0,
            files_created: 20,
            peak_bytes_per_s: 1e8,
            peak_at: now,
            first_seen: now,
            last_seen: now,
            spawner: None,
            directory: Some("/srv/tmp".to_owned()),
            log_bytes_per_s: 0.0,
            log_growth_bytes_per_s: 0.0,
            on_behalf_growth_bytes_per_s: 0.0,
        }];
        let events = host.run(1);
        if second == 9 {
            // None of them has a twentieth of the growth.
            assert_eq!((events[0].rule.as_str(), events[0].culprits.len()), ("full", 3));
            assert!(
                events[0].summary.contains("apache2.service (200 processes) added"),
                "{}",
                events[0].summary
            );
        }
        if second == 0 {
            assert!(
                events[0]
                    .summary
                    .contains("apache2.service (20 processes) adds 95.4 MiB/s in /srv/tmp"),
                "{}",
                events[0].summary
            );
            let command = &events[0].suggestion.as_ref().unwrap().command;
            assert_eq!(command, "filltop stop apache2.service --how freeze");
        }
    }
}

#[test]
fn the_summary_names_victims_and_no_name_can_break_its_line() {
    let mut host = Host::new(Rule::defaults());
    let mut bad = writer(9, "evil\n\u{1b}[2J", 1e6);
    bad.errors.enospc = 3;
    host.snapshot.writers = vec![bad];
    host.snapshot.victims = vec![Victim {
        pid: 880,
        comm: "postgres".to_owned(),
        volume: "/srv".to_owned(),
        errors: WriteErrors { enospc: 2, ..WriteErrors::default() },
        waiting_ms: None,
    }];
    let events = host.run(1);
    assert_eq!(
        (events[0].rule.as_str(), events[0].severity),
        ("no-space-errors", Severity::Critical)
    );
    assert!(events[0].summary.contains("affected: postgres (880)"), "{}", events[0].summary);
    assert!(!events[0].summary.contains(char::is_control), "{:?}", events[0].summary);
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
