//! Where it cannot run it says so in one line, and it leaves nothing behind.

use std::{
    os::unix::process::CommandExt as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use filltop_tests::{Filltop, bpf_programs, filltop, need_tracing};

use super::Result;

fn refused(command: &mut Command, with: &[&str]) -> Result {
    let output = command.output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "exit status {:?}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "stdout is not empty");
    ensure!(said.lines().count() == 1, "more than one line: {said}");
    for part in with {
        ensure!(said.contains(part), "{part:?} is not in: {said}");
    }
    Ok(())
}

#[test]
fn without_privileges_it_names_the_fix() -> Result {
    need_tracing!();
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "100ms"]).uid(65_534).gid(65_534);
    refused(&mut command, &["CAP_BPF", "sudo filltop"])
}

#[test]
fn an_unknown_function_is_refused() -> Result {
    need_tracing!();
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "100ms", "--hooks", "no_such_function"]);
    refused(&mut command, &["no_such_function", "vfs_write"])
}

/// Programs are freed some time after their last reference is gone.
fn wait_until_gone(before: &[u32]) -> Result {
    let start = Instant::now();
    loop {
        let left: Vec<u32> =
            bpf_programs()?.into_iter().filter(|id| !before.contains(id)).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "still loaded: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn killed_it_leaves_nothing_attached() -> Result {
    need_tracing!();
    let before = bpf_programs()?;
    let filltop = Filltop::start(&[])?;
    let loaded = bpf_programs()?.iter().any(|id| !before.contains(id));
    ensure!(loaded, "no program was loaded");
    filltop.kill()?;
    wait_until_gone(&before)?;
    // And what it left in tracefs does not hinder the next one.
    let filltop = Filltop::start(&[])?;
    filltop.stop()?;
    wait_until_gone(&before)?;
    let events = std::fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap_or_default();
    ensure!(!events.contains("filltop_"), "left in tracefs: {events}");
    Ok(())
}
