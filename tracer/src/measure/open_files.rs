//! All open files, and all files without a name whoever holds them: what the kernel side reports,
//! completed from /proc, and compared with the inodes that each volume has in memory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_common::records::unlinked;
use tracer_common::{FileKey, UnlinkedRecord};
use tracer_host::mounts::MountedVolume;
use tracer_host::open_files::kernel_users::{self, KernelUser};
use tracer_host::open_files::mount_lookup::{MountLookup, may_hang};
use tracer_host::open_files::{OpenFile, OpenFiles};
use tracer_host::{host_root, open_files};
use tracer_kernel::open_files::{OpenFileReader, OpenFileSource};
use tracer_model::snapshot::HeldBy;

/// Maximum number of inodes that are searched on one volume: a third of a second, at 0.35 µs for each
/// inode that is not in the CPU's cache.
const MAX_INODES: u32 = 1 << 20;

/// Finds the path of a file by its key, from names seen earlier; `None` if it is unknown.
pub type NameLookup<'a> = &'a mut dyn FnMut(&FileKey) -> Option<PathBuf>;

/// The result of one scan.
#[derive(Default)]
pub struct OpenFileScan {
    /// All open files, those that only a mapping or the kernel holds included. Files that are only
    /// mapped for writing are there if `has_mappings`.
    pub open: OpenFiles,
    /// Whether mappings were read.
    pub has_mappings: bool,
    /// Devices of the volumes on which every file without a name is known.
    pub complete: HashSet<u32>,
    /// Devices of the volumes with a file without a name whose size is unknown.
    pub unsized_on: HashSet<u32>,
    /// Whether processes are hidden: /proc does not even show their number.
    pub hides_processes: bool,
}

/// What a scan is made of.
pub struct ScanInput<'a> {
    /// The kernel side, if it is there.
    pub source: Option<&'a mut dyn OpenFileSource>,
    /// All mounted volumes.
    pub volumes: &'a [MountedVolume],
    /// Their mounts.
    pub lookup: &'a MountLookup,
    /// Names of files whose holder has no link to them.
    pub names: NameLookup<'a>,
    /// Whether mappings must be read even if no file without a name is there.
    pub want_mappings: bool,
}

/// Scans once, for a command that traces nothing. The kernel side is loaded if it can be.
#[must_use]
pub fn scan_once(volumes: &[MountedVolume], lookup: &MountLookup) -> OpenFileScan {
    let mut reader = OpenFileReader::load()
        .inspect_err(|error| tracing::debug!("open files are read from /proc: {error:#}"))
        .ok();
    scan(ScanInput {
        source: reader.as_mut().map(|reader| reader as &mut dyn OpenFileSource),
        volumes,
        lookup,
        names: &mut |_| None,
        want_mappings: true,
    })
}

/// Files without a name, by device and inode number.
type Unlinked = HashMap<(u32, u64), UnlinkedRecord>;

/// Scans all processes, and all volumes that can be searched.
#[must_use]
pub fn scan(input: ScanInput<'_>) -> OpenFileScan {
    let ScanInput { mut source, volumes, lookup, names, want_mappings } = input;
    // Before the descriptors are read, and again afterwards: a file that was closed or removed in
    // between is in only one of the two, and is held by nobody.
    let (before, complete) = search(&mut source, volumes, |_| true);
    let hides_processes = !host_root::sees_all_processes();
    let mut scan = OpenFileScan { complete, hides_processes, ..OpenFileScan::default() };
    scan.open = match source.as_mut().and_then(|source| source.descriptors()) {
        Some(records) => open_files::from_bpf(&records, lookup),
        None => open_files::from_proc(lookup),
    };
    // Reading mappings costs as much as reading descriptors, and most hosts have no such file.
    let all_searched = volumes.iter().all(|volume| scan.complete.contains(&volume.dev));
    if want_mappings || !before.is_empty() || !all_searched {
        let mapped = match source.as_mut().and_then(|source| source.mappings()) {
            Some(records) => open_files::from_bpf(&records, lookup),
            None => open_files::mappings_from_proc(lookup),
        };
        scan.open.unreadable.extend(mapped.unreadable);
        scan.open.files.extend(mapped.files);
        scan.has_mappings = true;
    }
    scan.add_kernel_users(kernel_users::find(lookup), &before);
    let held: HashSet<(u32, u64)> = scan
        .open
        .files
        .iter()
        .filter(|file| file.links == 0 && file.overlay.is_none())
        .map(|file| (file.dev, file.ino))
        .collect();
    let mut unknown: Unlinked = before;
    unknown.retain(|key, _| !held.contains(key));
    if !unknown.is_empty() {
        let mut naming = Naming { lookup, names };
        scan.add_in_flight(&mut source, &mut unknown, &mut naming);
        if !unknown.is_empty() {
            let devices: HashSet<u32> = unknown.keys().map(|(dev, _)| *dev).collect();
            let (after, _) = search(&mut source, volumes, |dev| devices.contains(&dev));
            let still = unknown.keys().filter_map(|key| after.get(key));
            scan.open.files.extend(still.map(|record| naming.file(record, holder(record), 0)));
        }
    }
    scan.open.sort();
    scan
}

