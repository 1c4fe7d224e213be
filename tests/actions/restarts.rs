//! A target that is started again: an action on its predecessor does not apply to it, and the plan
//! names what will start it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;
use serde_json::Value;

use crate::targets::Parents;
use crate::{
    Bench, Cgroup, Result, bytes_in, lines, need_root, resumes, small_writer, unified,
    writes_nothing,
};

const ID: &str = "5ea1c0ffee00000000000000000000000000000000000000000000000000cccc";
const SOON: Duration = Duration::from_secs(5);

/// The list that `resume --list --json` prints.
fn listed(bench: &Bench) -> Result<Vec<Value>> {
    lines(&bench.command(&["resume", "--list", "--json"]).output()?)
}

/// A Docker-like container: a writer in a cgroup named by an id. When it is started again it gets
/// another cgroup with the same path, as with Docker.
struct Container {
    writer: Option<(Cgroup, crate::Writer)>,
    _parents: Parents,
    volume: TestVolume,
}

impl Container {
    fn start() -> Result<Self> {
        let parents = Parents::of(&["docker"])?;
        let volume = TestVolume::new("ext4", 128)?;
        let mut container = Self { writer: None, _parents: parents, volume };
        container.run()?;
        Ok(container)
    }

    fn run(&mut self) -> Result {
        let parent = unified()?.join("docker");
        fs::create_dir_all(&parent)?;
        let cgroup = Cgroup::below(&parent, ID)?;
        let writer = small_writer(self.volume.path())?;
        cgroup.take(&writer.child)?;
        self.writer = Some((cgroup, writer));
        resumes(self.volume.path(), SOON)?;
        Ok(())
    }

    fn restart(&mut self) -> Result {
        let (cgroup, writer) = self.writer.take().context("the container is not running")?;
        // SIGKILL ends the processes of a cgroup v2, frozen or not.
        drop(writer);
        drop(cgroup);
        self.run()
    }
}

/// The new process runs, and nothing reports otherwise.
fn a_restart_ends(how: &[&str]) -> Result {
    let bench = Bench::new()?;
    let mut container = Container::start()?;
    bench.stop(ID, how)?;
    let before = listed(&bench)?;
    ensure!(before.len() == 1 && before[0]["standing"] == "in_force", "{before:?}");
    container.restart()?;
    // Immediately, before the supervisor has noticed.
    let after = listed(&bench)?;
    let claims = after.iter().filter(|record| record["standing"] == "in_force").count();
    ensure!(claims == 0, "{after:?}");
    // The new process can be acted on, although a record with its path may still exist.
    bench.stop(ID, how)?;
    bench.resume(ID)?;
    let (bytes, start) = (bytes_in(container.volume.path())?, Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let rate = (bytes_in(container.volume.path())? - bytes) as f64 / start.elapsed().as_secs_f64();
    ensure!(rate > 200_000.0, "the new process is limited to {rate} bytes per second");
    ensure!(bench.records().is_empty(), "{:?}", bench.records());
    Ok(())
}

#[test]
fn a_restart_ends_a_freeze() -> Result {
    need_root!();
    a_restart_ends(&[])
}

#[test]
fn a_restart_ends_a_throttle() -> Result {
    need_root!();
    a_restart_ends(&["--how", "throttle", "--rate", "20kB"])
}

/// The supervisor of a freeze does not thaw the same path when another program has frozen it since.
#[test]
fn a_later_freeze_by_another_program_is_kept() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let mut container = Container::start()?;
    bench.stop(ID, &[])?;
    container.restart()?;
    let freeze = unified()?.join("docker").join(ID).join("cgroup.freeze");
    fs::write(&freeze, "1")?;
    let start = Instant::now();
    while !bench.records().is_empty() {
        ensure!(start.elapsed() < SOON, "the record still exists");
        std::thread::sleep(Duration::from_millis(20));
    }
    let frozen = fs::read_to_string(&freeze)?;
    let still = writes_nothing(container.volume.path());
    fs::write(&freeze, "0")?;
    ensure!(frozen.trim() == "1", "the later freeze was thawed");
    still
}

