//! Resolves TARGET of the command line, or a row of a Snapshot, to processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracer_model::action::facts::Subject;
use tracer_model::action::subject_kind::SubjectKind;
use tracer_model::action::{Role, protect};
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind};

use super::members::{Scope, Table, ancestors, executable, table};
use super::names;
use super::names::{Candidate, ResolveError, Resolved};
use super::pins::CgroupId;
use crate::attribute::groups::Groups;
use crate::attribute::groups::cgroup_path::{CgroupOwner, classify, directory};
use tracer_host::cgroup;
use tracer_host::cgroup::Hierarchies;
use tracer_host::process::pidfd::{PidHandle, ProcessId, UniqueProcessId};
use tracer_host::process::stat;

/// Which related processes a pid includes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Reach {
    /// Only the process itself
    Alone,
    /// The process and its descendants
    Tree,
    /// The same, and the parents that forked it without an exec in between, unless they are a
    /// database server, of which only the named process is meant
    #[default]
    #[value(name = "forker")]
    ForkingParent,
}

/// A resolved target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// Description of the target.
    pub subject: Subject,
    /// The processes that it includes.
    pub scope: Scope,
    /// Roles of the named process and of its forking parents, by pid.
    pub roles: BTreeMap<u32, Role>,
    /// The group of the target.
    pub group: Option<Group>,
    /// The target's cgroups, as they were when it was found.
    pub cgroups: Vec<CgroupId>,
}

impl Target {
    fn new(subject: Subject, scope: Scope, group: Option<Group>) -> Self {
        let cgroups = match &scope {
            Scope::Cgroup(dirs) => CgroupId::of(dirs),
            Scope::Alone(_) | Scope::Tree(_) => Vec::new(),
        };
        Self { subject, scope, roles: BTreeMap::new(), group, cgroups }
    }

    /// Returns the container id; `None` if the target is not a container.
    #[must_use]
    pub(crate) fn container(&self) -> Option<String> {
        match classify(self.group.as_ref()?.cgroup.as_deref()?) {
            CgroupOwner::Container { id, .. } => Some(id),
            _ => None,
        }
    }
}

/// Resolves a TARGET: a pid, a cgroup path, or the name of a unit, a container, a pod or a session.
/// `ends`: whether the target will be terminated rather than suspended.
///
/// # Errors
/// If nothing has that name, or the name is ambiguous.
pub(crate) fn resolve(
    argument: &str,
    reach: Reach,
    ends: bool,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    if let Ok(pid) = argument.parse::<u32>() {
        return process(pid, None, reach, groups);
    }
    if argument.starts_with('/') {
        return cgroup(argument, groups, hierarchies);
    }
    named(argument, ends, groups, hierarchies)
}

/// Resolves a pid. If a start time is given, the process must have it.
///
/// # Errors
/// If there is no such process, or its pid was reused.
pub(crate) fn process(
    pid: u32,
    start_ticks: Option<u64>,
    reach: Reach,
    groups: &mut Groups,
) -> anyhow::Result<Target> {
    let (handle, stat) =
        PidHandle::open(pid).ok_or_else(|| anyhow!("no process with pid {pid} is running"))?;
    if start_ticks.is_some_and(|wanted| wanted != stat.start_ticks) {
        bail!("pid {pid} is now another process; the intended one has exited");
    }
    let mut roles = BTreeMap::from([(pid, Role::Target)]);
    let mut root = handle.unique_id();
    let scope = match reach {
        Reach::Alone => Scope::Alone(root),
        Reach::Tree => Scope::Tree(vec![root]),
        Reach::ForkingParent => {
            let table = table();
            while let Some(parent) = forking_parent(root.identity, &table) {
                roles.insert(parent.identity.pid, Role::Parent);
                root = parent;
            }
            Scope::Tree(vec![root])
        }
    };
    let subject = Subject {
        argument: pid.to_string(),
        kind: if reach == Reach::Alone { SubjectKind::Process } else { SubjectKind::Tree },
        name: stat.comm,
        cgroup: None,
    };
    Ok(Target { roles, ..Target::new(subject, scope, groups.of_pid(pid)) })
}

/// Returns the parent if it forked this process and neither has called execve(2) since: the stack
/// address, which each execve(2) randomizes, is still the same. A shell with a terminal is left out,
/// because its subshell is not its worker.
fn forking_parent(child: ProcessId, table: &Table) -> Option<UniqueProcessId> {
    let ppid = table.get(&child.pid)?.ppid;
    let parent = table.get(&ppid).filter(|parent| ppid > 1 && !parent.ended)?;
    let interactive = parent.tty != 0 && parent.session == ppid;
    // Acting on a database's child must not silently mean the whole server.
    let rules = [protect::PROTECTED_NAMES, protect::DATABASES];
    let protected = rules.iter().any(|rules| protect::matching_rule(rules, &parent.comm).is_some());
    let same = executable(ppid).is_some_and(|program| executable(child.pid) == Some(program))
        && stack(ppid) > 1
        && stack(child.pid) == stack(ppid);
    if !same || interactive || protected || ancestors().contains(&ppid) {
        return None;
    }
    let identity = ProcessId { pid: ppid, start_ticks: parent.start_ticks };
    PidHandle::open_related(identity, parent).map(|handle| handle.unique_id())
}

