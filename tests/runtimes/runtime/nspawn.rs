//! systemd-nspawn, run like systemd-nspawn@.service does: in a cgroup of that name, which it
//! subdivides.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::Server;
use rustix::process::{Pid, Signal, kill_process};

use super::home::{hierarchies, in_cgroup};
use super::{Home, Runtime, Spec};
use crate::{Result, Unavailable};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Nspawn {
    machines: HashMap<String, Server>,
    home: Home,
}

impl Nspawn {
    pub fn start(home: Home) -> Result<Self> {
        home.tools.program("systemd-nspawn")?;
        if !hierarchies().iter().any(|mount| mount.join("cgroup.controllers").exists()) {
            return Err(Unavailable("cgroup v2 is not mounted".to_owned()).into());
        }
        Ok(Self { machines: HashMap::new(), home })
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        for name in self.machines.keys().cloned().collect::<Vec<_>>() {
            let _ = self.remove(&name);
        }
    }
}

/// The cgroup that systemd gives a machine of this name.
fn cgroup(name: &str) -> String {
    format!("machine.slice/systemd-nspawn@{name}.service")
}

impl Runtime for Nspawn {
    fn kind(&self) -> &'static str {
        "machine"
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        Ok(vec![format!("machine/{name}")])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let root = self.root(spec.name)?;
        self.home.image.unpack(&root)?;
        let mut nspawn = self.home.command("systemd-nspawn")?;
        nspawn.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        nspawn.arg(format!("--machine={}", spec.name));
        nspawn.arg(format!("--directory={}", root.display()));
        nspawn.arg(format!("--bind={}:/bind", self.home.make_bind(spec.name)?));
        nspawn.args(["/bin/sh", "-c", spec.script]);
        let mut inside = in_cgroup(&cgroup(spec.name), &nspawn)?;
        let log = fs::File::create(self.home.state("nspawn.log"))?;
        let server = Server::spawn(inside.stdout(Stdio::null()).stderr(log))?;
        self.machines.insert(spec.name.to_owned(), server);
        let start = Instant::now();
        while self.pid(spec.name).is_err() {
            let said = || fs::read_to_string(self.home.state("nspawn.log")).unwrap_or_default();
            ensure!(start.elapsed() < PATIENCE, "it does not start: {}", said());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        // Its supervisor ends with it, and cleans up; if that were killed itself, it would leave
        // the machine behind.
        let pid = self.pid(name);
        let mut machine = self.machines.remove(name).context("no such machine")?;
        let pid = Pid::from_raw(pid?.cast_signed()).context("no process")?;
        kill_process(pid, Signal::KILL)?;
        machine.0.wait()?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        let payload = cgroup(name) + "/payload/cgroup.procs";
        let lists = hierarchies().into_iter().map(|hierarchy| hierarchy.join(&payload));
        let mut lists = lists.filter_map(|path| fs::read_to_string(path).ok());
        let pid = lists.find_map(|text| text.lines().next()?.parse().ok());
        pid.context("its cgroup has no process")
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        Ok(Path::new(&self.home.store("machines")).join(name))
    }

    fn home(&self) -> &Home {
        &self.home
    }
}
