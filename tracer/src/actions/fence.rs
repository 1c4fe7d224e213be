//! The fence as an action: which volume and which processes it covers, and how the kernel recognises
//! these processes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracer_model::action::facts::File;
use tracer_model::sanitize;

use super::freezer;
use super::members::{Scope, Tracker};
use tracer_host::cgroup::Hierarchies;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::pidfd::ProcessId;
use tracer_host::{clock, host_root, mounts};
use tracer_kernel::fence::{Fence, FenceScope};

/// How long it may take to enumerate the processes of a target that keeps forking.
const SCAN_TIMEOUT: Duration = Duration::from_millis(900);

/// The specification of a fence: which processes are blocked from which volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FenceSpec {
    /// Device number of the volume: the kernel's `s_dev`, major << 20 | minor.
    pub dev: u32,
    /// Mount point of the volume.
    pub volume: String,
    /// The cgroup v2 that is fenced, including all cgroups below it; `None` if processes are fenced one
    /// by one, including everything they fork.
    pub cgroup: Option<FencedCgroup>,
}

/// A cgroup v2, as the BPF programs identify it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FencedCgroup {
    /// The cgroup's directory.
    pub dir: PathBuf,
    /// The cgroup's depth below the root.
    pub level: u32,
}

impl FenceSpec {
    /// Chooses a fence for a target: for the volume that contains the path `wanted`, otherwise for the
    /// only volume on which the target has files open for writing.
    ///
    /// # Errors
    /// If there is no such volume, or more than one.
    pub(crate) fn choose(
        scope: &Scope,
        hierarchies: &Hierarchies,
        files: &[File],
        wanted: Option<&Path>,
    ) -> Result<Self, String> {
        let volume = match wanted {
            Some(path) => mounts::volume_of(path).map_err(|error| format!("{error:#}"))?,
            None => only_volume(files)?,
        };
        let point = volume.primary().mount_point.as_os_str().as_encoded_bytes();
        let volume_name = sanitize::lossless(point);
        let cgroup = freezer::cgroup_v2(scope, hierarchies)
            .and_then(|dir| FencedCgroup::new(dir, hierarchies.v2.as_deref()?));
        Ok(Self { dev: volume.dev, volume: volume_name, cgroup })
    }

    /// Describes the fence, for plans and audit lines.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let scope = match &self.cgroup {
            Some(cgroup) => format!("cgroup {} and all cgroups below it", cgroup.dir.display()),
            None => "each process and everything it forks".to_owned(),
        };
        format!("BPF LSM: calls that take space on {} fail with EDQUOT, for {scope}", self.volume)
    }

    /// Loads the BPF programs without attaching them, so nothing is blocked yet.
    ///
    /// # Errors
    /// System errors, and a cgroup that no longer exists.
    pub(crate) fn load(&self) -> anyhow::Result<Fence> {
        let scope = match &self.cgroup {
            Some(cgroup) => {
                FenceScope::Cgroup { id: fs::metadata(&cgroup.dir)?.ino(), level: cgroup.level }
            }
            None => FenceScope::Processes,
        };
        Fence::load(self.dev, scope, host_root::in_container())
    }

    /// Adds the target's processes one by one, until two scans in a row find no new one. What a fenced
    /// process forks from then on is fenced by the BPF programs. Adds nothing if a cgroup is fenced.
    /// Returns the number of processes.
    ///
    /// # Errors
    /// If the target forks too fast.
    pub(crate) fn add_members(
        &self,
        fence: &mut Fence,
        tracker: &mut Tracker,
    ) -> io::Result<usize> {
        if let Some(cgroup) = &self.cgroup {
            return Ok(tracer_host::cgroup::processes(&cgroup.dir).len());
        }
        tracker.listen();
        let start = clock::instant();
        let mut known: BTreeSet<ProcessId> = BTreeSet::new();
        let mut scans_without_new = 0;
        while scans_without_new < 2 {
            let (_, members) = tracker.scan();
            let new: Vec<ProcessId> =
                members.into_iter().filter(|identity| known.insert(*identity)).collect();
            scans_without_new = if new.is_empty() { scans_without_new + 1 } else { 0 };
            for identity in new {
                fence.add(identity.pid, identity.start_ticks)?;
            }
            if start.elapsed() > SCAN_TIMEOUT {
                let error = "it forks faster than its processes can be enumerated; fence its cgroup instead";
                return Err(io::Error::new(ErrorKind::TimedOut, error));
            }
        }
        Ok(known.len())
    }
}

impl FencedCgroup {
    /// Returns `None` for the root, and inside a cgroup namespace, where the visible depth is not the
    /// kernel's.
    fn new(dir: PathBuf, root: &Path) -> Option<Self> {
        const ROOT_INODE: u64 = 1;
        let level = dir.strip_prefix(root).ok()?.components().count();
        let whole = fs::metadata(root).ok()?.ino() == ROOT_INODE;
        (whole && level > 0).then_some(Self { dir, level: level as u32 })
    }
}

/// Returns the only volume on which the target has files open for writing.
fn only_volume(files: &[File]) -> Result<MountedVolume, String> {
    let volumes: BTreeSet<&str> = files.iter().map(|file| file.volume.as_str()).collect();
    let name = match volumes.into_iter().collect::<Vec<_>>()[..] {
        [name] => name,
        [] => return Err("it has no file open for writing; name the volume with --volume".into()),
        ref several => {
            return Err(format!(
                "it writes to {}; name one of them with --volume",
                several.join(", ")
            ));
        }
    };
    let volumes = mounts::read().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let is_it = |volume: &MountedVolume| {
        let point = volume.primary().mount_point.as_os_str().as_encoded_bytes();
        sanitize::lossless(point) == name
    };
    volumes.into_iter().find(is_it).ok_or_else(|| format!("{name} is no longer mounted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(volume: &str) -> File {
        File {
            path: format!("{volume}/f"),
            path_in_container: None,
            link: None,
            volume: volume.to_owned(),
            bytes: 1,
            deleted: false,
            pid: 7,
            fd: Some(3),
            others: Vec::new(),
            kernel: false,
        }
    }

    #[test]
    fn the_volume_is_named_or_the_only_one() {
        let root = mounts::read().unwrap();
        let name = root[0].primary().mount_point.to_str().unwrap().to_owned();
        assert_eq!(only_volume(&[file(&name), file(&name)]).unwrap().dev, root[0].dev);
        assert!(only_volume(&[]).unwrap_err().contains("--volume"));
        let several = only_volume(&[file("/a"), file("/b")]).unwrap_err();
        assert!(several.contains("/a, /b") && several.contains("--volume"), "{several}");
        assert!(only_volume(&[file("/gone")]).unwrap_err().contains("no longer mounted"));
    }

    #[test]
    fn a_cgroup_has_its_depth_and_the_root_is_rejected() {
        let Some(root) = Hierarchies::read().v2 else {
            println!(
                "SKIP a_cgroup_has_its_depth_and_the_root_is_rejected: no cgroup v2 is mounted"
            );
            return;
        };
        assert_eq!(FencedCgroup::new(root.clone(), &root), None);
        let level = FencedCgroup::new(root.join("a/b"), &root).map(|cgroup| cgroup.level);
        assert!(level == Some(2) || fs::metadata(&root).unwrap().ino() != 1);
    }
}
