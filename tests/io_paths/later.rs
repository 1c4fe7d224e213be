//! A filesystem whose module is loaded, or that is mounted, when filltop is already running and has
//! dropped its privileges; and what is seen where it never had them.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::rights::{STRICT, keep_only, types_helpers};
use filltop_tests::{
    Filltop, Measured, Overlay, TestVolume, Truth, need_tracing, run_workload, workload,
};
use rustix::process::{Pid, Signal, kill_process};
use tracer_model::snapshot::{HookState, WriteBackend};

use crate::{Result, expected};

/// Where machines of `cargo xtask vm` keep their modules: `NUMBER-NAME.ko`, in load order.
const MODULES: &str = "/modules";
const BYTES: &str = "7654321";

fn module_file(name: &str) -> Option<PathBuf> {
    let files = fs::read_dir(MODULES).ok()?.flatten().map(|entry| entry.path());
    let end = format!("-{name}.ko");
    files.into_iter().find(|file| file.to_str().is_some_and(|path| path.ends_with(&end)))
}

/// The module file of xfs, with the module not loaded; `None` if there is none.
fn unloaded() -> anyhow::Result<Option<PathBuf>> {
    let Some(file) = module_file("xfs") else { return Ok(None) };
    // Another test's loop device or log may not have released it yet.
    let began = Instant::now();
    while let Err(error) = rustix::system::delete_module(c"xfs", 0) {
        if error == rustix::io::Errno::NOENT {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(10), "xfs cannot be unloaded: {error}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(Some(file))
}

fn load(file: &Path) -> Result {
    Ok(rustix::system::finit_module(File::open(file)?, &CString::default(), 0)?)
}

/// Kills filltop's helper process, which could get BTF of more modules.
fn kill_helpers() -> Result {
    for pid in types_helpers() {
        let pid = Pid::from_raw(pid.cast_signed()).context("a pid is not 0")?;
        kill_process(pid, Signal::KILL)?;
    }
    Ok(())
}

/// Whether fentry/fexit hooks (trampolines) are expected for the filesystem that comes later.
fn by_trampolines() -> bool {
    let forced = env::var("FILLTOP_BACKEND").ok();
    forced.is_none_or(|backend| backend == "fentry")
}

/// Mounts an xfs and writes a file there.
fn write_later() -> anyhow::Result<(TestVolume, PathBuf, Truth)> {
    let volume = TestVolume::new("xfs", 320)?;
    // filltop checks for new mounts ten times a second; an emulated machine takes some seconds to
    // read the BTF.
    thread::sleep(Duration::from_secs(10));
    let path = volume.path().join("later");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", BYTES]))?;
    Ok((volume, path, truth))
}

/// Why xfs is not counted at its own functions; `None` if it is.
fn reason(measured: &Measured) -> Option<String> {
    let backend = &measured.snapshot.backend;
    let mut hooks = backend.hooks.iter().filter(|hook| hook.name == "xfs_file_write_iter");
    hooks.find_map(|hook| match &hook.state {
        HookState::Broken { reason } => Some(reason.clone()),
        _ => None,
    })
}

/// Exact to the byte, space included, at its own functions.
fn is_exact(measured: &Measured, path: &Path, truth: &Truth) -> Result {
    ensure!(reason(measured).is_none(), "{:?}", measured.snapshot.backend.hooks);
    let row = measured.path(path)?;
    let allocated = fs::metadata(path)
        .map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
        .unwrap_or_default();
    ensure!(row.written_bytes == truth.total() && row.writers == [truth.pid], "{row:?}");
    // xfs has freed its preallocated space when the file was closed.
    ensure!(
        row.allocated_bytes.zip(row.freed_bytes).is_some_and(|(a, f)| a - f == allocated),
        "{row:?}, {allocated}"
    );
    ensure!(!row.approximate, "{row:?}");
    Ok(())
}

#[test]
fn a_module_loaded_after_the_start_is_traced() -> Result {
    need_tracing!();
    let Some(file) = unloaded()? else {
        println!(
            "SKIP a_module_loaded_after_the_start_is_traced: there is no xfs module to load here"
        );
        return Ok(());
    };
    let filltop = Filltop::start(&[])?;
    load(&file)?;
    let (_volume, path, truth) = write_later()?;
    let measured = filltop.stop()?;
    let backend = &measured.snapshot.backend;
    if by_trampolines() && expected::version(&backend.kernel) >= (5, 11) {
        return is_exact(&measured, &path, &truth);
    }
    // Debian's settings reserve kprobes to a capability that was dropped after startup.
    let told = reason(&measured).is_some_and(|reason| reason.ends_with("restart filltop"));
    ensure!(told || backend.write == WriteBackend::Tracepoint, "{:?}", backend.hooks);
    if backend.write == WriteBackend::Kprobe {
        // Forced backend: vfs_write is refused as well.
        return Ok(());
    }
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == truth.total() && row.writers == [truth.pid], "{row:?}");
    Ok(())
}

#[test]
fn a_volume_mounted_after_the_start_is_traced_without_the_helper() -> Result {
    need_tracing!();
    let is_loaded = Path::new("/sys/kernel/btf/xfs").exists();
    let file = if is_loaded { None } else { module_file("xfs") };
    if !by_trampolines() || !(is_loaded || file.is_some()) {
        println!(
            "SKIP a_volume_mounted_after_the_start_is_traced_without_the_helper: xfs is not a module here, or not traced with \
             trampolines"
        );
        return Ok(());
    }
    if let Some(file) = file {
        load(&file)?;
    }
    let filltop = Filltop::start(&[])?;
    // So that nothing can replace it.
    kill_helpers()?;
    let (_volume, path, truth) = write_later()?;
    is_exact(&filltop.stop()?, &path, &truth)
}

#[test]
fn a_module_loaded_after_the_helper_has_ended_is_reported() -> Result {
    need_tracing!();
    let file = if by_trampolines() { unloaded()? } else { None };
    let Some(file) = file.filter(|_| Path::new("/sys/kernel/btf").join("overlay").exists()) else {
        println!(
            "SKIP a_module_loaded_after_the_helper_has_ended_is_reported: there is no xfs module to load here, or no \
             trampolines in modules"
        );
        return Ok(());
    };
    let filltop = Filltop::start(&[])?;
    kill_helpers()?;
    load(&file)?;
    let (_volume, path, truth) = write_later()?;
    let measured = filltop.stop()?;
    let reason = reason(&measured).context("xfs should not be traced")?;
    ensure!(
        reason.contains("the helper process that kept it is not running")
            && reason.ends_with("restart filltop"),
        "{reason}"
    );
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == truth.total() && row.writers == [truth.pid], "{row:?}");
    Ok(())
}

