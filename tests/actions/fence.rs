//! A fence keeps a target from taking space on one volume: operations that take space fail there,
//! everything else continues. It needs BPF LSM (BPF programs as a security module); elsewhere it is
//! refused with that reason.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, bpf_programs, workload};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Bench, Cgroup, Result, need_root};

/// The time that docs/actions.md promises for the end of a fence whose supervisor is killed.
const STATED: Duration = Duration::from_secs(1);

/// Operations that take no space, as far as filltop can determine; all others of [`Fenced::round`] take
/// some.
const FREE: [&str; 9] = [
    "pwrite in place",
    "punch hole",
    "read",
    "unlink",
    "rename",
    "truncate down",
    "truncate up",
    "fsync",
    "elsewhere",
];

/// Whether the kernel's list of security modules includes BPF.
fn possible() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|text| text.trim().split(',').any(|module| module == "bpf"))
}

macro_rules! need_fence {
    () => {
        need_root!();
        if !possible() {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let list = "/sys/kernel/security/lsm";
            println!("SKIP {name}: {list} does not include bpf");
            return Ok(());
        }
    };
}

/// The workload that tries all operations each time it reads a line.
struct Fenced {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Fenced {
    fn start(dir: &Path, elsewhere: &Path) -> Result<Self> {
        let mut child = workload()
            .arg("fenced")
            .arg(dir)
            .arg("--elsewhere")
            .arg(elsewhere)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("piped")?;
        let stdout = BufReader::new(child.stdout.take().context("piped")?);
        let mut fenced = Self { child, stdin, stdout };
        ensure!(fenced.line()? == "ready\n");
        Ok(fenced)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }

