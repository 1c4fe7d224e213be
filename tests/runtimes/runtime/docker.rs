//! dockerd, with its containerd and runc.

use std::{path::PathBuf, process::Command};

use serde_json::json;

use super::{Home, Runtime, Spec, home::Daemon, pid_in};
use crate::{Result, image, succeed};

pub struct Docker {
    _daemon: Daemon,
    home: Home,
}

impl Docker {
    pub fn start(home: Home) -> Result<Self> {
        for needed in ["docker", "containerd", "containerd-shim-runc-v2", "runc"] {
            home.tools.program(needed)?;
        }
        // Else it reads /etc/docker/daemon.json, and leaves a key beside it.
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
        succeed(client(&home)?.args(["load", "--quiet", "--input"]).arg(&home.image.archive))?;
        Ok(Self { _daemon: daemon, home })
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
    docker.env("DOCKER_HOST", host(home)).env("DOCKER_CONFIG", home.state("client"));
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
        self.home.tools.environment(command);
        command.env("DOCKER_HOST", host(&self.home));
    }

    fn home(&self) -> &Home {
        &self.home
    }
}
