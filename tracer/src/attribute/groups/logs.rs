//! Finds the container that a log belongs to: the daemons and monitors of container runtimes write
//! the output of containers.
//!
//! A path alone is no proof, because any user can create a file of that name: the writer must also
//! belong to the runtime ([`is_log_driver`]).
//!
//! Sources: Docker's log drivers json-file and local (moby/daemon/logger); conmon(8) with k8s-file and
//! json-file; the log directories of Kubernetes (kubelet's `BuildContainerLogsDirectory`, the same
//! for every runtime that speaks the CRI).

use tracer_model::snapshot::Group;

use super::cgroup_path;

/// The container that a log belongs to, as far as the log's path identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogOwner {
    /// A container, by its id of 64 hexadecimal digits.
    Container(String),
    /// A container of a pod.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The container's name in the pod.
        container: String,
    },
}

/// Daemons and monitors that write logs, by comm (at most 15 bytes).
const DRIVERS: &[&str] =
    &["dockerd", "conmon", "conmonrs", "containerd", "containerd-shim", "crio", "kubelet"];

/// Determines the container of a log from its host path; `None` if it is not a container's log.
#[must_use]
pub fn owner(path: &str) -> Option<LogOwner> {
    let mut parts = path.rsplit('/');
    let (file, dir, above, top) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    // json-file: containers/ID/ID-json.log, and .1, .2.gz after a rotation.
    if above == "containers"
        && is_id(dir)
        && file
            .strip_prefix(dir)
            .and_then(|rest| rest.strip_prefix("-json.log"))
            .is_some_and(is_rotation_suffix)
    {
        return Some(LogOwner::Container(dir.to_owned()));
    }
    // local: containers/ID/local-logs/container.log
    if dir == "local-logs"
        && top == Some("containers")
        && is_id(above)
        && file.strip_prefix("container.log").is_some_and(is_rotation_suffix)
    {
        return Some(LogOwner::Container(above.to_owned()));
    }
    // Podman and its storage drivers: overlay-containers/ID/userdata/ctr.log
    if dir == "userdata"
        && top.is_some_and(|top| top.ends_with("-containers"))
        && is_id(above)
        && file.strip_prefix("ctr.log").is_some_and(is_rotation_suffix)
    {
        return Some(LogOwner::Container(above.to_owned()));
    }
    // CRI: NAMESPACE_POD_UID/CONTAINER/N.log
    let (restarts, rest) = file.split_once(".log")?;
    let is_number = !restarts.is_empty() && restarts.bytes().all(|byte| byte.is_ascii_digit());
    let mut names = above.split('_');
    let (namespace, pod, uid) = (names.next()?, names.next()?, names.next()?);
    let is_pod = names.next().is_none() && [namespace, pod, uid, dir].into_iter().all(is_label);
    (is_number && is_rotation_suffix(rest) && is_pod).then(|| LogOwner::Pod {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: dir.to_owned(),
    })
}

