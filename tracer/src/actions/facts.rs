//! Gathers the facts for a plan from the machine: the target's processes, the files that they have
//! open, and the method for each action.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use tracer_model::action::facts::{Facts, File, Method};
use tracer_model::action::{Action, Process, Relation, Role, protect};
use tracer_model::sanitize;

use super::members::{Scope, Table, ancestors, executable, table};
use super::suspend::SuspendMethod;
use super::target::Target;
use super::{restart, terminate, unit};
use crate::attribute::groups::Groups;
use crate::attribute::process;
use crate::measure::colocated;
use crate::measure::open_files::scan_once;
use tracer_host::cgroup::Hierarchies;
use tracer_host::mounts::{MountedVolume, served};
use tracer_host::open_files::mount_lookup::MountLookup;
use tracer_host::process::descriptors::strip_deleted;
use tracer_host::process::pidfd::ProcessId;
use tracer_host::process::status::Status;
use tracer_host::users::Users;
use tracer_host::{host_root, mounts};
use tracer_kernel::fence;
use tracer_model::sanitize::lossless_path;

/// Gathers the facts about a target.
///
/// # Errors
/// If /proc cannot be read.
pub(crate) fn gather_facts(
    target: &Target,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Facts> {
    let table = table();
    let members = target.scope.members();
    let pids: BTreeSet<u32> = members.iter().map(|identity| identity.pid).collect();
    let files = files(&pids)?;
    let mut users = Users::default();
    users.refresh();
    let ancestors = ancestors();
    let own = executable(std::process::id());
    // Without it, only the name of a served filesystem is missing.
    let mounted = mounts::read().unwrap_or_default();
    let processes = members
        .iter()
        .filter_map(|identity| {
            let facts = Context {
                target,
                table: &table,
                users: &users,
                ancestors: &ancestors,
                own,
                mounted: &mounted,
            };
            facts.process(*identity, groups, &files)
        })
        .collect();
    Ok(Facts {
        subject: target.subject.clone(),
        processes,
        methods: methods(target, hierarchies),
        restart: restart::policy(target),
        warnings: warnings(target, hierarchies, &pids)
            .into_iter()
            .chain(database_server(target, &table))
            .collect(),
        files,
    })
}

/// Says that only a part of a database server is meant, if the named process is a child of one.
fn database_server(target: &Target, table: &Table) -> Option<String> {
    let Scope::Tree(roots) = &target.scope else { return None };
    let [root] = roots.as_slice() else { return None };
    let ppid = table.get(&root.identity.pid)?.ppid;
    let parent = table.get(&ppid)?;
    protect::matching_rule(protect::DATABASES, &parent.comm)?;
    Some(format!(
        "{} is a child of the database {} ({ppid}); the server's other processes are not affected. For \
         the whole server: filltop stop {ppid}",
        root.identity.pid,
        sanitize::display(&parent.comm)
    ))
}

struct Context<'a> {
    target: &'a Target,
    table: &'a Table,
    users: &'a Users,
    ancestors: &'a BTreeSet<u32>,
    own: Option<(u64, u64)>,
    /// The volumes, to find those that a process serves.
    mounted: &'a [MountedVolume],
}

impl Context<'_> {
    fn process(&self, identity: ProcessId, groups: &mut Groups, files: &[File]) -> Option<Process> {
        let pid = identity.pid;
        let stat = self.table.get(&pid)?;
        let status = Status::read(pid).unwrap_or_default();
        let (uid, first) = (status.uid(), status.is_namespace_init());
        let is_us =
            pid == std::process::id() || (self.own.is_some() && executable(pid) == self.own);
        let relation = if is_us {
            Relation::Ourselves
        } else if self.ancestors.contains(&pid) {
            Relation::Ancestor
        } else {
            Relation::None
        };
        let mut databases: Vec<String> = files
            .iter()
            .filter(|file| file.pid == pid)
            .filter_map(|file| colocated::database(&file.path))
            .map(str::to_owned)
            .collect();
        databases.sort();
        databases.dedup();
        let below = match self.target.scope {
            Scope::Cgroup(_) => Role::Member,
            Scope::Alone(_) | Scope::Tree(_) => Role::Child,
        };
        Some(Process {
            pid,
            start_ticks: identity.start_ticks,
            ppid: stat.ppid,
            comm: stat.comm.clone(),
            cmdline: process::proc_cmdline(pid),
            user: uid.map_or_else(
                || "?".to_owned(),
                |uid| self.users.name(uid).map_or_else(|| uid.to_string(), str::to_owned),
            ),
            group: groups.of_pid(pid),
            kernel_thread: stat.kernel_thread,
            namespace_init: first,
            ignores_term: ignores(first, status.ignored_signals(), status.caught_signals()),
            relation,
            databases,
            serves: served::served_by(pid, self.mounted).as_deref().map(lossless_path),
            role: self.target.roles.get(&pid).copied().unwrap_or(below),
        })
    }
}

