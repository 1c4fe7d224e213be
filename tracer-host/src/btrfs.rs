//! How a btrfs divides its space: chunks for data, for metadata and for its own tables, and space in no
//! chunk yet. statvfs(3) describes only the data: creating a file can fail for lack of metadata
//! while `df` shows free space.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use tracer_model::snapshot::BtrfsSpace;

/// Where the kernel shows all mounted btrfs.
const SYSFS: &str = "/sys/fs/btrfs";
/// The start of each device holds no chunk: `BTRFS_DEVICE_RANGE_RESERVED`.
const RESERVED_PER_DEVICE: u64 = 1 << 20;
/// The last part of the metadata that no file can be created in, because a transaction reserves more
/// than it will use. `btrfs_statfs` calculates with the same constant.
const UNUSABLE_METADATA: u64 = 4 << 20;

/// A mounted btrfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Btrfs {
    /// Its directory below `/sys/fs/btrfs`.
    sysfs: PathBuf,
    /// Size of all its devices that can be allocated, bytes.
    devices_bytes: u64,
}

/// The space of a btrfs at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// As the Snapshot has it.
    pub space: BtrfsSpace,
    /// The most that metadata can use, in the unit of `metadata_used_bytes`: its chunks, and those
    /// that can still be made from unallocated space.
    pub metadata_max_bytes: u64,
}

impl Reading {
    /// Metadata that can still be used, bytes.
    #[must_use]
    pub const fn metadata_left_bytes(&self) -> u64 {
        self.metadata_max_bytes.saturating_sub(self.space.metadata_used_bytes)
    }

    /// Space for data in chunks that exist, bytes.
    #[must_use]
    pub const fn data_left_bytes(&self) -> u64 {
        self.space.data_total_bytes.saturating_sub(self.space.data_used_bytes)
    }
}

impl Btrfs {
    /// Finds the btrfs that an open directory is on. `None` for another filesystem, or if the kernel
    /// does not show it in /sys.
    #[must_use]
    pub fn of(directory: impl AsFd) -> Option<Self> {
        let mut info = [0_u64; 128];
        if !ioctl(&directory, FS_INFO, &mut info) {
            return None;
        }
        // struct btrfs_ioctl_fs_info_args: max_id, num_devices, fsid[16].
        let [max_id, _, fsid @ ..] = &info;
        let sysfs = Path::new(SYSFS).join(uuid([fsid[0], fsid[1]]));
        // Numbers of removed devices are not used again; more than this are not searched.
        let sizes = (1..=(*max_id).min(4_096)).filter_map(|id| device_bytes(&directory, id));
        let devices_bytes = sizes.map(|size| size.saturating_sub(RESERVED_PER_DEVICE)).sum();
        sysfs.is_dir().then_some(Self { sysfs, devices_bytes })
    }

    /// Its directory below `/sys/fs/btrfs`.
    #[must_use]
    pub fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    /// Reads its present space. `None` if data and metadata share their chunks (statvfs describes
    /// these), or if it is not mounted any more.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        let allocation = self.sysfs.join("allocation");
        let [data, metadata, system] =
            ["data", "metadata", "system"].map(|kind| Chunks::read(&allocation.join(kind)));
        let (data, metadata) = (data?, metadata?);
        let reserve = number(&allocation.join("global_rsv_size"))?;
        let on_disk = data.on_disk + metadata.on_disk + system.map_or(0, |system| system.on_disk);
        let unallocated = self.devices_bytes.saturating_sub(on_disk);
        let more = (unallocated as f64 / metadata.copies()) as u64;
        let space = BtrfsSpace {
            data_total_bytes: data.total,
            data_used_bytes: data.used,
            metadata_total_bytes: metadata.total,
            metadata_used_bytes: metadata.used + reserve,
            unallocated_bytes: (unallocated as f64 / data.copies()) as u64,
        };
        let metadata_max_bytes = (metadata.total + more).saturating_sub(UNUSABLE_METADATA);
        (metadata.total > 0).then_some(Reading { space, metadata_max_bytes })
    }
}

/// The chunks of one kind.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    total: u64,
    /// Used, or in chunks that are read-only, as during a balance.
    used: u64,
    /// With all copies.
    on_disk: u64,
}

impl Chunks {
    fn read(directory: &Path) -> Option<Self> {
        let read = |name| number(&directory.join(name));
        Some(Self {
            total: read("total_bytes")?,
            used: read("bytes_used")? + read("bytes_readonly").unwrap_or(0),
            on_disk: read("disk_total")?,
        })
    }

