//! Infrequent events sent through the ring buffer: names of new files, new processes, process
//! exits.

use crate::{FileKey, ProcKey, pod};

/// Type of a record; the first field of each.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// [`NameRecord`]: the name of a file or directory and its parent.
    Name = 1,
    /// [`ProcRecord`]: a process that is seen for the first time.
    Proc = 2,
    /// [`RecordHeader`] and a [`ProcKey`]: a known process has exited.
    Exit = 3,
    /// [`CommRecord`]: a known process has another name now.
    Renamed = 4,
    /// [`CommRecord`]: another thread of a known process writes; the name is the thread's.
    Thread = 5,
    /// [`PlaceRecord`]: the directory of a path that a system call was given.
    Place = 6,
}

/// Longest name of one path component, `NAME_MAX`.
pub const NAME_MAX: usize = 255;
/// Buffer size for a name: `NAME_MAX`, the NUL that the kernel's helper writes, rounded up.
pub const NAME_BUFFER: usize = 256;
/// Bytes of the command line that are kept; the rest is cut off.
pub const CMDLINE_MAX: usize = 256;
/// [`FileKey::dev`] of cgroup v2 directories, whose names are sent like those of files. No real
/// device has this number.
pub const CGROUP_DEV: u32 = u32::MAX;
/// Maximum steps of one walk to the root of the filesystem: a path of 4,096 bytes has at most 2,048
/// components.
pub const WALK_STEPS: u32 = 2_048;
/// The same on kernels without bpf_loop (before 5.17), where the verifier checks each step
/// separately.
pub const WALK_STEPS_UNROLLED: usize = 16;

/// First of the numbers that stand for a device in the kernel's counts until the daemon has found the
/// device: see [`PlaceRecord`]. The major numbers of real devices are below 512.
pub const PLACE_DEV: u32 = 0xF000_0000;
/// Bytes of a path that are kept; the rest is cut off.
pub const PATH_MAX: usize = 256;

/// First part of each record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordHeader {
    /// [`RecordKind`].
    pub kind: u32,
    /// Bytes used in the record's variable part.
    pub len: u32,
}

/// Bits of [`NameRecord::flags`].
pub mod name_flags {
    /// The dentry is the root of its filesystem: it has no name and no parent.
    pub const ROOT: u32 = 1;
    /// Not in any directory: O_TMPFILE, memfd, or unlinked before it was seen.
    pub const UNLINKED: u32 = 2;
    /// Not a directory.
    pub const FILE: u32 = 4;
}

/// The name of one file or directory within its filesystem. Paths are assembled in userspace: a
/// directory is sent once, however many files it contains.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct NameRecord {
    /// Kind [`RecordKind::Name`]; `len` is the length of `name`.
    pub header: RecordHeader,
    /// The file or directory that has this name.
    pub file: FileKey,
    /// The directory that contains it; itself for a root.
    pub parent: FileKey,
    /// [`name_flags`].
    pub flags: u32,
    /// `super_block::s_magic`, lower half.
    pub magic: u32,
    /// `header.len` bytes are valid; not NUL-terminated, may hold anything but `/` and NUL.
    pub name: [u8; NAME_BUFFER],
}

/// A process, described by the kernel at its first write, so it is known even if it exits before
/// the daemon reads /proc.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ProcRecord {
    /// Kind [`RecordKind::Proc`]; `len` is the length of `cmdline`.
    pub header: RecordHeader,
    /// The process.
    pub proc: ProcKey,
    /// Its parent (`real_parent`).
    pub parent: ProcKey,
    /// `bpf_get_current_cgroup_id`: the inode number of its cgroup v2 directory.
    pub cgroup_id: u64,
    /// The executable; all 0 for kernel threads. Its names follow as [`NameRecord`]s.
    pub exe: FileKey,
    /// Real user id.
    pub uid: u32,
    /// `task_struct::flags`; `PF_KTHREAD` is 0x0020_0000.
    pub task_flags: u32,
    /// Name of the process, NUL-padded: that of its main thread.
    pub comm: [u8; 16],
    /// Name of the thread that writes, NUL-padded.
    pub thread: [u8; 16],
    /// Parent of the parent.
    pub grandparent: ProcKey,
    /// Name of its parent, NUL-padded.
    pub parent_comm: [u8; 16],
    /// Name of its parent's parent, NUL-padded.
    pub grandparent_comm: [u8; 16],
    /// Its root directory.
    pub root: FileKey,
    /// Session id: pid of the session's leader in the initial pid namespace.
    pub session: u32,
    /// Inode number of its mount namespace, as `/proc/PID/ns/mnt` shows it.
    pub mnt_ns: u32,
    /// Arguments, each ended by NUL; `header.len` bytes are valid.
    pub cmdline: [u8; CMDLINE_MAX],
}

/// A name of a process that was sent as a [`ProcRecord`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CommRecord {
    /// Kind [`RecordKind::Renamed`] or [`RecordKind::Thread`].
    pub header: RecordHeader,
    /// The process.
    pub proc: ProcKey,
    /// The name, ended by NUL if it is shorter.
    pub comm: [u8; 16],
}

