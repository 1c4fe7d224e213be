//! Taking a terminal over and giving it back, whatever happens.

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

use super::Pipe;

/// Alternate screen.
const ENTER: &[u8] = b"\x1b[?1049h";
/// Presses, releases and the wheel, in the encoding without a limit of columns.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1006h";
/// Mouse off, plain style, our text away, cursor on, ordinary screen. The text is cleared for
/// terminals without a second screen, and for tmux, which after a resize moves lines of the one screen
/// into the other (seen with 3.3).
const LEAVE: &[u8] = b"\x1b[?1006l\x1b[?1000l\x1b[m\x1b[H\x1b[J\x1b[?25h\x1b[?1049l";
/// How long a terminal that does not read may keep us when leaving; twice.
const PATIENCE: Duration = Duration::from_millis(300);

/// A terminal in raw mode, with our screen on it. Dropping gives it back.
pub struct Tty {
    file: File,
    /// Where every byte goes through; frames are handed to [`Tty::send`].
    pub pipe: Pipe,
    mouse: bool,
    /// Is our screen up?
    entered: bool,
    /// How the terminal was before; `None` while it is given back.
    before: Option<Termios>,
}

impl Tty {
    /// Takes over standard output's terminal.
    ///
    /// # Errors
    /// When standard output is not a terminal, or refuses raw mode.
    pub fn stdout(mouse: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Err(io::Error::other(
                "standard output is not one; `filltop snapshot` prints once, as text or JSON",
            ));
        }
        restore_on_panic();
        Self::take(File::from(stdout.as_fd().try_clone_to_owned()?), mouse)
    }

    /// Takes over any terminal.
    ///
    /// # Errors
    /// When `file` is no terminal, or refuses raw mode.
    pub fn take(file: File, mouse: bool) -> io::Result<Self> {
        let pipe = Pipe::new(file.try_clone()?)?;
        let mut tty = Self { file, pipe, mouse, entered: false, before: None };
        tty.enter()?;
        Ok(tty)
    }

    /// Columns and rows, at least one of each: a serial console says 0 × 0, which is taken for
    /// 80 × 24.
    #[must_use]
    pub fn size(&self) -> Size {
        match tcgetwinsize(&self.file) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size::new(size.ws_col, size.ws_row),
            _ => Size::new(80, 24),
        }
    }

    /// Is our screen on it? Not while the process is suspended, or about to be.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.before.is_some()
    }

    /// Raw mode and our screen: at the start, after a suspension, and after somebody else may have
    /// used the terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter(&mut self) -> io::Result<()> {
        let now = tcgetattr(&self.file)?;
        let mut raw = now.clone();
        raw.make_raw();
        tcsetattr(&self.file, OptionalActions::Now, &raw)?;
        if self.before.is_none() {
            *lock_taken() = Some(now.clone());
            self.before = Some(now);
        }
        self.entered = false;
        Ok(())
    }

    /// Hands over a frame when the [pipe](Self::pipe) is idle; our screen is put up before the
    /// first.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&mut self, frame: Vec<u8>) -> io::Result<()> {
        if self.entered || frame.is_empty() {
            return self.pipe.send(frame);
        }
        self.entered = true;
        let mouse = if self.mouse { MOUSE_ON } else { b"" };
        self.pipe.send([ENTER, mouse, &*frame].concat())
    }

    /// Gives the terminal back, within 0.6 s even if it does not read.
    pub fn leave(&mut self) {
        let Some(before) = self.before.take() else { return };
        *lock_taken() = None;
        // Throw away what nobody reads, so that the last few bytes find room.
        for _ in 0..10 {
            if self.pipe.drain(PATIENCE / 10) {
                break;
            }
            let _ = tcflush(&self.file, QueueSelector::OFlush);
        }
        let entered = std::mem::take(&mut self.entered);
        if entered && self.pipe.is_idle() && self.pipe.send(LEAVE.to_vec()).is_ok() {
            let _ = self.pipe.drain(PATIENCE);
        }
        let _ = tcsetattr(&self.file, OptionalActions::Now, &before);
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How the terminal was before our screen was put on it: for the panic hook, which has nobody else
/// to ask.
static TAKEN: Mutex<Option<Termios>> = Mutex::new(None);

fn lock_taken() -> MutexGuard<'static, Option<Termios>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a panic readable: the terminal is given back before the message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(before) = lock_taken().take() {
                let mut stdout = io::stdout();
                let _ = stdout.write_all(LEAVE).and_then(|()| stdout.flush());
                let _ = tcsetattr(&stdout, OptionalActions::Now, &before);
            }
            next(info);
        }));
    });
}
