//! Hostile names, long paths, renames.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing};
use tracer_model::snapshot::BlindSpotKind;

use super::{Result, hooked};

#[test]
fn hostile_names_are_safe_and_lose_nothing() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let long = "x".repeat(255);
    let names: [(&[u8], &str); 7] = [
        (b"new\nline", "new\nline"),
        (b"\x1b[2Jescape", "\x1b[2Jescape"),
        (b"tab\there", "tab\there"),
        (b"inv\xff\xfealid", r"inv\xff\xfealid"),
        ("bidi\u{202e}gpj.exe".as_bytes(), "bidi\u{202e}gpj.exe"),
        (b"quote\"\\back", r#"quote"\back"#),
        (long.as_bytes(), &long),
    ];
    let filltop = Filltop::start(&[])?;
    for (n, (name, _)) in names.iter().enumerate() {
        let mut file = File::create(volume.path().join(OsStr::from_bytes(name)))?;
        file.write_all(&vec![7; 1_000 * (n + 1)])?;
    }
    let measured = filltop.stop()?;
    for (n, (_, shown)) in names.iter().enumerate() {
        let row = measured.path(&volume.path().join(shown))?;
        ensure!(row.written_bytes == 1_000 * (n as u64 + 1), "{row:?}");
        let safe = tracer_model::sanitize::display(&row.path);
        ensure!(!safe.contains(['\n', '\u{1b}', '\t', '\u{202e}']), "{safe:?}");
    }
    Ok(())
}

#[test]
fn a_very_deep_and_long_path_is_complete() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let mut dir = File::open(volume.path())?;
    let mut path = volume.path().to_path_buf();
    for n in 0..40 {
        let name = format!("{n:02}-{}", "d".repeat(117));
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty())?.into();
        path.push(name);
    }
    path.push("file");
    ensure!(path.as_os_str().len() > 4_800);
    let filltop = Filltop::start(&[])?;
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let mut file: File = rustix::fs::openat(&dir, "file", flags, rustix::fs::Mode::RWXU)?.into();
    file.write_all(&[7; 54_321])?;
    // No descriptor is left: the name must have come from the kernel.
    drop((file, dir));
    let measured = filltop.stop()?;
    let row = measured.path(&path)?;
    ensure!(row.written_bytes == 54_321, "{} bytes: {row:?}", row.written_bytes);
    Ok(())
}

#[test]
fn renames_are_followed() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let at = |name: &str| volume.path().join(name);
    let write = |path: &PathBuf, bytes: usize| -> anyhow::Result<File> {
        let mut file = File::create(path)?;
        file.write_all(&vec![7; bytes])?;
        Ok(file)
    };
    fs::create_dir(at("old"))?;
    let filltop = Filltop::start(&[])?;
    // As editors and log rotation rename, a move to another directory, and a directory that moves.
    drop(write(&at("foo.tmp"), 1_000)?);
    fs::rename(at("foo.tmp"), at("foo"))?;
    let log = write(&at("log"), 2_000)?;
    fs::rename(at("log"), at("log.1"))?;
    let _new_log = write(&at("log"), 3_000)?;
    let moved = write(&at("here"), 4_000)?;
    fs::create_dir(at("sub"))?;
    fs::rename(at("here"), at("sub/there"))?;
    let inside = write(&at("old/f"), 5_000)?;
    fs::rename(at("old"), at("new"))?;
    let measured = filltop.stop()?;
    drop((log, moved, inside));
    for (name, bytes) in
        [("foo", 1_000), ("log.1", 2_000), ("log", 3_000), ("sub/there", 4_000), ("new/f", 5_000)]
    {
        let row = measured.path(&at(name)).with_context(|| name.to_owned())?;
        ensure!(row.written_bytes == bytes, "{row:?}");
    }
    let told = measured.snapshot.backend.blind_spot_kinds.contains(&BlindSpotKind::Renames);
    ensure!(told != hooked(&measured, "d_move"), "a missing hook must be reported");
    Ok(())
}
