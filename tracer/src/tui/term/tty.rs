//! Puts a terminal into raw mode, and restores it in every case.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use ratatui::layout::Size;
use rustix::termios::{
    OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};

use super::FrameWriter;

/// Switches to the alternate screen.
const ENTER: &[u8] = b"\x1b[?1049h";
/// Mouse on: presses, releases and the wheel, in the SGR encoding, which has no column limit.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1006h";
/// Mouse off, plain style, clear, cursor on, normal screen. The clear is for terminals without an
/// alternate screen, and for tmux, which after a resize moves lines from one screen to the other
/// (seen with 3.3).
const LEAVE: &[u8] = b"\x1b[?1006l\x1b[?1000l\x1b[m\x1b[H\x1b[J\x1b[?25h\x1b[?1049l";
/// How long to wait, twice, for a terminal that does not read when leaving.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

/// A terminal in raw mode that shows our screen. Dropping restores it.
pub struct Tty {
    file: File,
    /// The writer of all bytes; use [`Tty::send`] for frames.
    pub writer: FrameWriter,
    mouse: bool,
    /// Whether our screen is shown.
    entered: bool,
    /// The original terminal settings; `None` while they are restored.
    original: Option<Termios>,
}

impl Tty {
    /// Puts the terminal on standard output into raw mode.
    ///
    /// # Errors
    /// If standard output is not a terminal, or raw mode cannot be set.
    pub fn stdout(mouse: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Err(io::Error::other(
                "standard output is not a terminal; use `filltop snapshot` to print once",
            ));
        }
        restore_on_panic();
        Self::open(File::from(stdout.as_fd().try_clone_to_owned()?), mouse)
    }

    /// Puts the terminal `file` into raw mode.
    ///
    /// # Errors
    /// If `file` is not a terminal, or raw mode cannot be set.
    pub fn open(file: File, mouse: bool) -> io::Result<Self> {
        let writer = FrameWriter::new(file.try_clone()?)?;
        let mut tty = Self { file, writer, mouse, entered: false, original: None };
        tty.enter()?;
        Ok(tty)
    }

    /// Columns and rows, at least one of each. A serial console reports 0 × 0, which is treated as
    /// 80 × 24.
    #[must_use]
    pub fn size(&self) -> Size {
        match tcgetwinsize(&self.file) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size::new(size.ws_col, size.ws_row),
            _ => Size::new(80, 24),
        }
    }

    /// Whether the terminal is in raw mode; `false` while the process is stopped or about to be.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        self.original.is_some()
    }

    /// Sets raw mode and shows our screen with the next frame: at the start, and whenever another
    /// process may have used the terminal.
    ///
    /// # Errors
    /// If raw mode cannot be set.
    pub fn enter(&mut self) -> io::Result<()> {
        let now = tcgetattr(&self.file)?;
        let mut raw = now.clone();
        raw.make_raw();
        tcsetattr(&self.file, OptionalActions::Now, &raw)?;
        if self.original.is_none() {
            *lock_original() = Some(now.clone());
            self.original = Some(now);
        }
        self.entered = false;
        Ok(())
    }

    /// Sends a frame; call this only when the [writer](Self::writer) is idle. The first frame switches
    /// to our screen.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub fn send(&mut self, frame: Vec<u8>) -> io::Result<()> {
        if self.entered || frame.is_empty() {
            return self.writer.send(frame);
        }
        self.entered = true;
        let mouse = if self.mouse { MOUSE_ON } else { b"" };
        self.writer.send([ENTER, mouse, &*frame].concat())
    }

    /// Restores the terminal, within 0.6 s even if it does not read.
    pub fn leave(&mut self) {
        let Some(original) = self.original.take() else { return };
        *lock_original() = None;
        // Discard unread output to make space for the last few bytes.
        for _ in 0..10 {
            if self.writer.drain(LEAVE_TIMEOUT / 10) {
                break;
            }
            let _ = tcflush(&self.file, QueueSelector::OFlush);
        }
        let entered = std::mem::take(&mut self.entered);
        if entered && self.writer.is_idle() && self.writer.send(LEAVE.to_vec()).is_ok() {
            let _ = self.writer.drain(LEAVE_TIMEOUT);
        }
        let _ = tcsetattr(&self.file, OptionalActions::Now, &original);
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The original terminal settings, for the panic hook, which cannot reach the [`Tty`].
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

fn lock_original() -> MutexGuard<'static, Option<Termios>> {
    ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs a panic hook that restores the terminal before the message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(original) = lock_original().take() {
                let mut stdout = io::stdout();
                let _ = stdout.write_all(LEAVE).and_then(|()| stdout.flush());
                let _ = tcsetattr(&stdout, OptionalActions::Now, &original);
            }
            next(info);
        }));
    });
}
