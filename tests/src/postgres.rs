//! A real PostgreSQL server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// A PostgreSQL with a database for pgbench, as its own user.
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Postgres {
    /// Creates and starts one in `volume`, with its socket in `socket`; `None` where it is not
    /// installed.
    ///
    /// # Errors
    /// If it does not start, with its output.
    pub fn new(volume: &Path, socket: &Path) -> anyhow::Result<Option<Self>> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let Some(bin) = versions
            .map(|entry| entry.path().join("bin"))
            .find(|bin| bin.join("pgbench").exists() && Path::new("/usr/sbin/runuser").exists())
        else {
            return Ok(None);
        };
        let data = volume.join("postgres");
        fs::create_dir(&data)?;
        for dir in [&data, &socket.to_path_buf()] {
            let owner = Command::new("chown").arg("postgres").arg(dir).status()?;
            ensure!(owner.success(), "chown: {owner}");
        }
        let postgres = Self { bin, data, socket: socket.to_owned() };
        let data = postgres.data.to_str().context("UTF-8")?;
        postgres.run("initdb", &["-A", "trust", "-D", data])?;
        let options = format!("-c listen_addresses= -k {}", postgres.socket.display());
        postgres.run("pg_ctl", &["-D", data, "-w", "-l", "/dev/null", "-o", &options, "start"])?;
        postgres.bench(&["-i", "-q"])?;
        Ok(Some(postgres))
    }

    /// Runs a program of its package as its user; returns its output.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("/usr/sbin/runuser")
            .args(["-u", "postgres", "--"])
            .arg(self.bin.join(program))
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            // A server that pg_ctl leaves would keep a pipe open.
            .stdout(if program == "pg_ctl" { Stdio::null() } else { Stdio::piped() })
            .stderr(if program == "pg_ctl" { Stdio::null() } else { Stdio::piped() })
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs one statement with psql; returns its result without headings.
    ///
    /// # Errors
    /// As [`Postgres::run`].
    pub fn query(&self, statement: &str) -> anyhow::Result<String> {
        let socket = self.socket.to_str().context("UTF-8")?;
        self.run("psql", &["-X", "-A", "-t", "-h", socket, "-c", statement, "postgres"])
    }

    /// Runs pgbench with further arguments; returns its output.
    ///
    /// # Errors
    /// As [`Postgres::run`].
    pub fn bench(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.socket.to_str().context("UTF-8")?;
        self.run("pgbench", &[&["-h", socket], arguments, &["postgres"]].concat())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.data.to_string_lossy().into_owned();
        let _ = self.run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]);
    }
}
