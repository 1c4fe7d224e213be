//! The guard chooses the right culprit, escalates in steps, never acts on protected groups, never acts
//! too often, and is deterministic.

mod properties;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::action::Action;
use crate::snapshot::{
    Backend, Blind, BlindCause, Group, GroupKind, GroupRow, Resident, SCHEMA, Snapshot, Victim,
    Volume, WriteBackend, WriteErrors, Writer,
};

const VOLUME: &str = "/data";

fn group(name: &str) -> Group {
    let kind = if name.ends_with(".service") { GroupKind::Unit } else { GroupKind::Cgroup };
    Group { kind, name: name.to_owned(), ..Group::default() }
}

fn row(name: &str, growth: f64) -> GroupRow {
    GroupRow {
        files_removed: 0,
        group: group(name),
        volume: VOLUME.to_owned(),
        processes: 1,
        alive: 1,
        empty: false,
        written_bytes: 0,
        written_total_bytes: 0,
        written_bytes_per_s: growth,
        growth_bytes_per_s: growth,
        share: 0.0,
        files_created: 0,
        peak_bytes_per_s: growth,
        peak_at: Timestamp::UNIX_EPOCH,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        spawner: None,
        directory: None,
        log_bytes_per_s: 0.0,
        log_growth_bytes_per_s: 0.0,
        on_behalf_growth_bytes_per_s: 0.0,
    }
}

fn writer(pid: u32, comm: &str, of: &str) -> Writer {
    Writer {
        thread: None,
        inodes_created: Some(0),
        inodes_removed: Some(0),
        pid,
        start_time: Timestamp::UNIX_EPOCH,
        comm: comm.to_owned(),
        exe: None,
        cmdline: None,
        uid: 0,
        user: None,
        group: Some(group(of)),
        alive: true,
        volume: VOLUME.to_owned(),
        written_bytes: 0,
        allocated_bytes: None,
        freed_bytes: None,
        held_bytes: None,
        written_bytes_per_s: 0.0,
        growth_bytes_per_s: 0.0,
        share: 0.0,
        files: 0,
        errors: WriteErrors::default(),
        fsync: None,
        parents: Vec::new(),
        on_behalf_of: Vec::new(),
        log_senders: Vec::new(),
    }
}

fn victim(pid: u32) -> Victim {
    Victim {
        pid,
        comm: "x".to_owned(),
        volume: VOLUME.to_owned(),
        errors: WriteErrors { enospc: 1, ..WriteErrors::default() },
        waiting_ms: None,
    }
}

/// A Snapshot with one volume that will be full in `eta_s` seconds, or is full if that is 0.
pub(crate) fn snapshot(eta_s: Option<f64>, groups: &[(&str, f64)]) -> Snapshot {
    // Built from JSON, so that fields added to a volume for other purposes need not be listed here.
    let volume = serde_json::json!({
        "mount_point": VOLUME, "mount_points": [VOLUME], "device": "/dev/vdb", "fs_type": "ext4",
        "total_bytes": 1 << 30, "used_bytes": 0, "avail_bytes": 0, "reserved_bytes": 0,
        "inodes_total": 0, "inodes_free": 0, "written_bytes": 0, "used_delta_bytes": 0,
        "growth_bytes_per_s": groups.iter().map(|(_, growth)| growth).sum::<f64>(),
        "full": eta_s == Some(0.0), "limit": "avail", "eta_s": eta_s,
    });
    let volume: Volume = serde_json::from_value(volume).unwrap();
    Snapshot {
        uninspected_processes: 0,
        ended: Vec::new(),
        schema: SCHEMA,
        host: "h".to_owned(),
        taken_at: Timestamp::UNIX_EPOCH,
        interval_s: 1.0,
        backend: Backend {
            write: WriteBackend::Fentry,
            kernel: String::new(),
            hooks: Vec::new(),
            blind_spots: Vec::new(),
            lost_events: 0,
            lost: Vec::new(),
            unattributed_bytes: 0,
            folded_files: 0,
            overhead_ns_per_write: None,
            own_cpu: None,
            capabilities: Vec::new(),
            blind_spot_kinds: Vec::new(),
            sampled_fs_types: Vec::new(),
        },
        volumes: vec![volume],
        writers: vec![writer(70, "postgres", "postgresql.service"), writer(80, "httpd", "/jail")],
        dirs: Vec::new(),
        paths: Vec::new(),
        held: Vec::new(),
        victims: Vec::new(),
        groups: groups.iter().map(|(name, growth)| row(name, *growth)).collect(),
        residents: vec![Resident {
            group: group("postgresql.service"),
            volume: VOLUME.to_owned(),
            processes: 1,
            files: 1,
            bytes: 1,
            largest: String::new(),
            databases: vec!["PostgreSQL".to_owned()],
        }],
    }
}

