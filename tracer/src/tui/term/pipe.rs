//! Bytes on their way to a terminal that may not read them.
//!
//! A stalled ssh connection blocks `write` for minutes. So one thread writes, and it is given one
//! frame at a time: while that is under way nothing more is drawn, and what is drawn next is the
//! newest state. The buffer can therefore never grow beyond one frame, and no other thread waits.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

#[derive(Default)]
struct State {
    frame: Option<Vec<u8>>,
    writing: bool,
    closed: bool,
    sent: u64,
    failed: Option<io::ErrorKind>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    idle: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The writer holds the lock only to move values in and out: nothing is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One writer thread with room for one frame.
pub struct Pipe {
    shared: Arc<Shared>,
}

impl Pipe {
    /// Starts the thread, which owns `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            loop {
                let mut state = theirs.lock();
                let frame = loop {
                    if let Some(frame) = state.frame.take() {
                        break frame;
                    }
                    if state.closed {
                        return;
                    }
                    state = theirs.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                };
                state.writing = true;
                drop(state);
                let result = out.write_all(&frame).and_then(|()| out.flush());
                let mut state = theirs.lock();
                state.writing = false;
                match result {
                    Ok(()) => state.sent += frame.len() as u64,
                    Err(error) => state.failed = Some(error.kind()),
                }
                drop(state);
                theirs.changed.notify_all();
                theirs.idle.notify_one();
            }
        })?;
        Ok(Self { shared })
    }

    /// Has the last frame been taken by the terminal?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.frame.is_none() && !state.writing
    }

    /// Hands over a frame; call it when [`is_idle`](Self::is_idle). An empty one is no work.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn send(&self, frame: Vec<u8>) -> io::Result<()> {
        let mut state = self.shared.lock();
        if let Some(kind) = state.failed {
            return Err(kind.into());
        }
        if !frame.is_empty() {
            debug_assert!(state.frame.is_none(), "the frame before is still waiting");
            state.frame = Some(frame);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Returns when a frame has been written since the last call.
    pub async fn written(&self) {
        self.shared.idle.notified().await;
    }

    /// Waits until the terminal has taken everything; `false` if it has not after `limit`.
    #[must_use]
    pub fn drain(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let busy = |state: &mut State| state.frame.is_some() || state.writing;
        let waited = self.shared.changed.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Bytes that the terminal has taken.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Not joined: the thread may be blocked in a write for as long as the line is stalled.
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}
