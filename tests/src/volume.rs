//! Volumes that tests may fill: disks they were given, else loop images.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, bail};

/// A mounted filesystem of the test's own; unmounted on drop.
pub struct TestVolume {
    mount_point: PathBuf,
    disk: Option<String>,
    _dir: tempfile::TempDir,
}

static IN_USE: Mutex<Option<HashSet<String>>> = Mutex::new(None);

impl TestVolume {
    /// Makes and mounts an empty filesystem of some `mib` MiB (disks that were given: of their own
    /// size unless `mib` is smaller).
    ///
    /// # Errors
    /// If mkfs or mount fail, with their words.
    pub fn new(fs_type: &str, mib: u64) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mount_point = dir.path().join("volume");
        fs::create_dir(&mount_point)?;
        let disk = free_disk();
        let source = match &disk {
            Some(disk) => PathBuf::from(disk),
            None => image(dir.path(), mib)?,
        };
        make(fs_type, &source, mib)?;
        mount(fs_type, &source, &mount_point, disk.is_none())?;
        Ok(Self { mount_point, disk, _dir: dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }
}

impl Drop for TestVolume {
    fn drop(&mut self) {
        if rustix::mount::unmount(&self.mount_point, rustix::mount::UnmountFlags::empty()).is_err()
        {
            let _ = rustix::mount::unmount(&self.mount_point, rustix::mount::UnmountFlags::DETACH);
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
    let disk = disks.split(',').find(|disk| !disk.is_empty() && !in_use.contains(*disk))?;
    in_use.insert(disk.to_owned());
    Some(disk.to_owned())
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
        _ => bail!("no recipe for {fs_type}"),
    };
    run(&mut mkfs)
}

fn mount(fs_type: &str, source: &Path, target: &Path, is_image: bool) -> anyhow::Result<()> {
    if is_image {
        return run(Command::new("mount")
            .args(["-t", fs_type, "-o", "loop"])
            .arg(source)
            .arg(target));
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(source, target, fs_type, flags, None)
        .with_context(|| format!("cannot mount {}", source.display()))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
