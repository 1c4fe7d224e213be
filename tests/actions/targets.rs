//! Which cgroup a word refers to, with cgroups laid out as runtimes do it and real processes in
//! them.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{Bench, Cgroup, Result, need_root, unified};

/// Ids with a common prefix. As three of sixteen ids do, they sort after the `conmon-` of Podman's
/// monitors.
const D1: &str = "d771c0ffee00000000000000000000000000000000000000000000000000aaaa";
const D2: &str = "d772c0ffee00000000000000000000000000000000000000000000000000bbbb";
const NUMBERS: &str = "1234567800000000000000000000000000000000000000000000000000001111";
const POD: &str = "f1117095-d5e6-4789-8abc-0123456789ab";

/// A process in a cgroup of its own; both end on drop.
pub struct Inhabitant {
    pub child: Child,
    _cgroup: Cgroup,
}

impl Inhabitant {
    /// Below the root of cgroup v2, or below a directory of it.
    pub fn new(parent: &[&str], name: &str) -> Result<Self> {
        Self::called("sleep", parent, name)
    }

    /// The same with another process name.
    fn called(comm: &str, parent: &[&str], name: &str) -> Result<Self> {
        let parent = parent.iter().fold(unified()?, |dir, part| dir.join(part));
        fs::create_dir_all(&parent)?;
        let cgroup = Cgroup::below(&parent, name)?;
        let dir = tempfile::tempdir()?;
        let program = dir.path().join(comm);
        fs::copy("/bin/sleep", &program)?;
        let child = Command::new(&program).arg0(comm).arg("120").stdin(Stdio::null()).spawn()?;
        cgroup.take(&child)?;
        Ok(Self { child, _cgroup: cgroup })
    }

    fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Directories that the test needs for others; removed on drop.
pub struct Parents(pub Vec<PathBuf>);

impl Parents {
    pub fn of(paths: &[&str]) -> Result<Self> {
        let root = unified()?;
        Ok(Self(paths.iter().map(|path| root.join(path)).collect()))
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The plan of a dry run.
fn plan(bench: &Bench, target: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = bench.command(&["stop", target, "--json", "--dry-run"]);
    let output = command.args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    let first = text.lines().next();
    let first = first.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(serde_json::from_str(first)?)
}

fn pids(plan: &Value) -> Vec<u64> {
    let processes = plan["processes"].as_array().into_iter().flatten();
    processes.filter_map(|process| process["pid"].as_u64()).collect()
}

#[test]
fn the_monitor_of_lxc_is_never_affected() -> Result {
    need_root!();
    let bench = Bench::new()?;
    // Listed first, as with LXC itself.
    let mut monitor = Inhabitant::new(&[], "lxc.monitor.filltop-jail1")?;
    let mut payload = Inhabitant::new(&[], "lxc.payload.filltop-jail1")?;
    let freeze = plan(&bench, "filltop-jail1", &[])?;
    ensure!(pids(&freeze) == [payload.pid()] && freeze["target"]["kind"] == "lxc", "{freeze}");
    ensure!(freeze["blast"]["processes"] == 0, "processes other than the named ones: {freeze}");
    let done = bench.stop("lxc/filltop-jail1", &["--how", "kill"])?;
    ensure!(done["ended"]["left"].as_array().is_some_and(Vec::is_empty), "{done}");
    ensure!(!payload.runs()? && monitor.runs()?, "the monitor was affected");
    drop(payload);
    let refused = bench.refused("filltop-jail1", &["--how", "kill"])?;
    ensure!(refused.contains("monitor") && monitor.runs()?, "{refused}");
    Ok(())
}

#[test]
fn the_monitors_of_podman_are_never_affected() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let _parents = Parents::of(&["libpod_parent"])?;
    let mut scope = Inhabitant::new(&[], &format!("libpod-conmon-{D1}.scope"))?;
    let mut common = Inhabitant::new(&["libpod_parent"], "conmon")?;
    let mut container = Inhabitant::new(&[], &format!("libpod-{D1}.scope"))?;
    for word in ["d771", &D1[..12], D1, "podman/d771"] {
        let plan = plan(&bench, word, &[])?;
        ensure!(pids(&plan) == [container.pid()], "{word}: {plan}");
    }
    bench.stop("d771", &["--how", "kill"])?;
    ensure!(!container.runs()? && scope.runs()? && common.runs()?, "a monitor was affected");
    drop(container);
    for word in ["d771", D1, "conmon", "podman/d771"] {
        let refused = bench.refused(word, &["--how", "kill"])?;
        ensure!(scope.runs()? && common.runs()?, "{word}: {refused}");
    }
    Ok(())
}

#[test]
fn an_unambiguous_id_prefix_is_enough() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let _parents = Parents::of(&["docker"])?;
    let mut first = Inhabitant::new(&["docker"], D1)?;
    let mut second = Inhabitant::new(&["docker"], D2)?;
    let mut numbers = Inhabitant::new(&["docker"], NUMBERS)?;
    let refused = bench.refused("d77", &["--how", "kill"])?;
    for word in [&D1[..12], &D2[..12]] {
        ensure!(refused.contains(&format!("docker/{word}")), "{refused}");
    }
    bench.refused("d7", &["--how", "kill"])?;
    ensure!(first.runs()? && second.runs()?, "{refused}");
    // A word of digits is a pid.
    let refused = bench.refused("12345678", &["--how", "kill"])?;
    ensure!(refused.contains("no process with pid 12345678") && numbers.runs()?, "{refused}");
    bench.stop("docker/12345678", &["--how", "kill"])?;
    bench.stop("d772", &["--how", "kill"])?;
    ensure!(first.runs()? && !second.runs()? && !numbers.runs()?);
    Ok(())
}

#[test]
fn an_ambiguous_name_is_refused() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let _parents = Parents::of(&["filltop.slice"])?;
    let mut unit = Inhabitant::new(&["filltop.slice"], "ft-both.service")?;
    let mut lxc = Inhabitant::new(&[], "lxc.payload.ft-both")?;
    let refused = bench.refused("ft-both", &["--how", "kill"])?;
    let named = ["unit/ft-both.service", "lxc/ft-both"];
    ensure!(named.iter().all(|word| refused.contains(word)), "{refused}");
    ensure!(unit.runs()? && lxc.runs()?, "{refused}");
    bench.stop(named[1], &["--how", "kill"])?;
    ensure!(unit.runs()? && !lxc.runs()?);
    bench.stop(named[0], &["--how", "kill"])?;
    ensure!(!unit.runs()?);
    Ok(())
}

#[test]
fn a_pod_stands_for_its_containers() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let pod = format!("pod{POD}");
    let path = format!("kubepods/{pod}");
    let _parents = Parents::of(&[&path, "kubepods"])?;
    let mut first = Inhabitant::new(&["kubepods", &pod], D1)?;
    let mut second = Inhabitant::new(&["kubepods", &pod], D2)?;
    let mut pause = Inhabitant::called("pause", &["kubepods", &pod], NUMBERS)?;
    // Suspended as a whole with the pod's own freezer.
    let done = bench.stop(POD, &[])?;
    ensure!(done["halted"]["processes"] == 3, "{done}");
    let events = fs::read_to_string(unified()?.join(&path).join("cgroup.events"))?;
    ensure!(events.contains("frozen 1"), "{events}");
    bench.resume(POD)?;
    let kill = plan(&bench, POD, &["--how", "kill"])?;
    let mut expected = vec![first.pid(), second.pid()];
    expected.sort_unstable();
    let mut hit = pids(&kill);
    hit.sort_unstable();
    ensure!(hit == expected, "{kill}");
    // kubelet would start it again. filltop checked for that, and it did not happen.
    ensure!(kill["steps"][4]["restart"]["by"] == "kubelet", "{kill}");
    let done = bench.stop(POD, &["--how", "kill"])?;
    ensure!(done["ended"]["back"].as_array().is_some_and(Vec::is_empty), "{done}");
    ensure!(!first.runs()? && !second.runs()? && pause.runs()?, "{done}");
    Ok(())
}
