//! The known containers: their names, and the container that a log belongs to.

use std::collections::HashMap;
use std::fs;

use tracer_common::ProcKey;
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind, Pod};

use super::cgroup_path;
use super::cgroup_path::{CgroupOwner, classify};
use super::logs::LogOwner;
use super::runtime_state::{ContainerName, ContainerQuery, RuntimeState};
use super::session;
use tracer_host::cgroup::{Hierarchies, processes};
use tracer_host::mounts::Mount;
use tracer_host::{host_root, mounts};

/// Maximum number of containers that are remembered.
const MAX_CONTAINERS: usize = 16_384;
/// Maximum number of a container's processes that are examined to find the oldest.
const MAX_MEMBERS: usize = 256;

/// How a container is shown.
pub(super) struct ContainerLabel {
    /// `docker`, `pod`, … as in [`Group::kind`].
    pub(super) kind: GroupKind,
    /// The container's name, or its short id.
    pub(super) name: String,
    /// The pod that it belongs to.
    pub(super) pod: Option<Pod>,
    /// Whether `name` is the name that its runtime recorded. Otherwise it is (or ends with) the
    /// short id, and the name is looked up again later.
    pub(super) is_named: bool,
}

/// A container, as it was last seen.
struct KnownContainer {
    group: Group,
    /// See [`ContainerLabel::is_named`].
    is_named: bool,
}

/// The known containers, and the state of their runtimes.
pub(super) struct Containers {
    by_log: HashMap<LogOwner, KnownContainer>,
    runtimes: RuntimeState,
}

impl Default for Containers {
    fn default() -> Self {
        Self { by_log: HashMap::new(), runtimes: RuntimeState::new(host_root::root()) }
    }
}

impl Containers {
    /// Begins a new interval; see [`RuntimeState::next_interval`].
    pub(super) fn next_interval(&mut self) {
        self.runtimes.next_interval();
    }

    /// The pod with this UID, if its name was found.
    pub(super) fn pod(&mut self, uid: &str) -> Option<Pod> {
        self.runtimes.pod(uid).map(|(namespace, name)| Pod { namespace, name })
    }

    /// The name of a container that was started with `ctr run`: its cgroup is `/NAMESPACE/NAME`.
    pub(super) fn containerd_task(&mut self, cgroup: &str) -> Option<String> {
        let mut parts = cgroup.split('/').skip(1);
        let (namespace, name) = (parts.next()?, parts.next()?);
        self.runtimes.is_containerd_task(namespace, name, host_mounts).then(|| name.to_owned())
    }

    /// The label of the container in which the process `pid` runs. `pod` is the UID of its pod.
    pub(super) fn label(
        &mut self,
        runtime: Option<GroupKind>,
        id: &str,
        pod: Option<String>,
        cgroup: &str,
        pid: u32,
    ) -> ContainerLabel {
        let query =
            ContainerQuery { id, user: cgroup_path::user(cgroup).filter(|user| *user != 0) };
        let found = self.runtimes.container(query, || (host_mounts(), mounts_of(cgroup, pid)));
        if let Some(ContainerName { pod: Some((namespace, name, container)), .. }) = found {
            let pod = Pod { namespace, name };
            let name = format!("{}/{container}", pod.full_name());
            return ContainerLabel { kind: GroupKind::Pod, name, pod: Some(pod), is_named: true };
        }
        if let Some(uid) = pod {
            let pod = self.pod(&uid);
            let of = pod.as_ref().map_or(uid, Pod::full_name);
            let name = format!("{of}/{}", short_id(id));
            return ContainerLabel { kind: GroupKind::Pod, name, pod, is_named: false };
        }
        let kind =
            runtime.or(found.as_ref().map(|found| found.runtime)).unwrap_or(GroupKind::Docker);
        let name = found.and_then(|found| found.name);
        let is_named = name.is_some();
        let name = name
            .map_or_else(|| short_id(id).to_owned(), |name| sanitize::lossless(name.as_bytes()));
        ContainerLabel { kind, name, pod: None, is_named }
    }

