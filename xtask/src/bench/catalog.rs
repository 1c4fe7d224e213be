//! Names of the loops and programs that `cargo xtask bench` measures, and the packages of other tools.

/// The loops of `--quick`.
pub(super) const QUICK_CASES: &[&str] =
    &["write1-tmpfs", "write1-ext4", "write1-10kfiles", "devnull", "create-write-unlink"];

/// The programs of `--quick`.
pub(super) const QUICK_PROGRAMS: &[&str] = &["empty-fexit", "filltop-fexit", "bpftrace-inode"];

/// All loops, in the order of the tables. tests/workload/bench/loops.rs defines them.
pub(super) const CASES: &[&str] = &[
    "write1-tmpfs",
    "write1-ext4",
    "write1-xfs",
    "write1-btrfs",
    "write4k-tmpfs",
    "write4k-ext4",
    "write64k-tmpfs",
    "write64k-ext4",
    "write1-10kfiles",
    "write1-10kfiles-ext4",
    "devnull",
    "pipe",
    "socket",
    "create-write-unlink",
    "create-write-unlink-ext4",
    "io_uring",
    "mmap",
    "threads-one",
    "threads-own",
    "threads-shared",
];

/// All programs, in the order of the tables. tests/workload/bench/programs.rs defines them.
pub(super) const PROGRAMS: &[&str] = &[
    "empty-fexit",
    "empty-fexit-ext4",
    "empty-kprobe",
    "empty-kretprobe",
    "empty-raw-tp-sys_exit",
    "filter-raw-tp-sys_exit",
    "hash-raw-tp-sys_exit",
    "filltop-fexit",
    "filltop-kprobe",
    "filltop-tracepoint",
    "bpftrace-inode",
    "bpftrace-name",
    "bpftrace-sys_exit_write",
    "filetop",
    "biotop",
    "fatrace",
    "strace",
];

/// Other tools and their Debian packages.
pub(super) const OTHER_TOOLS: &[(&str, &str)] = &[
    ("bpftrace", "bpftrace"),
    ("filetop", "libbpf-tools"),
    ("biotop", "libbpf-tools"),
    ("fatrace", "fatrace"),
    ("strace", "strace"),
];
