//! From the word on the command line, or a row of a Snapshot, to processes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{anyhow, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracer_model::{
    action::{Role, plan::Subject, protect},
    sanitize,
    snapshot::Group,
};

use super::{
    cgroups::{self, Hierarchies},
    handle::{Handle, Identity, Root},
    members::{Scope, Table, executable, table},
};
use crate::attribute::groups::{
    Groups,
    cgroup_path::{Place, classify, directory},
};

/// How far a process stands for others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Reach {
    /// The process alone
    Alone,
    /// The process and all that descend from it
    Tree,
    /// The same, and the parents that forked it without starting another program
    #[default]
    Forker,
}

/// A target that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What it is, in words.
    pub subject: Subject,
    /// Whom it stands for.
    pub scope: Scope,
    /// Why, of those that are not simply below it.
    pub roles: BTreeMap<u32, Role>,
    /// What it is rolled up to.
    pub group: Option<Group>,
}

/// Finds what a word names: a pid, a cgroup's path, or the name of a unit, a container or a session.
///
/// # Errors
/// If nothing has that name, or several things have.
pub fn resolve(
    asked: &str,
    reach: Reach,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    if let Ok(pid) = asked.parse::<u32>() {
        return process(pid, None, reach, groups);
    }
    if asked.starts_with('/') {
        return cgroup(asked, hierarchies);
    }
    named(asked, groups, hierarchies)
}

/// A process, which must have started at this tick if one is given.
///
/// # Errors
/// If there is no such process (any more).
pub fn process(
    pid: u32,
    start_ticks: Option<u64>,
    reach: Reach,
    groups: &mut Groups,
) -> anyhow::Result<Target> {
    let (handle, stat) =
        Handle::open(pid).ok_or_else(|| anyhow!("there is no process with pid {pid} that runs"))?;
    if start_ticks.is_some_and(|wanted| wanted != stat.start_ticks) {
        bail!("pid {pid} is another process now: the one that was meant has ended");
    }
    let mut roles = BTreeMap::from([(pid, Role::Target)]);
    let mut root = handle.root();
    let scope = match reach {
        Reach::Alone => Scope::Alone(root),
        Reach::Tree => Scope::Tree(vec![root]),
        Reach::Forker => {
            let table = table();
            while let Some(parent) = forker(root.identity, &table) {
                roles.insert(parent.identity.pid, Role::Parent);
                root = parent;
            }
            Scope::Tree(vec![root])
        }
    };
    let subject = Subject {
        asked: pid.to_string(),
        kind: if reach == Reach::Alone { "process" } else { "tree" }.to_owned(),
        name: stat.comm,
        cgroup: None,
    };
    Ok(Target { subject, scope, roles, group: groups.of_pid(pid) })
}

/// The parent, if it forked this process and neither started another program since: the address of
/// the stack, which each execve(2) draws anew, is still the same. A shell with a terminal is left
/// out: its subshell is not its worker.
fn forker(child: Identity, table: &Table) -> Option<Root> {
    let ppid = table.get(&child.pid)?.ppid;
    let parent = table.get(&ppid).filter(|parent| ppid > 1 && !parent.ended)?;
    let interactive = parent.tty != 0 && parent.session == ppid;
    let protected = protect::listed(protect::PROTECTED_NAMES, &parent.comm).is_some();
    let same = executable(ppid).is_some_and(|program| executable(child.pid) == Some(program))
        && stack(ppid).is_some_and(|stack| stack > 1 && stack_of(child.pid) == stack);
    if !same || interactive || protected || super::survey::ancestors().contains(&ppid) {
        return None;
    }
    let identity = Identity { pid: ppid, start_ticks: parent.start_ticks };
    Handle::seen(identity, parent).map(|handle| handle.root())
}

fn stack_of(pid: u32) -> u64 {
    stack(pid).unwrap_or(0)
}

/// Field 28 of /proc/PID/stat.
fn stack(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = &stat[stat.iter().rposition(|byte| *byte == b')')? + 2..];
    std::str::from_utf8(after).ok()?.split(' ').nth(25)?.parse().ok()
}

/// A cgroup by its path.
///
/// # Errors
/// If no hierarchy has it.
pub fn cgroup(path: &str, hierarchies: &Hierarchies) -> anyhow::Result<Target> {
    if path.split('/').any(|part| part == "..") {
        bail!("{path}: a cgroup's path has no ..");
    }
    let dirs = hierarchies.directories(path);
    if dirs.is_empty() {
        bail!("there is no cgroup {} (paths are as /proc/PID/cgroup shows them)", safe(path));
    }
    let (kind, name) = match classify(path) {
        Place::Unit(name) => ("unit", name),
        Place::Lxc(name) => ("lxc", name),
        Place::Machine(name) => ("machine", name),
        _ => ("cgroup", path.to_owned()),
    };
    // A slice's own name is no unit that could be stopped by mistake for one of its services.
    let subject = Subject {
        asked: path.to_owned(),
        kind: kind.to_owned(),
        name,
        cgroup: Some(path.to_owned()),
    };
    Ok(Target {
        subject,
        scope: Scope::Cgroup(inhabited(dirs)),
        roles: BTreeMap::new(),
        group: None,
    })
}

fn inhabited(mut dirs: Vec<std::path::PathBuf>) -> Vec<std::path::PathBuf> {
    dirs.retain(|dir| !cgroups::processes(dir).is_empty());
    dirs
}

