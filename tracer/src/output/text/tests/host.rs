//! A Snapshot of a host of containers.

use jiff::Timestamp;
use tracer_model::snapshot::*;

use tracer_model::fixtures::{NOW, idle, path, volume, writer};

const MIB: u64 = 1 << 20;

fn group(kind: GroupKind, name: &str, cgroup: &str) -> Group {
    Group { kind, name: name.to_owned(), cgroup: Some(cgroup.to_owned()), ..Group::default() }
}

/// The row of a group on `/`: one process that wrote `written` bytes in five seconds.
fn group_row(group: &Group, written: u64) -> GroupRow {
    let now = Timestamp::from_second(NOW).unwrap();
    let per_s = written as f64 / 5.0;
    GroupRow {
        files_removed: 0,
        group: group.clone(),
        volume: "/".to_owned(),
        processes: 1,
        alive: 1,
        empty: false,
        written_bytes: written,
        written_total_bytes: written,
        written_bytes_per_s: per_s,
        growth_bytes_per_s: per_s,
        share: 0.0,
        files_created: 0,
        peak_bytes_per_s: per_s,
        peak_at: now,
        first_seen: now,
        last_seen: now,
        spawner: None,
        directory: None,
        log_bytes_per_s: 0.0,
        log_growth_bytes_per_s: 0.0,
        on_behalf_growth_bytes_per_s: 0.0,
    }
}

/// A host with containers: one fills its root, one logs heavily, two in a pod write, an image is
/// being imported, and the shared memory of one fills.
pub(super) fn containers() -> Snapshot {
    const ID: &str = "48312459e8e66dd37c31f2a0e50cec8980720af313f1c2a9be0d84c7f8a65b1c";
    let web = group(GroupKind::Docker, "web-a", &format!("/docker/{ID}"));
    let chatty = group(GroupKind::Docker, "web-d", "/docker/9f");
    let docker = group(GroupKind::Unit, "docker.service", "/system.slice/docker.service");
    let pod = Pod { namespace: "shop".to_owned(), name: "cart-7d9".to_owned() };
    let in_pod = |container: &str| Group {
        pod: Some(pod.clone()),
        ..group(GroupKind::Pod, &format!("shop/cart-7d9/{container}"), "/kubepods/burstable/x")
    };
    let (nginx, sidecar) = (in_pod("nginx"), in_pod("log-sidecar"));
    let mut snapshot = idle();
    snapshot.volumes.push(Volume {
        fs_type: "tmpfs".to_owned(),
        total_bytes: 64 * MIB,
        used_bytes: 48 * MIB,
        avail_bytes: 16 * MIB,
        reserved_bytes: 0,
        growth_bytes_per_s: 4.0 * MIB as f64,
        container: Some(web.clone()),
        label: Some("web-a:/dev/shm".to_owned()),
        ..volume("web-a:/dev/shm")
    });
    let by = |pid: u32, comm: &str, group: &Group, mib: u64| Writer {
        group: Some(group.clone()),
        user: Some("root".to_owned()),
        uid: 0,
        share: mib as f64 / 200.0,
        ..writer(pid, comm, "/", mib * MIB)
    };
    let log = OnBehalf {
        group: chatty.clone(),
        written_bytes: 100 * MIB,
        written_bytes_per_s: 20.0 * MIB as f64,
        growth_bytes_per_s: 20.0 * MIB as f64,
    };
    snapshot.writers = vec![
        Writer { on_behalf_of: vec![log], ..by(700, "dockerd", &docker, 100) },
        by(20553, "w", &web, 50),
        by(3100, "nginx", &nginx, 20),
        Writer {
            cmdline: Some("docker-applyLayer /var/lib/docker/overlay2/b7".to_owned()),
            parents: vec![Parent { pid: 700, comm: "dockerd".to_owned() }],
            ..by(4100, "exe", &docker, 15)
        },
        by(3200, "vector", &sidecar, 10),
        by(5, "bash", &group(GroupKind::Session, "bash[5]", "/"), 5),
    ];
    let file = |name: &str, ino: u64, mib: u64, pid: u32| path(name, "/", ino, mib * MIB, pid);
    snapshot.paths = vec![
        PathRow {
            log_of: Some(chatty.clone()),
            ..file(&format!("/var/lib/docker/containers/{ID}/{ID}-json.log"), 31, 100, 700)
        },
        PathRow {
            path_in_container: Some("/data/a.log".to_owned()),
            container: Some("web-a".to_owned()),
            ..file(&format!("/var/lib/docker/overlay2/{ID}/diff/data/a.log"), 32, 50, 20553)
        },
        PathRow {
            path_in_container: Some("/cache/x".to_owned()),
            ..file(
                "/var/lib/kubelet/pods/5fb2a3c4-d5e6-4789-8abc-0123456789ab/volumes/kubernetes.io~empty-dir/cache/x",
                33,
                20,
                3100,
            )
        },
    ];
    snapshot.groups = vec![
        GroupRow {
            on_behalf_growth_bytes_per_s: 20.0 * MIB as f64,
            ..group_row(&docker, 115 * MIB)
        },
        GroupRow {
            processes: 0,
            alive: 0,
            log_bytes_per_s: 20.0 * MIB as f64,
            log_growth_bytes_per_s: 20.0 * MIB as f64,
            ..group_row(&chatty, 0)
        },
        GroupRow {
            directory: Some(format!("/var/lib/docker/overlay2/{ID}/diff/data")),
            ..group_row(&web, 50 * MIB)
        },
        group_row(&nginx, 20 * MIB),
        group_row(&sidecar, 10 * MIB),
    ];
    snapshot
}
