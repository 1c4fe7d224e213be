//! Volumes that tests may fill: the given disks, or loop images.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// A mounted filesystem for one test; unmounted on drop.
pub struct TestVolume {
    mount_point: PathBuf,
    disk: Option<String>,
    _dir: tempfile::TempDir,
}

static IN_USE: Mutex<Option<HashSet<String>>> = Mutex::new(None);

impl TestVolume {
    /// Creates and mounts an empty filesystem of some `mib` MiB (given disks keep their own size
    /// unless `mib` is smaller).
    ///
    /// # Errors
    /// If mkfs or mount fail, with their output.
    pub fn new(fs_type: &str, mib: u64) -> anyhow::Result<Self> {
        Self::with_options(fs_type, mib, "")
    }

    /// The same with filesystem-specific mount options. A tmpfs needs no disk.
    ///
    /// # Errors
    /// As [`TestVolume::new`].
    pub fn with_options(fs_type: &str, mib: u64, options: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mount_point = dir.path().join("volume");
        fs::create_dir(&mount_point)?;
        if fs_type == "tmpfs" {
            let options =
                format!("size={mib}M{}{options}", if options.is_empty() { "" } else { "," });
            mount("tmpfs", Path::new("tmpfs"), &mount_point, &options)?;
            return Ok(Self { mount_point, disk: None, _dir: dir });
        }
        let disk = free_disk();
        let source = match &disk {
            Some(disk) => PathBuf::from(disk),
            None => image(dir.path(), mib)?,
        };
        make(fs_type, &source, mib)?;
        if disk.is_none() {
            mount_image(fs_type, &source, &mount_point, options)?;
        } else {
            mount(fs_type, &source, &mount_point, options)?;
        }
        Ok(Self { mount_point, disk, _dir: dir })
    }

    /// Creates one in a file `image` of `dir`, which may be on another volume.
    ///
    /// # Errors
    /// As [`TestVolume::new`].
    pub fn in_image(dir: &Path, fs_type: &str, mib: u64) -> anyhow::Result<Self> {
        let source = image(dir, mib)?;
        let dir = tempfile::tempdir()?;
        let mount_point = dir.path().join("volume");
        fs::create_dir(&mount_point)?;
        make(fs_type, &source, mib)?;
        mount_image(fs_type, &source, &mount_point, "")?;
        Ok(Self { mount_point, disk: None, _dir: dir })
    }

    /// Its mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }
}

/// How long killed processes may keep the volume busy.
const RELEASE_TIME: Duration = Duration::from_millis(300);

impl Drop for TestVolume {
    fn drop(&mut self) {
        let start = Instant::now();
        while rustix::mount::unmount(&self.mount_point, UnmountFlags::empty()).is_err() {
            if start.elapsed() > RELEASE_TIME {
                eprintln!("{} is detached while it is in use", self.mount_point.display());
                let _ = rustix::mount::unmount(&self.mount_point, UnmountFlags::DETACH);
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        if let (Some(disk), Ok(mut in_use)) = (&self.disk, IN_USE.lock()) {
            in_use.get_or_insert_default().remove(disk);
        }
    }
}

fn free_disk() -> Option<String> {
    let disks = env::var("FILLTOP_TEST_DISKS").ok()?;
    let mut in_use = IN_USE.lock().ok()?;
    let in_use = in_use.get_or_insert_default();
    let mut disks = disks.split(',').filter(|disk| !disk.is_empty());
    let disk = disks.find(|disk| !in_use.contains(*disk) && !is_mounted(disk))?;
    in_use.insert(disk.to_owned());
    Some(disk.to_owned())
}

/// Whether the disk is still in use, perhaps by a process that holds a detached mount. open(2):
/// O_EXCL on a block device.
fn is_mounted(disk: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(disk, flags, Mode::empty()).is_err_and(|error| error == Errno::BUSY)
}

fn image(dir: &Path, mib: u64) -> anyhow::Result<PathBuf> {
    let path = dir.join("image");
    fs::File::create(&path)?.set_len(mib << 20)?;
    Ok(path)
}

fn make(fs_type: &str, source: &Path, mib: u64) -> anyhow::Result<()> {
    let mut mkfs = Command::new(format!("mkfs.{fs_type}"));
    match fs_type {
        "ext4" => mkfs.args(["-q", "-F", "-b", "4096"]).arg(source).arg(format!("{mib}M")),
        "xfs" => mkfs.args(["-q", "-f"]).arg(source),
        "btrfs" => mkfs.args(["-q", "-f"]).arg(source),
        _ => bail!("cannot make a {fs_type}"),
    };
    run(&mut mkfs)
}

fn mount(fs_type: &str, source: &Path, target: &Path, options: &str) -> anyhow::Result<()> {
    let flags = rustix::mount::MountFlags::empty();
    let options = CString::new(options)?;
    rustix::mount::mount(source, target, fs_type, flags, options.as_c_str())
        .with_context(|| format!("cannot mount {} with {options:?}", source.display()))
}

/// Mounts the filesystem in a file; mount(8) sets up the loop device, and umount detaches it.
fn mount_image(fs_type: &str, image: &Path, target: &Path, options: &str) -> anyhow::Result<()> {
    let options = ["loop", options].join(if options.is_empty() { "" } else { "," });
    run(Command::new("mount").args(["-t", fs_type, "-o", &options]).arg(image).arg(target))
}

/// An overlayfs whose layers are in one directory; unmounted on drop.
pub struct Overlay {
    base: PathBuf,
}

impl Overlay {
    /// Creates the layers in `base` and mounts it.
    ///
    /// # Errors
    /// If that fails: not every kernel has overlayfs.
    pub fn new(base: &Path) -> anyhow::Result<Self> {
        Self::with_layers(base, base, "")
    }

    /// The same with a lower layer in another directory, and further mount options.
    ///
    /// # Errors
    /// As [`Overlay::new`].
    pub fn with_layers(base: &Path, lower: &Path, options: &str) -> anyhow::Result<Self> {
        let layer = |base: &Path, name: &str| -> anyhow::Result<String> {
            let path = base.join(name);
            fs::create_dir_all(&path)?;
            Ok(path.to_str().context("a test's path is UTF-8")?.to_owned())
        };
        let (upper, work) = (layer(base, "upper")?, layer(base, "work")?);
        let (lower, merged) = (layer(lower, "lower")?, layer(base, "merged")?);
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}{options}");
        mount("overlay", Path::new("overlay"), Path::new(&merged), &options)?;
        Ok(Self { base: base.to_path_buf() })
    }

    /// Mounts it as docker and podman do with many layers: their names are relative to a parent
    /// directory, so that they fit into the options of mount(2).
    ///
    /// # Errors
    /// As [`Overlay::new`].
    pub fn relative(base: &Path) -> anyhow::Result<Self> {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(base.join(name))?;
        }
        let script = "cd \"$1\" && exec mount -t overlay overlay \
                      -o lowerdir=lower,upperdir=upper,workdir=work \"$1/merged\"";
        run(Command::new("sh").args(["-c", script, "sh"]).arg(base))?;
        Ok(Self { base: base.to_path_buf() })
    }

    /// What its users see.
    #[must_use]
    pub fn merged(&self) -> PathBuf {
        self.base.join("merged")
    }

    /// The directory that holds what they write.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.base.join("upper")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.merged(), UnmountFlags::DETACH);
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
