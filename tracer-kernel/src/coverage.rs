//! What is not seen, in words: by backend, kernel and hooks that are missing.

use tracer_model::snapshot::WriteBackend;

/// The blind spot where programs may be put aside.
pub const SKIPPED_CALLS: &str = "this kernel may put our programs aside in the middle, and skips other \
    calls meanwhile, which are counted as lost; those of kprobes more rarely";

/// What the hooks that are missing would have told.
#[must_use]
pub fn of_missing(follows_renames: bool, times_every_fsync: bool) -> Vec<String> {
    let mut spots = Vec::new();
    if !follows_renames {
        spots.push(
            "renames are followed for shown files alone: while a writer has them open, or within \
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

/// What is not seen where space is sampled.
pub const SAMPLED_SPACE: &str = "space of written files is asked from the filesystem once a second: \
     what comes and goes in between is not seen, nor what happens to files that nobody wrote to";

/// What is seen although no function is hooked that all of it goes through.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// ext4's own functions or tracepoints are hooked: the latter are there since 6.6.
    pub ext4: bool,
    /// The end of requests to io_uring.
    pub uring: bool,
    /// Folios that become dirty in a fault.
    pub stores: bool,
    /// But not in mappings with MADV_RANDOM or MADV_SEQUENTIAL.
    pub without_advised: bool,
    /// The upper files of overlays, where writes are counted above the filesystem.
    pub overlays: bool,
}

/// What a backend cannot see.
#[must_use]
pub fn of_backend(write: WriteBackend, seen: Seen) -> Vec<String> {
    let mut spots = if write == WriteBackend::Tracepoint {
        of_tracepoints(seen)
    } else {
        vec!["stores through mmap are counted by page, once until it is written back"]
    };
    if !seen.overlays {
        spots.push(
            "what is written through overlayfs is not seen, but on filesystems that are counted at their own \
             functions or tracepoints",
        );
    }
    spots.extend([
        "space of reflinked files is shared: it is counted for none of them",
        "what btrfs's compression saved in files written before the start is not known: freeing them \
         counts as freeing their whole length",
    ]);
    spots.into_iter().map(str::to_owned).collect()
}

fn of_tracepoints(seen: Seen) -> Vec<&'static str> {
    let mut spots = vec![match (seen.stores, seen.ext4) {
        (true, _) => {
            "stores through mmap are counted by folio, a page or more, once until it is written back; \
             those into tmpfs are not counted"
        }
        (false, true) => {
            "stores through mmap are not counted as written; on ext4 the space they take is"
        }
        (false, false) => "stores through mmap are not counted as written",
    }];
    if seen.stores && seen.without_advised {
        spots.push("stores into mappings with MADV_RANDOM or MADV_SEQUENTIAL are not counted");
    }
    spots.push(match (seen.uring, seen.ext4) {
        (true, _) => {
            "on filesystems other than ext4, requests to io_uring whose completion is skipped \
             (IOSQE_CQE_SKIP_SUCCESS) or finds no room in the ring are not counted"
        }
        (false, true) => "on filesystems other than ext4, io_uring is not counted",
        (false, false) => "before Linux 5.19, io_uring is not counted",
    });
    if seen.ext4 {
        spots
            .extend(["on filesystems other than ext4, libaio and 32-bit programs are not counted"]);
    } else {
        spots.extend([
            "before Linux 6.6, libaio, 32-bit programs and what the kernel itself writes (core dumps, loop \
             devices) are not counted",
            "removed files are seen on ext4 alone",
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
