//! Finding QEMU: the installed one if it is new enough, otherwise Debian's, unpacked below the target
//! directory with all its dependencies, its C library included. Unpacking needs no root and changes no
//! installed package; installing Debian 13's would conflict with tools of other releases.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::apt::{Apt, TRIXIE};
use crate::command::{capture, find_program};
use crate::workspace::Workspace;

/// The emulator of an x86-64 machine.
const PROGRAM: &str = "qemu-system-x86_64";
/// The Debian package that has it.
const PACKAGE: &str = "qemu-system-x86";
/// Debian's directory of libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// The oldest version that is used if installed. With 7.2, while a probe was being attached, a virtual CPU was stuck for
/// minutes at an instruction that another CPU had replaced; with 10.0 this was not seen. The presumed but unproven
/// reason is that QEMU locks pages while it translates them since 8.1.
const MIN_VERSION: (u32, u32) = (8, 1);
/// Debian's directories of firmware for the machine, such as the BIOS.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// How to start QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Qemu {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The directory of QEMU's own modules (QEMU_MODULE_DIR), if it is not the default one.
    modules: Option<PathBuf>,
}

impl Qemu {
    /// Returns the installed QEMU if it is new enough, otherwise the unpacked one.
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        if let Some(program) = find_program(PROGRAM) {
            let output = capture(Command::new(&program).arg("--version"))?;
            if version(&output).is_some_and(|version| version >= MIN_VERSION) {
                return Ok(Self { program, arguments: Vec::new(), modules: None });
            }
        }
        let root = unpack(workspace)?;
        let found = Self::unpacked(&root);
        let status = found.command().arg("--version").output()?.status;
        ensure!(status.success(), "the unpacked {PROGRAM} does not run; remove {}", root.display());
        Ok(found)
    }

    /// A QEMU whose packages were unpacked into `root`, started with their own dynamic loader.
    fn unpacked(root: &Path) -> Self {
        let libraries = root.join(LIBRARIES);
        let mut arguments = vec![
            "--library-path".into(),
            libraries.clone().into_os_string(),
            root.join("usr/bin").join(PROGRAM).into_os_string(),
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

    /// A command to which the arguments of the machine are added. It runs at the lowest priority: native tests have
    /// deadlines, while tests in an emulated machine are slow anyway.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&self.program).args(&self.arguments);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }
}

/// Returns the directory with QEMU and its dependencies, and downloads them the first time.
fn unpack(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/qemu-trixie");
    if !directory.exists() {
        let apt = Apt::open(workspace, TRIXIE)?;
        let packages = apt.with_dependencies(PACKAGE)?;
        apt.unpack(&packages, &directory)?;
    }
    Ok(directory)
}

/// The major and minor version in the output of `--version`.
fn version(output: &str) -> Option<(u32, u32)> {
    let mut numbers = output.split_once("version ")?.1.split(['.', ' ', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_parsed() {
        let output = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version(output), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0\n"), Some((10, 0)));
        assert_eq!(version("nonsense"), None);
    }

    #[test]
    fn an_unpacked_qemu_is_started_with_its_own_loader() {
        let qemu = Qemu::unpacked(Path::new("/t"));
        assert_eq!(qemu.program, Path::new("/t/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        let words: Vec<_> = qemu.arguments.iter().map(|word| word.to_string_lossy()).collect();
        let expected = "--library-path /t/usr/lib/x86_64-linux-gnu \
            /t/usr/bin/qemu-system-x86_64 -L /t/usr/share/qemu -L /t/usr/share/seabios";
        assert_eq!(words.join(" "), expected);
    }
}
