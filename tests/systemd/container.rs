//! A container that fills the root of a stock Debian, whose ext4 and overlay are modules: the
//! service sees it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::rights::capabilities;
use filltop_tests::workload;
use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process_group};
use tracer_model::snapshot::{CountedBy, HookState, Snapshot};

use crate::{
    FOUR, MEMBER, Result, UNIT, as_user, drop_in_of_the_docs, installed, need_debian, number, said,
    user, wait_for,
};

/// Bytes per second.
const RATE: u64 = 3 << 20;

/// Made like a runtime does it: namespaces of its own, an overlay as its root, one program in it.
/// Killed and removed on drop.
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

    /// The file's path on the host.
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

/// All output collected while a container writes to the root filesystem.
struct Seen {
    snapshot: Snapshot,
    /// The text output of `snapshot`.
    text: String,
    /// The output of `check`.
    check: String,
    /// The container's file, as a path on the host.
    file: PathBuf,
    /// Growth of the root filesystem in bytes per second, from statvfs.
    grown: f64,
}

impl Seen {
    /// Collects it as a member of the service's group, who cannot measure directly as root does
    /// where the service lacks a capability.
    fn of(dir: &str) -> Result<Self> {
        user(MEMBER, &["-G", "filltop"])?;
        let container = Container::start(Path::new(dir))?;
        let file = container.file();
        wait_for("it writes", || Ok(fs::metadata(&file).is_ok_and(|file| file.len() > RATE)))?;
        let used = || -> Result<u64> {
            let space = statvfs("/")?;
            Ok((space.f_blocks - space.f_bfree) * space.f_frsize)
        };
        let (started, before) = (Instant::now(), used()?);
        // So that the intervals that the commands ask for contain nothing else.
        thread::sleep(Duration::from_secs(8));
        let ask =
            |arguments: &[&str]| as_user(MEMBER).args(arguments).args(["--for", "5s"]).output();
        let (json, text) = (ask(&["snapshot", "--json"])?, ask(&["snapshot"])?);
        let check = ask(&["check"])?;
        let grown = used()?.saturating_sub(before) as f64 / started.elapsed().as_secs_f64();
        drop(container);
        println!("{}{}", said(&text), said(&check));
        ensure!(json.status.success() && text.status.success(), "{}", said(&json));
        Ok(Self {
            snapshot: serde_json::from_slice(&json.stdout)?,
            text: said(&text),
            check: String::from_utf8(check.stdout)?,
            file,
            grown,
        })
    }

    fn is_near(&self, bytes_per_s: f64) -> bool {
        (bytes_per_s - self.grown).abs() < self.grown * 0.3
    }

    /// The container's file is named, and its growth is the growth of the root filesystem.
    fn is_right(&self) -> Result {
        let Self { snapshot, text, check, file, grown } = self;
        let row = snapshot.paths.iter().find(|row| Path::new(&row.path) == file);
        let others = || snapshot.paths.iter().map(|row| &row.path).collect::<Vec<_>>();
        let row = row.with_context(|| format!("no row of {}: {:?}", file.display(), others()))?;
        let rate = row.written_bytes as f64 / snapshot.interval_s;
        println!("{rate:.0} bytes/s written by the container; statvfs: {grown:.0}");
        ensure!(self.is_near(rate), "{row:?}: {rate}/s, but {grown}/s in statvfs");
        ensure!(row.allocated_bytes.is_some_and(|bytes| bytes > 0), "{row:?}");
        let volume = snapshot.volumes.iter().find(|volume| volume.mount_point == "/");
        let volume = volume.context("no row of /")?;
        ensure!(volume.fs_type == "ext4", "{volume:?}");
        let growth = volume.growth_bytes_per_s;
        ensure!(self.is_near(growth), "{volume:?}, but {grown}/s in statvfs");
        ensure!(text.contains("a.log") && !text.contains("Nothing was written"), "{text}");
        let growth = performance(check, "/ growth_bytes_per_s")?;
        ensure!(self.is_near(growth), "{check}, but {grown}/s in statvfs");
        Ok(())
    }

    /// The share of the root's growth that is explained.
    fn explained(&self) -> f64 {
        let root = self.snapshot.volumes.iter().find(|volume| volume.mount_point == "/");
        root.and_then(|volume| volume.explained).unwrap_or_default()
    }
}

fn hook<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s HookState> {
    let hook = snapshot.backend.hooks.iter().find(|hook| hook.name == name);
    hook.map(|hook| &hook.state)
}

#[test]
fn a_container_that_fills_the_root_is_named_and_counted() -> Result {
    need_debian!();
    let modules = fs::read_to_string("/proc/modules")?;
    ensure!(modules.lines().any(|line| line.starts_with("ext4 ")), "ext4 is no module here");
    installed(None)?;
    let seen = Seen::of("/var/lib/container-a")?;
    seen.is_right()?;
    ensure!(seen.explained() > 0.9, "explained is {}", seen.explained());
    let state = hook(&seen.snapshot, "ext4_file_write_iter");
    ensure!(state == Some(&HookState::Ok), "{state:?}");
    Ok(())
}

#[test]
fn in_the_strict_mode_of_the_docs_a_container_is_still_named() -> Result {
    need_debian!();
    let drop_in = drop_in_of_the_docs("strict mode")?;
    installed(Some(&drop_in))?;
    let pid = number(UNIT, "MainPID")?;
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let has = capabilities(&pid.to_string(), set)?;
        ensure!(has == FOUR, "{set} is {has:016x}");
    }
    let seen = Seen::of("/var/lib/container-b")?;
    let state = hook(&seen.snapshot, "ext4_file_write_iter");
    println!("ext4_file_write_iter: {state:?}");
    ensure!(state.is_some_and(|state| *state != HookState::Ok), "{state:?}");
    seen.is_right()?;
    println!("explained {:.2}", seen.explained());
    let root = seen.snapshot.volumes.iter().find(|volume| volume.mount_point == "/");
    let root = root.context("no row of /")?;
    if root.counted_by == Some(CountedBy::Tracepoints) {
        // From 6.6 on ext4's own tracepoints report every write: there the strict mode costs
        // nothing on ext4.
        ensure!(root.gap.is_none() && seen.explained() > 0.9, "{root:?}");
        return Ok(());
    }
    // The cost is shown in the normal output.
    ensure!(seen.text.contains("CAP_SYS_ADMIN"), "{}", seen.text);
    ensure!(!seen.check.starts_with("FILLTOP OK"), "{}", seen.check);
    Ok(())
}
