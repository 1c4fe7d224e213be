//! Resolves a name from the command line to one of the groups that run here. Pure: takes candidates,
//! returns one match, or an error that lists what the name could mean.

use std::collections::BTreeMap;

use tracer_model::action::protect;
use tracer_model::sanitize;
use tracer_model::snapshot::{Group, GroupKind};

use crate::attribute::groups::cgroup_path::{CgroupOwner, classify};
use tracer_host::process::pidfd::UniqueProcessId;

/// Kinds that can be the prefix of a name: `docker/web`.
const QUALIFIERS: &[GroupKind] = &[
    GroupKind::Unit,
    GroupKind::Docker,
    GroupKind::Podman,
    GroupKind::Containerd,
    GroupKind::Crio,
    GroupKind::Pod,
    GroupKind::Lxc,
    GroupKind::Machine,
    GroupKind::Session,
];

/// Minimum length of a container id prefix, digits.
const MIN_ID: usize = 3;

/// Container name of the sandbox, which holds a pod's namespaces: its `pause` process.
const SANDBOX: &str = "POD";
const PAUSE: &str = "pause";

/// A running group, with the path of its own cgroup.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Kind, name and cgroup of the group.
    pub group: Group,
    /// Command names of the group's processes.
    pub comms: Vec<String>,
    /// Identities of the group's processes.
    pub roots: Vec<UniqueProcessId>,
}

/// What a name was resolved to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resolved {
    /// One group.
    Group(Candidate),
    /// A Kubernetes pod: its containers, and separately its sandbox.
    Pod {
        /// NAMESPACE/POD, or the pod's UID if its name is unknown.
        name: String,
        /// The pod's containers.
        containers: Vec<Candidate>,
        /// The pause container, and the processes in the pod's own cgroup.
        sandbox: Vec<Candidate>,
    },
}

/// Why a name does not resolve to a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Nothing has this name.
    #[error(
        "nothing named {0} is running here; give a pid, a unit, a container, a pod or the path of a \
         cgroup"
    )]
    NotFound(String),
    /// The name is ambiguous.
    #[error("{argument} is ambiguous ({}); give one of these in full, or the path of a cgroup", .list.join(", "))]
    Ambiguous {
        /// The name as given.
        argument: String,
        /// The possible targets as TARGET arguments, with their cgroups if only these differ.
        list: Vec<String>,
    },
    /// Only the container's monitor is running.
    #[error("only the monitor of {argument} is running ({monitor}); a monitor is never a target")]
    Monitor {
        /// The name as given.
        argument: String,
        /// The name of the monitor.
        monitor: String,
    },
}

impl Candidate {
    fn place(&self) -> CgroupOwner {
        self.group.cgroup.as_deref().map_or(CgroupOwner::Root, classify)
    }

    fn is_monitor(&self) -> bool {
        self.group.kind == GroupKind::Monitor
    }

    /// Returns the container's id from its cgroup.
    fn id(&self) -> Option<String> {
        match self.place() {
            CgroupOwner::Container { id, .. } => Some(id),
            _ => None,
        }
    }

    fn is_sandbox(&self) -> bool {
        let own = matches!(self.place(), CgroupOwner::Pod { .. });
        let named = self.group.name.rsplit('/').next() == Some(SANDBOX);
        own || named || (!self.comms.is_empty() && self.comms.iter().all(|comm| comm == PAUSE))
    }

    /// Whether every process of the group is protected.
    fn is_protected(&self) -> bool {
        let protected =
            |comm: &String| protect::matching_rule(protect::PROTECTED_NAMES, comm).is_some();
        !self.comms.is_empty() && self.comms.iter().all(protected)
    }

    fn is_called(&self, argument: &str) -> bool {
        let unit = self.group.kind == GroupKind::Unit
            && self.group.name.strip_suffix(".service") == Some(argument);
        self.group.name == argument || unit || self.id().as_deref() == Some(argument)
    }

    /// Returns the pod that the group belongs to: (unique key, NAMESPACE/POD or otherwise the UID).
    fn pod(&self) -> Option<(String, String)> {
        if self.group.kind != GroupKind::Pod {
            return None;
        }
        let uid = match self.place() {
            CgroupOwner::Container { pod, .. } => pod,
            CgroupOwner::Pod { uid } => Some(uid),
            _ => None,
        };
        let parts: Vec<&str> = self.group.name.split('/').collect();
        let own = matches!(self.place(), CgroupOwner::Pod { .. });
        let name = match parts[..] {
            [space, pod, _] => format!("{space}/{pod}"),
            [space, pod] if own => format!("{space}/{pod}"),
            _ => parts[0].to_owned(),
        };
        Some((uid.unwrap_or_else(|| name.clone()), name))
    }

    /// Returns the TARGET argument that names the group.
    fn word(&self) -> String {
        let Group { kind, name, .. } = &self.group;
        let name = sanitize::display(name);
        if QUALIFIERS.contains(kind) { format!("{kind}/{name}") } else { name.into_owned() }
    }
}

/// The groups and pods that a name may mean, keyed by (kind, name, cgroup or pod UID).
type Matches = BTreeMap<(GroupKind, String, String), Resolved>;

