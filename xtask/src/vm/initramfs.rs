//! The complete userland of a test machine: PID 1, busybox, mkfs, kernel modules, and the programs under
//! test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules;
use crate::apt::{Apt, BOOKWORM};
use crate::command::{capture, find_program};
use crate::packages::MKFS;
use crate::workspace::Workspace;

/// What to pack in addition to mkfs and small tools.
pub(crate) struct Contents<'a> {
    /// `filltop-init`.
    pub(crate) init: &'a Path,
    /// A static busybox.
    pub(crate) busybox: &'a Path,
    /// Programs: the path in the machine, and the file here.
    pub(crate) programs: Vec<(String, PathBuf)>,
    /// Names of programs installed here that are copied with their libraries.
    pub(crate) installed: &'a [String],
    /// Modules to load; those that are built into the kernel are left out.
    pub(crate) modules: &'static [&'static str],
    /// Further modules to load.
    pub(crate) extra_modules: &'a [String],
}

/// Tools that replace busybox's versions, because tests run them under other names (`sleep`) or need them to be
/// killed with their parent (`unshare`).
const TOOLS: &[&str] = &["sleep", "unshare"];

/// A packed userland, complete except for the job.
pub(crate) struct Userland {
    /// The initramfs so far.
    pub(crate) archive: Archive,
    /// Paths of the modules in the machine, in load order.
    pub(crate) modules: Vec<String>,
}

/// Packs the userland of a machine that boots this kernel.
pub(crate) fn pack(kernel: &Kernel, contents: &Contents) -> Result<Userland> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp", "run", "root", "mnt", "var/tmp", "etc", "boot"] {
        archive.directory(directory);
    }
    // The kernel opens the console for PID 1 before PID 1 can mount anything.
    archive.character_device("/dev/console", 5, 1);
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n");
    archive.file("/etc/group", 0o644, b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n");
    archive.file("/etc/hosts", 0o644, b"127.0.0.1 localhost filltop-vm\n");
    // Container runtimes mount a container's own file over it, and so do the tests.
    archive.file("/etc/hostname", 0o644, b"filltop-vm\n");
    archive.file(
        "/etc/os-release",
        0o644,
        b"ID=filltop-vm\nPRETTY_NAME=\"filltop test machine\"\n",
    );
    archive.symlink("/etc/mtab", "/proc/mounts");
    if let Ok(config) = fs::read(&kernel.config) {
        archive.file(&format!("/boot/config-{}", kernel.release), 0o644, &config);
    }

    add(&mut archive, "/init", contents.init)?;
    for (path, file) in &contents.programs {
        add(&mut archive, path, file)?;
    }
    for (name, _) in MKFS {
        let file = find_program(name).with_context(|| format!("{name} not found"))?;
        add(&mut archive, &format!("/sbin/{name}"), &file)?;
        add_libraries(&mut archive, &file)?;
    }
    for name in contents.installed {
        let file = find_program(name).with_context(|| format!("{name} not found"))?;
        add(&mut archive, &format!("/usr/bin/{name}"), &file)?;
        add_libraries(&mut archive, &file)?;
    }
    for name in TOOLS {
        let file = find_program(name).with_context(|| format!("{name} not found"))?;
        add(&mut archive, &format!("/bin/{name}"), &file)?;
        add_libraries(&mut archive, &file)?;
    }
    // After the real programs, which win: busybox has a mkfs.ext2, for example.
    add(&mut archive, "/bin/busybox", contents.busybox)?;
    for applet in capture(Command::new(contents.busybox).arg("--list"))?.lines() {
        archive.symlink(&format!("/bin/{applet}"), "busybox");
    }

    let mut wanted: Vec<&str> = contents.modules.to_vec();
    wanted.extend(contents.extra_modules.iter().map(String::as_str));
    let mut paths = Vec::new();
    for (index, module) in modules::load_order(&kernel.modules, &wanted)?.into_iter().enumerate() {
        let path = format!("/modules/{index:02}-{}.ko", module.name);
        archive.file(&path, 0o644, &module.object);
        paths.push(path);
    }
    Ok(Userland { archive, modules: paths })
}

/// Returns the statically linked busybox, the shell and the small tools of the test machines, and downloads it the
/// first time.
pub(super) fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("vm/busybox");
    if !directory.exists() {
        Apt::open(workspace, BOOKWORM)?.unpack(&["busybox-static".to_owned()], &directory)?;
    }
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| directory.join(path));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .context("no busybox in the package busybox-static")
}

fn add(archive: &mut Archive, path: &str, file: &Path) -> Result<()> {
    let content = fs::read(file).with_context(|| file.display().to_string())?;
    archive.file(path, 0o755, &content);
    Ok(())
}

/// Adds a program's shared libraries and its dynamic loader, at the same paths as here.
fn add_libraries(archive: &mut Archive, file: &Path) -> Result<()> {
    for library in libraries(&capture(Command::new("ldd").arg(file))?) {
        add(archive, &library, Path::new(&library))?;
    }
    Ok(())
}

/// The absolute paths in ldd's output.
fn libraries(ldd: &str) -> Vec<String> {
    let lines = ldd.lines().filter_map(|line| line.split(" (").next());
    let paths = lines.map(|line| line.rsplit("=> ").next().unwrap_or(line).trim());
    paths.filter(|path| path.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_libraries_are_found_in_ldds_output() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f77266c5000)\n\
            \tlibblkid.so.1 => /lib/x86_64-linux-gnu/libblkid.so.1 (0x00007f771d400000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f77266c7000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libblkid.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(ldd), expected);
        assert_eq!(libraries("\tstatically linked\n"), Vec::<String>::new());
    }
}
