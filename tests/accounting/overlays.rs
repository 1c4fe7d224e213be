//! Deleted files that are held through an overlay take space of the volume of its upper directory;
//! a removed file of a lower layer takes space of that layer's volume.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, Filltop, Overlay, TestVolume, Truth, filltop, need_tracing, workload};
use serde_json::Value;
use tracer_model::snapshot::{Held, HeldKind, HookState, Snapshot};

use super::Result;
use super::held::held;

const BYTES: u64 = 20_000_000;

/// A process whose root is an overlay and that holds a deleted file of it; ended on drop.
struct Holder {
    child: Child,
    pid: u32,
    fd: i32,
    cgroup: Cgroup,
}

impl Holder {
    /// Starts the workload in a cgroup of its own; `pid` returns the process that holds the file.
    fn start(mut command: Command, name: &str, pid: fn(&Truth) -> Option<u32>) -> Result<Self> {
        let cgroup = Cgroup::new(name)?;
        let procs = cgroup.path().join("cgroup.procs");
        // SAFETY: one write to a file, in the child of a program with one busy thread.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        // The standard streams of the test runner may be files on a volume of the host, which would
        // then be in the plan.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let truth: Truth = serde_json::from_str(&line).context("the holder failed")?;
        let pid = pid(&truth).context("no holder")?;
        let fd = deleted(pid)?;
        Ok(Self { child, pid, fd, cgroup })
    }

    /// In a mount namespace of its own, as a runtime starts it.
    fn contained(dir: &Path, arguments: &[&str], name: &str) -> Result<Self> {
        let mut command = workload();
        command.arg("container").args([dir, Path::new("/srv/data/part")]);
        command.args(["--bytes", &BYTES.to_string(), "--unlink"]).args(arguments);
        Self::start(command, name, |truth| truth.children.first().copied())
    }

    /// In the host's mount namespace, with the overlay as its root directory.
    fn chrooted(overlay: &Overlay, name: &str) -> Result<Self> {
        let mut command = workload();
        command.args(["write", "/part", "--bytes", &BYTES.to_string(), "--unlink", "--hold"]);
        command.arg("--chroot").arg(overlay.merged());
        Self::start(command, name, |truth| Some(truth.pid))
    }

    /// `st_blocks` × 512 of the file that it holds.
    fn bytes(&self) -> Result<u64> {
        Ok(fs::metadata(format!("/proc/{}/fd/{}", self.pid, self.fd))?.blocks() * 512)
    }

    /// The only row of this process.
    fn row<'h>(&self, rows: &'h [Held]) -> Result<&'h Held> {
        let mine: Vec<&Held> = rows.iter().filter(|row| row.pid == self.pid).collect();
        ensure!(mine.len() == 1, "{} rows of {}: {rows:?}", mine.len(), self.pid);
        Ok(mine[0])
    }

    /// Checks the row's path, size and volume.
    fn check(&self, row: &Held, path: &Path, inside: &str, volume: &TestVolume) -> Result {
        ensure!(Path::new(&row.path) == path, "{row:?} is not {}", path.display());
        ensure!(row.path_in_container.as_deref() == Some(inside), "{row:?}");
        ensure!(Path::new(&row.volume) == volume.path(), "{row:?}");
        ensure!((row.bytes, row.fd) == (self.bytes()?, Some(self.fd)), "{row:?}");
        ensure!(row.kind == HeldKind::Deleted && row.holders == [self.pid], "{row:?}");
        let cgroup = row.group.as_ref().and_then(|group| group.cgroup.as_deref());
        let name = self.cgroup.path().file_name().and_then(|name| name.to_str());
        ensure!(cgroup.and_then(|path| path.strip_prefix('/')) == name, "{row:?}");
        Ok(())
    }

    /// The plan of `stop` with this process as the target.
    fn plan(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(filltop());
        command.args(["stop", &self.pid.to_string(), "--dry-run", "--json"]).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let first = text.lines().next().context(String::from_utf8(output.stderr)?)?;
        Ok(serde_json::from_str(first)?)
    }

    fn truncate(&self, file: &str) -> Result {
        let run = tempfile::tempdir()?;
        let mut command = Command::new(filltop());
        command.args(["stop", &self.pid.to_string(), "--yes", "--how", "truncate", "--file", file]);
        let output = command.env("FILLTOP_RUN_DIR", run.path()).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"end\n");
        }
        let _ = self.child.wait();
    }
}

