//! Determines from a cgroup's path what owns it. Pure: a path in, a [`CgroupOwner`] out.
//!
//! Sources: systemd.unit(5) and its escapes; Docker's, Podman's, containerd's and CRI-O's cgroup
//! managers (cgroupfs and systemd drivers); kubelet's `kubepods` trees; lxc.container.conf(5);
//! systemd-nspawn(1).

#[cfg(test)]
mod tests;

use tracer_model::snapshot::GroupKind;

/// The owner of a cgroup: a container, a unit, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupOwner {
    /// A container, by its id of 64 hexadecimal digits (32 in some runtimes).
    Container {
        /// `docker`, `podman`, `containerd`, `crio`; `None` if the path does not show it.
        runtime: Option<GroupKind>,
        /// The container's id.
        id: String,
        /// UID of the container's Kubernetes pod, with dashes.
        pod: Option<String>,
    },
    /// A pod itself: its pause container or its own processes.
    Pod {
        /// The pod's UID, with dashes.
        uid: String,
    },
    /// A step of `docker build` (BuildKit), by its id of 25 letters and digits.
    Build {
        /// The id of the build step.
        id: String,
    },
    /// A container of LXC or LXD, by name.
    Lxc(String),
    /// A machine of systemd-nspawn or of libvirt, by name.
    Machine(String),
    /// The monitor of a container, which runs outside of it: conmon, lxc-start, systemd-nspawn.
    /// Never the container itself.
    Monitor {
        /// The program, e.g. `conmon`.
        program: &'static str,
        /// `podman`, `crio`, `lxc` or `machine`.
        runtime: GroupKind,
        /// Id or name of the container; `None` if one cgroup holds the monitors of all containers.
        of: Option<String>,
    },
    /// A systemd unit; a unit of a user's manager is `user@UID/NAME`.
    Unit(String),
    /// A cgroup that belongs to none of these, by path.
    Plain(String),
    /// The root cgroup.
    Root,
}

impl CgroupOwner {
    /// How specific it is: of several hierarchies, the most specific one is used.
    const fn rank(&self) -> u8 {
        match self {
            Self::Container { .. } | Self::Build { .. } | Self::Monitor { .. } => 5,
            Self::Pod { .. } | Self::Lxc(_) | Self::Machine(_) => 4,
            Self::Unit(_) => 3,
            Self::Plain(_) => 2,
            Self::Root => 0,
        }
    }
}

/// Prefixes of a container's scope, with the runtime that uses it. Longer ones first.
const SCOPES: &[(&str, Option<GroupKind>)] = &[
    ("cri-containerd-", Some(GroupKind::Containerd)),
    ("crio-", Some(GroupKind::Crio)),
    ("libpod-payload-", Some(GroupKind::Podman)),
    ("libpod-", Some(GroupKind::Podman)),
    ("docker-", Some(GroupKind::Docker)),
    ("nerdctl-", Some(GroupKind::Containerd)),
    ("containerd-", Some(GroupKind::Containerd)),
];

/// Prefixes of the scope of a container's monitor, with the runtime.
const MONITOR_SCOPES: &[(&str, GroupKind)] =
    &[("crio-conmon-", GroupKind::Crio), ("libpod-conmon-", GroupKind::Podman)];

/// Directories whose children are containers, with the runtime.
const PARENTS: &[(&str, Option<GroupKind>)] = &[
    ("docker", Some(GroupKind::Docker)),
    ("actions_job", Some(GroupKind::Docker)),
    ("libpod_parent", Some(GroupKind::Podman)),
    ("k8s.io", Some(GroupKind::Containerd)),
    ("default", Some(GroupKind::Containerd)),
    ("moby", Some(GroupKind::Docker)),
];

