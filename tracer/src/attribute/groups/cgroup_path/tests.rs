use rstest::rstest;

use super::*;

const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
const UID: &str = "5fb2a3c4-d5e6-4789-8abc-0123456789ab";

#[rstest]
// systemd
#[case("/system.slice/nginx.service", CgroupOwner::Unit("nginx.service".into()))]
#[case("/system.slice/system-apache2.slice/apache2@web3.service", CgroupOwner::Unit("apache2@web3.service".into()))]
#[case(r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-1.service", CgroupOwner::Unit("systemd-fsck@dev-disk-by-uuid-1.service".into()))]
#[case("/system.slice/postgresql@15-main.service/worker/3", CgroupOwner::Unit("postgresql@15-main.service".into()))]
#[case("/user.slice/user-1000.slice/session-3.scope", CgroupOwner::Unit("session-3.scope".into()))]
#[case("/user.slice/user-1000.slice/user@1000.service/init.scope", CgroupOwner::Unit("user@1000".into()))]
#[case("/user.slice/user-1000.slice/user@1000.service", CgroupOwner::Unit("user@1000".into()))]
#[case(r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome\x2dterminal-77.scope", CgroupOwner::Unit("user@1000/app-gnome-terminal-77.scope".into()))]
#[case("/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service/x", CgroupOwner::Unit("user@1000/backup.service".into()))]
#[case("/init.scope", CgroupOwner::Unit("init.scope".into()))]
#[case("/system.slice", CgroupOwner::Unit("system.slice".into()))]
#[case("/system.slice/run-r1.scope", CgroupOwner::Unit("run-r1.scope".into()))]
#[case("/system.slice/containerd.service", CgroupOwner::Unit("containerd.service".into()))]
#[case("/system.slice/docker.service", CgroupOwner::Unit("docker.service".into()))]
// LXC, nspawn, libvirt
#[case("/lxc/web3", CgroupOwner::Lxc("web3".into()))]
#[case("/lxc/web3/system.slice/cron.service", CgroupOwner::Lxc("web3".into()))]
#[case("/lxc.payload.web3/init.scope", CgroupOwner::Lxc("web3".into()))]
#[case("/lxc.payload/web3/init.scope", CgroupOwner::Lxc("web3".into()))]
#[case("/machine.slice/systemd-nspawn@db.service/payload/system.slice/x.service", CgroupOwner::Machine("db".into()))]
#[case(r"/machine.slice/machine-build\x2dhost.scope", CgroupOwner::Machine("build-host".into()))]
#[case(r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0", CgroupOwner::Machine("qemu-1-vm".into()))]
// BuildKit
#[case("/docker/buildkit/pr6r0a1b2c3d4e5f6g7h8i9j0", CgroupOwner::Build { id: "pr6r0a1b2c3d4e5f6g7h8i9j0".into() })]
#[case("/system.slice/docker-pr6r0a1b2c3d4e5f6g7h8i9j0.scope", CgroupOwner::Build { id: "pr6r0a1b2c3d4e5f6g7h8i9j0".into() })]
#[case("/docker/buildkit", CgroupOwner::Plain("/docker/buildkit".into()))]
#[case("/docker/buildkit/other", CgroupOwner::Plain("/docker/buildkit/other".into()))]
// plain
#[case("/jobs/nightly", CgroupOwner::Plain("/jobs/nightly".into()))]
#[case("/docker", CgroupOwner::Plain("/docker".into()))]
#[case("/docker/not-an-id", CgroupOwner::Plain("/docker/not-an-id".into()))]
#[case("/deadbeefdeadbeefdeadbeefdeadbeef", CgroupOwner::Plain("/deadbeefdeadbeefdeadbeefdeadbeef".into()))]
#[case("/", CgroupOwner::Root)]
#[case("", CgroupOwner::Root)]
#[case("/..", CgroupOwner::Root)]
fn the_path_identifies_the_owner(#[case] path: &str, #[case] expected: CgroupOwner) {
    assert_eq!(classify(path), expected);
}