/// Whether this process is a log driver of that container. `group` is the group of the process,
/// `uid` its user on the host.
///
/// Root processes outside of all containers are trusted. Another user's process is trusted only for
/// that user's own containers (a rootless runtime), so that a user cannot attribute a log to
/// another user's container by choosing the file's name.
#[must_use]
pub fn is_log_driver(comm: &str, uid: u32, group: Option<&Group>, container: &Group) -> bool {
    if !DRIVERS.contains(&comm) || group.is_some_and(Group::is_container) {
        return false;
    }
    uid == 0 || container.cgroup.as_deref().and_then(cgroup_path::user) == Some(uid)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `rest` may follow a log's name: nothing, or the suffix of a rotated log (`.1`, `.2.gz`,
/// `.tmp`, `.20261129-120000`).
fn is_rotation_suffix(rest: &str) -> bool {
    rest.is_empty()
        || rest.strip_prefix('.').is_some_and(|rest| {
            let rest = rest.strip_suffix(".gz").unwrap_or(rest);
            rest == "tmp"
                || (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
        })
}

/// Whether this is a name that Kubernetes allows: RFC 1123, dots included.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use tracer_model::snapshot::GroupKind;

    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

    #[rstest]
    #[case("/var/lib/docker/containers/{ID}/{ID}-json.log")]
    #[case("/srv/docker/containers/{ID}/{ID}-json.log.1")]
    #[case("/srv/docker/containers/{ID}/{ID}-json.log.2.gz")]
    #[case("/var/lib/docker/containers/{ID}/local-logs/container.log")]
    #[case("/var/lib/docker/containers/{ID}/local-logs/container.log.3.gz")]
    #[case("/var/lib/containers/storage/overlay-containers/{ID}/userdata/ctr.log")]
    #[case("/home/ann/.local/share/containers/storage/vfs-containers/{ID}/userdata/ctr.log")]
    #[case("/var/lib/containers/storage/overlay-containers/{ID}/userdata/ctr.log.tmp")]
    fn a_containers_log_is_known_by_its_path(#[case] path: &str) {
        assert_eq!(owner(&path.replace("{ID}", ID)), Some(LogOwner::Container(ID.to_owned())));
    }

    #[rstest]
    #[case("/var/log/pods/shop_web-7d9_5fb2a3c4-d5e6-4789-8abc-0123456789ab/nginx/0.log")]
    #[case("/srv/logs/shop_web-7d9_5fb2/nginx/12.log.20261129-120000")]
    #[case("/var/log/pods/shop_web-7d9_5fb2/nginx/0.log.20261129-120000.gz")]
    fn a_pods_log_is_known_by_its_path(#[case] path: &str) {
        let [namespace, pod, container] = ["shop", "web-7d9", "nginx"].map(str::to_owned);
        assert_eq!(owner(path), Some(LogOwner::Pod { namespace, pod, container }));
    }

    #[rstest]
    #[case("/var/log/syslog")]
    #[case("0.log")]
    #[case("/var/lib/docker/containers/{ID}/other-json.log")]
    #[case("/var/lib/docker/containers/{ID}/{ID}-json.logs")]
    #[case("/var/lib/docker/containers/{ID}/{ID}-json.log.evil")]
    #[case("/var/lib/docker/containers/web/web-json.log")]
    #[case("/var/lib/docker/volumes/{ID}/local-logs/container.log")]
    #[case("/var/lib/docker/overlay2/{ID}/diff/{ID}-json.log")]
    #[case("/var/lib/containers/storage/overlay/{ID}/userdata/ctr.log")]
    #[case("/var/log/pods/shop_web_7d9_5fb2/nginx/0.log")]
    #[case("/var/log/pods/shop_web-7d9/nginx/0.log")]
    #[case("/var/log/pods/shop_web-7d9_5fb2/nginx/current.log")]
    #[case("/var/log/pods/sh op_web-7d9_5fb2/nginx/0.log")]
    fn other_files_are_not_container_logs(#[case] path: &str) {
        assert_eq!(owner(&path.replace("{ID}", ID)), None);
    }

    #[test]
    fn only_the_runtime_writes_logs() {
        let group = |kind, cgroup: &str| Group {
            kind,
            name: "x".to_owned(),
            cgroup: Some(cgroup.to_owned()),
            ..Group::default()
        };
        let web = group(GroupKind::Docker, &format!("/system.slice/docker-{ID}.scope"));
        let unit = group(GroupKind::Unit, "/system.slice/docker.service");
        assert!(is_log_driver("dockerd", 0, Some(&unit), &web));
        assert!(is_log_driver("conmon", 0, None, &web));
        assert!(!is_log_driver("rsyslogd", 0, Some(&unit), &web), "not a runtime");
        assert!(!is_log_driver("dockerd", 0, Some(&web), &web), "in a container");
        assert!(!is_log_driver("conmon", 1000, None, &web), "another user's container");
        let own =
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope");
        let own = group(GroupKind::Podman, &own);
        assert!(is_log_driver("conmon", 1000, Some(&unit), &own));
        assert!(!is_log_driver("conmon", 1001, Some(&unit), &own));
        let forged = group(GroupKind::Cgroup, "/x/user.slice/user-1000.slice/user@1000.service");
        assert!(!is_log_driver("conmon", 1000, None, &forged));
    }
}
