//! Writes a recording: append-only, bounded, and never the cause of a full disk.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock, fstatvfs};
use tracer_model::snapshot::Snapshot;
use tracer_model::units::Units;

use super::record;
use super::segments::{MAX_SEGMENTS, MAX_SIZE, MIN_SIZE, segment_path};

/// Minimum number of segments, so that deleting the oldest loses an eighth at most.
const MIN_SEGMENTS: u32 = 8;
/// Approximate size of a segment in recordings of more than [`MIN_SEGMENTS`] segments, bytes.
const SEGMENT_SIZE: u64 = 16 << 20;
/// A volume with less than this share available is nearly full, as for the default alert.
const NEARLY_FULL: f64 = 0.05;

/// An open recording.
///
/// The space of the current segment is preallocated, so that recording continues while another
/// process fills the volume, which is when it matters. On a volume that has become nearly full, an
/// old segment is deleted before a new one is begun: the recording does not grow there.
pub struct Recorder {
    path: PathBuf,
    file: File,
    /// Length of the current segment, bytes.
    length: u64,
    /// Maximum length of a segment, bytes.
    segment_size: u64,
    /// Maximum number of segments.
    segments: u32,
    /// Number of Snapshots larger than a segment.
    too_large: u64,
}

impl Recorder {
    /// Creates a recording of at most `max_size` bytes in total, or continues an existing one.
    ///
    /// # Errors
    /// If the volume is nearly full or would be with the recording, if `path` is not a recording,
    /// if another filltop writes to it, or if it cannot be opened.
    pub fn open(path: &Path, max_size: u64) -> anyhow::Result<Self> {
        let max_size = max_size.clamp(MIN_SIZE, MAX_SIZE);
        let segments =
            (max_size / SEGMENT_SIZE).clamp(MIN_SEGMENTS.into(), MAX_SEGMENTS.into()) as u32;
        let segment_size = max_size / u64::from(segments);
        let exists = |age: &u32| segment_path(path, *age).exists();
        let existing = u64::from((0..segments).filter(exists).count() as u32) * segment_size;
        let file = open(path)?;
        let space = Space::of(&file)?;
        if space.left_after(max_size.saturating_sub(existing)) < NEARLY_FULL {
            let empty = file.metadata().is_ok_and(|meta| meta.len() == 0);
            if empty {
                let _ = fs::remove_file(path);
            }
            bail!(
                "not recording to {}: its volume has {} available, and a recording of {} would \
                 leave less than 5 %; choose another volume or a smaller --max-size",
                path.display(),
                Units::Iec.bytes(space.avail),
                Units::Iec.bytes(max_size)
            );
        }
        let length = file.metadata()?.len();
        let mut recorder =
            Self { path: path.to_owned(), file, length, segment_size, segments, too_large: 0 };
        // Segments that are left from a larger --max-size.
        recorder.drop_older_than(segments);
        if recorder.length < segment_size {
            recorder.preallocate()?;
        }
        Ok(recorder)
    }

    /// Appends a Snapshot.
    ///
    /// # Errors
    /// If the file cannot be written; what was recorded before stays readable.
    pub fn push(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let record = record::encode(snapshot)?;
        let size = record.len() as u64;
        if size > self.segment_size {
            self.too_large += 1;
            return Ok(());
        }
        if self.length + size > self.segment_size {
            self.next_segment()?;
        }
        self.file
            .write_all(&record)
            .with_context(|| format!("cannot write to {}", self.path.display()))?;
        self.length += size;
        Ok(())
    }

    /// Number of Snapshots that were not recorded because each was larger than a segment.
    #[must_use]
    pub const fn too_large(&self) -> u64 {
        self.too_large
    }

    fn next_segment(&mut self) -> anyhow::Result<()> {
        // Release preallocated space that was not used.
        self.file.set_len(self.length)?;
        let full = Space::of(&self.file)?.left_after(self.segment_size) < NEARLY_FULL;
        // None, if FILE itself was moved away meanwhile.
        let count = (0..self.segments).take_while(|&age| segment_path(&self.path, age).exists());
        let keep = if full { (count.count() as u32).saturating_sub(1) } else { self.segments - 1 };
        if keep == 0 {
            bail!(
                "the volume of {} is nearly full, and the recording has no older segment to \
                 delete; recording stops",
                self.path.display()
            );
        }
        self.drop_older_than(keep);
        for age in (0..keep).rev() {
            let from = segment_path(&self.path, age);
            if from.exists() {
                fs::rename(&from, segment_path(&self.path, age + 1))?;
            }
        }
        self.file = open(&self.path)?;
        self.length = 0;
        self.preallocate()
    }

