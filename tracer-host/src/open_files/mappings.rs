//! Files that processes have mapped: /proc/PID/maps (proc_pid_maps(5)). A mapping keeps a file without
//! any descriptor.
//!
//! The text has neither the space of a file nor its number of names; the links in /proc/PID/map_files
//! lead to it. They need CAP_SYS_ADMIN, or CAP_CHECKPOINT_RESTORE since 5.9.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Stat, statat};
use tracer_model::snapshot::HeldBy;

use super::file::{OpenFile, OpenFiles};
use super::mount_lookup::MountLookup;
use crate::process::{stat, threads};

/// One mapping of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping<'t> {
    /// First address, and the first one behind it.
    range: (u64, u64),
    /// Whether stores change the file.
    writable: bool,
    /// `s_dev` of the file.
    dev: u32,
    /// Inode number.
    ino: u64,
    /// Path with newlines escaped; ` (deleted)` follows if the file has no name. Another file may have
    /// a name that ends so.
    path: &'t [u8],
}

const DELETED: &[u8] = b" (deleted)";

/// Returns the mappings of files. Lines of an unexpected form are left out.
fn parse(maps: &[u8]) -> impl Iterator<Item = Mapping<'_>> {
    maps.split(|byte| *byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = text()?.split_once('-')?;
    let permissions = text()?.as_bytes();
    text()?;
    let (major, minor) = text()?.split_once(':')?;
    let ino = text()?.parse().ok().filter(|ino| *ino != 0)?;
    let hex = |digits| u32::from_str_radix(digits, 16).ok();
    let address = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Mapping {
        range: (address(start)?, address(end)?),
        writable: permissions.get(1) == Some(&b'w') && permissions.get(3) == Some(&b's'),
        dev: hex(major)? << 20 | hex(minor)?,
        ino,
        path: fields.next()?.trim_ascii_start(),
    })
}

impl Mapping<'_> {
    /// Whether it may be one that [`OpenFiles`] contains.
    fn may_be_relevant(&self) -> bool {
        self.writable || self.path.ends_with(DELETED)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(unescape_newlines(self.path)))
    }

    /// The link in /proc/PID/map_files.
    fn link(&self, pid: u32) -> String {
        format!("/proc/{pid}/map_files/{:x}-{:x}", self.range.0, self.range.1)
    }
}

/// The kernel writes a newline in a path as `\012`, and nothing else is escaped.
fn unescape_newlines(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.first() {
        let newline = rest.starts_with(b"\\012");
        out.push(if newline { b'\n' } else { *first });
        rest = &rest[if newline { 4 } else { 1 }..];
    }
    out
}

/// Adds the mappings of a process, each file once.
pub(super) fn read_process(
    pid: u32,
    lookup: &MountLookup,
    buffer: &mut Vec<u8>,
    found: &mut OpenFiles,
) {
    let tid = match read_maps(pid, buffer) {
        Ok(tid) => tid,
        Err(error) => {
            if stat::is_denied(&error, pid) {
                found.unreadable.insert(pid);
            }
            return;
        }
    };
    let mut seen = HashSet::new();
    let mut incomplete = false;
    for mapping in parse(buffer).filter(Mapping::may_be_relevant) {
        if !lookup.may_be_on_volume(mapping.dev) || !seen.insert((mapping.dev, mapping.ino)) {
            continue;
        }
        match file(tid, &mapping, lookup) {
            Ok(file) => found.files.extend(file.map(|file| file.of(pid))),
            // A file that has a name is open for writing at most, and does not hold anything.
            Err(_) => incomplete |= mapping.path.ends_with(DELETED),
        }
    }
    if incomplete {
        found.unreadable.insert(pid);
    }
}

