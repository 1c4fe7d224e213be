//! Debian kernels, downloaded and unpacked below the target directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{Apt, BOOKWORM, TRIXIE};
use crate::workspace::Workspace;

/// A series of kernels, and the Debian suites that have its newest build.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// The name on the command line.
    pub(super) name: &'static str,
    suites: &'static [&'static str],
    /// The metapackage that depends on the newest build.
    metapackage: &'static str,
}

/// The cloud flavour: small, with ext4 built in.
const CLOUD: &str = "linux-image-cloud-amd64";
/// The generic flavour, which Debian installs by default: ext4 is a module as well.
const GENERIC: &str = "linux-image-amd64";

impl Series {
    /// The code name of the Debian release that it comes from, possibly through backports.
    pub(super) fn debian(&self) -> &'static str {
        let suite = self.suites.first().copied().unwrap_or_default();
        suite.split_once('-').map_or(suite, |(name, _)| name)
    }
}

/// All series, oldest first.
pub(super) const SERIES: &[Series] = &[
    // Mirrors drop bullseye itself before its security suite.
    Series { name: "5.10", suites: &["bullseye-security"], metapackage: CLOUD },
    Series { name: "6.1", suites: BOOKWORM, metapackage: CLOUD },
    Series { name: "6.1-generic", suites: BOOKWORM, metapackage: GENERIC },
    Series { name: "6.12", suites: TRIXIE, metapackage: CLOUD },
    Series { name: "6.12-generic", suites: TRIXIE, metapackage: GENERIC },
    Series { name: "7.x", suites: &["trixie-backports"], metapackage: CLOUD },
];

/// Finds a series by its name on the command line. `7`, `7.x` and `7.3` all mean the newest one.
pub(super) fn series(wanted: &str) -> Result<&'static Series> {
    let newest = wanted == "7" || wanted.starts_with("7.");
    let name = if newest { "7.x" } else { wanted };
    SERIES.iter().find(|series| series.name == name).with_context(|| {
        let known: Vec<_> = SERIES.iter().map(|series| series.name).collect();
        format!("unknown kernel series {wanted}; known: {}", known.join(", "))
    })
}

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// The release, as `uname -r` prints it when this kernel runs.
    pub(super) release: String,
    /// The bzImage.
    pub(super) image: PathBuf,
    /// The configuration file, which the newest kernels do not have.
    pub(super) config: PathBuf,
    /// The directory of modules.
    pub(super) modules: PathBuf,
}

/// Returns the kernel of a series, and downloads it the first time.
pub(super) fn download(workspace: &Workspace, series: &Series) -> Result<Kernel> {
    let directory = workspace.target.join("vm/kernels").join(series.name);
    if !directory.exists() {
        let apt = Apt::open(workspace, series.suites)?;
        let mut packages = vec![series.metapackage.to_owned()];
        let mut next = 0;
        while let Some(package) = packages.get(next) {
            let needed = image_packages(&apt.show(package)?);
            packages.extend(needed.into_iter().filter(|name| name != series.metapackage));
            packages.dedup();
            next += 1;
        }
        // The first is the metapackage, which contains no files.
        packages.remove(0);
        apt.unpack(&packages, &directory)?;
    }
    locate(&directory)
}

/// The packages in a control file's `Depends` that are part of the kernel image, without tools such as kmod.
fn image_packages(control: &str) -> Vec<String> {
    let depends = control.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or("");
    let first = depends.split(',').filter_map(|one| one.split('|').next());
    let names = first.filter_map(|one| one.split_whitespace().next());
    let parts = ["linux-image-", "linux-binary-", "linux-modules-"];
    names
        .filter(|name| parts.iter().any(|part| name.starts_with(part)))
        // A metapackage; the image package also depends on the same modules by their version.
        .filter(|name| name.chars().any(|c| c.is_ascii_digit()) && !name.contains("-modules-cloud"))
        .map(str::to_owned)
        .collect()
}

/// Finds the kernel in its unpacked packages: older ones have the image in /boot, newer ones next to the
/// modules.
fn locate(directory: &Path) -> Result<Kernel> {
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
        image: image
            .with_context(|| format!("no image of {release} in /boot or next to its modules"))?,
        config: boot.join(format!("config-{release}")),
        modules,
        release,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_name() {
        assert_eq!(series("6.1").unwrap().name, "6.1");
        assert_eq!(series("6.12").unwrap().name, "6.12");
        for newest in ["7", "7.x", "7.3"] {
            assert_eq!(series(newest).unwrap().name, "7.x");
        }
        let error = series("4.19").unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.1-generic, 6.12, "), "{error}");
    }

    #[test]
    fn a_series_belongs_to_a_debian_release() {
        for (name, debian) in [("6.1-generic", "bookworm"), ("6.12", "trixie"), ("7", "trixie")] {
            assert_eq!(series(name).unwrap().debian(), debian);
        }
    }

    #[test]
    fn image_packages_are_followed_and_tools_are_not() {
        let plain = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(image_packages(plain), ["linux-image-6.1.0-56-cloud-amd64"]);
        let split = "Depends: linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4-cloud-amd64 \
            (= 7.3.4-1), linux-modules-cloud-amd64 (= 7.3.4-1)\n";
        assert_eq!(image_packages(split), ["linux-image-7.3.4-cloud-amd64"]);
        let image = "Depends: linux-binary-7.3.4-cloud-amd64 | linux-binary-unsigned-7.3.4, \
            linux-modules-7.3.4-cloud-amd64, kmod, initramfs-tools | linux-initramfs-tool\n";
        assert_eq!(
            image_packages(image),
            ["linux-binary-7.3.4-cloud-amd64", "linux-modules-7.3.4-cloud-amd64"]
        );
        assert_eq!(image_packages("Package: kmod\n"), Vec::<String>::new());
    }

    #[test]
    fn a_kernel_is_found_where_older_and_newer_packages_put_it() {
        for (modules, image) in [
            ("lib/modules/6.1.0-56/kernel", "boot/vmlinuz-6.1.0-56"),
            ("usr/lib/modules/6.1.0-56/kernel", "usr/lib/modules/6.1.0-56/vmlinuz"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(modules)).unwrap();
            assert!(locate(dir.path()).is_err(), "an image is needed");
            let image = dir.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            let kernel = locate(dir.path()).unwrap();
            assert_eq!((kernel.image, kernel.release), (image, "6.1.0-56".to_owned()));
        }
    }
}
