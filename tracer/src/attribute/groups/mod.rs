//! Assigns each process to the group it is rolled up to: systemd unit, container, machine, cgroup,
//! else session.
//!
//! The eBPF side sends the cgroup, session, root directory, mount namespace, parent and grandparent
//! of each new writer, so that a process that exits before /proc can be read still gets its group.
//! /proc is read only if cgroup v1 is in use, because the eBPF side does not send its paths.

pub mod cgroup_path;
pub mod cgroups;
pub(crate) mod containers;
pub mod history;
pub mod logs;
pub mod runtime_state;
pub mod session;
pub mod volumes;

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::{FileKey, NameRecord, ProcKey, ProcRecord};
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind, Pod};

use self::cgroup_path::{Place, best, classify};
use self::cgroups::Cgroups;
use self::containers::{full_name, is_image_import};
use self::logs::LogOf;
use self::runtime_state::RuntimeState;
use self::session::{Member, Sessions};
use super::paths::Names;
use super::views::Views;
use tracer_host::host_root;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::stat::{NS_PER_TICK, is_same_process};

/// Number of processes above which the least recently used groups are forgotten. Groups are
/// remembered after a process ends.
const MAX_KNOWN: usize = 65_536;

/// Maximum number of parents whose cgroup is remembered.
const MAX_PARENTS: usize = 16_384;

/// A process's group membership and ancestry.
#[derive(Debug, Clone, Default)]
pub struct Placed {
    /// The group it is rolled up to.
    pub group: Group,
    /// Its parent and grandparent, each with its name.
    pub ancestors: [(ProcKey, String); 2],
    /// Its root directory.
    pub root: FileKey,
    /// Inode number of its mount namespace; 0 if unknown.
    pub mnt_ns: u32,
    window: u64,
}

/// Group memberships of all writers. Keyed by process.
pub struct Groups {
    known: HashMap<ProcKey, Placed>,
    /// cgroup v1 paths of parents, which may not have written anything themselves.
    parents: HashMap<ProcKey, String>,
    /// The last known process of each pid.
    by_pid: HashMap<u32, ProcKey>,
    /// Records from the eBPF side that are not yet assigned to a group.
    waiting: Vec<ProcRecord>,
    /// Known containers, keyed by what the path of a log says about its container.
    containers: HashMap<LogOf, Group>,
    /// The last interval in which all processes were searched for containers.
    searched: Option<u64>,
    cgroups: Cgroups,
    state: RuntimeState,
    sessions: Sessions,
    host_mnt_ns: Option<u32>,
    has_v1: bool,
    window: u64,
}

impl Default for Groups {
    fn default() -> Self {
        let v1 = |text: String| text.lines().any(|line| !line.starts_with("0::"));
        Self {
            known: HashMap::new(),
            parents: HashMap::new(),
            by_pid: HashMap::new(),
            waiting: Vec::new(),
            containers: HashMap::new(),
            searched: None,
            cgroups: Cgroups::read(),
            state: RuntimeState::new(host_root::root()),
            sessions: Sessions::default(),
            host_mnt_ns: mount_namespace("1").or_else(|| mount_namespace("self")),
            has_v1: fs::read_to_string("/proc/self/cgroup").is_ok_and(v1),
            window: 0,
        }
    }
}

impl Groups {
    /// Adds a process that the eBPF side described; [`Groups::settle`] assigns it to a group.
    pub fn seen(&mut self, record: &ProcRecord) {
        self.waiting.push(*record);
    }

    /// Adds the name of a cgroup that has just been created.
    pub fn named(&mut self, record: &NameRecord) {
        self.cgroups.insert(record);
    }

    /// Assigns the new processes to groups, after the names that follow their records have arrived.
    pub fn settle(&mut self, names: &mut Names, views: &mut Views, volumes: &[MountedVolume]) {
        for record in std::mem::take(&mut self.waiting) {
            let placed = self.place(&record, names, volumes);
            if self.sees_otherwise(&placed) {
                views.learn(&record.proc, placed.mnt_ns, placed.root);
            }
            self.by_pid.insert(record.proc.tgid, record.proc);
            self.known.insert(record.proc, placed);
        }
    }

    /// The membership of a process. A process that the eBPF side could not describe is read from
    /// /proc.
    pub fn member(&mut self, proc: &ProcKey) -> Option<&Placed> {
        let window = self.window;
        if let Some(placed) = self.known.get(proc) {
            let container = placed.group.is_container().then(|| placed.group.clone());
            if let Some(group) = container.and_then(|group| self.named_since(proc, &group))
                && let Some(placed) = self.known.get_mut(proc)
            {
                placed.group = group;
            }
        } else {
            let member = self.ask_proc(proc)?;
            self.known.insert(*proc, member);
        }
        self.known.get_mut(proc).map(|member| {
            member.window = window;
            &*member
        })
    }

