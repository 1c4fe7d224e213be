//! Devices of the directories that system calls named, where no hook reports the directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tracer_common::ProcKey;
use tracer_common::records::{PATH_MAX, PLACE_DEV, PlaceRecord};
use tracer_host::path_device::{RecentMounts, Start, device};

use super::views::Views;

/// Maximum number of directories that are remembered.
const MAX_PLACES: usize = 16_384;

/// Devices by the numbers that stand for them in the kernel's counts.
#[derive(Default)]
pub struct Places {
    /// Keyed by process and number; `None` if the device was not found.
    known: HashMap<(ProcKey, u32), Option<u32>>,
    mounts: RecentMounts,
}

impl Places {
    /// Looks up the directory of a record. It is sent again each second, because another filesystem may
    /// have been mounted there.
    pub(crate) fn insert(&mut self, record: &PlaceRecord, views: &Views) {
        const AT_FDCWD: i32 = -100;
        let len = (record.header.len as usize).min(PATH_MAX);
        let dir = Path::new(OsStr::from_bytes(&record.path[..len]));
        let start = match record.fd {
            _ if dir.is_absolute() => Start::Root,
            AT_FDCWD => Start::WorkingDirectory(record.base.ino),
            fd => Start::Descriptor(fd, record.base.ino),
        };
        let view = (record.mnt_ns, record.root.ino, record.root.dev);
        let known = views.mounts(record.mnt_ns);
        let found = device(&record.proc, view, dir, start, known, &mut self.mounts);
        // A relative path mostly stays on the filesystem where it starts.
        let found = found.or_else(|| (start != Start::Root).then_some(record.base.dev));
        if self.known.len() >= MAX_PLACES {
            self.known.clear();
        }
        self.known.insert((record.proc, record.place), found);
    }

    /// Ends a batch of records.
    pub(crate) fn end_batch(&mut self) {
        self.mounts.close();
    }

    /// The device that a number in the kernel's counts stands for: mostly itself. `None` if it is not
    /// known, or not known yet.
    pub(crate) fn device(&self, proc: &ProcKey, dev: u32) -> Option<u32> {
        if dev < PLACE_DEV {
            return Some(dev);
        }
        self.known.get(&(*proc, dev)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use tracer_common::FileKey;

    use super::*;

    #[test]
    fn a_relative_path_falls_back_to_where_it_starts() {
        let gone = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut record = PlaceRecord::zeroed();
        record.proc = gone;
        record.base = FileKey { ino: 7, generation: 0, dev: 8 << 20 };
        record.place = PLACE_DEV | 5;
        record.header.len = 2;
        record.path[..3].copy_from_slice(b"a/b");
        let mut places = Places::default();
        assert_eq!(places.device(&gone, record.place), None);
        places.insert(&record, &Views::default());
        assert_eq!(places.device(&gone, record.place), Some(8 << 20));
        let other = ProcKey { tgid: 2, ..gone };
        assert_eq!(places.device(&other, record.place), None);
        record.path[..3].copy_from_slice(b"/ab");
        record.header.len = 1;
        record.mnt_ns = 1;
        places.insert(&record, &Views::default());
        assert_eq!(places.device(&gone, record.place), None, "nothing is known of its mounts");
        assert_eq!(places.device(&gone, 8 << 20), Some(8 << 20));
    }
}