/// A container's writes to its root, where filltop never had CAP_SYS_ADMIN: counted at vfs_write
/// where the filesystem is a module, for the upper file.
fn strict_on_an_overlay(fs: &str) -> Result {
    need_tracing!();
    if env::var("FILLTOP_BACKEND").is_ok_and(|backend| backend == "kprobe") {
        println!("SKIP strict_on_an_overlay_{fs}: kprobes may need CAP_SYS_ADMIN");
        return Ok(());
    }
    let volume = TestVolume::new(fs, 390)?;
    let overlay = Overlay::new(volume.path())?;
    let filltop = Filltop::start_with(&[], |command| keep_only(command, STRICT))?;
    let named = overlay.merged().join("by_container");
    let truth = run_workload(workload().arg("write").arg(&named).args(["--bytes", BYTES]))?;
    // A file next to it, not written through the overlay.
    let beside = volume.path().join("by_host");
    let truth_beside =
        run_workload(workload().arg("write").arg(&beside).args(["--bytes", "54321"]))?;
    let ways = overlay.merged().join("ways");
    fs::create_dir(&ways)?;
    let only = "writev,pwrite,append,splice,sendfile";
    let output = workload().arg("ways").arg(&ways).args(["--only", only]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let truths: Vec<crate::compare::WayTruth> = serde_json::from_slice(&output.stdout)?;
    // Where space is sampled, the interval is one second.
    thread::sleep(Duration::from_secs(3));
    let measured = filltop.stop()?;
    for hook in &measured.snapshot.backend.hooks {
        if let HookState::Unsupported { reason } | HookState::Broken { reason } = &hook.state {
            println!("HOOK {} {}: {reason}", hook.name, hook.how);
            ensure!(!reason.contains("restart filltop"), "a restart does not help: {reason}");
        }
    }
    let row = measured.path(&overlay.upper().join("by_container"))?;
    ensure!(row.written_bytes == truth.total() && row.writers == [truth.pid], "{row:?}");
    let grown = row.allocated_bytes.unwrap_or(0).abs_diff(truth.total());
    ensure!(grown <= 64 << 10, "{row:?}");
    let row = measured.path(&beside)?;
    ensure!(
        row.written_bytes == truth_beside.total() && row.writers == [truth_beside.pid],
        "{row:?}"
    );
    // Since about 6.2, only a system call's own writes are seen at vfs_write.
    let above = measured
        .snapshot
        .backend
        .hooks
        .iter()
        .any(|hook| hook.name == "vfs_write" && matches!(hook.state, HookState::Ok));
    for way in &truths {
        let name = way.path.strip_prefix(overlay.merged())?;
        let path = overlay.upper().join(name);
        let path = path.to_str().context("a test's path is UTF-8")?;
        let rows = measured.snapshot.paths.iter().filter(|row| row.path == path);
        let written: u64 = rows.map(|row| row.written_bytes).sum();
        println!("STRICT {fs} {} {written}/{}", way.name, way.written);
        let may_be_missed = above && matches!(way.name.as_str(), "splice" | "sendfile");
        ensure!(
            written == way.written || (may_be_missed && written == 0),
            "{}: {written}, not {}",
            way.name,
            way.written
        );
    }
    Ok(())
}

#[test]
fn later_strict_on_an_overlay_on_ext4() -> Result {
    strict_on_an_overlay("ext4")
}

#[test]
fn later_strict_on_an_overlay_on_xfs() -> Result {
    strict_on_an_overlay("xfs")
}
