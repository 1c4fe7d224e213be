//! Assigns each process to the group it is rolled up to: systemd unit, container, machine, cgroup,
//! else session.
//!
//! The eBPF side sends the cgroup, session, root directory, mount namespace, parent and grandparent
//! of each new writer, so that a process that exits before /proc can be read still gets its group.
//! /proc is read only if cgroup v1 is in use, because the eBPF side does not send its paths.

pub(crate) mod cgroup_path;
mod cgroups;
pub(crate) mod containers;
pub(crate) mod history;
pub(crate) mod logs;
mod membership;
mod process_facts;
pub(crate) mod runtime_state;
pub(crate) mod session;
pub(crate) mod volumes;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use tracer_common::{NameRecord, ProcKey, ProcRecord};
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind, Pod};

use self::cgroup_path::{CgroupOwner, classify, most_specific};
use self::cgroups::Cgroups;
use self::containers::Containers;
use self::logs::LogOwner;
pub use self::membership::Membership;
pub(super) use self::process_facts::mount_namespace;
use self::process_facts::{chroot, comm, is_image_import, is_running, start_ticks};
use self::session::{SessionMember, Sessions};
use super::paths::Names;
use super::views::Views;
use tracer_host::cgroup;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::stat::{NS_PER_TICK, is_same_process};
use tracer_host::process::threads;

/// Number of processes above which the least recently used groups are forgotten. Groups are
/// remembered after a process ends.
const MAX_KNOWN: usize = 65_536;

/// Maximum number of parents whose cgroup is remembered.
const MAX_PARENTS: usize = 16_384;

/// Intervals between two searches for containers among all processes.
const SEARCH_INTERVALS: u64 = 10;

/// Group memberships of all writers. Keyed by process.
pub struct Groups {
    known: HashMap<ProcKey, Membership>,
    /// cgroup v1 paths of parents, which may not have written anything themselves.
    parents: HashMap<ProcKey, String>,
    /// The last known process of each pid.
    by_pid: HashMap<u32, ProcKey>,
    /// Records from the eBPF side that are not yet assigned to a group.
    unassigned: Vec<ProcRecord>,
    containers: Containers,
    /// The last interval in which all processes were searched for containers.
    searched_in: Option<u64>,
    cgroups: Cgroups,
    sessions: Sessions,
    host_mnt_ns: Option<u32>,
    has_v1: bool,
    /// Number of the present interval.
    interval: u64,
}

impl Default for Groups {
    fn default() -> Self {
        let v1 = |text: String| text.lines().any(|line| !line.starts_with("0::"));
        Self {
            known: HashMap::new(),
            parents: HashMap::new(),
            by_pid: HashMap::new(),
            unassigned: Vec::new(),
            containers: Containers::default(),
            searched_in: None,
            cgroups: Cgroups::read(),
            sessions: Sessions::default(),
            host_mnt_ns: mount_namespace("1").or_else(|| mount_namespace("self")),
            has_v1: fs::read_to_string("/proc/self/cgroup").is_ok_and(v1),
            interval: 0,
        }
    }
}

impl Groups {
    /// Adds a process that the eBPF side described; [`Groups::assign_new`] assigns it to a group.
    pub(crate) fn add_process(&mut self, record: &ProcRecord) {
        self.unassigned.push(*record);
    }

    /// Adds the name of a cgroup that has just been created.
    pub(crate) fn add_cgroup(&mut self, record: &NameRecord) {
        self.cgroups.insert(record);
    }

    /// Assigns the new processes to groups, after the names that follow their records have arrived.
    pub(crate) fn assign_new(
        &mut self,
        names: &mut Names,
        views: &mut Views,
        volumes: &[MountedVolume],
    ) {
        for record in std::mem::take(&mut self.unassigned) {
            let member = self.assign(&record, names, volumes);
            if self.has_private_root(&member) {
                views.read(&record.proc, member.mnt_ns, member.root);
            }
            self.by_pid.insert(record.proc.tgid, record.proc);
            self.known.insert(record.proc, member);
        }
    }

    /// The membership of a process. A process that the eBPF side could not describe is read from
    /// /proc.
    pub(crate) fn member(&mut self, proc: &ProcKey) -> Option<&Membership> {
        if !self.known.contains_key(proc) {
            let member = self.read_from_proc(proc)?;
            self.known.insert(*proc, member);
        }
        let member = self.known.get_mut(proc)?;
        if member.is_unnamed
            && let Some((group, is_named)) = self.containers.rename(proc, &member.group)
        {
            (member.group, member.is_unnamed) = (group, !is_named);
        }
        member.used_in = self.interval;
        Some(member)
    }

    /// The group of the process that has this pid now.
    pub(crate) fn of_pid(&mut self, pid: u32) -> Option<Group> {
        let ticks = session::stat(pid)?.start_ticks;
        let known = self.by_pid.get(&pid).filter(|proc| start_ticks(proc) == ticks).copied();
        let proc = known.unwrap_or_else(|| {
            let proc = ProcKey { start_ns: ticks * NS_PER_TICK, tgid: pid, pad: 0 };
            self.by_pid.insert(pid, proc);
            proc
        });
        self.member(&proc).map(|member| member.group.clone())
    }