/// The only descriptor of a process that refers to a deleted file.
fn deleted(pid: u32) -> Result<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let file = fs::metadata(entry.path());
        if file.is_ok_and(|file| file.is_file() && file.nlink() == 0) {
            found.push(entry.file_name().to_str().context("a number")?.parse()?);
        }
    }
    ensure!(found.len() == 1, "{pid} holds {found:?}");
    Ok(found[0])
}

fn used(volume: &TestVolume) -> Result<u64> {
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let stat = rustix::fs::statvfs(volume.path())?;
    Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
}

/// The deleted files as the kernel's iterator reports them; `filltop held` walks `/proc` instead.
fn snapshot() -> Result<Option<Snapshot>> {
    let measured = Filltop::start(&["--standalone"])?.stop()?;
    let iterates = |hook: &&tracer_model::snapshot::Hook| hook.name == "task_file";
    let hook = measured.snapshot.backend.hooks.iter().find(iterates);
    let works = hook.is_some_and(|hook| hook.state == HookState::Ok);
    Ok(works.then_some(measured.snapshot))
}

fn held_bytes(snapshot: &Snapshot, volume: &TestVolume) -> Option<u64> {
    let is_it =
        |row: &&tracer_model::snapshot::Volume| Path::new(&row.mount_point) == volume.path();
    snapshot.volumes.iter().find(is_it)?.held_bytes
}

/// Found by both the walk and the iterator, in the plan of `stop`, and freed by a truncate.
fn shown_everywhere(holder: &Holder, volume: &TestVolume, path: &Path, inside: &str) -> Result {
    let before = used(volume)?;
    let bytes = holder.bytes()?;
    ensure!(bytes >= BYTES, "{bytes}");
    let rows = held()?;
    let walked = holder.row(&rows)?;
    holder.check(walked, path, inside, volume).context("as walked in /proc")?;
    if let Some(snapshot) = snapshot()? {
        let told = holder.row(&snapshot.held)?;
        holder.check(told, path, inside, volume).context("as reported by the iterator")?;
        ensure!(held_bytes(&snapshot, volume) == Some(bytes), "{:?}", snapshot.volumes);
        ensure!(!told.growing, "{told:?}");
    }
    let plan = holder.plan(&["--how", "kill"])?;
    ensure!(plan["frees_bytes"] == bytes, "{plan}");
    let volumes = serde_json::json!([volume.path()]);
    ensure!(plan["blast"]["volumes"] == volumes, "{plan}");
    // The volume is the only one that it writes on; a missing BPF LSM is another valid reason.
    let plan = holder.plan(&["--how", "fence"])?;
    let refused = plan["refused"].to_string();
    ensure!(!refused.contains("--volume"), "{plan}");
    let host = path.to_str().context("UTF-8")?;
    for name in [inside, host, &holder.fd.to_string()] {
        let plan = holder.plan(&["--how", "truncate", "--file", name])?;
        ensure!(plan["frees_bytes"] == bytes && plan["refused"] == Value::Array(vec![]), "{plan}");
    }
    holder.truncate(inside)?;
    ensure!(holder.bytes()? == 0);
    let freed = before.saturating_sub(used(volume)?);
    // A filesystem may keep some space for itself.
    ensure!(freed * 10 >= bytes * 9, "{freed} of {bytes}");
    Ok(())
}