fn armed() -> GuardConfig {
    GuardConfig { enabled: true, dry_run: false, ..GuardConfig::default() }
}

/// A simulation in which a reversible decision stays in force until `in_force` is cleared.
struct Simulation {
    policy: Policy,
    now_s: f64,
    in_force: BTreeSet<u64>,
}

impl Simulation {
    fn new(config: GuardConfig) -> Self {
        config.check().unwrap();
        Self { policy: Policy::new(config), now_s: 1_000.0, in_force: BTreeSet::new() }
    }

    fn observe(&mut self, seconds: u32, snapshot: &Snapshot) -> Vec<Decision> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            self.now_s += 1.0;
            for decision in self.policy.evaluate(self.now_s, snapshot, &self.in_force) {
                if !decision.dry_run && decision.step.is_some_and(Action::reversible) {
                    self.in_force = BTreeSet::from([decision.id]);
                }
                all.push(decision);
            }
        }
        all
    }
}

const MB: f64 = 1e6;
const INCIDENT: &[(&str, f64)] = &[("/jail", 90.0 * MB), ("postgresql.service", 6.0 * MB)];

fn steps(decisions: &[Decision]) -> Vec<Option<Action>> {
    decisions.iter().map(|decision| decision.step).collect()
}

#[test]
fn a_dry_run_names_the_culprit_once_with_the_reason() {
    let mut simulation = Simulation::new(GuardConfig { dry_run: true, ..armed() });
    let decisions = simulation.observe(1_000, &snapshot(Some(120.0), INCIDENT));
    assert_eq!(steps(&decisions), [Some(Action::Freeze)]);
    let decision = &decisions[0];
    assert_eq!(decision.group.name, "/jail");
    assert_eq!(decision.members, [(80, Some(Timestamp::UNIX_EPOCH))]);
    let text = &decision.explanation;
    assert!(text.starts_with("would freeze cgroup /jail (dry run"), "{text}");
    assert!(text.contains("chosen because /data will be full in 2 min"), "{text}");
    assert!(text.contains("this group caused 94 % of the growth"), "{text}");
    assert!(text.contains("not unit postgresql.service because protected (postgres)"), "{text}");
}

/// Armed by a reload in the middle of an incident, it must not skip the step that was only announced.
#[test]
fn a_guard_that_is_armed_by_a_reload_begins_with_the_first_step() {
    for ladder in [vec![Action::Term, Action::Kill], vec![Action::Freeze, Action::Kill]] {
        let config = GuardConfig { ladder: ladder.clone(), ..armed() };
        let mut simulation = Simulation::new(GuardConfig { dry_run: true, ..config.clone() });
        let incident = snapshot(Some(120.0), INCIDENT);
        let announced = simulation.observe(200, &incident);
        assert_eq!(steps(&announced), [Some(ladder[0])]);
        simulation.policy.replace(config);
        let decisions = simulation.observe(400, &incident);
        let first = decisions.iter().find(|decision| !decision.dry_run).unwrap();
        assert_eq!(first.step, Some(ladder[0]), "{decisions:?}");
    }
}

/// dockerd writes what a container prints; the action must target the container.
#[test]
fn the_growth_of_a_log_is_attributed_to_its_container() {
    let mut incident = snapshot(Some(120.0), &[("docker.service", 90.0 * MB)]);
    let daemon = &mut incident.groups[0];
    daemon.on_behalf_growth_bytes_per_s = 89.0 * MB;
    let mut web = row("/docker/9f", 0.0);
    web.log_growth_bytes_per_s = 89.0 * MB;
    incident.groups.push(web);
    let mut simulation = Simulation::new(armed());
    let decisions = simulation.observe(10, &incident);
    assert_eq!(steps(&decisions), [Some(Action::Freeze)]);
    assert_eq!(decisions[0].group.name, "/docker/9f");
    assert!(decisions[0].share > 0.9, "{:?}", decisions[0]);
}

#[test]
fn a_disabled_guard_decides_nothing() {
    let mut simulation = Simulation::new(GuardConfig { enabled: false, ..armed() });
    assert!(simulation.observe(100, &snapshot(Some(0.0), INCIDENT)).is_empty());
}