/// Resolves a name. An exact name takes precedence over an id prefix. An ambiguous name is refused. A
/// monitor is never the result.
///
/// # Errors
/// If nothing has this name, or more than one group has.
pub(crate) fn resolve(argument: &str, candidates: &[Candidate]) -> Result<Resolved, ResolveError> {
    let shown = || sanitize::display(argument).into_owned();
    let readings = readings(argument);
    let mut matches = Matches::new();
    for (kind, name) in &readings {
        matches.extend(exact(*kind, name, candidates));
    }
    if matches.is_empty() {
        for (kind, name) in &readings {
            matches.extend(by_id(*kind, name, candidates));
        }
    }
    drop_protected(&mut matches);
    if matches.len() > 1 {
        let list = list(&matches);
        return Err(ResolveError::Ambiguous { argument: shown(), list });
    }
    match matches.into_values().next() {
        Some(resolved) => Ok(resolved),
        None => Err(match monitor(&readings, candidates) {
            Some(monitor) => ResolveError::Monitor { argument: shown(), monitor },
            None => ResolveError::NotFound(shown()),
        }),
    }
}

/// Splits a TARGET into an optional kind and a name.
#[must_use]
pub(crate) fn kind_and_name(word: &str) -> (Option<GroupKind>, &str) {
    readings(word).pop().unwrap_or((None, word))
}

/// Returns the possible readings: the whole word as a name, and as a kind and a name.
fn readings(argument: &str) -> Vec<(Option<GroupKind>, &str)> {
    let qualified = argument.split_once('/').and_then(|(kind, name)| {
        let kind = kind.parse().ok().filter(|kind| QUALIFIERS.contains(kind))?;
        Some((Some(kind), name))
    });
    let mut readings = vec![(None, argument)];
    readings.extend(qualified);
    readings
}

fn of_kind(kind: Option<GroupKind>, candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    candidates
        .iter()
        .filter(|candidate| !candidate.is_monitor())
        .filter(move |candidate| kind.is_none_or(|kind| candidate.group.kind == kind))
}

fn exact(kind: Option<GroupKind>, name: &str, candidates: &[Candidate]) -> Matches {
    let mut matches = Matches::new();
    for candidate in of_kind(kind, candidates) {
        if let Some((key, pod)) = candidate.pod()
            && (pod == name
                || key == name
                || pod.split_once('/').is_some_and(|(_, pod)| pod == name))
        {
            let entry = matches.entry((GroupKind::Pod, pod.clone(), key)).or_insert_with(|| {
                Resolved::Pod { name: pod, containers: Vec::new(), sandbox: Vec::new() }
            });
            if let Resolved::Pod { containers, sandbox, .. } = entry {
                let whose = if candidate.is_sandbox() { sandbox } else { containers };
                whose.push(candidate.clone());
            }
        } else if candidate.is_called(name) {
            matches.extend([matched(candidate)]);
        }
    }
    matches
}

fn by_id(kind: Option<GroupKind>, start: &str, candidates: &[Candidate]) -> Matches {
    // A number alone is a pid, unless it has a kind as a prefix.
    let is_pid = kind.is_none() && start.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = start.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if start.len() < MIN_ID || !is_hex || is_pid {
        return Matches::new();
    }
    of_kind(kind, candidates)
        .filter(|candidate| candidate.id().is_some_and(|id| id.starts_with(start)))
        .map(matched)
        .collect()
}

fn matched(candidate: &Candidate) -> ((GroupKind, String, String), Resolved) {
    let Group { kind, name, cgroup, .. } = &candidate.group;
    let key = (*kind, name.clone(), cgroup.clone().unwrap_or_default());
    (key, Resolved::Group(candidate.clone()))
}

/// Removes groups with only protected processes if another group has the same kind and name.
fn drop_protected(matches: &mut Matches) {
    let protected =
        |resolved: &Resolved| matches!(resolved, Resolved::Group(group) if group.is_protected());
    let kept: Vec<(GroupKind, String)> = matches
        .iter()
        .filter(|(_, resolved)| !protected(resolved))
        .map(|((kind, name, _), _)| (*kind, name.clone()))
        .collect();
    matches.retain(|(kind, name, _), resolved| {
        !protected(resolved) || !kept.iter().any(|(k, n)| k == kind && n == name)
    });
}

fn list(matches: &Matches) -> Vec<String> {
    matches
        .iter()
        .map(|((kind, name, rest), resolved)| {
            let word = match resolved {
                Resolved::Group(candidate) => candidate.word(),
                Resolved::Pod { name, .. } => format!("pod/{}", sanitize::display(name)),
            };
            let same = matches.keys().filter(|(k, n, _)| k == kind && n == name).count();
            if same > 1 { format!("{word} ({})", sanitize::display(rest)) } else { word }
        })
        .collect()
}

/// Returns the monitor that the word names, by its own name or by that of its container.
fn monitor(readings: &[(Option<GroupKind>, &str)], candidates: &[Candidate]) -> Option<String> {
    let names = |monitor: &&Candidate| {
        let CgroupOwner::Monitor { runtime, of, .. } = monitor.place() else { return false };
        let name = monitor.group.name.as_str();
        let watched = name.split_once(' ').map(|(_, watched)| watched);
        readings.iter().any(|(kind, argument)| {
            kind.is_none_or(|kind| kind == runtime)
                && (name == *argument
                    || watched == Some(argument)
                    || of.as_deref() == Some(argument))
        })
    };
    let found = candidates.iter().filter(|candidate| candidate.is_monitor()).find(names)?;
    Some(sanitize::display(&found.group.name).into_owned())
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
