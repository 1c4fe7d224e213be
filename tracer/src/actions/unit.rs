//! Stops a unit or a container with the command of its own service manager.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use tracer_model::action::subject_kind::SubjectKind;
use tracer_model::snapshot::GroupKind;

use super::members::is_namespace_init;
use super::target::Target;
use crate::attribute::groups::{cgroup_path, session};
use tracer_host::clock;

/// How long a manager's command may take: systemd's own stop timeout is 90 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a machine may take to power off.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for the last processes after a manager's command has finished.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// A manager's command that stops a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopCommand {
    program: PathBuf,
    arguments: Vec<String>,
}

impl StopCommand {
    /// Returns the command line.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {}", self.arguments.join(" "))
    }

    /// Returns how long the target may take to end after the command has finished.
    #[must_use]
    pub(crate) fn exit_timeout(&self) -> Duration {
        let asks = self.arguments.first().is_some_and(|word| word == "poweroff");
        if asks { POWER_OFF_TIMEOUT } else { EXIT_TIMEOUT }
    }

    /// Runs the command and waits until it has finished.
    ///
    /// # Errors
    /// If it cannot be started, fails, or takes longer than 120 s. Contains the command's stderr.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(File::open("/dev/null")?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.describe()))?;
        let start = clock::instant();
        while child.try_wait()?.is_none() {
            if start.elapsed() > COMMAND_TIMEOUT {
                child.kill()?;
                bail!("{} did not finish within {} s", self.describe(), COMMAND_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", self.describe(), output.status, stderr.trim());
        }
        Ok(())
    }
}

/// Returns the command that stops a target.
///
/// # Errors
/// Why there is none here, with the command to use elsewhere if there is one.
pub(crate) fn command(target: &Target) -> Result<StopCommand, String> {
    let group = target.group.as_ref();
    let kind = group.map_or(target.subject.kind, |group| SubjectKind::Group(group.kind));
    let name = group.map_or(target.subject.name.as_str(), |group| group.name.as_str());
    let systemd = Path::new("/run/systemd/system").exists();
    let cgroup = group.and_then(|group| group.cgroup.as_deref());
    if let Some(user) = cgroup
        .and_then(cgroup_path::user)
        .filter(|user| *user != 0 && kind.group() != Some(GroupKind::Unit))
    {
        // Root's runtime does not know this container, or knows another one with its id.
        return Err(format!("it is a container of uid {user}; stop it with that user's {kind}"));
    }
    // A name may belong to another container by the time the command runs; an id is never reused.
    let id = target.container();
    let name = id
        .as_deref()
        .and_then(|id| id.get(..12))
        .filter(|_| kind.group() != Some(GroupKind::Pod))
        .unwrap_or(name);
    let (program, arguments) =
        program_and_arguments(kind.group(), name, systemd, has_init(target))?;
    match find(program) {
        Some(program) => Ok(StopCommand { program, arguments }),
        None => Err(format!(
            "{program} is not installed; it is needed for `{program} {}`",
            arguments.join(" ")
        )),
    }
}

/// Whether the first process of the target's pid namespace is an init, which powers off on request.
fn has_init(target: &Target) -> bool {
    target.scope.members().iter().any(|member| {
        let first = is_namespace_init(member.pid);
        first && session::stat(member.pid).is_some_and(|stat| is_init(&stat.comm))
    })
}

fn is_init(comm: &str) -> bool {
    matches!(comm, "systemd" | "init" | "openrc-init" | "runit" | "s6-svscan")
}

