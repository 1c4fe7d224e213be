//! `term`, `kill` and `truncate`, and the processes that are never affected.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, wait_until};

use crate::{Bench, Cgroup, Result, Writer, escaping, need_root, resumes, writes_nothing};

const SOON: Duration = Duration::from_secs(5);

/// A server that forks every 5 ms is ended with all its children.
fn ends(how: &str, kind: &str, cgroup: Option<&Cgroup>, frozen: bool) -> Result {
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let mut writer = escaping(volume.path(), kind, cgroup)?;
    resumes(volume.path(), SOON)?;
    if frozen {
        bench.stop(&writer.pid(), &[])?;
    }
    let done = bench.stop(&writer.pid(), &["--how", how])?;
    ensure!(done["ended"]["left"].as_array().is_some_and(Vec::is_empty), "{done}");
    let status = writer.child.wait()?;
    ensure!(!status.success(), "{status}");
    // An earlier orphan of another session is not part of the tree: it ends automatically.
    std::thread::sleep(Duration::from_millis(100));
    writes_nothing(volume.path())?;
    ensure!(bench.records().is_empty(), "{:?}", bench.records());
    Ok(())
}

#[test]
fn term_ends_a_tree() -> Result {
    need_root!();
    ends("term", "fork", None, false)
}

#[test]
fn term_ends_a_frozen_tree() -> Result {
    need_root!();
    ends("term", "fork", None, true)
}

#[test]
fn kill_ends_a_tree_whose_children_escape() -> Result {
    need_root!();
    ends("kill", "fork", None, false)?;
    ends("kill", "daemon", None, false)
}

#[test]
fn kill_ends_a_frozen_cgroup() -> Result {
    need_root!();
    let cgroup = Cgroup::new("filltop-kill-v2")?;
    ends("kill", "daemon", Some(&cgroup), true)?;
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer");
    if freezer.join("cgroup.procs").exists() {
        let cgroup = Cgroup::below(freezer, "filltop-kill-v1")?;
        ends("kill", "daemon", Some(&cgroup), true)?;
    }
    Ok(())
}

#[test]
fn a_held_file_is_truncated_without_ending_its_holder() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let path = volume.path().join("app.log");
    let text = path.to_str().context("UTF-8")?.to_owned();
    let writer = Writer::start(&["pace", &text, "--rate", "4000000", "--block", "40000"])?;
    let has_enough = || Ok(fs::metadata(&path).map_or(0, |file| file.len()) > 1_500_000);
    wait_until("some space is taken", SOON, has_enough)?;
    let arguments = ["--how", "truncate", "--file", &text];
    ensure!(bench.refused(&writer.pid(), &arguments)?.contains("is not deleted"));
    let held = File::open(&path)?;
    fs::remove_file(&path)?;
    let blocks = held.metadata()?.blocks() * 512;
    let done = bench.stop(&writer.pid(), &arguments)?;
    let freed = done["freed_bytes"].as_u64().context("freed")?;
    ensure!(freed >= blocks && blocks > 1_000_000, "{freed} of {blocks}");
    ensure!(held.metadata()?.len() < blocks, "it still has {}", held.metadata()?.len());
    // The holder keeps running.
    let before = held.metadata()?.len();
    wait_until("the holder keeps writing", SOON, || Ok(held.metadata()?.len() > before))?;
    Ok(())
}

#[test]
fn the_plan_shows_what_a_step_frees() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let path = volume.path().join("held");
    let mut held = File::create(&path)?;
    held.write_all(&vec![7; 3 << 20])?;
    held.sync_all()?;
    // Held only by the sleeper once this test has closed its own descriptor.
    let mut sleeper = Command::new("sleep").arg("60").stdout(held.try_clone()?).spawn()?;
    fs::remove_file(&path)?;
    let plan = |bench: &Bench| -> Result<serde_json::Value> {
        let output = bench
            .command(&["stop", &sleeper.id().to_string(), "--how", "kill", "--json"])
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let shared = plan(&bench)?;
    drop(held);
    let alone = plan(&bench)?;
    sleeper.kill()?;
    sleeper.wait()?;
    ensure!(shared["frees_bytes"] == 0, "{shared}");
    ensure!(alone["frees_bytes"] == 3 << 20, "{alone}");
    ensure!(alone["steps"][0]["frees_bytes"] == 0, "a freeze frees nothing: {alone}");
    Ok(())
}

