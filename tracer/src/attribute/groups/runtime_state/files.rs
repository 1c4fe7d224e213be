//! Reads files that a container could have tampered with: of bounded size, not through symbolic
//! links, and only from owners that the container's user could not impersonate.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde_json::Value;

use tracer_host::host_root;

/// Longest state file that is read, bytes.
const MAX_FILE: u64 = 8 << 20;

/// Reads a JSON file at `rest` below the directory `base`. `None` if a part of `rest` is a symbolic
/// link, or if the file is not regular, too long, world-writable, or owned by a user that `trusted`
/// rejects.
#[must_use]
pub fn json_below(base: &Path, rest: &Path, trusted: impl Fn(u32) -> bool) -> Option<Value> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = open(base, flags, Mode::empty()).ok()?;
    // An overlay names its directories only by path: there may be mounts on the way, so no NO_XDEV.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Non-blocking, in case the file is a pipe without a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat2(&base, rest, flags, Mode::empty(), resolve).ok()?;
    parsed(fs::File::from(file), trusted)
}

/// Reads a JSON file from a place that only root can write to.
#[must_use]
pub fn json(path: &Path) -> Option<Value> {
    parsed(fs::File::open(path).ok()?, |_| true)
}

/// Reads a regular file of at most `most` bytes at a host path without symbolic links; `None`
/// otherwise. Never waits for a writer.
#[must_use]
pub fn bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = open(host_root::root(), flags, Mode::empty()).ok()?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let rest = path.strip_prefix("/").unwrap_or(path);
    let file = fs::File::from(openat2(&base, rest, flags, Mode::empty(), resolve).ok()?);
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > most {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn parsed(file: fs::File, trusted: impl Fn(u32) -> bool) -> Option<Value> {
    let meta = file.metadata().ok()?;
    let fits = meta.is_file() && meta.len() <= MAX_FILE;
    if !fits || meta.mode() & 0o002 != 0 || !trusted(meta.uid()) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn files_that_could_be_forged_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/a"), "{}").unwrap();
        symlink("a", at("d/link")).unwrap();
        symlink("d", at("e")).unwrap();
        fs::write(at("d/open"), "{}").unwrap();
        fs::set_permissions(at("d/open"), fs::Permissions::from_mode(0o666)).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("d/pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let read = |rest: &str| json_below(dir.path(), Path::new(rest), |_| true).is_some();
        assert!(read("d/a"));
        for rest in ["d/link", "e/a", "d/open", "d/pipe", "d", "d/none", "d/../d/a/.."] {
            assert!(!read(rest), "{rest}");
        }
        assert!(json_below(dir.path(), Path::new("d/a"), |_| false).is_none());
        assert_eq!(bytes(&at("d/a"), 2).as_deref(), Some(&b"{}"[..]));
        for (name, most) in [("d/a", 1), ("d/link", 9), ("e/a", 9), ("d/pipe", 9), ("d", 9)] {
            assert_eq!(bytes(&at(name), most), None, "{name}");
        }
    }
}
