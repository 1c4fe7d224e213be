//! Names of containers, and the container that a log belongs to.

use std::fs;

use tracer_common::{ProcKey, ProcRecord};
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind, Pod, imports_image};

use super::cgroup_path::{Place, best, classify};
use super::logs::LogOf;
use super::runtime_state::{ContainerName, Sought};
use super::{Groups, cgroup_path, comm, session};
use tracer_host::cgroup::{Hierarchies, processes};
use tracer_host::mounts::Mount;
use tracer_host::{host_root, mounts};

/// Maximum number of containers that are remembered.
const MAX_CONTAINERS: usize = 16_384;
/// Maximum number of a container's processes that are examined to find the oldest.
const MAX_MEMBERS: usize = 256;
/// Intervals between two searches through all processes.
const SEARCH_WINDOWS: u64 = 10;

impl Groups {
    /// The name of a container that was started with `ctr run`: its cgroup is `/NAMESPACE/NAME`.
    pub(super) fn containerd_task(&mut self, cgroup: &str) -> Option<String> {
        let mut parts = cgroup.split('/').skip(1);
        let (namespace, name) = (parts.next()?, parts.next()?);
        self.state.is_containerd_task(namespace, name, host_mounts).then(|| name.to_owned())
    }

    /// Kind, name and pod of the container in which the process `pid` runs.
    pub(super) fn container(
        &mut self,
        runtime: Option<GroupKind>,
        id: &str,
        pod: Option<String>,
        cgroup: &str,
        pid: u32,
    ) -> (GroupKind, String, Option<Pod>) {
        let short = id[..id.len().min(12)].to_owned();
        let sought = Sought { id, user: cgroup_path::user(cgroup).filter(|user| *user != 0) };
        let found = self.state.container(sought, || (host_mounts(), mounts_of(cgroup, pid)));
        if let Some(ContainerName { pod: Some((namespace, name, container)), .. }) = found {
            let pod = Pod { namespace, name };
            return (GroupKind::Pod, format!("{}/{container}", full_name(&pod)), Some(pod));
        }
        if let Some(uid) = pod {
            let pod = self.state.pod(&uid).map(|(namespace, name)| Pod { namespace, name });
            return (
                GroupKind::Pod,
                format!("{}/{short}", pod.as_ref().map_or(uid, full_name)),
                pod,
            );
        }
        let kind =
            runtime.or(found.as_ref().map(|found| found.runtime)).unwrap_or(GroupKind::Docker);
        let name = found.and_then(|found| found.name);
        (kind, name.map_or(short, |name| sanitize::lossless(name.as_bytes())), None)
    }

    /// The group of a container that had no name when it was first seen, and has one now.
    fn renamed(&mut self, met: &Group) -> Option<Group> {
        // The container's oldest process is found through the cgroup.
        self.named_since(&ProcKey { start_ns: 0, tgid: 0, pad: 0 }, met)
    }

    /// The group of a process whose container had no name when the process was assigned to it, and
    /// has one now.
    pub(super) fn named_since(&mut self, proc: &ProcKey, placed: &Group) -> Option<Group> {
        let cgroup = placed.cgroup.as_deref().filter(|_| placed.is_container())?;
        let Place::Container { runtime, id, pod } = classify(cgroup) else { return None };
        if !placed.name.ends_with(&id[..id.len().min(12)]) {
            return None;
        }
        let (kind, name, pod) = self.container(runtime, &id, pod, cgroup, proc.tgid);
        if name == placed.name {
            return None;
        }
        let group = Group { kind, name, pod, ..placed.clone() };
        self.meet(&group);
        Some(group)
    }

    /// The name of a container, looked up by id only: its monitor runs outside of it, with other
    /// mounts.
    pub(super) fn watched_over(&self, id: String) -> String {
        let short = id[..id.len().min(12)].to_owned();
        let met = self.containers.get(&LogOf::Container(id.clone()));
        met.map(|group| group.name.clone()).unwrap_or_else(|| {
            let found = self.state.in_usual_places(&id).and_then(|found| found.name);
            found.map_or(short, |name| sanitize::lossless(name.as_bytes()))
        })
    }

    /// Remembers a container, so that it can be found by its log.
    pub(super) fn meet(&mut self, group: &Group) {
        let Some(cgroup) = group.cgroup.as_deref().filter(|_| group.is_container()) else { return };
        if self.containers.len() >= MAX_CONTAINERS {
            self.containers.clear();
        }
        let mut own = group.clone();
        own.cgroup = Some(cgroup_path::directory(cgroup).to_owned());
        if let Some(pod) = &group.pod
            && let Some(container) = group.name.strip_prefix(&format!("{}/", full_name(pod)))
        {
            let Pod { namespace, name } = pod.clone();
            let of = LogOf::Pod { namespace, pod: name, container: container.to_owned() };
            self.containers.insert(of, own.clone());
        }
        if let Place::Container { id, .. } = classify(cgroup) {
            // A user may name a cgroup like another user's container.
            let of = LogOf::Container(id);
            let owner = |group: &Group| group.cgroup.as_deref().and_then(cgroup_path::user);
            let known = self.containers.get(&of);
            if known.is_none_or(|known| owner(known) == owner(&own)) {
                self.containers.insert(of, own);
            }
        }
    }

    /// The container that a log belongs to. A container that never wrote a file itself is searched
    /// among all processes, at most once in [`SEARCH_WINDOWS`] intervals.
    pub fn container_of(&mut self, log: &LogOf) -> Option<Group> {
        if let Some(known) = self.containers.get(log).cloned() {
            return Some(self.renamed(&known).unwrap_or(known));
        }
        if self.searched.is_none_or(|window| self.window >= window + SEARCH_WINDOWS) {
            self.searched = Some(self.window);
            for pid in all_pids() {
                let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                if let (_, Place::Container { id, .. }) = best(&text)
                    && !self.containers.contains_key(&LogOf::Container(id))
                {
                    // Assigning the process to its group adds the container to `containers`.
                    let _ = self.of_pid(pid);
                }
            }
        }
        self.containers.get(log).cloned()
    }
}

/// A pod as `NAMESPACE/NAME`.
pub(super) fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
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

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether the process unpacks a layer of an image for a container engine.
pub(super) fn is_image_import(record: &ProcRecord) -> bool {
    let program = record.cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = std::str::from_utf8(program).unwrap_or_default();
    imports_image(program, &comm(&record.parent_comm))
}
