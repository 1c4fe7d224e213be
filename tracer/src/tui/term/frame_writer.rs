//! Writes frames to a terminal that may not read them.
//!
//! A stalled ssh connection blocks `write` for minutes. Therefore a separate thread writes, one
//! frame at a time. Nothing is drawn while a frame is being written, and the next frame shows the
//! newest state. So the buffer never grows beyond one frame, and no other thread waits.

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
        // Ignore poisoning: the lock is held only to move values in and out, so the state is always
        // consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer thread with a buffer of one frame.
pub struct FrameWriter {
    shared: Arc<Shared>,
}

impl FrameWriter {
    /// Starts the thread, which owns `out`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let shared_with_thread = Arc::clone(&shared);
        thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            loop {
                let mut state = shared_with_thread.lock();
                let frame = loop {
                    if let Some(frame) = state.frame.take() {
                        break frame;
                    }
                    if state.closed {
                        return;
                    }
                    state = shared_with_thread
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                };
                state.writing = true;
                drop(state);
                let result = out.write_all(&frame).and_then(|()| out.flush());
                let mut state = shared_with_thread.lock();
                state.writing = false;
                match result {
                    Ok(()) => state.sent += frame.len() as u64,
                    Err(error) => state.failed = Some(error.kind()),
                }
                drop(state);
                shared_with_thread.changed.notify_all();
                shared_with_thread.idle.notify_one();
            }
        })?;
        Ok(Self { shared })
    }

    /// Whether the last frame has been written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.frame.is_none() && !state.writing
    }

    /// Queues a frame; call this only when [`is_idle`](Self::is_idle). An empty frame is ignored.
    ///
    /// # Errors
    /// If the terminal is closed.
    pub fn send(&self, frame: Vec<u8>) -> io::Result<()> {
        let mut state = self.shared.lock();
        if let Some(kind) = state.failed {
            return Err(kind.into());
        }
        if !frame.is_empty() {
            debug_assert!(state.frame.is_none(), "the previous frame is still queued");
            state.frame = Some(frame);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Waits until a frame has been written since the last call.
    pub async fn written(&self) {
        self.shared.idle.notified().await;
    }

    /// Waits until everything is written; returns `false` if that takes longer than `limit`.
    #[must_use]
    pub fn drain(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let busy = |state: &mut State| state.frame.is_some() || state.writing;
        let waited = self.shared.changed.wait_timeout_while(state, limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Bytes written so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        // Not joined: the thread may be blocked in a write for as long as the line is stalled.
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}