    /// Known processes of a mount namespace that still run, oldest first.
    #[must_use]
    pub(crate) fn in_namespace(&self, mnt_ns: u32) -> Vec<u32> {
        let members = self.known.iter().filter(|(_, member)| member.mnt_ns == mnt_ns);
        let mut members: Vec<ProcKey> =
            members.map(|(proc, _)| *proc).filter(is_same_process).collect();
        members.sort_unstable_by_key(|proc| (proc.start_ns, proc.tgid));
        members.into_iter().map(|proc| proc.tgid).collect()
    }

    /// Whether the process sees files under other paths than the host: it has a chroot or another
    /// mount namespace.
    #[must_use]
    pub(crate) fn has_private_root(&self, member: &Membership) -> bool {
        let foreign =
            self.host_mnt_ns.is_some_and(|host| member.mnt_ns != 0 && member.mnt_ns != host);
        foreign || member.group.root.is_some()
    }

    /// Begins a new interval. If there are too many processes, the least recently used are
    /// forgotten.
    pub(crate) fn next_interval(&mut self) {
        self.interval += 1;
        self.containers.next_interval();
        self.cgroups.next_interval();
        if self.known.len() > MAX_KNOWN {
            let mut used: Vec<u64> = self.known.values().map(|member| member.used_in).collect();
            used.sort_unstable();
            let limit = used[used.len() - MAX_KNOWN / 2];
            self.known.retain(|_, member| member.used_in >= limit);
            let known = &self.known;
            self.by_pid.retain(|_, proc| known.contains_key(proc));
        }
    }

    /// The container that a log belongs to. A container that never wrote a file itself is searched
    /// for among all processes, at most once in [`SEARCH_INTERVALS`] intervals.
    pub(crate) fn container_of(&mut self, log: &LogOwner) -> Option<Group> {
        if let Some(known) = self.containers.of_log(log) {
            return Some(known);
        }
        if self.searched_in.is_none_or(|last| self.interval >= last + SEARCH_INTERVALS) {
            self.searched_in = Some(self.interval);
            for pid in all_pids() {
                let text = cgroup::read(pid).unwrap_or_default();
                if let (_, CgroupOwner::Container { id, .. }) = most_specific(&text)
                    && !self.containers.contains(&LogOwner::Container(id))
                {
                    // Assigning the process to its group adds the container to `containers`.
                    let _ = self.of_pid(pid);
                }
            }
        }
        self.containers.of_log(log)
    }

    /// The pod with this UID, if its name is known.
    pub(crate) fn pod(&mut self, uid: &str) -> Option<Pod> {
        self.containers.pod(uid)
    }

    fn assign(
        &mut self,
        record: &ProcRecord,
        names: &mut Names,
        volumes: &[MountedVolume],
    ) -> Membership {
        let (cgroup, owner) = self.cgroup(record);
        let own_comm = comm(&record.comm);
        let parents = [comm(&record.parent_comm), comm(&record.grandparent_comm)];
        let member = SessionMember {
            proc: record.proc,
            comm: &own_comm,
            session: record.session,
            parent: (record.parent, &parents[0]),
        };
        let (mut group, is_unnamed) = self.group(owner, cgroup, &member);
        // Each layer of an image is unpacked in its own chroot, but these processes belong to the
        // daemon.
        if !is_image_import(record) {
            group.root = chroot(record, names, volumes);
        }
        self.complete(&mut group, record.mnt_ns, is_unnamed);
        let [parent_comm, grandparent_comm] = parents;
        Membership {
            group,
            ancestors: [(record.parent, parent_comm), (record.grandparent, grandparent_comm)],
            root: record.root,
            mnt_ns: record.mnt_ns,
            is_unnamed,
            used_in: self.interval,
        }
    }

    /// The cgroup of a process that the eBPF side described, with the cgroup's owner.
    fn cgroup(&mut self, record: &ProcRecord) -> (String, CgroupOwner) {
        let mut cgroup = self
            .cgroups
            .path(record.cgroup_id)
            .map_or_else(|| "/".to_owned(), |path| sanitize::lossless_path(&path));
        let mut owner = classify(&cgroup);
        if matches!(owner, CgroupOwner::Root | CgroupOwner::Plain(_)) && self.has_v1 {
            match cgroup::read(record.proc.tgid) {
                Ok(text) if is_running(&record.proc) => {
                    let (path, found) = most_specific(&text);
                    if found != CgroupOwner::Root {
                        self.remember_parent(record.parent, &path);
                        (cgroup, owner) = (path, found);
                    }
                }
                // The process has ended: a child is in its parent's cgroup unless it was moved.
                _ => {
                    let parent = [&record.parent, &record.grandparent]
                        .into_iter()
                        .find_map(|parent| self.cgroup_of(parent));
                    if let (CgroupOwner::Root, Some(parent)) = (&owner, parent) {
                        owner = classify(&parent);
                        cgroup = parent;
                    }
                }
            }
        }
        (cgroup, owner)
    }