    /// The group of the process that has this pid now.
    pub fn of_pid(&mut self, pid: u32) -> Option<Group> {
        let start_ticks = session::stat(pid)?.start_ticks;
        let told = self.by_pid.get(&pid).filter(|proc| ticks(proc) == start_ticks).copied();
        let proc = told.unwrap_or_else(|| {
            let proc = ProcKey { start_ns: start_ticks * NS_PER_TICK, tgid: pid, pad: 0 };
            self.by_pid.insert(pid, proc);
            proc
        });
        self.member(&proc).map(|placed| placed.group.clone())
    }

    /// Known processes of a mount namespace that still run, oldest first.
    #[must_use]
    pub fn in_namespace(&self, mnt_ns: u32) -> Vec<u32> {
        let members = self.known.iter().filter(|(_, placed)| placed.mnt_ns == mnt_ns);
        let mut members: Vec<ProcKey> =
            members.map(|(proc, _)| *proc).filter(is_same_process).collect();
        members.sort_unstable_by_key(|proc| (proc.start_ns, proc.tgid));
        members.into_iter().map(|proc| proc.tgid).collect()
    }

    /// Whether the process sees files under other paths than the host: it has a chroot or another
    /// mount namespace.
    #[must_use]
    pub fn sees_otherwise(&self, member: &Placed) -> bool {
        let foreign =
            self.host_mnt_ns.is_some_and(|host| member.mnt_ns != 0 && member.mnt_ns != host);
        foreign || member.group.root.is_some()
    }

    /// Begins a new interval. If there are too many processes, the least recently used are
    /// forgotten.
    pub fn next_window(&mut self) {
        self.window += 1;
        self.state.next_window();
        self.cgroups.next_window();
        if self.known.len() > MAX_KNOWN {
            let mut windows: Vec<u64> = self.known.values().map(|member| member.window).collect();
            windows.sort_unstable();
            let limit = windows[windows.len() - MAX_KNOWN / 2];
            self.known.retain(|_, placed| placed.window >= limit);
            let known = &self.known;
            self.by_pid.retain(|_, proc| known.contains_key(proc));
        }
    }

    fn place(
        &mut self,
        record: &ProcRecord,
        names: &mut Names,
        volumes: &[MountedVolume],
    ) -> Placed {
        let mut cgroup = self
            .cgroups
            .path(record.cgroup_id)
            .map_or_else(|| "/".to_owned(), |path| lossless(&path));
        let mut place = classify(&cgroup);
        if matches!(place, Place::Root | Place::Plain(_)) && self.has_v1 {
            match fs::read_to_string(format!("/proc/{}/cgroup", record.proc.tgid)) {
                Ok(text) if runs(&record.proc) => {
                    let (path, told) = best(&text);
                    if told != Place::Root {
                        self.remember_parent(record.parent, &path);
                        (cgroup, place) = (path, told);
                    }
                }
                // The process has ended: a child is in its parent's cgroup unless it was moved.
                _ => {
                    let parent = [&record.parent, &record.grandparent]
                        .into_iter()
                        .find_map(|parent| self.cgroup_of(parent));
                    if let (Place::Root, Some(parent)) = (&place, parent) {
                        place = classify(&parent);
                        cgroup = parent;
                    }
                }
            }
        }
        let own_comm = comm(&record.comm);
        let parents = [comm(&record.parent_comm), comm(&record.grandparent_comm)];
        let session = Member {
            proc: record.proc,
            comm: &own_comm,
            session: record.session,
            parent: (record.parent, &parents[0]),
        };
        let mut group = self.group(place, cgroup, &session);
        // Each layer of an image is unpacked in its own chroot, but these processes belong to the
        // daemon.
        if !is_image_import(record) {
            group.root = chroot(record, names, volumes);
        }
        if matches!(group.kind, GroupKind::Cgroup | GroupKind::Session)
            && self.host_mnt_ns.is_some_and(|host| record.mnt_ns != 0 && host != record.mnt_ns)
        {
            group.mount_namespace = Some(record.mnt_ns);
        }
        self.meet(&group);
        let [parent_comm, grandparent_comm] = parents;
        Placed {
            group,
            ancestors: [(record.parent, parent_comm), (record.grandparent, grandparent_comm)],
            root: record.root,
            mnt_ns: record.mnt_ns,
            window: self.window,
        }
    }

