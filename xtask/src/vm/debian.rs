//! Debian packages that are downloaded and unpacked, but never installed: kernels, and the shell
//! of the test machines. They come from the mirror that this machine's apt uses already, whatever
//! release it runs, and apt checks their signatures as always.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::step::{capture, step, timed};
use crate::workspace::{Workspace, env_or};

pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Names another mirror (its `…/debian/`) where apt's own is not Debian's, as on Ubuntu.
const MIRROR: &str = "FILLTOP_DEBIAN_MIRROR";

/// One series of kernels and the Debian suites that have its newest build.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// What people call it on the command line.
    pub(crate) name: &'static str,
    suites: &'static [&'static str],
    /// The package that depends on the newest build.
    newest: &'static str,
}

/// Small, and with ext4 built in.
const CLOUD: &str = "linux-image-cloud-amd64";
/// What Debian installs on a computer: ext4 is a module, too.
const GENERIC: &str = "linux-image-amd64";

/// The suites of Debian 12, whose tools the machines run.
const BOOKWORM: &[&str] = &["bookworm", "bookworm-security"];
const TRIXIE: &[&str] = &["trixie", "trixie-security"];

impl Series {
    /// The name of the Debian that it comes from, of whose backports it may be.
    pub(super) fn debian(&self) -> &'static str {
        let suite = self.suites.first().copied().unwrap_or_default();
        suite.split_once('-').map_or(suite, |(name, _)| name)
    }
}

/// Oldest first.
pub(crate) const SERIES: &[Series] = &[
    // Bullseye itself is archived away from mirrors before its security suite is.
    Series { name: "5.10", suites: &["bullseye-security"], newest: CLOUD },
    Series { name: "6.1", suites: BOOKWORM, newest: CLOUD },
    Series { name: "6.1-generic", suites: BOOKWORM, newest: GENERIC },
    Series { name: "6.12", suites: TRIXIE, newest: CLOUD },
    Series { name: "6.12-generic", suites: TRIXIE, newest: GENERIC },
    Series { name: "7.x", suites: &["trixie-backports"], newest: CLOUD },
];

/// The series that a person means: `7`, `7.x` and `7.3` all are the newest there is.
pub(crate) fn series(wanted: &str) -> Result<&'static Series> {
    let newest = wanted == "7" || wanted.starts_with("7.");
    let name = if newest { "7.x" } else { wanted };
    SERIES.iter().find(|series| series.name == name).with_context(|| {
        let known: Vec<_> = SERIES.iter().map(|series| series.name).collect();
        format!("no kernel {wanted} in our list: {}", known.join(", "))
    })
}

/// A kernel unpacked below the target directory.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` prints it there.
    pub(crate) release: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// Its configuration file, which newest kernels lack.
    pub(crate) config: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
}

/// A kernel of this series, downloaded if it was not before.
pub(crate) fn kernel(workspace: &Workspace, series: &Series) -> Result<Kernel> {
    let directory = workspace.target.join("vm/kernels").join(series.name);
    if !directory.exists() {
        let apt = Apt::open(workspace, series.suites)?;
        let mut packages = vec![series.newest.to_owned()];
        let mut next = 0;
        while let Some(package) = packages.get(next) {
            let needed = parts_of_kernel(&apt.show(package)?);
            packages.extend(needed.into_iter().filter(|name| name != series.newest));
            packages.dedup();
            next += 1;
        }
        // The first is a name for the newest, with nothing in it.
        packages.remove(0);
        apt.unpack(&packages, &directory)?;
    }
    found(&directory)
}

/// busybox, linked statically: the shell and the small tools of the test machines.
pub(crate) fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("vm/busybox");
    if !directory.exists() {
        Apt::open(workspace, BOOKWORM)?.unpack(&["busybox-static".to_owned()], &directory)?;
    }
    let usual = ["bin/busybox", "usr/bin/busybox"].map(|path| directory.join(path));
    usual.into_iter().find(|path| path.exists()).context("busybox-static holds no busybox")
}

/// The directory of Prometheus, promtool and Alertmanager, for the tests of what is given to fleets.
/// Not installed: their packages start them.
pub(crate) fn fleet(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/fleet");
    if !directory.exists() {
        let packages = ["prometheus", "prometheus-alertmanager"].map(str::to_owned);
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory.join("usr/bin"))
}

