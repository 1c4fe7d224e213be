//! What to stop instead of a container runtime: the containers whose logs it writes. Pure: takes the
//! paths of open files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::facts::File;

/// A container whose log a process of the target writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// TARGET for `filltop stop`: `docker/` or `podman/` and a prefix of the container's id, or
    /// NAMESPACE/POD/CONTAINER.
    pub target: String,
    /// Path of the log.
    pub log: String,
    /// Space that the log occupies, bytes.
    pub bytes: u64,
}

/// Maximum number of containers that a plan lists.
pub const MAX_ALTERNATIVES: usize = 3;

/// Returns the containers whose logs are among these files, largest log first.
#[must_use]
pub fn of(files: &[File]) -> Vec<Alternative> {
    let mut logs: BTreeMap<String, Alternative> = BTreeMap::new();
    for file in files {
        let Some(target) = container(&file.path) else { continue };
        let log = Alternative { target: target.clone(), log: file.path.clone(), bytes: file.bytes };
        let largest = logs.entry(target).or_insert_with(|| log.clone());
        if log.bytes > largest.bytes {
            *largest = log;
        }
    }
    let mut logs: Vec<Alternative> = logs.into_values().collect();
    logs.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.target.cmp(&b.target)));
    logs.truncate(MAX_ALTERNATIVES);
    logs
}

/// Returns the container whose log has this path: dockerd's `containers/ID/ID-json.log` and
/// `containers/ID/local-logs/…`, conmon's `overlay-containers/ID/userdata/ctr.log`, and kubelet's
/// `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`.
fn container(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    if let Some(at) = parts.windows(2).position(|pair| pair == ["log", "pods"]) {
        let [pod, container, _] = parts.get(at + 2..)? else { return None };
        let mut names = pod.splitn(3, '_');
        let (space, pod, _) = (names.next()?, names.next()?, names.next()?);
        return Some(format!("{space}/{pod}/{container}"));
    }
    // Podman's logs are below a directory named `containers`, too.
    let at = parts.windows(2).position(|pair| {
        (pair[0] == "containers" || pair[0].ends_with("-containers")) && is_id(pair[1])
    })?;
    let (id, rest) = (parts.get(at + 1)?, parts.get(at + 2..)?);
    // Prefixed with the kind: an id prefix may consist of digits only and would be read as a pid.
    let kind = match rest {
        [file] if file.strip_prefix(id).is_some_and(|rest| rest.starts_with("-json.log")) => {
            "docker"
        }
        ["local-logs", _] => "docker",
        ["userdata", "ctr.log"] => "podman",
        _ => return None,
    };
    Some(format!("{kind}/{}", &id[..12]))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

    #[rstest]
    #[case("/var/lib/docker/containers/{ID}/{ID}-json.log", Some("docker/3f1c2a9be0d8"))]
    #[case("/srv/docker/containers/{ID}/{ID}-json.log.1", Some("docker/3f1c2a9be0d8"))]
    #[case("/var/lib/docker/containers/{ID}/local-logs/container.log", Some("docker/3f1c2a9be0d8"))]
    #[case(
        "/var/lib/containers/storage/overlay-containers/{ID}/userdata/ctr.log",
        Some("podman/3f1c2a9be0d8")
    )]
    #[case("/var/log/pods/shop_web-7d9_5fb2/nginx/0.log", Some("shop/web-7d9/nginx"))]
    #[case("/var/lib/docker/containers/{ID}/config.v2.json", None)]
    #[case("/var/lib/docker/containers/web/web-json.log", None)]
    #[case("/var/log/pods/shop_web-7d9_5fb2/0.log", None)]
    #[case("/var/log/syslog", None)]
    fn the_path_of_a_log_names_its_container(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(container(&path.replace("{ID}", ID)).as_deref(), expected);
    }
}
