//! filltop in containers: what it sees, what it refuses, and what it calls the machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use filltop_tests::{Cgroup, TestVolume, filltop, need_tracing, run_workload, workload};
use serde_json::Value;

use crate::install::{contrib, setting};
use crate::watch::{Watch, succeeded, utf8, value};
use crate::{Result, written_bytes_of};

/// The image contains one file; the host's volumes, users and processes are seen all the same.
#[test]
fn the_host_is_seen_from_an_empty_image() -> Result {
    need_tracing!();
    let recipe = fs::read_to_string(contrib("container/Containerfile")?)?;
    ensure!(recipe.contains("FROM scratch") && recipe.contains("FILLTOP_HOST_ROOT=/proc/1/root"));
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("image");
    // Includes the one directory that the recipe creates.
    for folder in ["proc", "sys", "tmp", "run/filltop"] {
        fs::create_dir_all(image.join(folder))?;
    }
    fs::copy(filltop(), image.join("filltop"))?;
    let volume = TestVolume::new("ext4", 64)?;
    let mount = utf8(volume.path())?;
    // Like a runtime: a mount namespace of its own, with none of the host's mounts.
    let script = format!(
        "mount --bind {image} {image} && mount -t proc proc {image}/proc && \
         mount --rbind /sys {image}/sys && mount -t tmpfs tmpfs {image}/tmp && \
         cd {image} && mkdir -p tmp/old && pivot_root . tmp/old && exec /filltop \"$@\"",
        image = image.display(),
    );
    // After pivot_root the shell's programs are gone: only exec can follow. The old root stays
    // mounted, and is not used.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    // This process stands in for PID 1, which may be a foreign process where tests run in a
    // container.
    command.env("FILLTOP_HOST_ROOT", host_root()).env("NODE_NAME", "node-7");
    let watch = Watch::start_by(command, &["--no-socket"])?;
    let path = volume.path().join("by-the-host");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "5000000"]))?;
    let series = written_bytes_of(volume.path())?;
    let text = watch.settled("", |text| value(text, &series) == Some(truth.total() as f64))?;
    let counted = value(&text, &series).with_context(|| format!("no {series} in {text}"))?;
    ensure!(counted == truth.total() as f64, "{counted} of {} bytes", truth.total());
    let avail = value(&text, &format!("filltop_volume_avail_bytes{{volume=\"{mount}\"}}"));
    ensure!(avail.is_some_and(|avail| avail > 0.0), "{avail:?}");
    ensure!(value(&text, "filltop_host_info{host=\"node-7\"}") == Some(1.0), "{text}");
    Ok(())
}

/// This process stands in for PID 1, which may be a foreign process where tests run in a container.
fn host_root() -> String {
    format!("/proc/{}/root", std::process::id())
}

/// Like `docker run` without --pid=host: process 1 is the container's own.
fn without_host_pid(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(filltop()).args(arguments);
    // No service of this machine must answer instead.
    command.env("FILLTOP_HOST_ROOT", "/proc/1/root").env("FILLTOP_SOCKET", "/nowhere");
    command
}

#[test]
fn without_the_hosts_pid_namespace_it_refuses_and_names_the_flag() -> Result {
    for arguments in
        [&["snapshot", "--standalone", "--for", "1s"][..], &["watch", "--no-socket"], &["doctor"]]
    {
        let output = without_host_pid(arguments).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {said}");
        ensure!(said.contains("hostPID is missing"), "{arguments:?}: {said}");
    }
    let output = without_host_pid(&["doctor", "--json"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["ok"] == false && report["write"].is_null(), "{report}");
    let problem = report["problem"].as_str().context("no problem")?;
    ensure!(problem.contains("hostPID is missing"), "{problem}");
    Ok(())
}

/// In a container the advice is about the runtime's flags, and `doctor` reports what `snapshot`
/// reports.
#[test]
fn the_error_in_a_container_without_capabilities_names_the_flags() -> Result {
    for command in ["snapshot", "doctor"] {
        let mut bare = Command::new("setpriv");
        bare.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(filltop());
        let standalone = (command == "snapshot").then_some("--standalone");
        bare.arg(command).args(standalone).env_remove("INVOCATION_ID");
        bare.env("FILLTOP_SOCKET", "/nowhere");
        let output = bare.env("FILLTOP_HOST_ROOT", host_root()).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.code() == Some(1), "{said}");
        ensure!(said.contains("--cap-add=SYS_PTRACE") && said.contains("--pid=host"), "{said}");
        ensure!(!said.contains("setcap") && !said.contains("sudo"), "{said}");
    }
    Ok(())
}