#[test]
fn protected_processes_are_never_affected() -> Result {
    need_root!();
    let bench = Bench::new()?;
    ensure!(bench.refused("1", &["--reach", "alone"])?.contains("PID 1"));
    let own = std::process::id().to_string();
    for how in ["freeze", "kill"] {
        let said = bench.refused(&own, &["--how", how])?;
        ensure!(said.contains("your own session"), "{said}");
    }
    let kernel = fs::read_dir("/proc")?.flatten().find_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        comm.starts_with("kthreadd").then_some(pid)
    });
    if let Some(kernel) = kernel {
        ensure!(bench.refused(&kernel, &["--reach", "alone"])?.contains("kernel thread"));
    }
    ensure!(bench.refused("/", &[])?.contains("root cgroup"));
    // The name alone protects a process, whatever it really runs.
    let dir = tempfile::tempdir()?;
    let sshd = dir.path().join("sshd");
    fs::copy("/bin/sleep", &sshd).or_else(|_| fs::copy("/bin/busybox", &sshd))?;
    let mut child = Command::new(&sshd).arg("60").spawn()?;
    std::thread::sleep(Duration::from_millis(50));
    let alive = child.try_wait()?.is_none();
    let said = bench.refused(&child.id().to_string(), &["--how", "kill"]);
    child.kill()?;
    child.wait()?;
    // On small systems with nothing but busybox, a copy of it named sshd does not run.
    ensure!(!alive || said?.contains("protected"));
    let mut child = Command::new("sleep").arg("60").spawn()?;
    let said = bench.refused(&child.id().to_string(), &["--avoid", "^slee"]);
    child.kill()?;
    child.wait()?;
    ensure!(said?.contains("avoid"));
    Ok(())
}

/// The guard's configuration also applies to commands: as a refusal, or as a warning.
#[test]
fn the_guards_configuration_is_applied() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let file = bench.run.path().join("filltop.toml");
    let at = file.to_str().context("UTF-8")?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    let pid = child.id().to_string();
    let said = (|| -> Result<_> {
        fs::write(&file, "[guard]\navoid = [\"^slee\"]\n")?;
        let avoided = bench.refused(&pid, &["--config", at, "--how", "kill"])?;
        let freed = bench.stop(&pid, &["--config", at, "--no-config", "--dry-run"]);
        fs::write(&file, "[guard]\navoid = [\"(\"]\n")?;
        let wrong = bench.refused(&pid, &["--config", at])?;
        fs::write(&file, "[guard]\nignore = [\"^slee\"]\n")?;
        let ignored = bench.command(&["stop", &pid, "--json", "--config", at]).output()?;
        Ok((avoided, freed, wrong, String::from_utf8(ignored.stdout)?))
    })();
    child.kill()?;
    child.wait()?;
    let (avoided, freed, wrong, ignored) = said?;
    ensure!(avoided.contains(&format!("guard.avoid = \"^slee\" in {at}")), "{avoided}");
    ensure!(freed.is_err(), "one file and none at once is wrong usage");
    ensure!(wrong.contains("--no-config") && wrong.lines().count() == 1, "{wrong}");
    ensure!(ignored.contains("its growth is expected"), "{ignored}");
    Ok(())
}

#[test]
fn without_a_confirmation_nothing_is_done() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    let output = bench.command(&["stop", &child.id().to_string(), "--how", "kill"]).output()?;
    let alive = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    ensure!(alive && output.status.code() == Some(1), "{output:?}");
    ensure!(String::from_utf8(output.stderr)?.contains("--yes"));
    let output = bench.command(&["stop", "no-such-thing", "--yes"]).output()?;
    ensure!(output.status.code() == Some(1));
    let output = bench.command(&["stop", "7", "--how", "truncate"]).output()?;
    ensure!(output.status.code() == Some(2), "truncating no file in particular is wrong usage");
    Ok(())
}
