//! Writer of an initramfs in cpio's "newc" format, the only one that the kernel reads
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in memory. All its entries belong to root.
#[derive(Debug, Default, Clone)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    paths: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and its parents. A directory that exists already is left as it is.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.paths.contains(path) {
            return;
        }
        self.parents(path);
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// Adds a file with these permissions, unless its path exists already. Returns whether it was added.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> bool {
        self.leaf(path, FILE | permissions, content, (0, 0))
    }

    /// Adds a symbolic link, unless its path exists already. Returns whether it was added.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> bool {
        self.leaf(path, SYMLINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.leaf(path, CHARACTER_DEVICE | 0o600, &[], (major, minor));
    }

    /// Ends the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, (0, 0));
        self.bytes
    }

    fn leaf(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) -> bool {
        let path = path.trim_start_matches('/');
        if self.paths.contains(path) {
            return false;
        }
        self.parents(path);
        self.entry(path, mode, content, device);
        true
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.paths.insert(path.to_owned());
        self.inodes += 1;
        // The format is limited to 4 GiB, far more than any of these archives.
        self.header(path, mode, u32::try_from(content.len()).unwrap_or(u32::MAX), device);
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Writes the magic, thirteen numbers of eight hex digits each, and the name with its NUL.
    fn header(&mut self, name: &str, mode: u32, size: u32, device: (u32, u32)) {
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let (uid, gid, links, mtime) = (0, 0, 1, 0);
        let fields = [
            self.inodes,
            mode,
            uid,
            gid,
            links,
            mtime,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, content and device.
    type Entry = (String, u32, Vec<u8>, (u32, u32));

    /// All entries, parsed independently of the writer.
    fn entries(mut bytes: &[u8]) -> Vec<Entry> {
        let mut out = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let number = |field: usize| {
                let text = std::str::from_utf8(&bytes[6 + field * 8..14 + field * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let name_end = 110 + number(11) as usize;
            let name = std::str::from_utf8(&bytes[110..name_end - 1]).unwrap().to_owned();
            let data = name_end.next_multiple_of(4);
            let data_end = data + number(6) as usize;
            if name == "TRAILER!!!" {
                assert_eq!(data, bytes.len());
                return out;
            }
            let content = bytes[data..data_end].to_vec();
            out.push((name, number(1), content, (number(9), number(10))));
            bytes = &bytes[data_end.next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_are_read_back_unchanged() {
        let mut archive = Archive::default();
        assert!(archive.file("/bin/odd-length", 0o755, b"12345"));
        archive.character_device("/dev/console", 5, 1);
        assert!(archive.symlink("/bin/sh", "busybox"));
        assert_eq!(
            entries(&archive.finish()),
            [
                ("bin".to_owned(), 0o040_755, vec![], (0, 0)),
                ("bin/odd-length".to_owned(), 0o100_755, b"12345".to_vec(), (0, 0)),
                ("dev".to_owned(), 0o040_755, vec![], (0, 0)),
                ("dev/console".to_owned(), 0o020_600, vec![], (5, 1)),
                ("bin/sh".to_owned(), 0o120_777, b"busybox".to_vec(), (0, 0)),
            ]
        );
    }

    #[test]
    fn directories_are_added_once_and_before_their_contents() {
        let mut archive = Archive::default();
        archive.directory("/a/b/");
        archive.directory("a");
        archive.file("a/b/c", 0o644, b"");
        let names: Vec<_> = entries(&archive.finish()).into_iter().map(|entry| entry.0).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn an_existing_path_is_not_replaced() {
        let mut archive = Archive::default();
        assert!(archive.file("/sbin/mkfs.ext4", 0o755, b"real"));
        assert!(!archive.symlink("/sbin/mkfs.ext4", "busybox"));
        assert_eq!(entries(&archive.finish()).len(), 2);
    }
}
