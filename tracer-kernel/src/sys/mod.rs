//! System calls that aya does not offer: map iterators, batch operations, perf events on tracefs
//! probes, loss counters.

pub(crate) mod detached;
pub(crate) mod tracefs;
pub(crate) mod tracing;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_info};
use bytemuck::{AnyBitPattern, NoUninit};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{MembarrierCommand, membarrier};

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: `attr` is a whole, initialised bpf_attr; pointers in it outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, cmd as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: a descriptor that the kernel just created for this process.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: a union of plain integers.
    unsafe { std::mem::zeroed() }
}

/// Binds an iterator over the elements of a map (`bpf_map_elem`, 5.9) to its map.
///
/// # Errors
/// The kernel's error.
pub(crate) fn link_to_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // union bpf_iter_link_info, whose first field is the map's descriptor.
    let info = u64::from(map.as_raw_fd() as u32);
    let mut attr = zeroed_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    attr.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info = &raw const info as u64;
    attr.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info_len = size_of_val(&info) as u32;
    Ok(owned(bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?))
}

/// Starts one pass of an iterator: returns a file that is read to its end.
///
/// # Errors
/// The kernel's error.
pub(crate) fn begin_iteration(link: BorrowedFd<'_>) -> io::Result<File> {
    let mut attr = zeroed_attr();
    attr.iter_create.link_fd = link.as_raw_fd() as u32;
    Ok(owned(bpf(bpf_cmd::BPF_ITER_CREATE, &mut attr)?).into())
}

/// Removes all entries from a hash map in batches (5.6). Nothing may add to the map meanwhile.
///
/// # Errors
/// The kernel's error.
pub(crate) fn drain_map<K, V>(map: BorrowedFd<'_>, mut each: impl FnMut(K, V)) -> io::Result<()>
where
    K: AnyBitPattern + NoUninit,
    V: AnyBitPattern + NoUninit,
{
    const BATCH: usize = 4096;
    let mut keys: Vec<K> = vec![K::zeroed(); BATCH];
    let mut values: Vec<V> = vec![V::zeroed(); BATCH];
    let mut cursor = [0u8; 64];
    let mut first = true;
    loop {
        let mut attr = zeroed_attr();
        attr.batch.in_batch = if first { 0 } else { cursor.as_ptr() as u64 };
        attr.batch.out_batch = cursor.as_mut_ptr() as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = BATCH as u32;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr);
        let done = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel wrote the number of entries there.
        let count = unsafe { attr.batch.count } as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(*key, *value);
        }
        if done {
            return Ok(());
        }
        first = false;
    }
}

/// Removes a key from a map. A missing key is not an error.
///
/// # Errors
/// The kernel's error.
pub(crate) fn delete_key<K: NoUninit>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = &raw const *key as u64;
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: a struct of plain integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Returns how often the kernel skipped a program because it was already running on that CPU (5.12;
/// before, 0).
///
/// # Errors
/// The kernel's error.
pub(crate) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(program_info(program)?.recursion_misses)
}

/// Returns how many instructions of a program the verifier went through (5.16; before, 0).
///
/// # Errors
/// The kernel's error.
pub(crate) fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.verified_insns)
}

/// Duration and number of runs of a program while run-time statistics were enabled
/// (`aya::sys::enable_stats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RunTime {
    /// Nanoseconds, including the kernel's own clock reading around each run.
    pub(crate) ns: u64,
    /// Number of runs.
    pub(crate) runs: u64,
}

/// Returns a program's run-time statistics since it was loaded.
///
/// # Errors
/// The kernel's error.
pub(crate) fn run_time(program: BorrowedFd<'_>) -> io::Result<RunTime> {
    let info = program_info(program)?;
    Ok(RunTime { ns: info.run_time_ns, runs: info.run_cnt })
}

/// Attaches a loaded kprobe program to an event that was defined in tracefs. It is detached when
/// the descriptor is closed, however the process ends.
///
/// # Errors
/// The kernel's error.
pub(crate) fn attach_to_trace_event(program: BorrowedFd<'_>, event_id: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    // struct perf_event_attr up to its first published size: type, size, config, sample_period.
    let mut attr = [0u64; 8];
    attr[0] = u64::from(PERF_TYPE_TRACEPOINT) | (64 << 32);
    attr[1] = event_id;
    attr[2] = 1;
    // SAFETY: `attr` is 64 bytes, as its size field states (PERF_ATTR_SIZE_VER0).
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let event = owned(fd as RawFd);
    // SAFETY: both ioctls take an integer.
    unsafe {
        if libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) < 0
            || libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}

/// Waits until every program that was running when this was called has ended: MEMBARRIER_CMD_GLOBAL
/// is a synchronize_rcu, and BPF programs run within RCU.
pub(crate) fn wait_for_running_programs() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // Fails with nohz_full. A program runs for microseconds, so this is long enough.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Lifts the limit on locked memory: before 5.11 maps count against RLIMIT_MEMLOCK.
pub(crate) fn lift_memlock_limit() {
    // A failure is harmless where the limit does not matter.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// Returns the number of possible CPUs, from `/sys/devices/system/cpu/possible` (e.g. `0-3,8`):
/// highest number + 1.
///
/// # Errors
/// If the file does not exist or has another format.
pub(crate) fn possible_cpus() -> io::Result<u32> {
    let text = std::fs::read_to_string(Path::new("/sys/devices/system/cpu/possible"))?;
    text.trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<u32>().ok())
        .map(|last| last + 1)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("unexpected list of possible CPUs: {text}"),
            )
        })
}

/// Returns the names of the kernel's active security modules, where known: lsm_list_modules(2),
/// since 6.8.
///
/// # Errors
/// The kernel's error.
pub(crate) fn security_modules() -> io::Result<Vec<String>> {
    const LSM_LIST_MODULES: libc::c_long = 461;
    // linux/lsm.h: LSM_ID_*, from 100 on.
    const NAMES: [&str; 14] = [
        "capability",
        "selinux",
        "smack",
        "tomoyo",
        "apparmor",
        "yama",
        "loadpin",
        "safesetid",
        "lockdown",
        "bpf",
        "landlock",
        "ima",
        "evm",
        "ipe",
    ];
    let mut ids = [0u64; 32];
    let mut bytes = size_of_val(&ids) as u32;
    // SAFETY: the kernel writes at most `bytes` bytes to `ids`, and their number to `bytes`.
    let count = unsafe {
        libc::syscall(LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut bytes, 0 as libc::c_uint)
    };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = |id: &u64| {
        let known = id.checked_sub(100).and_then(|at| NAMES.get(usize::try_from(at).ok()?));
        known.map_or_else(|| format!("module {id}"), |name| (*name).to_owned())
    };
    Ok(ids.iter().take(count as usize).map(name).collect())
}

/// Returns free memory that the allocator keeps to the kernel.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes threads share one allocator arena (M_ARENA_MAX of mallopt(3)): an arena per thread would
/// keep memory that a thread used only briefly.
pub(crate) fn share_memory_among_threads() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
