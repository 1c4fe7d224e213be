//! What the tests want of a container runtime.

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
    /// What the runtime is to call it.
    pub name: &'a str,
    /// What its shell runs.
    pub script: &'a str,
    /// Start it again whenever it ends (where [`Runtime::restarts`]).
    pub restart: bool,
}

/// A running runtime with a store of its own. Everything ends and goes on drop.
///
/// Each container has at `/bind` the host's [`Home::bind`], at `/volume` a named volume (where the runtime has
/// such), and a tmpfs at `/dev/shm`.
pub trait Runtime: Send {
    /// `kind` of its groups in the JSON.
    fn kind(&self) -> &'static str;
    /// `name` of its groups in the JSON.
    fn called(&self, name: &str) -> String {
        name.to_owned()
    }
    /// The pod that it is the container of, as filltop calls it.
    fn pod(&self, _name: &str) -> Option<String> {
        None
    }
    /// What else `stop` is to understand.
    fn also_called(&self, name: &str) -> Result<Vec<String>>;
    /// Starts a container.
    fn run(&mut self, spec: &Spec<'_>) -> Result;
    /// Ends one, and removes what was its.
    fn remove(&mut self, name: &str) -> Result;
    /// The host's number of its first process, by the runtime's own word.
    fn pid(&self, name: &str) -> Result<u32>;
    /// Where on the host the files lie that it writes into its root.
    fn root(&self, name: &str) -> Result<PathBuf>;
    /// Where the named volume of a container lies on the host.
    fn volume(&self, _name: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// The file that its output goes to, if the runtime keeps one.
    fn log(&self, _name: &str) -> Result<Option<PathBuf>> {
        Ok(None)
    }
    /// Does it start containers again?
    fn restarts(&self) -> bool {
        false
    }
    /// Lets a command find the runtime's own programs, and these the runtime.
    fn environment(&self, _command: &mut Command) {}
    /// Its directories.
    fn home(&self) -> &Home;
}

/// The runtimes, in the order of their tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers of containerd, by its own `ctr`.
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

    /// The one that the machine has, as it is installed; `binds` is where bind mounts may lie.
    ///
    /// # Errors
    /// [`crate::Unavailable`] where it is none of those that are tested so.
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

/// The number in what a runtime printed.
fn pid_in(text: &str) -> Result<u32> {
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| anyhow::anyhow!("{text:?} is no process"))
}
