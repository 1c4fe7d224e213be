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

/// What a backend cannot see. `ext4` says whether ext4's own functions or tracepoints are hooked: the
/// latter are there since 6.6.
#[must_use]
pub fn of_backend(write: WriteBackend, ext4: bool) -> Vec<String> {
    let mut spots = vec![
        "stores through mmap are counted by page, once until it is written back",
        "space of reflinked files is shared: it is counted for none of them",
    ];
    if write == WriteBackend::Tracepoint && !ext4 {
        spots = vec![
            "stores through mmap are not counted as written",
            "before Linux 6.6, libaio, io_uring, 32-bit programs and what the kernel itself writes (core \
             dumps, loop devices) are not counted",
            "before Linux 6.6, nothing is seen of what is written through overlayfs",
            "removed files are seen on ext4 alone",
            "errors of io_uring and libaio writes are not counted",
            "a descriptor that another thread closes during a write is not attributed",
        ];
    } else if write == WriteBackend::Tracepoint {
        spots = vec![
            "stores through mmap are not counted as written; on ext4 the space they take is",
            "on filesystems other than ext4, libaio, io_uring and 32-bit programs are not counted",
            "overlayfs is counted only on top of ext4",
            "errors of io_uring and libaio writes are not counted",
            "a descriptor that another thread closes during a write is not attributed",
        ];
    }
    spots.push(
        "what btrfs's compression saved in files written before the start is not known: freeing them \
         counts as freeing their whole length",
    );
    spots.into_iter().map(str::to_owned).collect()
}
