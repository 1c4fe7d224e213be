//! Which freezer suspends exactly a target: that of a cgroup that contains all of its processes and no
//! others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::members::Scope;
use tracer_host::cgroup;
use tracer_host::cgroup::{Freezer, Hierarchies};

/// Returns a freezer whose cgroup contains exactly these processes; `None` if there is none. A cgroup
/// that contains other processes, too, is never frozen.
#[must_use]
pub(crate) fn of(scope: &Scope, hierarchies: &Hierarchies) -> Option<Freezer> {
    match scope {
        Scope::Alone(_) | Scope::Tree(_) => around(scope, hierarchies),
        Scope::Cgroup(dirs) => among(dirs, hierarchies),
    }
}

/// Returns the directory of the cgroup v2 that contains exactly these processes.
#[must_use]
pub(crate) fn cgroup_v2(scope: &Scope, hierarchies: &Hierarchies) -> Option<PathBuf> {
    match of(scope, hierarchies) {
        Some(Freezer::V2(dir)) => Some(dir),
        _ => None,
    }
}

/// Returns the freezer of a cgroup that contains all of these processes and no others.
fn around(scope: &Scope, hierarchies: &Hierarchies) -> Option<Freezer> {
    let members: BTreeSet<u32> = scope.members().into_iter().map(|identity| identity.pid).collect();
    let places: BTreeSet<_> = members.iter().map(|pid| Hierarchies::of_process(*pid)).collect();
    let only = |paths: BTreeSet<Option<String>>| match paths.into_iter().collect::<Vec<_>>()[..] {
        [Some(ref path)] if path != "/" => Some(path.trim_start_matches('/').to_owned()),
        _ => None,
    };
    let holds_just_them = |dir: &Path| {
        let inside = cgroup::processes(dir);
        !inside.is_empty() && inside == members
    };
    let v2 = only(places.iter().map(|(v2, _)| v2.clone()).collect())
        .and_then(|path| Some(hierarchies.v2.as_ref()?.join(path)))
        .filter(|dir| cgroup::is_writable(&dir.join("cgroup.freeze")) && holds_just_them(dir));
    let v1 = only(places.iter().map(|(_, v1)| v1.clone()).collect())
        .and_then(|path| Some(hierarchies.freezer.as_ref()?.join(path)))
        .filter(|dir| cgroup::is_writable(&dir.join("freezer.state")) && holds_just_them(dir));
    v2.map(Freezer::V2).or(v1.map(Freezer::V1))
}

/// Returns the freezer among the directories of one cgroup: in the hierarchy whose directory contains
/// every process that any of the directories contains.
fn among(dirs: &[PathBuf], hierarchies: &Hierarchies) -> Option<Freezer> {
    let all: BTreeSet<u32> = dirs.iter().flat_map(|dir| cgroup::processes(dir)).collect();
    let fits = |dir: &&PathBuf| !all.is_empty() && cgroup::processes(dir) == all;
    let v2 = dirs.iter().find(|dir| {
        hierarchies.v2.as_ref().is_some_and(|at| dir.starts_with(at) && *dir != at)
            && cgroup::is_writable(&dir.join("cgroup.freeze"))
            && fits(dir)
    });
    let v1 = || {
        dirs.iter().find(|dir| {
            hierarchies.freezer.as_ref().is_some_and(|at| dir.starts_with(at) && *dir != at)
                && cgroup::is_writable(&dir.join("freezer.state"))
                && fits(dir)
        })
    };
    v2.cloned().map(Freezer::V2).or_else(|| v1().cloned().map(Freezer::V1))
}
