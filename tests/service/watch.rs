//! A `filltop watch` for this test alone: own socket, own port.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, bail, ensure};
use filltop_tests::filltop;
use rustix::process::{Pid, Signal, kill_process};
use tracer_model::snapshot::Snapshot;

/// A running `filltop watch`; killed, by its pid, on drop.
pub struct Watch {
    child: Child,
    socket: PathBuf,
    address: SocketAddr,
    /// Its output on stderr before it began to trace.
    said: String,
    _dir: tempfile::TempDir,
}

impl Watch {
    /// Starts one that samples twice a second, and waits until it does.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_by(Command::new(filltop()), arguments)
    }

    /// The same with another program that executes filltop, or with another environment.
    pub fn start_by(command: Command, arguments: &[&str]) -> anyhow::Result<Self> {
        let watch = Self::spawn(command, None, arguments)?;
        watch.wait_until(|watch| watch.metrics("").is_ok())?;
        Ok(watch)
    }

    /// One with its socket at another path.
    pub fn start_at(socket: &Path) -> anyhow::Result<Self> {
        let watch = Self::spawn(Command::new(filltop()), Some(socket), &[])?;
        watch.wait_until(|watch| watch.metrics("").is_ok())?;
        Ok(watch)
    }

    /// One that cannot create its socket, and reports that instead of exiting.
    pub fn start_without_socket(socket: &Path) -> anyhow::Result<Self> {
        let watch = Self::start_at(socket)?;
        ensure!(watch.said.contains("cannot listen at"), "{}", watch.said);
        Ok(watch)
    }

    /// One whose metrics require authentication.
    pub fn start_guarded(arguments: &[&str]) -> anyhow::Result<Self> {
        let watch = Self::spawn(Command::new(filltop()), None, arguments)?;
        watch.wait_until(|watch| watch.snapshot("0.5s").is_ok())?;
        Ok(watch)
    }

    fn spawn(
        mut command: Command,
        socket: Option<&Path>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = socket.map_or_else(|| dir.path().join("run/filltop.sock"), Path::to_owned);
        let address = free_port()?;
        command
            .args(["watch", "-v", "--interval", "500ms", "--socket"])
            .arg(&socket)
            .args(["--metrics", &address.to_string()])
            .args(arguments);
        if let Ok(backend) = env::var("FILLTOP_BACKEND") {
            command.args(["--backend", &backend]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let mut said = String::new();
        while !said.contains("tracing with") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("filltop watch ended: {said}");
            }
        }
        // Its further output must be read.
        thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = stderr.read_to_end(&mut rest);
        });
        Ok(Self { child, socket, address, said, _dir: dir })
    }

    fn wait_until(&self, is_there: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_there(self) {
            ensure!(start.elapsed() < Duration::from_secs(10), "it does not respond");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The address of its metrics.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A command that queries it.
    pub fn ask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(filltop());
        command.args(arguments).arg("--socket").arg(self.socket());
        command
    }

    /// Its data of the last seconds, queried with `filltop snapshot`.
    pub fn snapshot(&self, seconds: &str) -> anyhow::Result<Snapshot> {
        let output = succeeded(self.ask(&["snapshot", "--json", "--for", seconds]).output()?)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A scrape with this `Accept` header.
    pub fn metrics(&self, accept: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Ok(body.to_owned())
    }

    /// Scrapes until `holds` is true for two Snapshots in a row, at most for 20 s, so that whatever
    /// is counted too late or twice is in it. Returns the last scrape in either case: the caller
    /// asserts on its figures.
    pub fn settled(&self, accept: &str, holds: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let start = Instant::now();
        let mut since = None;
        loop {
            let text = self.metrics(accept)?;
            let snapshots = value(&text, "filltop_snapshots_total").context("no count")?;
            since = holds(&text).then_some(since.unwrap_or(snapshots));
            let is_settled = since.is_some_and(|first| snapshots > first);
            if is_settled || start.elapsed() > Duration::from_secs(20) {
                return Ok(text);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until its process has exited, at most for `limit`; returns whether it has.
    pub fn has_exited_within(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > limit {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Stops it with SIGSTOP, and waits until all its threads are stopped: the signal is sent
    /// before it takes effect.
    pub fn suspend(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let start = Instant::now();
        loop {
            let mut all = true;
            for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
                let stat = fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
                // proc(5): the state follows the name, which is in parentheses.
                all &= stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'));
            }
            if all {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(10), "it does not stop");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it as the OOM killer does; what it leaves behind is kept.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as `systemctl stop` does; returns how long that took.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        ensure!(!self.socket().exists(), "its socket still exists");
        Ok(start.elapsed())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that nothing listens on.
pub fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The output of a command that succeeded.
pub fn succeeded(output: Output) -> anyhow::Result<Output> {
    ensure!(
        output.status.success(),
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// The value of a series in a scrape.
pub fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A path as text; test paths are UTF-8.
pub fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a test's path is UTF-8")
}
