//! `filltop snapshot --json` around a piece of work.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use anyhow::{Context as _, anyhow, bail};
use tracer_model::snapshot::{PathRow, Snapshot, Writer};

use crate::filltop;
use crate::rights::{keep_only, unit_capabilities};

/// Whether filltop runs with the unit's capabilities alone (`FILLTOP_RIGHTS=unit`).
#[must_use]
pub fn has_rights_of_the_unit() -> bool {
    env::var("FILLTOP_RIGHTS").is_ok_and(|rights| rights == "unit")
}

/// A filltop that measures until it is stopped.
pub struct Filltop {
    child: Child,
    /// Its log, available once it has ended.
    said: thread::JoinHandle<std::io::Result<String>>,
}

impl Filltop {
    /// Starts it with further arguments, and waits until its interval has begun.
    ///
    /// # Errors
    /// If it exits instead, with its output.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(arguments, |_| {})
    }

    /// The same, with changes to the command.
    ///
    /// # Errors
    /// As [`Filltop::start`].
    pub fn start_with(
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(filltop());
        command.args(["snapshot", "--json", "--for", "10m", "-v"]).args(arguments);
        if let Ok(backend) = env::var("FILLTOP_BACKEND") {
            command.args(["--backend", &backend]);
        }
        if has_rights_of_the_unit() {
            let kept: Vec<u32> = unit_capabilities()?.iter().map(|(_, number)| *number).collect();
            keep_only(&mut command, &kept);
        }
        change(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let mut said = String::new();
        loop {
            let start = said.len();
            if stderr.read_line(&mut said)? == 0 {
                bail!("filltop ended: {said}");
            }
            if said[start..].contains("tracing with") {
                // A thread of its own reads the rest: otherwise a filltop that logs much would
                // block while the test reads its JSON.
                let said = thread::spawn(move || {
                    let mut said = String::new();
                    stderr.read_to_string(&mut said).map(|_| said)
                });
                return Ok(Self { child, said });
            }
        }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it like kill -9.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Interrupts it; returns what it measured.
    ///
    /// # Errors
    /// If it fails or prints something else.
    pub fn stop(self) -> anyhow::Result<Measured> {
        let (json, said) = self.stop_as_printed()?;
        Ok(Measured { snapshot: serde_json::from_str(&json).context(json)?, said })
    }

    /// Interrupts it; returns its JSON, which may contain fields that the model does not know, and
    /// its log.
    ///
    /// # Errors
    /// If it fails.
    pub fn stop_as_printed(mut self) -> anyhow::Result<(String, String)> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let mut json = String::new();
        self.child.stdout.take().context("stdout is piped")?.read_to_string(&mut json)?;
        let said = self.said.join().map_err(|_| anyhow!("the thread of its log"))??;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("filltop: {status}: {said}");
        }
        Ok((json, said))
    }
}

/// What filltop measured.
pub struct Measured {
    /// Its JSON.
    pub snapshot: Snapshot,
    /// Its log.
    pub said: String,
}

impl Measured {
    /// The rows of a process.
    pub fn writers_of(&self, pid: u32) -> impl Iterator<Item = &Writer> {
        self.snapshot.writers.iter().filter(move |writer| writer.pid == pid)
    }

    /// Details that may explain why a row is missing.
    fn about(&self, wanted: &str) -> String {
        let all = &self.snapshot.paths;
        let volume = |path: &str| {
            let of = |row: &&tracer_model::snapshot::Volume| path.starts_with(&row.mount_point);
            let volumes = self.snapshot.volumes.iter().filter(of);
            volumes.max_by_key(|row| row.mount_point.len()).map(|row| row.mount_point.clone())
        };
        let mount = volume(wanted).unwrap_or_default();
        let (mut near, far): (Vec<_>, Vec<_>) = all.iter().partition(|row| row.volume == mount);
        near.truncate(100);
        let backend = &self.snapshot.backend;
        format!(
            "\non its volume {mount}: {near:#?}\nelsewhere {} rows, such as {:?}\nlost {:?}, \
             unattributed {}, folded {}, traced with {:?} on {}\nits log: {}",
            far.len(),
            far.iter().take(5).map(|row| &row.path).collect::<Vec<_>>(),
            backend.lost,
            backend.unattributed_bytes,
            backend.folded_files,
            backend.write,
            backend.kernel,
            self.said
        )
    }

    /// The row of a file, by its path on the host.
    ///
    /// # Errors
    /// If there is none, or more than one, with the existing paths.
    pub fn path(&self, path: &std::path::Path) -> anyhow::Result<&PathRow> {
        let wanted = path.to_str().context("a test's path is UTF-8")?;
        let rows: Vec<_> = self.snapshot.paths.iter().filter(|row| row.path == wanted).collect();
        match rows[..] {
            [row] => Ok(row),
            _ => bail!("{} rows for {wanted}{}", rows.len(), self.about(wanted)),
        }
    }
}

/// Ids of all loaded BPF programs: BPF_PROG_GET_NEXT_ID of bpf(2).
///
/// # Errors
/// If the kernel refuses the query.
pub fn bpf_programs() -> anyhow::Result<Vec<u32>> {
    const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
    let mut ids = Vec::new();
    // union bpf_attr: start_id, next_id, open_flags.
    let mut attr = [0u32; 32];
    loop {
        // SAFETY: `attr` is larger than the part that this command reads and writes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_GET_NEXT_ID,
                attr.as_mut_ptr(),
                size_of_val(&attr),
            )
        };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) {
                Ok(ids)
            } else {
                Err(error.into())
            };
        }
        ids.push(attr[1]);
        attr[0] = attr[1];
    }
}
