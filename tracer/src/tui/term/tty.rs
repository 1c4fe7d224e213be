//! Taking a terminal over and giving it back, whatever happens.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use ratatui::layout::Size;
use rustix::termios::{QueueSelector, tcflush, tcgetwinsize};

use super::Pipe;

/// Alternate screen.
const ENTER: &[u8] = b"\x1b[?1049h";
/// Presses, releases and the wheel, in the encoding without a limit of columns.
const MOUSE_ON: &[u8] = b"\x1b[?1000h\x1b[?1006h";
/// Mouse off, plain style, cursor on, ordinary screen.
const LEAVE: &[u8] = b"\x1b[?1006l\x1b[?1000l\x1b[m\x1b[?25h\x1b[?1049l";
/// How long a terminal that does not read may keep us from leaving; twice at most.
const PATIENCE: Duration = Duration::from_millis(300);

/// The controlling terminal in raw mode, with our screen on it. Dropping gives it back.
pub struct Tty {
    file: File,
    /// Where every byte goes through.
    pub pipe: Pipe,
    mouse: bool,
    taken: bool,
}

impl Tty {
    /// Takes over standard output's terminal.
    ///
    /// # Errors
    /// When standard output is not a terminal, or refuses raw mode.
    pub fn take(mouse: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Err(io::Error::other(
                "standard output is not a terminal; `filltop snapshot` prints once, as text or JSON",
            ));
        }
        let file = File::from(stdout.as_fd().try_clone_to_owned()?);
        let pipe = Pipe::new(file.try_clone()?)?;
        restore_on_panic();
        let mut tty = Self { file, pipe, mouse, taken: false };
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

    /// Raw mode and our screen: at the start and after a suspension.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter(&mut self) -> io::Result<()> {
        if self.taken {
            return Ok(());
        }
        enable_raw_mode()?;
        self.taken = true;
        TAKEN.store(true, Ordering::SeqCst);
        if !self.pipe.drain(PATIENCE) {
            // It still stalls on what was sent before; our screen comes with the first frame.
            return Ok(());
        }
        let mut bytes = ENTER.to_vec();
        if self.mouse {
            bytes.extend_from_slice(MOUSE_ON);
        }
        self.pipe.send(bytes)?;
        let _ = self.pipe.drain(PATIENCE);
        Ok(())
    }

    /// Gives the terminal back, within [`PATIENCE`] × 2 even if it does not read.
    pub fn leave(&mut self) {
        if !self.taken {
            return;
        }
        self.taken = false;
        TAKEN.store(false, Ordering::SeqCst);
        if !self.pipe.drain(PATIENCE) {
            // Throw away what nobody reads, so that the last few bytes find room.
            let _ = tcflush(&self.file, QueueSelector::OFlush);
        }
        if self.pipe.is_idle() && self.pipe.send(LEAVE.to_vec()).is_ok() {
            let _ = self.pipe.drain(PATIENCE);
        }
        let _ = disable_raw_mode();
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Is our screen on the terminal? For the panic hook, which has nothing else to ask.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Makes a panic readable: the terminal is given back before the message is printed.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if TAKEN.swap(false, Ordering::SeqCst) {
                let _ = disable_raw_mode();
                let _ = io::stdout().write_all(LEAVE).and_then(|()| io::stdout().flush());
            }
            before(info);
        }));
    });
}
