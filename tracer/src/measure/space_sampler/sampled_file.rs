//! A file whose space is sampled.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use tracer_common::{Counters, ProcKey, slot_flags};

use super::handle::Handle;

/// State of a sampled file.
pub(super) struct SampledFile {
    pub(super) handle: Handle,
    /// Bytes that its filesystem charged to it at the last sample.
    pub(super) usage: u64,
    /// Part of them, in bytes, that is not taken from the volume because it was compressed.
    pub(super) saved: u64,
    /// Process that wrote most to it in the last sample that saw it written.
    pub(super) owner: ProcKey,
    /// Number of that sample.
    pub(super) written_at: u64,
    /// Whether the removal of its last name was reported.
    pub(super) unlinked: bool,
}

impl SampledFile {
    /// Returns the changes since the last sample; `saved` is the number of the file's bytes that
    /// compression saved meanwhile.
    pub(super) fn sample(&mut self, root: &File, saved: u64) -> Counters {
        let (now, names) = match self.handle.open(root).and_then(|opened| opened.metadata()) {
            Ok(meta) => (meta.blocks() * 512, meta.nlink()),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => (0, 0),
            // The state is unknown.
            Err(_) => return Counters::default(),
        };
        let mut change = Counters {
            allocated: now.saturating_sub(self.usage),
            freed: self.update_freed(now, saved),
            ..Counters::default()
        };
        self.usage = now;
        if names == 0 && !self.unlinked {
            self.unlinked = true;
            change.unlinked = 1;
        }
        if change != Counters::default() {
            change.flags = slot_flags::APPROXIMATE;
        }
        change
    }

    /// Returns what the volume got back when the file's space became `now` and compression `saved`
    /// bytes.
    fn update_freed(&mut self, now: u64, saved: u64) -> u64 {
        let shrunk = self.usage.saturating_sub(now);
        let kept = if shrunk == 0 {
            self.saved
        } else {
            // In proportion, because it is unknown which extents were freed.
            (u128::from(self.saved) * u128::from(now) / u128::from(self.usage)) as u64
        };
        let released = self.saved - kept;
        // For files that are overwritten, at most their whole size.
        let saved = saved.min(now.saturating_sub(kept));
        self.saved = kept + saved;
        shrunk.saturating_sub(released) + saved
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::super::handle::MAX_HANDLE_SZ;
    use super::*;

    #[test]
    fn a_file_is_found_under_another_name_and_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let path = dir.path().join("a");
        let mut open = File::create(&path).unwrap();
        let Ok(handle) = Handle::of(&path) else {
            println!("SKIP this filesystem has no handles");
            return;
        };
        if handle.open(&root).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
            println!("SKIP no CAP_DAC_READ_SEARCH");
            return;
        }
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut known =
            SampledFile { handle, usage: 0, saved: 0, owner, written_at: 0, unlinked: false };
        open.write_all(&vec![1; 1 << 20]).unwrap();
        open.sync_all().unwrap();
        fs::rename(&path, dir.path().join("b")).unwrap();
        let change = known.sample(&root, 0);
        assert!(
            change.allocated >= 1 << 20 && change.freed == 0 && change.unlinked == 0,
            "{change:?}"
        );
        assert_eq!(change.flags, slot_flags::APPROXIMATE);
        assert_eq!(known.sample(&root, 0), Counters::default());
        fs::remove_file(dir.path().join("b")).unwrap();
        let unlinked = known.sample(&root, 0);
        assert_eq!((unlinked.unlinked, unlinked.freed), (1, 0));
        drop(open);
        let freed = known.sample(&root, 0);
        assert_eq!((freed.freed, freed.unlinked), (change.allocated, 0));
    }

    #[test]
    fn compression_savings_are_freed_once() {
        let handle = Handle { bytes: 0, kind: 0, handle: [0; MAX_HANDLE_SZ] };
        let owner = ProcKey { start_ns: 1, tgid: 1, pad: 0 };
        let mut known =
            SampledFile { handle, usage: 1000, saved: 0, owner, written_at: 0, unlinked: false };
        let mut became = |now, saved| {
            let freed = known.update_freed(now, saved);
            known.usage = now;
            freed
        };
        assert_eq!(became(1000, 600), 600);
        // More than there is: it was overwritten.
        assert_eq!(became(1000, 600), 400);
        assert_eq!(became(2000, 0), 0);
        // Half of 2000 are freed, of which 500 were given back already.
        assert_eq!(became(1000, 0), 500);
        assert_eq!(became(0, 0), 500);
        assert_eq!(became(0, 7), 0);
    }
}
