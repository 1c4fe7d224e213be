//! Frees the space of a deleted file without terminating the process that holds it; only for a file
//! that is explicitly named.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, bail, ensure};
use tracer_host::process::threads;
use tracer_model::action::facts;
use tracer_model::sanitize;

/// Truncates the file behind a process's descriptor, if it is still the same deleted file. Returns the
/// freed bytes; in a dry run, those that would be freed.
///
/// # Errors
/// If the descriptor is another file by now, if the file has a name, and system errors.
pub(crate) fn truncate(file: &facts::File, dry: bool) -> anyhow::Result<u64> {
    let fd = file.fd.context("no descriptor leads to the file")?;
    let link = format!("/proc/{}/fd/{fd}", threads::running(file.pid));
    let target = std::fs::read_link(&link).with_context(|| format!("{link} has been closed"))?;
    let path = tracer_host::process::descriptors::strip_deleted(&target);
    // Without the suffix, the file was removed from a lower layer without the overlay's knowledge:
    // opening it for writing would copy it up.
    ensure!(path != target, "{link} is no longer a deleted file");
    let shown = sanitize::lossless(path.as_os_str().as_bytes());
    ensure!(
        shown == *file.link.as_ref().unwrap_or(&file.path),
        "{link} is now another file: {}",
        sanitize::display(&shown)
    );
    let open = OpenOptions::new().write(true).open(&link).with_context(|| link.clone())?;
    let before = open.metadata()?;
    if before.nlink() != 0 || !before.is_file() {
        bail!("{link} is no longer a deleted file");
    }
    if dry {
        return Ok(before.blocks() * 512);
    }
    set_empty(&open)?;
    Ok((before.blocks() * 512).saturating_sub(open.metadata()?.blocks() * 512))
}

fn set_empty(file: &File) -> io::Result<()> {
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn only_the_intended_deleted_file_is_truncated() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("held");
        let mut held = File::create(&path).unwrap();
        held.write_all(&vec![7; 1 << 20]).unwrap();
        held.sync_all().unwrap();
        let mut file = facts::File {
            path: path.to_str().unwrap().to_owned(),
            path_in_container: None,
            link: None,
            volume: "/".to_owned(),
            bytes: 1 << 20,
            deleted: true,
            pid: std::process::id(),
            fd: Some(held.as_raw_fd()),
            others: Vec::new(),
            kernel: false,
        };
        assert!(
            truncate(&file, false).unwrap_err().to_string().contains("no longer a deleted file")
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(truncate(&file, true).unwrap(), 1 << 20);
        assert_eq!(held.metadata().unwrap().len(), 1 << 20, "a dry run truncates nothing");
        file.path = "/other".to_owned();
        assert!(truncate(&file, false).unwrap_err().to_string().contains("another file"));
        file.path = path.to_str().unwrap().to_owned();
        assert_eq!(truncate(&file, false).unwrap(), 1 << 20);
        assert_eq!(held.metadata().unwrap().len(), 0);
    }
}
