//! Open files, and files without a name, as the kernel reports them.

use std::io::Read as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::programs::{Iter, RawTracePoint, RawTracePointRunOptions};
use aya::{Ebpf, EbpfLoader, TestRun as _};
use bytemuck::AnyBitPattern;
use tracer_common::counters::SELF_STAT_CELLS;
use tracer_common::records::{UNLINKED_MAX, unlinked};
use tracer_common::{OpenFileRecord, UnlinkedRecord, UnlinkedSearch};

use crate::attach::error::AttachError;
use crate::attach::fallback::program_of;
use crate::attach::hook_log::Attempt;
use crate::btf::cache::KernelTypes;
use crate::btf::{inode_layout, overlay_inode, relocate};
use crate::kernel_config::{check_offsets, kernel_config};
use crate::kernel_version::kernel_at_least;
use crate::object::OBJECT;
use crate::read::maps::fd_of;
use crate::read::mmap_array::{Access, MmapArray};
use crate::sys;

const DESCRIPTORS: &str = "iter_open_files";
const BASELINES: &str = "iter_baselines";
const MAPPINGS: &str = "iter_mappings";
const IN_FLIGHT: &str = "iter_in_flight";
const UNLINKED: &str = "run_unlinked";

/// What the kernel side can report about open files. Each is `None` if this kernel or the privileges
/// do not permit it, so that /proc has to be read.
pub trait OpenFileSource {
    /// Returns all regular files that are open for writing or have no name, by task and descriptor.
    fn descriptors(&mut self) -> Option<Vec<OpenFileRecord>>;

    /// Returns all mappings of regular files that are shared and writable, or whose file has no name,
    /// by task and address. Since 5.12.
    fn mappings(&mut self) -> Option<Vec<OpenFileRecord>>;

    /// Returns files without a name whose descriptors were sent through UNIX sockets and were not
    /// received yet. Since 5.17.
    fn in_flight(&mut self) -> Option<Vec<UnlinkedRecord>>;

    /// Returns all regular files without a name of the filesystem that `root` is on, if it has at most
    /// `limit` inodes in memory. Since 5.17.
    fn unlinked(&mut self, root: BorrowedFd<'_>, limit: u32) -> Option<Vec<UnlinkedRecord>>;
}

/// The programs that report open files, loaded without any that trace.
pub struct OpenFileReader {
    ebpf: Ebpf,
}

/// Maps that only tracing programs use.
const TRACING_MAPS: [&str; 16] = [
    "SLOTS",
    "SPILL_A",
    "SPILL_B",
    "INODES",
    "NAMED",
    "EMITTED_PROCS",
    "CREATED_A",
    "CREATED_B",
    "ERRORS_A",
    "ERRORS_B",
    "WAITS_A",
    "WAITS_B",
    "SAVED_A",
    "SAVED_B",
    "CALLS",
    "IN_FLIGHT",
];

impl OpenFileReader {
    /// Loads the programs.
    ///
    /// # Errors
    /// If the kernel or the privileges do not permit it.
    pub fn load() -> anyhow::Result<Self> {
        /// As few entries as any kind of map accepts.
        const FEW: u32 = 64;
        sys::lift_memlock_limit();
        let types = KernelTypes::read()?;
        let offsets = types.kernel.offsets();
        check_offsets(&offsets)?;
        let cpus = sys::possible_cpus()?;
        let object = relocate::relocate(OBJECT, &offsets, &kernel_config(&types, 1))?;
        let mut loader = EbpfLoader::new();
        loader
            .btf(Some(&types.bpf))
            .override_global("OFFSETS", bytemuck::bytes_of(&offsets), true)
            .map_max_entries("HEALTH", SELF_STAT_CELLS * cpus);
        for map in TRACING_MAPS {
            loader.map_max_entries(map, FEW);
        }
        let mut ebpf = loader.load(&object)?;
        inode_layout::install(&mut ebpf, &types);
        for (name, outcome) in load(&mut ebpf, &types) {
            if let Err(error) = outcome {
                tracing::debug!("{name}: {error:?}");
            }
        }
        Ok(Self { ebpf })
    }
}

impl OpenFileSource for OpenFileReader {
    fn descriptors(&mut self) -> Option<Vec<OpenFileRecord>> {
        descriptors(&mut self.ebpf)
    }

    fn mappings(&mut self) -> Option<Vec<OpenFileRecord>> {
        mappings(&mut self.ebpf)
    }

    fn in_flight(&mut self) -> Option<Vec<UnlinkedRecord>> {
        in_flight(&mut self.ebpf)
    }

