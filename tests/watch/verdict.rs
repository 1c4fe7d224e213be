//! The verdict with real programs: who is named, and who is not.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use filltop_tests::{
    Cgroup, Filltop, Server, TestVolume, Watch, command, need_tracing, wait_until,
};
use tracer_model::alert::EventKind;
use tracer_model::snapshot::{BehalfKind, LimitKind, NoSuggestion, Snapshot, State, Verdict};

use super::{Result, SECOND};

/// A shell in a control group of its own.
fn shell(group: &Cgroup, script: &str, volume: &Path) -> anyhow::Result<Server> {
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(volume).stdin(Stdio::null());
    Server::spawn_in(group, &command)
}

/// The verdict on a volume.
fn verdict(snapshot: &Snapshot, mount: &Path) -> anyhow::Result<Verdict> {
    let name = mount.to_str().context("UTF-8")?;
    let row = snapshot.volumes.iter().find(|row| row.mount_point == name).context("no volume")?;
    row.verdict.clone().context("no verdict")
}

/// Shares make 1, and everything that the verdict names is consistent.
fn consistent(verdict: &Verdict) -> Result {
    let named: f64 = verdict.culprits.iter().map(|culprit| culprit.share).sum();
    if let Some(unexplained) = verdict.unexplained_share {
        let sum = named + verdict.others_share + unexplained;
        ensure!((sum - 1.0).abs() < 1e-6, "{verdict:?}");
    }
    ensure!(verdict.suggestion.is_some() == verdict.no_suggestion.is_none(), "{verdict:?}");
    Ok(())
}

/// A queue of empty files uses up the inodes; beside it a log grows, which is harmless.
#[test]
fn inodes_are_blamed_on_who_creates_and_not_on_who_writes() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 1024)?;
    std::fs::create_dir(volume.path().join("queue"))?;
    let (queue, log) = (Cgroup::new("verdict-queue")?, Cgroup::new("verdict-log")?);
    let watch = Watch::start("")?;
    thread::sleep(2 * SECOND);
    let _log = shell(
        &log,
        "exec > \"$1/access.log\"; while :; do printf '%300000s' l; sleep .1; done",
        volume.path(),
    )?;
    let creator = shell(
        &queue,
        "i=0; while :; do for n in {1..40}; do : > \"$1/queue/lock.$((i += 1))\"; done; sleep .1; done \
         2> /dev/null",
        volume.path(),
    )?;
    let mount = volume.path().to_str().map(str::to_owned);
    let (_, event) = watch.wait(60 * SECOND, |event| {
        event.volume == mount
            && event.event == EventKind::Firing
            && ["time-to-full", "full"].contains(&event.rule.as_str())
    })?;
    ensure!(event.summary.contains("inodes"), "{}", event.summary);
    let first = event.culprits.first().context("no culprit")?;
    ensure!(first.pid == creator.pid(), "{event:?}");
    ensure!(event.summary.contains("files/s"), "{}", event.summary);
    ensure!(event.directory.as_deref().is_some_and(|dir| dir.ends_with("/queue")), "{event:?}");
    let next = event.suggestion.context("no suggestion")?;
    ensure!(next.target == creator.pid().to_string(), "{next:?}");
    Ok(())
}

/// Mappings into tmpfs are traced by no hook; a small writer beside them is innocent.
#[test]
fn growth_that_is_not_seen_is_blamed_on_nobody() -> Result {
    need_tracing!();
    let tmpfs = TestVolume::new("tmpfs", 256)?;
    let dir = tmpfs.path();
    let filltop = Filltop::start(&[])?;
    let group = Cgroup::new("verdict-innocent")?;
    let innocent = shell(
        &group,
        "while :; do printf '%1000s' tick >> \"$1/heartbeat\"; sleep .05; done",
        dir,
    )?;
    let mapped = map_files(dir, 12)?;
    thread::sleep(SECOND);
    let measured = filltop.stop()?;
    let verdict = verdict(&measured.snapshot, dir)?;
    consistent(&verdict)?;
    let seen = measured
        .writers_of(std::process::id())
        .any(|row| Path::new(&row.volume) == dir && row.growth_bytes_per_s > 1e6);
    if seen {
        // This backend counts stores into tmpfs: then this process is the culprit.
        ensure!(verdict.culprits.first().is_some_and(|one| one.pids.contains(&std::process::id())));
    } else {
        ensure!(verdict.mostly_unexplained, "{verdict:?}");
        ensure!(verdict.suggestion.is_none(), "{verdict:?}");
        let share = measured.writers_of(innocent.pid()).map(|row| row.share).fold(0.0, f64::max);
        ensure!(share < 0.1, "the innocent writer has a share of {share}");
    }
    drop(mapped);
    Ok(())
}