/// A group by the name that tables show, a unit also without `.service`, a container also by its id.
fn named(asked: &str, groups: &mut Groups, hierarchies: &Hierarchies) -> anyhow::Result<Target> {
    let table = table();
    let mut found: BTreeMap<Group, Vec<Root>> = BTreeMap::new();
    for (pid, stat) in table.iter().filter(|(_, stat)| !stat.ended && !stat.kernel_thread) {
        let Some(group) = groups.of_pid(*pid) else { continue };
        if is_called(&group, asked) {
            let identity = Identity { pid: *pid, start_ticks: stat.start_ticks };
            let root = Handle::seen(identity, stat).map(|handle| handle.root());
            found.entry(directory_of(group)).or_default().extend(root);
        }
    }
    let kinds: BTreeSet<String> =
        found.keys().map(|group| format!("{} {}", group.kind, safe(&group.name))).collect();
    if kinds.len() > 1 {
        let list: Vec<String> = kinds.into_iter().collect();
        bail!(
            "{} is the name of several: {}: give the path of a cgroup",
            safe(asked),
            list.join(", ")
        );
    }
    let Some((group, pids)) = found.into_iter().next() else {
        return unstarted(asked);
    };
    Ok(group_target(asked, group, pids, hierarchies))
}

/// A group as a Snapshot has it, with processes of it where it has no cgroup.
#[must_use]
pub fn group_target(
    asked: &str,
    group: Group,
    pids: Vec<Root>,
    hierarchies: &Hierarchies,
) -> Target {
    let group = directory_of(group);
    let dirs = group.cgroup.as_deref().map(|path| inhabited(hierarchies.directories(path)));
    let scope = match dirs {
        Some(dirs) if !dirs.is_empty() => Scope::Cgroup(dirs),
        _ => Scope::Tree(pids),
    };
    let subject = Subject {
        asked: asked.to_owned(),
        kind: group.kind.clone(),
        name: group.name.clone(),
        cgroup: group.cgroup.clone(),
    };
    Target { subject, scope, roles: BTreeMap::new(), group: Some(group) }
}

/// A unit that has no process now can still be stopped by its manager.
fn unstarted(asked: &str) -> anyhow::Result<Target> {
    let kinds = [".service", ".scope", ".timer", ".socket"];
    if !kinds.iter().any(|kind| asked.ends_with(kind)) {
        bail!(
            "nothing that runs here is called {}: give a pid, a unit, a container or the path of a \
             cgroup",
            safe(asked)
        );
    }
    let subject = Subject {
        asked: asked.to_owned(),
        kind: "unit".to_owned(),
        name: asked.to_owned(),
        cgroup: None,
    };
    let scope = Scope::Cgroup(Vec::new());
    Ok(Target { subject, scope, roles: BTreeMap::new(), group: None })
}

fn is_called(group: &Group, asked: &str) -> bool {
    let by_id = asked.len() >= 12
        && asked.bytes().all(|byte| byte.is_ascii_hexdigit())
        && group.cgroup.as_deref().is_some_and(|path| path.contains(asked));
    group.name == asked
        || (group.kind == "unit" && group.name.strip_suffix(".service") == Some(asked))
        || by_id
}

/// The group with the path of its own directory: a process may live in one below it.
fn directory_of(mut group: Group) -> Group {
    if let Some(path) = &group.cgroup {
        group.cgroup = Some(directory(path).to_owned());
    }
    // One group, whatever the view of files of its processes.
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

    fn group(kind: &str, name: &str, cgroup: &str) -> Group {
        Group {
            kind: kind.to_owned(),
            name: name.to_owned(),
            cgroup: Some(cgroup.to_owned()),
            ..Group::default()
        }
    }

    #[test]
    fn a_group_is_called_by_its_names() {
        let id = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let web = group("docker", "web", &format!("/docker/{id}"));
        assert!(is_called(&web, "web") && is_called(&web, &id[..12]) && is_called(&web, id));
        assert!(!is_called(&web, "we") && !is_called(&web, &id[..8]));
        let nginx = group("unit", "nginx.service", "/system.slice/nginx.service");
        assert!(is_called(&nginx, "nginx") && is_called(&nginx, "nginx.service"));
    }

    #[test]
    fn a_group_is_its_own_directory() {
        let below = group("unit", "x.service", "/system.slice/x.service/worker/3");
        assert_eq!(directory_of(below).cgroup.as_deref(), Some("/system.slice/x.service"));
        let plain = group("cgroup", "/jobs/nightly", "/jobs/nightly");
        assert_eq!(directory_of(plain).cgroup.as_deref(), Some("/jobs/nightly"));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let (mut groups, hierarchies) = (Groups::default(), Hierarchies::read());
        let mut error = |asked: &str| {
            resolve(asked, Reach::Tree, &mut groups, &hierarchies).unwrap_err().to_string()
        };
        assert!(error("4194304").contains("no process"));
        assert!(error("/no/such/cgroup").contains("no cgroup"));
        assert!(error("/a/../..").contains(".."));
        assert!(error("no-such-thing").contains("nothing that runs"));
        let own = std::process::id();
        let error = process(own, Some(1), Reach::Alone, &mut groups).unwrap_err().to_string();
        assert!(error.contains("another process now"));
    }
}
