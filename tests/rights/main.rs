//! The capabilities that the unit, the manifest and the image give: enough for everything, and none
//! too many.

mod blind;
mod helper;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::rights::{
    STRICT, UNIT, capability, keep_only, unit_capabilities, with_capabilities,
};
use filltop_tests::{Public, TestVolume, filltop, need_tracing, public_workload};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use tracer_model::snapshot::{HookState, Snapshot};

type Result = anyhow::Result<()>;

/// A unit name that this test uses only once.
fn new_unit() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("filltop-rights-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Arguments that force the backend, if one was requested.
fn backend() -> Vec<String> {
    let asked = env::var("FILLTOP_BACKEND").ok();
    asked.map_or_else(Vec::new, |backend| vec!["--backend".to_owned(), backend])
}

/// `filltop snapshot` as root with these capabilities alone.
fn snapshot_with(kept: &[u32]) -> anyhow::Result<Output> {
    let (unit, backend) = (new_unit(), backend());
    let mut arguments = vec!["snapshot", "--json", "--for", "300ms", "--standalone"];
    arguments.extend(backend.iter().map(String::as_str));
    Ok(with_capabilities(&unit, kept, &arguments).output()?)
}

/// A child that is ended, by its pid, on drop.
struct Running {
    child: Child,
    /// The process under test: not the child itself where systemd starts it.
    pid: u32,
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self { pid: child.id(), child }
    }
}

/// Another user's process, which holds a deleted file. The kernel's iterator finds its descriptor
/// whatever the capabilities are; the file's name is read from /proc.
struct Holder {
    child: Running,
    file: PathBuf,
    _program: Public,
}

