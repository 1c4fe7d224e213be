//! One interval measured over all containers of a runtime, with the ground truth.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use filltop_tests::Filltop;
use tracer_model::snapshot::Snapshot;

use crate::Result;
use crate::world::World;

/// What the container `web` writes, in bytes.
pub const ROOT: u64 = 30_000_000;
pub const BIND: u64 = 20_000_000;
pub const NAMED: u64 = 10_000_000;
pub const SHM: u64 = 5_000_000;
pub const HELD: u64 = 12_000_000;
/// What the other containers write, in bytes per second.
pub const PACE: u64 = 4_000_000;
pub const PRINTED: u64 = 12 << 20;

/// How long a container may take to write its files on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the paced writers run.
const WINDOW: Duration = Duration::from_secs(4);

/// The full name of the container for each purpose.
pub struct Names {
    /// Writes known amounts, and holds a deleted file.
    pub web: String,
    /// Prints to its output.
    pub chatty: String,
    /// Appends to a file at a fixed rate. It continues after the interval.
    pub filler: String,
}

impl Names {
    pub fn of(world: &World) -> Self {
        let name = |of| world.name(of);
        Self { web: name("web"), chatty: name("chatty"), filler: name("filler") }
    }
}

/// What filltop measured, and the ground truth.
pub struct Measured {
    pub snapshot: Snapshot,
    /// The JSON as printed, with fields that the model does not know.
    pub json: serde_json::Value,
    pub names: Names,
    /// Where the files of `web`'s root lie on the host.
    pub root: PathBuf,
    /// Its named volume.
    pub named: Option<PathBuf>,
    /// Bytes that it wrote to its standard output.
    pub said: u64,
    /// Blocks of the files that it wrote in its root, its bind mount and its named volume, from
    /// stat, in bytes.
    pub blocks: u64,
    /// Blocks of the deleted file, in bytes.
    pub held_blocks: u64,
    /// The file that `filler` writes: it did not exist when the interval began.
    pub filled: PathBuf,
    /// Lower and upper bound of its size at the end of the interval.
    pub filled_bytes: (u64, u64),
    pub filled_for: Duration,
    /// The log of `chatty`, with a lower and an upper bound of its size at the end of the interval.
    pub log: Option<(PathBuf, (u64, u64))>,
}

impl Measured {
    pub fn take(world: &mut World) -> Result<Self> {
        let filltop = Filltop::start(&[])?;
        let names = Names::of(world);
        world.run(&names.web, &web(), false)?;
        let started = Instant::now();
        world.run(
            &names.filler,
            &format!("exec workload pace /fill --rate {PACE} --block 40000"),
            false,
        )?;
        world.run(&names.chatty, &format!("exec workload print --rate {PRINTED}"), false)?;
        let bind = world.runtime.home().bind(&names.web);
        wait_for(&bind.join("done")).with_context(|| format!("{} does not write", names.web))?;
        thread::sleep(WINDOW.saturating_sub(started.elapsed()));
        rustix::fs::syncfs(File::open(&world.mount)?)?;

        let runtime = &world.runtime;
        let web = runtime.pid(&names.web)?;
        let (root, named) = (runtime.root(&names.web)?, runtime.volume(&names.web)?);
        let filled = runtime.root(&names.filler)?.join("fill");
        let log = runtime.log(&names.chatty)?;
        let held_blocks = held_blocks(web)?;
        let mut files = vec![root.join("data"), bind.join("bind")];
        files.extend(named.iter().map(|named| named.join("named")));
        let blocks = files.iter().map(|file| Ok(fs::metadata(file)?.blocks() * 512));
        let blocks = blocks.sum::<Result<u64>>()?;
        let sizes = || -> Result<_> {
            let log = log.as_ref().map(|log| size(log)).transpose()?;
            Ok((size(&filled)?, log))
        };
        let before = sizes()?;
        let filled_for = started.elapsed();
        let (json, _) = filltop.stop_as_printed()?;
        let after = sizes()?;
        let said = size(&bind.join("said"))?;
        world.remove(&names.chatty)?;
        Ok(Self {
            json: serde_json::from_str(&json)?,
            snapshot: serde_json::from_str(&json)?,
            names,
            root,
            named,
            said,
            blocks,
            held_blocks,
            filled,
            filled_bytes: (before.0, after.0),
            filled_for,
            log: log.zip(before.1.zip(after.1)),
        })
    }

    /// All bytes that `web` wrote on its volume.
    pub fn total(&self) -> u64 {
        let named = if self.named.is_some() { NAMED } else { 0 };
        ROOT + BIND + HELD + named + self.said
    }
}

/// Writes known amounts to each place, and keeps a deleted file open. A directory signals that
/// everything is written, because making one writes nothing.
fn web() -> String {
    format!(
        "workload write /data --bytes {ROOT} > /dev/null\n\
         workload write /bind/bind --bytes {BIND} > /dev/null\n\
         if [ -d /volume ]; then workload write /volume/named --bytes {NAMED} > /dev/null; fi\n\
         workload write /dev/shm/shm --bytes {SHM} > /dev/null\n\
         sleep 1000 | workload write /held --bytes {HELD} --unlink --hold > /bind/said &\n\
         until [ -s /bind/said ]; do sleep 0.05; done\n\
         mkdir /bind/done\n\
         exec sleep 1000"
    )
}

fn wait_for(path: &Path) -> Result {
    let start = Instant::now();
    while !path.exists() {
        ensure!(start.elapsed() < PATIENCE, "{} does not appear", path.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len())
}

/// Blocks of the deleted file that a process of a container holds, from fstat through /proc, in
/// bytes.
fn held_blocks(of_container: u32) -> Result<u64> {
    let namespace = |pid: &OsStr| fs::read_link(Path::new("/proc").join(pid).join("ns/mnt"));
    let ours = namespace(OsStr::new(&of_container.to_string()))?;
    for entry in fs::read_dir("/proc")?.flatten() {
        if namespace(&entry.file_name()).is_ok_and(|other| other == ours) {
            for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten()
            {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                if target.as_os_str() == "/held (deleted)" {
                    return Ok(fs::metadata(descriptor.path())?.blocks() * 512);
                }
            }
        }
    }
    bail!("no process of the container holds /held")
}
