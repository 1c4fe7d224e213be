//! A plan never allows an action on a protected process, reports what is freed, and is deterministic.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::action::Relation;
use crate::action::facts::Method;
use crate::action::protect::tests::process;
use crate::action::restart::{Manager, RestartPolicy};
use crate::action::subject_kind::SubjectKind;
use crate::snapshot::{Group, GroupKind};

fn all_methods() -> Vec<Method> {
    Action::ALL.into_iter().map(|how| Method { how, by: Ok("method".to_owned()) }).collect()
}

fn facts(processes: Vec<Process>, files: Vec<File>) -> Facts {
    let subject = Subject {
        argument: "70".to_owned(),
        kind: SubjectKind::Tree,
        name: "httpd".to_owned(),
        cgroup: None,
    };
    Facts { subject, processes, files, methods: all_methods(), restart: None, warnings: Vec::new() }
}

fn request(how: Action) -> PlanRequest {
    PlanRequest { how, intent: Intent::Asked, file: None }
}

fn file(path: &str, bytes: u64, deleted: bool, others: &[u32]) -> File {
    File {
        path: path.to_owned(),
        path_in_container: None,
        link: None,
        volume: "/".to_owned(),
        bytes,
        deleted,
        pid: 70,
        fd: Some(3),
        others: others.to_vec(),
        kernel: false,
    }
}

fn plan(facts: &Facts, request: &PlanRequest) -> Plan {
    Plan::new(facts, request, &Protection::default())
}

#[test]
fn a_reason_added_later_refuses_the_step_too() {
    let mut plan = plan(&facts(vec![process(70, "httpd")], Vec::new()), &request(Action::Freeze));
    assert!(plan.allowed());
    plan.refuse("no".to_owned());
    assert_eq!((plan.refusal().as_str(), plan.steps[0].refused.as_deref()), ("no", Some("no")));
    assert_eq!(plan.steps[1].refused, None);
}

#[test]
fn a_file_that_the_kernel_or_only_a_mapping_holds() {
    let mapped = File { fd: None, ..file("/mapped", 500, true, &[]) };
    let backing = File { kernel: true, ..file("/backing", 90, true, &[]) };
    let facts = facts(vec![process(70, "httpd")], vec![mapped, backing]);
    let kill = plan(&facts, &request(Action::Kill));
    assert_eq!(kill.frees_bytes, 500, "the loop device still has its file");
    assert!(kill.warnings.iter().any(|line| line.starts_with("90 B") && line.contains("kernel")));
    let truncate = |name: &str| {
        let file = Some(name.to_owned());
        plan(&facts, &PlanRequest { file, ..request(Action::Truncate) })
    };
    assert!(truncate("/mapped").refusal().contains("no process of the target has a descriptor"));
    assert_eq!((truncate("/backing").frees_bytes, truncate("/backing").allowed()), (90, true));
}

#[test]
fn a_file_with_a_name_frees_nothing_and_a_deleted_one_is_freed() {
    let files = vec![
        file("/named", 1_000, false, &[]),
        file("/held", 500, true, &[]),
        file("/shared", 90, true, &[99]),
    ];
    let facts = facts(vec![process(70, "httpd")], files);
    for (how, freed) in
        [(Action::Freeze, 0), (Action::Throttle, 0), (Action::Term, 500), (Action::Kill, 500)]
    {
        let plan = plan(&facts, &request(how));
        assert_eq!((plan.frees_bytes, plan.allowed()), (freed, true), "{how:?}");
    }
    let kill = plan(&facts, &request(Action::Kill));
    assert!(
        kill.warnings.iter().any(|warning| warning.starts_with("90 B of deleted files")),
        "{kill:?}"
    );
    assert_eq!(kill.undo, None);
    assert_eq!(plan(&facts, &request(Action::Freeze)).undo.as_deref(), Some("filltop resume 70"));
}

#[test]
fn truncating_needs_a_deleted_file_by_name() {
    let files = vec![file("/named", 1_000, false, &[]), file("/held", 500, true, &[99])];
    let facts = facts(vec![process(70, "httpd")], files);
    let asked = |file: Option<&str>| {
        plan(&facts, &PlanRequest { file: file.map(str::to_owned), ..request(Action::Truncate) })
    };
    assert!(asked(None).refused[0].contains("--file"));
    assert!(asked(Some("/named")).refused[0].contains("is not deleted"));
    assert!(asked(Some("/other")).refused[0].contains("no such file"));
    assert!(asked(Some("3")).refused[0].contains("descriptor"));
    let plan = asked(Some("/held"));
    assert_eq!((plan.frees_bytes, plan.allowed()), (500, true));
    assert!(plan.warnings.iter().any(|warning| warning.contains("destroys")));
}

