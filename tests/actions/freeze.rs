//! A forking writer is frozen within a second, does not write another byte until `resume`, and then
//! continues unharmed.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, Truth, workload};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::{Bench, Cgroup, Result, Writer, need_root, resumes, writes_nothing};

const SOON: Duration = Duration::from_secs(5);
/// The limit from the command to the last byte. Virtual machines with disks of their own emulate
/// their processors and need longer to start programs and to read /proc, which takes `plan` there;
/// suspending itself takes no longer.
fn within(plan: Duration) -> Duration {
    let emulated = std::env::var_os("FILLTOP_TEST_DISKS").is_some();
    Duration::from_secs(1) + if emulated { 3 * plan } else { Duration::ZERO }
}

/// Kills a server and its workers if the test fails before they have ended.
struct Leash(Pid);

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// The server runs 400 workers of 50 ms, eight at a time. `place` moves it into a cgroup; `target`
/// returns what is to be frozen.
fn forking_writer(
    place: impl FnOnce(&std::process::Child) -> Result,
    target: impl FnOnce(u32, &Path) -> Result<String>,
    by: &str,
) -> Result {
    let volume = TestVolume::new("ext4", 320)?;
    let bench = Bench::new()?;
    let server = workload()
        .arg("fork-server")
        .arg(volume.path())
        .args(["--workers", "400", "--bytes", "262144", "--life-ms", "50"])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let _leash = Leash(Pid::from_child(&server));
    place(&server)?;
    resumes(volume.path(), SOON)?;
    std::thread::sleep(Duration::from_millis(300));
    let target = target(server.id(), volume.path())?;
    let start = Instant::now();
    bench.command(&["stop", &target, "--json"]).output()?;
    let plan = start.elapsed();
    let start = Instant::now();
    let done = bench.stop(&target, &[])?;
    let took = start.elapsed();
    writes_nothing(volume.path())?;
    ensure!(took < within(plan), "plan after {plan:?}, frozen only after {took:?}: {done}");
    let halted = done["halted"]["took_ms"].as_f64().context("took_ms")?;
    ensure!(halted < 1_000.0, "suspended only after {halted} ms");
    let plan = bench.command(&["stop", &target, "--json"]).output()?;
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    let said = plan["by"].as_str().context("by")?;
    ensure!(said.contains(by), "by {said}");
    ensure!(plan["refused"][0].as_str().is_some_and(|reason| reason.contains("already")), "{plan}");
    println!("frozen after {:.0} ms by {said}: {}", took.as_secs_f64() * 1e3, done["halted"]);
    bench.resume(done["id"].as_str().context("id")?)?;
    resumes(volume.path(), SOON)?;
    let output = server.wait_with_output()?;
    ensure!(output.status.success(), "the server failed: {:?}", output.status);
    let truth: Truth = serde_json::from_slice(&output.stdout)?;
    ensure!(truth.total() == 400 * 262_144 && crate::bytes_in(volume.path())? == truth.total());
    ensure!(bench.records().is_empty(), "{:?}", bench.records());
    Ok(())
}

#[test]
fn by_signals_as_a_tree() -> Result {
    need_root!();
    forking_writer(|_| Ok(()), |pid, _| Ok(pid.to_string()), "SIGSTOP")
}

/// The pid of a worker that exits a moment later stands for the server that forks it.
#[test]
fn by_the_pid_of_one_worker() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 320)?;
    let bench = Bench::new()?;
    let dir = volume.path().to_str().context("UTF-8")?;
    let server = Writer::start(&[
        "fork-server",
        dir,
        "--workers",
        "100000",
        "--bytes",
        "65536",
        "--life-ms",
        "200",
    ])?;
    resumes(volume.path(), SOON)?;
    let start = Instant::now();
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    loop {
        ensure!(start.elapsed() < SOON, "no worker lived long enough to be a target");
        let workers = std::fs::read_to_string(&children)?;
        let Some(worker) = workers.split_whitespace().last() else { continue };
        if bench.stop(worker, &[]).is_ok() {
            break;
        }
    }
    writes_nothing(volume.path())?;
    ensure!(crate::state(server.child.id())? == 'T', "the forking parent is not stopped");
    Ok(())
}

#[test]
fn by_the_freezer_of_cgroup_v2() -> Result {
    need_root!();
    let cgroup = Cgroup::new("filltop-freeze-v2")?;
    forking_writer(
        |server| cgroup.take(server),
        |_, _| Ok("/filltop-freeze-v2".to_owned()),
        "cgroup v2 freezer",
    )
}

/// If the tree of a pid is all that its cgroup contains, the cgroup's freezer is used: no process
/// can escape.
#[test]
fn by_the_freezer_of_a_cgroup_that_contains_just_the_tree() -> Result {
    need_root!();
    let cgroup = Cgroup::new("filltop-freeze-tree")?;
    forking_writer(|server| cgroup.take(server), |pid, _| Ok(pid.to_string()), "cgroup v2 freezer")
}

#[test]
fn by_the_freezer_of_cgroup_v1() -> Result {
    need_root!();
    let hierarchy = Path::new("/sys/fs/cgroup/freezer");
    if !hierarchy.join("cgroup.procs").exists() {
        println!("SKIP by_the_freezer_of_cgroup_v1: it is not mounted here");
        return Ok(());
    }
    let cgroup = Cgroup::below(hierarchy, "filltop-freeze-v1")?;
    forking_writer(
        |server| cgroup.take(server),
        |_, _| Ok("/filltop-freeze-v1".to_owned()),
        "cgroup v1 freezer",
    )
}

#[test]
fn a_dry_run_goes_to_the_last_system_call_and_no_further() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 320)?;
    let bench = Bench::new()?;
    let path = volume.path().join("f");
    let path = path.to_str().context("UTF-8")?;
    let writer = Writer::start(&["pace", path, "--rate", "1000000", "--block", "10000"])?;
    resumes(volume.path(), SOON)?;
    for (how, would) in
        [("freeze", "send SIGSTOP to"), ("term", "send SIGTERM to"), ("kill", "send SIGKILL to")]
    {
        let done = bench.stop(&writer.pid(), &["--how", how, "--dry-run"])?;
        let line = done["would"][0].as_str().context("would")?;
        ensure!(line.starts_with(would) && line.ends_with(&writer.pid()), "{done}");
        ensure!(done["dry_run"] == true);
        resumes(volume.path(), SOON)?;
    }
    ensure!(bench.records().is_empty());
    Ok(())
}

/// A process goes on while one of its threads runs, whichever: it is frozen, resumed and ended as any other.
#[test]
fn a_process_whose_main_thread_has_exited_is_stopped() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let path = volume.path().join("held");
    let path = path.to_str().context("UTF-8")?;
    let mut child = workload()
        .args(["hold", path, "--by", "thread", "--bytes", "1048576"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let _leash = Leash(Pid::from_child(&child));
    let pid = child.id();
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "the workload has ended");
    let done = bench.stop(&pid.to_string(), &["--how", "freeze"])?;
    ensure!(done["halted"]["took_ms"].as_f64().is_some(), "{done}");
    let plan = bench.command(&["stop", &pid.to_string(), "--json"]).output()?;
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    ensure!(plan["refused"][0].as_str().is_some_and(|reason| reason.contains("already")), "{plan}");
    bench.resume(&pid.to_string())?;
    bench.stop(&pid.to_string(), &["--how", "term"])?;
    ensure!(!child.wait()?.success(), "it was not ended");
    Ok(())
}