    fn drop_older_than(&mut self, keep: u32) {
        for age in keep..MAX_SEGMENTS {
            let _ = fs::remove_file(segment_path(&self.path, age));
        }
    }

    fn preallocate(&self) -> anyhow::Result<()> {
        let rest = self.segment_size - self.length;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, rest) {
            // Some filesystems cannot preallocate.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(io::Error::from(error)).with_context(|| {
                format!("cannot preallocate {} for {}", Units::Iec.bytes(rest), self.path.display())
            }),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Releases preallocated space.
        let _ = self.file.set_len(self.length);
    }
}

/// Space of a file's volume, bytes.
struct Space {
    total: u64,
    avail: u64,
}

impl Space {
    fn of(file: &File) -> anyhow::Result<Self> {
        let stat = fstatvfs(file)?;
        Ok(Self { total: stat.f_blocks * stat.f_frsize, avail: stat.f_bavail * stat.f_frsize })
    }

    /// Share of the volume that is available after another `bytes` bytes are used.
    fn left_after(&self, bytes: u64) -> f64 {
        self.avail.saturating_sub(bytes) as f64 / self.total.max(1) as f64
    }
}

/// Opens a segment for appending, readable by its owner only, because command lines can contain
/// secrets, and locked against other recorders.
fn open(path: &Path) -> anyhow::Result<File> {
    let named = || format!("cannot record to {}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // Do not follow a link, nor wait for a pipe, that another user may have put there.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .with_context(named)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        bail!("{}: it is not a regular file", named());
    }
    if meta.len() > 0 {
        let mut magic = [0; record::MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != record::MAGIC {
            bail!("{}: the file exists and is not a recording; choose another name", named());
        }
    }
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("{}: another filltop is recording to it", named());
    }
    file.set_permissions(Permissions::from_mode(0o600)).with_context(named)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Damage, read};
    use tracer_model::fixtures;

    fn numbered(n: i64) -> Snapshot {
        let mut snapshot = fixtures::busy();
        snapshot.taken_at = jiff::Timestamp::from_second(fixtures::NOW + n).unwrap();
        // Text that does not compress well, so that segments fill.
        let noise = |i: u64| (n.cast_unsigned() * 31 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let text: String = (0..6_000).map(|i| format!("{:x}", noise(i) >> 40)).collect();
        snapshot.writers[0].cmdline = Some(text);
        snapshot
    }

    fn seconds(path: &Path) -> (Vec<i64>, Damage) {
        let mut seconds = vec![];
        let damage =
            read(path, |one| seconds.push(one.taken_at.as_second() - fixtures::NOW)).unwrap();
        (seconds, damage)
    }

    #[test]
    fn the_oldest_segment_is_deleted_at_the_size_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rec");
        let mut recorder = Recorder::open(&path, MIN_SIZE).unwrap();
        assert!(Recorder::open(&path, MIN_SIZE).is_err(), "a second recorder");
        for n in 0..400 {
            recorder.push(&numbered(n)).unwrap();
        }
        assert_eq!(recorder.too_large(), 0);
        drop(recorder);
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 8);
        let sizes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(sizes <= MIN_SIZE && sizes > MIN_SIZE / 2, "{sizes}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let (kept, damage) = seconds(&path);
        assert_eq!(damage, Damage::default());
        assert!(kept[0] > 0, "the oldest are deleted");
        assert_eq!(kept, (kept[0]..400).collect::<Vec<_>>());
        // It continues where it was, after the torn record that a kill left behind.
        let torn = fs::metadata(&path).unwrap().len() - 7;
        File::options().write(true).open(&path).unwrap().set_len(torn).unwrap();
        let mut recorder = Recorder::open(&path, MIN_SIZE).unwrap();
        recorder.push(&numbered(400)).unwrap();
        drop(recorder);
        let (kept, damage) = seconds(&path);
        assert_eq!(&kept[kept.len() - 2..], [398, 400]);
        assert!(damage.garbage_bytes > 0);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        fs::write(&path, "Dear Sir").unwrap();
        assert!(Recorder::open(&path, MIN_SIZE).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"Dear Sir");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(Recorder::open(&link, MIN_SIZE).is_err());
        assert!(Recorder::open(dir.path(), MIN_SIZE).is_err());
        assert!(read(&path, |_| ()).is_err());
        assert!(read(dir.path(), |_| ()).is_err());
    }
}
