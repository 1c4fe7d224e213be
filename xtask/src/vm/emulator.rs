//! QEMU: the one that is installed if it is new enough, else Debian's, unpacked below the target directory with all that it
//! needs, its C library included. So nobody has to be root for a virtual machine, and no package of this
//! machine is changed: Debian's own conflicts with tools of newer releases.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::debian;
use crate::packages;
use crate::step::capture;
use crate::workspace::Workspace;

/// The program that emulates the machine.
const QEMU: &str = "qemu-system-x86_64";
/// The Debian package that has it.
pub(super) const PACKAGE: &str = "qemu-system-x86";
/// Where Debian puts libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// With 7.2 a virtual CPU was stuck for minutes at an instruction that another one had replaced, as a probe was
/// attached; with 10.0 none was. It is presumed, not proven, that the pages that are locked while they are translated,
/// since 8.1, make the difference.
const OLDEST: (u32, u32) = (8, 1);
/// Where it puts what QEMU gives to the machine: its BIOS, among others.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// How QEMU is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Emulator {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it looks for modules of its own (QEMU_MODULE_DIR).
    modules: Option<PathBuf>,
}

impl Emulator {
    /// The installed one, or the unpacked one.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        if let Some(program) = packages::program(QEMU) {
            let said = capture(Command::new(&program).arg("--version"))?;
            if version(&said).is_some_and(|version| version >= OLDEST) {
                return Ok(Self { program, arguments: Vec::new(), modules: None });
            }
        }
        let found = Self::unpacked(&debian::qemu(workspace)?);
        ensure!(found.command().arg("--version").output()?.status.success(), "{QEMU} does not run");
        Ok(found)
    }

    /// One in a folder that holds what its packages hold, started by their own loader.
    fn unpacked(root: &Path) -> Self {
        let libraries = root.join(LIBRARIES);
        let mut arguments = vec![
            "--library-path".into(),
            libraries.clone().into_os_string(),
            root.join("usr/bin").join(QEMU).into_os_string(),
        ];
        for place in FIRMWARE {
            arguments.extend(["-L".into(), root.join(place).into_os_string()]);
        }
        Self {
            program: libraries.join("ld-linux-x86-64.so.2"),
            arguments,
            modules: Some(libraries.join("qemu")),
        }
    }

    /// A command to which the machine is to be added. Whoever else runs here comes first: tests of this machine
    /// have to be in time, those of an emulated one are slow anyway.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&self.program).args(&self.arguments);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// Major and minor number in what `--version` prints.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.split_once("version ")?.1.split(['.', ' ', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_it_prints() {
        let said = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version(said), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0\n"), Some((10, 0)));
        assert_eq!(version("nonsense"), None);
    }

    #[test]
    fn what_is_unpacked_is_run_by_its_own_loader() {
        let emulator = Emulator::unpacked(Path::new("/t"));
        assert_eq!(emulator.program, Path::new("/t/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        let words: Vec<_> = emulator.arguments.iter().map(|word| word.to_string_lossy()).collect();
        let expected = "--library-path /t/usr/lib/x86_64-linux-gnu \
            /t/usr/bin/qemu-system-x86_64 -L /t/usr/share/qemu -L /t/usr/share/seabios";
        assert_eq!(words.join(" "), expected);
    }
}
