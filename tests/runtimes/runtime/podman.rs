//! podman with conmon and runc. It has no daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Home, Runtime, Spec, pid_in};
use crate::{Result, image, succeed};

pub struct Podman {
    home: Home,
    driver: &'static str,
}

impl Podman {
    pub fn start(home: Home, driver: &'static str) -> Result<Self> {
        let programs = ["conmon", "runc"].map(|name| home.tools.program(name));
        let [conmon, runc] = programs;
        let (conmon, runc) = (conmon?.display().to_string(), runc?.display().to_string());
        // conmon runs podman when a container ends, which restarts it; podman gives it only these.
        let variables = home.tools.variables();
        let variables =
            variables.iter().map(|(key, value)| format!("\"{key}={}\"", value.display()));
        let variables = variables.collect::<Vec<_>>().join(", ");
        // cgroupfs, because there may be no systemd. The limits are ones that a root without
        // CAP_SYS_RESOURCE may set.
        let engine = format!(
            "[containers]\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [engine]\n\
             cgroup_manager = \"cgroupfs\"\n\
             runtime = \"runc\"\n\
             events_logger = \"file\"\n\
             lock_type = \"file\"\n\
             conmon_path = [\"{conmon}\"]\n\
             conmon_env_vars = [{variables}]\n\
             static_dir = \"{}\"\n\
             volume_path = \"{}\"\n\
             tmp_dir = \"{}\"\n\
             [engine.runtimes]\n\
             runc = [\"{runc}\"]\n\
             [network]\n\
             network_backend = \"cni\"\n\
             network_config_dir = \"{}\"\n",
            // Podman's default place.
            home.store("podman/storage/libpod"),
            home.store("podman/volumes"),
            home.state("podman"),
            home.state("network"),
        );
        fs::write(home.state("containers.conf"), engine)?;
        let storage = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            home.store("podman/storage"),
            home.state("run"),
        );
        fs::write(home.state("storage.conf"), storage)?;
        fs::write(home.state("registries.conf"), "")?;
        let policies = PathBuf::from(home.state("home/.config/containers"));
        fs::create_dir_all(&policies)?;
        fs::write(
            policies.join("policy.json"),
            r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
        )?;
        Self { home, driver }.loaded()
    }

    /// The installed one.
    pub fn installed(home: Home) -> Result<Self> {
        home.tools.program("podman")?;
        Self { home, driver: "overlay" }.loaded()
    }

    fn loaded(self) -> Result<Self> {
        let podman = self;
        succeed(
            podman.client()?.args(["load", "--quiet", "--input"]).arg(&podman.home.image.archive),
        )?;
        Ok(podman)
    }

    /// The installed one uses the machine's configuration.
    fn settings(&self) -> Vec<(&'static str, String)> {
        if self.home.is_installed() {
            return Vec::new();
        }
        vec![
            ("CONTAINERS_CONF", self.home.state("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", self.home.state("storage.conf")),
            ("CONTAINERS_REGISTRIES_CONF", self.home.state("registries.conf")),
            // It contains the signature policy, which no variable points to.
            ("HOME", self.home.state("home")),
        ]
    }

    fn client(&self) -> Result<Command> {
        let mut podman = self.home.command("podman")?;
        podman.envs(self.settings());
        Ok(podman)
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        let text = succeed(self.client()?.args(["inspect", "--format", format, name]))?;
        Ok(text.trim().to_owned())
    }
}

impl Runtime for Podman {
    fn kind(&self) -> &'static str {
        "podman"
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        let id = self.inspect(name, "{{.Id}}")?;
        Ok(vec![format!("podman/{name}"), id[..8].to_owned(), id])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let restart = if spec.restart { "always" } else { "no" };
        let mut podman = self.client()?;
        podman.args(["run", "--detach", "--network=none", "--name", spec.name]);
        // Debian's default, the journal, is not a file.
        podman.args(["--restart", restart, "--log-driver=k8s-file"]);
        podman.arg(format!("--volume={}:/bind", self.home.make_bind(spec.name)?));
        podman.arg(format!("--volume={}-data:/volume", spec.name));
        succeed(podman.args([image::NAME, "/bin/sh", "-c", spec.script]))?;
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        succeed(self.client()?.args(["rm", "--force", "--time=0", "--volumes", name]))?;
        succeed(self.client()?.args(["volume", "rm", "--force", &format!("{name}-data")]))?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        pid_in(&self.inspect(name, "{{.State.Pid}}")?)
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        if self.driver == "overlay" {
            return Ok(self.inspect(name, "{{.GraphDriver.Data.UpperDir}}")?.into());
        }
        // A layer is a plain directory, which the runtime mounts onto itself.
        let layer = succeed(self.client()?.args(["mount", name]))?;
        succeed(self.client()?.args(["unmount", name]))?;
        Ok(Path::new(layer.trim()).to_owned())
    }

    fn volume(&self, name: &str) -> Result<Option<PathBuf>> {
        let format = "{{range .Mounts}}{{if .Name}}{{.Source}}{{end}}{{end}}";
        Ok(Some(self.inspect(name, format)?.into()))
    }

    fn log(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.inspect(name, "{{.HostConfig.LogConfig.Path}}")?.into()))
    }

    fn restarts(&self) -> bool {
        true
    }

    fn environment(&self, command: &mut Command) {
        if !self.home.is_installed() {
            self.home.tools.environment(command);
        }
        command.envs(self.settings());
    }

    fn home(&self) -> &Home {
        &self.home
    }
}
