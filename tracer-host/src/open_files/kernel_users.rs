//! Files that the kernel itself has open: the backing files of loop devices, and swap files. No
//! process has a descriptor of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tracer_model::snapshot::HeldBy;

use super::mount_lookup::MountLookup;
use crate::mounts::unescape;

/// A deleted file that the kernel has open. How much space it takes is not shown anywhere; the kernel's
/// own list of files without a name has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelUser {
    /// By what it is held.
    pub held_by: HeldBy,
    /// Name of the loop device; for swap, `swap`.
    pub device: String,
    /// Its last path, with ` (deleted)`.
    pub link: PathBuf,
    /// `s_dev` of its volume.
    pub dev: u32,
    /// Inode number; `None` if it cannot be found out.
    pub ino: Option<u64>,
    /// Space that it takes, bytes; `None` if unknown.
    pub bytes: Option<u64>,
}

const DELETED: &[u8] = b" (deleted)";

/// Returns all deleted files of volumes that the kernel has open.
#[must_use]
pub fn find(lookup: &MountLookup) -> Vec<KernelUser> {
    let mut found = loop_devices(lookup);
    let swaps = fs::read("/proc/swaps").unwrap_or_default();
    found.extend(deleted_swap_files(&swaps).filter_map(|(link, bytes)| {
        Some(KernelUser {
            held_by: HeldBy::Swap,
            device: "swap".to_owned(),
            dev: lookup.volume_of_path(&link)?,
            link,
            ino: None,
            bytes: Some(bytes),
        })
    }));
    found
}

fn loop_devices(lookup: &MountLookup) -> Vec<KernelUser> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let devices = entries.flatten().filter_map(|entry| {
        let device = entry.file_name().into_string().ok()?;
        device.strip_prefix("loop")?.parse::<u32>().ok()?;
        // Only a device in use has this file.
        let link = fs::read(entry.path().join("loop/backing_file")).ok()?;
        let link = link.strip_suffix(b"\n").unwrap_or(&link);
        let path = Path::new(OsStr::from_bytes(link.strip_suffix(DELETED)?));
        let status = status(&device);
        // Some filesystems show another device number than the kernel's.
        let dev = status.and_then(|(dev, _)| lookup.device_of_stat(dev));
        Some(KernelUser {
            held_by: HeldBy::LoopDevice,
            device,
            link: PathBuf::from(OsStr::from_bytes(link)),
            dev: dev.or_else(|| lookup.volume_of_path(path))?,
            ino: status.map(|(_, ino)| ino),
            bytes: None,
        })
    });
    devices.collect()
}

/// Returns stat's device number and the inode number of a loop device's backing file; `None` without
/// access to the device (loop(4)).
fn status(device: &str) -> Option<(u64, u64)> {
    const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
    /// `struct loop_info64`: the file's device and inode number are the first two fields.
    const LOOP_INFO64: usize = 232;
    let file = File::open(Path::new("/dev").join(device)).ok()?;
    let mut info = [0u64; LOOP_INFO64 / 8];
    // SAFETY: the kernel writes one struct, for which there is room.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64 as _, info.as_mut_ptr()) };
    // huge_encode_dev() is the encoding of stat.
    (result == 0).then_some((info[0], info[1]))
}

/// Returns path and size in bytes of each swap file in /proc/swaps (proc_swaps(5)) that has no name.
/// The size includes the header, which the kernel leaves out. The file may be longer.
fn deleted_swap_files(swaps: &[u8]) -> impl Iterator<Item = (PathBuf, u64)> {
    const HEADER: u64 = 4096;
    swaps.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let path = unescape(fields.next()?);
        (fields.next()? == b"file" && path.as_os_str().as_bytes().ends_with(DELETED))
            .then_some(())?;
        let kib: u64 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some((path, kib * 1024 + HEADER))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_swap_files_are_found() {
        let swaps = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/vdb                                partition\t1020\t0\t-2\n\
            /srv/swap\\040file                      file\t\t2044\t\t0\t\t-3\n\
            /srv/old\\040swap\\040(deleted)          file\t\t1020\t\t0\t\t-4\n\
            /srv/cut\\040(deleted)";
        let found: Vec<_> = deleted_swap_files(swaps).collect();
        assert_eq!(found, [(PathBuf::from("/srv/old swap (deleted)"), 1 << 20)]);
    }
}
