//! Processes are rolled up to their unit, container or cgroup, even if they exit before they could
//! be looked up.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{
    Filltop, Overlay, TestVolume, Truth, need_tracing, public_workload, run_workload, workload,
};
use tracer_model::snapshot::GroupKind;

use super::{Result, exact, group_of, only_group, sees_overlays};

#[test]
fn a_forking_server_is_one_group_with_one_exact_sum() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 320)?;
    let filltop = Filltop::start(&[])?;
    let server = workload()
        .arg("fork-server")
        .arg(volume.path())
        .args(["--workers", "200", "--bytes", "1000000", "--life-ms", "50"])
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = server.id();
    let truth: Truth = serde_json::from_slice(&server.wait_with_output()?.stdout)?;
    let measured = filltop.stop()?;
    let row = only_group(&measured, volume.path())?;
    exact(&measured, &truth, row)?;
    ensure!(row.written_bytes == 200_000_000);
    ensure!(row.processes == 200 && row.alive == 0, "{row:?}");
    let spawner = row.spawner.as_ref().context("no spawner")?;
    ensure!(spawner.pid == pid && spawner.spawned == 200, "{spawner:?} is not {pid}");
    ensure!(spawner.comm == "filltop-workloa", "{spawner:?}");
    let directory = row.directory.as_deref();
    ensure!(directory == volume.path().to_str(), "{directory:?}");
    Ok(())
}

/// A cgroup of the test's own; removed on drop, together with the parents that it created.
pub(super) struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    pub(super) fn new(hierarchy: &Path, path: &str) -> anyhow::Result<Self> {
        let mut made = Vec::new();
        let mut at = hierarchy.to_path_buf();
        for part in path.split('/') {
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at).with_context(|| at.display().to_string())?;
                made.push(at.clone());
            }
        }
        Ok(Self { path: at, made })
    }

    pub(super) fn take(&self, child: &Child) -> Result {
        Ok(fs::write(self.path.join("cgroup.procs"), child.id().to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Where cgroup v2 is mounted, alone or next to v1.
pub(super) fn unified() -> anyhow::Result<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.join("cgroup.procs").exists())
        .context("cgroup v2 is not mounted")
}

/// A writer in a cgroup; both are gone before filltop reports. Returns (kind, name, cgroup).
fn written_in(hierarchy: &Path, path: &str) -> anyhow::Result<(GroupKind, String, Option<String>)> {
    let volume = TestVolume::new("ext4", 64)?;
    let filltop = Filltop::start(&[])?;
    let file = volume.path().join("f");
    let mut child = workload()
        .args(["write", "--wait", "--bytes", "1000000"])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let cgroup = Cgroup::new(hierarchy, path)?;
    cgroup.take(&child)?;
    child.stdin.take().context("piped")?.write_all(b"go\n")?;
    let pid = child.id();
    ensure!(child.wait()?.success());
    drop(cgroup);
    let measured = filltop.stop()?;
    let group = group_of(&measured, pid)?;
    Ok((group.kind, group.name.clone(), group.cgroup.clone()))
}

#[test]
fn a_removed_cgroup_is_named() -> Result {
    need_tracing!();
    let (kind, name, cgroup) = written_in(&unified()?, "filltop-test/nightly\u{1b}job")?;
    ensure!(
        kind == GroupKind::Cgroup && name == "/filltop-test/nightly\u{1b}job",
        "{kind} {name:?}"
    );
    ensure!(cgroup.as_deref() == Some(&name), "{cgroup:?}");
    Ok(())
}

#[test]
fn a_unit_and_a_container_are_recognized_by_their_cgroups() -> Result {
    need_tracing!();
    let path = "filltop.slice/apache2@web3.service";
    let (kind, name, cgroup) = written_in(&unified()?, path)?;
    ensure!(kind == GroupKind::Unit && name == "apache2@web3.service", "{kind} {name}");
    ensure!(cgroup == Some(format!("/{path}")), "{cgroup:?}");
    let id = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let (kind, name, _) = written_in(&unified()?, &format!("docker/{id}"))?;
    ensure!(kind == GroupKind::Docker && name == id[..12], "{kind} {name}");
    Ok(())
}

#[test]
fn a_cgroup_of_version_1_is_named() -> Result {
    need_tracing!();
    let hierarchy = Path::new("/sys/fs/cgroup/pids");
    if !hierarchy.join("cgroup.procs").exists() {
        println!("SKIP a_cgroup_of_version_1_is_named: cgroup v1 is not mounted");
        return Ok(());
    }
    let volume = TestVolume::new("ext4", 64)?;
    let cgroup = Cgroup::new(hierarchy, "lxc/web3")?;
    let filltop = Filltop::start(&[])?;
    let mut child = workload()
        .args(["write", "--wait", "--hold", "--bytes", "1000000"])
        .arg(volume.path().join("f"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    cgroup.take(&child)?;
    let mut stdin = child.stdin.take().context("piped")?;
    stdin.write_all(b"go\n")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    // Long enough for filltop to have read /proc: the eBPF programs do not send paths of cgroup v1.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    stdin.write_all(b"end\n")?;
    ensure!(child.wait()?.success());
    let measured = filltop.stop()?;
    let group = group_of(&measured, child.id())?;
    ensure!(group.kind == GroupKind::Lxc && group.name == "web3", "{group:?}");
    Ok(())
}

#[test]
fn a_chroot_is_named_with_the_path_inside() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let jail = volume.path().join("jails/web3");
    fs::create_dir_all(jail.join("var/mod_gzip"))?;
    let filltop = Filltop::start(&[])?;
    let truth = run_workload(
        workload()
            .args(["write", "/var/mod_gzip/part", "--bytes", "1234567", "--chroot"])
            .arg(&jail),
    )?;
    let measured = filltop.stop()?;
    let group = group_of(&measured, truth.pid)?;
    ensure!(group.root.as_deref() == jail.to_str(), "{group:?}");
    let row = measured.path(&jail.join("var/mod_gzip/part"))?;
    ensure!(row.path_in_container.as_deref() == Some("/var/mod_gzip/part"), "{row:?}");
    Ok(())
}

/// Like most servers: they open their log first, and enter their chroot later.
#[test]
fn a_process_that_enters_a_chroot_later_has_the_path_inside() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let jail = volume.path().join("jail");
    fs::create_dir_all(&jail)?;
    let log = volume.path().join("log");
    let filltop = Filltop::start(&[])?;
    let mut child = workload()
        .args(["write", "/part", "--bytes", "1234567", "--wait", "--chroot"])
        .arg(&jail)
        .arg("--log")
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = BufReader::new(child.stdout.take().context("piped")?);
    stdout.read_line(&mut String::new())?;
    // Long enough for filltop to have seen it outside of the chroot.
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.stdin.take().context("piped")?.write_all(b"go\n")?;
    ensure!(child.wait()?.success());
    let measured = filltop.stop()?;
    let row = measured.path(&jail.join("part"))?;
    ensure!(row.written_bytes == 1_234_567 && row.writers == [child.id()], "{row:?}");
    ensure!(row.path_in_container.as_deref() == Some("/part"), "{row:?}");
    let group = group_of(&measured, child.id())?;
    ensure!(group.root.as_deref() == jail.to_str(), "{group:?}");
    let row = measured.path(&log)?;
    ensure!(row.written_bytes == 4 && row.path_in_container.is_none(), "{row:?}");
    Ok(())
}

/// A container as most runtimes make it, on an overlay that the host has mounted. It is gone before
/// it could be looked up.
#[test]
fn a_short_lived_container_process_has_the_path_inside() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let overlay = Overlay::new(volume.path())?;
    let filltop = Filltop::start(&[])?;
    let mut command = workload();
    command.args(["write", "/part", "--bytes", "1234567", "--chroot"]).arg(overlay.merged());
    // SAFETY: no pointers.
    let unshare = || match unsafe { libc::unshare(libc::CLONE_NEWNS) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: one system call, which is allowed after a fork.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, unshare) };
    run_workload(&mut command)?;
    let measured = filltop.stop()?;
    if !sees_overlays(&measured) {
        println!(
            "SKIP a_short_lived_container_process_has_the_path_inside: with tracepoints, overlayfs \
             is not seen before Linux 6.6"
        );
        return Ok(());
    }
    let row = measured.path(&overlay.upper().join("part"))?;
    ensure!(row.path_in_container.as_deref() == Some("/part"), "{row:?}");
    Ok(())
}

