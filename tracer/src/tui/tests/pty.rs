//! Tests on a real terminal device: output, a terminal that does not read, and restoring it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use futures_core::Stream;
use proptest::prelude::*;
use ratatui::backend::Backend as _;
use ratatui::style::{Color, Modifier, Style};
use rustix::process::{Signal, getpid, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::tui::run::{Options, Screen};
use crate::tui::term::{Ansi, FrameWriter, Tty, blank_half_covered};
use tracer_model::fixtures;

/// A signal ends every screen of the process: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Both ends of a pseudo-terminal of this size.
fn pty(columns: u16, rows: u16) -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    (master, slave)
}

struct Events(mpsc::Receiver<Event>);

impl Stream for Events {
    type Item = io::Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

fn key(c: char) -> Event {
    Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Snapshots that differ in every number.
fn numbered(i: u32) -> Arc<Snapshot> {
    let mut snapshot = fixtures::busy();
    snapshot.taken_at = jiff::Timestamp::from_second(fixtures::NOW + i64::from(i)).unwrap();
    snapshot.writers = (0..60)
        .map(|n| fixtures::writer(1000 + n, "worker", "/srv/store", u64::from(i * 7919 + n) << 14))
        .collect();
    Arc::new(snapshot)
}

#[test]
fn a_terminal_that_does_not_read_blocks_nothing() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (master, slave) = pty(250, 80);
    let options = Options::default();
    runtime().block_on(async {
        let tty = Tty::open(slave, false).unwrap();
        let app = App::new(UiState::default(), Limits::default());
        let screen = Screen::new(tty, app).unwrap();
        let (keys, events) = mpsc::channel(8);
        let (sender, snapshots) = watch::channel(None);
        let collector = async {
            // `master` is never read: after some 4 KiB every write blocks.
            let mut slowest = Duration::ZERO;
            let mut last = numbered(0);
            for i in 1..=200 {
                let before = Instant::now();
                last = numbered(i);
                sender.send_replace(Some(Arc::clone(&last)));
                tokio::time::sleep(Duration::from_millis(2)).await;
                slowest = slowest.max(before.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            // One reference here, one in the channel, and at least one in the history.
            assert!(Arc::strong_count(&last) > 2, "the event loop is blocked");
            assert!(slowest < Duration::from_millis(500), "{slowest:?}");
            let asked = Instant::now();
            keys.send(key('q')).await.unwrap();
            asked
        };
        let (shown, asked) =
            tokio::join!(screen.show(Events(events), snapshots, &options), collector);
        shown.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
    drop(master);
}

#[test]
fn at_most_one_frame_is_queued() {
    let (master, slave) = pty(80, 24);
    let writer = FrameWriter::new(slave).unwrap();
    writer.send(vec![b'x'; 1 << 20]).unwrap();
    assert!(!writer.drain(Duration::from_millis(100)), "a pty does not buffer a megabyte");
    assert!(!writer.is_idle());
    let reader = std::thread::spawn(move || {
        let mut master = File::from(master);
        let mut buffer = [0; 1 << 16];
        let mut read = 0;
        while read < 1 << 20 {
            read += master.read(&mut buffer).unwrap();
        }
        (read, master)
    });
    assert!(writer.drain(Duration::from_secs(10)));
    assert_eq!(writer.sent(), 1 << 20);
    let (read, master) = reader.join().unwrap();
    assert_eq!(read, 1 << 20);
    drop(master);
    // The other end is closed: the next frame fails without blocking.
    writer.send(b"x".to_vec()).unwrap();
    let _ = writer.drain(Duration::from_secs(1));
    assert!(writer.send(b"x".to_vec()).is_err());
}

/// Shows one Snapshot, sends these events, calls `end`, and returns the terminal's output.
fn session(shown: &[Event], end: impl Fn(&mpsc::Sender<Event>)) -> String {
    let (master, slave) = pty(80, 24);
    let observer = slave.try_clone().unwrap();
    let before = tcgetattr(&observer).unwrap();
    assert!(before.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON));
    let reader = std::thread::spawn(move || {
        let mut master = File::from(master);
        let mut all = vec![];
        let mut buffer = [0; 4096];
        // Reading ends with EIO when the last slave is closed.
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    });
    let options = Options::default();
    runtime().block_on(async {
        let tty = Tty::open(slave, true).unwrap();
        let raw = tcgetattr(&observer).unwrap();
        assert!(!raw.local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON));
        let screen = Screen::new(tty, App::new(UiState::default(), Limits::default())).unwrap();
        let (keys, events) = mpsc::channel(8);
        let (sender, snapshots) = watch::channel(None);
        let driver = async {
            sender.send_replace(Some(Arc::new(fixtures::busy())));
            for event in shown {
                tokio::time::sleep(Duration::from_millis(100)).await;
                keys.send(event.clone()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            end(&keys);
            tokio::time::sleep(Duration::from_millis(100)).await;
            keys
        };
        let (ended, _keys) = tokio::join!(screen.show(Events(events), snapshots, &options), driver);
        ended.unwrap();
    });
    let after = tcgetattr(&observer).unwrap();
    assert_eq!(after.local_modes, before.local_modes, "the terminal is restored");
    assert_eq!(after.input_modes, before.input_modes);
    drop(observer);
    String::from_utf8(reader.join().unwrap()).unwrap()
}

#[test]
fn the_terminal_is_restored() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = session(&[], |keys| keys.try_send(key('q')).unwrap());
    assert!(sent.starts_with("\x1b[?1049h\x1b[?1000h\x1b[?1006h"), "{sent:?}");
    assert!(sent.contains("4 min (3–6)"), "{sent:?}");
    assert!(
        sent.ends_with("\x1b[?1006l\x1b[?1000l\x1b[m\x1b[H\x1b[J\x1b[?25h\x1b[?1049l"),
        "{sent:?}"
    );
}

#[test]
fn a_signal_ends_the_screen_cleanly() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let sent = session(&[], |_| kill_process(getpid(), signal).unwrap());
        assert!(sent.ends_with("\x1b[?1049l"), "{sent:?}");
    }
}

#[test]
fn a_resize_repaints() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = session(&[Event::Resize(20, 5)], |keys| keys.try_send(key('q')).unwrap());
    let (_, after) = sent.split_once("(30x8 needed)").unwrap();
    assert!(after.ends_with("\x1b[?1049l"), "{sent:?}");
}

/// Set in the environment of the process that is to panic.
const PANIC: &str = "FILLTOP_TEST_PANIC";

/// Runs the test binary again on a terminal of its own, where it sets raw mode and panics.
#[test]
fn a_panic_restores_the_terminal_and_is_readable() {
    if std::env::var_os(PANIC).is_some() {
        let mut tty = Tty::stdout(true).unwrap();
        tty.send(b"our screen".to_vec()).unwrap();
        assert!(tty.writer.drain(Duration::from_secs(1)));
        panic!("as a test");
    }
    let (master, slave) = pty(80, 24);
    let before = tcgetattr(&slave).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut master, mut all, mut buffer) = (File::from(master), vec![], [0; 4096]);
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    });
    let name = "tui::tests::pty::a_panic_restores_the_terminal_and_is_readable";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(PANIC, "1")
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before.local_modes);
    drop(slave);
    let sent = String::from_utf8(reader.join().unwrap()).unwrap();
    let (screen, after) = sent.split_once("\x1b[?1049l").unwrap();
    assert!(screen.contains("our screen") && screen.contains("\x1b[?1006l"), "{sent:?}");
    assert!(after.contains("as a test"), "the message is on the shell's screen: {sent:?}");
}