/// Whether the kernel itself marks the file as its own.
const fn holder(record: &UnlinkedRecord) -> HeldBy {
    if record.flags & unlinked::SWAPFILE != 0 { HeldBy::Swap } else { HeldBy::Unknown }
}

/// Searches volumes for files without a name. Returns the files, and the devices that were searched
/// completely.
fn search(
    source: &mut Option<&mut dyn OpenFileSource>,
    volumes: &[MountedVolume],
    wanted: impl Fn(u32) -> bool,
) -> (Unlinked, HashSet<u32>) {
    let (mut found, mut complete) = (Unlinked::new(), HashSet::new());
    let Some(source) = source else { return (found, complete) };
    for volume in volumes.iter().filter(|volume| wanted(volume.dev) && !may_hang(&volume.fs_type)) {
        let Some(root) = volume.open_path() else { continue };
        let Some(records) = source.unlinked(root.as_fd(), MAX_INODES) else { continue };
        let own = records.into_iter().filter(|record| record.dev == volume.dev);
        found.extend(own.map(|record| ((record.dev, record.ino), record)));
        complete.insert(volume.dev);
    }
    (found, complete)
}

impl OpenFileScan {
    /// Whether the sum of the files without a name on a volume is known.
    #[must_use]
    pub fn knows_held(&self, dev: u32) -> bool {
        let saw_all = self.open.unreadable.is_empty() && !self.hides_processes;
        self.complete.contains(&dev) || (saw_all && !self.unsized_on.contains(&dev))
    }

    /// Adds deleted files that the kernel has open.
    fn add_kernel_users(&mut self, users: Vec<KernelUser>, unlinked: &Unlinked) {
        for user in users {
            let is_it = |record: &&UnlinkedRecord| match user.ino {
                Some(ino) => (record.dev, record.ino) == (user.dev, ino),
                None => record.dev == user.dev && holder(record) == user.held_by,
            };
            let record = unlinked.values().find(is_it);
            let ours = |file: &&OpenFile| (file.dev, Some(file.ino)) == (user.dev, user.ino);
            let also_open = self.open.files.iter().find(ours).map(|file| file.bytes);
            let bytes = record.map(|record| record.bytes).or(also_open).or(user.bytes);
            let Some(bytes) = bytes else {
                self.unsized_on.insert(user.dev);
                continue;
            };
            self.open.files.push(OpenFile {
                pid: 0,
                held_by: user.held_by,
                fd: None,
                device: Some(user.device),
                link: user.link,
                dev: user.dev,
                ino: record.map(|record| record.ino).or(user.ino).unwrap_or(0),
                overlay: None,
                bytes,
                links: 0,
                writable: false,
            });
        }
    }

    /// Adds files whose descriptors are under way in UNIX sockets, and removes them from `unknown`.
    fn add_in_flight(
        &mut self,
        source: &mut Option<&mut dyn OpenFileSource>,
        unknown: &mut Unlinked,
        naming: &mut Naming<'_>,
    ) {
        let records = source.as_mut().and_then(|source| source.in_flight()).unwrap_or_default();
        let mut found = HashSet::new();
        for record in records {
            let key = (record.dev, record.ino);
            // Several processes may have the receiving socket open.
            if unknown.contains_key(&key) && found.insert((key, record.pid)) {
                self.open.files.push(naming.file(&record, HeldBy::Socket, record.pid));
            }
        }
        for (key, _) in found {
            unknown.remove(&key);
        }
    }
}

/// Finds paths of files that no link in /proc leads to.
struct Naming<'a> {
    lookup: &'a MountLookup,
    names: NameLookup<'a>,
}

impl Naming<'_> {
    fn file(&mut self, record: &UnlinkedRecord, held_by: HeldBy, pid: u32) -> OpenFile {
        let UnlinkedRecord { dev, ino, generation, bytes, .. } = *record;
        let known = (self.names)(&FileKey { ino, generation, dev });
        let link = known.unwrap_or_else(|| self.lookup.unnamed(dev, ino, name(record)));
        OpenFile {
            pid,
            held_by,
            fd: None,
            device: None,
            link: deleted(link),
            dev,
            ino,
            overlay: None,
            bytes,
            links: 0,
            writable: false,
        }
    }
}

/// Marks a path as /proc does.
fn deleted(path: PathBuf) -> PathBuf {
    let mut marked = path.into_os_string();
    marked.push(" (deleted)");
    marked.into()
}

/// The last name of a file; `None` if it is unknown.
fn name(record: &UnlinkedRecord) -> Option<&Path> {
    let name = record.name.get(..record.name_len as usize)?;
    (!name.is_empty() && !name.contains(&b'/')).then(|| Path::new(OsStr::from_bytes(name)))
}