fn container(name: &str, arguments: &[&str]) -> Result {
    let volume = TestVolume::new("ext4", 64)?;
    let dir = volume.path().join("overlay2/b7");
    fs::create_dir_all(&dir)?;
    // The root of a user namespace can only enter directories that are open to every user.
    let program = public_workload()?;
    let filltop = Filltop::start(&[])?;
    let mut child = Command::new(program.path())
        .arg("container")
        .args([&dir, Path::new("/srv/data/part")])
        .args(["--bytes", "2000000"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let truth: Truth = serde_json::from_str(&line).context("the container failed")?;
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    child.stdin.take().context("piped")?.write_all(b"end\n")?;
    ensure!(child.wait()?.success());
    let measured = filltop.stop()?;
    if !sees_overlays(&measured) {
        println!("SKIP {name}: with tracepoints, overlayfs is not seen before Linux 6.6");
        return Ok(());
    }
    let row = measured.path(&dir.join("upper/srv/data/part"))?;
    ensure!(row.written_bytes == 2_000_000 && row.writers == truth.children, "{row:?}");
    ensure!(row.path_in_container.as_deref() == Some("/srv/data/part"), "{row:?}");
    let group = group_of(&measured, truth.children[0])?;
    ensure!(group.mount_namespace.is_some() && group.root.is_none(), "{group:?}");
    Ok(())
}

#[test]
fn an_overlay_container_has_both_paths() -> Result {
    need_tracing!();
    container("an_overlay_container_has_both_paths", &[])
}

#[test]
fn a_user_namespace_container_has_both_paths() -> Result {
    need_tracing!();
    container("a_user_namespace_container_has_both_paths", &["--user"])
}