#[test]
fn a_file_of_a_container_is_found_by_each_of_its_names() {
    let file = File {
        path_in_container: Some("/data/e.log".to_owned()),
        link: Some("/merged/data/e.log".to_owned()),
        ..file("/srv/diff/data/e.log", 500, true, &[])
    };
    let group = Group { kind: GroupKind::Docker, name: "web:e".to_owned(), ..Group::default() };
    let fd = file.fd.unwrap().to_string();
    let facts = facts(vec![Process { group: Some(group), ..process(file.pid, "w") }], vec![file]);
    let names = ["/srv/diff/data/e.log", "/data/e.log", "/merged/data/e.log", "web:e:/data/e.log"];
    for wanted in names.into_iter().chain([fd.as_str()]) {
        assert!(facts.named_file(wanted).is_ok(), "{wanted}");
    }
    for wanted in ["data/e.log", "web:/data/e.log", "web:e:/srv/diff/data/e.log", "/data"] {
        assert!(facts.named_file(wanted).is_err(), "{wanted}");
    }
}

#[test]
fn a_unit_without_processes_can_only_be_stopped_as_a_unit() {
    let facts = facts(vec![], vec![]);
    assert!(plan(&facts, &request(Action::Unit)).allowed());
    assert_eq!(plan(&facts, &request(Action::Kill)).refused, [TargetRefusal::Ended.to_string()]);
}

#[test]
fn an_action_that_is_not_possible_here_is_refused_with_the_reason() {
    let mut facts = facts(vec![process(70, "httpd")], vec![]);
    facts.methods[2].by = Err("no BPF LSM".to_owned());
    let plan = plan(&facts, &request(Action::Fence));
    assert_eq!((plan.refused, plan.by), (vec!["no BPF LSM".to_owned()], None));
}

#[test]
fn the_root_cgroup_is_refused() {
    let mut facts = facts(vec![process(70, "httpd")], vec![]);
    facts.subject.cgroup = Some("/".to_owned());
    assert!(plan(&facts, &request(Action::Freeze)).refused[0].contains("root cgroup"));
}

#[test]
fn the_restart_policy_is_listed_for_the_steps_that_terminate() {
    let policy = RestartPolicy { by: Manager::Docker, policy: Some("always".to_owned()) };
    let facts = Facts { restart: Some(policy), ..facts(vec![process(70, "w")], vec![]) };
    let plan = plan(&facts, &request(Action::Kill));
    let restart = plan.step().unwrap().restart.clone().unwrap();
    assert_eq!((restart.by, restart.returns), (Manager::Docker, Some(true)));
    let json = serde_json::to_value(&plan).unwrap();
    let steps: Vec<&str> = json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step.get("restart").is_some())
        .filter_map(|step| step["how"].as_str())
        .collect();
    assert_eq!(steps, ["term", "kill"]);
    let restart = &json["steps"][4]["restart"];
    let expected = serde_json::json!({"by": "docker", "policy": "always", "returns": true});
    assert_eq!(*restart, expected);
}

#[test]
fn processes_that_ignore_sigterm_are_listed() {
    let init = Process { ignores_term: true, ..process(71, "w") };
    let plan = plan(&facts(vec![process(70, "sh"), init], vec![]), &request(Action::Term));
    assert_eq!(plan.step().unwrap().ignored_by, [71]);
    let count = plan.steps.iter().filter(|step| !step.ignored_by.is_empty()).count();
    assert_eq!((count, plan.allowed()), (1, true));
}

#[test]
fn the_members_of_a_named_group_count_as_named() {
    let of_role = |role| Process { role, ..process(70, "w") };
    let count = |role| {
        plan(&facts(vec![of_role(role)], vec![]), &request(Action::Kill)).blast_radius.processes
    };
    assert_eq!([Role::Target, Role::Member, Role::Child, Role::Parent].map(count), [0, 0, 1, 1]);
}

