//! Handing over to a Debian on a disk: its systemd becomes PID 1, and starts us again as a unit.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use filltop_init::{BOOTED_DIR, JOB_PATH};
use rustix::mount::{MountFlags, mount, mount_move};

const NEW_ROOT: &str = "/newroot";

/// What goes along: the rest of the initramfs is gone afterwards.
const BAGGAGE: [&str; 4] = ["/init", JOB_PATH, "/bin/filltop", "/bin/filltop-workload"];
const TESTS: &str = "/tests";

/// Units that are there for this boot alone.
const UNITS: &str = "run/systemd/system";
/// Not one that filltop protects as its own (`filltop*`).
const UNIT: &str = "job.service";

/// Becomes the init of the system on `device`; returns only if that fails.
pub(crate) fn hand_over(device: &str) -> Result<()> {
    fs::create_dir_all(NEW_ROOT)?;
    mount(device, NEW_ROOT, "ext4", MountFlags::empty(), c"").context(device.to_owned())?;
    let new = Path::new(NEW_ROOT);
    // systemd leaves what is mounted there already.
    mount("tmpfs", new.join("run"), "tmpfs", MountFlags::empty(), c"mode=0755")?;
    let bags = new.join(BOOTED_DIR.trim_start_matches('/'));
    for path in BAGGAGE {
        carry(Path::new(path), &bags)?;
    }
    for test in fs::read_dir(TESTS).into_iter().flatten() {
        carry(&test?.path(), &bags)?;
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

/// Copies a file below `into`, under its own path.
fn carry(path: &Path, into: &Path) -> Result<()> {
    let to = into.join(path.strip_prefix("/")?);
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::copy(path, &to).with_context(|| path.display().to_string())?;
    Ok(())
}

fn unit() -> String {
    format!(
        "[Unit]\nDescription=filltop's tests\nAfter=multi-user.target\n\n\
         [Service]\nType=exec\nExecStart={BOOTED_DIR}/init\nStandardError=journal+console\n\
         TimeoutStopSec=1\n"
    )
}
