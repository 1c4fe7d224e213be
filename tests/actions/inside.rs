//! filltop runs in a container and acts on a target outside: the target resumes, however the
//! container ends. The container is a cgroup named like Docker's, whose processes are all killed at
//! the same time, as runtimes end a container that shares the host's pid namespace.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, filltop, need_tracing};
use rustix::process::{Pid, Signal, kill_process};

use crate::targets::Parents;
use crate::{
    Bench, Cgroup, Result, Writer, need_root, resumes, small_writer, unified, writes_nothing,
};

const ID: &str = "1a51dec0ffee0000000000000000000000000000000000000000000000001234";
const SOON: Duration = Duration::from_secs(5);
/// The time that docs/actions.md promises.
const STATED: Duration = Duration::from_secs(1);

struct Stage {
    volume: TestVolume,
    bench: Bench,
    writer: Writer,
    container: Cgroup,
    _parents: Parents,
}

impl Stage {
    fn new() -> Result<Self> {
        let parents = Parents::of(&["docker"])?;
        let parent = unified()?.join("docker");
        fs::create_dir_all(&parent)?;
        let volume = TestVolume::new("ext4", 64)?;
        let writer = small_writer(volume.path())?;
        resumes(volume.path(), SOON)?;
        let container = Cgroup::below(&parent, ID)?;
        Ok(Self { volume, bench: Bench::new()?, writer, container, _parents: parents })
    }

    /// Runs `stop` for the writer in the container. `prepare` is a line of shell that is run before
    /// it, in a mount namespace of its own.
    fn stop(&self, prepare: &str, length: &str) -> Result<Child> {
        let script = format!(
            "echo $$ > {}/cgroup.procs && {prepare} && exec {} stop {} --yes --json --for {length}",
            self.container.path().display(),
            filltop().display(),
            self.writer.pid(),
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .env("FILLTOP_RUN_DIR", self.bench.run.path())
            .env("FILLTOP_HOST_ROOT", format!("/proc/{}/root", std::process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Waits until the command reports that it is done, and checks that it keeps running.
    fn halted(&self, stop: &mut Child) -> Result {
        let mut stdout = BufReader::new(stop.stdout.take().context("piped")?);
        for _ in 0..3 {
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            ensure!(!line.is_empty(), "the command exited: {}", said(stop));
        }
        stop.stdout = Some(stdout.into_inner());
        writes_nothing(self.volume.path())?;
        ensure!(stop.try_wait()?.is_none(), "the command did not stay in the foreground");
        Ok(())
    }

    /// Kills all processes of the container at the same time.
    fn kill_container(&self) -> Result {
        let file = self.container.path().join("cgroup.kill");
        if file.exists() {
            return Ok(fs::write(file, "1")?);
        }
        for pid in self.container.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    fn dir(&self) -> &Path {
        self.volume.path()
    }
}

/// The command's standard error, once it has exited.
fn said(child: &mut Child) -> String {
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut said);
    }
    said
}

/// Makes all of /sys/fs/cgroup read-only, as in a container by default.
const READ_ONLY: &str = "for at in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do \
                         mount -o remount,bind,ro $at || exit 3; done";

#[test]
fn the_freeze_ends_with_the_container_where_the_supervisor_can_leave_it() -> Result {
    need_root!();
    let stage = Stage::new()?;
    let mut stop = stage.stop("true", "60s")?;
    stage.halted(&mut stop)?;
    let inside: Vec<u32> =
        stage.container.processes().iter().map(|pid| pid.as_raw_nonzero().get() as u32).collect();
    let (supervisor, watchdog) = stage.bench.supervisor_and_watchdog()?;
    ensure!(!inside.contains(&supervisor) && !inside.contains(&watchdog), "{inside:?}");
    stage.kill_container()?;
    let took = resumes(stage.dir(), STATED)?;
    println!("thawed {:.0} ms after the end of the container", took.as_secs_f64() * 1e3);
    stop.wait()?;
    Ok(())
}

#[test]
fn the_freeze_ends_at_its_time_limit_and_with_sigterm() -> Result {
    need_root!();
    let stage = Stage::new()?;
    let mut stop = stage.stop("true", "3s")?;
    stage.halted(&mut stop)?;
    resumes(stage.dir(), SOON)?;
    ensure!(stop.wait()?.success());
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut stop = stage.stop("true", "60s")?;
        stage.halted(&mut stop)?;
        kill_process(Pid::from_child(&stop), signal)?;
        resumes(stage.dir(), STATED)?;
        ensure!(stop.wait()?.success(), "{signal:?}");
        ensure!(stage.bench.records().is_empty());
    }
    Ok(())
}

#[test]
fn a_freeze_is_refused_where_nothing_would_undo_it() -> Result {
    need_root!();
    let stage = Stage::new()?;
    // Refused as well if the record existed only in the container.
    let run = stage.bench.run.path().display();
    let hidden = format!("{READ_ONLY} && mount -t tmpfs tmpfs {run}");
    let mut stop = stage.stop(&hidden, "60s")?;
    let status = stop.wait()?;
    let said = said(&mut stop);
    ensure!(status.code() == Some(1) && said.contains("/run/filltop"), "{status} {said}");
    resumes(stage.dir(), SOON)?;
    Ok(())
}

/// With the record on the host, the next command on the host resumes the target.
#[test]
fn a_freeze_left_by_the_container_is_undone_by_a_command_on_the_host() -> Result {
    need_root!();
    let stage = Stage::new()?;
    let mut stop = stage.stop(READ_ONLY, "60s")?;
    stage.halted(&mut stop)?;
    // The freeze lasts as long as its supervisor is alive.
    let listed = stage.bench.command(&["resume", "--list"]).output()?;
    ensure!(String::from_utf8_lossy(&listed.stdout).contains("freeze-"), "{listed:?}");
    writes_nothing(stage.dir())?;
    stage.kill_container()?;
    stop.wait()?;
    writes_nothing(stage.dir())?;
    let start = Instant::now();
    let output = stage.bench.command(&["resume", "--list"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("had lost its supervisor"), "{said}");
    resumes(stage.dir(), STATED)?;
    println!("thawed {:.0} ms after the next command began", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// The same with `watch`, which does it without any command.
#[test]
fn a_freeze_left_by_the_container_is_undone_by_a_watch() -> Result {
    need_root!();
    need_tracing!();
    let stage = Stage::new()?;
    let run = stage.bench.run.path().to_owned();
    let watch = filltop_tests::Watch::start_with("", |command| {
        command.env("FILLTOP_RUN_DIR", run);
    })?;
    let mut stop = stage.stop(READ_ONLY, "60s")?;
    stage.halted(&mut stop)?;
    stage.kill_container()?;
    stop.wait()?;
    let took = resumes(stage.dir(), SOON)?;
    println!("thawed {:.0} ms after the end of the container", took.as_secs_f64() * 1e3);
    drop(watch);
    Ok(())
}
