//! Whether a supervisor survives the end of its container. The end of a container kills everything in
//! it, including the supervisor and its watchdog; a target outside would stay frozen for good.
//!
//! Sources: cgroup_namespaces(7) (a path that leads out of the reader's cgroup namespace begins with
//! `/..`); runc and crun kill all processes in the container's cgroup.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::record;
use crate::attribute::groups::cgroup_path::{CgroupOwner, classify, directory, most_specific};
use tracer_host::cgroup::{self, Hierarchies};
use tracer_host::host_root;
use tracer_host::process::pidfd::ProcessId;

/// What guarantees that a target is resumed, whatever ends this filltop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResumeGuarantee {
    /// Nothing but a reboot or the end of the target ends supervisor and watchdog together.
    Supervisor,
    /// This filltop runs in a container and the target does not. The supervisor leaves the container's
    /// cgroups through these files before it suspends anything.
    LeavesContainer(Vec<PathBuf>),
    /// As above, but the cgroups are not writable: the record is on the host, where any other filltop
    /// finds it.
    HostRecord,
    /// As above, but no process would resume the target.
    None,
}

/// Why an action with [`ResumeGuarantee::None`] is refused.
pub(crate) const REFUSAL: &str = "filltop runs in a container and the target does not, so the end of the container would leave the \
     target suspended for good; mount the host's /run/filltop into the container, give it write access \
     to the host's cgroups, or run filltop on the host";

/// Returns the guarantee for an action of this process on these processes.
#[must_use]
pub(crate) fn of(members: &[ProcessId], hierarchies: &Hierarchies) -> ResumeGuarantee {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |member: &ProcessId| cgroup::read(member.pid).ok();
    if !members.iter().filter_map(of).any(|theirs| is_outside(&own, &theirs)) {
        return ResumeGuarantee::Supervisor;
    }
    match exit_files(&own, hierarchies) {
        Some(files) => ResumeGuarantee::LeavesContainer(files),
        None if is_on_host(&record::directory()) => ResumeGuarantee::HostRecord,
        None => ResumeGuarantee::None,
    }
}

/// Whether the own process runs in a container that the other one is not part of. Both arguments are
/// contents of /proc/PID/cgroup.
fn is_outside(own: &str, theirs: &str) -> bool {
    let leads_out =
        |line: &str| line.splitn(3, ':').nth(2).is_some_and(|path| path.starts_with("/.."));
    if theirs.lines().any(leads_out) {
        return true;
    }
    let container = |text: &str| {
        let (path, place) = most_specific(text);
        is_container(&place).then(|| directory(&path).to_owned())
    };
    container(own).is_some_and(|own| container(theirs) != Some(own))
}

fn is_container(place: &CgroupOwner) -> bool {
    match place {
        CgroupOwner::Container { .. }
        | CgroupOwner::Build { .. }
        | CgroupOwner::Pod { .. }
        | CgroupOwner::Lxc(_)
        | CgroupOwner::Machine(_) => true,
        CgroupOwner::Monitor { .. }
        | CgroupOwner::Unit(_)
        | CgroupOwner::Plain(_)
        | CgroupOwner::Root => false,
    }
}

/// Returns the files through which a process leaves the container's cgroup in each hierarchy that has
/// one; `None` if one of them is not writable, or if they cannot be determined.
fn exit_files(own: &str, hierarchies: &Hierarchies) -> Option<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if !is_container(&classify(path)) {
            continue;
        }
        let root = match id {
            "0" => hierarchies.v2.as_ref(),
            _ => hierarchies.v1.iter().find(|(names, _)| names == controllers).map(|(_, at)| at),
        };
        let file = root?.join("cgroup.procs");
        access(&file, Access::WRITE_OK).ok()?;
        files.push(file);
    }
    // Inside a cgroup namespace only `/` is visible, which is no way out.
    (!files.is_empty()).then_some(files)
}

/// Moves this process out of the container's cgroups.
///
/// # Errors
/// System errors of the writes.
pub(crate) fn leave_container(files: &[PathBuf]) -> std::io::Result<()> {
    files.iter().try_for_each(|file| fs::write(file, std::process::id().to_string()))
}

/// Whether the host has this same directory at the same path.
fn is_on_host(dir: &Path) -> bool {
    let Some(base) = dir.parent() else { return false };
    let root = if host_root::root() == Path::new("/") {
        Path::new("/proc/1/root")
    } else {
        host_root::root()
    };
    let theirs = root.join(base.strip_prefix("/").unwrap_or(base));
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    id(base).is_some_and(|own| id(&theirs) == Some(own))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

    #[rstest]
    #[case::on_the_host("0::/user.slice/session-3.scope\n", "0::/docker/{ID}\n", false)]
    #[case::in_a_unit(
        "0::/system.slice/filltop.service\n",
        "0::/system.slice/web.service\n",
        false
    )]
    #[case::a_neighbour("0::/docker/{ID}\n", "0::/docker/{OTHER}\n", true)]
    #[case::the_host("0::/docker/{ID}\n", "0::/system.slice/web.service\n", true)]
    #[case::itself("0::/docker/{ID}\n", "0::/docker/{ID}/worker\n", false)]
    #[case::nested("0::/docker/{ID}\n", "0::/docker/{ID}/docker/{OTHER}\n", false)]
    #[case::podman("0::/libpod_parent/libpod-{ID}\n", "0::/\n", true)]
    #[case::v1("4:memory:/docker/{ID}\n0::/\n", "4:memory:/\n0::/\n", true)]
    #[case::own_namespace("0::/\n", "0::/../../system.slice/web.service\n", true)]
    #[case::inside_own_namespace("0::/\n", "0::/worker\n", false)]
    #[case::lxc("0::/lxc.payload.a/user.slice\n", "0::/lxc.payload.a/web\n", false)]
    fn a_target_outside_the_container_is_detected(
        #[case] own: &str,
        #[case] theirs: &str,
        #[case] expected: bool,
    ) {
        let other = ID.replace('3', "4");
        let text = |text: &str| text.replace("{ID}", ID).replace("{OTHER}", &other);
        assert_eq!(is_outside(&text(own), &text(theirs)), expected);
    }

    #[test]
    fn exit_files_cover_every_hierarchy_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let (v2, pids) = (dir.path().join("v2"), dir.path().join("pids"));
        for at in [&v2, &pids] {
            fs::create_dir(at).unwrap();
        }
        fs::write(v2.join("cgroup.procs"), "").unwrap();
        let hierarchies = Hierarchies {
            v2: Some(v2.clone()),
            freezer: None,
            v1: vec![("pids".to_owned(), pids.clone())],
        };
        let own = format!("8:pids:/docker/{ID}\n7:blkio:/\n0::/docker/{ID}\n");
        assert_eq!(exit_files(&own, &hierarchies), None, "one hierarchy would keep it");
        fs::write(pids.join("cgroup.procs"), "").unwrap();
        let files = exit_files(&own, &hierarchies).unwrap();
        assert_eq!(files, [pids.join("cgroup.procs"), v2.join("cgroup.procs")]);
        leave_container(&files).unwrap();
        assert_eq!(fs::read_to_string(&files[1]).unwrap(), std::process::id().to_string());
        assert_eq!(exit_files("0::/\n", &hierarchies), None);
    }
}
