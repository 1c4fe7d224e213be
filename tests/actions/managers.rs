//! A unit or a container is stopped with its own manager's command, and with nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use filltop_tests::filltop;

use crate::{Bench, Cgroup, Result, need_root, unified};

/// Writes a fake manager that logs its arguments, and then runs a line of shell.
fn write_fake_manager(dir: &Path, name: &str, then: &str) -> Result {
    let script = dir.join(name);
    fs::write(&script, format!("#!/bin/sh\necho \"$0 $*\" >> \"${{0%/*}}/asked\"\n{then}\n"))?;
    Ok(fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?)
}

/// The arguments that it logged.
fn asked(dir: &Path) -> Result<String> {
    let all = fs::read_to_string(dir.join("asked")).unwrap_or_default();
    Ok(all
        .lines()
        .filter(|line| line.contains(" stop "))
        .fold(String::new(), |all, line| all + line + "\n"))
}

#[test]
fn a_container_is_stopped_by_its_runtime() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let dir = tempfile::tempdir()?;
    write_fake_manager(dir.path(), "docker", "")?;
    let id = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
    let parent = unified()?.join("docker");
    fs::create_dir_all(&parent)?;
    let cgroup = Cgroup::below(&parent, id)?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    cgroup.take(&child)?;
    let stop = |arguments: &[&str]| -> Result<(Option<i32>, serde_json::Value)> {
        let output = bench
            .command(&["stop", &id[..12], "--how", "unit", "--yes", "--json"])
            .args(arguments)
            .env("PATH", dir.path())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().context("nothing was printed")?;
        Ok((output.status.code(), serde_json::from_str(last)?))
    };
    let dry = stop(&["--dry-run"]);
    let before = asked(dir.path())?;
    // This one reports success without having stopped anything: filltop checks that.
    let idle = stop(&[]);
    let alive = child.try_wait()?.is_none();
    write_fake_manager(dir.path(), "docker", &format!("kill -9 {}", child.id()))?;
    let done = stop(&[]);
    child.kill()?;
    child.wait()?;
    let command = format!("run docker stop {}", &id[..12]);
    ensure!(dry?.1["would"][0] == command.as_str() && before.is_empty(), "{before}");
    let (status, idle) = idle?;
    let left = idle["ended"]["left"].as_array().map(Vec::len);
    ensure!(status == Some(1) && left == Some(1), "{status:?} {idle}");
    let (status, done) = done?;
    let left = done["ended"]["left"].as_array().map(Vec::len);
    ensure!(status == Some(0) && left == Some(0), "{status:?} {done}");
    ensure!(asked(dir.path())?.trim_end().ends_with(&format!("docker stop {}", &id[..12])));
    ensure!(alive, "something other than the runtime ended it");
    drop(cgroup);
    let _ = fs::remove_dir(parent);
    Ok(())
}

/// systemd counts as running where /run/systemd/system exists; the test creates that in a mount
/// namespace.
#[test]
fn a_unit_is_stopped_by_systemd_where_that_runs() -> Result {
    need_root!();
    if Command::new("unshare").args(["-m", "true"]).output().is_err() {
        println!("SKIP a_unit_is_stopped_by_systemd_where_that_runs: unshare is not installed");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let slice = Cgroup::new("filltop.slice")?;
    let cgroup = Cgroup::below(slice.path(), "shop.service")?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    cgroup.take(&child)?;
    write_fake_manager(
        dir.path(),
        "systemctl",
        &format!("[ $1 = show ] || kill -9 {}", child.id()),
    )?;
    let stop = |prepare: &str, name: &str| {
        let filltop = filltop();
        let script = format!(
            "mount -t tmpfs tmpfs /run && {prepare} && PATH={} exec {} stop {name} --how unit --yes",
            dir.path().display(),
            filltop.display()
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).output()
    };
    let without = stop("true", "shop");
    let with = stop("mkdir -p /run/systemd/system", "shop");
    let once = asked(dir.path())?;
    let protected = stop("mkdir -p /run/systemd/system", "ssh.service");
    child.kill()?;
    child.wait()?;
    let (without, with, protected) = (without?, with?, protected?);
    ensure!(String::from_utf8_lossy(&without.stderr).contains("systemd is not running here"));
    ensure!(with.status.success(), "{}", String::from_utf8_lossy(&with.stderr));
    ensure!(once.trim_end().ends_with("systemctl stop -- shop.service"), "{once}");
    ensure!(String::from_utf8_lossy(&protected.stderr).contains("protected"), "{protected:?}");
    ensure!(asked(dir.path())? == once, "it was asked to stop ssh.service");
    drop(cgroup);
    drop(slice);
    Ok(())
}
