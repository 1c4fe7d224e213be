//! A running `filltop watch` and its events.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tracer_model::alert::{Event, EventKind};

use crate::filltop;

/// A running `filltop watch`; killed on drop.
pub struct Watch {
    child: Child,
    events: Receiver<(Instant, Event)>,
    said: Receiver<String>,
    dir: tempfile::TempDir,
}

/// `filltop` with the requested backend.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(filltop());
    command.args(arguments).stdin(Stdio::null());
    if let Ok(backend) = env::var("FILLTOP_BACKEND") {
        command.args(["--backend", &backend]);
    }
    command
}

impl Watch {
    /// Starts it, and waits until it traces.
    ///
    /// # Errors
    /// If it exits instead, with its output.
    pub fn start(config: &str) -> anyhow::Result<Self> {
        Self::start_with(config, |_| {})
    }

    /// The same, with changes to the command.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn start_with(config: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("filltop.toml");
        fs::write(&file, config)?;
        let mut command = command(&["watch", "--json", "-v"]);
        command.arg("--config").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take();
        let stderr = BufReader::new(child.stderr.take().context("piped")?);
        let (event, events) = channel();
        if let Some(stdout) = stdout {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let parsed =
                        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                    if event.send((Instant::now(), parsed)).is_err() {
                        return;
                    }
                }
            });
        }
        let (word, said) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = word.send(line);
            }
        });
        let watch = Self { child, events, said, dir };
        let mut all = String::new();
        loop {
            match watch.said.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.contains("tracing with") => return Ok(watch),
                Ok(line) => all.push_str(&line),
                Err(_) => bail!("filltop did not start: {all}"),
            }
        }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The path of its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("filltop.toml")
    }

    /// Waits for the next event that matches; returns it with its time.
    ///
    /// # Errors
    /// If it does not arrive in time, with the other events.
    pub fn wait(
        &self,
        most: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<(Instant, Event)> {
        let until = Instant::now() + most;
        let mut others = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok((at, event)) if wanted(&event) => return Ok((at, event)),
                Ok((_, event)) => others.push(event.summary),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no such event within {most:?}, but {others:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("filltop has ended; before: {others:?}")
                }
            }
        }
    }

    /// The next event, if one arrives in time.
    #[must_use]
    pub fn next(&self, most: Duration) -> Option<(Instant, Event)> {
        self.events.recv_timeout(most).ok()
    }

    /// All events within some time.
    pub fn during(&self, length: Duration) -> Vec<Event> {
        thread::sleep(length);
        self.events.try_iter().map(|(_, event)| event).collect()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Sends SIGTERM; returns how long it took to exit, and its status.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn stop(mut self) -> anyhow::Result<(Duration, ExitStatus)> {
        let start = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        Ok((start.elapsed(), status))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Matches events of this kind for this volume and rule.
pub fn is(volume: &Path, rule: &str, kind: EventKind) -> impl Fn(&Event) -> bool + use<> {
    let volume = volume.to_str().map(str::to_owned);
    let rule = rule.to_owned();
    move |event| event.volume == volume && event.rule == rule && event.event == kind
}