/// Returns program and arguments for a group of this kind. `systemd`: whether the host runs systemd.
/// `init`: whether the target runs an init.
fn program_and_arguments(
    kind: Option<GroupKind>,
    name: &str,
    systemd: bool,
    init: bool,
) -> Result<(&'static str, Vec<String>), String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        Some(GroupKind::Unit) if !systemd => {
            Err("systemd is not running here, so units cannot be stopped".to_owned())
        }
        Some(GroupKind::Unit) => {
            match name.strip_prefix("user@").and_then(|rest| rest.split_once('/')) {
                Some((uid, unit)) => {
                    let machine = format!("--machine={uid}@");
                    Ok(("systemctl", owned(&["--user", &machine, "stop", "--", unit])))
                }
                None => Ok(("systemctl", owned(&["stop", "--", name]))),
            }
        }
        Some(GroupKind::Docker) => Ok(("docker", owned(&["stop", name]))),
        Some(GroupKind::Podman) => Ok(("podman", owned(&["stop", name]))),
        Some(GroupKind::Containerd) => Ok(("nerdctl", owned(&["stop", name]))),
        Some(GroupKind::Crio) => Ok(("crictl", owned(&["stop", name]))),
        Some(GroupKind::Lxc) => Ok(("lxc-stop", owned(&["-n", name]))),
        // Without an init, nothing in the machine would handle a power-off request.
        Some(GroupKind::Machine) if !init => Ok(("machinectl", owned(&["terminate", name]))),
        Some(GroupKind::Machine) => Ok(("machinectl", owned(&["poweroff", name]))),
        Some(GroupKind::Pod) => {
            let mut parts = name.split('/');
            match (parts.next(), parts.next()) {
                (Some(space), Some(pod)) => Err(format!(
                    "Kubernetes would restart it; use `kubectl -n {space} delete pod {pod}`, or scale \
                     its owner to 0"
                )),
                _ => Err("Kubernetes would restart it; scale its owner to 0".to_owned()),
            }
        }
        Some(GroupKind::Monitor) => {
            Err("it is the monitor of a container; stop the container".to_owned())
        }
        _ => Err("it belongs to no systemd unit and no container".to_owned()),
    }
}

/// Reads properties of a unit from systemd; `None` if systemd is not running or does not answer in
/// time.
#[must_use]
pub(crate) fn show(
    unit: &str,
    properties: &[&str],
    within: Duration,
) -> Option<BTreeMap<String, String>> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let user = unit.strip_prefix("user@").and_then(|rest| rest.split_once('/'));
    let mut command = Command::new(find("systemctl")?);
    if let Some((uid, _)) = user {
        command.args(["--user", &format!("--machine={uid}@")]);
    }
    let mut child = command
        .args(["show", "--no-pager", &format!("--property={}", properties.join(",")), "--"])
        .arg(user.map_or(unit, |(_, unit)| unit))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let start = clock::instant();
    while child.try_wait().ok()?.is_none() {
        if start.elapsed() > within {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(GroupKind::Unit, "web.service", Ok("systemctl stop -- web.service"))]
    #[case(
        GroupKind::Unit,
        "user@1000/x.service",
        Ok("systemctl --user --machine=1000@ stop -- x.service")
    )]
    #[case(GroupKind::Docker, "web", Ok("docker stop web"))]
    #[case(GroupKind::Lxc, "jail", Ok("lxc-stop -n jail"))]
    #[case(GroupKind::Machine, "db", Ok("machinectl poweroff db"))]
    #[case(GroupKind::Monitor, "conmon web", Err("stop the container"))]
    #[case(GroupKind::Pod, "shop/web-7d9/nginx", Err("kubectl -n shop delete pod web-7d9"))]
    #[case(GroupKind::Session, "bash", Err("no systemd unit"))]
    fn each_manager_has_its_command(
        #[case] kind: GroupKind,
        #[case] name: &str,
        #[case] expected: Result<&str, &str>,
    ) {
        match (program_and_arguments(Some(kind), name, true, true), expected) {
            (Ok((program, arguments)), Ok(expected)) => {
                assert_eq!(format!("{program} {}", arguments.join(" ")), expected);
            }
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
        assert!(program_and_arguments(Some(GroupKind::Unit), "web.service", false, true).is_err());
    }

    #[test]
    fn a_machine_without_an_init_is_terminated() {
        let (program, arguments) =
            program_and_arguments(Some(GroupKind::Machine), "db", true, false).unwrap();
        assert_eq!((program, arguments.join(" ").as_str()), ("machinectl", "terminate db"));
        assert!(is_init("systemd") && !is_init("sleep"));
    }

    #[test]
    fn the_error_of_a_failed_command_contains_its_stderr() {
        let command = StopCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), "echo no such unit >&2; exit 5".to_owned()],
        };
        assert!(command.run().unwrap_err().to_string().contains("no such unit"));
        let command = StopCommand { program: "/bin/true".into(), arguments: vec![] };
        assert!(command.run().is_ok());
    }
}
