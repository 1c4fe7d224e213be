//! Whom an alert names: culprits, groups and victims.

use super::*;

#[test]
fn the_culprit_is_the_writer_that_grew_and_stays_named_after_it_exits() {
    let mut host = Host::new(Rule::defaults());
    host.snapshot.writers = vec![writer(1, "steady", 1e6)];
    host.run(600);
    host.snapshot.writers = vec![writer(7, "runaway", 100e6), writer(1, "steady", 1e6)];
    host.volume().used_delta_bytes = 101_000_000;
    host.run(5);
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
    host.volume().used_delta_bytes = 0;
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
    // What the daemon wrote for itself is not the container's.
    let text = "the log of docker web-d, written by dockerd (pid 7, dockerd.service) adds 85.8";
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
            files_removed: 0,
            group: group.clone(),
            volume: "/srv".to_owned(),
            processes: u64::from(second + 1) * 20,
            alive: 0,
            empty: false,
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

/// `filltop check` asks the service, which has seen who filled the volume.
#[test]
fn a_verdict_that_comes_with_the_snapshot_is_used() {
    let mut service = Host::new(Rule::defaults());
    let mut verdicts = crate::verdict::Engine::default();
    for (pid, comm, growth) in [(7, "runaway", 100e6), (1, "steady", 1e6)] {
        service.snapshot.writers = vec![writer(pid, comm, growth)];
        service.volume().used_delta_bytes = growth as i64;
        service.volume().full = comm == "steady";
        for _ in 0..5 {
            verdicts.judge(&mut service.snapshot);
        }
    }
    let mut check = Host::new(Rule::defaults());
    check.snapshot = service.snapshot;
    let events = check.run(1);
    assert!(events[0].summary.contains("runaway (pid 7"), "{}", events[0].summary);
}