#[rstest]
// Docker: cgroupfs, systemd, v1, inside a container, in a nested cgroup namespace
#[case("/docker/{ID}", Some(GroupKind::Docker), false)]
#[case("/system.slice/docker-{ID}.scope", Some(GroupKind::Docker), false)]
#[case(
    "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope",
    Some(GroupKind::Docker),
    false
)]
#[case("/docker/{ID}/system.slice/nginx.service", Some(GroupKind::Docker), false)]
#[case("/docker/{ID}/docker/aa", Some(GroupKind::Docker), false)]
#[case("/../docker/{ID}", Some(GroupKind::Docker), false)]
#[case("/ecs/9b4c/{ID}", None, false)]
// Podman: rootful, rootless, conmon, cgroupfs
#[case("/machine.slice/libpod-{ID}.scope/container", Some(GroupKind::Podman), false)]
#[case("/libpod_parent/{ID2}/libpod-{ID}", Some(GroupKind::Podman), false)]
#[case("/libpod_parent/{ID}", Some(GroupKind::Podman), false)]
#[case(
    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
    Some(GroupKind::Podman),
    false
)]
#[case(
    "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service/libpod-payload-{ID}",
    Some(GroupKind::Podman),
    false
)]
#[case("/libpod_parent/libpod-{ID}", Some(GroupKind::Podman), false)]
// containerd without Kubernetes
#[case("/default/{ID}", Some(GroupKind::Containerd), false)]
#[case("/system.slice/nerdctl-{ID}.scope", Some(GroupKind::Containerd), false)]
// Kubernetes: systemd and cgroupfs drivers, all three classes of service
#[case(
    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_ID}.slice/cri-containerd-{ID}.scope",
    Some(GroupKind::Containerd),
    true
)]
#[case(
    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U_ID}.slice/crio-{ID}.scope",
    Some(GroupKind::Crio),
    true
)]
#[case("/kubepods.slice/kubepods-pod{U_ID}.slice/docker-{ID}.scope", Some(GroupKind::Docker), true)]
#[case("/kubepods/burstable/pod{UID}/{ID}", None, true)]
#[case("/kubepods/pod{UID}/{ID}/sub", None, true)]
#[case("/kubelet.slice/kubelet-kubepods.slice/kubepods/besteffort/pod{UID}/{ID}", None, true)]
#[case(
    "/system.slice/containerd.service/kubepods-burstable-pod{U_ID}.slice:cri-containerd:{ID}",
    Some(GroupKind::Containerd),
    true
)]
#[case("/kubepods-besteffort-pod{U_ID}.slice:crio:{ID}", Some(GroupKind::Crio), true)]
fn containers_are_recognised(
    #[case] path: &str,
    #[case] runtime: Option<GroupKind>,
    #[case] in_pod: bool,
) {
    let path = path
        .replace("{ID}", ID)
        .replace("{ID2}", &"ab".repeat(32))
        .replace("{U_ID}", &UID.replace('-', "_"))
        .replace("{UID}", UID);
    let pod = in_pod.then(|| UID.to_owned());
    assert_eq!(classify(&path), CgroupOwner::Container { runtime, id: ID.to_owned(), pod });
}

#[rstest]
#[case("/lxc.monitor.web3", "lxc-start", GroupKind::Lxc, Some("web3"))]
#[case("/lxc.monitor/web3/x", "lxc-start", GroupKind::Lxc, Some("web3"))]
#[case("/machine.slice/libpod-conmon-{ID}.scope", "conmon", GroupKind::Podman, Some("{ID}"))]
#[case(
    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{ID}.scope",
    "conmon",
    GroupKind::Podman,
    Some("{ID}")
)]
#[case("/libpod_parent/conmon", "conmon", GroupKind::Podman, None)]
#[case("/libpod_parent/{ID}/conmon", "conmon", GroupKind::Podman, None)]
#[case(
    "/kubepods.slice/kubepods-pod{U_ID}.slice/crio-conmon-{ID}.scope",
    "conmon",
    GroupKind::Crio,
    Some("{ID}")
)]
#[case("/system.slice/crio-conmon-{ID}.scope", "conmon", GroupKind::Crio, Some("{ID}"))]
#[case(
    "/machine.slice/systemd-nspawn@db.service/supervisor",
    "systemd-nspawn",
    GroupKind::Machine,
    Some("db")
)]
fn monitors_are_recognised(
    #[case] path: &str,
    #[case] program: &'static str,
    #[case] runtime: GroupKind,
    #[case] of: Option<&str>,
) {
    let path = path.replace("{ID}", ID).replace("{U_ID}", &UID.replace('-', "_"));
    let of = of.map(|of| of.replace("{ID}", ID));
    assert_eq!(classify(&path), CgroupOwner::Monitor { program, runtime, of });
}