/// Returns the stack address; 0 if it is unknown.
fn stack(pid: u32) -> u64 {
    stat::stat(pid).map_or(0, |stat| stat.start_stack)
}

/// Resolves a cgroup path.
///
/// # Errors
/// If no hierarchy has this path.
pub(crate) fn cgroup(
    path: &str,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    if path.split('/').any(|part| part == "..") {
        bail!("{path}: a cgroup path cannot contain ..");
    }
    let dirs = hierarchies.directories(path);
    if dirs.is_empty() {
        bail!("there is no cgroup {}; give the path as /proc/PID/cgroup prints it", safe(path));
    }
    let dirs = non_empty(dirs);
    let place = classify(path);
    let (kind, name) = match &place {
        CgroupOwner::Unit(name) => (GroupKind::Unit, name.clone()),
        CgroupOwner::Lxc(name) => (GroupKind::Lxc, name.clone()),
        CgroupOwner::Machine(name) => (GroupKind::Machine, name.clone()),
        CgroupOwner::Monitor { program, .. } => (GroupKind::Monitor, (*program).to_owned()),
        _ => (GroupKind::Cgroup, path.to_owned()),
    };
    // A slice is no unit here: its name must not be mistaken for that of one of its services.
    let subject = Subject {
        argument: path.to_owned(),
        kind: SubjectKind::Group(kind),
        name,
        cgroup: Some(path.to_owned()),
    };
    let mut target = Target::new(subject, Scope::Cgroup(dirs), None);
    // A container's own cgroup stands for the container, which its runtime can stop.
    if matches!(place, CgroupOwner::Container { .. })
        && directory(path) == path.trim_end_matches('/')
    {
        let pid = target.scope.members().first().map(|member| member.pid);
        target.group = pid.and_then(|pid| groups.of_pid(pid)).map(directory_of);
    }
    Ok(target)
}

fn non_empty(mut dirs: Vec<PathBuf>) -> Vec<PathBuf> {
    dirs.retain(|dir| !cgroup::processes(dir).is_empty());
    dirs
}

