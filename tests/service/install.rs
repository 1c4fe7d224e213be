//! What contrib/ gives to those who install: the unit, the image's recipe, the manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, filltop, need_tracing, run_workload, workload};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Result,
    watch::{Watch, utf8, value},
};

/// A file that is given to those who install.
pub fn contrib(path: &str) -> anyhow::Result<PathBuf> {
    let tests = env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?;
    Ok(Path::new(&tests).join("../contrib").join(path))
}

/// Values of a setting of the unit.
fn setting(unit: &str, key: &str) -> Vec<String> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() -> Result {
    let unit = contrib("systemd/filltop.service")?;
    // verify wants to find the program where the unit says.
    let dir = tempfile::tempdir()?;
    let text = fs::read_to_string(&unit)?;
    let program = filltop();
    let text = text.replace("/usr/bin/filltop", utf8(&program)?);
    let copy = dir.path().join("filltop.service");
    fs::write(&copy, text)?;
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&copy).output() else {
        println!("SKIP systemd_finds_nothing_wrong_with_the_unit: no systemd-analyze here");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    let mut security = Command::new("systemd-analyze");
    // 3.1 of 10, less is better; what is left is named in docs/service.md.
    security.args(["security", "--offline=true", "--threshold=31"]).arg(&copy);
    let output = security.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = said.lines().rfind(|line| line.contains("exposure level")).unwrap_or_default();
    println!("{}", verdict.trim());
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The image holds one file; the host's volumes, users and processes are seen all the same.
#[test]
fn from_an_image_with_nothing_in_it_the_host_is_seen() -> Result {
    need_tracing!();
    let recipe = fs::read_to_string(contrib("container/Containerfile")?)?;
    ensure!(recipe.contains("FROM scratch") && recipe.contains("FILLTOP_HOST_ROOT=/proc/1/root"));
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("image");
    for folder in ["proc", "sys", "tmp"] {
        fs::create_dir_all(image.join(folder))?;
    }
    fs::copy(filltop(), image.join("filltop"))?;
    let volume = TestVolume::new("ext4", 64)?;
    let mount = utf8(volume.path())?;
    // As a runtime does it: own mounts, of which none is the host's.
    let script = format!(
        "mount --bind {image} {image} && mount -t proc proc {image}/proc && \
         mount --rbind /sys {image}/sys && mount -t tmpfs tmpfs {image}/tmp && \
         mkdir -p {image}/tmp/{run} && cd {image} && mkdir -p tmp/old && pivot_root . tmp/old && \
         exec /filltop \"$@\"",
        image = image.display(),
        run = "x",
    );
    // pivot_root leaves no shell's programs behind: what comes after it is exec alone. The old root is
    // unmounted by nobody, and not looked at.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    // This process stands for PID 1, which may be somebody else's where tests run in a container.
    command.env("FILLTOP_HOST_ROOT", format!("/proc/{}/root", std::process::id()));
    let watch = Watch::start_by(command, &["--no-socket"])?;
    let path = volume.path().join("by-the-host");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "5000000"]))?;
    thread::sleep(Duration::from_millis(1500));
    let text = watch.metrics("")?;
    let series = format!("filltop_volume_written_bytes_total{{volume=\"{mount}\"}}");
    let counted = value(&text, &series).with_context(|| format!("no {series} in {text}"))?;
    ensure!(counted == truth.total() as f64, "{counted} of {} bytes", truth.total());
    let avail = value(&text, &format!("filltop_volume_avail_bytes{{volume=\"{mount}\"}}"));
    ensure!(avail.is_some_and(|avail| avail > 0.0), "{avail:?}");
    Ok(())
}

