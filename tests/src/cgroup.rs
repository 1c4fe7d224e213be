//! A control group for one test.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// A cgroup; processes that are left in it are killed on drop.
pub struct Cgroup(PathBuf);

/// Where cgroup v2 is mounted.
///
/// # Errors
/// If it is not mounted.
pub fn unified() -> anyhow::Result<PathBuf> {
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    let mount = mounts.into_iter().find(|path| path.join("cgroup.procs").exists());
    mount.context("cgroup v2 is not mounted")
}

impl Cgroup {
    /// Creates it in the hierarchy of cgroup v2.
    ///
    /// # Errors
    /// If that is not mounted, or the cgroup cannot be created.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Self::below(&unified()?, name)
    }

    /// Creates it below another one, or in a hierarchy of cgroup v1. Leftovers of a test that was
    /// killed are removed first.
    ///
    /// # Errors
    /// The error of mkdir(2).
    pub fn below(parent: &Path, name: &str) -> anyhow::Result<Self> {
        let path = parent.join(name);
        if path.exists() {
            drop(Self(path.clone()));
        }
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// If the process or the cgroup is gone.
    pub fn take(&self, child: &Child) -> anyhow::Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), child.id().to_string())?)
    }

    /// The file to which a process writes its pid to join.
    pub(crate) fn joined_by(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// The processes in it.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        while fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(3) {
            for pid in self.processes() {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