/// Whether SIGTERM has no effect on a process. `first`: whether the process is the first of its pid namespace. Such a
/// process gets only signals that it has handlers for, apart from KILL and STOP from a parent namespace
/// (pid_namespaces(7)). The masks are those of proc_pid_status(5).
fn ignores(first: bool, ignored: Option<u64>, caught: Option<u64>) -> bool {
    let has = |mask: Option<u64>| mask.map(|mask| mask >> (libc::SIGTERM - 1) & 1 == 1);
    has(ignored) == Some(true) || first && has(caught) == Some(false)
}

/// Returns the files that the processes have open or mapped for writing, and deleted files that they
/// hold; one row per file.
fn files(pids: &BTreeSet<u32>) -> anyhow::Result<Vec<File>> {
    let volumes = mounts::read().context("cannot read /proc/self/mountinfo: is /proc mounted?")?;
    let lookup = MountLookup::new(&volumes);
    let open = scan_once(&volumes, &lookup).open;
    let mut files: BTreeMap<_, File> = BTreeMap::new();
    for file in open.files.iter().filter(|file| pids.contains(&file.pid)) {
        let Some(volume) = volumes.iter().find(|volume| volume.dev == file.dev) else { continue };
        let text = |path: &Path| sanitize::lossless(path.as_os_str().as_bytes());
        let known = files.entry(file.key()).or_insert_with(|| {
            let (paths, link) = (lookup.paths(file), strip_deleted(&file.link));
            File {
                link: (link != paths.host).then(|| text(link)),
                path: text(&paths.host),
                path_in_container: paths.in_container.as_deref().map(text),
                volume: text(&volume.primary().mount_point),
                bytes: file.bytes,
                deleted: file.links == 0,
                pid: file.pid,
                fd: file.fd,
                others: Vec::new(),
                kernel: false,
            }
        });
        if known.fd.is_none() && file.fd.is_some() {
            (known.pid, known.fd) = (file.pid, file.fd);
        }
    }
    for file in open.files.iter().filter(|file| !pids.contains(&file.pid)) {
        if let Some(ours) = files.get_mut(&file.key()) {
            if file.pid == 0 {
                ours.kernel = true;
            } else if ours.others.last() != Some(&file.pid) {
                ours.others.push(file.pid);
            }
        }
    }
    Ok(files.into_values().collect())
}

fn methods(target: &Target, hierarchies: &Hierarchies) -> Vec<Method> {
    let method = SuspendMethod::choose(&target.scope, hierarchies).describe();
    let kill = terminate::kill_file(&target.scope, hierarchies).map_or_else(
        || "SIGKILL to each process until none is left".to_owned(),
        |file| format!("cgroup.kill of {}", file.parent().unwrap_or(&file).display()),
    );
    Action::ALL
        .into_iter()
        .map(|how| {
            let by = match how {
                Action::Freeze => Ok(method.clone()),
                Action::Throttle => Ok(format!("alternately suspended and resumed: {method}")),
                Action::Fence => fence::check(host_root::in_container())
                    .map(|()| "BPF LSM: calls that take space on a volume fail".to_owned()),
                Action::Term => Ok("SIGTERM to each process".to_owned()),
                Action::Kill => Ok(kill.clone()),
                Action::Unit => unit::command(target).map(|command| command.describe()),
                Action::Truncate => Ok("ftruncate through /proc/PID/fd".to_owned()),
            };
            Method { how, by }
        })
        .collect()
}

fn warnings(target: &Target, hierarchies: &Hierarchies, pids: &BTreeSet<u32>) -> Vec<String> {
    let mut warnings = Vec::new();
    let parents: Vec<String> = target
        .roles
        .iter()
        .filter(|(_, role)| **role == Role::Parent)
        .map(|(pid, _)| pid.to_string())
        .collect();
    if !parents.is_empty() {
        warnings.push(format!(
            "{} was forked by {}, which would fork a replacement and is therefore part of the target \
             (--reach tree leaves it out)",
            target.subject.argument,
            parents.join(", ")
        ));
    }
    if SuspendMethod::choose(&target.scope, hierarchies) == SuspendMethod::Signals
        && !pids.is_empty()
    {
        warnings.push(
            "no cgroup contains exactly these processes: SIGSTOP is used, which their parent can see"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigterm_is_ignored_by_mask_or_by_a_namespace_init() {
        let term = Some(1u64 << (libc::SIGTERM - 1));
        assert!(ignores(false, term, Some(0)), "SIGTERM is ignored");
        assert!(!ignores(false, Some(0), Some(0)), "the default action terminates it");
        assert!(ignores(true, Some(0), Some(0)), "the first process has no default action");
        assert!(!ignores(true, Some(0), term), "it has a handler");
        assert!(!ignores(true, None, None), "the masks are unknown");
    }
}
