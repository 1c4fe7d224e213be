//! Debian packages that are downloaded and unpacked but never installed: kernels, QEMU, and software that
//! tests run. They come from the mirror that apt uses on this machine, whatever release that runs, and
//! apt verifies their signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{capture, run_step, timed_step};
use crate::workspace::{Workspace, env_or};

/// The keyring with which apt verifies Debian's packages.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The suites of Debian 12.
pub(crate) const BOOKWORM: &[&str] = &["bookworm", "bookworm-security"];
/// The suites of Debian 13.
pub(crate) const TRIXIE: &[&str] = &["trixie", "trixie-security"];
/// The variable with a mirror's `…/debian/`, for systems whose apt uses no Debian mirror, such as Ubuntu.
const MIRROR: &str = "FILLTOP_DEBIAN_MIRROR";

/// A private apt configuration with its own package lists and no packages installed. It does not change this
/// machine's package state.
pub(crate) struct Apt {
    root: PathBuf,
}

impl Apt {
    /// Creates the configuration for these suites and updates its lists.
    pub(crate) fn open(workspace: &Workspace, suites: &[&str]) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, and apt cannot verify Debian's packages without it; run \
             `apt-get install debian-archive-keyring`"
        );
        let apt = Self { root: workspace.target.join("vm/apt").join(suites.join("+")) };
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.root.join(directory))?;
        }
        fs::write(apt.root.join("status"), "")?;
        fs::write(apt.root.join("sources.list"), sources(&mirror()?, suites))?;
        let label = format!("update package lists of {}", suites.join(", "));
        run_step(&label, apt.tool("apt-get").args(["update", "-q"]))?;
        Ok(apt)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let path = |key: &str, below: &str| format!("{key}={}", self.root.join(below).display());
        for option in [
            path("Dir::Etc::sourcelist", "sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            path("Dir::State", "state"),
            path("Dir::State::status", "status"),
            path("Dir::Cache", "cache"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            // The user `_apt` may not enter directories below the target directory.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// The control file of a package's newest version.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        capture(self.tool("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// A package and all its dependencies, on the assumption that nothing at all is installed.
    pub(crate) fn with_dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut simulate = self.tool("apt-get");
        simulate.args(["install", "--simulate", "-q", "--no-install-recommends", package]);
        Ok(simulated_packages(&capture(&mut simulate)?))
    }

    /// Downloads packages and unpacks them into one directory, which appears only when it is complete.
    pub(crate) fn unpack(&self, packages: &[String], directory: &Path) -> Result<()> {
        let scratch = directory.with_extension("part");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let archives = scratch.join("archives");
        fs::create_dir_all(&archives)?;
        let mut download = self.tool("apt-get");
        download.args(["download", "-q"]).args(packages).current_dir(&archives);
        run_step(&format!("download {}", packages.join(" ")), &mut download)?;
        timed_step(&format!("unpack into {}", directory.display()), || {
            for archive in fs::read_dir(&archives)? {
                let archive = archive?.path();
                capture(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&scratch))?;
            }
            fs::remove_dir_all(&archives)?;
            fs::rename(&scratch, directory)?;
            Ok(())
        })
    }
}

/// The packages in the output of `apt-get --simulate`: `Inst NAME (VERSION …)`.
fn simulated_packages(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

/// The `…/debian/` of the mirror that apt uses on this machine.
pub(crate) fn mirror() -> Result<String> {
    let given = env_or(MIRROR, "");
    if !given.is_empty() {
        return Ok(given);
    }
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let uris = capture(&mut ask).context("Debian packages are downloaded with apt")?;
    let Some(uri) = uris.lines().find_map(main_archive) else {
        bail!(
            "apt uses no Debian mirror here; set {MIRROR} to the URL of one, up to and including …/debian/"
        );
    };
    Ok(uri)
}

/// The URL of the main archive, if this is a URL of Debian's main or security archive: a mirror has both in
/// the same directory.
fn main_archive(uri: &str) -> Option<String> {
    let trimmed = uri.trim_end_matches('/');
    let base = trimmed.strip_suffix("-security").unwrap_or(trimmed);
    base.ends_with("/debian").then(|| format!("{base}/"))
}

fn sources(mirror: &str, suites: &[&str]) -> String {
    let base = mirror.trim_end_matches('/');
    let line = |suite: &&str| {
        let archive = if suite.ends_with("-security") { "-security" } else { "" };
        format!("deb [signed-by={KEYRING}] {base}{archive} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_apts_simulation() {
        let output = "Reading package lists...\nInst libc6 (2.36-9 Debian:12.15/stable [amd64]) []\n\
            Inst qemu-system-x86 (1:7.2 Debian:12.15/stable [amd64])\nConf libc6 (2.36-9)\n";
        assert_eq!(simulated_packages(output), ["libc6", "qemu-system-x86"]);
    }

    #[test]
    fn the_mirror_is_taken_from_apt_whatever_its_host() {
        let main = Some("http://mirror.example/pub/debian/".to_owned());
        assert_eq!(main_archive("http://mirror.example/pub/debian/"), main);
        assert_eq!(main_archive("http://mirror.example/pub/debian-security/"), main);
        assert_eq!(main_archive("http://mirror.example/ubuntu/"), None);
        assert_eq!(main_archive("http://mirror.example/node_20.x"), None);
    }

    #[test]
    fn each_suite_comes_from_its_archive() {
        let text = sources("http://mirror.example/debian/", &["bookworm", "bookworm-security"]);
        let expected = [
            "http://mirror.example/debian bookworm main",
            "http://mirror.example/debian-security bookworm-security main",
        ];
        for (line, expected) in text.lines().zip(expected) {
            assert_eq!(line, format!("deb [signed-by={KEYRING}] {expected}"));
        }
    }
}
