//! The fence's own eBPF object. It is not part of tracing and is loaded only by the process that
//! owns a fence. The fence is in effect while its descriptors are open: however that process ends,
//! the kernel removes the fence.

use std::os::fd::AsFd as _;
use std::{fs, io};

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::{Lsm, RawTracePoint};
use aya::{Ebpf, EbpfLoader};
use tracer_common::FenceConfig;
use tracer_common::offsets::Offsets;

use super::attach::error::{error_chain, kernel_message};
use super::btf::cache::KernelTypes;
use super::btf::{inode_layout, relocate};
use super::kernel_config::kernel_config;
use super::{preflight, sys};

/// The object as compiled by `cargo xtask build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FILLTOP_FENCE_OBJECT_PATH"));

/// LSM hooks; their programs are named `fence_HOOK`.
const HOOKS: [&str; 8] = [
    "file_permission",
    "file_open",
    "inode_create",
    "inode_mkdir",
    "inode_symlink",
    "inode_mknod",
    "mmap_file",
    "file_mprotect",
];

/// (program, tracepoint). The first ends the fence as soon as its owner process exits. The others
/// fence child processes before they run, and forget processes that are gone.
const LIFECYCLE: [(&str, &str); 3] = [
    ("fence_owner_exit", "sched_process_exit"),
    (FORK, "sched_process_fork"),
    ("fence_free", "sched_process_free"),
];

/// Where the kernel lists its active security modules.
const ACTIVE_MODULES: &str = "/sys/kernel/security/lsm";

/// Processes that a fence blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceScope {
    /// A cgroup v2 with everything below it.
    Cgroup {
        /// Id of the cgroup: the inode number of its directory.
        id: u64,
        /// Depth of the cgroup below the root, starting at 1.
        level: u32,
    },
    /// Processes added with [`Fence::add`], with everything they fork.
    Processes,
}

/// A loaded fence, owned by this process. Dropping it removes the fence.
pub struct Fence {
    ebpf: Ebpf,
    scope: FenceScope,
}

/// The program that fences the children of fenced processes.
const FORK: &str = "fence_fork";

/// Counts of what a fence did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FenceCounts {
    /// Calls that failed because of the fence.
    pub refused: u64,
    /// Processes forked by a fenced one that are not fenced, because the map was full or the kernel
    /// skipped the program that adds them.
    pub escaped: u64,
}

/// A device number that no volume has.
const NO_VOLUME: u32 = 0;

/// Checks whether a fence can work here, as far as that is known without loading anything.
///
/// # Errors
/// The reason why not.
pub fn check(in_container: bool) -> Result<(), String> {
    preflight::check(in_container).map_err(|error| error.to_string())?;
    match active_modules() {
        Some(modules) if modules.iter().any(|module| module == "bpf") => Ok(()),
        Some(modules) => Err(format!(
            "bpf is not among the kernel's active security modules ({}); boot with lsm={},bpf",
            modules.join(","),
            modules.join(",")
        )),
        None => Err(format!(
            "cannot read {ACTIVE_MODULES}, so it is unknown whether BPF programs may deny calls; run \
             `mount -t securityfs none /sys/kernel/security`"
        )),
    }
}

/// Returns the kernel's active security modules, from securityfs or with lsm_list_modules(2) (6.8).
fn active_modules() -> Option<Vec<String>> {
    match fs::read_to_string(ACTIVE_MODULES) {
        Ok(text) => Some(text.trim().split(',').map(str::to_owned).collect()),
        Err(_) => sys::security_modules().ok(),
    }
}

/// Checks whether a fence works here by loading one that blocks no process, and by attaching it if
/// `attach` is set (which takes longer).
///
/// # Errors
/// The reason why not.
pub fn probe(attach: bool, in_container: bool) -> Result<(), String> {
    let attempt = || {
        let mut fence = Fence::load(NO_VOLUME, FenceScope::Processes, in_container)?;
        if attach { fence.attach() } else { Ok(()) }
    };
    attempt().map_err(|error: anyhow::Error| format!("{error:#}"))
}

