//! Blind spots: what a backend cannot see on this kernel, by missing hooks.

use tracer_model::snapshot::{BlindSpot, BlindSpotKind, WriteBackend};

/// What is covered although no function is hooked that all writes go through.
#[derive(Debug, Clone, Copy)]
pub struct Coverage {
    /// ext4's own functions or tracepoints are hooked; the tracepoints exist since 6.6.
    pub ext4: bool,
    /// Completions of io_uring requests.
    pub io_uring: bool,
    /// Folios that become dirty in a page fault.
    pub mmap_stores: bool,
    /// Folios except those in mappings with MADV_RANDOM or MADV_SEQUENTIAL.
    pub misses_advised: bool,
    /// The upper files of overlays, if writes are counted above the filesystem.
    pub overlays: bool,
}

/// Returns the blind spot on kernels that can preempt BPF programs.
#[must_use]
pub fn skipped_calls() -> BlindSpot {
    spot(BlindSpotKind::SkippedCalls)
}

/// Returns the blind spot on filesystems of these types, whose space is sampled.
#[must_use]
pub fn sampled_space(fs_types: &[String]) -> BlindSpot {
    let kind = BlindSpotKind::SampledSpace;
    BlindSpot { kind, text: format!("{} ({})", text(kind), fs_types.join(", ")) }
}

/// Returns the blind spots that result from missing optional hooks.
#[must_use]
pub fn of_missing_hooks(follows_renames: bool, times_every_fsync: bool) -> Vec<BlindSpot> {
    let mut spots = Vec::new();
    if !follows_renames {
        spots.push(spot(BlindSpotKind::Renames));
    }
    if !times_every_fsync {
        spots.push(spot(BlindSpotKind::FsyncAndCreates));
    }
    spots
}

/// Returns the blind spots of a backend.
#[must_use]
pub fn of_backend(write: WriteBackend, coverage: Coverage) -> Vec<BlindSpot> {
    let mut kinds = if write == WriteBackend::Tracepoint {
        of_tracepoints(coverage)
    } else {
        vec![BlindSpotKind::MmapByPage]
    };
    if !coverage.overlays {
        kinds.push(BlindSpotKind::Overlay);
    }
    kinds.extend([BlindSpotKind::Reflinks, BlindSpotKind::Compression]);
    kinds.into_iter().map(spot).collect()
}

fn of_tracepoints(coverage: Coverage) -> Vec<BlindSpotKind> {
    let mut kinds = vec![match (coverage.mmap_stores, coverage.ext4) {
        (true, _) => BlindSpotKind::MmapByFolio,
        (false, true) => BlindSpotKind::MmapWrites,
        (false, false) => BlindSpotKind::Mmap,
    }];
    if coverage.mmap_stores && coverage.misses_advised {
        kinds.push(BlindSpotKind::MmapAdvised);
    }
    kinds.push(match (coverage.io_uring, coverage.ext4) {
        (true, _) => BlindSpotKind::IoUringSilent,
        (false, true) => BlindSpotKind::IoUringExceptExt4,
        (false, false) => BlindSpotKind::IoUring,
    });
    if coverage.ext4 {
        kinds.push(BlindSpotKind::LibaioExceptExt4);
    } else {
        kinds.extend([BlindSpotKind::KernelWrites, BlindSpotKind::RemovedFiles]);
    }
    kinds.push(if coverage.io_uring {
        BlindSpotKind::LibaioErrors
    } else {
        BlindSpotKind::IoUringErrors
    });
    kinds.push(BlindSpotKind::ClosedDescriptors);
    kinds
}

fn spot(kind: BlindSpotKind) -> BlindSpot {
    BlindSpot { kind, text: text(kind).to_owned() }
}

const fn text(kind: BlindSpotKind) -> &'static str {
    match kind {
        BlindSpotKind::SkippedCalls => {
            "on this kernel, filltop's programs can be preempted; calls that arrive meanwhile are \
             skipped and counted as lost (rarely with kprobes)"
        }
        BlindSpotKind::Renames => {
            "renames are followed only for displayed files: while a writer has them open, or within \
             one directory"
        }
        BlindSpotKind::FsyncAndCreates => {
            "on filesystems other than ext4, fsync is not timed, files that a rename replaces are not \
             counted as removed, and directories that are created or removed are only known by their \
             volume"
        }
        BlindSpotKind::SampledSpace => {
            "space of written files is sampled from the filesystem once a second: short-lived changes \
             in between are not seen, nor are files that were not written to"
        }
        BlindSpotKind::MmapByPage => {
            "stores through mmap are counted per page, once until the page is written back"
        }
        BlindSpotKind::MmapByFolio => {
            "stores through mmap are counted by folio (one page or more), once until it is written \
             back; those to tmpfs are not counted"
        }
        BlindSpotKind::MmapWrites => {
            "stores through mmap are not counted as written; on ext4 the space they allocate is"
        }
        BlindSpotKind::Mmap => "stores through mmap are not counted as written",
        BlindSpotKind::MmapAdvised => {
            "stores into mappings with MADV_RANDOM or MADV_SEQUENTIAL are not counted"
        }
        BlindSpotKind::Overlay => {
            "writes through overlayfs are not seen, except on filesystems that are counted at their \
             own functions or tracepoints"
        }
        BlindSpotKind::Reflinks => {
            "space of reflinked files is shared and counted for none of them"
        }
        BlindSpotKind::Compression => {
            "what btrfs compression saved in files written before filltop started is not known: \
             freeing them counts as freeing their whole length"
        }
        BlindSpotKind::IoUringSilent => {
            "on filesystems other than ext4, io_uring requests are not counted if their completion is \
             suppressed (IOSQE_CQE_SKIP_SUCCESS) or the completion ring is full"
        }
        BlindSpotKind::IoUringExceptExt4 => {
            "on filesystems other than ext4, io_uring is not counted"
        }
        BlindSpotKind::IoUring => "before Linux 5.19, io_uring is not counted",
        BlindSpotKind::LibaioExceptExt4 => {
            "on filesystems other than ext4, libaio and 32-bit programs are not counted"
        }
        BlindSpotKind::KernelWrites => {
            "before Linux 6.6, libaio, 32-bit programs and writes by the kernel itself (core dumps, \
             loop devices) are not counted"
        }
        BlindSpotKind::RemovedFiles => "removed files are seen only on ext4",
        BlindSpotKind::LibaioErrors => "errors of libaio writes are not counted",
        BlindSpotKind::IoUringErrors => "errors of io_uring and libaio writes are not counted",
        BlindSpotKind::ClosedDescriptors => {
            "a descriptor that another thread closes during a write is not attributed"
        }
        BlindSpotKind::Unknown => "unknown",
    }
}