/// The directory of a path that a process gave to a system call, where no hook reports the
/// directory itself. Sent before the first count with `place` in the place of a device, and again each
/// second.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PlaceRecord {
    /// Kind [`RecordKind::Place`]; `len` is the length of the directory in `path`, with the slash at its
    /// end.
    pub header: RecordHeader,
    /// The process.
    pub proc: ProcKey,
    /// The directory that a relative path starts from.
    pub base: FileKey,
    /// The process's root directory.
    pub root: FileKey,
    /// [`PLACE_DEV`] + a hash of the directory.
    pub place: u32,
    /// Inode number of its mount namespace, as `/proc/PID/ns/mnt` shows it.
    pub mnt_ns: u32,
    /// Descriptor of `base`; `AT_FDCWD` for the working directory.
    pub fd: i32,
    /// Always 0.
    pub pad: u32,
    /// The path as given; only the directory is meant.
    pub path: [u8; PATH_MAX],
}

/// The exit of a process that was sent as a [`ProcRecord`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExitRecord {
    /// Kind [`RecordKind::Exit`].
    pub header: RecordHeader,
    /// The process.
    pub proc: ProcKey,
}

/// An open file as reported by the iterators over descriptors and over mappings: a regular file that
/// is open, or mapped and shared, for writing, or that has no name.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct OpenFileRecord {
    /// `inode::i_ino`. For a file of an overlay, this and all fields below are those of the file
    /// behind it.
    pub ino: u64,
    /// Space charged to the file, as st_blocks × 512.
    pub bytes: u64,
    /// `super_block::s_dev`.
    pub dev: u32,
    /// Pid of the process that has it open.
    pub pid: u32,
    /// File descriptor number; 0 for a mapping.
    pub fd: u32,
    /// `inode::i_nlink`.
    pub links: u32,
    /// 1 if it is open for writing.
    pub writable: u32,
    /// 1 if this is an overlay's own inode, because the eBPF side does not know what is behind it.
    pub overlay: u32,
    /// First address of the mapping; 0 for a descriptor.
    pub start: u64,
}

/// Buffer size for the name in an [`UnlinkedRecord`]; a longer name is left out.
pub const UNLINKED_NAME: usize = 88;
/// Maximum number of [`UnlinkedRecord`]s in one result.
pub const UNLINKED_MAX: u32 = 2_048;

/// A regular file in the kernel's memory that has no name left.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UnlinkedRecord {
    /// `inode::i_ino`.
    pub ino: u64,
    /// Space charged to the file, as st_blocks × 512.
    pub bytes: u64,
    /// `super_block::s_dev`.
    pub dev: u32,
    /// `inode::i_generation`.
    pub generation: u32,
    /// `inode::i_flags`: [`unlinked::SWAPFILE`].
    pub flags: u32,
    /// For a descriptor in flight: pid of the process that has the receiving socket open; else 0.
    pub pid: u32,
    /// Number of bytes that are valid in `name`.
    pub name_len: u32,
    /// Always 0.
    pub pad: u32,
    /// The file's last name.
    pub name: [u8; UNLINKED_NAME],
}

/// The state of a search for [`UnlinkedRecord`]s. The daemon clears it before the search.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct UnlinkedSearch {
    /// Number of records that were found, which may be more than there is room for.
    pub count: u64,
    /// [`unlinked::GOES_ON`], [`unlinked::COMPLETE`] or [`unlinked::BROKEN`].
    pub status: u64,
    /// Address of the list node in the inode where the search goes on; 0 at its start.
    pub node: u64,
    /// Number of that inode.
    pub ino: u64,
    /// Its generation.
    pub generation: u64,
}

/// Constants of [`UnlinkedRecord`] and [`UnlinkedSearch`].
pub mod unlinked {
    /// The kernel uses the file as swap space (S_SWAPFILE).
    pub const SWAPFILE: u32 = 1 << 8;
    /// There are more inodes.
    pub const GOES_ON: u64 = 0;
    /// All inodes were seen.
    pub const COMPLETE: u64 = 1;
    /// The inode where the search was to go on has been evicted.
    pub const BROKEN: u64 = 2;
}

pod!(
    RecordHeader,
    NameRecord,
    ProcRecord,
    ExitRecord,
    OpenFileRecord,
    UnlinkedRecord,
    UnlinkedSearch,
    CommRecord,
    PlaceRecord
);
const _: () = assert!(size_of::<OpenFileRecord>() == 48);
const _: () = assert!(size_of::<UnlinkedRecord>() == 128);
const _: () = assert!(size_of::<PlaceRecord>() == 8 + 16 + 16 + 16 + 16 + PATH_MAX);
const _: () = assert!(size_of::<NameRecord>() == 8 + 16 + 16 + 8 + NAME_BUFFER);
const _: () = assert!(size_of::<ProcRecord>() == 8 + 16 + 16 + 8 + 16 + 8 + 16 + 88 + CMDLINE_MAX);
const _: () = assert!(size_of::<CommRecord>() == 40);
const _: () = assert!(size_of::<ExitRecord>() == 24);
