//! Software that the end-to-end tests run. Packages that start no service are installed, the others are only
//! unpacked.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt::{Apt, BOOKWORM};
use crate::workspace::Workspace;
use crate::{kubernetes, packages};

/// Programs of the incidents whose packages start no service, and these packages.
const INCIDENTS: &[(&str, &str)] = &[
    ("apache2", "apache2-bin"),
    ("db_bench", "rocksdb-tools"),
    ("rclone", "rclone"),
    ("restic", "restic"),
];

/// Installs and unpacks the software, and returns environment variables with its directories. Tests of software
/// that is missing are skipped; the reason is printed.
pub(crate) fn prepare(workspace: &Workspace) -> Vec<(&'static str, PathBuf)> {
    let report = |error: &anyhow::Error| println!("some tests are skipped: {error:#}");
    let _ =
        packages::require_if_installable("running the incidents", INCIDENTS).inspect_err(report);
    let _ = packages::require_postgres_if_installable().inspect_err(report);
    let unpacked = [
        ("FILLTOP_FLEET_TOOLS", fleet(workspace)),
        ("FILLTOP_INCIDENT_TOOLS", servers(workspace)),
        ("FILLTOP_RUNTIME_TOOLS", runtimes(workspace)),
        ("FILLTOP_SYSLOG_TOOLS", syslog(workspace)),
        ("FILLTOP_KUBERNETES_TOOLS", kubernetes::tools(workspace)),
    ];
    let found =
        unpacked.into_iter().filter_map(|(key, path)| Some((key, path.inspect_err(report).ok()?)));
    found.collect()
}

/// The directory of Prometheus, promtool and Alertmanager, for the tests of files for fleets in contrib/.
/// Unpacked, because their packages start them.
fn fleet(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/fleet");
    if !directory.exists() {
        let packages = ["prometheus", "prometheus-alertmanager"].map(str::to_owned);
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory.join("usr/bin"))
}

/// The directory below which etcd and nginx are, for the incidents. Unpacked, because their packages start them.
fn servers(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/servers");
    if !directory.exists() {
        let packages = ["etcd-server", "nginx"].map(str::to_owned);
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// The directory below which rsyslogd is, with the libraries that a machine may lack. Unpacked, because its package
/// starts it.
fn syslog(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/syslog");
    if !directory.exists() {
        let packages = ["libestr0", "libfastjson4", "rsyslog"].map(str::to_owned);
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// Packages of the suite `runtimes`, with the libraries that a machine may lack. Their other dependencies are in every
/// Debian, or are services that the tests do not need.
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

/// The directory below which the container runtimes are. Unpacked, because their packages start them.
fn runtimes(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/runtimes");
    if !directory.exists() {
        let packages: Vec<_> = RUNTIMES.iter().map(|&name| name.to_owned()).collect();
        Apt::open(workspace, BOOKWORM)?.unpack(&packages, &directory)?;
    }
    Ok(directory)
}
