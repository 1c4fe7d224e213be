//! QEMU: the one that is installed, else Debian's, unpacked below the target directory with all that it
//! needs, its C library included. So nobody has to be root for a virtual machine, and no package of this
//! machine is changed: Debian's own conflicts with tools of newer releases.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::debian;
use crate::packages;
use crate::workspace::Workspace;

/// The program that emulates the machine.
const QEMU: &str = "qemu-system-x86_64";
/// The Debian package that has it.
pub(super) const PACKAGE: &str = "qemu-system-x86";
/// Where Debian puts libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
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
            return Ok(Self { program, arguments: Vec::new(), modules: None });
        }
        let found = Self::unpacked(&debian::qemu(workspace)?);
        ensure!(found.command().arg("--version").output()?.status.success(), "{QEMU} does not run");
        Ok(found)
    }

    /// One in a folder that holds what its packages hold, started by their own loader.
    fn unpacked(root: &Path) -> Self {
        let libraries = LIBRARIES.map(|place| root.join(place));
        let [first, second] = &libraries;
        let mut arguments = vec![
            "--library-path".into(),
            env::join_paths([first, second]).unwrap_or_default(),
            root.join("usr/bin").join(QEMU).into_os_string(),
        ];
        for place in FIRMWARE {
            arguments.extend(["-L".into(), root.join(place).into_os_string()]);
        }
        Self {
            program: second.join("ld-linux-x86-64.so.2"),
            arguments,
            modules: Some(first.join("qemu")),
        }
    }

    /// A command to which the machine is to be added.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_run_by_its_own_loader() {
        let emulator = Emulator::unpacked(Path::new("/t"));
        assert_eq!(emulator.program, Path::new("/t/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        let words: Vec<_> = emulator.arguments.iter().map(|word| word.to_string_lossy()).collect();
        let expected = "--library-path /t/usr/lib/x86_64-linux-gnu:/t/lib/x86_64-linux-gnu \
            /t/usr/bin/qemu-system-x86_64 -L /t/usr/share/qemu -L /t/usr/share/seabios";
        assert_eq!(words.join(" "), expected);
    }
}
