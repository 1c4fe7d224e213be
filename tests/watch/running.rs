//! A running `filltop watch`, its events, and the places that alerts are sent to.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use filltop_tests::filltop;
use rustix::process::{Pid, Signal, kill_process};
use tracer_model::alert::{Event, EventKind};

/// A watch; killed on drop.
pub struct Watch {
    child: Child,
    events: Receiver<(Instant, Event)>,
    said: Receiver<String>,
    dir: tempfile::TempDir,
}

/// `filltop` with the backend that was asked for.
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
    pub fn start(config: &str) -> anyhow::Result<Self> {
        Self::start_with(config, |_| {})
    }

    /// The same, with changes to the command.
    pub fn start_with(config: &str, change: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("filltop.toml");
        fs::write(&file, config)?;
        let mut command = command(&["watch", "--json", "-v", "--config"]);
        command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
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
                Ok(line) if line.contains("tracing by") => return Ok(watch),
                Ok(line) => all.push_str(&line),
                Err(_) => bail!("filltop did not start: {all}"),
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("filltop.toml")
    }

    /// The next event that is wanted, and when it came.
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

    /// All events of some time.
    pub fn during(&self, length: Duration) -> Vec<Event> {
        thread::sleep(length);
        self.events.try_iter().map(|(_, event)| event).collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// SIGTERM; how long it took to end, and how.
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

/// Is it about this volume and rule?
pub fn is(volume: &Path, rule: &str, kind: EventKind) -> impl Fn(&Event) -> bool + use<> {
    let volume = volume.to_str().map(str::to_owned);
    let rule = rule.to_owned();
    move |event| event.volume == volume && event.rule == rule && event.event == kind
}

/// The bodies that an HTTP server of ours gets; it answers 200.
pub fn http(listener: TcpListener) -> Receiver<(Instant, String)> {
    let (body, bodies) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let text = request(&mut stream);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if body.send((Instant::now(), text)).is_err() {
                return;
            }
        }
    });
    bodies
}

/// The body of one request.
fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return body.to_owned();
            }
        }
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return text,
        }
    }
}

/// What connections to a TCP server of ours bring until they end.
pub fn tcp(listener: TcpListener) -> Receiver<(Instant, String)> {
    let (text, texts) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let text = text.clone();
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let part = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let _ = text.send((Instant::now(), part));
                }
            });
        }
    });
    texts
}

/// The next text in which all these words are.
pub fn arrives(
    from: &Receiver<(Instant, String)>,
    what: &str,
    words: &[&str],
    most: Duration,
) -> anyhow::Result<()> {
    let until = Instant::now() + most;
    let mut others = String::new();
    loop {
        match from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((_, text)) if words.iter().all(|word| text.contains(word)) => return Ok(()),
            Ok((_, text)) => others.push_str(&text),
            Err(_) => bail!("{what}: nothing with {words:?} within {most:?}, but {others:.2000}"),
        }
    }
}

/// A loopback listener and its port.
pub fn listener() -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Writes at `rate` bytes a second until `length` is over or there is no space; when it began.
pub fn write_at(
    path: &Path,
    rate: f64,
    length: Duration,
) -> anyhow::Result<thread::JoinHandle<()>> {
    const BLOCK: usize = 1_000_000;
    let mut file = File::create(path)?;
    Ok(thread::spawn(move || {
        let start = Instant::now();
        let block = vec![7; BLOCK];
        let mut written = 0.0;
        while start.elapsed() < length && file.write_all(&block).is_ok() {
            written += BLOCK as f64;
            let due = Duration::from_secs_f64(written / rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }))
}

/// Takes all that is left of a volume.
pub fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    for block in [1 << 20, 1 << 12] {
        while file.write_all(&vec![7; block]).is_ok() {}
    }
    file.sync_all().or_else(|error| match error.raw_os_error() {
        Some(libc::ENOSPC) => Ok(()),
        _ => Err(error.into()),
    })
}
