//! `filltop stop` and `filltop resume` on real writers.

mod ends;
mod fence;
mod freeze;
mod inside;
mod managers;
mod races;
mod restarts;
mod supervisor;
mod targets;
mod throttle;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, filltop, unified, workload};
use serde_json::Value;

type Result<T = ()> = anyhow::Result<T>;

/// `filltop` with its records in a directory of the test's own.
struct Bench {
    run: tempfile::TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Self { run: tempfile::tempdir()? })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(filltop());
        command.args(arguments).env("FILLTOP_RUN_DIR", self.run.path()).stdin(Stdio::null());
        command
    }

    /// The last line that `stop TARGET ARGUMENTS --yes --json` printed.
    fn stop(&self, target: &str, arguments: &[&str]) -> Result<Value> {
        let output = self.command(&["stop", target, "--json", "--yes"]).args(arguments).output()?;
        let lines = lines(&output)?;
        ensure!(lines.len() == 3 && lines[0]["event"] == "plan", "{lines:?}");
        ensure!(lines[1]["event"] == "action" && lines[2]["event"] == "done", "{lines:?}");
        Ok(lines[2].clone())
    }

    /// The reason for which `stop` refused, from its standard error.
    fn refused(&self, target: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(&["stop", target, "--yes"]).args(arguments).output()?;
        ensure!(output.status.code() == Some(1), "{:?}", output.status);
        Ok(String::from_utf8(output.stderr)?)
    }

    fn resume(&self, target: &str) -> Result {
        let output = self.command(&["resume", target]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn records(&self) -> Vec<PathBuf> {
        let dir = self.run.path().join("actions");
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Pids of the supervisor and of its watchdog.
    fn supervisor_and_watchdog(&self) -> Result<(u32, u32)> {
        let records = self.records();
        let [path] = &records[..] else { anyhow::bail!("{} records", records.len()) };
        let text = fs::read_to_string(path)?;
        let record: Value = serde_json::from_str(text.lines().next().context("empty")?)?;
        let supervisor = record["keeper"]["pid"].as_u64().context("no supervisor")? as u32;
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"))
            .context("/proc/PID/task/PID/children")?;
        let watchdog = children.split_whitespace().next().context("no watchdog")?.parse()?;
        Ok((supervisor, watchdog))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.command(&["resume", "--all"]).output();
    }
}

fn lines(output: &Output) -> Result<Vec<Value>> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

/// A workload that is killed on drop, with all processes of its process group.
struct Writer {
    child: Child,
}

impl Writer {
    fn start(arguments: &[&str]) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let child = workload().args(arguments).stdout(Stdio::piped()).process_group(0).spawn()?;
        Ok(Self { child })
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Waits for its first line of output.
    fn began(&mut self) -> Result {
        let stdout = self.child.stdout.as_mut().context("piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the workload has ended");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A workload whose children come and go, in a cgroup if one is given.
fn escaping(dir: &Path, kind: &str, cgroup: Option<&Cgroup>) -> Result<Writer> {
    let path = dir.join("f");
    let mut writer = Writer::start(&["escape", path.to_str().context("UTF-8")?, "--kind", kind])?;
    if let Some(cgroup) = cgroup {
        cgroup.take(&writer.child)?;
    }
    writer.began()?;
    Ok(writer)
}

/// A workload that appends 4,000 bytes a hundred times a second.
fn small_writer(dir: &Path) -> Result<Writer> {
    let path = dir.join("f");
    Writer::start(&["pace", path.to_str().context("UTF-8")?, "--rate", "400000", "--block", "4000"])
}

/// Total length of all files in a directory.
fn bytes_in(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let meta = entry?.metadata()?;
        sum += if meta.is_file() { meta.len() } else { 0 };
    }
    Ok(sum)
}

/// Checks that nothing is written there for 1.2 s.
fn writes_nothing(dir: &Path) -> Result {
    let before = bytes_in(dir)?;
    std::thread::sleep(Duration::from_millis(1_200));
    let after = bytes_in(dir)?;
    ensure!(before == after, "{} bytes were written", after - before);
    Ok(())
}

/// Waits until something is written there, at most for `within`; returns how long that took.
fn resumes(dir: &Path, within: Duration) -> Result<Duration> {
    let (before, start) = (bytes_in(dir)?, Instant::now());
    while bytes_in(dir)? <= before {
        ensure!(start.elapsed() < within, "nothing was written within {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed())
}

/// State of a process, as in /proc/PID/stat.
fn state(pid: u32) -> Result<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).context("no state")
}

macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            println!("SKIP {name}: not root");
            return Ok(());
        }
    };
}
pub(crate) use need_root;
