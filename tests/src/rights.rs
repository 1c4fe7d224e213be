//! Programs with some of root's capabilities, as systemd or a container runtime starts them; and
//! filltop's helper process.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::filltop;

/// Numbers from linux/capability.h.
pub mod capability {
    /// `CAP_DAC_READ_SEARCH`
    pub const DAC_READ_SEARCH: u32 = 2;
    /// `CAP_SETPCAP`
    pub const SETPCAP: u32 = 8;
    /// `CAP_SYS_PTRACE`
    pub const SYS_PTRACE: u32 = 19;
    /// `CAP_SYS_ADMIN`
    pub const SYS_ADMIN: u32 = 21;
    /// `CAP_PERFMON`
    pub const PERFMON: u32 = 38;
    /// `CAP_BPF`
    pub const BPF: u32 = 39;
    /// `CAP_CHECKPOINT_RESTORE`, the highest number known here.
    pub const LAST: u32 = 40;
}

/// The unit that is shipped to users.
pub const UNIT: &str = include_str!("../../contrib/systemd/filltop.service");

const NUMBERS: &[(&str, u32)] = &[
    ("CAP_DAC_READ_SEARCH", capability::DAC_READ_SEARCH),
    ("CAP_SETPCAP", capability::SETPCAP),
    ("CAP_SYS_PTRACE", capability::SYS_PTRACE),
    ("CAP_SYS_ADMIN", capability::SYS_ADMIN),
    ("CAP_PERFMON", capability::PERFMON),
    ("CAP_BPF", capability::BPF),
];

/// The capabilities in the unit's bounding set, names and numbers.
///
/// # Errors
/// If there is no bounding set, or a name without a number here.
pub fn unit_capabilities() -> anyhow::Result<Vec<(&'static str, u32)>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    line.context("the unit has no CapabilityBoundingSet")?
        .split_whitespace()
        .map(|name| {
            let known = NUMBERS.iter().find(|(known, _)| *known == name);
            known.copied().with_context(|| format!("no number for {name}"))
        })
        .collect()
}

/// What the strict unit of docs/service.md keeps: enough for everything but BTF of modules.
pub const STRICT: &[u32] =
    &[capability::BPF, capability::PERFMON, capability::SYS_PTRACE, capability::DAC_READ_SEARCH];

/// Limits the command's capabilities to these, removes the limit of locked memory where this
/// process may do that, and sets no_new_privs, as the unit does.
pub fn keep_only(command: &mut Command, kept: &[u32]) {
    let dropped: Vec<u32> =
        (0..=capability::LAST).filter(|number| !kept.contains(number)).collect();
    // SAFETY: prctl is a system call that may be made between fork and exec; it only takes numbers
    // here.
    unsafe {
        command.pre_exec(move || {
            let no_limit = Rlimit { current: None, maximum: None };
            // Before 5.11 maps count as locked memory. Not every root may raise the limit.
            let _ = setrlimit(Resource::Memlock, no_limit);
            for number in &dropped {
                if libc::prctl(libc::PR_CAPBSET_DROP, *number, 0, 0, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Whether systemd starts filltop with the unit's own settings (`FILLTOP_RIGHTS=systemd`), instead
/// of this process with its capabilities.
#[must_use]
pub fn under_systemd() -> bool {
    env::var("FILLTOP_RIGHTS").is_ok_and(|rights| rights == "systemd")
}

/// Settings of the unit for its start and end, which the test controls instead.
const NOT_RIGHTS: &[&str] =
    &["Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec", "Group"];

/// filltop with these capabilities of root's: as a child that has no others, or, under systemd, as
/// a unit of this name with every setting of ours that restricts it, except for its capabilities.
#[must_use]
pub fn with_capabilities(unit: &str, kept: &[u32], arguments: &[&str]) -> Command {
    let mut command = Command::new(filltop());
    if under_systemd() {
        command = Command::new("systemd-run");
        command.args(["--quiet", "--pipe", "--wait", "--collect", "--unit", unit]);
        let lines = UNIT.lines().skip_while(|line| *line != "[Service]").skip(1);
        for line in lines.take_while(|line| !line.starts_with('[')) {
            let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
                continue;
            };
            if !NOT_RIGHTS.contains(&key) && key != "CapabilityBoundingSet" {
                command.args(["--property", line]);
            }
        }
        let names = NUMBERS.iter().filter(|(_, number)| kept.contains(number));
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        // After `~` come the capabilities to remove: none.
        let set = if kept.len() > NUMBERS.len() { "~".to_owned() } else { names.join(" ") };
        command.args(["--property", &format!("CapabilityBoundingSet={set}")]);
        command.arg(filltop()).args(arguments);
        return command;
    }
    command.args(arguments);
    keep_only(&mut command, kept);
    command
}

/// Pid of filltop: the command's own process, or the one that systemd has started for it.
///
/// # Errors
/// If systemd does not know such a unit.
pub fn main_pid(unit: &str, child: &Child) -> anyhow::Result<u32> {
    if !under_systemd() {
        return Ok(child.id());
    }
    let start = Instant::now();
    loop {
        let output = Command::new("systemctl")
            .args(["show", "--property=MainPID", "--value", unit])
            .output()?;
        let pid = String::from_utf8(output.stdout)?.trim().parse().unwrap_or(0);
        if pid != 0 {
            return Ok(pid);
        }
        ensure!(start.elapsed() < Duration::from_secs(30), "systemd did not start {unit}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A field of /proc/PID/status or of a thread's status.
///
/// # Errors
/// If the process is gone, or has no such field.
pub fn status(folder: &str, field: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(PathBuf::from("/proc").join(folder).join("status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("{field} of {folder}"))?.trim().to_owned())
}

/// A capability set of /proc/PID/status, as bits.
///
/// # Errors
/// As [`status`].
pub fn capabilities(folder: &str, field: &str) -> anyhow::Result<u64> {
    Ok(u64::from_str_radix(&status(folder, field)?, 16)?)
}

/// Pids of all helper processes that provide BTF of modules (`filltop-types`).
#[must_use]
pub fn types_helpers() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_helper =
        |pid: &u32| status(&pid.to_string(), "Name").is_ok_and(|name| name == "filltop-types");
    pids.filter(is_helper).collect()
}
