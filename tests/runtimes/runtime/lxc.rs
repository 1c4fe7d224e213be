//! LXC, whose containers are plain directories.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Home, Runtime, Spec, pid_in};
use crate::{Result, succeed};

pub struct Lxc {
    home: Home,
}

impl Lxc {
    pub fn start(home: Home) -> Result<Self> {
        for needed in ["lxc-start", "lxc-info", "lxc-stop"] {
            home.tools.program(needed)?;
        }
        fs::create_dir_all(home.state("mount"))?;
        Ok(Self { home })
    }

    fn dir(&self, name: &str) -> PathBuf {
        Path::new(&self.home.store("lxc")).join(name)
    }

    fn run_tool(&self, tool: &str, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.home.command(tool)?;
        command.args(["-P", &self.home.store("lxc"), "-n", name]);
        succeed(command.args(arguments))
    }
}

impl Runtime for Lxc {
    fn kind(&self) -> &'static str {
        "lxc"
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        Ok(vec![format!("lxc/{name}")])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let root = self.root(spec.name)?;
        self.home.image.unpack(&root)?;
        // lxc.init.cmd has no quoting.
        fs::write(root.join("start"), format!("#!/bin/sh\n{}\n", spec.script))?;
        let config = format!(
            "lxc.uts.name = {}\n\
             lxc.rootfs.path = dir:{}\n\
             lxc.rootfs.mount = {}\n\
             lxc.net.0.type = none\n\
             lxc.apparmor.profile = unconfined\n\
             lxc.mount.auto = proc:mixed\n\
             lxc.mount.entry = {} bind none bind 0 0\n\
             lxc.mount.entry = tmpfs dev/shm tmpfs size=64m,create=dir 0 0\n\
             lxc.init.cmd = /bin/sh /start\n",
            spec.name,
            root.display(),
            self.home.state("mount"),
            self.home.make_bind(spec.name)?,
        );
        fs::write(self.dir(spec.name).join("config"), config)?;
        let log = self.home.state("lxc.log");
        self.run_tool("lxc-start", spec.name, &["-d", "-o", &log])?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        self.run_tool("lxc-stop", name, &["-k"])?;
        Ok(fs::remove_dir_all(self.dir(name))?)
    }

    fn pid(&self, name: &str) -> Result<u32> {
        pid_in(&self.run_tool("lxc-info", name, &["-pH"])?)
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir(name).join("rootfs"))
    }

    fn home(&self) -> &Home {
        &self.home
    }
}
