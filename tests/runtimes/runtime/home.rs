//! The directories of a runtime under test, and the removal of everything that it leaves behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::Context as _;
use filltop_tests::Server;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::upper_of_root;
use crate::image::Image;
use crate::tools::Tools;
use crate::{Result, Unavailable};

/// Marks the processes of a runtime, in their environment.
const MARK: &str = "FILLTOP_TEST_RUNTIME";
/// How long a daemon may take to respond, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Directories that runtimes create regardless of where their state is configured to be. Those that
/// did not exist before are removed as far as they are empty: another runtime may have been started
/// meanwhile.
const STRAYS: [&str; 7] = [
    "/run/containerd",
    "/run/docker",
    "/run/libpod",
    "/run/lxc",
    "/run/runc",
    "/run/systemd/nspawn",
    "/var/lib/containers",
];
/// Where LXC keeps locks, each under the path of its store.
const LXC_LOCKS: &str = "/run/lxc/lock";
/// podman's cache of layer locations, in [`STRAYS`].
const LAYER_CACHE: &str = "/var/lib/containers/cache/blob-info-cache-v1.boltdb";
/// Cgroups that runtimes create below the root of each hierarchy and leave behind when they are
/// empty.
const CGROUPS: [&str; 7] =
    ["default", "docker", "k8s.io", "kubepods", "libpod_parent", "lxc.pivot", "machine.slice"];

/// Directories of a runtime, and its image.
pub struct Home {
    pub tools: Tools,
    pub image: Image,
    dir: tempfile::TempDir,
    volume: PathBuf,
    mark: String,
    /// What to remove in the end; `None` for installed runtimes.
    strays: Option<Vec<&'static str>>,
}

impl Home {
    /// With stores on a volume; for installed runtimes with bind mounts there only.
    pub fn new(volume: &Path, installed: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tools = Tools::find();
        let dir = tempfile::Builder::new().prefix("filltop-").tempdir()?;
        let image = Image::new(&tools, dir.path())?;
        let mark = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let strays = || STRAYS.into_iter().filter(|path| !Path::new(path).exists()).collect();
        let strays = (!installed).then(strays);
        Ok(Self { tools, image, dir, volume: volume.to_owned(), mark, strays })
    }

    /// Whether the runtimes are the installed ones.
    pub fn is_installed(&self) -> bool {
        self.strays.is_none()
    }

    /// A path of its state, as text: sockets, pid files, configurations.
    pub fn state(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A path of its store, on the volume.
    pub fn store(&self, name: &str) -> String {
        self.volume.join(name).display().to_string()
    }

    /// The directory on the volume that a container has at `/bind`.
    pub fn bind(&self, name: &str) -> PathBuf {
        self.volume.join("binds").join(name)
    }

    /// The same, created, and empty even if another runtime's container of this name used it.
    pub fn make_bind(&self, name: &str) -> Result<String> {
        let dir = self.bind(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(dir.display().to_string())
    }

    /// A command that runs a program of the runtime.
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = self.tools.command(name)?;
        command.env(MARK, &self.mark);
        Ok(command)
    }

    /// Starts a daemon and waits until it responds.
    pub fn daemon(
        &self,
        command: &mut Command,
        answers: impl Fn() -> Result<bool>,
    ) -> Result<Daemon> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default();
        let path = self.dir.path().join(name).with_extension("log");
        let log = File::create(&path)?;
        command.stdout(log.try_clone()?).stderr(log);
        let mut daemon = Daemon(Server::spawn(command)?);
        let start = Instant::now();
        while !answers()? {
            let ended = daemon.0.0.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let last = log.lines().last().unwrap_or("nothing");
                let how = ended.map_or("does not answer".to_owned(), |status| status.to_string());
                return Err(Unavailable(format!("{}: {how}: {last}", path.display())).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// Whether this is one of the runtime's processes, or the first process of one of its
    /// containers.
    fn owns(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let wanted = format!("{MARK}={}", self.mark);
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
            || upper_of_root(pid).is_some_and(|upper| upper.starts_with(&self.volume))
    }

    /// Kills its processes until none is left.
    fn end_processes(&self) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let owned: Vec<u32> = processes().filter(|pid| self.owns(*pid)).collect();
            if owned.is_empty() {
                return;
            }
            for pid in owned.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Unmounts everything below its directories, last mounted first.
    fn unmount_all(&self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = text.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let ours = |point: &&Path| {
            point.starts_with(self.dir.path())
                || (point.starts_with(&self.volume) && **point != self.volume)
        };
        for point in points.filter(ours) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(strays) = self.strays.take() else { return };
        self.end_processes();
        self.unmount_all();
        let locks = self.volume.strip_prefix("/").map(|below| Path::new(LXC_LOCKS).join(below));
        let _ = locks.map(fs::remove_dir_all);
        for path in strays.iter().map(Path::new) {
            if Path::new(LAYER_CACHE).starts_with(path) {
                let _ = fs::remove_file(LAYER_CACHE);
            }
            let _ = remove_empty(path);
        }
        for hierarchy in hierarchies() {
            for name in CGROUPS {
                let _ = remove_empty(&hierarchy.join(name));
            }
        }
    }
}

/// A daemon; terminated on drop, and killed if it does not end.
pub struct Daemon(Server);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0.0), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE && matches!(self.0.0.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Pids of all processes but this one.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != process::id())
}

/// Where hierarchies of cgroups are mounted.
pub fn hierarchies() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(" - cgroup"));
    lines.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Removes a directory and those below it, as far as they are empty; a cgroup is empty when it has
/// no process.
fn remove_empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            let _ = remove_empty(&entry.path());
        }
    }
    fs::remove_dir(dir)
}

/// Runs a command in a cgroup of that path, in the hierarchies that systemd uses.
pub fn in_cgroup(path: &str, command: &Command) -> Result<Command> {
    let mut script = String::new();
    for hierarchy in hierarchies() {
        let controlled = hierarchy.join("cgroup.controllers").exists();
        if controlled || hierarchy.ends_with("systemd") {
            let dir = hierarchy.join(path);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            script += &format!("echo $$ > '{}/cgroup.procs' && ", dir.display());
        }
    }
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script + "exec \"$0\" \"$@\"").arg(command.get_program());
    shell.args(command.get_args());
    for (key, value) in command.get_envs() {
        shell.env(key, value.unwrap_or_default());
    }
    Ok(shell)
}
