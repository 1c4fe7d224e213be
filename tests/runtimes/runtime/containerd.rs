//! containerd with runc, driven by its own client.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};

use super::home::Daemon;
use super::{Home, Runtime, Spec, pid_in, upper_of_root};
use crate::{Result, image, succeed};

/// How long a killed task may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A containerd that has loaded the image into one of its namespaces.
pub struct Containerd {
    _daemon: Daemon,
    pub home: Home,
    namespace: &'static str,
}

impl Containerd {
    pub fn start(home: Home, namespace: &'static str) -> Result<Self> {
        for needed in ["ctr", "containerd-shim-runc-v2", "runc"] {
            home.tools.program(needed)?;
        }
        let config = home.state("containerd.toml");
        let text = format!(
            "version = 2\n\
             root = \"{}\"\n\
             state = \"{}\"\n\
             [grpc]\n\
             address = \"{}\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = \"{}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = \"{}\"\n\
             restrict_oom_score_adj = true\n",
            home.store("containerd"),
            home.state("containerd"),
            home.state("containerd.sock"),
            home.state("opt"),
            image::NAME,
        );
        fs::write(&config, text)?;
        let mut containerd = home.command("containerd")?;
        let daemon = home.daemon(containerd.args(["--config", &config]), || {
            Ok(client(&home, namespace)?.arg("version").output()?.status.success())
        })?;
        let archive = &home.image.archive;
        succeed(client(&home, namespace)?.args(["image", "import"]).arg(archive))?;
        Ok(Self { _daemon: daemon, home, namespace })
    }

    pub fn client(&self) -> Result<Command> {
        client(&self.home, self.namespace)
    }

    /// The first process of a container.
    pub fn pid(&self, container: &str) -> Result<u32> {
        let text = succeed(self.client()?.args(["task", "list"]))?;
        let mut tasks = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let task = tasks.find(|words| words.first() == Some(&container));
        pid_in(task.as_ref().and_then(|words| words.get(1)).context("no such task")?)
    }

    /// The directory that it writes to.
    pub fn root(&self, container: &str) -> Result<PathBuf> {
        upper_of_root(self.pid(container)?).context("its root is no overlay")
    }
}

fn client(home: &Home, namespace: &str) -> Result<Command> {
    let mut ctr = home.command("ctr")?;
    ctr.args(["--address", &home.state("containerd.sock"), "--namespace", namespace]);
    Ok(ctr)
}

/// Containers that `ctr` starts.
pub struct Ctr(Containerd);

impl Ctr {
    pub fn start(home: Home) -> Result<Self> {
        Containerd::start(home, "default").map(Self)
    }
}

impl Runtime for Ctr {
    fn kind(&self) -> &'static str {
        "containerd"
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        Ok(vec![format!("containerd/{name}")])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let bind = self.0.home.make_bind(spec.name)?;
        let mount = format!("type=bind,src={bind},dst=/bind,options=rbind:rw");
        let mut ctr = self.0.client()?;
        // A container whose output is not read would block on it.
        ctr.args(["run", "--detach", "--null-io", "--mount", &mount, image::NAME, spec.name]);
        succeed(ctr.args(["/bin/sh", "-c", spec.script]))?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        succeed(self.0.client()?.args(["task", "kill", "--signal", "SIGKILL", name]))?;
        let start = Instant::now();
        while !self.0.client()?.args(["task", "rm", name]).output()?.status.success() {
            ensure!(start.elapsed() < PATIENCE, "the task {name} does not end");
            thread::sleep(Duration::from_millis(50));
        }
        succeed(self.0.client()?.args(["container", "rm", name]))?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        self.0.pid(name)
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        self.0.root(name)
    }

    fn home(&self) -> &Home {
        &self.0.home
    }
}