#[test]
fn the_payload_is_the_machine() {
    // systemd-nspawn itself runs in a sibling cgroup.
    let payload = "/machine.slice/systemd-nspawn@db.service/payload";
    assert_eq!(directory(&format!("{payload}/init.scope")), payload);
    assert_eq!(directory(payload), payload);
    let scope = "/machine.slice/machine-db.scope";
    assert_eq!(directory(&format!("{scope}/system.slice/x.service")), scope);
    assert_eq!(directory("/lxc.payload.jail/init.scope"), "/lxc.payload.jail");
}

#[test]
fn a_name_like_a_monitors_is_not_a_monitor() {
    let own = CgroupOwner::Plain("/jobs/conmon".to_owned());
    assert_eq!(classify("/jobs/conmon"), own);
    let unit = CgroupOwner::Unit("x.service".to_owned());
    assert_eq!(classify("/system.slice/x.service/supervisor"), unit);
}

#[test]
fn a_containers_own_directory_is_the_topmost_one() {
    let path = format!("/machine.slice/libpod-{ID}.scope");
    assert_eq!(directory(&format!("{path}/container/x")), path);
    assert_eq!(directory(&path), path);
    assert_eq!(directory("/jobs/nightly"), "/jobs/nightly");
}

#[rstest]
#[case("/user.slice/user-1000.slice/user@1000.service/user.slice/x.scope", Some(1000))]
#[case("/user.slice/user-0.slice/session-3.scope", Some(0))]
#[case("/user.slice", None)]
#[case("/user.slice/user-.slice", None)]
#[case("/x/user.slice/user-1000.slice", None)]
#[case("/system.slice/docker.service", None)]
fn the_slice_identifies_the_user(#[case] path: &str, #[case] expected: Option<u32>) {
    assert_eq!(user(path), expected);
}

#[test]
fn a_pod_without_a_container_is_the_pod() {
    let path = format!("/kubepods/burstable/pod{UID}");
    assert_eq!(classify(&path), CgroupOwner::Pod { uid: UID.to_owned() });
    let hash = "0123456789abcdef0123456789abcdef";
    let path =
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice");
    assert_eq!(classify(&path), CgroupOwner::Pod { uid: hash.to_owned() });
}

#[rstest]
#[case::v2("0::/system.slice/a.service\n", "/system.slice/a.service")]
#[case::v1(
    "11:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
    "/docker/{ID}"
)]
#[case::v1_systemd(
    "9:memory:/\n1:name=systemd:/system.slice/a.service\n",
    "/system.slice/a.service"
)]
#[case::hybrid(
    "9:memory:/jobs\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n",
    "/system.slice/a.service"
)]
#[case::hybrid_plain("9:memory:/\n1:name=systemd:/\n0::/jobs/x\n", "/jobs/x")]
#[case::hybrid_container(
    "9:memory:/docker/{ID}\n1:name=systemd:/\n0::/system.slice/docker.service\n",
    "/docker/{ID}"
)]
#[case::v1_controller_alone("9:memory:/jobs\n1:name=systemd:/\n0::/\n", "/jobs")]
#[case::deleted("0::/system.slice/a.service (deleted)\n", "/system.slice/a.service")]
#[case::nothing("", "/")]
#[case::damaged("nonsense\n0::\n", "")]
fn the_most_specific_hierarchy_is_used(#[case] text: &str, #[case] path: &str) {
    let (found, owner) = most_specific(&text.replace("{ID}", ID));
    assert_eq!(found, path.replace("{ID}", ID));
    assert_eq!(owner, classify(&found));
}
