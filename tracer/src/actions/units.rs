//! Stopping a unit or a container in the way its own manager does it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::target::Target;
use crate::clock;

/// How long a manager may take: systemd's own patience is 90 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// A manager's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopCommand {
    program: PathBuf,
    arguments: Vec<String>,
}

impl StopCommand {
    /// As one types it.
    #[must_use]
    pub fn words(&self) -> String {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        format!("{name} {}", self.arguments.join(" "))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be started, fails, or takes longer than 120 s; with what it said.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(File::open("/dev/null")?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.words()))?;
        let start = clock::instant();
        while child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                child.kill()?;
                bail!("{} did not end within {} s", self.words(), PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", self.words(), output.status, said.trim());
        }
        Ok(())
    }
}

/// The command that stops what a target is.
///
/// # Errors
/// Why there is none here, with the command to type where it would work.
pub fn command(target: &Target) -> Result<StopCommand, String> {
    let group = target.group.as_ref();
    let kind = group.map_or(target.subject.kind.as_str(), |group| group.kind.as_str());
    let name = group.map_or(target.subject.name.as_str(), |group| group.name.as_str());
    let systemd = Path::new("/run/systemd/system").exists();
    let (program, arguments) = words(kind, name, systemd)?;
    match find(program) {
        Some(program) => Ok(StopCommand { program, arguments }),
        None => {
            Err(format!("{program} is not installed here: `{program} {}`", arguments.join(" ")))
        }
    }
}

/// Program and arguments for a group of this kind.
fn words(kind: &str, name: &str, systemd: bool) -> Result<(&'static str, Vec<String>), String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        "unit" if !systemd => {
            Err("systemd does not run here, so that no unit can be stopped".to_owned())
        }
        "unit" => match name.strip_prefix("user@").and_then(|rest| rest.split_once('/')) {
            Some((uid, unit)) => {
                let machine = format!("--machine={uid}@");
                Ok(("systemctl", words(&["--user", &machine, "stop", "--", unit])))
            }
            None => Ok(("systemctl", words(&["stop", "--", name]))),
        },
        "docker" => Ok(("docker", words(&["stop", name]))),
        "podman" => Ok(("podman", words(&["stop", name]))),
        "containerd" => Ok(("nerdctl", words(&["stop", name]))),
        "crio" => Ok(("crictl", words(&["stop", name]))),
        "lxc" => Ok(("lxc-stop", words(&["-n", name]))),
        "machine" => Ok(("machinectl", words(&["poweroff", name]))),
        "pod" => {
            let mut parts = name.split('/');
            match (parts.next(), parts.next()) {
                (Some(space), Some(pod)) => Err(format!(
                    "Kubernetes would start it again: `kubectl -n {space} delete pod {pod}`, or \
                     scale what owns it to 0"
                )),
                _ => Err("Kubernetes would start it again: scale what owns it to 0".to_owned()),
            }
        }
        _ => Err("it belongs to no systemd unit and no container".to_owned()),
    }
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
    #[case("unit", "web.service", Ok("systemctl stop -- web.service"))]
    #[case("unit", "user@1000/x.service", Ok("systemctl --user --machine=1000@ stop -- x.service"))]
    #[case("docker", "web", Ok("docker stop web"))]
    #[case("lxc", "jail", Ok("lxc-stop -n jail"))]
    #[case("pod", "shop/web-7d9/nginx", Err("kubectl -n shop delete pod web-7d9"))]
    #[case("session", "bash", Err("no systemd unit"))]
    fn each_manager_has_its_command(
        #[case] kind: &str,
        #[case] name: &str,
        #[case] expected: Result<&str, &str>,
    ) {
        match (words(kind, name, true), expected) {
            (Ok((program, arguments)), Ok(expected)) => {
                assert_eq!(format!("{program} {}", arguments.join(" ")), expected);
            }
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
        assert!(words("unit", "web.service", false).is_err());
    }

    #[test]
    fn a_manager_that_fails_is_an_error_with_its_words() {
        let command = StopCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), "echo no such unit >&2; exit 5".to_owned()],
        };
        assert!(command.run().unwrap_err().to_string().contains("no such unit"));
        let command = StopCommand { program: "/bin/true".into(), arguments: vec![] };
        assert!(command.run().is_ok());
    }
}
