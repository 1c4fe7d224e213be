//! Where filltop cannot run, it prints one line with the reason, and it leaves nothing behind.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use filltop_tests::{Filltop, Public, bpf_programs, filltop, need_tracing};

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
fn without_privileges_the_error_names_the_fix() -> Result {
    need_tracing!();
    let program = Public::new(&filltop())?;
    let mut command = Command::new(program.path());
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

/// Runs the command in a mount namespace of its own where an empty tmpfs hides `path`. The tmpfs
/// contains `file` if one is given.
fn hiding(command: &mut Command, path: &'static str, file: Option<(&'static str, &'static str)>) {
    let hide = move || {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        // SAFETY: the child has one thread, and a new mount namespace affects no other process.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount("none", path, "tmpfs", MountFlags::empty(), None)?;
        if let Some((name, content)) = file {
            std::fs::write(std::path::Path::new(path).join(name), content)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec there are only system calls and small allocations, in a child
    // of a test that runs alone (`--test-threads=1`).
    unsafe { command.pre_exec(hide) };
}

#[test]
fn without_type_information_the_error_names_the_fix() -> Result {
    need_tracing!();
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "100ms"]);
    hiding(&mut command, "/sys/kernel/btf", None);
    refused(&mut command, &["type information", "CONFIG_DEBUG_INFO_BTF"])
}

#[test]
fn under_lockdown_the_error_names_the_fix() -> Result {
    need_tracing!();
    if !std::path::Path::new("/sys/kernel/security").is_dir() {
        println!(
            "SKIP refusals::under_lockdown_the_error_names_the_fix: securityfs is not available"
        );
        return Ok(());
    }
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "100ms"]);
    let file = ("lockdown", "none integrity [confidentiality]\n");
    hiding(&mut command, "/sys/kernel/security", Some(file));
    refused(&mut command, &["lockdown", "confidentiality"])
}

#[test]
fn it_runs_without_a_bpf_file_system() -> Result {
    need_tracing!();
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "100ms", "--json"]);
    if std::path::Path::new("/sys/fs/bpf").is_dir() {
        hiding(&mut command, "/sys/fs/bpf", None);
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn it_keeps_only_the_capabilities_that_it_needs() -> Result {
    need_tracing!();
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const SYS_PTRACE: u64 = 1 << 19;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let filltop = Filltop::start(&[])?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", filltop.pid()))?;
    filltop.stop()?;
    let set = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let all = DAC_READ_SEARCH | SYS_PTRACE | PERFMON | BPF;
    ensure!(set("CapEff:") == Some(all), "{status}");
    ensure!(set("CapPrm:") == Some(all), "{status}");
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    Ok(())
}

/// Waits until the new programs are unloaded: the kernel frees them some time after the last
/// reference is dropped.
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
fn it_leaves_nothing_attached_when_killed() -> Result {
    need_tracing!();
    let before = bpf_programs()?;
    let filltop = Filltop::start(&[])?;
    let loaded = bpf_programs()?.iter().any(|id| !before.contains(id));
    ensure!(loaded, "no program was loaded");
    filltop.kill()?;
    wait_until_gone(&before)?;
    // What was left in tracefs does not prevent the next start.
    let filltop = Filltop::start(&[])?;
    filltop.stop()?;
    wait_until_gone(&before)?;
    let events = std::fs::read_to_string("/sys/kernel/tracing/kprobe_events").unwrap_or_default();
    ensure!(!events.contains("filltop_"), "left in tracefs: {events}");
    Ok(())
}
