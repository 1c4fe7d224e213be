//! The service under the unit's own settings, its system call filter included, next to root: the
//! same volumes, hooks and bytes, on every filesystem, whenever its module is loaded and it is
//! mounted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, bail, ensure};
use filltop_tests::{Filltop, Measured, Overlay, TestVolume, workload};
use tracer_model::snapshot::{Hook, HookState, Snapshot, Volume};

use crate::compare::{Place, WayTruth, compare};
use crate::{
    MEMBER, Result, UNIT, as_user, installed, journal, need_debian, succeed, systemctl, user,
    wait_for,
};

/// Filesystems whose modules can be unloaded here: the root is an ext4.
const UNLOADABLE: [&str; 3] = ["xfs", "btrfs", "overlay"];
/// The function of each module that counts writes: the last to be attached.
const COUNTS: [(&str, &str); 3] = [
    ("ext4", "ext4_file_write_iter"),
    ("xfs", "xfs_file_write_iter"),
    ("btrfs", "btrfs_file_write_iter"),
];

/// A filesystem, and an overlay on it.
struct Pair {
    fs: &'static str,
    // Dropped before the volume that it is on.
    overlay: Overlay,
    volume: TestVolume,
}

impl Pair {
    fn mount(fs: &'static str) -> Result<Self> {
        let volume = TestVolume::new(fs, 400).with_context(|| fs.to_owned())?;
        let overlay = Overlay::new(volume.path()).with_context(|| format!("overlay on {fs}"))?;
        Ok(Self { fs, overlay, volume })
    }

    /// The places to write: the name of the filesystem that the writer sees, its directory, and the
    /// same on the host.
    fn places(&self) -> [(&'static str, PathBuf, PathBuf); 2] {
        let direct = self.volume.path().join("direct");
        let over = match self.fs {
            "xfs" => "overlay-xfs",
            "btrfs" => "overlay-btrfs",
            _ => "overlay",
        };
        [(self.fs, direct.clone(), direct), (over, self.overlay.merged(), self.overlay.upper())]
    }
}

fn is_loaded(module: &str) -> Result<bool> {
    let start = format!("{module} ");
    Ok(fs::read_to_string("/proc/modules")?.lines().any(|line| line.starts_with(&start)))
}

/// Loads or unloads all modules that can be unloaded; the service must not run.
fn modules(loaded: bool) -> Result {
    for module in UNLOADABLE {
        if loaded {
            succeed(Command::new("modprobe").arg(module))?;
        } else if is_loaded(module)? {
            // Another test's loop device may not have released it yet.
            wait_for(&format!("{module} can be unloaded"), || {
                Ok(Command::new("modprobe").args(["-r", module]).status()?.success())
            })?;
        }
    }
    Ok(())
}

fn restart() -> Result<()> {
    systemctl(&["restart", UNIT]).with_context(|| journal(UNIT).unwrap_or_default())?;
    Ok(())
}

/// The service's data of the last `length`, asked as a member of its group: next to a service that
/// lacks a capability, root would measure directly.
fn ask(length: &str) -> Result<Snapshot> {
    user(MEMBER, &["-G", "filltop"])?;
    let json = succeed(as_user(MEMBER).args(["snapshot", "--json", "--for", length]))?;
    Ok(serde_json::from_str(&json)?)
}

/// The service's data since `since`.
fn of_the_service(since: Instant) -> Result<Measured> {
    // The next Snapshot contains the last writes.
    thread::sleep(Duration::from_secs(3));
    let length = format!("{}s", since.elapsed().as_secs() + 1);
    Ok(Measured { snapshot: ask(&length)?, said: journal(UNIT)? })
}

/// Waits until the service counts with the filesystems' own functions.
fn attached(filesystems: &[&str]) -> Result {
    let mut last = String::new();
    let wanted = COUNTS.iter().filter(|(fs, _)| filesystems.contains(fs));
    let wanted: Vec<&str> = wanted.map(|(_, hook)| *hook).collect();
    let looked = wait_for("the service has attached to all filesystems", || {
        let snapshot = ask("1s")?;
        let rows = |name: &str| -> Vec<&Hook> {
            snapshot.backend.hooks.iter().filter(|hook| hook.name == name).collect()
        };
        let missing = wanted
            .iter()
            .map(|name| (name, rows(name)))
            .filter(|(_, rows)| !rows.iter().any(|hook| hook.state == HookState::Ok));
        let missing: Vec<_> = missing.collect();
        last = format!("{missing:?}");
        Ok(missing.is_empty())
    });
    println!("attached after {:.1} s", looked.with_context(|| last)?.as_secs_f64());
    Ok(())
}

/// What is attached, by name and kind of hook.
fn attachments(measured: &Measured) -> BTreeSet<(&str, &str)> {
    let all = measured.snapshot.backend.hooks.iter();
    let attached = all.filter(|hook| hook.state == HookState::Ok);
    attached.map(|hook| (hook.name.as_str(), hook.how.name())).collect()
}

fn volume<'m>(measured: &'m Measured, mount: &Path) -> Result<&'m Volume> {
    let mut rows = measured.snapshot.volumes.iter();
    let row = rows.find(|row| Path::new(&row.mount_point) == mount);
    row.with_context(|| format!("no row of {}", mount.display()))
}