/// Determines the owner of a cgroup from its path as /proc/PID/cgroup prints it.
#[must_use]
pub fn classify(path: &str) -> CgroupOwner {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    if parts.is_empty() {
        return CgroupOwner::Root;
    }
    let mut pod = None;
    for (index, part) in parts.iter().enumerate() {
        // containerd and CRI-O with a systemd-style path but the cgroupfs driver: SLICE:PREFIX:ID.
        for piece in part.split(':') {
            pod = pod_uid(piece).or(pod);
        }
        if let Some(monitor) = monitor(&parts, index) {
            return monitor;
        }
        // Podman's pods with cgroupfs: /libpod_parent/POD/libpod-ID.
        if index > 0
            && parts[index - 1] == "libpod_parent"
            && parts
                .get(index + 1)
                .is_some_and(|next| *next == "conmon" || next.starts_with("libpod-"))
        {
            continue;
        }
        // The outermost container wins; containers that run inside it belong to it.
        if let Some((runtime, id)) = container(part, index.checked_sub(1).map(|i| parts[i])) {
            return CgroupOwner::Container { runtime, id, pod };
        }
        if let Some(id) = build(part, index.checked_sub(1).map(|i| parts[i])) {
            return CgroupOwner::Build { id: id.to_owned() };
        }
        if let Some(owner) = guest(&parts, index) {
            return owner;
        }
    }
    if let Some(uid) = pod {
        return CgroupOwner::Pod { uid };
    }
    unit(&parts).unwrap_or_else(|| CgroupOwner::Plain(format!("/{}", parts.join("/"))))
}

/// The most specific path of the lines of /proc/PID/cgroup, with its owner.
#[must_use]
pub fn most_specific(proc_cgroup: &str) -> (String, CgroupOwner) {
    let mut best: Option<(u8, u8, String, CgroupOwner)> = None;
    for line in proc_cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // A container may have removed its cgroup while the process still exits.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let owner = classify(path);
        let order = match (id, controllers) {
            ("0", _) => 2,
            (_, "name=systemd") => 1,
            _ => 0,
        };
        let rank = owner.rank();
        if best.as_ref().is_none_or(|(r, o, ..)| (rank, order) > (*r, *o)) {
            best = Some((rank, order, path.to_owned(), owner));
        }
    }
    best.map_or_else(|| ("/".to_owned(), CgroupOwner::Root), |(.., path, owner)| (path, owner))
}

fn container(part: &str, parent: Option<&str>) -> Option<(Option<GroupKind>, String)> {
    let mut pieces = part.rsplit(':');
    let last = pieces.next()?;
    let name = last.strip_suffix(".scope").unwrap_or(last);
    if let Some(prefix) = pieces.next()
        && is_id(name)
    {
        let runtime = SCOPES.iter().find(|(known, _)| known.trim_end_matches('-') == prefix);
        return Some((runtime.and_then(|(_, runtime)| *runtime), name.to_owned()));
    }
    for (prefix, runtime) in SCOPES {
        if let Some(id) = name.strip_prefix(prefix)
            && is_id(id)
        {
            return Some((*runtime, id.to_owned()));
        }
    }
    if !is_id(name) {
        return None;
    }
    let runtime = PARENTS.iter().find(|(known, _)| Some(*known) == parent);
    match runtime {
        Some((_, runtime)) => Some((*runtime, name.to_owned())),
        // Amazon ECS, Kubernetes with cgroupfs, Garden, …: a full id identifies a container.
        None if name.len() == 64 => Some((None, name.to_owned())),
        None => None,
    }
}

/// The id of a build step: `buildkit/ID` (cgroupfs), `docker-ID.scope` (systemd), from
/// moby/buildkit/executor/oci.
fn build<'a>(part: &'a str, parent: Option<&str>) -> Option<&'a str> {
    let scope = || part.strip_prefix("docker-")?.strip_suffix(".scope");
    let id = if parent == Some("buildkit") { part } else { scope()? };
    let is_one = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (id.len() == 25 && id.bytes().all(is_one)).then_some(id)
}

/// The cgroup of the container, machine or unit itself, of which `path` may be a descendant.
#[must_use]
pub fn directory(path: &str) -> &str {
    let owner = classify(path);
    let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at);
    // systemd-nspawn itself may run in `supervisor`, a sibling of `payload`.
    let is_payload_sibling = |part: &str| {
        matches!(owner, CgroupOwner::Machine(_))
            && path[part.len()..].split('/').nth(1) == Some("payload")
    };
    ends.map(|end| &path[..end])
        .find(|part| classify(part) == owner && !is_payload_sibling(part))
        .unwrap_or(path)
}