/// The root of etcd and nginx, for the incidents. Not installed: their packages start them.
pub(crate) fn servers(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/servers");
    if !directory.exists() {
        let packages = ["etcd-server", "nginx"].map(str::to_owned);
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// What the suite `runtimes` runs, and the libraries of it that a machine may lack. Their own dependencies beside
/// these are in every Debian, or are services that the tests do without.
const RUNTIMES: &[&str] = &[
    "busybox-static",
    "conmon",
    "containerd",
    "docker.io",
    "golang-github-containers-common",
    "libapparmor1",
    "libassuan0",
    "libcap2",
    "libdevmapper1.02.1",
    "libglib2.0-0",
    "libgpg-error0",
    "libgpgme11",
    "liblxc-common",
    "liblxc1",
    "libseccomp2",
    "libselinux1",
    "libsubid4",
    "libsystemd-shared",
    "libsystemd0",
    "lxc",
    "podman",
    "runc",
    "systemd-container",
];

/// The root of the container runtimes. Not installed: their packages start them.
pub(crate) fn runtimes(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/runtimes");
    if !directory.exists() {
        let packages: Vec<_> = RUNTIMES.iter().map(|&name| name.to_owned()).collect();
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// The root of QEMU and of all that it needs. Not installed: see [`super::emulator`].
pub(super) fn qemu(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/qemu-trixie");
    if !directory.exists() {
        let apt = Apt::open(workspace, TRIXIE)?;
        let packages = apt.with_all_that_it_needs(super::emulator::PACKAGE)?;
        apt.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// The packages of a kernel that its package depends on: the image's parts, not its tools.
fn parts_of_kernel(control: &str) -> Vec<String> {
    let depends = control.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or("");
    let first = depends.split(',').filter_map(|one| one.split('|').next());
    let names = first.filter_map(|one| one.split_whitespace().next());
    let parts = ["linux-image-", "linux-binary-", "linux-modules-"];
    names
        .filter(|name| parts.iter().any(|part| name.starts_with(part)))
        // A second name for the newest, which the image names by its version, too.
        .filter(|name| name.chars().any(|c| c.is_ascii_digit()) && !name.contains("-modules-cloud"))
        .map(str::to_owned)
        .collect()
}

/// The packages in what `apt-get --simulate` says: `Inst NAME (VERSION …)`.
fn to_be_installed(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

/// A kernel in what its packages hold: older ones have the image in /boot, newer ones with the
/// modules.
fn found(directory: &Path) -> Result<Kernel> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| directory.join(place));
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten();
    let modules = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.join("kernel").is_dir())
        .with_context(|| format!("no modules in {}", directory.display()))?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let boot = directory.join("boot");
    let images = [boot.join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|path| path.is_file());
    Ok(Kernel {
        image: image.with_context(|| format!("no image of {release} beside its modules"))?,
        config: boot.join(format!("config-{release}")),
        modules,
        release,
    })
}

/// An apt with its own lists and no packages installed, which leaves the machine's own alone.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn open(workspace: &Workspace, suites: &[&str]) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, with which apt checks Debian's kernels: \
             apt-get install debian-archive-keyring"
        );
        let apt = Self { root: workspace.target.join("vm/apt").join(suites.join("+")) };
        for directory in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.root.join(directory))?;
        }
        fs::write(apt.root.join("status"), "")?;
        fs::write(apt.root.join("sources.list"), sources(&mirror()?, suites))?;
        let label = format!("package lists of {}", suites.join(", "));
        step(&label, apt.tool("apt-get").args(["update", "-q"]))?;
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
            // apt's own user may not enter the directories of ours.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn show(&self, package: &str) -> Result<String> {
        capture(self.tool("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// A package and what it depends on, as where nothing at all is installed.
    fn with_all_that_it_needs(&self, package: &str) -> Result<Vec<String>> {
        let mut simulate = self.tool("apt-get");
        simulate.args(["install", "--simulate", "-q", "--no-install-recommends", package]);
        Ok(to_be_installed(&capture(&mut simulate)?))
    }

    /// Downloads packages and unpacks them together. The directory is there whole or not at all.
    fn unpack(&self, packages: &[String], directory: &Path) -> Result<()> {
        let scratch = directory.with_extension("part");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let archives = scratch.join("archives");
        fs::create_dir_all(&archives)?;
        let mut download = self.tool("apt-get");
        download.args(["download", "-q"]).args(packages).current_dir(&archives);
        step(&format!("download {}", packages.join(" ")), &mut download)?;
        timed(&format!("unpack into {}", directory.display()), || {
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

/// The mirror's `…/debian/`, as apt on this machine is set up.
pub(super) fn mirror() -> Result<String> {
    let given = env_or(MIRROR, "");
    if !given.is_empty() {
        return Ok(given);
    }
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let uris = capture(&mut ask).context("the kernels come as Debian packages, by apt")?;
    let Some(uri) = uris.lines().find_map(main_archive) else {
        bail!("apt uses no Debian mirror here: set {MIRROR} to one's address, as far as …/debian/");
    };
    Ok(uri)
}

/// The main archive's address, if this is an address of Debian's: security lies beside it.
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
    fn a_kernel_is_named_by_its_series() {
        assert_eq!(series("6.1").unwrap().name, "6.1");
        assert_eq!(series("6.12").unwrap().name, "6.12");
        for newest in ["7", "7.x", "7.3"] {
            assert_eq!(series(newest).unwrap().name, "7.x");
        }
        let error = series("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.1-generic, 6.12, "), "{error}");
    }

    #[test]
    fn a_kernel_belongs_to_a_debian() {
        for (name, debian) in [("6.1-generic", "bookworm"), ("6.12", "trixie"), ("7", "trixie")] {
            assert_eq!(series(name).unwrap().debian(), debian);
        }
    }

    #[test]
    fn the_parts_of_a_kernel_are_followed_and_its_tools_are_not() {
        let plain = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(parts_of_kernel(plain), ["linux-image-6.1.0-56-cloud-amd64"]);
        let split = "Depends: linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4-cloud-amd64 \
            (= 7.3.4-1), linux-modules-cloud-amd64 (= 7.3.4-1)\n";
        assert_eq!(parts_of_kernel(split), ["linux-image-7.3.4-cloud-amd64"]);
        let image = "Depends: linux-binary-7.3.4-cloud-amd64 | linux-binary-unsigned-7.3.4, \
            linux-modules-7.3.4-cloud-amd64, kmod, initramfs-tools | linux-initramfs-tool\n";
        assert_eq!(
            parts_of_kernel(image),
            ["linux-binary-7.3.4-cloud-amd64", "linux-modules-7.3.4-cloud-amd64"]
        );
        assert_eq!(parts_of_kernel("Package: kmod\n"), Vec::<String>::new());
    }

    #[test]
    fn what_apt_would_install_is_read() {
        let said = "Reading package lists...\nInst libc6 (2.36-9 Debian:12.15/stable [amd64]) []\n\
            Inst qemu-system-x86 (1:7.2 Debian:12.15/stable [amd64])\nConf libc6 (2.36-9)\n";
        assert_eq!(to_be_installed(said), ["libc6", "qemu-system-x86"]);
    }

    #[test]
    fn a_kernel_is_found_where_older_and_newer_packages_put_it() {
        for (modules, image) in [
            ("lib/modules/6.1.0-56/kernel", "boot/vmlinuz-6.1.0-56"),
            ("usr/lib/modules/6.1.0-56/kernel", "usr/lib/modules/6.1.0-56/vmlinuz"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(modules)).unwrap();
            assert!(found(dir.path()).is_err(), "an image is needed");
            let image = dir.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            let kernel = found(dir.path()).unwrap();
            assert_eq!((kernel.image, kernel.release), (image, "6.1.0-56".to_owned()));
        }
    }

    #[test]
    fn the_mirror_is_taken_from_apt_whatever_its_host() {
        let main = Some("http://deb.example/pub/debian/".to_owned());
        assert_eq!(main_archive("http://deb.example/pub/debian/"), main);
        assert_eq!(main_archive("http://deb.example/pub/debian-security/"), main);
        assert_eq!(main_archive("http://deb.example/ubuntu/"), None);
        assert_eq!(main_archive("http://deb.example/node_20.x"), None);
    }

    #[test]
    fn each_suite_is_looked_for_in_its_archive() {
        let text = sources("http://deb.example/debian/", &["bookworm", "bookworm-security"]);
        let expected = [
            "http://deb.example/debian bookworm main",
            "http://deb.example/debian-security bookworm-security main",
        ];
        for (line, expected) in text.lines().zip(expected) {
            assert_eq!(line, format!("deb [signed-by={KEYRING}] {expected}"));
        }
    }
}