impl Fence {
    /// Loads the programs that block writes to a volume (`s_dev`, major << 20 | minor); nothing is
    /// denied yet.
    ///
    /// # Errors
    /// What this kernel lacks, or its error message.
    pub fn load(dev: u32, scope: FenceScope, in_container: bool) -> anyhow::Result<Self> {
        check(in_container).map_err(anyhow::Error::msg)?;
        sys::lift_memlock_limit();
        let types = KernelTypes::read()?;
        let offsets = types.kernel.offsets();
        let needed = [offsets.file_inode, offsets.file_flags, offsets.inode_sb, offsets.sb_dev];
        if needed.contains(&Offsets::ABSENT) {
            return Err(anyhow!("this kernel's type information lacks fields that a fence needs"));
        }
        let (cgroup, level) = match scope {
            FenceScope::Cgroup { id, level } => (id, level),
            FenceScope::Processes => (0, 0),
        };
        let fence = FenceConfig { cgroup, level, dev, owner: std::process::id(), pad: 0 };
        let config = kernel_config(&types, 1);
        let object = relocate::relocate(OBJECT, &offsets, &config)?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types.bpf))
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .override_global("FENCE", bytemuck::bytes_of(&fence), true)
            .load(&object)
            .map_err(|error| {
                anyhow!("cannot load the fence with bpf(2): {}", error_chain(&error))
            })?;
        inode_layout::install(&mut ebpf, &types);
        for hook in HOOKS {
            let program: &mut Lsm = program(&mut ebpf, &format!("fence_{hook}"))?;
            program.load(hook, &types.bpf).map_err(|error| {
                anyhow!("cannot load the program for {hook}: {}", kernel_message(&error))
            })?;
        }
        for (name, point) in lifecycle(scope) {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            program
                .load()
                .map_err(|error| anyhow!("tracepoint {point}: {}", kernel_message(&error)))?;
        }
        Ok(Self { ebpf, scope })
    }

    /// Returns the number of programs that [`Fence::attach`] attaches.
    #[must_use]
    pub fn programs(&self) -> usize {
        HOOKS.len() + lifecycle(self.scope).len()
    }

    /// Puts the fence into effect.
    ///
    /// # Errors
    /// The kernel's error message; what was attached until then is detached when `self` is dropped.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        for (name, point) in lifecycle(self.scope) {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            program
                .attach(point)
                .map_err(|error| anyhow!("tracepoint {point}: {}", kernel_message(&error)))?;
        }
        for hook in HOOKS {
            let program: &mut Lsm = program(&mut self.ebpf, &format!("fence_{hook}"))?;
            program.attach().map_err(|error| {
                anyhow!("cannot attach the program to {hook}: {}", kernel_message(&error))
            })?;
        }
        Ok(())
    }

    /// Fences one process, with its threads and everything it forks from now on.
    ///
    /// # Errors
    /// If too many processes are fenced.
    pub fn add(&mut self, pid: u32, start_ticks: u64) -> io::Result<()> {
        let map = self.ebpf.map_mut("FENCED").ok_or(io::ErrorKind::NotFound)?;
        let mut map: HashMap<_, u32, u64> = map.try_into().map_err(io::Error::other)?;
        map.insert(pid, start_ticks, 0).map_err(io::Error::other)
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> FenceCounts {
        let map = self.ebpf.map("REFUSED");
        let Some(Ok(map)) = map.map(PerCpuArray::<_, u64>::try_from) else {
            return FenceCounts::default();
        };
        let sum = |cell| map.get(&cell, 0).map_or(0, |values| values.iter().sum());
        // Kernels that preempt programs may skip them: a child whose fork was not seen is not
        // fenced.
        let skipped = self
            .ebpf
            .program(FORK)
            .and_then(|program| sys::recursion_misses(program.fd().ok()?.as_fd()).ok());
        FenceCounts { refused: sum(0), escaped: sum(1) + skipped.unwrap_or(0) }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // Takes effect immediately; detaching the programs takes a while.
        if let Some(map) = self.ebpf.map_mut("LIFTED")
            && let Ok(mut map) = Array::<_, u32>::try_from(map)
        {
            let _ = map.set(0, 1, 0);
        }
    }
}

/// Returns the tracepoints that are needed.
fn lifecycle(scope: FenceScope) -> &'static [(&'static str, &'static str)] {
    match scope {
        FenceScope::Cgroup { .. } => &LIFECYCLE[..1],
        FenceScope::Processes => &LIFECYCLE,
    }
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> anyhow::Result<&'e mut P>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .with_context(|| format!("this build of filltop has no program {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_every_program() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let lifecycle = LIFECYCLE.map(|(name, _)| name.to_owned());
        for name in HOOKS.map(|hook| format!("fence_{hook}")).into_iter().chain(lifecycle) {
            assert!(object.programs.contains_key(&name), "{name}");
        }
        assert_eq!(object.programs.len(), HOOKS.len() + LIFECYCLE.len());
    }

    #[test]
    fn security_modules_are_listed_or_the_error_names_the_mount() {
        match active_modules() {
            Some(modules) => assert!(!modules.is_empty()),
            None => assert!(check(false).unwrap_err().contains("securityfs")),
        }
    }
}
