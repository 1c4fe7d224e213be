//! Runs one runtime at a time, for all of its tests.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, thread};

use anyhow::Context as _;
use filltop_tests::{TestVolume, need_tracing};

use crate::measured::Measured;
use crate::runtime::{Kind, Runtime, Spec};
use crate::{Result, Unavailable};

/// Size of a volume: image layers, and what the containers write.
const VOLUME_MIB: u64 = 3_000;

/// Directory of bind mounts on a machine booted for the tests.
const BINDS: &str = "/var/lib/filltop-test";

/// Whether this is a Debian booted for the tests, with its own docker and podman.
pub fn is_ours() -> bool {
    env::var_os("FILLTOP_IN_VM").is_some() && Path::new("/run/systemd/system").exists()
}

/// A runtime with containers.
pub struct World {
    /// Dropped before the volume that it lives on.
    pub runtime: Box<dyn Runtime>,
    /// Where its volume is mounted.
    pub mount: PathBuf,
    /// The test's own volume; `None` for installed runtimes.
    _volume: Option<TestVolume>,
    containers: Vec<String>,
    measured: Option<std::result::Result<Measured, String>>,
}

/// The world of the running tests, or why it is not available.
struct Current {
    kind: Kind,
    world: std::result::Result<World, anyhow::Error>,
}

static CURRENT: Mutex<Option<Current>> = Mutex::new(None);

fn current() -> MutexGuard<'static, Option<Current>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops the last runtime: statics are not dropped when a program exits.
extern "C" fn end() {
    drop(current().take());
}

/// Runs a check on a runtime's world, which the first check creates.
pub fn with(kind: Kind, check: fn(&mut World) -> Result) -> Result {
    need_tracing!();
    let mut slot = current();
    if slot.as_ref().is_none_or(|current| current.kind != kind) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the function takes no arguments, and does not unwind.
        ONCE.call_once(|| unsafe {
            libc::atexit(end);
        });
        // The previous one has to be gone before the next one starts.
        drop(slot.take());
        *slot = Some(Current { kind, world: World::new(kind) });
    }
    let Some(current) = slot.as_mut() else { return Ok(()) };
    match &mut current.world {
        Ok(world) => check(world),
        Err(error) => {
            let Some(Unavailable(reason)) = error.downcast_ref() else {
                anyhow::bail!("{kind:?} does not start: {error:#}");
            };
            println!("SKIP {}: {reason}", thread::current().name().unwrap_or("?"));
            Ok(())
        }
    }
}

impl World {
    fn new(kind: Kind) -> Result<Self> {
        let (containers, measured) = (Vec::new(), None);
        if is_ours() {
            let (runtime, mount) = (kind.installed(Path::new(BINDS))?, PathBuf::from("/"));
            return Ok(Self { runtime, mount, _volume: None, containers, measured });
        }
        let volume = TestVolume::new("ext4", VOLUME_MIB)?;
        let runtime = kind.start(volume.path())?;
        let mount = volume.path().to_owned();
        Ok(Self { runtime, mount, _volume: Some(volume), containers, measured })
    }

    /// A container name that is unique on this machine.
    pub fn name(&self, of: &str) -> String {
        format!("{of}-{}", std::process::id())
    }

    /// Starts a container.
    pub fn run(&mut self, name: &str, script: &str, restart: bool) -> Result {
        self.containers.push(name.to_owned());
        self.runtime.run(&Spec { name, script, restart })
    }

    /// Ends a container.
    pub fn remove(&mut self, name: &str) -> Result {
        self.containers.retain(|other| other != name);
        self.runtime.remove(name)
    }

    /// What filltop measured of the containers, once for all checks.
    pub fn seen(&mut self) -> Result<Seen<'_>> {
        if self.measured.is_none() {
            let measured = Measured::take(self).map_err(|error| format!("{error:#}"));
            self.measured = Some(measured);
        }
        let measured = match &self.measured {
            Some(Ok(measured)) => measured,
            Some(Err(error)) => anyhow::bail!("nothing was measured: {error}"),
            None => anyhow::bail!("nothing was measured"),
        };
        let mount = self.mount.to_str().context("a test's path is UTF-8")?.to_owned();
        Ok(Seen { runtime: self.runtime.as_ref(), measured, mount })
    }
}

/// A runtime and what was measured of it.
pub struct Seen<'w> {
    pub runtime: &'w dyn Runtime,
    pub measured: &'w Measured,
    /// Where its volume is mounted.
    pub mount: String,
}

impl Drop for World {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.containers) {
            if let Err(error) = self.runtime.remove(&name) {
                eprintln!("{name}: {error:#}");
            }
        }
    }
}
