//! A pseudo-terminal that runs a program, with an emulated screen behind it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// A program in a terminal of its own. Killed, by its pid, on drop.
pub struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    picture: Arc<Mutex<vt100::Parser>>,
    received: Arc<AtomicU64>,
    reading: Arc<AtomicBool>,
    /// Number of keys pressed so far.
    pub presses: u32,
}

impl Terminal {
    /// Starts `command` on a terminal of this size, as session leader.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let open = || File::options().read(true).write(true).open(&name);
        tcsetwinsize(&master, winsize(columns, rows))?;
        let slave = open()?;
        command.stdin(Stdio::from(open()?)).stdout(Stdio::from(open()?));
        command.stderr(Stdio::from(open()?));
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        // SAFETY: both are system calls that may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                // The descriptor of standard input is the terminal by now.
                if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        drop(command);
        let picture = Arc::new(Mutex::new(vt100::Parser::new(cells(rows)?, cells(columns)?, 0)));
        let received = Arc::new(AtomicU64::new(0));
        let reading = Arc::new(AtomicBool::new(true));
        let mut reader = File::from(master.try_clone()?);
        let (to_picture, count, on) =
            (Arc::clone(&picture), Arc::clone(&received), Arc::clone(&reading));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                while !on.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
                match reader.read(&mut buffer) {
                    Ok(n @ 1..) => {
                        count.fetch_add(n as u64, Ordering::Relaxed);
                        let mut picture = to_picture.lock().unwrap_or_else(PoisonError::into_inner);
                        picture.process(&buffer[..n]);
                    }
                    _ => return,
                }
            }
        });
        let slave = slave.as_fd().try_clone_to_owned()?;
        Ok(Self {
            child,
            master: File::from(master),
            slave,
            picture,
            received,
            reading,
            presses: 0,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of output so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Reads the output, or stops reading it.
    pub fn read(&self, on: bool) {
        self.reading.store(on, Ordering::Relaxed);
    }

    /// The text on the screen.
    pub fn text(&self) -> String {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// Colours of text and background on the screen, without the terminal's own default colours.
    pub fn colours(&self) -> Vec<vt100::Color> {
        let picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = picture.screen();
        let (rows, columns) = screen.size();
        let (rows, columns) = (rows.get(), columns.get());
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let cells = places.filter_map(|(row, column)| screen.cell(row, column));
        cells
            .flat_map(|cell| [cell.fgcolor(), cell.bgcolor()])
            .filter(|colour| *colour != vt100::Color::Default)
            .collect()
    }

    /// Whether the program has enabled mouse reporting.
    pub fn wants_mouse(&self) -> bool {
        let picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        picture.screen().mouse_protocol_mode() != vt100::MouseProtocolMode::None
    }

    /// Whether the alternate screen is shown.
    pub fn on_second_screen(&self) -> bool {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).screen().alternate_screen()
    }

    /// The terminal's modes.
    pub fn modes(&self) -> anyhow::Result<Termios> {
        Ok(tcgetattr(&self.slave)?)
    }

    /// Presses one key.
    pub fn press(&mut self, key: &str) -> anyhow::Result<()> {
        self.presses += 1;
        Ok(self.master.write_all(key.as_bytes())?)
    }

    /// Resizes the terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> anyhow::Result<()> {
        let mut picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        picture.screen_mut().set_size(cells(rows)?, cells(columns)?);
        Ok(tcsetwinsize(&self.master, winsize(columns, rows))?)
    }

    /// Waits until the screen meets a condition; returns how long that took.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        is_there: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let text = self.text();
            if is_there(&text) {
                return Ok(start.elapsed());
            }
            if start.elapsed() > limit {
                bail!("not within {limit:?}: {what}. The screen:\n{text}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// State of its process as in /proc/PID/stat: `S`, `T` …
    pub fn state(&self) -> anyhow::Result<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).context(stat)
    }

    /// Waits for its end.
    pub fn end(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                // Its last output may still be on the way through the terminal.
                thread::sleep(Duration::from_millis(100));
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("still there after {limit:?}. The screen:\n{}", self.text());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> anyhow::Result<NonZero<u16>> {
    NonZero::new(count).context("a terminal has cells")
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