    /// The cgroup of a process that may not have written anything itself.
    fn cgroup_of(&mut self, proc: &ProcKey) -> Option<String> {
        if let Some(known) = self.known.get(proc) {
            return known.group.cgroup.clone();
        }
        if let Some(known) = self.parents.get(proc) {
            return Some(known.clone());
        }
        let text = cgroup::read(proc.tgid).ok()?;
        let (path, owner) = most_specific(&text);
        let path = (owner != CgroupOwner::Root && is_same_process(proc)).then_some(path)?;
        self.remember_parent(*proc, &path);
        Some(path)
    }

    /// Records that a parent is in the cgroup of one of its children: the parent may have exited
    /// when the next child has to be assigned.
    fn remember_parent(&mut self, parent: ProcKey, cgroup: &str) {
        if self.parents.len() >= MAX_PARENTS {
            self.parents.clear();
        }
        self.parents.entry(parent).or_insert_with(|| cgroup.to_owned());
    }

    /// The group with this cgroup, and whether it is a container whose name is not known yet.
    fn group(
        &mut self,
        owner: CgroupOwner,
        cgroup: String,
        member: &SessionMember<'_>,
    ) -> (Group, bool) {
        let (mut of_pod, mut is_unnamed) = (None, false);
        let (kind, name) = match owner {
            CgroupOwner::Container { runtime, id, pod } => {
                let label = self.containers.label(runtime, &id, pod, &cgroup, member.proc.tgid);
                (of_pod, is_unnamed) = (label.pod, !label.is_named);
                (label.kind, label.name)
            }
            CgroupOwner::Pod { uid } => {
                of_pod = self.containers.pod(&uid);
                (GroupKind::Pod, of_pod.as_ref().map_or(uid, Pod::full_name))
            }
            CgroupOwner::Build { id } => (GroupKind::Build, format!("docker build {}", &id[..12])),
            CgroupOwner::Lxc(name) => (GroupKind::Lxc, name),
            CgroupOwner::Machine(name) => (GroupKind::Machine, name),
            CgroupOwner::Monitor { program, runtime, of } => {
                let of = of.map(|of| match runtime {
                    GroupKind::Lxc | GroupKind::Machine => of,
                    _ => self.containers.monitored_name(of),
                });
                let name = of.map_or_else(|| program.to_owned(), |of| format!("{program} {of}"));
                (GroupKind::Monitor, name)
            }
            CgroupOwner::Unit(name) => (GroupKind::Unit, name),
            CgroupOwner::Plain(path) => match self.containers.containerd_task(&path) {
                Some(name) => (GroupKind::Containerd, name),
                None => (GroupKind::Cgroup, path),
            },
            CgroupOwner::Root => {
                let name = self.sessions.name(member);
                let group = Group { kind: GroupKind::Session, name, ..Group::default() };
                return (group, false);
            }
        };
        let group = Group { kind, name, cgroup: Some(cgroup), pod: of_pod, ..Group::default() };
        (group, is_unnamed)
    }

    /// Adds the mount namespace to a group whose name does not show it, and remembers a container.
    fn complete(&mut self, group: &mut Group, mnt_ns: u32, is_unnamed: bool) {
        if matches!(group.kind, GroupKind::Cgroup | GroupKind::Session)
            && self.host_mnt_ns.is_some_and(|host| mnt_ns != 0 && host != mnt_ns)
        {
            group.mount_namespace = Some(mnt_ns);
        }
        self.containers.remember(group, !is_unnamed);
    }

    fn read_from_proc(&mut self, proc: &ProcKey) -> Option<Membership> {
        let pid = proc.tgid;
        let (cgroup, owner) = most_specific(&cgroup::read(pid).unwrap_or_default());
        let tid = threads::running(pid);
        let mnt_ns = mount_namespace(&tid.to_string()).unwrap_or(0);
        let root = fs::read_link(format!("/proc/{tid}/root")).ok();
        // Checked last, so that everything read above belongs to this process or is discarded.
        let stat = session::stat(pid).filter(|stat| stat.start_ticks == start_ticks(proc))?;
        let parent = ProcKey { start_ns: 0, tgid: stat.ppid, pad: 0 };
        let parent_comm = session::stat(stat.ppid).map(|stat| stat.comm).unwrap_or_default();
        let member = SessionMember {
            proc: *proc,
            comm: &stat.comm,
            session: stat.session,
            parent: (parent, &parent_comm),
        };
        let (mut group, is_unnamed) = self.group(owner, cgroup, &member);
        group.root =
            root.filter(|root| root != Path::new("/")).map(|root| sanitize::lossless_path(&root));
        self.complete(&mut group, mnt_ns, is_unnamed);
        Some(Membership {
            group,
            ancestors: [(parent, parent_comm), Default::default()],
            mnt_ns,
            is_unnamed,
            used_in: self.interval,
            ..Membership::default()
        })
    }
}

fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