    /// Looks up the name of a container whose process `proc` was assigned to `group` before the
    /// name was known. Returns the group with its new name and [`ContainerLabel::is_named`]; `None`
    /// if there is nothing new.
    pub(super) fn rename(&mut self, proc: &ProcKey, group: &Group) -> Option<(Group, bool)> {
        let cgroup = group.cgroup.as_deref().filter(|_| group.is_container())?;
        let CgroupOwner::Container { runtime, id, pod } = classify(cgroup) else { return None };
        let ContainerLabel { kind, name, pod, is_named } =
            self.label(runtime, &id, pod, cgroup, proc.tgid);
        if name == group.name {
            return None;
        }
        let group = Group { kind, name, pod, ..group.clone() };
        self.remember(&group, is_named);
        Some((group, is_named))
    }

    /// The name of the container that a monitor watches, looked up by id only: the monitor runs
    /// outside of the container, with other mounts.
    pub(super) fn monitored_name(&self, id: String) -> String {
        let short = short_id(&id).to_owned();
        let known = self.by_log.get(&LogOwner::Container(id.clone()));
        known.map(|known| known.group.name.clone()).unwrap_or_else(|| {
            let found = self.runtimes.in_usual_places(&id).and_then(|found| found.name);
            found.map_or(short, |name| sanitize::lossless(name.as_bytes()))
        })
    }

    /// Remembers a container, so that it can be found by its log. Does nothing for other groups.
    pub(super) fn remember(&mut self, group: &Group, is_named: bool) {
        let Some(cgroup) = group.cgroup.as_deref().filter(|_| group.is_container()) else { return };
        if self.by_log.len() >= MAX_CONTAINERS {
            self.by_log.clear();
        }
        let mut own = group.clone();
        own.cgroup = Some(cgroup_path::directory(cgroup).to_owned());
        if let Some(pod) = &group.pod
            && let Some(container) = group.name.strip_prefix(&format!("{}/", pod.full_name()))
        {
            let Pod { namespace, name } = pod.clone();
            let owner = LogOwner::Pod { namespace, pod: name, container: container.to_owned() };
            self.by_log.insert(owner, KnownContainer { group: own.clone(), is_named });
        }
        if let CgroupOwner::Container { id, .. } = classify(cgroup) {
            // A user may name a cgroup like another user's container.
            let owner = LogOwner::Container(id);
            let user = |group: &Group| group.cgroup.as_deref().and_then(cgroup_path::user);
            let known = self.by_log.get(&owner);
            if known.is_none_or(|known| user(&known.group) == user(&own)) {
                self.by_log.insert(owner, KnownContainer { group: own, is_named });
            }
        }
    }

    /// Whether the container with this log is known.
    pub(super) fn contains(&self, log: &LogOwner) -> bool {
        self.by_log.contains_key(log)
    }

    /// The container that a log belongs to, if it is known, under its name if that has been found
    /// since the container was first seen.
    pub(super) fn of_log(&mut self, log: &LogOwner) -> Option<Group> {
        let KnownContainer { group, is_named } = self.by_log.get(log)?;
        let group = group.clone();
        if *is_named {
            return Some(group);
        }
        // The container's oldest process is found through the cgroup.
        let renamed = self.rename(&ProcKey { start_ns: 0, tgid: 0, pad: 0 }, &group);
        Some(renamed.map_or(group, |(renamed, _)| renamed))
    }
}

fn short_id(id: &str) -> &str {
    &id[..id.len().min(12)]
}

fn host_mounts() -> Vec<Mount> {
    fs::read(host_root::mountinfo()).map(|text| mounts::parse(&text)).unwrap_or_default()
}

/// The mounts that a container sees: those of its oldest process, which the runtime started. Other
/// processes may have created their own mount namespace. Those of `pid` if the cgroup is empty.
fn mounts_of(cgroup: &str, pid: u32) -> Vec<Mount> {
    let oldest = oldest_in(cgroup).unwrap_or(pid);
    let text = fs::read(format!("/proc/{oldest}/mountinfo"));
    text.map(|text| mounts::parse(&text)).unwrap_or_default()
}

/// The pid of a container's oldest process, given the path of a cgroup in the container.
pub(crate) fn oldest_in(cgroup: &str) -> Option<u32> {
    let dirs = Hierarchies::read().directories(cgroup_path::directory(cgroup));
    let pids: Vec<u32> = dirs.iter().flat_map(|dir| processes(dir)).take(MAX_MEMBERS).collect();
    let starts = pids.into_iter().filter_map(|pid| Some((session::stat(pid)?.start_ticks, pid)));
    starts.min().map(|(_, pid)| pid)
}
