//! The fence as an action: which volume, whom, and by what it is told who belongs to them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracer_model::action::plan::File;
use tracer_model::sanitize;

use super::members::{Scope, Tracker};
use super::suspend;
use tracer_host::cgroup::Hierarchies;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::pidfd::Identity;
use tracer_host::{clock, host_root, mounts};
use tracer_kernel::fence::{Fence, FenceScope};

/// How long it may take to find all that fork away meanwhile.
const PATIENCE: Duration = Duration::from_millis(900);

/// Who is kept off which volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// The volume: the kernel's `s_dev`, major << 20 | minor.
    pub dev: u32,
    /// Its mount point.
    pub volume: String,
    /// The directory of the cgroup v2 that is fenced with all below; `None` where processes are fenced
    /// one by one, with all that they fork.
    pub cgroup: Option<Cgroup>,
}

/// A cgroup v2 as the kernel side knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its directory.
    pub dir: PathBuf,
    /// Its depth below the root.
    pub level: u32,
}

impl Wall {
    /// The wall around a target: off the volume that holds the path `wanted`, else off the one on which
    /// the target has files open for writing.
    ///
    /// # Errors
    /// Why there is none: no such volume, or more than one.
    pub fn choose(
        scope: &Scope,
        hierarchies: &Hierarchies,
        files: &[File],
        wanted: Option<&Path>,
    ) -> Result<Self, String> {
        let volume = match wanted {
            Some(path) => mounts::holding(path).map_err(|error| format!("{error:#}"))?,
            None => only_volume(files)?,
        };
        let point = volume.primary().mount_point.as_os_str().as_encoded_bytes();
        let volume_name = sanitize::lossless(point);
        let cgroup = suspend::cgroup_v2(scope, hierarchies)
            .and_then(|dir| Cgroup::new(dir, hierarchies.v2.as_deref()?));
        Ok(Self { dev: volume.dev, volume: volume_name, cgroup })
    }

    /// In words, for plans and audit lines.
    #[must_use]
    pub fn words(&self) -> String {
        let whom = match &self.cgroup {
            Some(cgroup) => format!("cgroup {} and all below", cgroup.dir.display()),
            None => "each process and all that it forks".to_owned(),
        };
        format!("BPF LSM: calls that take space on {} fail with EDQUOT, for {whom}", self.volume)
    }

    /// Loads its programs; nobody is kept off yet.
    ///
    /// # Errors
    /// What the kernel says, or that the cgroup is gone.
    pub fn load(&self) -> anyhow::Result<Fence> {
        let whom = match &self.cgroup {
            Some(cgroup) => {
                FenceScope::Cgroup { id: fs::metadata(&cgroup.dir)?.ino(), level: cgroup.level }
            }
            None => FenceScope::Processes,
        };
        Fence::load(self.dev, whom, host_root::in_container())
    }

    /// Adds the target's processes one by one, until two looks in a row find nobody new: what a fenced
    /// process forks is fenced by the kernel side. Does nothing where a cgroup is fenced.
    ///
    /// # Errors
    /// If there are too many.
    pub fn enclose(&self, fence: &mut Fence, tracker: &mut Tracker) -> io::Result<usize> {
        if let Some(cgroup) = &self.cgroup {
            return Ok(tracer_host::cgroup::processes(&cgroup.dir).len());
        }
        tracker.listen();
        let start = clock::instant();
        let mut known: BTreeSet<Identity> = BTreeSet::new();
        let mut quiet = 0;
        while quiet < 2 {
            let (_, members) = tracker.look();
            let new: Vec<Identity> =
                members.into_iter().filter(|identity| known.insert(*identity)).collect();
            quiet = if new.is_empty() { quiet + 1 } else { 0 };
            for identity in new {
                fence.add(identity.pid, identity.start_ticks)?;
            }
            if start.elapsed() > PATIENCE {
                let error = "it forks faster than its processes can be listed: fence its cgroup";
                return Err(io::Error::new(ErrorKind::TimedOut, error));
            }
        }
        Ok(known.len())
    }
}

impl Cgroup {
    /// `None` for the root, and where the hierarchy is only seen from within a cgroup namespace: depths
    /// are then not the kernel's.
    fn new(dir: PathBuf, root: &Path) -> Option<Self> {
        const ROOT_INODE: u64 = 1;
        let level = dir.strip_prefix(root).ok()?.components().count();
        let whole = fs::metadata(root).ok()?.ino() == ROOT_INODE;
        (whole && level > 0).then_some(Self { dir, level: level as u32 })
    }
}

/// The one volume that the target writes on.
fn only_volume(files: &[File]) -> Result<MountedVolume, String> {
    let volumes: BTreeSet<&str> = files.iter().map(|file| file.volume.as_str()).collect();
    let name = match volumes.into_iter().collect::<Vec<_>>()[..] {
        [name] => name,
        [] => return Err("it has no file open for writing: name the volume with --volume".into()),
        ref several => {
            return Err(format!(
                "it writes on {}: name one of them with --volume",
                several.join(", ")
            ));
        }
    };
    let volumes = mounts::read().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let is_it = |volume: &MountedVolume| {
        let point = volume.primary().mount_point.as_os_str().as_encoded_bytes();
        sanitize::lossless(point) == name
    };
    volumes.into_iter().find(is_it).ok_or_else(|| format!("{name} is not mounted any more"))
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
            fd: 3,
            others: Vec::new(),
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
        assert!(only_volume(&[file("/gone")]).unwrap_err().contains("not mounted"));
    }

    #[test]
    fn a_cgroup_has_its_depth_and_the_root_is_none() {
        let Some(root) = Hierarchies::read().v2 else {
            println!("SKIP a_cgroup_has_its_depth_and_the_root_is_none: no cgroup v2 is mounted");
            return;
        };
        assert_eq!(Cgroup::new(root.clone(), &root), None);
        let level = Cgroup::new(root.join("a/b"), &root).map(|cgroup| cgroup.level);
        assert!(level == Some(2) || fs::metadata(&root).unwrap().ino() != 1);
    }
}
