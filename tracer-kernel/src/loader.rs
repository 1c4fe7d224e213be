//! Loads and attaches the eBPF programs: checks prerequisites, resolves offsets from BTF, selects
//! the backend, and tracks the state of each hook.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, anyhow};
use aya::maps::Map;
use aya::programs::{RawTracePoint, RawTracePointRunOptions};
use aya::{Ebpf, EbpfLoader, TestRun as _};
use aya_log::EbpfLogger;
use tracer_common::counters::SELF_STAT_CELLS;
use tracer_common::{FileKey, OpenFileRecord, UnlinkedRecord};
use tracer_model::snapshot::{CountedBy, Gap, Hook, Loss, LossKind, WriteBackend};

use crate::attach::manager::HookManager;
use crate::attach::raw_loader::RawLoader;
use crate::btf::cache::KernelTypes;
use crate::btf::modules::ModuleBtf;
use crate::btf::relocate;
use crate::coverage::Coverage;
use crate::kernel_config::{check_offsets, kernel_config};
use crate::kernel_version::kernel_at_least;
use crate::object::OBJECT;
use crate::open_files::OpenFileSource;
use crate::options::TracerOptions;
use crate::{open_files, overlay, preflight, sys};

/// The loaded and attached eBPF programs. Dropping it detaches everything.
pub struct Tracer {
    /// Programs, links and maps.
    pub(crate) ebpf: Ebpf,
    manager: HookManager,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    slots_per_cpu: u32,
    cpus: u32,
    /// Whether the layout of overlayfs was looked up again after overlayfs was loaded later.
    overlay_retried: bool,
}

/// Returns the slots per CPU of the slot table: 16,384 (2 MiB), fewer on machines with many CPUs,
/// so the whole table stays under 64 MiB.
const fn slots_per_cpu(cpus: u32) -> u32 {
    let mut slots = 16_384;
    while slots > 2_048 && slots as u64 * cpus as u64 > 1 << 19 {
        slots /= 2;
    }
    slots
}

