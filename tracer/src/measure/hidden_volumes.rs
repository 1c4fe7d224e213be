//! The space of volumes that later mounts hide. No path leads to them, but a process that writes to
//! one has a descriptor on it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tracer_common::FileKey;
use tracer_host::mounts::{MountedVolume, Space};

/// Where to look for the space of hidden volumes, keyed by device.
#[derive(Default)]
pub(super) struct HiddenVolumes {
    /// The last process that wrote to each.
    writers: HashMap<u32, u32>,
}

impl HiddenVolumes {
    /// Records which processes have written: pid and file.
    pub(super) fn note_writers(
        &mut self,
        mounted: &[MountedVolume],
        written: impl Iterator<Item = (u32, FileKey)>,
    ) {
        self.writers.retain(|dev, _| is_hidden(mounted, *dev));
        if !mounted.iter().any(MountedVolume::is_hidden) {
            return;
        }
        for (pid, file) in written {
            if is_hidden(mounted, file.dev) && descriptor(pid, file.dev).is_some() {
                self.writers.insert(file.dev, pid);
            }
        }
    }

    /// The space of a hidden volume, while a process that has written to it has a file open there.
    pub(super) fn space(&self, volume: &MountedVolume) -> Option<Space> {
        Space::at(&descriptor(*self.writers.get(&volume.dev)?, volume.dev)?)
    }
}

fn is_hidden(mounted: &[MountedVolume], dev: u32) -> bool {
    mounted.iter().any(|volume| volume.dev == dev && volume.is_hidden())
}

/// A descriptor of the process on the device. A btrfs, whose files have another device number, is
/// not found.
fn descriptor(pid: u32, dev: u32) -> Option<PathBuf> {
    let device = libc::makedev(dev >> 20, dev & 0xf_ffff);
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    descriptors
        .map(|entry| entry.path())
        .find(|path| fs::metadata(path).is_ok_and(|meta| meta.dev() == device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_an_open_file_is_that_of_its_volume() {
        let file = tempfile::tempfile().unwrap();
        let stat = file.metadata().unwrap().dev();
        let dev = libc::major(stat) << 20 | libc::minor(stat);
        let path = descriptor(std::process::id(), dev).expect("it is open");
        assert!(Space::at(&path).unwrap().total > 0);
        assert_eq!(descriptor(std::process::id(), 4095 << 20), None);
    }
}