/// Resolves a group by the name that the tables show, a container also by its id, or a pod.
fn named(
    argument: &str,
    ends: bool,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    match names::resolve(argument, &candidates(groups)) {
        Ok(Resolved::Group(Candidate { group, roots, .. })) => {
            Ok(group_target(argument, group, roots, hierarchies))
        }
        Ok(Resolved::Pod { name, containers, sandbox }) => {
            let pod = Pod { argument, name, containers, sandbox };
            Ok(pod.target(ends, hierarchies))
        }
        Err(ResolveError::NotFound(_)) if is_unit_name(argument) => {
            Ok(unit_without_processes(argument))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns every running group, with the path of its own cgroup.
pub(super) fn candidates(groups: &mut Groups) -> Vec<Candidate> {
    let mut found: BTreeMap<Group, (Vec<String>, Vec<UniqueProcessId>)> = BTreeMap::new();
    for (pid, stat) in table().iter().filter(|(_, stat)| !stat.ended && !stat.kernel_thread) {
        let Some(group) = groups.of_pid(*pid) else { continue };
        let identity = ProcessId { pid: *pid, start_ticks: stat.start_ticks };
        let root = PidHandle::open_related(identity, stat).map(|handle| handle.unique_id());
        let (comms, roots) = found.entry(directory_of(group)).or_default();
        comms.push(stat.comm.clone());
        roots.extend(root);
    }
    found.into_iter().map(|(group, (comms, roots))| Candidate { group, comms, roots }).collect()
}

/// A Kubernetes pod that was named.
struct Pod<'a> {
    argument: &'a str,
    name: String,
    containers: Vec<Candidate>,
    sandbox: Vec<Candidate>,
}

impl Pod<'_> {
    /// Makes a target of the pod's containers. The sandbox holds the pod's network and is not terminated
    /// with them. It is suspended with them if the pod's cgroup contains no other processes, because
    /// one freezer then freezes all of them at the same time.
    fn target(self, ends: bool, hierarchies: &Hierarchies) -> Target {
        let dirs = |candidates: &[Candidate]| -> Vec<PathBuf> {
            let paths = candidates.iter().filter_map(|candidate| candidate.group.cgroup.as_deref());
            non_empty(paths.flat_map(|path| hierarchies.directories(path)).collect())
        };
        let pids = |dirs: &[PathBuf]| -> BTreeSet<u32> {
            dirs.iter().flat_map(|dir| cgroup::processes(dir)).collect()
        };
        let mut scope = dirs(&self.containers);
        let path =
            self.containers.first().and_then(|first| pod_path(first.group.cgroup.as_deref()?));
        if !ends && let Some(path) = &path {
            let whole = non_empty(hierarchies.directories(path));
            let all = dirs(&[self.containers.as_slice(), &self.sandbox].concat());
            if !whole.is_empty() && pids(&whole) == pids(&all) {
                scope = whole;
            }
        }
        let subject = Subject {
            argument: self.argument.to_owned(),
            kind: SubjectKind::Group(GroupKind::Pod),
            name: self.name.clone(),
            cgroup: path.clone(),
        };
        let group =
            Group { kind: GroupKind::Pod, name: self.name, cgroup: path, ..Group::default() };
        let roots = self.containers.into_iter().flat_map(|container| container.roots).collect();
        let scope = if scope.is_empty() { Scope::Tree(roots) } else { Scope::Cgroup(scope) };
        Target::new(subject, scope, Some(group))
    }
}

/// Returns the pod's cgroup path, given that of one of its containers.
fn pod_path(container: &str) -> Option<String> {
    let (above, _) = container.rsplit_once('/')?;
    matches!(classify(above), CgroupOwner::Pod { .. }).then(|| above.to_owned())
}

/// Makes a target of a group from a Snapshot. `pids` are its processes, used if it has no cgroup.
#[must_use]
pub(crate) fn group_target(
    argument: &str,
    group: Group,
    pids: Vec<UniqueProcessId>,
    hierarchies: &Hierarchies,
) -> Target {
    let group = directory_of(group);
    let dirs = group.cgroup.as_deref().map(|path| non_empty(hierarchies.directories(path)));
    let scope = match dirs {
        Some(dirs) if !dirs.is_empty() => Scope::Cgroup(dirs),
        _ => Scope::Tree(pids),
    };
    let subject = Subject {
        argument: argument.to_owned(),
        kind: SubjectKind::Group(group.kind),
        name: group.name.clone(),
        cgroup: group.cgroup.clone(),
    };
    Target::new(subject, scope, Some(group))
}

fn is_unit_name(argument: &str) -> bool {
    [".service", ".scope", ".timer", ".socket"].iter().any(|kind| argument.ends_with(kind))
}

/// Makes a target of a unit without processes, which systemd can still stop.
fn unit_without_processes(argument: &str) -> Target {
    let subject = Subject {
        argument: argument.to_owned(),
        kind: SubjectKind::Group(GroupKind::Unit),
        name: argument.to_owned(),
        cgroup: None,
    };
    Target::new(subject, Scope::Cgroup(Vec::new()), None)
}

/// Returns the group with the path of its own cgroup, because a process may be in a cgroup below it.
pub(super) fn directory_of(mut group: Group) -> Group {
    if let Some(path) = &group.cgroup {
        group.cgroup = Some(directory(path).to_owned());
    }
    // The same group, even if its processes differ in root directory or mount namespace.
    group.root = None;
    group.mount_namespace = None;
    group
}

fn safe(text: &str) -> String {
    sanitize::display(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(kind: GroupKind, name: &str, cgroup: &str) -> Group {
        Group { kind, name: name.to_owned(), cgroup: Some(cgroup.to_owned()), ..Group::default() }
    }

    #[test]
    fn the_cgroup_of_a_group_is_its_own_directory() {
        let below = group(GroupKind::Unit, "x.service", "/system.slice/x.service/worker/3");
        assert_eq!(directory_of(below).cgroup.as_deref(), Some("/system.slice/x.service"));
        let plain = group(GroupKind::Cgroup, "/jobs/nightly", "/jobs/nightly");
        assert_eq!(directory_of(plain).cgroup.as_deref(), Some("/jobs/nightly"));
    }

    #[test]
    fn a_missing_target_is_an_error() {
        let (mut groups, hierarchies) = (Groups::default(), Hierarchies::read());
        let mut error = |argument: &str| {
            resolve(argument, Reach::Tree, false, &mut groups, &hierarchies)
                .unwrap_err()
                .to_string()
        };
        assert!(error("4194304").contains("no process"));
        assert!(error("/no/such/cgroup").contains("no cgroup"));
        assert!(error("/a/../..").contains(".."));
        assert!(error("no-such-thing").contains("nothing named"));
        let own = std::process::id();
        let error = process(own, Some(1), Reach::Alone, &mut groups).unwrap_err().to_string();
        assert!(error.contains("now another process"));
    }
}
