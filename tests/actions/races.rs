//! Processes that exit, fork, fork twice, leave their session or their cgroup, are traced, or sleep
//! where no signal reaches them.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use filltop_tests::TestVolume;

use crate::{
    Bench, Cgroup, Result, Writer, bytes_in, escaping, need_root, resumes, small_writer, state,
    writes_nothing,
};

const SOON: Duration = Duration::from_secs(5);
/// A child lives 30 ms, once it is scheduled.
const SETTLE: Duration = Duration::from_millis(500);

/// Freezes and resumes again and again; not a byte is written in between. `settle` is how long
/// processes may live that had lost their parent before filltop started.
fn fleeing(kind: &str, cgroup: Option<&Cgroup>, settle: Duration, rounds: u32) -> Result {
    let volume = TestVolume::new("ext4", 390)?;
    let bench = Bench::new()?;
    let writer = escaping(volume.path(), kind, cgroup)?;
    for round in 0..rounds {
        resumes(volume.path(), SOON)?;
        let done = bench.stop(&writer.pid(), &[])?;
        std::thread::sleep(settle);
        let before = bytes_in(volume.path())?;
        std::thread::sleep(Duration::from_millis(200));
        let more = bytes_in(volume.path())? - before;
        ensure!(more == 0, "round {round}: {more} bytes were written; {done}");
        ensure!(done["halted"]["notes"].as_array().is_some_and(Vec::is_empty), "{done}");
        bench.resume(&writer.pid())?;
    }
    resumes(volume.path(), SOON)?;
    Ok(())
}

#[test]
fn short_lived_children() -> Result {
    need_root!();
    fleeing("fork", None, Duration::ZERO, 10)
}

#[test]
fn children_whose_parents_exit() -> Result {
    need_root!();
    fleeing("double-fork", None, SETTLE, 10)
}

#[test]
fn children_in_sessions_of_their_own() -> Result {
    need_root!();
    fleeing("daemon", None, SETTLE, 10)
}

/// A process cannot leave a cgroup by forking.
#[test]
fn children_in_a_cgroup() -> Result {
    need_root!();
    let cgroup = Cgroup::new("filltop-flee")?;
    let volume = TestVolume::new("ext4", 390)?;
    let bench = Bench::new()?;
    let _writer = escaping(volume.path(), "daemon", Some(&cgroup))?;
    std::thread::sleep(Duration::from_millis(100));
    for _ in 0..10 {
        resumes(volume.path(), SOON)?;
        bench.stop("/filltop-flee", &[])?;
        let before = bytes_in(volume.path())?;
        std::thread::sleep(Duration::from_millis(200));
        ensure!(bytes_in(volume.path())? == before);
        bench.resume("/filltop-flee")?;
    }
    Ok(())
}

#[test]
fn a_process_that_has_exited_is_reported_and_no_other_is_affected() -> Result {
    need_root!();
    let bench = Bench::new()?;
    let mut child = std::process::Command::new("true").spawn()?;
    let pid = child.id().to_string();
    child.wait()?;
    let said = bench.refused(&pid, &["--how", "kill"])?;
    ensure!(said.contains("no process") && said.lines().count() == 1, "{said}");
    Ok(())
}

#[test]
fn a_process_that_is_moved_to_another_cgroup_stays_frozen() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let writer = small_writer(volume.path())?;
    resumes(volume.path(), SOON)?;
    bench.stop(&writer.pid(), &[])?;
    let cgroup = Cgroup::new("filltop-move")?;
    cgroup.take(&writer.child)?;
    writes_nothing(volume.path())?;
    bench.resume(&writer.pid())?;
    resumes(volume.path(), SOON)?;
    Ok(())
}

/// The target moves itself from cgroup to cgroup all the time: the chosen freezer may be empty by
/// the time it is used.
#[test]
fn a_process_that_keeps_changing_its_cgroup_is_frozen() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let cgroups = ["filltop-hop-a", "filltop-hop-b", "filltop-hop-c"];
    let cgroups = cgroups.map(Cgroup::new);
    let cgroups = cgroups.into_iter().collect::<Result<Vec<_>>>()?;
    let path = volume.path().join("f");
    let mut arguments = vec!["hop", path.to_str().context("UTF-8")?];
    for cgroup in &cgroups {
        arguments.push(cgroup.path().to_str().context("UTF-8")?);
    }
    let mut writer = Writer::start(&arguments)?;
    writer.began()?;
    let mut by_signals = 0;
    for round in 0..20 {
        let bench = Bench::new()?;
        resumes(volume.path(), SOON)?;
        let done = bench.stop(&writer.pid(), &[])?;
        ensure!(done["halted"]["processes"] == 1, "round {round}: {done}");
        by_signals += u32::from(state(writer.child.id())? == 'T');
        let before = bytes_in(volume.path())?;
        std::thread::sleep(Duration::from_millis(100));
        ensure!(bytes_in(volume.path())? == before, "round {round}: it keeps writing; {done}");
        bench.resume(&writer.pid())?;
    }
    println!("20 rounds, {by_signals} of them with signals because it had left the cgroup");
    ensure!(by_signals > 0, "nothing was tested: it never left its cgroup");
    Ok(())
}

