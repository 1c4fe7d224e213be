//! A filesystem whose module is loaded when filltop runs already.

use std::{
    ffi::CString,
    fs::{self, File},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use filltop_tests::{Filltop, TestVolume, need_tracing, run_workload, workload};
use tracer_model::snapshot::{HookState, WriteBackend};

use crate::Result;

/// Where machines of `cargo xtask vm` keep their modules: `NUMBER-NAME.ko`, in the order in which they load.
const MODULES: &str = "/modules";

fn module_file(name: &str) -> Option<PathBuf> {
    let files = fs::read_dir(MODULES).ok()?.flatten().map(|entry| entry.path());
    let end = format!("-{name}.ko");
    files.into_iter().find(|file| file.to_str().is_some_and(|path| path.ends_with(&end)))
}

#[test]
fn a_module_that_comes_later_is_traced() -> Result {
    need_tracing!();
    let Some(file) = module_file("xfs") else {
        println!("SKIP a_module_that_comes_later_is_traced: no xfs module to load here");
        return Ok(());
    };
    // Another test's loop device or log may be about to let go of it.
    let began = Instant::now();
    while let Err(error) = rustix::system::delete_module(c"xfs", 0) {
        ensure!(began.elapsed() < Duration::from_secs(10), "xfs cannot be unloaded: {error}");
        thread::sleep(Duration::from_millis(200));
    }
    let filltop = Filltop::start(&[])?;
    rustix::system::finit_module(File::open(file)?, &CString::default(), 0)?;
    let volume = TestVolume::new("xfs", 320)?;
    // It asks ten times a second whether something was mounted; to read the types takes an emulated machine
    // some seconds.
    thread::sleep(Duration::from_secs(6));
    let path = volume.path().join("later");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "7654321"]))?;
    let measured = filltop.stop()?;
    let backend = &measured.snapshot.backend;
    let mut hooks = backend.hooks.iter().filter(|hook| hook.name == "xfs_file_write_iter");
    // What its own functions take was given up after the start, by Debian's settings for kprobes, too.
    let told = hooks.any(|hook| match &hook.state {
        HookState::Broken { reason } => reason.ends_with("restart filltop"),
        _ => false,
    });
    ensure!(told || backend.write == WriteBackend::Tracepoint, "{:?}", backend.hooks);
    if backend.write == WriteBackend::Kprobe {
        // Forced: vfs_write is refused as well.
        return Ok(());
    }
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == truth.total() && row.writers == [truth.pid], "{row:?}");
    Ok(())
}
