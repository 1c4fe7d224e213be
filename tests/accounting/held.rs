//! Space of deleted files that are still open is reported once, with the process that holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::rights::keep_only;
use filltop_tests::{TestVolume, Truth, filltop, need_tracing, workload};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;
use tracer_model::snapshot::{Held, HeldBy, HeldKind, Hook, HookState, Snapshot};

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

const BYTES: u64 = 8 << 20;

/// A process that holds a file of a volume; ended on drop.
pub(super) struct Holder {
    child: Child,
    pub(super) pid: u32,
}

impl Holder {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let truth: Truth = serde_json::from_str(&line).context("the holder failed")?;
        Ok(Self { child, pid: truth.pid })
    }

    /// Holds a new file of 8 MiB in this way.
    fn by(way: &str, path: &Path) -> Result<Self> {
        let mut command = workload();
        command.arg("hold").arg(path).args(["--by", way, "--bytes", &BYTES.to_string()]);
        Self::start(&mut command)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether this kernel and backend can list the inodes of a volume.
fn lists_inodes(snapshot: &Snapshot) -> bool {
    let listed = |hook: &&Hook| hook.name == "s_inodes" && hook.state == HookState::Ok;
    snapshot.backend.hooks.iter().any(|hook| listed(&hook))
}

fn now() -> Result<Snapshot> {
    let output = Command::new(filltop())
        .args(["snapshot", "--json", "--standalone", "--for", "500ms"])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A reader's descriptor, a mapping without a descriptor, a descriptor that waits in a socket, and a loop
/// device hold a file each. All are removed before filltop starts.
#[test]
fn all_that_is_held_is_found_whatever_holds_it() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 300)?;
    let name = |name: &str| volume.path().join(name);
    let mapper = Holder::by("mapping", &name("mapped"))?;
    let sender = Holder::by("socket", &name("flying"))?;
    let mut reader = workload();
    reader.arg("write").arg(name("read")).args([
        "--bytes",
        &BYTES.to_string(),
        "--unlink",
        "--hold",
    ]);
    let reader = Holder::start(&mut reader)?;
    let inner = TestVolume::in_image(volume.path(), "ext4", 32)?;
    let image = name("image");
    let image_bytes = fs::metadata(&image)?.blocks() * 512;
    fs::remove_file(&image)?;
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let snapshot = now()?;
    let rows: Vec<&Held> =
        snapshot.held.iter().filter(|row| Path::new(&row.volume) == volume.path()).collect();
    let row = |by: HeldBy| {
        rows.iter().find(|row| row.held_by == by).with_context(|| format!("no {by:?}: {rows:?}"))
    };
    let mapped = row(HeldBy::Mapping)?;
    ensure!((mapped.pid, mapped.fd, mapped.bytes) == (mapper.pid, None, BYTES), "{mapped:?}");
    ensure!(Path::new(&mapped.path) == name("mapped"), "{mapped:?}");
    ensure!(mapped.holders == [mapper.pid], "{mapped:?}");
    let read = row(HeldBy::Descriptor)?;
    ensure!((read.pid, read.bytes) == (reader.pid, BYTES), "{read:?}");
    let plan = plan(mapper.pid)?;
    ensure!(plan["frees_bytes"] == BYTES, "{plan}");
    if !lists_inodes(&snapshot) {
        println!("SKIP all_that_is_held_is_found_whatever_holds_it, in part: no list of inodes");
        return Ok(());
    }
    let flying = row(HeldBy::Socket)?;
    ensure!((flying.pid, flying.fd, flying.bytes) == (sender.pid, None, BYTES), "{flying:?}");
    ensure!(flying.path.ends_with("/flying"), "{flying:?}");
    let loop_device = row(HeldBy::LoopDevice)?;
    ensure!(loop_device.pid == 0 && loop_device.comm.starts_with("loop"), "{loop_device:?}");
    ensure!(Path::new(&loop_device.path) == image, "{loop_device:?}");
    // The filesystem in it writes to it in between.
    ensure!(loop_device.bytes.abs_diff(image_bytes) <= 1 << 20, "{loop_device:?}, {image_bytes}");
    ensure!(rows.len() == 4, "{rows:?}");
    let state = snapshot.volumes.iter().find(|row| Path::new(&row.mount_point) == volume.path());
    let state = state.context("no volume")?;
    ensure!(state.held_unknown_bytes == Some(0), "{state:?}");
    ensure!(state.held_bytes == Some(rows.iter().map(|row| row.bytes).sum()), "{state:?}");
    let of_command = held()?;
    let mine = of_command.iter().filter(|row| Path::new(&row.volume) == volume.path());
    ensure!(mine.count() == 4, "{of_command:?}");
    drop((inner, sender));
    Ok(())
}

