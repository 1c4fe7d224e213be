//! Writers in special places: workers of a forking server, and a container.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::{Truth, create, wait_for_line, write_blocks};

/// How a container's file is created.
#[derive(Args, Clone)]
pub struct Layers {
    /// The lower layer; by default one is created in DIR
    #[arg(long)]
    lower: Option<PathBuf>,
    /// The lower layer has the file, which is copied up by the first write
    #[arg(long)]
    copied: bool,
    /// Remove the file's name before the first write
    #[arg(long)]
    unlink: bool,
}

impl Layers {
    fn lower(&self, dir: &Path) -> PathBuf {
        self.lower.clone().unwrap_or_else(|| dir.join("lower"))
    }

    fn arguments(&self) -> Vec<OsString> {
        let lower = self.lower.iter().flat_map(|lower| [OsString::from("--lower"), lower.into()]);
        let flags = [(self.copied, "--copied"), (self.unlink, "--unlink")];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag.into());
        lower.chain(flags).collect()
    }
}

#[derive(Subcommand)]
pub enum Places {
    /// A server that forks workers, eight at a time; each writes one file and ends
    ForkServer {
        dir: PathBuf,
        #[arg(long)]
        workers: u32,
        #[arg(long)]
        bytes: u64,
        /// How long each worker lives at least
        #[arg(long, default_value_t = 50)]
        life_ms: u64,
    },
    /// A process with mount, pid and (on request) user namespaces of its own whose root is an
    /// overlay in DIR; it keeps the file open until a line comes on stdin
    Container {
        dir: PathBuf,
        /// As the container sees it
        path: PathBuf,
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        user: bool,
        #[command(flatten)]
        layers: Layers,
    },
    /// What `container` starts in the new namespaces
    #[command(hide = true)]
    Contained {
        dir: PathBuf,
        path: PathBuf,
        bytes: u64,
        #[command(flatten)]
        layers: Layers,
    },
}

pub fn run(work: Places, truth: &mut Truth) -> anyhow::Result<()> {
    match work {
        Places::ForkServer { dir, workers, bytes, life_ms } => {
            serve(&dir, workers, bytes, Duration::from_millis(life_ms), truth)
        }
        Places::Container { dir, path, bytes, user, layers } => {
            container(&dir, &path, bytes, user, &layers, truth)
        }
        Places::Contained { dir, path, bytes, layers } => contained(&dir, &path, bytes, &layers),
    }
}

fn serve(
    dir: &Path,
    workers: u32,
    bytes: u64,
    life: Duration,
    truth: &mut Truth,
) -> anyhow::Result<()> {
    let mut started = 0;
    let mut alive = 0;
    while started < workers || alive > 0 {
        if started < workers && alive < 8 {
            let path = dir.join(format!("worker-{started:05}"));
            // SAFETY: this process has one thread, so that the child may do whatever its parent
            // could.
            match unsafe { libc::fork() } {
                -1 => return Err(std::io::Error::last_os_error().into()),
                0 => {
                    let done = write_blocks(&create(&path)?, bytes, 65_536);
                    std::thread::sleep(life);
                    std::process::exit(i32::from(!done.is_ok_and(|done| done == bytes)));
                }
                pid => truth.children.push(pid.unsigned_abs()),
            }
            truth.written.insert(path, bytes);
            started += 1;
            alive += 1;
        } else {
            let mut status = 0;
            // SAFETY: a valid pointer to an integer.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
            anyhow::ensure!(pid > 0 && status == 0, "a worker failed");
            alive -= 1;
        }
    }
    Ok(())
}

fn container(
    dir: &Path,
    path: &Path,
    bytes: u64,
    user: bool,
    layers: &Layers,
    truth: &mut Truth,
) -> anyhow::Result<()> {
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let inside = path.strip_prefix("/").context("not an absolute path")?;
    let below = layers.lower(dir).join(inside);
    fs::create_dir_all(below.parent().context("no directory")?)?;
    if layers.copied {
        fs::write(below, "of the image\n")?;
    }
    let own = std::env::current_exe()?;
    let user = if user { libc::CLONE_NEWUSER } else { 0 };
    // SAFETY: no pointers. The pid namespace is for children alone.
    let result = unsafe { libc::unshare(user | libc::CLONE_NEWNS | libc::CLONE_NEWPID) };
    anyhow::ensure!(result == 0, "unshare: {}", std::io::Error::last_os_error());
    if user != 0 {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", "0 0 1")?;
        fs::write("/proc/self/gid_map", "0 0 1")?;
    }
    let mut child = Command::new(own)
        .arg("contained")
        .args([dir, path])
        .arg(bytes.to_string())
        .args(layers.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = std::io::BufReader::new(child.stdout.take().context("piped")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line)?;
    anyhow::ensure!(line.trim() == "written", "the container failed");
    truth.children.push(child.id());
    truth.written.insert(dir.join("upper").join(inside), bytes);
    crate::print(truth)?;
    wait_for_line()?;
    child.stdin.take().context("piped")?.write_all(b"end\n")?;
    anyhow::ensure!(child.wait()?.success(), "the container failed");
    std::process::exit(0);
}

fn contained(dir: &Path, path: &Path, bytes: u64, layers: &Layers) -> anyhow::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let merged = dir.join("merged");
    let options = format!(
        "lowerdir={1},upperdir={0}/upper,workdir={0}/work",
        dir.to_str().context("a test's path is UTF-8")?,
        layers.lower(dir).to_str().context("a test's path is UTF-8")?
    );
    let (root, target, options) = (text(Path::new("/"))?, text(&merged)?, CString::new(options)?);
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: NUL-terminated strings that live until the calls return.
    let result = unsafe {
        libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), flags, std::ptr::null())
    };
    anyhow::ensure!(result == 0, "private mounts: {}", std::io::Error::last_os_error());
    // SAFETY: as above.
    let result = unsafe {
        let overlay = c"overlay".as_ptr();
        libc::mount(overlay, target.as_ptr(), overlay, 0, options.as_ptr().cast())
    };
    anyhow::ensure!(result == 0, "overlay: {}", std::io::Error::last_os_error());
    std::env::set_current_dir(&merged)?;
    // Like a runtime that writes its log before it starts the container: the tracer may have looked
    // up the process by then.
    fs::write(dir.join("log"), "log\n")?;
    std::thread::sleep(Duration::from_millis(300));
    enter_root()?;
    std::env::set_current_dir("/")?;
    let file = create(path)?;
    if layers.unlink {
        fs::remove_file(path)?;
    }
    anyhow::ensure!(write_blocks(&file, bytes, 65_536)? == bytes);
    println!("written");
    std::io::stdout().flush()?;
    wait_for_line()
}

/// Makes the current directory, a mount point, the root of this mount namespace.
fn enter_root() -> anyhow::Result<()> {
    // pivot_root(2): with the same directory twice, the old root ends up on top and is detached.
    // SAFETY: NUL-terminated strings.
    if unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) } == 0 {
        // SAFETY: as above.
        let result = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
        anyhow::ensure!(result == 0, "umount: {}", std::io::Error::last_os_error());
        return Ok(());
    }
    // The root of an initramfs cannot be pivoted: the mount is moved over it.
    let (here, root) = (c".".as_ptr(), c"/".as_ptr());
    // SAFETY: as above.
    let result =
        unsafe { libc::mount(here, root, std::ptr::null(), libc::MS_MOVE, std::ptr::null()) };
    anyhow::ensure!(result == 0, "move: {}", std::io::Error::last_os_error());
    Ok(std::os::unix::fs::chroot(".")?)
}
