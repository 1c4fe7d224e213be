//! The fence's own object: not a part of tracing, and loaded by nobody but the process that answers
//! for a fence. It is in force while its descriptors are open: however that process ends, the kernel
//! lifts it.

use std::os::fd::AsFd as _;
use std::{fs, io};

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::{Lsm, RawTracePoint};
use aya::{Ebpf, EbpfLoader};
use tracer_common::Fence as Order;
use tracer_common::offsets::Offsets;

use super::attach::error::{error_chain, kernel_words};
use super::btf::cache::Types;
use super::btf::{inode_layout, relocate};
use super::loader::kernel_config;
use super::{preflight, sys};

/// As `cargo xtask build` compiled it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FILLTOP_FENCE_OBJECT_PATH"));

/// Security hooks; the programs are called `fence_HOOK`.
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

/// Tracepoints: by the first the fence ends as soon as the process that answers for it does; by the
/// others children are fenced before they run, and forgotten when they are gone.
const LIVES: [(&str, &str); 3] = [
    ("fence_keeper_exit", "sched_process_exit"),
    (FORK, "sched_process_fork"),
    ("fence_free", "sched_process_free"),
];

/// Where the kernel lists its active security modules.
const ACTIVE_MODULES: &str = "/sys/kernel/security/lsm";

/// Whom a fence keeps off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// A cgroup v2 with all below it.
    Cgroup {
        /// Its id: the inode number of its directory.
        id: u64,
        /// Its depth below the root, from 1 on.
        level: u32,
    },
    /// Those that are added, with all that they fork.
    Processes,
}

/// A loaded fence. This process answers for it: dropping it lifts it.
pub struct Fence {
    ebpf: Ebpf,
    whom: Whom,
}

/// Fences the children of who is fenced.
const FORK: &str = "fence_fork";

/// What a fence did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that failed for it.
    pub refused: u64,
    /// Processes that were forked by a fenced one when there was no room for them, or when the kernel skipped
    /// the program that takes them in: they are free.
    pub escaped: u64,
}

/// No volume has this number.
const NO_VOLUME: u32 = 0;

/// Why nobody can be fenced here, as far as it can be told without loading anything.
///
/// # Errors
/// The reason.
pub fn check(in_container: bool) -> Result<(), String> {
    preflight::check(in_container).map_err(|refusal| refusal.to_string())?;
    match active_modules() {
        Some(modules) if modules.iter().any(|module| module == "bpf") => Ok(()),
        Some(modules) => Err(format!(
            "bpf is not among the kernel's active security modules ({}): boot with lsm={},bpf",
            modules.join(","),
            modules.join(",")
        )),
        None => Err(format!(
            "{ACTIVE_MODULES} cannot be read, so that nobody knows whether BPF programs may refuse \
             anything: mount -t securityfs none /sys/kernel/security"
        )),
    }
}

/// The kernel's active security modules, from securityfs, else by lsm_list_modules(2) (6.8).
fn active_modules() -> Option<Vec<String>> {
    match fs::read_to_string(ACTIVE_MODULES) {
        Ok(text) => Some(text.trim().split(',').map(str::to_owned).collect()),
        Err(_) => sys::security_modules().ok(),
    }
}

/// Loads a fence that keeps off nobody, and attaches it if that is wanted, too (which takes longer): does
/// it work here?
///
/// # Errors
/// The reason why not.
pub fn try_here(attach: bool, in_container: bool) -> Result<(), String> {
    let attempt = || {
        let mut fence = Fence::load(NO_VOLUME, Whom::Processes, in_container)?;
        if attach { fence.attach() } else { Ok(()) }
    };
    attempt().map_err(|error: anyhow::Error| format!("{error:#}"))
}

