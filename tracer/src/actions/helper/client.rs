//! Starts a helper process and sends it requests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{self, Stdio};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::protocol::{Command, Request, Response};
use tracer_kernel::capabilities;

/// `argv[0]` of the process.
const ARGV0: &str = "fill-helper";

/// The connection to a helper process.
pub(crate) struct PrivilegedHelper {
    socket: UnixStream,
    /// Number of the last request.
    last: u64,
}

impl PrivilegedHelper {
    /// Starts the helper. Must be called before privileges are dropped.
    ///
    /// # Errors
    /// If the helper cannot be started.
    pub(crate) fn start() -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Response>)> {
        let (ours, theirs) = UnixStream::pair()?;
        process::Command::new("/proc/self/exe")
            .arg0(ARGV0)
            .arg("helper")
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start the helper process")?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let reader = BufReader::new(ours.try_clone()?);
        std::thread::Builder::new().name("helper".to_owned()).spawn(move || {
            // The thread is started before the tracer drops its capabilities, and would keep them.
            if let Err(error) = capabilities::drop_capabilities() {
                tracing::warn!(
                    "cannot drop the capabilities of the helper's reader thread: {error}"
                );
            }
            for line in reader.lines().map_while(Result::ok) {
                let Ok(response) = serde_json::from_str(&line) else { continue };
                if sender.send(response).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { socket: ours, last: 0 }, receiver))
    }

    /// Sends a command and returns the request number, which the responses repeat.
    ///
    /// # Errors
    /// If the helper has exited.
    pub(crate) fn send(&mut self, command: Command) -> anyhow::Result<u64> {
        self.last += 1;
        let line = serde_json::to_string(&Request { number: self.last, command })? + "\n";
        self.socket
            .write_all(line.as_bytes())
            .context("the helper process has exited; restart filltop to act")?;
        Ok(self.last)
    }
}
