//! A container that fills the root of a stock Debian, whose ext4 and overlay are modules: the service sees it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use filltop_tests::workload;
use rustix::{
    fs::statvfs,
    process::{Pid, Signal, kill_process_group},
};
use tracer_model::snapshot::Snapshot;

use crate::{PROGRAM, Result, installed, need_debian, said, succeed};

/// Bytes a second.
const RATE: u64 = 3 << 20;

/// As a runtime makes it: namespaces of its own, an overlay as its root, one program in it. Killed and removed on
/// drop.
struct Container {
    dir: PathBuf,
    child: Child,
}

impl Container {
    /// Appends to /data/a.log until it is killed.
    fn start(dir: &Path) -> Result<Self> {
        for name in ["lower/bin", "lower/data", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join(name))?;
        }
        // A static program.
        fs::copy(workload().get_program(), dir.join("lower/bin/w"))?;
        let script = format!(
            "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && \
             exec chroot merged /bin/w pace /data/a.log --block 65536 --rate {RATE}"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", &script]).current_dir(dir).stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self { dir: dir.to_owned(), child: command.spawn()? })
    }

    /// The file as the host has it.
    fn file(&self) -> PathBuf {
        self.dir.join("upper/data/a.log")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The number in one of the check's performance data, such as `'/ growth_bytes_per_s'=0;;;;`.
fn performance(text: &str, label: &str) -> Result<f64> {
    let (_, rest) = text.split_once(&format!("'{label}'=")).with_context(|| text.to_owned())?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '.');
    Ok(rest[..end.unwrap_or(rest.len())].parse()?)
}

#[test]
fn a_container_that_fills_the_root_is_named_and_counted() -> Result {
    need_debian!();
    let modules = fs::read_to_string("/proc/modules")?;
    ensure!(modules.lines().any(|line| line.starts_with("ext4 ")), "ext4 is no module here");
    installed(None)?;
    let container = Container::start(Path::new("/var/lib/container-a"))?;
    crate::wait_for("it writes", || {
        Ok(fs::metadata(container.file()).is_ok_and(|file| file.len() > RATE))
    })?;
    let used = || -> Result<u64> {
        let space = statvfs("/")?;
        Ok((space.f_blocks - space.f_bfree) * space.f_frsize)
    };
    // A window that holds nothing but this.
    let (started, before) = (Instant::now(), used()?);
    thread::sleep(Duration::from_secs(8));
    let length = "5s";
    let json = succeed(Command::new(PROGRAM).args(["snapshot", "--json", "--for", length]))?;
    let text = succeed(Command::new(PROGRAM).args(["snapshot", "--for", length]))?;
    let check = Command::new(PROGRAM).args(["check", "--for", length]).output()?;
    let grown = (used()? - before) as f64 / started.elapsed().as_secs_f64();
    println!("{text}{}", said(&check));

    let snapshot: Snapshot = serde_json::from_str(&json)?;
    let file = container.file();
    let row = snapshot.paths.iter().find(|row| Path::new(&row.path) == file);
    let row = row.with_context(|| format!("no row of {}: {json}", file.display()))?;
    ensure!(row.path_in_container.as_deref() == Some("/data/a.log"), "{row:?}");
    let rate = row.written_bytes as f64 / snapshot.interval_s;
    println!("{rate:.0} bytes/s written by the container; statvfs: {grown:.0}");
    let near = |value: f64, of: f64| (value - of).abs() < of * 0.3;
    ensure!(near(rate, grown), "{row:?} in {} s, and the volume {grown}/s", snapshot.interval_s);
    ensure!(row.allocated_bytes.is_some_and(|n| n > 0), "{row:?}");
    let volume = snapshot.volumes.iter().find(|volume| volume.mount_point == "/");
    let volume = volume.context("no row of /")?;
    ensure!(volume.fs_type == "ext4", "{volume:?}");
    ensure!(near(volume.growth_bytes_per_s, grown), "{volume:?}, and statvfs says {grown}/s");
    ensure!(volume.explained.is_some_and(|share| share > 0.9), "{volume:?}");
    ensure!(text.contains("a.log") && !text.contains("Nobody wrote anything"), "{text}");
    // What is asked next counts the same.
    let check = String::from_utf8(check.stdout)?;
    let growth = performance(&check, "/ growth_bytes_per_s")?;
    ensure!(near(growth, grown), "{check}, and statvfs says {grown}/s");
    Ok(())
}