/// Creates the layers of a container in `dir`, below some other directories.
fn layers(volume: &TestVolume) -> Result<PathBuf> {
    let dir = volume.path().join("overlay2/b7");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn in_a_container(fs_type: &str, mib: u64, name: &str, ways: &[&[&str]]) -> Result {
    let volume = TestVolume::new(fs_type, mib)?;
    let dir = layers(&volume)?;
    for arguments in ways {
        let holder = Holder::contained(&dir, arguments, name)?;
        let path = dir.join("upper/srv/data/part");
        shown_everywhere(&holder, &volume, &path, "/srv/data/part")
            .with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}

#[test]
fn held_in_a_container_on_ext4() -> Result {
    need_tracing!();
    in_a_container("ext4", 96, "filltop-held-ext4", &[&[], &["--copied"]])
}

#[test]
fn held_in_a_container_on_xfs() -> Result {
    need_tracing!();
    in_a_container("xfs", 320, "filltop-held-xfs", &[&[], &["--copied"]])
}

#[test]
fn held_in_a_container_on_btrfs() -> Result {
    need_tracing!();
    in_a_container("btrfs", 320, "filltop-held-btrfs", &[&[], &["--copied"]])
}

#[test]
fn held_in_a_container_with_a_user_namespace() -> Result {
    need_tracing!();
    in_a_container("ext4", 96, "filltop-held-user", &[&["--user"]])
}

/// The mount options name the overlay's upper directory as the outer container sees it, which is
/// not a path of the host.
#[test]
fn held_in_a_container_within_a_container() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let dir = layers(&volume)?;
    let inner = tempfile::tempdir()?;
    let command = bound(&dir, inner.path(), "container \"$at\" /srv/data/part");
    let child = |truth: &Truth| truth.children.first().copied();
    let holder = Holder::start(command, "filltop-held-inner", child)?;
    shown_everywhere(&holder, &volume, &dir.join("upper/srv/data/part"), "/srv/data/part")
}

/// As LXC and systemd-nspawn run it: no overlay; the root is a directory of the host.
#[test]
fn held_in_a_container_on_a_plain_directory() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let jail = volume.path().join("jails/web3");
    fs::create_dir_all(&jail)?;
    let inner = tempfile::tempdir()?;
    let command = bound(&jail, inner.path(), "write /part --hold --chroot \"$at\"");
    let holder = Holder::start(command, "filltop-held-plain", |truth| Some(truth.pid))?;
    shown_everywhere(&holder, &volume, &jail.join("part"), "/part")
}

/// Runs the workload `work` in a mount namespace of its own, where `dir` is also mounted at `at`,
/// below a shell that stays in it.
fn bound(dir: &Path, at: &Path, work: &str) -> Command {
    let script = format!(
        "at=\"$2\"; mount --bind \"$1\" \"$at\" && \"$3\" {work} --bytes {BYTES} --unlink; exit"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args([dir, at]).arg(workload().get_program());
    // SAFETY: two system calls, in a child with one thread.
    unsafe { command.pre_exec(own_mounts) };
    command
}

/// Creates a mount namespace whose mounts are not propagated.
fn own_mounts() -> std::io::Result<()> {
    let none = std::ptr::null();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: NUL-terminated strings, and null where the argument is ignored.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// In this case stat shows a different device for each filesystem, and a copied-up file keeps the
/// inode number of the lower layer.
#[test]
fn held_in_a_container_whose_image_is_on_another_filesystem() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let image = TestVolume::with_options("tmpfs", 16, "")?;
    let dir = layers(&volume)?;
    let lower = image.path().join("lower");
    fs::create_dir(&lower)?;
    let lower = lower.to_str().context("UTF-8")?;
    let path = dir.join("upper/srv/data/part");
    for arguments in [&["--lower", lower][..], &["--lower", lower, "--copied"]] {
        let holder = Holder::contained(&dir, arguments, "filltop-held-layers")?;
        shown_everywhere(&holder, &volume, &path, "/srv/data/part")
            .with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}

/// Both have copied up the same file of the image and removed it: two files with one inode number
/// in their overlays.
#[test]
fn two_containers_of_one_image_hold_two_files() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let image = volume.path().join("image");
    let lower = image.to_str().context("UTF-8")?;
    let mut holders = Vec::new();
    for name in ["a", "b"] {
        let dir = volume.path().join(name);
        let arguments = ["--lower", lower, "--copied"];
        holders.push(Holder::contained(&dir, &arguments, &format!("filltop-held-{name}"))?);
    }
    rustix::fs::syncfs(File::open(volume.path())?)?;
    let rows = held()?;
    for (holder, name) in holders.iter().zip(["a", "b"]) {
        let path = volume.path().join(name).join("upper/srv/data/part");
        holder.check(holder.row(&rows)?, &path, "/srv/data/part", &volume)?;
        let plan = holder.plan(&["--how", "kill"])?;
        ensure!(plan["frees_bytes"] == holder.bytes()?, "{plan}");
    }
    if let Some(snapshot) = snapshot()? {
        let sum = holders.iter().map(Holder::bytes).sum::<Result<u64>>()?;
        ensure!(held_bytes(&snapshot, &volume) == Some(sum), "{:?}", snapshot.volumes);
    }
    Ok(())
}

/// In mountinfo the upper directory is relative to a directory that is not reported.
#[test]
fn held_where_layer_paths_are_relative() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let overlay = Overlay::relative(volume.path())?;
    let holder = Holder::chrooted(&overlay, "filltop-held-relative")?;
    shown_everywhere(&holder, &volume, &overlay.upper().join("part"), "/part")
}