fn same_view(service: &Measured, root: &Measured) -> Result {
    let mounts = |measured: &Measured| -> Vec<_> {
        let rows = measured.snapshot.volumes.iter();
        let mut rows: Vec<_> =
            rows.map(|row| (row.mount_point.clone(), row.fs_type.clone(), row.read_only)).collect();
        rows.sort();
        rows
    };
    let (ours, roots) = (mounts(service), mounts(root));
    ensure!(ours == roots, "volumes of the service {ours:#?} and of root {roots:#?}");
    let (ours, roots) = (attachments(service), attachments(root));
    let rows = |name: &str| -> Vec<&Hook> {
        service.snapshot.backend.hooks.iter().filter(|hook| hook.name == name).collect()
    };
    let missing: Vec<_> = roots.difference(&ours).map(|key| (key, rows(key.0))).collect();
    ensure!(missing.is_empty(), "only root has these: {missing:#?}");
    let further: Vec<_> = ours.difference(&roots).collect();
    ensure!(further.is_empty(), "only the service has these: {further:#?}");
    let hooks = service.snapshot.backend.hooks.iter();
    let broken: Vec<_> =
        hooks.filter(|hook| matches!(hook.state, HookState::Broken { .. })).collect();
    ensure!(broken.is_empty(), "{broken:#?}");
    ensure!(
        service.snapshot.backend.write == root.snapshot.backend.write,
        "service and root use different backends"
    );
    println!(
        "{} hooks attached, all as root's, by {}",
        ours.len(),
        service.snapshot.backend.write.name()
    );
    Ok(())
}

/// The measured growth equals the space that the volume lost, and it is explained.
fn explained(measured: &Measured, mount: &Path, who: &str) -> Result {
    let row = volume(measured, mount)?;
    let growth = row.growth_bytes_per_s * measured.snapshot.interval_s;
    println!(
        "{who}: {} on {}: used {:+}, growth {growth:+.0}, explained {:?}",
        row.fs_type,
        mount.display(),
        row.used_delta_bytes,
        row.explained
    );
    ensure!(row.explained.is_some_and(|share| share > 0.9), "{who}: {row:?}");
    let used = row.used_delta_bytes as f64;
    ensure!((growth - used).abs() <= used.abs() * 0.1 + 65536.0, "{who}: {row:?}");
    Ok(())
}

/// Runs all ways to write in each place and compares the figures of the service and of root with
/// the truth.
fn all_ways(pairs: &[Pair]) -> Result {
    for pair in pairs {
        fs::create_dir(pair.volume.path().join("direct"))?;
        let since = Instant::now();
        let root = Filltop::start(&["--standalone"])?;
        let mut truths: Vec<Vec<WayTruth>> = Vec::new();
        for (fs, dir, _) in pair.places() {
            let output = workload().arg("ways").arg(&dir).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{fs}: the workload failed: {said}");
            truths.push(serde_json::from_slice(&output.stdout)?);
        }
        let service = of_the_service(since)?;
        let root = root.stop()?;
        same_view(&service, &root)?;
        let mut surprises = Vec::new();
        // Root's lines have the name of its backend, as without a service.
        for (who, by, measured) in [("root", "", &root), ("service", "service", &service)] {
            let lost = &measured.snapshot.backend.lost;
            for ((fs, dir, host), truths) in pair.places().into_iter().zip(&truths) {
                let place = Place { fs, volume: pair.volume.path(), seen: &dir, host, by };
                if let Err(error) = compare(measured, truths, &place) {
                    surprises.push(format!("{who}, {fs} of {}: {error} ({lost:?})", pair.fs));
                }
            }
            if let Err(error) = explained(measured, pair.volume.path(), who) {
                surprises.push(format!("{who}, {}: {error}", pair.fs));
            }
        }
        ensure!(surprises.is_empty(), "{}", surprises.join("\n"));
    }
    Ok(())
}

/// Mounts these filesystems, with an overlay on each.
fn mount_all(filesystems: &[&'static str]) -> Result<Vec<Pair>> {
    filesystems.iter().copied().map(Pair::mount).collect()
}

const ALL: [&str; 3] = ["ext4", "xfs", "btrfs"];

#[test]
fn it_runs_on_a_kernel_as_debian_installs_it() -> Result {
    need_debian!();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(!release.contains("cloud") && release.trim().ends_with("-amd64"), "{release}");
    for module in ["ext4", "xfs", "btrfs", "overlay"] {
        let built_in = format!("/lib/modules/{}/modules.builtin", release.trim());
        let built_in = fs::read_to_string(built_in)?;
        ensure!(!built_in.contains(&format!("/{module}.ko")), "{module} is built in");
        succeed(Command::new("modinfo").arg(module))?;
    }
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled")?;
    ensure!(enabled.trim() == "Y", "AppArmor is not enabled");
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles")?;
    ensure!(!profiles.trim().is_empty(), "no profile is loaded");
    println!("Linux {}, {} profiles of AppArmor", release.trim(), profiles.lines().count());
    Ok(())
}

#[test]
fn volumes_mounted_before_the_start_are_as_exact_as_for_root() -> Result {
    need_debian!();
    installed(None)?;
    systemctl(&["stop", UNIT])?;
    modules(true)?;
    let pairs = mount_all(&ALL)?;
    restart()?;
    attached(&ALL)?;
    all_ways(&pairs)
}

#[test]
fn volumes_mounted_after_the_start_are_as_exact_as_for_root() -> Result {
    need_debian!();
    installed(None)?;
    systemctl(&["stop", UNIT])?;
    modules(true)?;
    restart()?;
    let pairs = mount_all(&ALL)?;
    attached(&ALL)?;
    all_ways(&pairs)
}

#[test]
fn volumes_of_modules_loaded_after_the_start_are_as_exact_as_for_root() -> Result {
    need_debian!();
    installed(None)?;
    systemctl(&["stop", UNIT])?;
    modules(false)?;
    restart()?;
    for module in UNLOADABLE {
        if is_loaded(module)? {
            bail!("{module} is already loaded");
        }
    }
    // mount(2) makes the kernel load them with modprobe.
    let pairs = mount_all(&["xfs", "btrfs"])?;
    attached(&["xfs", "btrfs"])?;
    all_ways(&pairs)
}
