//! Which kernel modules a machine loads, and in which order.
//!
//! Debian's packages have no modules.dep, which depmod writes at installation, so dependencies are read from
//! the modules themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

/// Modules for the tests' filesystems and disks. Those for which a kernel has no module file are built in, or
/// do not exist in that kernel.
pub(crate) const FOR_TESTS: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "crc32c_cryptoapi",
    "blake2b_generic",
    "loop",
    "ext4",
    "xfs",
    "btrfs",
    "overlay",
    "fuse",
];

/// Modules that Debian's own initramfs loads to mount the root. systemd and the kernel load all others on
/// demand.
pub(crate) const FOR_ROOT: &[&str] =
    &["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_cryptoapi", "ext4"];

/// A kernel module and the contents of its file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// The name with underscores, as in /proc/modules.
    pub(crate) name: String,
    /// The uncompressed ELF object.
    pub(crate) object: Vec<u8>,
}

/// Reads these modules and their dependencies, in an order in which they can be loaded.
pub(crate) fn load_order(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(directory, &mut files)?;
    let mut objects = BTreeMap::new();
    let order = sort(wanted, |name| {
        let Some(path) = files.get(name) else { return Ok(None) };
        let object = decompressed(path)?;
        let needed = depends(&object).with_context(|| path.display().to_string())?;
        objects.insert(name.to_owned(), object);
        Ok(Some(needed))
    })?;
    let module = |name: String| {
        let object = objects.remove(&name)?;
        Some(Module { name, object })
    };
    Ok(order.into_iter().filter_map(module).collect())
}

/// Adds every module file below a directory to `files`, keyed by module name.
fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index(&path, files)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Sorts modules depth first, dependencies before the modules that need them. `needs` returns `None` for a module
/// without a file.
fn sort(
    wanted: &[&str],
    mut needs: impl FnMut(&str) -> Result<Option<Vec<String>>>,
) -> Result<Vec<String>> {
    fn visit(
        name: &str,
        needs: &mut dyn FnMut(&str) -> Result<Option<Vec<String>>>,
        seen: &mut Vec<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if seen.iter().any(|other| other == name) {
            return Ok(());
        }
        seen.push(name.to_owned());
        if let Some(needed) = needs(name)? {
            for other in needed {
                visit(&other, needs, seen, order)?;
            }
            order.push(name.to_owned());
        }
        Ok(())
    }
    let (mut seen, mut order) = (Vec::new(), Vec::new());
    for name in wanted {
        visit(name, &mut needs, &mut seen, &mut order)?;
    }
    Ok(order)
}

/// The names in a module's `depends=` entry, in its section `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo section")?;
    Ok(depends_entry(section.data()?))
}

fn depends_entry(modinfo: &[u8]) -> Vec<String> {
    let entries = modinfo.split(|byte| *byte == 0).filter_map(|entry| str::from_utf8(entry).ok());
    let names =
        entries.filter_map(|entry| entry.strip_prefix("depends=")).flat_map(|v| v.split(','));
    names.filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| path.display().to_string()),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{}: unsupported compression", path.display()),
    };
    let output =
        Command::new(tool).arg("-dc").arg(path).output().with_context(|| tool.to_owned())?;
    if !output.status.success() {
        bail!("{tool} -dc {} failed", path.display());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(wanted: &[&str], graph: &[(&str, &[&str])]) -> Vec<String> {
        sort(wanted, |name| {
            let found = graph.iter().find(|(other, _)| *other == name);
            Ok(found.map(|(_, needs)| needs.iter().map(|need| (*need).to_owned()).collect()))
        })
        .unwrap()
    }

    #[test]
    fn a_module_comes_after_its_dependencies() {
        let graph: &[(&str, &[&str])] = &[
            ("ext4", &["jbd2", "mbcache", "crc16"]),
            ("jbd2", &["crc32c"]),
            ("mbcache", &[]),
            ("crc16", &[]),
            ("crc32c", &[]),
            ("btrfs", &["crc32c", "xor"]),
            ("xor", &[]),
        ];
        let order = ordered(&["ext4", "btrfs"], graph);
        assert_eq!(order, ["crc32c", "jbd2", "mbcache", "crc16", "ext4", "xor", "btrfs"]);
    }

    #[test]
    fn built_in_modules_are_left_out_and_cycles_end() {
        assert_eq!(ordered(&["ext4", "a"], &[("a", &["b"]), ("b", &["a"])]), ["b", "a"]);
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let modinfo = b"license=GPL\0depends=jbd2,crc32c-generic\0alias=depends=x\0";
        assert_eq!(depends_entry(modinfo), ["jbd2", "crc32c_generic"]);
        assert_eq!(depends_entry(b"license=GPL\0depends=\0"), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_no_module_is_an_error() {
        assert!(depends(b"not an ELF file").is_err());
    }
}
