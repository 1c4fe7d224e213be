//! What is expected to be exact where, and the reason for each exception: the table that keeps
//! docs/kernels.md honest. A way that works although the table says otherwise fails the test like
//! one that does not work.

/// The result of a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Written, allocated and freed to the byte, in one row, charged to the process that wrote.
    Exact,
    /// As exact, but written is counted per page, or space to within some blocks (64 KiB) that the
    /// filesystem allocates and frees on its own.
    Approximate,
    /// Written to the byte; space is not traced here, and not reported.
    Written,
    /// Written to the byte, and growth (allocated − freed) to 64 KiB: space is sampled from the
    /// filesystem, and marked as approximate.
    Sampled,
    /// Stores through a mapping, written per folio: no less than was stored, and no more than was
    /// allocated. Space to 64 KiB.
    Folios,
    /// Allocated and freed to the byte; written bytes were not seen.
    Space,
    /// Nothing of it was seen.
    Missed,
    /// Any other result.
    Wrong,
}

impl Verdict {
    /// The name in the `WAY` lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approximate => "approximate",
            Self::Written => "written",
            Self::Sampled => "sampled",
            Self::Folios => "folios",
            Self::Space => "space",
            Self::Missed => "missed",
            Self::Wrong => "wrong",
        }
    }
}

/// How much of a filesystem is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Its own functions are hooked.
    Full,
    /// They are, but the space charged to an inode is not known.
    Bytes,
    /// ext4's tracepoints.
    Ext4,
    /// The system calls that write, at their return.
    SystemCalls,
}

/// The expected verdict, and the reason.
pub fn expected(kernel: &str, fs: &str, way: &str, backend: &str) -> (Verdict, &'static str) {
    let version = version(kernel);
    let reach = reach(version, fs, backend);
    match reach {
        Reach::Full
            if is_overlay_with_clones(fs)
                && version < CLONES_SEEN
                && matches!(way, "copy_file_range" | "reflink") =>
        {
            (
                Verdict::Missed,
                "overlayfs makes the lower filesystem share blocks, which takes no space",
            )
        }
        Reach::Full if way == "mmap" => (Verdict::Approximate, "a page is the smallest unit"),
        Reach::Ext4 if way == "mmap" => (Verdict::Folios, FOLIO),
        Reach::Full | Reach::Ext4 if way == "threads-dsync" => {
            (Verdict::Approximate, "writeback allocates and frees blocks of the extent tree")
        }
        Reach::Full | Reach::Ext4 => (Verdict::Exact, "no known limitation"),
        Reach::Bytes => (Verdict::Sampled, "the layout of its inodes is not in this kernel's BTF"),
        Reach::SystemCalls => by_call(version, fs, way),
    }
}

/// Whether it is an overlay on a filesystem whose files can share blocks.
fn is_overlay_with_clones(fs: &str) -> bool {
    matches!(fs, "overlay-xfs" | "overlay-btrfs")
}

/// Since this version, clones through an overlay are seen like any other; 6.1 misses them, versions
/// in between were not tried.
const CLONES_SEEN: (u32, u32) = (6, 12);

const FOLIO: &str = "the kernel reports a folio when it becomes dirty, whatever file is mapped";

/// What is seen where only the return of system calls is hooked, and what replaces the rest.
fn by_call(version: (u32, u32), fs: &str, way: &str) -> (Verdict, &'static str) {
    if way == "mmap" && fs == "tmpfs" {
        (Verdict::Missed, "the kernel reports nothing when a page of tmpfs becomes dirty")
    } else if way == "mmap" {
        (Verdict::Folios, FOLIO)
    } else if way.starts_with("io_uring") && version < (5, 19) {
        (Verdict::Missed, "the completion of a request does not name its file")
    } else if way.starts_with("libaio") {
        (
            Verdict::Missed,
            "its results are in a ring in the process's memory, which no tracepoint reports",
        )
    } else {
        (Verdict::Sampled, "no hook reports its space")
    }
}

fn reach(version: (u32, u32), fs: &str, backend: &str) -> Reach {
    let module = matches!(fs, "xfs" | "btrfs");
    let on_ext4 = matches!(fs, "ext4" | "overlay");
    match backend {
        // Kernels have BTF of modules since 5.11.
        "fentry" | "kprobe" if module && version < (5, 11) => Reach::Bytes,
        "fentry" | "kprobe" => Reach::Full,
        // iomap_dio_rw_begin exists since 6.6; without it direct writes to ext4 would be lost.
        "tracepoint" if on_ext4 && version >= (6, 6) => Reach::Ext4,
        _ => Reach::SystemCalls,
    }
}

/// The first two numbers of a kernel release.
pub fn version(kernel: &str) -> (u32, u32) {
    let mut numbers = kernel.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