impl Holder {
    fn start(volume: &TestVolume) -> anyhow::Result<Self> {
        std::fs::set_permissions(volume.path(), std::fs::Permissions::from_mode(0o777))?;
        for folder in volume.path().ancestors().skip(1).take(1) {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        let program = public_workload()?;
        let file = volume.path().join("ghost");
        let child = Command::new(program.path())
            .args(["write", "--unlink", "--hold", "--bytes", "3000000"])
            .arg(&file)
            .uid(65534)
            .gid(65534)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut child = Running::from(child);
        // It prints the truth when it has written everything.
        let mut line = String::new();
        let stdout = child.child.stdout.take().context("stdout is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the holder has ended");
        Ok(Self { child, file, _program: program })
    }

    /// Whether there is a row with its pid and the file's name.
    fn is_in(&self, snapshot: &Snapshot) -> bool {
        let rows = snapshot.held.iter().filter(|row| row.pid == self.child.pid);
        rows.map(|row| Path::new(&row.path)).any(|path| path == self.file)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pid == self.child.id() {
            let _ = self.child.kill();
        } else if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn read(output: &Output) -> anyhow::Result<Snapshot> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The hooks of a Snapshot, each with its state.
fn hooks(snapshot: &Snapshot) -> anyhow::Result<BTreeSet<String>> {
    Ok(snapshot
        .backend
        .hooks
        .iter()
        .map(serde_json::to_string)
        .collect::<std::result::Result<_, _>>()?)
}

fn paranoid() -> i32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// What root sees, and what is seen with these capabilities; both must see another user's deleted
/// file.
fn root_and(kept: &[u32]) -> anyhow::Result<(Snapshot, Snapshot)> {
    let volume = TestVolume::new("ext4", 64)?;
    let holder = Holder::start(&volume)?;
    let everything: Vec<u32> = (0..=capability::LAST).collect();
    let root = read(&snapshot_with(&everything)?)?;
    let with_these = read(&snapshot_with(kept)?)?;
    ensure!(holder.is_in(&root), "the holder has no row with the name: {:?}", root.held);
    ensure!(holder.is_in(&with_these), "another user's file has no name: {:?}", with_these.held);
    let mount = volume.path().to_string_lossy();
    let is_there = with_these.volumes.iter().any(|row| row.mount_point == mount);
    ensure!(is_there, "the volume has no row");
    Ok((root, with_these))
}

#[test]
fn the_units_capabilities_see_as_much_as_all() -> Result {
    need_tracing!();
    let kept: Vec<u32> = unit_capabilities()?.into_iter().map(|(_, number)| number).collect();
    let (root, unit) = root_and(&kept)?;
    let (all, ours) = (hooks(&root)?, hooks(&unit)?);
    let missing: Vec<_> = all.symmetric_difference(&ours).collect();
    ensure!(missing.is_empty(), "the hooks differ: {missing:#?}");
    println!("{} by {}", unit.backend.hooks.len(), unit.backend.write.name());
    Ok(())
}

/// The drop-in of docs/service.md: what is missing with it is reported, together with the remedy.
#[test]
fn without_cap_sys_admin_only_modules_and_kprobes_are_missing() -> Result {
    need_tracing!();
    if paranoid() >= 3 && env::var("FILLTOP_BACKEND").is_ok_and(|backend| backend == "kprobe") {
        println!(
            "SKIP without_cap_sys_admin_only_modules_and_kprobes_are_missing: \
             kernel.perf_event_paranoid leaves kprobes to CAP_SYS_ADMIN here"
        );
        return Ok(());
    }
    let (root, unit) = root_and(STRICT)?;
    let (all, ours) = (hooks(&root)?, hooks(&unit)?);
    // There Debian reserves perf events, and with them kprobes and the filesystems' own
    // tracepoints, to CAP_SYS_ADMIN, and the rows name it.
    let refused = paranoid() >= 3 && ours.iter().any(|row| row.contains("perf_event_paranoid"));
    if refused {
        println!("no kprobes without CAP_SYS_ADMIN: kernel.perf_event_paranoid is {}", paranoid());
    }
    let by_event =
        |row: &str| row.contains("\"tracepoint\"") && row.contains("perf_event_paranoid");
    let by_perf =
        |row: &str| row.contains("kretprobe") || row.contains("\"kprobe\"") || by_event(row);
    // So does every kernel with BTF of modules.
    let in_modules: Vec<&str> = unit
        .backend
        .hooks
        .iter()
        .filter(|hook| match &hook.state {
            HookState::Unsupported { reason } | HookState::Broken { reason } => {
                reason.contains("modules requires CAP_SYS_ADMIN")
            }
            _ => false,
        })
        .map(|hook| hook.name.as_str())
        .collect();
    println!("only with CAP_SYS_ADMIN: {in_modules:?}");
    // Other functions of a filesystem are hooked only where its write_iter is.
    let filesystems = in_modules.iter().filter_map(|name| name.strip_suffix("file_write_iter"));
    let filesystems: Vec<&str> = filesystems.collect();
    let of_module =
        |row: &str| filesystems.iter().any(|fs| row.contains(&format!("\"name\":\"{fs}")));
    // Writes are then counted at vfs_write, or at the return of system calls and of io_uring where
    // only tmpfs has its own functions hooked, and those to overlays are followed; on ext4 from 6.6
    // on with its tracepoints, two of which belong to iomap.
    let instead = |row: &str| {
        !filesystems.is_empty()
            && [
                "vfs_write",
                "do_iter_readv_writev",
                "overlay",
                "iomap_dio_rw_begin",
                "iomap_dio_complete",
                "sys_exit",
                "io_uring_complete",
            ]
            .iter()
            .any(|name| row.contains(&format!("\"name\":\"{name}\"")))
    };
    let differ = all.symmetric_difference(&ours).filter(|row| !of_module(row) && !instead(row));
    let missing: Vec<_> = differ.filter(|row| !refused || !by_perf(row)).collect();
    ensure!(missing.is_empty(), "the hooks differ: {missing:#?}");
    for row in &ours {
        ensure!(!row.contains("restart filltop"), "a restart does not help: {row}");
        ensure!(!row.contains("set it to"), "a setting does not help: {row}");
    }
    Ok(())
}

/// The lines of the unit's filter that come after those that remove groups of system calls.
#[test]
fn the_units_filter_allows_the_system_calls_outside_of_system_service() -> Result {
    let filters: Vec<&str> =
        UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    let last_taken = filters.iter().rposition(|line| line.starts_with('~'));
    let after: Vec<&str> = filters[last_taken.map_or(0, |at| at + 1)..]
        .iter()
        .flat_map(|line| line.split(' '))
        .collect();
    // They are in @privileged, @debug or @sandbox, and not in @system-service.
    for call in ["bpf", "perf_event_open", "open_by_handle_at", "quotactl_fd", "seccomp"] {
        ensure!(after.contains(&call), "{call} is not among {after:?}");
    }
    Ok(())
}

/// What keeps filltop alive when memory is short; run as root, which may do all of it.
#[test]
fn it_is_hard_to_kill() -> Result {
    need_tracing!();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let has = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("CapEff")?;
    // CAP_SYS_RESOURCE
    if u64::from_str_radix(has.trim(), 16)? >> 24 & 1 == 0 {
        println!("SKIP it_is_hard_to_kill: this root may not raise limits");
        return Ok(());
    }
    let mut command = Command::new(filltop());
    command.args(["watch", "--no-socket", "--interval", "500ms"]).stdout(Stdio::null());
    command.args(backend());
    let watch = Running::from(command.spawn()?);
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", watch.pid));
    let start = Instant::now();
    let locked = loop {
        let status = file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).context("VmLck")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        if kib > 1024 {
            break kib;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "only {kib} KiB are locked");
        thread::sleep(Duration::from_millis(100));
    };
    println!("{locked} KiB are locked");
    ensure!(file("oom_score_adj")?.trim() == "-900", "{}", file("oom_score_adj")?);
    Ok(())
}

/// Capabilities do not help in this case, and are not suggested.
#[test]
fn a_low_limit_of_locked_memory_is_named() -> Result {
    need_tracing!();
    if helper::is_known_here() {
        println!(
            "SKIP a_low_limit_of_locked_memory_is_named: maps do not count as locked memory since 5.11"
        );
        return Ok(());
    }
    let kept: Vec<u32> = unit_capabilities()?.into_iter().map(|(_, number)| number).collect();
    let mut command = Command::new(filltop());
    command.args(["snapshot", "--for", "300ms", "--standalone"]).args(backend());
    keep_only(&mut command, &kept);
    // SAFETY: setrlimit is a system call that may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let low = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
            Ok(setrlimit(Resource::Memlock, low)?)
        });
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{:?}: {said}", output.status);
    ensure!(said.contains("only 64 KiB") && said.contains("LimitMEMLOCK"), "{said}");
    ensure!(!said.contains("CAP_BPF"), "{said}");
    Ok(())
}

#[test]
fn each_capability_is_needed() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let holder = Holder::start(&volume)?;
    // With CAP_SYS_ADMIN the kernel requires neither CAP_BPF nor CAP_PERFMON. What CAP_SYS_ADMIN
    // and CAP_SETPCAP are needed for is tested in `helper` and in the other tests.
    let caps: Vec<_> =
        unit_capabilities()?.into_iter().filter(|(_, number)| STRICT.contains(number)).collect();
    ensure!(caps.len() == STRICT.len(), "{caps:?}");
    for (name, number) in &caps {
        let kept: Vec<u32> = caps.iter().map(|cap| cap.1).filter(|one| one != number).collect();
        let output = snapshot_with(&kept)?;
        if output.status.success() {
            ensure!(!holder.is_in(&read(&output)?), "{name} is not needed");
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(said.contains(name), "without {name}: {said}");
        }
    }
    Ok(())
}