/// The user whose systemd slice contains the cgroup, as for rootless runtimes.
#[must_use]
pub fn user(path: &str) -> Option<u32> {
    let mut parts = path.split('/').skip(1);
    (parts.next() == Some("user.slice")).then_some(())?;
    parts.next()?.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok()
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 12 | 32 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The UID of a pod: from `pod5fb2…` (cgroupfs) or `kubepods-burstable-pod5fb2_….slice` (systemd).
fn pod_uid(part: &str) -> Option<String> {
    let name = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => &slice[slice.rfind("-pod")? + 4..],
        Some(_) => return None,
        None => part.strip_prefix("pod")?,
    };
    let uid = name.replace('_', "-");
    // Static pods are named by a hash.
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    (digits == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(uid)
}

/// A monitor: conmon of Podman and CRI-O, lxc-start, or systemd-nspawn if it has its own cgroup.
fn monitor(parts: &[&str], index: usize) -> Option<CgroupOwner> {
    let part = parts[index];
    let monitored = |program, runtime, of| Some(CgroupOwner::Monitor { program, runtime, of });
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in MONITOR_SCOPES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
            return monitored("conmon", *runtime, Some(id.to_owned()));
        }
    }
    // Podman with cgroupfs: one monitor cgroup for all containers, or one per pod.
    if part == "conmon" && parts[..index].contains(&"libpod_parent") {
        return monitored("conmon", GroupKind::Podman, None);
    }
    let next = parts.get(index + 1);
    let lxc = match part.strip_prefix("lxc.monitor.") {
        Some(name) => Some(name),
        None => next.copied().filter(|_| part == "lxc.monitor"),
    };
    if let Some(name) = lxc {
        return monitored("lxc-start", GroupKind::Lxc, Some(unescape(name)));
    }
    let name = nspawn(part).filter(|_| next == Some(&"supervisor"))?;
    monitored("systemd-nspawn", GroupKind::Machine, Some(name))
}

/// The name of the machine that `systemd-nspawn@NAME.service` runs.
fn nspawn(part: &str) -> Option<String> {
    Some(unescape(part.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?))
}

/// A container of LXC, or a machine of systemd-nspawn or libvirt.
fn guest(parts: &[&str], index: usize) -> Option<CgroupOwner> {
    let part = parts[index];
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(CgroupOwner::Lxc(unescape(name)));
    }
    if matches!(part, "lxc" | "lxc.payload")
        && let Some(name) = parts.get(index + 1)
    {
        return Some(CgroupOwner::Lxc(unescape(name)));
    }
    if let Some(name) = nspawn(part) {
        return Some(CgroupOwner::Machine(name));
    }
    let name = part.strip_prefix("machine-")?.strip_suffix(".scope")?;
    Some(CgroupOwner::Machine(unescape(name)))
}

fn unit(parts: &[&str]) -> Option<CgroupOwner> {
    const KINDS: [&str; 5] = [".service", ".scope", ".mount", ".socket", ".swap"];
    let is_unit = |part: &&&str| KINDS.iter().any(|kind| part.ends_with(kind));
    let manager = parts
        .iter()
        .position(|part| part.strip_prefix("user@").is_some_and(|rest| rest.ends_with(".service")));
    if let Some(at) = manager {
        let user = parts[at].trim_end_matches(".service");
        let inner = parts[at + 1..].iter().find(is_unit).filter(|name| **name != "init.scope");
        return Some(CgroupOwner::Unit(match inner {
            Some(inner) => format!("{user}/{}", unescape(inner)),
            None => user.to_owned(),
        }));
    }
    // The outermost unit: cgroups below it belong to it.
    if let Some(name) = parts.iter().find(is_unit) {
        return Some(CgroupOwner::Unit(unescape(name)));
    }
    let last = parts.last()?;
    last.ends_with(".slice").then(|| CgroupOwner::Unit(unescape(last)))
}

/// Decodes systemd's escapes for bytes that a unit's name must not contain, such as `\x2d`.
fn unescape(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code =
            bytes.get(at..at + 4).filter(|escape| escape.starts_with(b"\\x")).and_then(|escape| {
                u8::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
            });
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}
