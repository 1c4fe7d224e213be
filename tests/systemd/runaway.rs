//! `filltop stop` on a unit that fills a volume, with the real systemctl and the real freezer.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;
use tracer_model::snapshot::{GroupKind, Snapshot};

use crate::{PROGRAM, Result, installed, need_debian, said, show, succeed, systemctl, wait_for};

/// A unit that writes 1 MiB ten times a second; stopped on drop.
struct Runaway {
    unit: &'static str,
    file: String,
}

impl Runaway {
    fn start(unit: &'static str, volume: &Path) -> Result<Self> {
        let file = volume.join("fills").display().to_string();
        let script = format!("while :; do head -c 1048576 /dev/zero >> {file}; sleep 0.1; done");
        let name = format!("--unit={unit}");
        succeed(Command::new("systemd-run").args([&name, "/bin/sh", "-c", &script]))?;
        let runaway = Self { unit, file };
        wait_for("it writes", || Ok(runaway.size() > 3 << 20))?;
        Ok(runaway)
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |file| file.len())
    }
}

impl Drop for Runaway {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", self.unit]);
    }
}

fn stop(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(PROGRAM).arg("stop").args(arguments).output()?)
}

#[test]
fn a_runaway_unit_is_named_frozen_and_resumed() -> Result {
    need_debian!();
    installed(None)?;
    let volume = TestVolume::new("ext4", 500)?;
    let runaway = Runaway::start("runaway-a.service", volume.path())?;
    thread::sleep(Duration::from_secs(3));
    let mut ask = Command::new(PROGRAM);
    let text = succeed(ask.args(["snapshot", "--json", "--for", "3s"]))?;
    let snapshot: Snapshot = serde_json::from_str(&text)?;
    let mount = volume.path().display().to_string();
    let group = snapshot.groups.iter().find(|row| row.volume == mount);
    let group = &group.with_context(|| format!("no writer on {mount}: {text}"))?.group;
    ensure!(group.name == runaway.unit && group.kind == GroupKind::Unit, "{group:?}");

    let started = Instant::now();
    let output = stop(&[runaway.unit, "--how", "freeze", "--yes"])?;
    ensure!(output.status.success(), "{}", said(&output));
    println!("frozen after {:.1} s", started.elapsed().as_secs_f64());
    let cgroup = show(runaway.unit, "ControlGroup")?;
    let events = std::fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/cgroup.events"))?;
    ensure!(events.contains("frozen 1"), "{events}");
    let size = runaway.size();
    thread::sleep(Duration::from_secs(3));
    ensure!(runaway.size() == size, "{} more", runaway.size() - size);
    ensure!(show(runaway.unit, "ActiveState")? == "active");

    let output = Command::new(PROGRAM).args(["resume", runaway.unit]).output()?;
    ensure!(output.status.success(), "{}", said(&output));
    wait_for("it writes again", || Ok(runaway.size() > size + (1 << 20)))?;
    Ok(())
}

#[test]
fn a_runaway_unit_is_stopped_by_its_manager() -> Result {
    need_debian!();
    installed(None)?;
    let volume = TestVolume::new("ext4", 500)?;
    let runaway = Runaway::start("runaway-b.service", volume.path())?;
    let dry = stop(&[runaway.unit, "--how", "unit", "--dry-run"])?;
    ensure!(dry.status.success() && said(&dry).contains("systemctl stop"), "{}", said(&dry));
    ensure!(show(runaway.unit, "ActiveState")? == "active");
    let output = stop(&[runaway.unit, "--how", "unit", "--yes"])?;
    ensure!(output.status.success(), "{}", said(&output));
    wait_for("it is stopped", || Ok(show(runaway.unit, "ActiveState")? == "inactive"))?;
    let size = runaway.size();
    thread::sleep(Duration::from_secs(2));
    ensure!(runaway.size() == size, "it keeps writing");
    Ok(())
}

#[test]
fn essential_services_are_refused() -> Result {
    need_debian!();
    installed(None)?;
    for unit in ["systemd-journald.service", "dbus.service", "init.scope"] {
        let output = stop(&[unit, "--how", "unit", "--yes"])?;
        ensure!(output.status.code() == Some(1), "{unit}: {}", said(&output));
    }
    ensure!(show("systemd-journald.service", "ActiveState")? == "active");
    Ok(())
}
