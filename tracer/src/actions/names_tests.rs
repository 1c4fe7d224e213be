//! Names, ids and id prefixes; an ambiguous name is refused.

use rstest::rstest;

use super::*;

const WEB: &str = "abc12a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
const DB: &str = "abd12a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f507";
const NUMBERS: &str = "123412a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50";
const POD: &str = "5fb2a3c4-d5e6-4789-8abc-0123456789ab";
const OTHER_POD: &str = "6ab2a3c4-d5e6-4789-8abc-0123456789ab";

fn candidate(kind: GroupKind, name: &str, cgroup: &str, comms: &[&str]) -> Candidate {
    let group = Group {
        kind,
        name: name.to_owned(),
        cgroup: Some(cgroup.to_owned()).filter(|path| !path.is_empty()),
        ..Group::default()
    };
    let comms = comms.iter().map(|comm| (*comm).to_owned()).collect();
    Candidate { group, comms, roots: Vec::new() }
}

fn pod(space: &str, uid: &str, container: &str, id: &str, comm: &str) -> Candidate {
    let path = format!("/kubepods/burstable/pod{uid}/{id}");
    candidate(GroupKind::Pod, &format!("{space}/web-7d9/{container}"), &path, &[comm])
}

/// A machine with groups of most kinds.
fn machine() -> Vec<Candidate> {
    vec![
        candidate(GroupKind::Docker, "web", &format!("/docker/{WEB}"), &["nginx"]),
        candidate(GroupKind::Docker, "db", &format!("/docker/{DB}"), &["postgres"]),
        // Its name is a prefix of the first container's id.
        candidate(GroupKind::Docker, "abc12", "/docker/9912a9be0d84", &["dd"]),
        candidate(GroupKind::Podman, "1234", &format!("/libpod_parent/libpod-{NUMBERS}"), &["w"]),
        candidate(GroupKind::Monitor, "conmon 1234", "/libpod_parent/conmon", &["conmon"]),
        candidate(GroupKind::Lxc, "jail1", "/lxc.payload.jail1", &["systemd", "w"]),
        candidate(GroupKind::Monitor, "lxc-start jail1", "/lxc.monitor.jail1", &["lxc-start"]),
        candidate(GroupKind::Monitor, "lxc-start jail2", "/lxc.monitor.jail2", &["lxc-start"]),
        candidate(GroupKind::Unit, "nginx.service", "/system.slice/nginx.service", &["nginx"]),
        candidate(GroupKind::Session, "bash by sshd", "", &["bash"]),
        pod("shop", POD, "nginx", WEB, "nginx"),
        pod("shop", POD, "logger", DB, "logger"),
        pod("shop", POD, "POD", NUMBERS, "pause"),
    ]
}

fn found(argument: &str, candidates: &[Candidate]) -> String {
    match resolve(argument, candidates) {
        Ok(Resolved::Group(group)) => format!("{} {}", group.group.kind, group.group.name),
        Ok(Resolved::Pod { name, containers, sandbox }) => {
            format!("pod {name}, containers: {}, sandbox: {}", containers.len(), sandbox.len())
        }
        Err(ResolveError::NotFound(_)) => "nothing".to_owned(),
        Err(ResolveError::Ambiguous { list, .. }) => format!("one of {}", list.join(", ")),
        Err(ResolveError::Monitor { monitor, .. }) => format!("monitor {monitor}"),
    }
}

#[rstest]
#[case("web", "docker web")]
#[case("docker/web", "docker web")]
#[case("podman/web", "nothing")]
#[case("we", "nothing")]
#[case("nginx", "unit nginx.service")]
#[case("nginx.service", "unit nginx.service")]
#[case("unit/nginx", "unit nginx.service")]
#[case("bash by sshd", "session bash by sshd")]
// LXC's monitor is never mistaken for the container.
#[case("jail1", "lxc jail1")]
#[case("lxc/jail1", "lxc jail1")]
#[case("jail2", "monitor lxc-start jail2")]
#[case("lxc/jail2", "monitor lxc-start jail2")]
#[case("docker/jail2", "nothing")]
#[case("lxc-start jail1", "monitor lxc-start jail1")]
#[case("conmon 1234", "monitor conmon 1234")]
#[case("podman/1234", "podman 1234")]
// An exact name takes precedence over an id prefix; fewer than three digits are not a prefix.
#[case("abc12", "docker abc12")]
#[case("ab", "nothing")]
#[case("ABD", "nothing")]
#[case("docker/123", "nothing")]
#[case("podman/123", "podman 1234")]
#[case("123", "nothing")]
#[case("docker/abd", "docker db")]
#[case("pod/abc12a", "pod shop/web-7d9/nginx")]
// A pod is all of its containers except the sandbox.
#[case("web-7d9", "pod shop/web-7d9, containers: 2, sandbox: 1")]
#[case("shop/web-7d9", "pod shop/web-7d9, containers: 2, sandbox: 1")]
#[case("pod/web-7d9", "pod shop/web-7d9, containers: 2, sandbox: 1")]
#[case("pod/shop/web-7d9", "pod shop/web-7d9, containers: 2, sandbox: 1")]
#[case("shop/web-7d9/nginx", "pod shop/web-7d9/nginx")]
#[case(POD, "pod shop/web-7d9, containers: 2, sandbox: 1")]
#[case("shop", "nothing")]
fn a_name_resolves_to_one_target(#[case] argument: &str, #[case] expected: &str) {
    assert_eq!(found(argument, &machine()), expected);
}