/// When another program thaws the target, the list reports that.
#[test]
fn a_freeze_that_was_undone_elsewhere_is_not_listed_as_in_force() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let _container = Container::start()?;
    bench.stop(ID, &[])?;
    fs::write(unified()?.join("docker").join(ID).join("cgroup.freeze"), "0")?;
    let listed = listed(&bench)?;
    ensure!(listed.len() == 1 && listed[0]["standing"] == "let_go", "{listed:?}");
    Ok(())
}

/// A process with a bind mount of the files that Docker's daemon mounts into its containers, in a
/// mount namespace of its own and as the first process of a pid namespace.
fn in_a_container(data: &Path, policy: &str) -> Result<Child> {
    let dir = data.join("containers").join(ID);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("hostname"), "web\n")?;
    let config = format!(r#"{{"RestartPolicy":{{"Name":"{policy}","MaximumRetryCount":0}}}}"#);
    fs::write(dir.join("hostconfig.json"), config)?;
    let script = format!("mount --bind {}/hostname /etc/hostname && exec sleep 120", dir.display());
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        &script,
    ]);
    let child = command.stdin(Stdio::null()).spawn()?;
    Ok(child)
}

/// The only child of `unshare`.
fn child_of(pid: u32) -> Result<u32> {
    let start = Instant::now();
    loop {
        let file = format!("/proc/{pid}/task/{pid}/children");
        let child = fs::read_to_string(file)?.split_whitespace().next().map(str::parse);
        if let Some(child) = child {
            let child: u32 = child?;
            if fs::read_to_string(format!("/proc/{child}/comm"))?.trim() == "sleep" {
                return Ok(child);
            }
        }
        ensure!(start.elapsed() < SOON, "the container did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_restart_policy_is_in_the_plan_and_a_restart_is_detected() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let _parents = Parents::of(&["docker"])?;
    let parent = unified()?.join("docker");
    fs::create_dir_all(&parent)?;
    let cgroup = Cgroup::below(&parent, ID)?;
    let volume = TestVolume::new("ext4", 64)?;
    let mut outer = in_a_container(volume.path(), "always")?;
    let first = child_of(outer.id())?;
    fs::write(cgroup.path().join("cgroup.procs"), first.to_string())?;
    let output = bench.command(&["stop", ID, "--how", "term", "--dry-run", "--json"]).output()?;
    let plan = lines(&output)?.into_iter().next().context("no plan")?;
    let steps = plan["steps"].as_array().context("steps")?;
    let of = |how: &str| steps.iter().find(|step| step["how"] == how).context("no step");
    let expected = serde_json::json!({"by": "docker", "policy": "always", "returns": true});
    ensure!(of("kill")?["restart"] == expected && of("term")?["restart"] == expected, "{plan}");
    ensure!(of("freeze")?.get("restart").is_none() && of("unit")?.get("restart").is_none());
    // sleep has no signal handler, and is the first process of its pid namespace.
    ensure!(of("term")?["ignored_by"] == serde_json::json!([first]), "{plan}");
    let term = bench.command(&["stop", ID, "--how", "term", "--yes", "--json"]).output()?;
    ensure!(term.status.code() == Some(1), "{:?}", term.status);
    // A daemon that starts it again half a second after it has ended.
    let procs = cgroup.path().join("cgroup.procs");
    let daemon = std::thread::spawn(move || -> Result<Child> {
        outer.wait()?;
        std::thread::sleep(Duration::from_millis(500));
        let next = Command::new("sleep").arg("120").spawn()?;
        fs::write(procs, next.id().to_string())?;
        Ok(next)
    });
    let kill = bench.command(&["stop", ID, "--how", "kill", "--yes", "--json"]).output()?;
    let mut next = daemon.join().map_err(|_| anyhow::anyhow!("the daemon panicked"))??;
    let pid = next.id();
    next.kill()?;
    next.wait()?;
    let last = String::from_utf8(kill.stdout)?;
    let done: Value = serde_json::from_str(last.lines().last().context("nothing was printed")?)?;
    ensure!(done["ended"]["back"] == serde_json::json!([pid]), "{done}");
    ensure!(kill.status.code() == Some(1), "the restart is not reported: {:?}", kill.status);
    Ok(())
}