/// An emulator of the terminal features that [`Ansi`] uses.
struct Emulator {
    size: Size,
    cells: Vec<String>,
    x: u16,
    y: u16,
}

impl Emulator {
    fn new(size: Size) -> Self {
        let cells = vec![" ".to_owned(); usize::from(size.width) * usize::from(size.height)];
        Self { size, cells, x: 0, y: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.x = 0,
                '\n' => self.y += 1,
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut code = String::new();
                    let letter = loop {
                        match chars.next().unwrap() {
                            c @ ('0'..='9' | ';' | '?') => code.push(c),
                            letter => break letter,
                        }
                    };
                    self.control(&code, letter);
                }
                c => self.print(c),
            }
        }
    }

    fn control(&mut self, code: &str, letter: char) {
        let mut numbers = code.split(';').map(|n| n.parse().unwrap_or(1));
        let mut number = || numbers.next().unwrap_or(1);
        match letter {
            'H' => (self.y, self.x) = (number() - 1, number() - 1),
            'C' => self.x += number(),
            'D' => self.x -= number(),
            'B' => self.y += number(),
            'J' => self.cells.fill(" ".to_owned()),
            'm' | 'h' | 'l' => {}
            other => panic!("CSI {code} {other}"),
        }
    }

    fn print(&mut self, c: char) {
        let width = tracer_model::sanitize::width(c.encode_utf8(&mut [0; 4])) as u16;
        assert!(self.x + width.max(1) <= self.size.width + u16::from(width == 0), "past the edge");
        let at = usize::from(self.y) * usize::from(self.size.width) + usize::from(self.x);
        if width == 0 {
            self.cells[at - 1].push(c);
            return;
        }
        self.cells[at] = c.to_string();
        if width == 2 {
            self.cells[at + 1] = " ".to_owned();
        }
        self.x += width;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// After any sequence of frames, the terminal shows the last one.
    #[test]
    fn the_bytes_sent_show_the_frame(
        frames in prop::collection::vec(
            prop::collection::vec((0u16..30, 0u16..6, "[a-c日 é]{0,12}", 0u8..4), 0..8),
            1..6,
        ),
    ) {
        let size = Size::new(30, 6);
        let mut terminal = Terminal::new(Ansi::new(size)).unwrap();
        let mut emulator = Emulator::new(size);
        for (i, frame) in frames.iter().enumerate() {
            if i == 3 {
                terminal.clear().unwrap();
            }
            let mut painted = Buffer::default();
            terminal
                .draw(|screen| {
                    for (x, y, text, look) in frame {
                        let style = match look {
                            0 => Style::new(),
                            1 => Style::new().fg(Color::Red),
                            2 => Style::new().add_modifier(Modifier::BOLD),
                            _ => Style::new().fg(Color::Indexed(32)).add_modifier(Modifier::REVERSED),
                        };
                        screen.buffer_mut().set_string(*x, *y, text, style);
                    }
                    blank_half_covered(screen.buffer_mut());
                    painted = screen.buffer_mut().clone();
                })
                .unwrap();
            emulator.feed(&terminal.backend_mut().take());
            let mut shown = Buffer::empty(painted.area);
            for (cell, symbol) in shown.content.iter_mut().zip(&emulator.cells) {
                cell.set_symbol(symbol);
            }
            prop_assert_eq!(text(&shown), text(&painted));
        }
        prop_assert_eq!(terminal.backend().size().unwrap(), size);
    }
}
