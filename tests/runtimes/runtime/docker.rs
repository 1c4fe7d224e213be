//! dockerd, with its containerd and runc.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::home::Daemon;
use super::{Home, Runtime, Spec, pid_in};
use crate::{Result, image, succeed};

pub struct Docker {
    /// The test's own daemon; `None` for the installed one.
    _daemon: Option<Daemon>,
    home: Home,
}

/// How long the installed dockerd may take to respond; it is started by the first request.
const PATIENCE: Duration = Duration::from_secs(120);

impl Docker {
    pub fn start(home: Home) -> Result<Self> {
        for needed in ["docker", "containerd", "containerd-shim-runc-v2", "runc"] {
            home.tools.program(needed)?;
        }
        // Otherwise it reads /etc/docker/daemon.json, and writes a key next to it.
        let config = home.state("daemon.json");
        let key = json!({"deprecated-key-path": home.state("key.json")});
        std::fs::write(&config, key.to_string())?;
        let mut dockerd = home.command("dockerd")?;
        dockerd
            .args(["--iptables=false", "--bridge=none", "--config-file", &config])
            .args(["--data-root", &home.store("docker"), "--exec-root", &home.state("exec")])
            .args(["--pidfile", &home.state("docker.pid"), "--host", &host(&home)]);
        let daemon = home.daemon(&mut dockerd, || {
            Ok(client(&home)?.arg("version").output()?.status.success())
        })?;
        Self { _daemon: Some(daemon), home }.loaded()
    }

    /// The installed dockerd.
    pub fn installed(home: Home) -> Result<Self> {
        home.tools.program("docker")?;
        let start = Instant::now();
        while !client(&home)?.arg("version").output()?.status.success() {
            ensure!(start.elapsed() < PATIENCE, "dockerd does not respond");
            thread::sleep(Duration::from_millis(500));
        }
        Self { _daemon: None, home }.loaded()
    }

    fn loaded(self) -> Result<Self> {
        let archive = &self.home.image.archive;
        succeed(client(&self.home)?.args(["load", "--quiet", "--input"]).arg(archive))?;
        Ok(self)
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        let text = succeed(client(&self.home)?.args(["inspect", "--format", format, name]))?;
        Ok(text.trim().to_owned())
    }
}

fn host(home: &Home) -> String {
    format!("unix://{}", home.state("docker.sock"))
}

fn client(home: &Home) -> Result<Command> {
    let mut docker = home.command("docker")?;
    docker.env("DOCKER_CONFIG", home.state("client"));
    if !home.is_installed() {
        docker.env("DOCKER_HOST", host(home));
    }
    Ok(docker)
}

impl Runtime for Docker {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        let id = self.inspect(name, "{{.Id}}")?;
        Ok(vec![format!("docker/{name}"), id[..8].to_owned(), id])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let restart = if spec.restart { "always" } else { "no" };
        let mut docker = client(&self.home)?;
        docker.args(["run", "--detach", "--network=none", "--name", spec.name]);
        docker.args(["--restart", restart]);
        docker.arg(format!("--volume={}:/bind", self.home.make_bind(spec.name)?));
        docker.arg(format!("--volume={}-data:/volume", spec.name));
        succeed(docker.args([image::NAME, "/bin/sh", "-c", spec.script]))?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        succeed(client(&self.home)?.args(["rm", "--force", "--volumes", name]))?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        pid_in(&self.inspect(name, "{{.State.Pid}}")?)
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        Ok(self.inspect(name, "{{.GraphDriver.Data.UpperDir}}")?.into())
    }

    fn volume(&self, name: &str) -> Result<Option<PathBuf>> {
        let format = "{{range .Mounts}}{{if .Name}}{{.Source}}{{end}}{{end}}";
        Ok(Some(self.inspect(name, format)?.into()))
    }

    fn log(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.inspect(name, "{{.LogPath}}")?.into()))
    }

    fn restarts(&self) -> bool {
        true
    }

    fn environment(&self, command: &mut Command) {
        if !self.home.is_installed() {
            self.home.tools.environment(command);
            command.env("DOCKER_HOST", host(&self.home));
        }
    }

    fn home(&self) -> &Home {
        &self.home
    }
}
