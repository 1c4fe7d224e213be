//! The helper process that keeps CAP_SYS_ADMIN, and filltop itself, which drops it.

use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::ensure;
use filltop_tests::need_tracing;
use filltop_tests::rights::{
    STRICT, capabilities, capability, main_pid, status, types_helpers, unit_capabilities,
    with_capabilities,
};

use crate::{Result, Running, backend, new_unit};

const ADMIN: u64 = 1 << capability::SYS_ADMIN;
/// Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> Result {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Starts a watch with these capabilities and waits until it has dropped those that it does not
/// keep.
fn watch(kept: &[u32]) -> anyhow::Result<Running> {
    let (unit, backend) = (new_unit(), backend());
    let mut arguments = vec!["watch", "--no-socket", "--interval", "500ms"];
    arguments.extend(backend.iter().map(String::as_str));
    let mut command = with_capabilities(&unit, kept, &arguments);
    let mut watch = Running::from(command.stdout(Stdio::null()).spawn()?);
    watch.pid = main_pid(&unit, &watch.child)?;
    let pid = watch.pid.to_string();
    let kept = STRICT.iter().fold(0, |bits, number| bits | 1 << number);
    until("it drops its capabilities", || Ok(capabilities(&pid, "CapPrm")? == kept))?;
    Ok(watch)
}

/// Since 5.11 the kernel has BTF of modules, and no longer counts maps as locked memory.
pub fn is_known_here() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 11)
}

#[test]
fn only_the_helper_keeps_cap_sys_admin_and_it_ends_with_the_watch() -> Result {
    need_tracing!();
    if !is_known_here() {
        println!(
            "SKIP only_the_helper_keeps_cap_sys_admin_and_it_ends_with_the_watch: this kernel has no BTF of \
             modules, which the helper would provide"
        );
        return Ok(());
    }
    let before = types_helpers();
    let unit: Vec<u32> = unit_capabilities()?.into_iter().map(|(_, number)| number).collect();
    let watch = watch(&unit)?;
    let helpers: Vec<u32> =
        types_helpers().into_iter().filter(|pid| !before.contains(pid)).collect();
    let [helper] = helpers[..] else { anyhow::bail!("not one helper: {helpers:?}") };

    // Checks all threads of the watch: either the capability to read other users' files, or none.
    let kept = STRICT.iter().fold(0, |bits, number| bits | 1 << number);
    let pid = watch.pid;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let folder = format!("{pid}/task/{}", thread.file_name().to_string_lossy());
        for field in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            let has = capabilities(&folder, field)?;
            ensure!(has & !kept == 0, "{field} of {folder} is {has:016x}");
        }
        ensure!(status(&folder, "NoNewPrivs")? == "1", "{folder}");
    }

    let folder = helper.to_string();
    for (field, is) in
        [("CapEff", ADMIN), ("CapPrm", ADMIN), ("CapInh", 0), ("CapBnd", 0), ("CapAmb", 0)]
    {
        let has = capabilities(&folder, field)?;
        ensure!(has == is, "{field} of the helper is {has:016x}, not {is:016x}");
    }
    for (field, is) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Threads", "1")] {
        ensure!(
            status(&folder, field)? == is,
            "{field} of the helper: {}",
            status(&folder, field)?
        );
    }
    let descriptors: Vec<_> = fs::read_dir(format!("/proc/{helper}/fd"))?.flatten().collect();
    ensure!(descriptors.len() == 1, "{descriptors:?}");
    let target = fs::read_link(descriptors[0].path())?;
    ensure!(target.to_string_lossy().starts_with("socket:"), "{target:?}");
    let rollup = fs::read_to_string(format!("/proc/{helper}/smaps_rollup"))?;
    let of_its_own = |field: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    let (private, locked) =
        (of_its_own("Private_Dirty:") + of_its_own("Private_Clean:"), of_its_own("Locked:"));
    println!("the helper: {private} KiB of its own, {locked} KiB locked");
    ensure!(private < 4096 && locked == 0, "{rollup}");

    // As with kill -9: no part of the watch runs any longer.
    drop(watch);
    until("the helper ends, and leaves no zombie", || Ok(!types_helpers().contains(&helper)))
}

#[test]
fn a_killed_helper_leaves_the_watch_running() -> Result {
    need_tracing!();
    if !is_known_here() {
        println!("SKIP a_killed_helper_leaves_the_watch_running: there is no helper before 5.11");
        return Ok(());
    }
    let before = types_helpers();
    let unit: Vec<u32> = unit_capabilities()?.into_iter().map(|(_, number)| number).collect();
    let mut watch = watch(&unit)?;
    for pid in types_helpers().into_iter().filter(|pid| !before.contains(pid)) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed());
        let pid = pid.ok_or_else(|| anyhow::anyhow!("a pid is not 0"))?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    until("the helper is gone", || Ok(types_helpers() == before))?;
    // After some samples.
    thread::sleep(Duration::from_secs(2));
    ensure!(watch.child.try_wait()?.is_none(), "the watch has ended too");
    Ok(())
}

#[test]
fn without_cap_sys_admin_there_is_no_helper() -> Result {
    need_tracing!();
    if env::var("FILLTOP_BACKEND").is_ok_and(|backend| backend == "kprobe") {
        println!("SKIP without_cap_sys_admin_there_is_no_helper: kprobes may need that capability");
        return Ok(());
    }
    let before = types_helpers();
    let _watch = watch(STRICT)?;
    ensure!(types_helpers() == before, "{:?}", types_helpers());
    Ok(())
}