#[test]
fn an_id_prefix_of_two_containers_is_refused() {
    // The same ids also belong to a pod here, so even a longer prefix is ambiguous.
    let result = found("abd12", &machine());
    assert_eq!(result, "one of docker/db, pod/shop/web-7d9/logger");
    let two = [
        candidate(GroupKind::Docker, "web", &format!("/docker/{WEB}"), &["nginx"]),
        candidate(GroupKind::Docker, "db", &format!("/docker/{DB}"), &["postgres"]),
    ];
    assert_eq!(found("ab", &two), "nothing");
    assert_eq!(found("abc", &two), "docker web");
    let third = format!("abc9{}", &WEB[4..]);
    let three = [
        two.to_vec(),
        vec![candidate(GroupKind::Docker, "c", &format!("/docker/{third}"), &["x"])],
    ];
    assert_eq!(found("abc", &three.concat()), "one of docker/c, docker/web");
    assert_eq!(found("abc1", &three.concat()), "docker web");
    assert_eq!(found(WEB, &three.concat()), "docker web");
}

#[test]
fn a_name_of_several_kinds_is_refused() {
    let both = [
        candidate(GroupKind::Docker, "web", &format!("/docker/{WEB}"), &["nginx"]),
        candidate(GroupKind::Lxc, "web", "/lxc.payload.web", &["nginx"]),
        candidate(GroupKind::Unit, "web.service", "/system.slice/web.service", &["nginx"]),
    ];
    assert_eq!(found("web", &both), "one of docker/web, lxc/web, unit/web.service");
    assert_eq!(found("lxc/web", &both), "lxc web");
}

#[test]
fn containers_of_one_name_are_listed_with_their_cgroups() {
    let rootless = format!("/user.slice/user@1000.service/user.slice/docker-{DB}.scope");
    let two = [
        candidate(GroupKind::Docker, "web", &format!("/docker/{WEB}"), &["nginx"]),
        candidate(GroupKind::Docker, "web", &rootless, &["nginx"]),
    ];
    let result = found("docker/web", &two);
    assert!(result.starts_with("one of docker/web (/docker/abc12"), "{result}");
    assert_eq!(found(&DB[..8], &two), "docker web");
}

#[test]
fn a_protected_group_yields_to_another_of_the_same_name() {
    let shim = candidate(GroupKind::Docker, "web", "/docker/x/shim", &["containerd-shim"]);
    let web = candidate(GroupKind::Docker, "web", &format!("/docker/{WEB}"), &["nginx"]);
    assert_eq!(resolve("web", &[shim.clone(), web.clone()]), Ok(Resolved::Group(web.clone())));
    assert_eq!(resolve("web", &[web.clone(), shim.clone()]), Ok(Resolved::Group(web)));
    // Nothing is removed across kinds: the other kind may be the intended one.
    let lxc = candidate(GroupKind::Lxc, "web", "/lxc.payload.web", &["nginx"]);
    assert_eq!(found("web", &[shim, lxc]), "one of docker/web, lxc/web");
}

#[test]
fn a_recreated_pod_is_a_different_pod() {
    let mut pods = vec![pod("shop", POD, "nginx", WEB, "nginx")];
    pods.push(pod("shop", OTHER_POD, "nginx", DB, "nginx"));
    let result = found("web-7d9", &pods);
    let both = [POD, OTHER_POD].map(|uid| format!("pod/shop/web-7d9 ({uid})")).join(", ");
    assert_eq!(result, format!("one of {both}"));
    assert_eq!(found(OTHER_POD, &pods), "pod shop/web-7d9, containers: 1, sandbox: 0");
    // The same name in two namespaces.
    let pods = [pod("shop", POD, "a", WEB, "a"), pod("test", OTHER_POD, "a", DB, "a")];
    assert_eq!(found("web-7d9", &pods), "one of pod/shop/web-7d9, pod/test/web-7d9");
    assert_eq!(found("test/web-7d9", &pods), "pod test/web-7d9, containers: 1, sandbox: 0");
}

#[test]
fn a_namespace_with_the_name_of_a_runtime_is_refused() {
    let both = [
        candidate(GroupKind::Docker, "web-7d9", &format!("/docker/{WEB}"), &["nginx"]),
        pod("docker", POD, "nginx", DB, "nginx"),
    ];
    assert_eq!(found("docker/web-7d9", &both), "one of docker/web-7d9, pod/docker/web-7d9");
}

#[test]
fn a_pod_without_a_known_name_is_named_by_its_uid() {
    let path = format!("/kubepods/pod{POD}/{WEB}");
    let unknown = [candidate(GroupKind::Pod, &format!("{POD}/{}", &WEB[..12]), &path, &["x"])];
    assert_eq!(found(POD, &unknown), format!("pod {POD}, containers: 1, sandbox: 0"));
    assert_eq!(found(&WEB[..6], &unknown), format!("pod {POD}/{}", &WEB[..12]));
}