/// Outputs and alerts name the node, not the container.
#[test]
fn snapshots_and_alerts_have_the_nodes_name() -> Result {
    need_tracing!();
    let host = |variables: &[(&str, &str)], own: &str| -> anyhow::Result<String> {
        let mut command = Command::new("unshare");
        // A container's own name, which must not be used.
        command.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", own]).arg(filltop());
        command.args(["snapshot", "--json", "--standalone", "--for", "0.5s"]);
        command.env_remove("INVOCATION_ID").envs(variables.iter().copied());
        let output = succeeded(command.output()?)?;
        let snapshot: Value = serde_json::from_slice(&output.stdout)?;
        Ok(snapshot["host"].as_str().context("no host")?.to_owned())
    };
    let root = host_root();
    let in_container = ("FILLTOP_HOST_ROOT", root.as_str());
    ensure!(host(&[in_container, ("NODE_NAME", "node-7")], "253c450bbd8b")? == "node-7");
    // Without NODE_NAME the host's own file is used, which this machine may not have.
    let file = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let expected = if file.trim().is_empty() { "253c450bbd8b" } else { file.trim() };
    ensure!(host(&[in_container], "253c450bbd8b")? == expected);
    // Ignored on a host: build servers set it as well.
    ensure!(host(&[("NODE_NAME", "node-7")], "workstation")? == "workstation");
    // An alert whose condition always holds.
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("filltop.toml");
    let rule = "[[rule]]\nname = \"any\"\nwhen = \"used_bytes\"\nwarning = \"1B\"\n";
    fs::write(&config, rule)?;
    let mut command = Command::new(filltop());
    command
        .args(["watch", "--no-socket", "--json", "--interval", "500ms", "--config"])
        .arg(&config);
    command.env_remove("INVOCATION_ID").envs([in_container, ("NODE_NAME", "node-7")]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(event["host"] == "node-7", "{event}");
    Ok(())
}

/// A scratch image under Docker has no /run, and its root may be read-only.
#[test]
fn watch_runs_without_a_place_for_its_socket() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 64)?;
    // Not even root can create anything there.
    let watch = Watch::start_without_socket(Path::new("/proc/filltop/filltop.sock"))?;
    let path = volume.path().join("seen");
    let truth = run_workload(workload().arg("write").arg(&path).args(["--bytes", "3000000"]))?;
    let series = written_bytes_of(volume.path())?;
    let text = watch.settled("", |text| value(text, &series) == Some(truth.total() as f64))?;
    ensure!(value(&text, &series) == Some(truth.total() as f64), "{text}");
    Ok(())
}

/// With cgroup v2 a container has a cgroup namespace of its own, in which no path means what it
/// means on the host.
#[test]
fn cgroups_in_a_cgroup_namespace_have_the_hosts_paths() -> Result {
    need_tracing!();
    let Ok(target) = Cgroup::new("filltop-seen") else {
        println!(
            "SKIP cgroups_in_a_cgroup_namespace_have_the_hosts_paths: cgroup v2 is not mounted"
        );
        return Ok(());
    };
    let container = Cgroup::new("filltop-container")?;
    let mut sleeper = Command::new("sleep").arg("60").spawn()?;
    target.take(&sleeper)?;
    let plan = |wrapper: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(container.path().join("cgroup.procs"));
        command.args(["unshare", "--cgroup"]).args(wrapper).arg(filltop());
        command.args(["stop", "/filltop-seen", "--dry-run"]).env_remove("INVOCATION_ID");
        let output = command.env("FILLTOP_HOST_ROOT", host_root()).output()?;
        Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
    };
    let with_all_rights = plan(&[]);
    // filltop needs the capability to leave the namespace: in strict mode it stays inside.
    let strict = plan(&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    sleeper.kill()?;
    sleeper.wait()?;
    let (said, strict) = (with_all_rights?, strict?);
    ensure!(said.contains("freezer") && said.contains(&sleeper.id().to_string()), "{said}");
    ensure!(strict.contains("no cgroup"), "{strict}");
    Ok(())
}