#[test]
fn a_fence_is_a_step_and_applies_to_the_endangered_volume() {
    let config = GuardConfig { ladder: vec![Action::Fence, Action::Kill], ..armed() };
    assert_eq!(config.check(), Ok(()));
    let mut simulation = Simulation::new(config);
    simulation.observe(9, &snapshot(Some(120.0), INCIDENT));
    let fence = simulation.observe(1, &snapshot(Some(120.0), INCIDENT));
    assert_eq!(steps(&fence), [Some(Action::Fence)]);
    assert_eq!((fence[0].volume.as_str(), fence[0].for_s), (VOLUME, 3600.0));
    simulation.policy.record_result(fence[0].id, &ActionResult::Done);
    let kill = simulation.observe(61, &snapshot(Some(60.0), INCIDENT));
    assert_eq!(steps(&kill), [Some(Action::Kill)]);
    assert!(kill[0].explanation.contains("fence was not enough"), "{}", kill[0].explanation);
}

#[test]
fn an_enabled_guard_climbs_the_ladder_while_no_operator_intervenes() {
    let mut simulation = Simulation::new(armed());
    assert!(
        simulation.observe(9, &snapshot(Some(120.0), INCIDENT)).is_empty(),
        "too short to blame"
    );
    let freeze = simulation.observe(1, &snapshot(Some(120.0), INCIDENT));
    assert_eq!(steps(&freeze), [Some(Action::Freeze)]);
    simulation.policy.record_result(freeze[0].id, &ActionResult::Done);
    // Frozen: nothing grows. An operator has five minutes to intervene.
    let still = snapshot(None, &[]);
    assert!(simulation.observe(299, &still).is_empty());
    let throttle = simulation.observe(1, &still);
    assert_eq!(steps(&throttle), [Some(Action::Throttle)]);
    assert!(
        throttle[0].explanation.contains("no operator has intervened"),
        "{}",
        throttle[0].explanation
    );
    assert_eq!(throttle[0].rate, Some(1 << 20));
    // Slow enough: no further step.
    assert!(simulation.observe(600, &snapshot(None, &[("/jail", MB)])).is_empty());
    // Not slow enough.
    let slow = snapshot(Some(100.0), &[("/jail", MB)]);
    let term = simulation.observe(61, &slow);
    assert_eq!(steps(&term), [Some(Action::Term)]);
    simulation.policy.record_result(term[0].id, &ActionResult::Done);
    let kill = simulation.observe(61, &slow);
    assert_eq!(steps(&kill), [Some(Action::Kill)]);
    simulation.policy.record_result(kill[0].id, &ActionResult::Ended);
    // After a restart it is a new cause, but four actions in an hour are the limit.
    let again = simulation.observe(600, &snapshot(Some(100.0), INCIDENT));
    assert_eq!(steps(&again), [None]);
    assert!(again[0].explanation.contains("4 actions in the last hour"), "{again:?}");
    let later = simulation.observe(3_600, &snapshot(Some(100.0), INCIDENT));
    assert_eq!(later[0].step, Some(Action::Freeze), "{later:?}");
}

#[test]
fn a_resumed_group_is_left_alone_until_a_new_episode() {
    let mut simulation = Simulation::new(armed());
    let freeze = simulation.observe(10, &snapshot(Some(120.0), INCIDENT));
    assert_eq!(steps(&freeze), [Some(Action::Freeze)]);
    simulation.in_force.clear();
    assert!(simulation.observe(1_000, &snapshot(Some(120.0), INCIDENT)).is_empty());
    // The danger is over for longer than the cool-down, and then returns.
    assert!(simulation.observe(70, &snapshot(None, INCIDENT)).is_empty());
    let again = simulation.observe(20, &snapshot(Some(120.0), INCIDENT));
    assert_eq!(steps(&again), [Some(Action::Freeze)]);
}

#[test]
fn a_group_refused_by_the_final_check_is_left_alone() {
    let mut simulation = Simulation::new(armed());
    let freeze = simulation.observe(10, &snapshot(Some(0.0), INCIDENT));
    simulation
        .policy
        .record_result(freeze[0].id, &ActionResult::Refused("your own session".to_owned()));
    assert!(simulation.observe(2_000, &snapshot(Some(0.0), INCIDENT)).is_empty());
}

#[test]
fn the_culprit_on_a_full_volume_is_the_group_that_filled_it() {
    let mut simulation = Simulation::new(armed());
    simulation.policy.config.within = Seconds(1.0);
    assert!(simulation.observe(30, &snapshot(Some(120.0), INCIDENT)).is_empty());
    // Full: nothing grows, and every write fails.
    let mut full = snapshot(Some(0.0), &[]);
    full.victims = vec![victim(70), victim(80)];
    let decisions = simulation.observe(1, &full);
    assert_eq!(steps(&decisions), [Some(Action::Freeze)]);
    assert_eq!(decisions[0].group.name, "/jail");
}

