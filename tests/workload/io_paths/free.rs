//! Ways to free space.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::Context as _;

use super::plain::{fill, filled};
use super::{Done, ROUND, Site, blocks, check, noise, tmpfile};

/// Removes the last name, with no descriptor left.
pub fn unlink(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    drop(file);
    fs::remove_file(&site.path)?;
    Ok(Done { freed: done.allocated, ..done })
}

/// Closes the last descriptor, with no name left.
pub fn close_deleted(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    fs::remove_file(&site.path)?;
    drop(file);
    Ok(Done { freed: done.allocated, ..done })
}

pub fn truncate(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    file.sync_all()?;
    file.set_len(0)?;
    let freed = done.allocated - blocks(&file)?;
    Ok(Done { freed, ..done })
}

/// Rewrites the same block again and again, and truncates it in between: while it is only reserved,
/// the inode's length and blocks are the same at each write.
pub fn truncate_rewrite(site: &Site) -> anyhow::Result<Done> {
    rewrite(site, |file| Ok(file.set_len(0)?))
}

/// The same with a hole, with the file's length unchanged.
pub fn punch_rewrite(site: &Site) -> anyhow::Result<Done> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    rewrite(site, |file| {
        // SAFETY: the descriptor is open.
        check(unsafe { i64::from(libc::fallocate(file.as_raw_fd(), mode, 0, REWRITTEN as i64)) })?;
        Ok(())
    })
}

/// More than btrfs stores inline in an inode.
const REWRITTEN: usize = 8192;

fn rewrite(site: &Site, take: impl Fn(&File) -> anyhow::Result<()>) -> anyhow::Result<Done> {
    const TIMES: u64 = 40;
    let file = site.create(0)?;
    let content = noise(REWRITTEN);
    let (mut allocated, mut freed) = (0, 0);
    for _ in 0..TIMES {
        let before = blocks(&file)?;
        file.write_all_at(&content, 0)?;
        let written = blocks(&file)?;
        take(&file)?;
        allocated += written - before;
        freed += written - blocks(&file)?;
    }
    Ok(Done { allocated, freed, ..site.done(file, TIMES * REWRITTEN as u64)? })
}

pub fn o_trunc(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    drop(file);
    let file = OpenOptions::new().write(true).truncate(true).open(&site.path)?;
    let freed = done.allocated - blocks(&file)?;
    Ok(Done { freed, ..done })
}

pub fn punch_hole(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    file.sync_all()?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // The whole length: punching part of an extent of btrfs frees nothing.
    // SAFETY: the descriptor is open.
    check(unsafe { i64::from(libc::fallocate(file.as_raw_fd(), mode, 0, ROUND as i64)) })?;
    let after = blocks(&file)?;
    drop(file);
    let after = after.min(fs::metadata(&site.path)?.blocks() * 512);
    Ok(Done { freed: done.allocated - after, ..done })
}

/// Frees a file by renaming another one over it.
pub fn rename_over(site: &Site) -> anyhow::Result<Done> {
    let (file, done) = filled(site)?;
    drop(file);
    let other = site.beside("-new");
    fs::write(&other, noise(ROUND / 2))?;
    fs::rename(&other, &site.path)?;
    Ok(Done { freed: done.allocated, ..done })
}

/// A process is killed that is the only one to hold a deleted file.
pub fn death_with_tmpfile(site: &Site) -> anyhow::Result<Done> {
    // Fails here and not in the child where O_TMPFILE is unsupported.
    drop(tmpfile(&site.dir)?);
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: no other thread runs now, so that the child may do anything.
    let pid = unsafe { check(i64::from(libc::fork()))? } as i32;
    if pid == 0 {
        let told = (|| -> anyhow::Result<String> {
            let file = tmpfile(&site.dir)?;
            let done = fill(site, &file)?;
            let told = format!("{} {} {}\n", done.ino, done.written, done.allocated);
            // It is to be closed by the end of the process.
            std::mem::forget(file);
            Ok(told)
        })();
        let _ = writer.write_all(told.unwrap_or_else(|error| format!("{error:#}\n")).as_bytes());
        loop {
            std::thread::park();
        }
    }
    let mut told = Vec::new();
    let mut byte = [0];
    while reader.read(&mut byte)? == 1 && byte != *b"\n" {
        told.extend(byte);
    }
    // SAFETY: our own child, not waited for yet.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        check(i64::from(libc::waitpid(pid, std::ptr::null_mut(), 0)))?;
    }
    let told = String::from_utf8(told)?;
    let mut numbers = told.split(' ').map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok).with_context(|| told.clone());
    let (ino, written, allocated) = (next()?, next()?, next()?);
    let done = Done { written, allocated, freed: allocated, ..Done::of(&site.dir, ino) };
    Ok(Done { pid: pid as u32, ..done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_of_a_way_matches_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let truths = super::super::perform(dir.path(), &["write".into(), "unlink".into()]).unwrap();
        let file = OpenOptions::new().read(true).open(dir.path().join("way-write")).unwrap();
        assert_eq!(truths[0].written, file.metadata().unwrap().len());
        assert_eq!(truths[0].ino, file.metadata().unwrap().ino());
        let mut byte = [0];
        assert_eq!(file.read_at(&mut byte, truths[0].written - 1).unwrap(), 1);
        assert_eq!(truths[1].freed, truths[1].allocated);
        assert!(!dir.path().join("way-unlink").exists());
    }
}