/// A process goes on while one of its threads runs, whichever: its files are read through that one.
#[test]
fn a_process_whose_main_thread_has_exited_is_the_holder() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let path = volume.path().join("threaded");
    let holder = Holder::by("thread", &path)?;
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let of_command = held()?;
    let of_snapshot = now()?.held;
    for rows in [of_command, of_snapshot] {
        let mine: Vec<&Held> =
            rows.iter().filter(|row| Path::new(&row.volume) == volume.path()).collect();
        let [row] = mine[..] else { anyhow::bail!("one file is held, not {mine:?}") };
        ensure!((row.held_by, row.pid) == (HeldBy::Descriptor, holder.pid), "{row:?}");
        ensure!(row.bytes == BYTES && row.holders == [holder.pid], "{row:?}");
        ensure!(Path::new(&row.path) == path, "{row:?}");
    }
    let plan = plan(holder.pid)?;
    ensure!(plan["frees_bytes"] == BYTES, "{plan}");
    Ok(())
}

/// A descriptor that is under way in a socket which is itself under way is nobody's.
#[test]
fn a_file_whose_holder_cannot_be_known_is_counted() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let file = filled(File::create(volume.path().join("nobodys"))?, 3 << 20)?;
    rustix::fs::syncfs(&file)?;
    fs::remove_file(volume.path().join("nobodys"))?;
    let (inner, outer) = (UnixStream::pair()?, UnixStream::pair()?);
    send(&inner.0, file.as_fd())?;
    send(&outer.0, inner.1.as_fd())?;
    send(&outer.0, inner.0.as_fd())?;
    drop((file, inner));
    let snapshot = now()?;
    drop(outer);
    if !lists_inodes(&snapshot) {
        println!("SKIP a_file_whose_holder_cannot_be_known_is_counted: no list of inodes");
        return Ok(());
    }
    let rows: Vec<&Held> =
        snapshot.held.iter().filter(|row| Path::new(&row.volume) == volume.path()).collect();
    let [row] = rows[..] else { anyhow::bail!("one file is held, not {rows:?}") };
    ensure!((row.held_by, row.pid, row.bytes) == (HeldBy::Unknown, 0, 3 << 20), "{row:?}");
    ensure!(row.comm == "?" && row.path.ends_with("/nobodys") && row.holders.is_empty(), "{row:?}");
    let state = snapshot.volumes.iter().find(|row| Path::new(&row.mount_point) == volume.path());
    let state = state.context("no volume")?;
    ensure!(
        (state.held_bytes, state.held_unknown_bytes) == (Some(3 << 20), Some(3 << 20)),
        "{state:?}"
    );
    Ok(())
}

fn send(socket: &UnixStream, fd: BorrowedFd<'_>) -> Result {
    let fds = [fd];
    let mut room = [std::mem::MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut room);
    ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Without the privileges to look, the answer is not "nothing".
#[test]
fn what_cannot_be_inspected_is_reported() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let holder = Holder::by("mapping", &volume.path().join("mapped"))?;
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(filltop());
        command.args(["held", "--standalone"]).args(arguments);
        // Neither eBPF nor other processes.
        keep_only(&mut command, &[]);
        command.output()
    };
    let text = ask(&[])?;
    ensure!(text.status.code() == Some(1), "{text:?}");
    let said = String::from_utf8(text.stdout)?;
    ensure!(said.contains("Could not inspect ") && said.contains(" process"), "{said}");
    let json = ask(&["--json"])?;
    ensure!(json.status.code() == Some(1), "{json:?}");
    let rows: Option<Vec<Held>> = serde_json::from_slice(&json.stdout)?;
    ensure!(rows.is_none_or(|rows| rows.iter().all(|row| row.pid != holder.pid)));
    Ok(())
}

/// What `filltop stop --how kill` would do.
fn plan(pid: u32) -> Result<Value> {
    let output = Command::new(filltop())
        .args(["stop", &pid.to_string(), "--how", "kill", "--dry-run", "--json"])
        .output()?;
    let first = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(first)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

fn filled(mut file: File, bytes: usize) -> anyhow::Result<File> {
    file.write_all(&vec![1; bytes])?;
    Ok(file)
}