#[test]
fn a_runtime_that_is_refused_names_the_containers_whose_logs_it_writes() {
    let id = |digit: &str| digit.repeat(64);
    let log = |digit: &str, bytes| {
        file(&format!("/d/containers/{0}/{0}-json.log", id(digit)), bytes, false, &[])
    };
    let files = vec![log("a", 100), log("b", 900), file("/var/log/syslog", 9_000, false, &[])];
    let alternatives = |comm: &str| {
        let plan = plan(&facts(vec![process(70, comm)], files.clone()), &request(Action::Freeze));
        let targets: Vec<String> = plan.alternatives.into_iter().map(|log| log.target).collect();
        targets
    };
    assert_eq!(
        alternatives("dockerd"),
        ["b", "a"].map(|digit| format!("docker/{}", digit.repeat(12)))
    );
    assert!(alternatives("cp").is_empty(), "a target that may be stopped needs no alternative");
}

#[test]
fn a_frozen_container_has_effects() {
    let in_group = |pid, kind| {
        let group = Group { kind, name: "web".to_owned(), ..Group::default() };
        Process { group: Some(group), role: Role::Member, ..process(pid, "w") }
    };
    let effects = |kind, how| {
        plan(&facts(vec![in_group(70, kind), in_group(71, kind)], vec![]), &request(how)).effects
    };
    assert!(effects(GroupKind::Docker, Action::Freeze).contains(&Effect::HealthChecks));
    assert!(effects(GroupKind::Pod, Action::Freeze).contains(&Effect::Probes));
    assert!(!effects(GroupKind::Docker, Action::Freeze).contains(&Effect::Probes));
    for (kind, how) in [
        (GroupKind::Docker, Action::Kill),
        (GroupKind::Unit, Action::Freeze),
        (GroupKind::Cgroup, Action::Freeze),
    ] {
        assert_eq!(effects(kind, how), []);
    }
    let mixed = facts(vec![in_group(70, GroupKind::Docker), in_group(71, GroupKind::Unit)], vec![]);
    assert_eq!(plan(&mixed, &request(Action::Freeze)).effects, []);
}

fn some_process() -> impl Strategy<Value = Process> {
    let names = ["httpd", "sshd", "postgres", "systemd-journald", "dd", "containerd-shim"];
    let units = [None, Some("ssh.service"), Some("web.service"), Some("dbus.service")];
    let relations =
        [Relation::None, Relation::None, Relation::None, Relation::Ancestor, Relation::Ourselves];
    (1u32..200, 0usize..6, 0usize..4, 0usize..5, 0u8..10).prop_map(
        move |(pid, name, unit, relation, kernel)| Process {
            relation: relations[relation],
            kernel_thread: kernel == 0,
            group: units[unit].map(|unit| Group {
                kind: GroupKind::Unit,
                name: unit.to_owned(),
                ..Group::default()
            }),
            role: Role::Member,
            ..process(pid, names[name])
        },
    )
}

proptest! {
    #[test]
    fn a_plan_never_allows_a_protected_process_and_is_deterministic(
        processes in prop::collection::vec(some_process(), 0..12),
        how in prop::sample::select(Action::ALL.to_vec()),
        automatic in any::<bool>(),
        bytes in 0u64..1_000_000,
    ) {
        let intent = if automatic { Intent::Automatic } else { Intent::Asked };
        let facts = facts(processes.clone(), vec![file("/held", bytes, true, &[])]);
        let request = PlanRequest { how, intent, file: Some("/held".to_owned()) };
        let plan = plan(&facts, &request);
        let rules = Protection::default();
        let protected = processes.iter().any(|process| rules.refusal(process, intent).is_some());
        prop_assert!(!(protected && plan.allowed()), "{plan:?}");
        let frees = if how.ends() || how == Action::Truncate { bytes } else { 0 };
        prop_assert_eq!(plan.frees_bytes, frees);
        // Neither the order of the facts nor a second run changes the decision.
        let mut other = facts.clone();
        other.processes.reverse();
        let again = Plan::new(&other, &request, &rules);
        prop_assert_eq!(again.allowed(), plan.allowed());
        let mut affected = (plan.processes.clone(), again.processes);
        affected.0.sort_by_key(|process| (process.pid, process.comm.clone()));
        affected.1.sort_by_key(|process| (process.pid, process.comm.clone()));
        if processes.iter().map(|p| p.pid).collect::<BTreeSet<_>>().len() == processes.len() {
            prop_assert_eq!(affected.0, affected.1);
        }
        prop_assert_eq!(Plan::new(&facts, &request, &rules), plan);
    }
}