impl Fence {
    /// Loads the programs that keep somebody off a volume (`s_dev`, major << 20 | minor); nothing is
    /// refused yet.
    ///
    /// # Errors
    /// What this kernel lacks, or its own words.
    pub fn load(dev: u32, whom: Whom, in_container: bool) -> anyhow::Result<Self> {
        check(in_container).map_err(anyhow::Error::msg)?;
        sys::lift_memlock_limit();
        let types = Types::read()?;
        let offsets = types.kernel.offsets();
        let needed = [offsets.file_inode, offsets.file_flags, offsets.inode_sb, offsets.sb_dev];
        if needed.contains(&Offsets::ABSENT) {
            return Err(anyhow!("this kernel's type information lacks what a fence looks at"));
        }
        let (cgroup, level) = match whom {
            Whom::Cgroup { id, level } => (id, level),
            Whom::Processes => (0, 0),
        };
        let order = Order { cgroup, level, dev, keeper: std::process::id(), pad: 0 };
        let config = kernel_config(&types, 1);
        let object = relocate::fit(OBJECT, &offsets, &config)?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types.bpf))
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .override_global("FENCE", bytemuck::bytes_of(&order), true)
            .load(&object)
            .map_err(|error| anyhow!("the kernel refuses bpf(2): {}", error_chain(&error)))?;
        inode_layout::install(&mut ebpf, &types);
        for hook in HOOKS {
            let program: &mut Lsm = program(&mut ebpf, &format!("fence_{hook}"))?;
            program.load(hook, &types.bpf).map_err(|error| {
                anyhow!("no program can be loaded for {hook}: {}", kernel_words(&error))
            })?;
        }
        for (name, point) in lives(whom) {
            let program: &mut RawTracePoint = program(&mut ebpf, name)?;
            program
                .load()
                .map_err(|error| anyhow!("tracepoint {point}: {}", kernel_words(&error)))?;
        }
        Ok(Self { ebpf, whom })
    }

    /// How many programs [`Fence::attach`] attaches.
    #[must_use]
    pub fn programs(&self) -> usize {
        HOOKS.len() + lives(self.whom).len()
    }

    /// Puts it up.
    ///
    /// # Errors
    /// The kernel's words; what was attached until then is detached with `self`.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        for (name, point) in lives(self.whom) {
            let program: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            program
                .attach(point)
                .map_err(|error| anyhow!("tracepoint {point}: {}", kernel_words(&error)))?;
        }
        for hook in HOOKS {
            let program: &mut Lsm = program(&mut self.ebpf, &format!("fence_{hook}"))?;
            program.attach().map_err(|error| {
                anyhow!("no program can be attached to {hook}: {}", kernel_words(&error))
            })?;
        }
        Ok(())
    }

    /// Fences one process; its threads and what it forks from now on are fenced with it.
    ///
    /// # Errors
    /// If there are too many.
    pub fn add(&mut self, pid: u32, start_ticks: u64) -> io::Result<()> {
        let map = self.ebpf.map_mut("FENCED").ok_or(io::ErrorKind::NotFound)?;
        let mut map: HashMap<_, u32, u64> = map.try_into().map_err(io::Error::other)?;
        map.insert(pid, start_ticks, 0).map_err(io::Error::other)
    }

    /// What it has done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let map = self.ebpf.map("REFUSED");
        let Some(Ok(map)) = map.map(PerCpuArray::<_, u64>::try_from) else {
            return Tally::default();
        };
        let sum = |cell| map.get(&cell, 0).map_or(0, |values| values.iter().sum());
        // Where the kernel puts programs aside, it may skip them: whose fork was not seen is not fenced.
        let skipped = self
            .ebpf
            .program(FORK)
            .and_then(|program| sys::recursion_misses(program.fd().ok()?.as_fd()).ok());
        Tally { refused: sum(0), escaped: sum(1) + skipped.unwrap_or(0) }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // At once; what is left to be detached takes a while.
        if let Some(map) = self.ebpf.map_mut("LIFTED")
            && let Ok(mut map) = Array::<_, u32>::try_from(map)
        {
            let _ = map.set(0, 1, 0);
        }
    }
}

/// The tracepoints that are needed.
fn lives(whom: Whom) -> &'static [(&'static str, &'static str)] {
    match whom {
        Whom::Cgroup { .. } => &LIVES[..1],
        Whom::Processes => &LIVES,
    }
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &str) -> anyhow::Result<&'e mut P>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .with_context(|| format!("this filltop was built without {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_every_program() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        for name in HOOKS.map(|hook| format!("fence_{hook}")) {
            assert!(object.programs.contains_key(&name), "{name}");
        }
        assert_eq!(object.programs.len(), HOOKS.len() + LIVES.len());
    }

    #[test]
    fn this_kernel_names_its_modules_or_the_reason_says_what_to_mount() {
        match active_modules() {
            Some(modules) => assert!(!modules.is_empty()),
            None => assert!(check(false).unwrap_err().contains("securityfs")),
        }
    }
}