/// A log daemon writes what another program logs: it is not frozen, and its log names the sender.
#[test]
fn a_log_daemon_writes_for_others() -> Result {
    need_tracing!();
    let Some(mut daemon) = rsyslogd() else {
        println!("SKIP a_log_daemon_writes_for_others: rsyslogd is not installed");
        return Ok(());
    };
    let volume = TestVolume::new("ext4", 300)?;
    let dir = tempfile::tempdir()?;
    let (socket, config) = (dir.path().join("log.sock"), dir.path().join("rsyslog.conf"));
    std::fs::write(
        &config,
        format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{}\" RateLimit.Interval=\"0\")\n\
             $WorkDirectory {}\n*.* action(type=\"omfile\" file=\"{}/syslog\")\n",
            socket.display(),
            dir.path().display(),
            volume.path().display()
        ),
    )?;
    daemon.arg("-n").arg("-f").arg(&config).arg("-i").arg(dir.path().join("pid"));
    let daemon = Server::spawn(&mut daemon)?;
    let client = UnixDatagram::unbound()?;
    wait_until("rsyslogd listens", 20 * SECOND, || Ok(client.connect(&socket).is_ok()))?;
    let watch = Watch::start("")?;
    thread::sleep(2 * SECOND);
    let line = format!("<30>gvfsd[77]: {}", "failed to do the thing, again ".repeat(20));
    let floods = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&floods);
    let flood = thread::spawn(move || {
        while goes_on.load(Ordering::Relaxed) {
            for _ in 0..200 {
                // rsyslogd ends when the test fails.
                let _ = client.send(line.as_bytes());
            }
            thread::sleep(SECOND / 20);
        }
    });
    let mount = volume.path().to_str().map(str::to_owned);
    let event =
        watch.wait(60 * SECOND, |event| event.volume == mount && event.rule == "time-to-full");
    floods.store(false, Ordering::Relaxed);
    flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?;
    let (_, event) = event?;
    let first = event.culprits.first().context("no culprit")?;
    ensure!(first.pid == daemon.pid() && first.comm == "rsyslogd", "{first:?}");
    ensure!(event.summary.contains("gvfsd"), "{}", event.summary);
    ensure!(event.suggestion.is_none(), "{:?}", event.suggestion);
    let plan =
        command(&["stop", &daemon.pid().to_string(), "--how", "freeze", "--dry-run"]).output()?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    ensure!(plan.contains("it is a log daemon"), "{plan}");
    Ok(())
}

/// rsyslogd as it was unpacked for the tests, or as it is installed; `None` if it is neither.
fn rsyslogd() -> Option<Command> {
    if let Some(tools) = std::env::var_os("FILLTOP_SYSLOG_TOOLS").map(std::path::PathBuf::from) {
        let libraries = tools.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(tools.join("usr/sbin/rsyslogd"));
        command.arg("-M").arg(libraries.join("rsyslog")).env("LD_LIBRARY_PATH", libraries);
        return Some(command);
    }
    Command::new("rsyslogd").arg("-v").output().is_ok().then(|| Command::new("rsyslogd"))
}

/// The kernel writes the file of a loop device on behalf of who writes to the filesystem on it.
#[test]
fn a_loop_device_writes_for_its_filesystem() -> Result {
    need_tracing!();
    let below = TestVolume::new("ext4", 600)?;
    let above = TestVolume::in_image(below.path(), "ext4", 400)?;
    let filltop = Filltop::start(&[])?;
    let group = Cgroup::new("verdict-loop")?;
    let writer = shell(
        &group,
        "exec > \"$1/file\"; for n in {1..40}; do printf '%4000000s' x; sync \"$1/file\"; sleep .1; done; sleep 60",
        above.path(),
    )?;
    thread::sleep(8 * SECOND);
    let measured = filltop.stop()?;
    let verdict = verdict(&measured.snapshot, below.path())?;
    consistent(&verdict)?;
    let name = above.path().to_str().context("UTF-8")?;
    let behind = verdict.culprits.iter().find_map(|culprit| culprit.on_behalf_of.as_ref());
    match behind {
        Some(behind) => {
            ensure!(behind.kind == BehalfKind::LoopDevice, "{verdict:?}");
            ensure!(behind.mount_point.as_deref() == Some(name), "{verdict:?}");
            ensure!(behind.processes.first().is_some_and(|one| one.pid == writer.pid()));
        }
        // With tracepoints, writes of the kernel are not seen: then nobody is blamed.
        None => ensure!(verdict.culprits.is_empty() || verdict.mostly_unexplained, "{verdict:?}"),
    }
    Ok(())
}

/// A volume that was full before has victims, and no culprit.
#[test]
fn nobody_is_blamed_for_what_happened_before() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 60)?;
    filltop_tests::fill(&volume.path().join("big"))?;
    let filltop = Filltop::start(&[])?;
    for _ in 0..20 {
        let _ = std::fs::write(volume.path().join("late"), [7; 100_000]);
        thread::sleep(SECOND / 20);
    }
    let measured = filltop.stop()?;
    let verdict = verdict(&measured.snapshot, volume.path())?;
    ensure!(verdict.state == State::Full && verdict.limit == LimitKind::Avail, "{verdict:?}");
    ensure!(verdict.culprits.is_empty(), "{verdict:?}");
    ensure!(verdict.victims.iter().any(|one| one.pid == std::process::id()), "{verdict:?}");
    ensure!(verdict.no_suggestion == Some(NoSuggestion::Unexplained), "{verdict:?}");
    Ok(())
}

/// Fills this many files of 8 MiB through mappings, without a descriptor. Returns the mappings.
fn map_files(dir: &Path, count: u32) -> anyhow::Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    for n in 0..count {
        mappings.push(Mapping::new(&dir.join(format!("tensor_{n}")), 8 << 20)?);
        thread::sleep(SECOND / 2);
    }
    Ok(mappings)
}

/// A shared mapping of a file of its own.
struct Mapping(*mut libc::c_void, usize);

impl Mapping {
    fn new(path: &Path, length: usize) -> anyhow::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.set_len(length as u64)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file that is as long.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        ensure!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        for page in (0..length).step_by(4096) {
            // SAFETY: within the mapping.
            unsafe { at.cast::<u8>().add(page).write_volatile(1) };
        }
        Ok(Self(at, length))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.0, self.1) };
    }
}