    fn unlinked(&mut self, root: BorrowedFd<'_>, limit: u32) -> Option<Vec<UnlinkedRecord>> {
        search(&mut self.ebpf, root, limit)
    }
}

/// Loads all programs that report open files and that this kernel may have. Returns the outcome of
/// each, by the name of what it goes through.
pub(crate) fn load(ebpf: &mut Ebpf, types: &KernelTypes) -> Vec<(&'static str, Attempt)> {
    let mut outcomes = vec![("task_file", load_iterator(ebpf, DESCRIPTORS, "task_file", types))];
    if kernel_at_least(5, 12) {
        outcomes.push(("task_vma", load_iterator(ebpf, MAPPINGS, "task_vma", types)));
    }
    if kernel_at_least(5, 17) {
        outcomes.push(("scm_fp_list", load_iterator(ebpf, IN_FLIGHT, "task_file", types)));
        let search = program_of::<RawTracePoint>(ebpf, UNLINKED)
            .and_then(|program| program.load().map_err(|error| AttachError::from_program(&error)));
        outcomes.push(("s_inodes", search));
    }
    overlay_inode::install(ebpf, types);
    outcomes
}

fn load_iterator(ebpf: &mut Ebpf, program: &str, over: &str, types: &KernelTypes) -> Attempt {
    program_of::<Iter>(ebpf, program)?
        .load(over, &types.bpf)
        .map_err(|error| AttachError::from_program(&error))
}

/// Records the space of all files that are open for writing, so that the first write to one of them
/// is not taken for new space. Only once: later, their openings are seen.
pub(crate) fn record_baselines(ebpf: &mut Ebpf, types: &KernelTypes) {
    if let Err(error) = load_iterator(ebpf, BASELINES, "task_file", types) {
        tracing::debug!("{BASELINES}: {error:?}");
        return;
    }
    // It writes nothing.
    if iterate::<u8>(ebpf, BASELINES).is_none() {
        tracing::debug!("{BASELINES} cannot be run");
    }
}

pub(crate) fn descriptors(ebpf: &mut Ebpf) -> Option<Vec<OpenFileRecord>> {
    iterate(ebpf, DESCRIPTORS)
}

pub(crate) fn mappings(ebpf: &mut Ebpf) -> Option<Vec<OpenFileRecord>> {
    iterate(ebpf, MAPPINGS)
}

pub(crate) fn in_flight(ebpf: &mut Ebpf) -> Option<Vec<UnlinkedRecord>> {
    let found = Found::clear(ebpf)?;
    // It writes to the map.
    iterate::<OpenFileRecord>(ebpf, IN_FLIGHT)?;
    found.records()
}

pub(crate) fn search(
    ebpf: &mut Ebpf,
    root: BorrowedFd<'_>,
    limit: u32,
) -> Option<Vec<UnlinkedRecord>> {
    let found = Found::clear(ebpf)?;
    let program: &mut RawTracePoint = ebpf.program_mut(UNLINKED)?.try_into().ok()?;
    let descriptor = u64::try_from(root.as_raw_fd()).ok()?;
    // An inode that is evicted during the search may end it early.
    for _ in 0..TRIES {
        found.reset();
        for _ in 0..limit.div_ceil(SLICE) {
            let mut options = RawTracePointRunOptions::new();
            options.args[..2].copy_from_slice(&[descriptor, SLICE.into()]);
            program.test_run(options).ok()?;
            match found.search.get(0).status {
                unlinked::COMPLETE => return found.records(),
                unlinked::GOES_ON => rustix::thread::sched_yield(),
                _ => break,
            }
        }
        // The filesystem has more inodes than the limit.
        if found.search.get(0).status == unlinked::GOES_ON {
            return None;
        }
    }
    None
}

/// How often a search is tried.
const TRIES: u32 = 3;
/// Number of inodes that one run of the program visits: on a kernel that is not preemptible, nothing
/// else runs on its CPU meanwhile, for up to 2 ms.
const SLICE: u32 = 4_096;

/// The maps with the result of a search.
struct Found {
    records: MmapArray<UnlinkedRecord>,
    search: MmapArray<UnlinkedSearch>,
}

impl Found {
    /// Maps the result, and removes what is in it.
    fn clear(ebpf: &Ebpf) -> Option<Self> {
        let found = Self {
            records: mapped(ebpf, "UNLINKED", UNLINKED_MAX as usize, Access::Read)?,
            search: mapped(ebpf, "UNLINKED_SEARCH", 1, Access::Write)?,
        };
        found.reset();
        Some(found)
    }

    fn reset(&self) {
        // SAFETY: the mapping's one cell; no search runs now.
        unsafe { std::ptr::write_volatile(self.search.cell(0), UnlinkedSearch::default()) };
    }

    /// Returns the records; `None` if there were more than the map holds.
    fn records(&self) -> Option<Vec<UnlinkedRecord>> {
        let count = usize::try_from(self.search.get(0).count).ok()?;
        (count <= self.records.len()).then(|| (0..count).map(|at| self.records.get(at)).collect())
    }
}

fn mapped<T: AnyBitPattern>(
    ebpf: &Ebpf,
    map: &str,
    len: usize,
    access: Access,
) -> Option<MmapArray<T>> {
    MmapArray::new(fd_of(ebpf.map(map)?).ok()?, len, access).ok()
}

fn iterate<T: AnyBitPattern>(ebpf: &mut Ebpf, program: &str) -> Option<Vec<T>> {
    let program: &mut Iter = ebpf.program_mut(program)?.try_into().ok()?;
    // Each link is read once: the descriptor becomes that of the pass.
    let link = program.attach().and_then(|id| program.take_link(id)).ok()?;
    let mut bytes = Vec::new();
    link.into_file().ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}
