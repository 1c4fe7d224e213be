//! Space of deleted files that are still open is reported once, with the process that holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, Truth, filltop, need_tracing, workload};
use rustix::fs::{MemfdFlags, memfd_create};
use tracer_model::snapshot::{Held, HeldKind};

use super::Result;

pub fn held() -> anyhow::Result<Vec<Held>> {
    let output = Command::new(filltop()).args(["held", "--json", "--standalone"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_held_file_is_shown_with_its_holder_and_exact_size() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("spooled");
    let mut child = workload()
        .arg("write")
        .arg(&path)
        .args(["--bytes", "20000000", "--unlink", "--hold"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let truth: Truth = serde_json::from_str(&line)?;
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let held = held()?;
    child.stdin.take().context("piped")?.write_all(b"end\n")?;
    child.wait()?;
    let rows: Vec<_> = held.iter().filter(|row| row.pid == truth.pid).collect();
    ensure!(rows.len() == 1, "{held:?}");
    ensure!(rows[0].path == path.to_str().context("UTF-8")?, "{:?}", rows[0]);
    // 20,000,000 bytes in blocks of 4,096; an extent tree of one level has no block of its own.
    ensure!(rows[0].bytes == 20_000_000u64.div_ceil(4096) * 4096, "{:?}", rows[0]);
    ensure!(rows[0].kind == HeldKind::Deleted && rows[0].holders == [truth.pid], "{:?}", rows[0]);
    Ok(())
}

/// All files are opened before filltop starts.
#[test]
fn a_shared_descriptor_counts_once_and_a_memfd_not_at_all() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let anonymous = filled(
        OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(volume.path())?,
        3 << 20,
    )?;
    let path = volume.path().join("shared");
    let shared = filled(File::create(&path)?, 2 << 20)?;
    fs::remove_file(&path)?;
    let again = shared.try_clone()?;
    // A memfd has no name either, but takes no space of a volume.
    let memory = filled(memfd_create("filltop-memory", MemfdFlags::empty())?.into(), 4 << 20)?;
    let mut child = Command::new("sleep").arg("60").stdin(shared.try_clone()?).spawn()?;
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let rows = held();
    child.kill()?;
    child.wait()?;
    drop((again, shared, anonymous, memory));
    let rows = rows?;
    ensure!(!rows.iter().any(|row| row.path.contains("filltop-memory")), "{rows:?}");
    let mine: Vec<&Held> =
        rows.iter().filter(|row| Path::new(&row.volume) == volume.path()).collect();
    let [largest, second] = mine[..] else { anyhow::bail!("two files are held, not {mine:?}") };
    ensure!(largest.kind == HeldKind::Anonymous && largest.bytes == 3 << 20, "{largest:?}");
    ensure!(largest.holders == [process::id()], "{largest:?}");
    ensure!(second.kind == HeldKind::Deleted && second.bytes == 2 << 20, "{second:?}");
    let mut holders = [process::id(), child.id()];
    holders.sort_unstable();
    ensure!(second.holders == holders, "{second:?}");
    Ok(())
}

fn filled(mut file: File, bytes: usize) -> anyhow::Result<File> {
    file.write_all(&vec![1; bytes])?;
    Ok(file)
}