/// Reads /proc/PID/maps. Returns the thread that it was read through: another one if the main thread has
/// exited.
fn read_maps(pid: u32, buffer: &mut Vec<u8>) -> io::Result<u32> {
    let mut read = |tid: u32| {
        buffer.clear();
        File::open(format!("/proc/{tid}/maps"))?.read_to_end(buffer)
    };
    match read(pid) {
        Ok(1..) => Ok(pid),
        // A kernel thread has none.
        result => match threads::running(pid) {
            tid if tid == pid => result.map(|_| pid),
            tid => read(tid).map(|_| tid),
        },
    }
}

/// Returns the file of a mapping; `Ok(None)` if it is not relevant or no longer there.
///
/// # Errors
/// If it cannot be inspected.
fn file(pid: u32, mapping: &Mapping<'_>, lookup: &MountLookup) -> io::Result<Option<OpenFile>> {
    let link = mapping.link(pid);
    let stat = match statat(CWD, link.as_str(), AtFlags::empty()) {
        Ok(stat) => stat,
        // Unmapped meanwhile.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => match by_path(pid, mapping) {
            Some(stat) => stat,
            None => return Err(error.into()),
        },
    };
    // The field has another width on other architectures.
    #[allow(clippy::useless_conversion, reason = "u32 on arm64")]
    let links = u64::from(stat.st_nlink);
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_regular || (links != 0 && !mapping.writable) {
        return Ok(None);
    }
    let Some((dev, overlay)) = lookup.device_of_mapping(pid, mapping.dev, stat.st_dev, &link)
    else {
        return Ok(None);
    };
    Ok(Some(OpenFile {
        pid,
        held_by: HeldBy::Mapping,
        fd: None,
        device: None,
        // The text does not show whether `\012` is part of a name.
        link: fs::read_link(&link).unwrap_or_else(|_| mapping.path()),
        dev,
        ino: stat.st_ino,
        overlay,
        bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
        links,
        writable: mapping.writable,
    }))
}

/// Finds a mapped file that has a name by its path.
fn by_path(pid: u32, mapping: &Mapping<'_>) -> Option<Stat> {
    let path = mapping.path();
    let path =
        Path::new("/proc").join(pid.to_string()).join("root").join(path.strip_prefix("/").ok()?);
    let stat = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let dev = rustix::fs::makedev(mapping.dev >> 20, mapping.dev & 0xf_ffff);
    (stat.st_dev == dev && stat.st_ino == mapping.ino).then_some(stat)
}

/// Paths of mappings, for processes that are asked about one after the other.
#[derive(Default)]
pub(super) struct MappingPaths {
    pid: u32,
    maps: Vec<u8>,
}

impl MappingPaths {
    /// Returns the path of what is mapped at this address, with ` (deleted)` if that is so; empty if it
    /// is unknown.
    pub(super) fn path(&mut self, pid: u32, start: u64) -> PathBuf {
        if self.pid != pid {
            self.pid = pid;
            if read_maps(pid, &mut self.maps).is_err() {
                self.maps.clear();
            }
        }
        parse(&self.maps).find(|it| it.range.0 == start).map_or_else(PathBuf::new, |it| it.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_files_are_parsed() {
        let maps = b"00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon\n\
            7f1-7f2 rw-s 00000000 fe:10 12                         /x/a\\012b (deleted)\n\
            7f2-7f3 rw-p 00000000 00:00 0                          [heap]\n\
            7f3-7f4 rw-p 00000000 00:00 0 \n\
            cut";
        let all: Vec<_> = parse(maps).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].link(7), "/proc/7/map_files/400000-452000");
        assert_eq!((all[0].dev, all[0].ino, all[0].writable), (8 << 20 | 2, 173_521, false));
        assert!(!all[0].may_be_relevant() && all[1].may_be_relevant());
        assert_eq!((all[1].dev, all[1].writable), (0xfe << 20 | 0x10, true));
        assert_eq!(all[1].path(), Path::new("/x/a\nb (deleted)"));
    }

    #[test]
    fn a_backslash_in_a_name_stays() {
        assert_eq!(unescape_newlines(b"\\01\\012\\0123\\"), b"\\01\n\n3\\");
    }
}
