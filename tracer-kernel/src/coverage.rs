//! Texts of the blind spots: by backend, kernel and missing hooks.

use tracer_model::snapshot::WriteBackend;

/// The blind spot on kernels that can preempt BPF programs.
pub const SKIPPED_CALLS: &str = "on this kernel, filltop's programs can be preempted; calls that \
    arrive meanwhile are skipped and counted as lost (rarely with kprobes)";

/// Returns the blind spots that result from missing optional hooks.
#[must_use]
pub fn of_missing(follows_renames: bool, times_every_fsync: bool) -> Vec<String> {
    let mut spots = Vec::new();
    if !follows_renames {
        spots.push(
            "renames are followed only for displayed files: while a writer has them open, or within \
             one directory"
                .to_owned(),
        );
    }
    if !times_every_fsync {
        spots.push(
            "on filesystems other than ext4, fsync is not timed and created files are not counted"
                .to_owned(),
        );
    }
    spots
}

/// The blind spot on filesystems whose space is sampled.
pub const SAMPLED_SPACE: &str = "space of written files is sampled from the filesystem once a second: \
     short-lived changes in between are not seen, nor are files that were not written to";

/// What is covered although no function is hooked that all writes go through.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// ext4's own functions or tracepoints are hooked; the tracepoints exist since 6.6.
    pub ext4: bool,
    /// Completions of io_uring requests.
    pub uring: bool,
    /// Folios that become dirty in a page fault.
    pub stores: bool,
    /// Except in mappings with MADV_RANDOM or MADV_SEQUENTIAL.
    pub without_advised: bool,
    /// The upper files of overlays, if writes are counted above the filesystem.
    pub overlays: bool,
}

/// Returns the blind spots of a backend.
#[must_use]
pub fn of_backend(write: WriteBackend, seen: Seen) -> Vec<String> {
    let mut spots = if write == WriteBackend::Tracepoint {
        of_tracepoints(seen)
    } else {
        vec!["stores through mmap are counted per page, once until the page is written back"]
    };
    if !seen.overlays {
        spots.push(
            "writes through overlayfs are not seen, except on filesystems that are counted at their own \
             functions or tracepoints",
        );
    }
    spots.extend([
        "space of reflinked files is shared and counted for none of them",
        "what btrfs compression saved in files written before filltop started is not known: freeing \
         them counts as freeing their whole length",
    ]);
    spots.into_iter().map(str::to_owned).collect()
}

fn of_tracepoints(seen: Seen) -> Vec<&'static str> {
    let mut spots = vec![match (seen.stores, seen.ext4) {
        (true, _) => {
            "stores through mmap are counted by folio (one page or more), once until it is written back; \
             those to tmpfs are not counted"
        }
        (false, true) => {
            "stores through mmap are not counted as written; on ext4 the space they allocate is"
        }
        (false, false) => "stores through mmap are not counted as written",
    }];
    if seen.stores && seen.without_advised {
        spots.push("stores into mappings with MADV_RANDOM or MADV_SEQUENTIAL are not counted");
    }
    spots.push(match (seen.uring, seen.ext4) {
        (true, _) => {
            "on filesystems other than ext4, io_uring requests are not counted if their completion is \
             suppressed (IOSQE_CQE_SKIP_SUCCESS) or the completion ring is full"
        }
        (false, true) => "on filesystems other than ext4, io_uring is not counted",
        (false, false) => "before Linux 5.19, io_uring is not counted",
    });
    if seen.ext4 {
        spots
            .extend(["on filesystems other than ext4, libaio and 32-bit programs are not counted"]);
    } else {
        spots.extend([
            "before Linux 6.6, libaio, 32-bit programs and writes by the kernel itself (core dumps, loop \
             devices) are not counted",
            "removed files are seen only on ext4",
        ]);
    }
    spots.push(if seen.uring {
        "errors of libaio writes are not counted"
    } else {
        "errors of io_uring and libaio writes are not counted"
    });
    spots.push("a descriptor that another thread closes during a write is not attributed");
    spots
}