#[test]
fn a_victim_that_uses_freed_space_is_not_a_culprit() {
    let mut simulation = Simulation::new(armed());
    simulation.policy.config.within = Seconds(1.0);
    simulation.observe(30, &snapshot(Some(120.0), &[("/jail", 90.0 * MB), ("/shop", 9.0 * MB)]));
    let mut full = snapshot(Some(0.0), &[]);
    full.writers.push(writer(90, "shop", "/shop"));
    full.victims = vec![victim(90)];
    let freeze = simulation.observe(1, &full);
    assert_eq!(freeze[0].group.name, "/jail");
    // The jail is gone; only the shop writes into the freed space.
    full.groups = vec![row("/shop", 20.0 * MB)];
    full.victims.clear();
    let decisions = simulation.observe(120, &full);
    assert_eq!(steps(&decisions), [None], "{decisions:?}");
    assert!(decisions[0].explanation.contains("it is a victim"), "{decisions:?}");
}

#[test]
fn a_database_that_fills_the_volume_is_named_but_not_acted_on() {
    let mut simulation = Simulation::new(armed());
    let decisions =
        simulation.observe(300, &snapshot(Some(60.0), &[("postgresql.service", 50.0 * MB)]));
    assert_eq!(steps(&decisions), [None]);
    let text = &decisions[0].explanation;
    assert!(text.contains("no action on unit postgresql.service: protected"), "{text}");
}

#[test]
fn a_burst_is_not_a_cause_and_ignored_growth_does_not_count() {
    let mut simulation = Simulation::new(armed());
    simulation.observe(9, &snapshot(Some(60.0), &[("/a", 5.0 * MB), ("/b", 5.0 * MB)]));
    // A burst in the last second makes 84 % of the total, but not of the first half.
    assert!(simulation.observe(1, &snapshot(Some(60.0), &[("/a", 500.0 * MB)])).is_empty());
    let ignore = vec!["^/b$".parse().unwrap()];
    let mut simulation = Simulation::new(GuardConfig { ignore, ..armed() });
    let both = snapshot(Some(60.0), &[("/a", 5.0 * MB), ("/b", 5.0 * MB)]);
    assert_eq!(simulation.observe(10, &both)[0].group.name, "/a");
}

#[test]
fn a_preferred_group_needs_half_the_share() {
    let both = snapshot(Some(60.0), &[("/a", 5.0 * MB), ("/b", 4.5 * MB)]);
    assert!(Simulation::new(armed()).observe(100, &both).is_empty());
    let prefer = vec!["^/b$".parse().unwrap()];
    let mut simulation = Simulation::new(GuardConfig { prefer, ..armed() });
    assert_eq!(simulation.observe(100, &both)[0].group.name, "/b");
}

#[test]
fn no_action_is_taken_while_most_of_the_growth_is_unexplained() {
    let mut simulation = Simulation::new(armed());
    let mut hidden = snapshot(Some(120.0), INCIDENT);
    let blind = Blind {
        cause: BlindCause::Unexplained,
        unexplained_bytes: 90 << 20,
        grown_bytes: 100 << 20,
        over_s: 10.0,
    };
    hidden.volumes[0].blind = Some(blind);
    let decisions = simulation.observe(100, &hidden);
    assert_eq!(steps(&decisions), [None], "reported once");
    // Enough of the growth is explained: the guard acts as usual.
    hidden.volumes[0].blind = Some(Blind { unexplained_bytes: 10 << 20, ..blind });
    assert_eq!(steps(&simulation.observe(1, &hidden)), [Some(Action::Freeze)]);
}

#[test]
fn names_that_differ_only_in_a_number_are_reported_separately() {
    let mut simulation =
        Simulation::new(GuardConfig { avoid: vec!["^worker".parse().unwrap()], ..armed() });
    for name in ["worker-1.service", "worker-2.service"] {
        let decisions = simulation.observe(100, &snapshot(Some(120.0), &[(name, 9e7)]));
        assert_eq!(steps(&decisions), [None], "{name}: once");
        assert_eq!(decisions[0].group.name, name);
    }
}

#[test]
fn of_two_containers_of_one_name_the_growing_one_is_chosen() {
    let mut simulation = Simulation::new(armed());
    let mut two = snapshot(Some(120.0), &[("web", 90.0 * MB), ("web", 1e3)]);
    for (row, digit) in two.groups.iter_mut().zip(["a", "b"]) {
        row.group.kind = GroupKind::Podman;
        row.group.cgroup = Some(format!("/libpod_parent/libpod-{}", digit.repeat(64)));
    }
    let decisions = simulation.observe(100, &two);
    assert_eq!(steps(&decisions)[0], Some(Action::Freeze));
    assert_eq!(decisions[0].group, two.groups[0].group);
    assert!(decisions.iter().all(|decision| decision.group == two.groups[0].group));
}
