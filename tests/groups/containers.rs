//! Containers as runtimes make them, but without a runtime: real cgroups, mounts and state files.

use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{Filltop, TestVolume, need_tracing, run_workload, workload};
use tracer_model::snapshot::GroupKind;

use super::places::{Cgroup, unified};
use super::{Result, group_of};

const ID: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";

/// Size of a container's `/dev/shm`.
const SHM: u64 = 16 << 20;

/// What is mounted in a container and where: (type, options) or a file of the host.
enum Mounted<'p> {
    File(&'p Path, &'p str),
    Memory(&'p str),
}

/// Runs the command in a mount namespace of its own with these mounts.
fn mounted(command: &mut Command, mounts: &[Mounted<'_>]) -> Result {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let mut calls = vec![(
        c"none".to_owned(),
        c"/".to_owned(),
        c"".to_owned(),
        c"".to_owned(),
        libc::MS_REC | libc::MS_PRIVATE,
    )];
    for mount in mounts {
        calls.push(match mount {
            Mounted::File(from, to) => {
                (text(from)?, CString::new(*to)?, c"".to_owned(), c"".to_owned(), libc::MS_BIND)
            }
            Mounted::Memory(to) => {
                let options = CString::new(format!("size={SHM}"))?;
                (c"shm".to_owned(), CString::new(*to)?, c"tmpfs".to_owned(), options, 0)
            }
        });
    }
    let prepare = move || {
        let done = |result: libc::c_int| match result {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: no pointers.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        for (from, to, kind, options, flags) in &calls {
            // SAFETY: all of them are NUL-terminated and outlive the call.
            done(unsafe {
                libc::mount(
                    from.as_ptr(),
                    to.as_ptr(),
                    kind.as_ptr(),
                    *flags,
                    options.as_ptr().cast(),
                )
            })?;
        }
        Ok(())
    };
    // SAFETY: only system calls, which are allowed after a fork.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// A process of a container that writes `path` on request, and then stays.
struct Container {
    child: Child,
    _cgroup: Cgroup,
}

impl Container {
    fn new(path: &Path, mounts: &[Mounted<'_>], cgroup: &str) -> anyhow::Result<Self> {
        let mut command = workload();
        command
            .args(["write", "--wait", "--hold", "--bytes", "2000000"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        mounted(&mut command, mounts)?;
        let child = command.spawn()?;
        let cgroup = Cgroup::new(&unified()?, cgroup)?;
        cgroup.take(&child)?;
        Ok(Self { child, _cgroup: cgroup })
    }

    fn go(&mut self) -> Result {
        self.child.stdin.as_mut().context("piped")?.write_all(b"go\n")?;
        // Long enough for filltop to have seen it.
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a data root of Docker on the volume, with one container.
fn data_root(volume: &TestVolume) -> anyhow::Result<std::path::PathBuf> {
    let state = volume.path().join("dk/containers").join(ID);
    fs::create_dir_all(&state)?;
    fs::write(state.join("config.v2.json"), format!(r#"{{"ID":"{ID}","Name":"/web-a"}}"#))?;
    fs::write(state.join("hostname"), "web-a\n")?;
    Ok(state)
}

#[test]
fn a_container_is_named_wherever_its_data_root_is() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let state = data_root(&volume)?;
    let hostname = state.join("hostname");
    let filltop = Filltop::start(&[])?;
    let mounts = [Mounted::File(&hostname, "/etc/hostname")];
    let file = volume.path().join("f");
    let mut container = Container::new(&file, &mounts, &format!("docker/{ID}"))?;
    container.go()?;
    let measured = filltop.stop()?;
    let group = group_of(&measured, container.child.id())?;
    ensure!(group.kind == GroupKind::Docker && group.name == "web-a", "{group:?}");
    let row = measured.path(&file)?;
    ensure!(row.container.is_none(), "not on its root: {row:?}");
    Ok(())
}

/// The daemon writes what a container prints to its log; another process that creates a file of
/// that name is not a log driver.
#[test]
fn a_log_is_attributed_to_its_container() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    let state = data_root(&volume)?;
    let hostname = state.join("hostname");
    let programs = tempfile::tempdir()?;
    let dockerd = programs.path().join("dockerd");
    fs::copy(workload().get_program(), &dockerd)?;
    let mounts = [Mounted::File(&hostname, "/etc/hostname")];
    let file = volume.path().join("f");
    let filltop = Filltop::start(&[])?;
    let container = Container::new(&file, &mounts, &format!("docker/{ID}"))?;
    let log = state.join(format!("{ID}-json.log"));
    let rotated = state.join(format!("{ID}-json.log.1"));
    let daemon =
        run_workload(Command::new(&dockerd).arg("write").arg(&log).args(["--bytes", "4000000"]))?;
    let other = run_workload(workload().arg("write").arg(&rotated).args(["--bytes", "1000000"]))?;
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let measured = filltop.stop()?;
    drop(container);
    let row = measured.path(&log)?;
    let of =
        row.log_of.as_ref().with_context(|| format!("not attributed to a container: {row:?}"))?;
    ensure!(of.kind == GroupKind::Docker && of.name == "web-a", "{of:?}");
    ensure!(of.cgroup.as_deref() == Some(&format!("/docker/{ID}")), "{of:?}");
    let writer = measured.writers_of(daemon.pid).next().context("no row for the daemon")?;
    let [on_behalf] = &*writer.on_behalf_of else { anyhow::bail!("{writer:?}") };
    ensure!(on_behalf.group == *of && on_behalf.written_bytes == 4_000_000, "{on_behalf:?}");
    ensure!(measured.path(&rotated)?.log_of.is_none(), "an ordinary process is no log driver");
    let writer = measured.writers_of(other.pid).next().context("no row for the other")?;
    ensure!(writer.on_behalf_of.is_empty(), "{writer:?}");
    let groups = &measured.snapshot.groups;
    let row = groups.iter().find(|row| row.group.name == "web-a").context("no row")?;
    ensure!(row.written_bytes == 0 && row.log_bytes_per_s > 0.0, "{row:?}");
    ensure!(row.charged_growth() > 0.0, "{row:?}");
    let first = groups.iter().find(|row| row.volume == volume.path().to_string_lossy());
    ensure!(first.context("no groups")?.group.name == "web-a", "{groups:#?}");
    Ok(())
}

#[test]
fn the_memory_of_a_container_is_a_volume() -> Result {
    need_tracing!();
    let filltop = Filltop::start(&[])?;
    let mounts = [Mounted::Memory("/dev/shm")];
    let mut container = Container::new(Path::new("/dev/shm/f"), &mounts, &format!("docker/{ID}"))?;
    container.go()?;
    let measured = filltop.stop()?;
    let name = format!("{}:/dev/shm", &ID[..12]);
    let volumes = &measured.snapshot.volumes;
    let volume = volumes.iter().find(|volume| volume.mount_point == name);
    let volume = volume.with_context(|| format!("{volumes:#?}"))?;
    ensure!(volume.fs_type == "tmpfs" && volume.total_bytes == SHM, "{volume:?}");
    ensure!(volume.used_bytes >= 2_000_000, "{volume:?}");
    let owner = volume.container.as_ref().context("the volume has no container")?;
    ensure!(owner.kind == GroupKind::Docker && owner.name == ID[..12], "{owner:?}");
    let writer = measured.writers_of(container.child.id()).next().context("no row")?;
    ensure!(writer.volume == name && writer.written_bytes == 2_000_000, "{writer:?}");
    let row = measured.path(Path::new(&format!("{name}/f")))?;
    ensure!(row.written_bytes == 2_000_000, "{row:?}");
    Ok(())
}