/// Built by a real builder, it holds the program and its licences, and starts.
#[test]
fn the_recipe_makes_an_image_of_one_program() -> Result {
    need_tracing!();
    if Command::new("buildah").arg("--version").output().is_err() {
        println!("SKIP the_recipe_makes_an_image_of_one_program: no buildah here");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let recipe = contrib("container/Containerfile")?;
    let checkout = contrib("..")?;
    // The recipe takes the program from where `cargo xtask build` puts it.
    let context = dir.path().join("context");
    fs::create_dir_all(context.join("target/release"))?;
    fs::copy(filltop(), context.join("target/release/filltop"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(checkout.join(licence), context.join(licence))?;
    }
    let buildah = |arguments: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver=vfs", "--root"]).arg(dir.path().join("storage"));
        command.arg("--runroot").arg(dir.path().join("run")).args(arguments);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let (recipe, context) = (utf8(&recipe)?, utf8(&context)?);
    buildah(&["build", "--isolation=chroot", "-f", recipe, "-t", "filltop", context])?;
    let container = buildah(&["from", "filltop"])?;
    let root = buildah(&["mount", &container])?;
    let files: BTreeSet<String> = fs::read_dir(&root)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    let size = fs::metadata(Path::new(&root).join("filltop"))?.len();
    println!("{files:?}, {:.1} MB", size as f64 / 1e6);
    ensure!(files.iter().eq(["LICENSE-APACHE", "LICENSE-MIT", "filltop"]), "{files:?}");
    let version =
        buildah(&["run", "--isolation=chroot", &container, "--", "/filltop", "--version"])?;
    ensure!(version.starts_with("filltop "), "{version}");
    let starts = "{{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}";
    let starts = buildah(&["inspect", "--type=image", "--format", starts, "filltop"])?;
    ensure!(starts == "[/filltop] [watch --metrics 0.0.0.0:9823]", "{starts}");
    buildah(&["rm", "-a"])?;
    Ok(())
}

/// The same rights wherever it is installed.
#[test]
fn unit_manifest_and_recipe_give_the_same_rights() -> Result {
    let unit = fs::read_to_string(contrib("systemd/filltop.service")?)?;
    let bounding = setting(&unit, "CapabilityBoundingSet");
    let mut unit_caps: Vec<String> = bounding
        .iter()
        .flat_map(|line| line.split(' '))
        .map(|cap| cap.trim_start_matches("CAP_").to_owned())
        .collect();
    unit_caps.sort();
    let list = |text: &str, before: &str, after: char| -> Option<Vec<String>> {
        let rest = &text[text.find(before)? + before.len()..];
        let mut caps: Vec<String> = rest[..rest.find(after)?]
            .split(',')
            .map(|cap| cap.trim().to_ascii_uppercase())
            .collect();
        caps.sort();
        Some(caps)
    };
    let manifest = fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    ensure!(list(&manifest, "add: [", ']').as_ref() == Some(&unit_caps), "{unit_caps:?}");
    let recipe = fs::read_to_string(contrib("container/Containerfile")?)?;
    ensure!(list(&recipe, "--cap-add=", ' ').as_ref() == Some(&unit_caps), "{unit_caps:?}");
    ensure!(!manifest.contains("privileged: true"));
    Ok(())
}

/// Every system call that is made at start, while clients and scrapers come, and at the end is one that
/// the unit's filter lets through.
#[test]
fn the_units_filter_lets_every_system_call_through() -> Result {
    need_tracing!();
    let sets = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output();
    let (Ok(sets), true) = (sets, Path::new("/usr/bin/strace").exists()) else {
        println!("SKIP the_units_filter_lets_every_system_call_through: no systemd or no strace");
        return Ok(());
    };
    let sets = Sets::parse(&String::from_utf8(sets.stdout)?);
    let unit = fs::read_to_string(contrib("systemd/filltop.service")?)?;
    let mut allowed = BTreeSet::new();
    for line in setting(&unit, "SystemCallFilter") {
        let taken_away = line.starts_with('~');
        for name in line.trim_start_matches('~').split(' ') {
            for call in sets.calls(name) {
                if taken_away {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    ensure!(allowed.contains("mlockall") && !allowed.contains("mount"), "{allowed:?}");
    let dir = tempfile::tempdir()?;
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&trace).arg(filltop());
    let watch = Watch::start_by(command, &[])?;
    watch.snapshot("1s")?;
    let pid = fs::read_to_string(&trace)?;
    let pid: i32 = pid.split(' ').next().context("an empty trace")?.parse()?;
    let pid = Pid::from_raw(pid).context("no pid")?;
    kill_process(pid, Signal::TERM)?;
    thread::sleep(Duration::from_secs(2));
    let text = fs::read_to_string(&trace)?;
    let made: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(call, _)| call)
        .filter(|call| {
            call.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect();
    ensure!(made.contains("bpf") && made.contains("accept4"), "{made:?}");
    let refused: Vec<_> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    ensure!(refused.is_empty(), "the filter refuses {refused:?}");
    println!("{} system calls, all among {}", made.len(), allowed.len());
    Ok(())
}

/// systemd's sets of system calls, by name.
struct Sets(BTreeMap<String, Vec<String>>);

impl Sets {
    fn parse(text: &str) -> Self {
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            let name = line.trim();
            if line.starts_with('@') {
                name.clone_into(&mut current);
            } else if line.starts_with(' ') && !name.starts_with('#') {
                sets.entry(current.clone()).or_default().push(name.to_owned());
            }
        }
        Self(sets)
    }

    fn calls(&self, name: &str) -> Vec<String> {
        if !name.starts_with('@') {
            return vec![name.to_owned()];
        }
        let members = self.0.get(name).into_iter().flatten();
        members.flat_map(|member| self.calls(member)).collect()
    }
}