    /// Number of copies: 2 for DUP and RAID1. With parity it is not whole.
    fn copies(&self) -> f64 {
        if self.total == 0 { 1.0 } else { (self.on_disk as f64 / self.total as f64).max(1.0) }
    }
}

pub(crate) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A UUID as text; `halves` are its bytes in memory.
fn uuid(halves: [u64; 2]) -> String {
    let bytes = halves.map(u64::to_ne_bytes).concat();
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// `BTRFS_IOC_FS_INFO` (linux/btrfs.h): `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`, 1,024
/// bytes.
const FS_INFO: libc::c_ulong = 0x8400_941f;
/// `BTRFS_IOC_DEV_INFO`: `_IOWR(0x94, 30, struct btrfs_ioctl_dev_info_args)`, 4,096 bytes.
const DEV_INFO: libc::c_ulong = 0xd000_941e;

/// Size of a device of the filesystem, bytes; `None` if it has no device of this number.
fn device_bytes(directory: &impl AsFd, id: u64) -> Option<u64> {
    // devid, uuid[16], bytes_used, total_bytes.
    let mut info = [0_u64; 512];
    info[0] = id;
    ioctl(directory, DEV_INFO, &mut info).then_some(info[4])
}

fn ioctl<const N: usize>(
    directory: &impl AsFd,
    request: libc::c_ulong,
    argument: &mut [u64; N],
) -> bool {
    let descriptor = directory.as_fd().as_raw_fd();
    // SAFETY: both requests read and write a structure of the size that they encode, which is that
    // of the array.
    unsafe { libc::ioctl(descriptor, request as _, argument.as_mut_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A directory as in /sys/fs/btrfs, of a btrfs on one device of 600 MiB.
    fn on_600_mib(data: [u64; 3], metadata: [u64; 3]) -> (tempfile::TempDir, Btrfs) {
        let dir = tempfile::tempdir().unwrap();
        let allocation = dir.path().join("allocation");
        let chunks = [("data", data), ("metadata", metadata), ("system", [8, 0, 16])];
        for (kind, [total, used, on_disk]) in chunks {
            let kind = allocation.join(kind);
            fs::create_dir_all(&kind).unwrap();
            let write = |name, mib: u64| {
                fs::write(kind.join(name), format!("{}\n", mib * MIB)).unwrap();
            };
            write("total_bytes", total);
            write("bytes_used", used);
            write("bytes_readonly", 0);
            write("disk_total", on_disk);
        }
        fs::write(allocation.join("global_rsv_size"), format!("{}\n", 5 * MIB)).unwrap();
        let btrfs = Btrfs { sysfs: dir.path().to_owned(), devices_bytes: 599 * MIB };
        (dir, btrfs)
    }

    #[test]
    fn metadata_can_use_what_is_not_allocated_divided_by_its_copies() {
        let (_dir, btrfs) = on_600_mib([100, 80, 100], [32, 8, 64]);
        let Reading { space, metadata_max_bytes } = btrfs.read().unwrap();
        assert_eq!(space.unallocated_bytes, (599 - 100 - 64 - 16) * MIB);
        assert_eq!(space.metadata_used_bytes, 13 * MIB);
        assert_eq!(metadata_max_bytes, 32 * MIB + (599 - 180) * MIB / 2 - 4 * MIB);
    }

    #[test]
    fn metadata_runs_out_while_data_is_free() {
        // As measured when the creation of a file first failed.
        let (_dir, btrfs) = on_600_mib([519, 343, 519], [32, 23, 64]);
        let reading = btrfs.read().unwrap();
        assert_eq!((reading.metadata_left_bytes(), reading.data_left_bytes()), (0, 176 * MIB));
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Btrfs { sysfs: dir.path().to_owned(), devices_bytes: MIB };
        assert_eq!(gone.read(), None);
        assert_eq!(Btrfs::of(fs::File::open("/proc").unwrap()), None);
    }

    #[test]
    fn a_uuid_is_written_as_sysfs_writes_it() {
        let bytes = *b"\x11\xc7\xba\xb5\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\xff";
        let (halves, _) = bytes.as_chunks::<8>();
        let halves = [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])];
        assert_eq!(uuid(halves), "11c7bab5-0001-0203-0405-060708090aff");
    }
}
