//! The programs of the runtimes: unpacked by xtask, or installed.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::Unavailable;

/// Directories of programs in Debian's packages.
const PROGRAMS: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];
/// Directories of libraries.
const LIBRARIES: [&str; 4] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
    "lib/systemd",
];

/// Where programs are searched.
#[derive(Clone)]
pub struct Tools {
    /// `FILLTOP_RUNTIME_TOOLS`: the root that packages were unpacked into.
    root: Option<PathBuf>,
}

impl Tools {
    pub fn find() -> Self {
        Self { root: env::var_os("FILLTOP_RUNTIME_TOOLS").map(PathBuf::from) }
    }

    /// A program of a package.
    pub fn program(&self, name: &str) -> Result<PathBuf, Unavailable> {
        let path = self.path();
        let mut found = env::split_paths(&path).map(|folder| folder.join(name));
        found.find(|file| file.is_file()).ok_or_else(|| Unavailable(format!("{name} is not here")))
    }

    /// A command of a package that finds the other programs and its libraries.
    pub fn command(&self, name: &str) -> Result<Command, Unavailable> {
        let mut command = Command::new(self.program(name)?);
        self.environment(&mut command);
        Ok(command)
    }

    /// Sets the environment in which a command finds the programs, and these their libraries.
    pub fn environment(&self, command: &mut Command) {
        command.envs(self.variables());
    }

    /// The variables of that environment.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![("PATH", self.path())];
        if let Some(root) = &self.root {
            let folders = LIBRARIES.map(|folder| root.join(folder));
            variables.push(("LD_LIBRARY_PATH", env::join_paths(folders).unwrap_or_default()));
        }
        variables
    }

    /// PATH with the packages' folders before all others.
    fn path(&self) -> OsString {
        let path = env::var_os("PATH").unwrap_or_default();
        let ours = self.root.iter().flat_map(|root| PROGRAMS.map(|folder| root.join(folder)));
        let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        env::join_paths(ours.chain(env::split_paths(&path)).chain(sbin)).unwrap_or(path)
    }
}