    /// The cgroup of a process that may not have written anything itself.
    fn cgroup_of(&mut self, proc: &ProcKey) -> Option<String> {
        if let Some(known) = self.known.get(proc) {
            return known.group.cgroup.clone();
        }
        if let Some(known) = self.parents.get(proc) {
            return Some(known.clone());
        }
        let text = fs::read_to_string(format!("/proc/{}/cgroup", proc.tgid)).ok()?;
        let (path, place) = best(&text);
        let path = (place != Place::Root && is_same_process(proc)).then_some(path)?;
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

    fn group(&mut self, place: Place, cgroup: String, member: &Member<'_>) -> Group {
        let mut of_pod = None;
        let (kind, name) = match place {
            Place::Container { runtime, id, pod } => {
                let (kind, name);
                (kind, name, of_pod) = self.container(runtime, &id, pod, &cgroup, member.proc.tgid);
                (kind, name)
            }
            Place::Pod { uid } => {
                of_pod = self.state.pod(&uid).map(|(namespace, name)| Pod { namespace, name });
                (GroupKind::Pod, of_pod.as_ref().map_or(uid, full_name))
            }
            Place::Build { id } => (GroupKind::Build, format!("docker build {}", &id[..12])),
            Place::Lxc(name) => (GroupKind::Lxc, name),
            Place::Machine(name) => (GroupKind::Machine, name),
            Place::Monitor { program, runtime, of } => {
                let of = of.map(|of| match runtime {
                    GroupKind::Lxc | GroupKind::Machine => of,
                    _ => self.watched_over(of),
                });
                let name = of.map_or_else(|| program.to_owned(), |of| format!("{program} {of}"));
                (GroupKind::Monitor, name)
            }
            Place::Unit(name) => (GroupKind::Unit, name),
            Place::Plain(path) => match self.containerd_task(&path) {
                Some(name) => (GroupKind::Containerd, name),
                None => (GroupKind::Cgroup, path),
            },
            Place::Root => {
                let name = self.sessions.name(member);
                return Group { kind: GroupKind::Session, name, ..Group::default() };
            }
        };
        Group { kind, name, cgroup: Some(cgroup), pod: of_pod, ..Group::default() }
    }

    fn ask_proc(&mut self, proc: &ProcKey) -> Option<Placed> {
        let pid = proc.tgid;
        let (cgroup, place) =
            best(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default());
        let mnt_ns = mount_namespace(&pid.to_string()).unwrap_or(0);
        let root = fs::read_link(format!("/proc/{pid}/root")).ok();
        // Checked last, so that everything read above belongs to this process or is discarded.
        let stat = session::stat(pid).filter(|stat| stat.start_ticks == ticks(proc))?;
        let parent = ProcKey { start_ns: 0, tgid: stat.ppid, pad: 0 };
        let parent_comm = session::stat(stat.ppid).map(|stat| stat.comm).unwrap_or_default();
        let member = Member {
            proc: *proc,
            comm: &stat.comm,
            session: stat.session,
            parent: (parent, &parent_comm),
        };
        let mut group = self.group(place, cgroup, &member);
        group.root = root.filter(|root| root != Path::new("/")).map(|root| lossless(&root));
        if matches!(group.kind, GroupKind::Cgroup | GroupKind::Session)
            && self.host_mnt_ns.is_some_and(|host| mnt_ns != 0 && host != mnt_ns)
        {
            group.mount_namespace = Some(mnt_ns);
        }
        self.meet(&group);
        Some(Placed {
            group,
            ancestors: [(parent, parent_comm), Default::default()],
            mnt_ns,
            window: self.window,
            ..Placed::default()
        })
    }
}

/// The host path of a process's root directory, if it is not the host's. Also `None` if it is not
/// on a volume of the host, such as a container's overlay. The path comes from the known names,
/// else from /proc.
fn chroot(record: &ProcRecord, names: &mut Names, volumes: &[MountedVolume]) -> Option<String> {
    let volume = volumes.iter().find(|volume| volume.dev == record.root.dev)?;
    let path = match names.within(&record.root).filter(|within| within.complete) {
        Some(within) => volume.host_path(&within.path)?,
        None => fs::read_link(format!("/proc/{}/root", record.proc.tgid))
            .ok()
            .filter(|_| runs(&record.proc))?,
    };
    (path != Path::new("/")).then(|| lossless(&path))
}

/// Whether the process still runs. A process that ends is shown in the root cgroup of v1, from
/// before its state changes until it is reaped; so check this after reading the cgroup, to know
/// whether that was really the process's own.
fn runs(proc: &ProcKey) -> bool {
    session::stat(proc.tgid)
        .is_some_and(|stat| !stat.ended && !stat.exiting && stat.start_ticks == ticks(proc))
}

fn ticks(proc: &ProcKey) -> u64 {
    proc.start_ns / NS_PER_TICK
}

/// The inode number of a mount namespace: `/proc/PID/ns/mnt` links to `mnt:[4026531841]`.
fn mount_namespace(pid: &str) -> Option<u32> {
    let link: PathBuf = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
}

fn lossless(path: &Path) -> String {
    sanitize::lossless(path.as_os_str().as_bytes())
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    sanitize::lossless(&bytes[..end])
}