/// The upper bits of inode numbers hold the number of the layer (`xino`).
#[test]
fn held_with_xino() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let image = TestVolume::with_options("tmpfs", 16, "")?;
    fs::create_dir(image.path().join("lower"))?;
    fs::write(image.path().join("lower/part"), "of the image\n")?;
    let overlay = Overlay::with_layers(volume.path(), image.path(), ",xino=on")?;
    let holder = Holder::chrooted(&overlay, "filltop-held-xino")?;
    shown_everywhere(&holder, &volume, &overlay.upper().join("part"), "/part")
}

/// The file was never written, so it was not copied up: the space is the lower layer's.
#[test]
fn a_removed_file_of_a_lower_layer_is_held_there() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let image = TestVolume::with_options("tmpfs", 16, "")?;
    fs::create_dir(image.path().join("lower"))?;
    let below = image.path().join("lower/part");
    fs::write(&below, vec![1; 3 << 20])?;
    let overlay = Overlay::with_layers(volume.path(), image.path(), "")?;
    let reader = File::open(overlay.merged().join("part"))?;
    fs::remove_file(&below)?;
    let Some(snapshot) = snapshot()? else {
        println!(
            "SKIP a_removed_file_of_a_lower_layer_is_held_there: this kernel has no iterator over open files"
        );
        return Ok(());
    };
    drop(reader);
    if held_bytes(&snapshot, &volume) == Some(0) && held_bytes(&snapshot, &image) == Some(0) {
        // Without the types, filltop falls back to the walk, which cannot distinguish the layers.
        let is_module = Path::new("/sys/module/overlay/initstate").exists();
        let has_types = Path::new("/sys/kernel/btf/overlay").exists();
        ensure!(is_module && !has_types, "{:?}", snapshot.held);
        println!(
            "SKIP a_removed_file_of_a_lower_layer_is_held_there: this kernel has no BTF of overlayfs"
        );
        return Ok(());
    }
    ensure!(held_bytes(&snapshot, &image) == Some(3 << 20), "{:?}", snapshot.held);
    ensure!(held_bytes(&snapshot, &volume) == Some(0), "{:?}", snapshot.held);
    Ok(())
}

/// A file that is being written is marked as growing, also in the first interval.
#[test]
fn a_held_file_that_is_written_is_marked_growing() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 96)?;
    let overlay = Overlay::new(volume.path())?;
    let path = overlay.merged().join("log");
    let mut file = File::create(&path)?;
    fs::remove_file(&path)?;
    file.write_all(&vec![1; 1 << 20])?;
    let rest = File::create(overlay.merged().join("rest"))?;
    fs::remove_file(overlay.merged().join("rest"))?;
    (&rest).write_all(&vec![1; 1 << 20])?;
    let filltop = Filltop::start(&["--standalone"])?;
    file.write_all(&vec![1; 1 << 20])?;
    let snapshot = filltop.stop()?.snapshot;
    let growing = |name: &str| {
        let rows: Vec<&Held> =
            snapshot.held.iter().filter(|row| row.path.ends_with(name)).collect();
        ensure!(rows.len() == 1, "{:?}", snapshot.held);
        Ok(rows[0].growing)
    };
    let upper = |name: &str| overlay.upper().join(name).to_str().map(str::to_owned);
    ensure!(growing(&upper("log").context("UTF-8")?)?, "{:?}", snapshot.held);
    ensure!(!growing(&upper("rest").context("UTF-8")?)?, "{:?}", snapshot.held);
    Ok(())
}