/// A tracer can let its process continue. filltop reports that; once the tracer detaches, the
/// process is suspended.
#[test]
fn a_process_that_is_traced() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let writer = small_writer(volume.path())?;
    resumes(volume.path(), SOON)?;
    let pid = writer.child.id() as libc::pid_t;
    let trace = |request: libc::c_uint| -> Result {
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: attaching and detaching use no pointers.
        let result = unsafe { libc::ptrace(request, pid, null, null) };
        ensure!(result == 0, "ptrace: {}", std::io::Error::last_os_error());
        Ok(())
    };
    trace(libc::PTRACE_ATTACH)?;
    while state(writer.child.id())? != 't' {}
    let done = bench.stop(&writer.pid(), &[])?;
    let note = done["halted"]["notes"][0].as_str().context("no note")?;
    ensure!(note.contains("is traced by"), "{note}");
    trace(libc::PTRACE_DETACH)?;
    writes_nothing(volume.path())?;
    bench.resume(&writer.pid())?;
    resumes(volume.path(), SOON)?;
    Ok(())
}

/// FIFREEZE and FITHAW of linux/fs.h: writers of the volume sleep where no signal reaches them.
fn freeze_volume(dir: &std::path::Path, freeze: bool) -> Result {
    let request = if freeze { 0xc004_5877 } else { 0xc004_5878u64 };
    let file = File::open(dir)?;
    // SAFETY: both take an integer that they ignore.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, 0) };
    ensure!(result == 0, "fsfreeze: {}", std::io::Error::last_os_error());
    Ok(())
}

fn asleep(cgroup: Option<&Cgroup>) -> Result {
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let writer = small_writer(volume.path())?;
    if let Some(cgroup) = cgroup {
        cgroup.take(&writer.child)?;
    }
    resumes(volume.path(), SOON)?;
    freeze_volume(volume.path(), true)?;
    let start = std::time::Instant::now();
    while state(writer.child.id())? != 'D' && start.elapsed() < SOON {}
    let done = bench.stop(&writer.pid(), &[]);
    freeze_volume(volume.path(), false)?;
    let done = done?;
    let note = done["halted"]["notes"][0].as_str().context("no note")?;
    ensure!(note.contains("uninterruptible sleep"), "{note}");
    // The one write that was blocked completes; then the process is suspended.
    std::thread::sleep(Duration::from_millis(100));
    writes_nothing(volume.path())?;
    bench.resume(&writer.pid())?;
    resumes(volume.path(), SOON)?;
    Ok(())
}

/// SIGKILL takes effect when the process returns to user space; until then it is reported as
/// remaining.
#[test]
fn a_process_that_cannot_be_killed_yet_is_reported() -> Result {
    need_root!();
    let volume = TestVolume::new("ext4", 64)?;
    let bench = Bench::new()?;
    let mut writer = small_writer(volume.path())?;
    resumes(volume.path(), SOON)?;
    freeze_volume(volume.path(), true)?;
    let start = std::time::Instant::now();
    while state(writer.child.id())? != 'D' && start.elapsed() < SOON {}
    let arguments = ["stop", &writer.pid(), "--how", "kill", "--yes"];
    let output = bench.command(&arguments).output();
    freeze_volume(volume.path(), false)?;
    let output = output?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
    ensure!(said.contains("still there") && said.contains("state D"), "{said}");
    let status = writer.child.wait()?;
    ensure!(status.code().is_none(), "it was not killed: {status}");
    Ok(())
}

#[test]
fn a_process_in_uninterruptible_sleep() -> Result {
    need_root!();
    asleep(None)?;
    let cgroup = Cgroup::new("filltop-asleep")?;
    asleep(Some(&cgroup))
}