/// Built with a real builder, the image contains the program, its licences and one directory, and
/// starts.
#[test]
fn the_recipe_builds_an_image_with_one_program() -> Result {
    if Command::new("podman").arg("--version").output().is_err() {
        println!("SKIP the_recipe_builds_an_image_with_one_program: podman is not installed");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let checkout = contrib("..")?;
    // The recipe copies the program from where `cargo xtask build` puts it.
    let context = dir.path().join("context");
    fs::create_dir_all(context.join("target/release"))?;
    fs::copy(filltop(), context.join("target/release/filltop"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(checkout.join(licence), context.join(licence))?;
    }
    let podman = |arguments: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new("podman");
        command.args(["--storage-driver=vfs", "--root"]).arg(dir.path().join("storage"));
        command.arg("--runroot").arg(dir.path().join("run")).args(arguments);
        Ok(String::from_utf8(succeeded(command.output()?)?.stdout)?.trim().to_owned())
    };
    let recipe = contrib("container/Containerfile")?;
    podman(&[
        "build",
        "--isolation=chroot",
        "-f",
        utf8(&recipe)?,
        "-t",
        "filltop",
        utf8(&context)?,
    ])?;
    let root = podman(&["image", "mount", "filltop"])?;
    let files: BTreeSet<String> = fs::read_dir(&root)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<_>>()?;
    let size = fs::metadata(Path::new(&root).join("filltop"))?.len();
    println!("{files:?}, {:.1} MB", size as f64 / 1e6);
    // Docker's builders create the directory of WORKDIR during the build, podman's when the
    // container starts.
    let known = ["LICENSE-APACHE", "LICENSE-MIT", "filltop", "run"];
    ensure!(files.iter().all(|file| known.contains(&file.as_str())), "{files:?}");
    for file in &known[..3] {
        ensure!(files.contains(*file), "{files:?}");
    }
    let version =
        succeeded(Command::new("chroot").arg(&root).args(["/filltop", "--version"]).output()?)?;
    ensure!(version.stdout.starts_with(b"filltop "), "{version:?}");
    let config = podman(&["image", "inspect", "--format", "{{json .Config}}", "filltop"])?;
    let config: Value = serde_json::from_str(&config)?;
    ensure!(config["WorkingDir"] == "/run/filltop", "{config}");
    ensure!(config["Entrypoint"] == serde_json::json!(["/filltop"]), "{config}");
    ensure!(config["Cmd"] == serde_json::json!(["watch", "--metrics", "0.0.0.0:9823"]), "{config}");
    let env = config["Env"].as_array().context("no Env")?;
    ensure!(env.iter().any(|variable| variable == "FILLTOP_HOST_ROOT=/proc/1/root"), "{config}");
    ensure!(env.iter().any(|variable| variable == "LANG=C.UTF-8"), "{config}");
    podman(&["image", "umount", "filltop"])?;
    Ok(())
}

/// The same capabilities in every installation, and in docs/containers.md.
#[test]
fn unit_manifest_and_recipe_give_the_same_capabilities() -> Result {
    let unit = fs::read_to_string(contrib("systemd/filltop.service")?)?;
    let bounding = setting(&unit, "CapabilityBoundingSet");
    let unit_caps: BTreeSet<&str> = bounding
        .iter()
        .flat_map(|line| line.split(' '))
        .map(|cap| cap.trim_start_matches("CAP_"))
        .collect();
    let manifest = fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    let (_, list) = manifest.split_once("add: [").context("no capabilities")?;
    let list: BTreeSet<&str> = list.split(']').next().unwrap_or("").split(", ").collect();
    ensure!(list == unit_caps, "{list:?}, {unit_caps:?}");
    ensure!(!manifest.contains("privileged: true"));
    // The flags of podman come first in both.
    for file in ["container/Containerfile", "../docs/containers.md"] {
        let text = fs::read_to_string(contrib(file)?)?;
        let (_, flags) = text.split_once("--cap-drop=all").context("no flags")?;
        let flags = flags.split("--security-opt").next().unwrap_or("");
        let flags: BTreeSet<&str> =
            flags.split_whitespace().filter_map(|flag| flag.strip_prefix("--cap-add=")).collect();
        ensure!(flags == unit_caps, "{file}: {flags:?}, {unit_caps:?}");
    }
    Ok(())
}