impl Tracer {
    /// Loads and attaches all programs.
    ///
    /// # Errors
    /// One line that states what is missing and what to do. Nothing stays attached then.
    pub fn start(options: &TracerOptions) -> anyhow::Result<Self> {
        preflight::check(options.in_container)?;
        if let Some(unknown) = options.hooks.iter().find(|name| *name != "vfs_write") {
            return Err(anyhow!("unknown hook {unknown:?}; supported: vfs_write"));
        }
        sys::lift_memlock_limit();
        // While this process is small, and still has the privilege.
        drop(ModuleBtf::shared());
        let types = KernelTypes::read()?;
        let offsets = types.kernel.offsets();
        check_offsets(&offsets)?;
        let cpus = sys::possible_cpus().context("cannot count the CPUs")?;
        let slots_per_cpu = slots_per_cpu(cpus);
        let config = kernel_config(&types, slots_per_cpu);
        let object = relocate::relocate(OBJECT, &offsets, &config)?;
        let log_level: u8 = if options.kernel_log { 4 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&types.bpf))
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("SLOTS", slots_per_cpu * cpus)
            .map_max_entries("HEALTH", SELF_STAT_CELLS * cpus)
            .load(&object)
            .map_err(|error| {
                preflight::PreflightError::from_load(&error, !kernel_at_least(5, 11))
            })?;
        // Before the logger takes its map away.
        let raw_loader = RawLoader::new(&ebpf, offsets, config)
            .context("cannot duplicate the map descriptors")?;
        let logger = if options.kernel_log {
            Some(EbpfLogger::init(&mut ebpf).context("cannot start the eBPF log")?)
        } else {
            None
        };
        let mut manager = HookManager::new(options, types, raw_loader);
        manager.attach_all(&mut ebpf)?;
        manager.load_open_files(&mut ebpf);
        manager.load_drain_iterators(&mut ebpf, DRAIN_ITERATORS, FORGET_NAME);
        manager.finish_startup();
        manager.release_btf();
        let tracer = Self { ebpf, manager, logger, slots_per_cpu, cpus, overlay_retried: false };
        tracer.log_verified_instructions();
        Ok(tracer)
    }

    /// Attaches hooks that became possible or necessary because a filesystem was mounted.
    pub fn mounts_changed(&mut self, fs_types: &[&str]) {
        self.manager.mounts_changed(&mut self.ebpf, fs_types);
    }

    /// Returns the kind of probe that counts written bytes.
    #[must_use]
    pub fn write_backend(&self) -> WriteBackend {
        self.manager.coverage().write_backend()
    }

    /// Whether the space of this filesystem type is traced, not only its written bytes.
    #[must_use]
    pub fn traces_space(&self, fs_type: &str) -> bool {
        self.manager.coverage().traces_space(fs_type)
    }

    /// Returns where writes to filesystems of this type are counted; `None` if nowhere.
    #[must_use]
    pub fn counted_by(&self, fs_type: &str) -> Option<CountedBy> {
        self.manager.coverage().counted_by(fs_type)
    }

    /// Returns why a filesystem of this type is not counted at its own functions, if that can be
    /// fixed.
    #[must_use]
    pub fn gap(&self, fs_type: &str) -> Option<Gap> {
        self.manager.coverage().gap(fs_type)
    }

    /// Returns what is covered in addition to the hooked functions.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.manager.coverage().coverage()
    }

    /// Whether calls may be skipped because this kernel can preempt BPF programs.
    #[must_use]
    pub fn may_skip_calls(&self) -> bool {
        self.manager.may_skip_calls()
    }

    /// Whether the kernel reports every rename.
    #[must_use]
    pub fn follows_renames(&self) -> bool {
        self.manager.coverage().renames
    }

    /// Whether fsync is timed on every filesystem, not only on ext4.
    #[must_use]
    pub fn times_every_fsync(&self) -> bool {
        self.manager.coverage().fsyncs
    }

    /// Whether functions are hooked that change directories; else tracepoints report a part of that.
    #[must_use]
    pub fn traces_directories(&self) -> bool {
        self.manager.coverage().creates
    }

    /// Whether created and removed inodes are counted on filesystems of this type.
    #[must_use]
    pub fn traces_inodes(&self, fs_type: &str) -> bool {
        self.manager.coverage().traces_inodes(fs_type)
    }

    /// Returns one row per hook that was tried.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        self.manager.hooks().to_vec()
    }

    /// Makes the eBPF side send a file's name again. Best effort: at worst the name is not sent
    /// again.
    pub fn forget_name(&mut self, file: &FileKey) {
        let program: Option<&mut RawTracePoint> =
            self.ebpf.program_mut(FORGET_NAME).and_then(|program| program.try_into().ok());
        let mut options = RawTracePointRunOptions::new();
        options.args[..3].copy_from_slice(&[file.ino, file.generation.into(), file.dev.into()]);
        if program.is_some_and(|program| program.test_run(options).is_ok()) {
            return;
        }
        // Before 5.10.
        if let Some(Map::LruHashMap(map)) = self.ebpf.map("NAMED") {
            let _ = sys::delete_key(map.fd().as_fd(), file);
        }
    }

    /// Returns (slots per CPU, CPUs) of the slot table.
    pub(crate) const fn table_shape(&self) -> (u32, u32) {
        (self.slots_per_cpu, self.cpus)
    }

    /// Returns the events that the kernel did not deliver to the programs since startup, by cause.
    #[must_use]
    pub fn missed_by_kernel(&self) -> Vec<Loss> {
        let recursion = self.programs().filter_map(|(name, program)| {
            let events = sys::recursion_misses(program).ok()?;
            let cause = format!("the kernel skipped {name}");
            Some(Loss { cause, events, kind: LossKind::SkippedCalls })
        });
        let cause = "a return probe had no free instance".to_owned();
        let events = self.manager.missed_returns();
        let returns = Loss { cause, events, kind: LossKind::ReturnProbes };
        recursion.chain([returns]).collect()
    }

    /// Returns the run-time statistics of all loaded programs, by name.
    pub(crate) fn run_times(&self) -> Vec<(String, sys::RunTime)> {
        let times = self.programs().filter_map(|(name, program)| {
            let time = sys::run_time(program).ok()?;
            Some((name.to_owned(), time))
        });
        times.collect()
    }

    /// Returns all loaded programs, by name.
    fn programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        let by_aya = self.ebpf.programs();
        let by_aya = by_aya.filter_map(|(name, program)| Some((name, program.fd().ok()?.as_fd())));
        by_aya.chain(self.manager.raw_programs())
    }

    /// Logs how much the verifier had to go through, which is what a start takes its time for.
    fn log_verified_instructions(&self) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let mut sum = 0;
        for (name, program) in self.programs() {
            let instructions = sys::verified_instructions(program).unwrap_or(0);
            tracing::debug!("verified instructions of {name}: {instructions}");
            sum += instructions;
        }
        tracing::debug!("verified instructions of all programs: {sum}");
    }

    /// Forwards pending log lines of the eBPF programs to `tracing`.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}

impl OpenFileSource for Tracer {
    fn descriptors(&mut self) -> Option<Vec<OpenFileRecord>> {
        let records = open_files::descriptors(&mut self.ebpf)?;
        let unknown = |record: &OpenFileRecord| record.overlay != 0;
        // The module may have been loaded since; once it is there, nothing changes any more.
        if self.overlay_retried || !overlay::is_known() || !records.iter().any(unknown) {
            return Some(records);
        }
        self.overlay_retried = true;
        let known = self.manager.install_overlay_inode(&mut self.ebpf);
        self.manager.release_btf();
        if known { open_files::descriptors(&mut self.ebpf) } else { Some(records) }
    }

    fn mappings(&mut self) -> Option<Vec<OpenFileRecord>> {
        open_files::mappings(&mut self.ebpf)
    }

    fn in_flight(&mut self) -> Option<Vec<UnlinkedRecord>> {
        open_files::in_flight(&mut self.ebpf)
    }

    fn unlinked(&mut self, root: BorrowedFd<'_>, limit: u32) -> Option<Vec<UnlinkedRecord>> {
        open_files::search(&mut self.ebpf, root, limit)
    }
}

/// Iterators that drain maps.
const DRAIN_ITERATORS: &[&str] =
    &["iter_spill", "iter_errors", "iter_waits", "iter_created", "iter_saved", "iter_shared"];

/// Removes a file from the map NAMED.
const FORGET_NAME: &str = "run_forget_name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stays_small_on_many_cpus() {
        assert_eq!(slots_per_cpu(2), 16_384);
        assert_eq!(slots_per_cpu(32), 16_384);
        assert_eq!(slots_per_cpu(64), 8_192);
        assert_eq!(slots_per_cpu(4096), 2_048);
    }
}
