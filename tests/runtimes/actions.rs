//! What `stop` and `resume` do to a container.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::filltop;
use serde_json::{Value, json};

use crate::Result;
use crate::measured::{HELD, PACE};
use crate::world::World;

/// Long enough to see a writer of [`PACE`] write.
const MOMENT: Duration = Duration::from_millis(1_200);
/// How long a container may take to resume, or to be restarted, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// `filltop` with its records in a directory of the test's own; suspended targets are resumed on
/// drop.
struct Bench<'w> {
    world: &'w World,
    run: tempfile::TempDir,
}

impl<'w> Bench<'w> {
    fn new(world: &'w World) -> Result<Self> {
        Ok(Self { world, run: tempfile::tempdir()? })
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(filltop());
        self.world.runtime.environment(&mut command);
        command.args(arguments).env("FILLTOP_RUN_DIR", self.run.path()).stdin(Stdio::null());
        Ok(command.output()?)
    }

    /// The lines of JSON that `stop` prints.
    fn stop(&self, target: &str, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.run(&[&["stop", target, "--json"], arguments].concat())?;
        ensure!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
        let text = std::str::from_utf8(&output.stdout)?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<std::result::Result<_, _>>()?)
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let _ = self.run(&["resume", "--all"]);
    }
}

/// The running container that appends, and the file that grows.
fn filler(world: &mut World) -> Result<(String, std::path::PathBuf)> {
    let measured = world.seen()?.measured;
    Ok((measured.names.filler.clone(), measured.filled.clone()))
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len())
}

/// By how much a file grows within [`MOMENT`].
fn growth(path: &Path) -> Result<u64> {
    let before = size(path)?;
    thread::sleep(MOMENT);
    Ok(size(path)?.saturating_sub(before))
}

pub fn a_freeze_by_name_lasts_until_resume(world: &mut World) -> Result {
    let (filler, file) = filler(world)?;
    let seen = world.seen()?;
    let web = seen.runtime.pid(&seen.measured.names.web)?;
    let name = world.runtime.called(&filler);
    let bench = Bench::new(world)?;
    let grew = growth(&file)?;
    ensure!(grew > PACE / 4, "the container does not write: {grew} bytes");
    let lines = bench.stop(&name, &["--how", "freeze", "--yes", "--for", "30s"])?;
    let subject = &lines.first().context("no plan")?["target"];
    ensure!(subject["kind"] == world.runtime.kind(), "{subject}");
    ensure!(subject["name"] == name.as_str(), "{subject}");
    let grew = growth(&file)?;
    ensure!(grew == 0, "{grew} bytes while it was frozen");
    // Nothing else is frozen, least of all the container's monitor: the runtime responds.
    world.runtime.pid(&filler)?;
    let state = fs::read_to_string(format!("/proc/{web}/wchan")).unwrap_or_default();
    ensure!(!state.contains("freez"), "another container is frozen: {state}");
    let output = bench.run(&["resume", &name])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let start = Instant::now();
    while growth(&file)? == 0 {
        ensure!(start.elapsed() < PATIENCE, "the container does not resume");
    }
    Ok(())
}

pub fn other_names_are_accepted(world: &mut World) -> Result {
    let (filler, _) = filler(world)?;
    let wanted = world.runtime.called(&filler);
    let bench = Bench::new(world)?;
    for name in world.runtime.also_called(&filler)? {
        let lines = bench.stop(&name, &["--how", "freeze", "--dry-run"])?;
        let subject = &lines.first().context("no plan")?["target"];
        let found = subject["name"].as_str().unwrap_or_default();
        // A pod as a whole has a name of its own.
        let is_it = found == wanted || wanted.starts_with(&format!("{found}/"));
        ensure!(!found.is_empty() && is_it, "{name} is {subject}, not {wanted}");
    }
    Ok(())
}

pub fn the_plan_has_the_held_bytes_and_the_volume(world: &mut World) -> Result {
    let seen = world.seen()?;
    let (held, mount) = (seen.measured.held_blocks, seen.mount);
    let name = seen.runtime.called(&seen.measured.names.web);
    let bench = Bench::new(world)?;
    let lines = bench.stop(&name, &["--how", "kill", "--dry-run"])?;
    let plan = lines.first().context("no plan")?;
    let steps = plan["steps"].as_array().context("no steps")?;
    let kill = steps.iter().find(|step| step["how"] == "kill").context("no kill")?;
    ensure!(kill["frees_bytes"].as_u64().is_some_and(|frees| frees >= HELD), "{held}: {plan}");
    ensure!(plan.to_string().contains(&mount), "its volume is not in the plan: {plan}");
    Ok(())
}

pub fn a_restart_policy_is_in_the_plan(world: &mut World) -> Result {
    ensure!(world.runtime.restarts());
    let name = world.name("always");
    world.run(&name, &format!("exec workload pace /again --rate {PACE} --block 40000"), true)?;
    let first = world.runtime.pid(&name)?;
    let bench = Bench::new(world)?;
    let dry = bench.stop(&name, &["--how", "kill", "--dry-run"])?;
    let steps = dry[0]["steps"].as_array().context("no steps")?;
    let kill = steps.iter().find(|step| step["how"] == "kill").context("no kill")?;
    let wanted = json!({"by": world.runtime.kind(), "policy": "always", "returns": true});
    ensure!(kill["restart"] == wanted, "the policy is not in the plan: {kill}");
    let output = bench.run(&["stop", &name, "--how", "kill", "--yes", "--json"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = Instant::now();
    while world.runtime.pid(&name).map_or(true, |pid| pid == first) {
        ensure!(start.elapsed() < PATIENCE, "the container was not restarted: {said}");
        thread::sleep(Duration::from_millis(50));
    }
    let done: Value = serde_json::from_str(said.lines().last().context("nothing was printed")?)?;
    let again = world.runtime.pid(&name)?;
    let back = done["ended"]["back"]
        .as_array()
        .with_context(|| format!("the restart is not reported: {done}"))?;
    ensure!(back.iter().any(|pid| *pid == again), "{again} is not among {back:?}");
    ensure!(output.status.code() == Some(1), "{:?}: it did not stop", output.status);
    drop(bench);
    world.remove(&name)
}

/// podman puts a container into `libpod-ID.scope` and its monitor into `libpod-conmon-ID.scope`,
/// which sorts first if the id begins with d, e or f.
pub fn an_id_that_sorts_after_its_monitor_is_frozen(world: &mut World) -> Result {
    if !crate::world::is_ours() {
        let name = thread::current().name().unwrap_or("?").to_owned();
        println!(
            "SKIP {name}: containers have systemd scopes only in a Debian booted for this test"
        );
        return Ok(());
    }
    // Three of sixteen ids begin so: the chance that none of eighty does is one in ten million.
    for n in 0..80 {
        let name = world.name(&format!("late{n}"));
        world.run(
            &name,
            &format!("exec workload pace /late --rate {PACE} --block 40000"),
            false,
        )?;
        let names = world.runtime.also_called(&name)?;
        let id = names.last().context("it has an id")?;
        if id.starts_with(['d', 'e', 'f']) {
            let file = world.runtime.root(&name)?.join("late");
            let bench = Bench::new(world)?;
            bench.stop(&name, &["--how", "freeze", "--yes", "--for", "60s"])?;
            let grew = growth(&file)?;
            ensure!(grew == 0, "{id}: {grew} bytes while it was frozen");
            drop(bench);
            return world.remove(&name);
        }
        world.remove(&name)?;
    }
    anyhow::bail!("no id began with d, e or f")
}