    /// The result of each operation, by name.
    fn round(&mut self) -> Result<BTreeMap<String, String>> {
        self.stdin.write_all(b"\n")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Checks that all operations succeed.
    fn is_free(&mut self) -> Result {
        let round = self.round()?;
        let failed: Vec<_> =
            round.iter().filter(|(_, result)| *result != "ok" && *result != "EOPNOTSUPP").collect();
        ensure!(failed.is_empty(), "{failed:?}");
        Ok(())
    }

    /// Checks that exactly the operations that take space fail. `in_place`: whether the
    /// filesystem overwrites in place.
    fn is_fenced(&mut self, in_place: bool) -> Result {
        let round = self.round()?;
        let expected = |name: &str| {
            let free = FREE.contains(&name) && (in_place || name != "pwrite in place");
            if free { "ok" } else { "EDQUOT" }
        };
        let wrong: Vec<_> = round
            .iter()
            .filter(|(name, came)| *came != expected(name) && *came != "EOPNOTSUPP")
            .collect();
        ensure!(wrong.is_empty() && round.len() > 20, "{wrong:?} of {}", round.len());
        Ok(())
    }

    /// Waits until all operations succeed again, at most for `within`; returns how long that took.
    fn is_free_within(&mut self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            self.stdin.write_all(b"write\n")?;
            if self.line()? == "ok\n" {
                break;
            }
            ensure!(start.elapsed() < within, "still fenced after {within:?}");
        }
        Ok(start.elapsed())
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("UTF-8")
}

/// A group is fenced off a volume. Another group can write there, and the fenced group can write
/// elsewhere.
fn blocks_the_volume(fs_type: &str, cgroup: Option<&Cgroup>) -> Result {
    let volume = TestVolume::new(fs_type, 390)?;
    let elsewhere = tempfile::tempdir()?;
    let bench = Bench::new()?;
    let dirs = ["a", "b"].map(|name| volume.path().join(name));
    dirs.iter().try_for_each(fs::create_dir)?;
    let mut fenced = Fenced::start(&dirs[0], elsewhere.path())?;
    let mut other = Fenced::start(&dirs[1], elsewhere.path())?;
    let target = match cgroup {
        Some(cgroup) => {
            cgroup.take(&fenced.child)?;
            format!(
                "/{}",
                cgroup.path().file_name().and_then(|name| name.to_str()).context("name")?
            )
        }
        None => fenced.pid(),
    };
    fenced.is_free()?;
    let arguments = ["--how", "fence", "--volume", text(&dirs[0])?];
    let done = bench.stop(&target, &arguments)?;
    ensure!(done["halted"]["processes"] == 1, "{done}");
    fenced.is_fenced(fs_type != "btrfs")?;
    other.is_free()?;
    let again = bench.refused(&target, &arguments)?;
    ensure!(again.contains("already suspended by fence-"), "{again}");
    bench.resume(done["id"].as_str().context("id")?)?;
    fenced.is_free()?;
    ensure!(bench.records().is_empty(), "{:?}", bench.records());
    Ok(())
}

#[test]
fn a_cgroup_is_fenced_off_a_volume() -> Result {
    need_fence!();
    let cgroup = Cgroup::new("filltop-fence")?;
    blocks_the_volume("ext4", Some(&cgroup))
}

#[test]
fn processes_without_a_cgroup_are_fenced_individually() -> Result {
    need_fence!();
    blocks_the_volume("ext4", None)
}

#[test]
fn a_fence_works_on_other_filesystems() -> Result {
    need_fence!();
    for fs_type in ["xfs", "btrfs", "tmpfs"] {
        let cgroup = Cgroup::new("filltop-fence-fs")?;
        blocks_the_volume(fs_type, Some(&cgroup)).context(fs_type)?;
    }
    Ok(())
}

/// A grandchild in a child cgroup: the fence covers the whole subtree.
#[test]
fn child_cgroups_are_fenced_too() -> Result {
    need_fence!();
    let volume = TestVolume::new("ext4", 64)?;
    let elsewhere = tempfile::tempdir()?;
    let bench = Bench::new()?;
    let cgroup = Cgroup::new("filltop-fence-top")?;
    let below = Cgroup::below(cgroup.path(), "below")?;
    let beside = Cgroup::new("filltop-fence-beside")?;
    let mut inside = Fenced::start(volume.path(), elsewhere.path())?;
    below.take(&inside.child)?;
    bench.stop("/filltop-fence-top", &["--how", "fence", "--volume", text(volume.path())?])?;
    inside.is_fenced(true)?;
    // A process that leaves the group is no longer fenced.
    beside.take(&inside.child)?;
    inside.is_free()
}

struct Held {
    bench: Bench,
    fenced: Fenced,
    _volume: TestVolume,
    _elsewhere: tempfile::TempDir,
}

fn held(length: &str) -> Result<Held> {
    let volume = TestVolume::new("ext4", 64)?;
    let elsewhere = tempfile::tempdir()?;
    let bench = Bench::new()?;
    let mut fenced = Fenced::start(volume.path(), elsewhere.path())?;
    // The target has files open on only one volume, so that the command need not name it.
    bench.stop(&fenced.pid(), &["--how", "fence", "--for", length])?;
    fenced.is_fenced(true)?;
    Ok(Held { bench, fenced, _volume: volume, _elsewhere: elsewhere })
}

fn kill(pid: u32) -> Result {
    Ok(kill_process(Pid::from_raw(pid as i32).context("pid")?, Signal::KILL)?)
}

#[test]
fn a_fence_expires() -> Result {
    need_fence!();
    let start = Instant::now();
    let mut held = held("3s")?;
    held.fenced.is_free_within(Duration::from_secs(6))?;
    ensure!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_fence_ends_with_its_supervisor() -> Result {
    need_fence!();
    let mut held = held("10m")?;
    let (supervisor, _) = held.bench.supervisor_and_watchdog()?;
    kill(supervisor)?;
    let took = held.fenced.is_free_within(STATED)?;
    println!("lifted {:.1} ms after kill -9 of the supervisor", took.as_secs_f64() * 1e3);
    // The kernel needs some time to detach everything; only then the supervisor has exited.
    let start = Instant::now();
    while !held.bench.records().is_empty() {
        ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", held.bench.records());
    }
    Ok(())
}

/// A watchdog that replaced another one first inherits the supervisor's descriptors and must close
/// them. Unlike a freeze, a fence ends without help when supervisor and watchdog are both gone.
#[test]
fn a_fence_ends_when_supervisor_and_watchdog_are_gone() -> Result {
    need_fence!();
    let mut held = held("10m")?;
    let (supervisor, watchdog) = held.bench.supervisor_and_watchdog()?;
    kill(watchdog)?;
    let start = Instant::now();
    let next = loop {
        match held.bench.supervisor_and_watchdog() {
            Ok((_, next)) if next != watchdog => break next,
            _ => ensure!(start.elapsed() < STATED, "the watchdog is not replaced"),
        }
    };
    held.fenced.is_fenced(true)?;
    // It is stopped, and cannot help.
    let stopped = Pid::from_raw(next as i32).context("pid")?;
    kill_process(stopped, Signal::STOP)?;
    kill(supervisor)?;
    let lifted = held.fenced.is_free_within(STATED);
    kill(next)?;
    lifted.map(drop)
}

#[test]
fn a_fence_expires_even_if_its_supervisor_hangs() -> Result {
    need_fence!();
    let mut held = held("2s")?;
    let (supervisor, _) = held.bench.supervisor_and_watchdog()?;
    kill_process(Pid::from_raw(supervisor as i32).context("pid")?, Signal::STOP)?;
    held.fenced.is_free_within(Duration::from_secs(10))?;
    ensure!(!fs::exists(format!("/proc/{supervisor}/exe"))?, "the hanging supervisor still exists");
    Ok(())
}

#[test]
fn a_dry_run_of_a_fence_loads_and_attaches_nothing() -> Result {
    need_fence!();
    let volume = TestVolume::new("ext4", 64)?;
    let elsewhere = tempfile::tempdir()?;
    let bench = Bench::new()?;
    let mut fenced = Fenced::start(volume.path(), elsewhere.path())?;
    let before = bpf_programs()?.len();
    let done = bench.stop(&fenced.pid(), &["--how", "fence", "--dry-run"])?;
    let would = done["would"][0].as_str().context("would")?;
    ensure!(would.contains("attach 11 loaded programs"), "{would}");
    ensure!(bpf_programs()?.len() == before);
    fenced.is_free()
}

/// Where fences are unavailable, the plan and `doctor` give the reason, and nothing is done.
#[test]
fn where_fences_are_unavailable_the_reason_is_given() -> Result {
    need_root!();
    if possible() {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        println!("SKIP {name}: fences are available here");
        return Ok(());
    }
    let bench = Bench::new()?;
    let volume = TestVolume::new("ext4", 64)?;
    let mut fenced = Fenced::start(volume.path(), volume.path())?;
    let arguments = ["--how", "fence", "--volume", text(volume.path())?];
    let said = bench.refused(&fenced.pid(), &arguments)?;
    let reasons = ["active security modules", "securityfs", "cannot load", "cannot attach"];
    let named = reasons.iter().any(|reason| said.contains(reason));
    ensure!(named && said.lines().count() == 1, "{said}");
    fenced.is_free()?;
    ensure!(bench.records().is_empty(), "{:?}", bench.records());
    let doctor = bench.command(&["doctor", "--json"]).output()?;
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout)?;
    ensure!(report["fence"]["possible"] == false, "{}", report["fence"]);
    let reason = report["fence"]["reason"].as_str().context("no reason")?;
    ensure!(said.contains(reason), "{reason}; {said}");
    Ok(())
}

/// What `filltop doctor` reports about the fence with these capabilities alone (numbers of
/// linux/capability.h).
fn doctor_with(kept: &'static [u32]) -> Result<serde_json::Value> {
    const LAST: u32 = 40;
    let mut command = Bench::new()?.command(&["doctor", "--json"]);
    // SAFETY: prctl is a system call that may be made between fork and exec; it only takes numbers
    // here.
    unsafe {
        command.pre_exec(move || {
            for number in (0..=LAST).filter(|number| !kept.contains(number)) {
                if libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let report: serde_json::Value = serde_json::from_slice(&command.output()?.stdout)?;
    Ok(report["fence"].clone())
}

#[test]
fn a_fence_needs_two_capabilities() -> Result {
    need_fence!();
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let fence = doctor_with(&[PERFMON, BPF])?;
    ensure!(fence["possible"] == true, "{fence}");
    for (kept, missing) in [(&[PERFMON], "CAP_BPF"), (&[BPF], "CAP_PERFMON")] {
        let fence = doctor_with(kept)?;
        ensure!(fence["reason"].as_str().is_some_and(|why| why.contains(missing)), "{fence}");
    }
    Ok(())
}

#[test]
fn doctor_reports_that_fences_are_available() -> Result {
    need_fence!();
    let output = Bench::new()?.command(&["doctor", "--json"]).output()?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["fence"]["possible"] == true, "{}", report["fence"]);
    Ok(())
}
