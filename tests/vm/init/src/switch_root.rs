//! Switching to the root of a Debian on a disk: its systemd becomes PID 1 and starts this program as a unit.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use filltop_init::{DEBIAN_FILES_DIR, JOB_PATH};
use rustix::mount::{MountFlags, mount, mount_move};

const NEW_ROOT: &str = "/newroot";

/// Files to copy, because the initramfs is not accessible afterwards.
const FILES: [&str; 4] = ["/init", JOB_PATH, "/bin/filltop", "/bin/filltop-workload"];
const TESTS: &str = "/tests";

/// The directory of units that exist for one boot only.
const UNITS: &str = "run/systemd/system";
/// The unit's name, which does not start with `filltop`: filltop protects units of that name.
const UNIT: &str = "job.service";

/// Executes the init of the system on `device`. Returns only if that fails.
pub(crate) fn switch_root(device: &str) -> Result<()> {
    fs::create_dir_all(NEW_ROOT)?;
    mount(device, NEW_ROOT, "ext4", MountFlags::empty(), c"").context(device.to_owned())?;
    let new = Path::new(NEW_ROOT);
    // systemd keeps a /run that is mounted already.
    mount("tmpfs", new.join("run"), "tmpfs", MountFlags::empty(), c"mode=0755")?;
    let copies = new.join(DEBIAN_FILES_DIR.trim_start_matches('/'));
    for path in FILES {
        copy_into(Path::new(path), &copies)?;
    }
    for test in fs::read_dir(TESTS).into_iter().flatten() {
        copy_into(&test?.path(), &copies)?;
    }
    let units = new.join(UNITS);
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    fs::write(units.join(UNIT), unit())?;
    symlink(format!("../{UNIT}"), wants.join(UNIT))?;

    for inner in ["dev", "proc", "sys"] {
        mount_move(Path::new("/").join(inner), new.join(inner)).context(inner)?;
    }
    std::env::set_current_dir(new)?;
    mount_move(".", "/").context("moving the root")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/sbin/init").env_clear().exec()).context("/sbin/init")
}

/// Copies a file to the same path below `into`.
fn copy_into(path: &Path, into: &Path) -> Result<()> {
    let to = into.join(path.strip_prefix("/")?);
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    fs::copy(path, &to).with_context(|| path.display().to_string())?;
    Ok(())
}

fn unit() -> String {
    format!(
        "[Unit]\nDescription=filltop tests\nAfter=multi-user.target\n\n\
         [Service]\nType=exec\nExecStart={DEBIAN_FILES_DIR}/init\nStandardError=journal+console\n\
         TimeoutStopSec=1\n"
    )
}
