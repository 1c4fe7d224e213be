//! The interface to a container runtime under test.

mod containerd;
mod cri;
mod docker;
mod grpc;
mod home;
mod lxc;
mod nspawn;
mod podman;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use home::Home;

use crate::Result;

/// A container to start.
pub struct Spec<'a> {
    /// Its name for the runtime.
    pub name: &'a str,
    /// The script that its shell runs.
    pub script: &'a str,
    /// Start it again whenever it ends (where [`Runtime::restarts`]).
    pub restart: bool,
}

/// A running runtime with a store of its own. Everything is ended and removed on drop.
///
/// Each container has at `/bind` the host's [`Home::bind`], at `/volume` a named volume (where the
/// runtime has them), and a tmpfs at `/dev/shm`.
pub trait Runtime: Send {
    /// `kind` of its groups in the JSON.
    fn kind(&self) -> &'static str;
    /// `name` of its groups in the JSON.
    fn called(&self, name: &str) -> String {
        name.to_owned()
    }
    /// The pod that the container belongs to, as filltop names it.
    fn pod(&self, _name: &str) -> Option<String> {
        None
    }
    /// Other words for it that `stop` must understand.
    fn also_called(&self, name: &str) -> Result<Vec<String>>;
    /// Starts a container.
    fn run(&mut self, spec: &Spec<'_>) -> Result;
    /// Ends a container, and removes everything that belonged to it.
    fn remove(&mut self, name: &str) -> Result;
    /// The pid on the host of its first process, from the runtime.
    fn pid(&self, name: &str) -> Result<u32>;
    /// The directory on the host that holds the files written to its root.
    fn root(&self, name: &str) -> Result<PathBuf>;
    /// The directory on the host of a container's named volume.
    fn volume(&self, _name: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// The file that its output is written to, if the runtime keeps one.
    fn log(&self, _name: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// Whether the runtime restarts containers.
    fn restarts(&self) -> bool {
        false
    }
    /// Sets the environment in which a command finds the runtime's own programs, and these the
    /// runtime.
    fn environment(&self, _command: &mut Command) {}
    /// Its directories.
    fn home(&self) -> &Home;
}

/// The runtimes, in the order of their tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers of containerd, started with `ctr`.
    Containerd,
    /// Pods, as kubelet has containerd run them.
    Cri,
    Docker,
    Lxc,
    Nspawn,
    Podman,
    /// podman's other storage driver, without overlays.
    PodmanVfs,
}

impl Kind {
    /// Starts it with its store on a volume.
    ///
    /// # Errors
    /// [`crate::Unavailable`] where it cannot run here.
    pub fn start(self, volume: &Path) -> Result<Box<dyn Runtime>> {
        let home = Home::new(volume, false)?;
        Ok(match self {
            Self::Containerd => Box::new(containerd::Ctr::start(home)?),
            Self::Cri => Box::new(cri::Cri::start(home)?),
            Self::Docker => Box::new(docker::Docker::start(home)?),
            Self::Lxc => Box::new(lxc::Lxc::start(home)?),
            Self::Nspawn => Box::new(nspawn::Nspawn::start(home)?),
            Self::Podman => Box::new(podman::Podman::start(home, "overlay")?),
            Self::PodmanVfs => Box::new(podman::Podman::start(home, "vfs")?),
        })
    }

    /// The installed one; `binds` is the directory for bind mounts.
    ///
    /// # Errors
    /// [`crate::Unavailable`] if it is not one of those that are tested like that.
    pub fn installed(self, binds: &Path) -> Result<Box<dyn Runtime>> {
        let home = Home::new(binds, true)?;
        Ok(match self {
            Self::Docker => Box::new(docker::Docker::installed(home)?),
            Self::Podman => Box::new(podman::Podman::installed(home)?),
            _ => return Err(crate::Unavailable(format!("{self:?} is tested natively")).into()),
        })
    }
}

/// `upperdir=` of the overlay that is the root of a process.
fn upper_of_root(pid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
    // 36 35 98:0 ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE SUPER_OPTIONS
    let root = text.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
    let options = root.rsplit(' ').next()?.split(',');
    options.filter_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from).next()
}

/// The number in a runtime's output.
fn pid_in(text: &str) -> Result<u32> {
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| anyhow::anyhow!("{text:?} is no process"))
}
