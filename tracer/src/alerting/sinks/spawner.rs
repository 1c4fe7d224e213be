//! Starts the sinks' threads. Sinks that run programs (a script, sendmail) must keep the privileges
//! that the tracer drops once it is attached. Capabilities and `no_new_privs` belong to a thread and
//! are inherited by the threads that it starts. So this thread is started before, and it starts
//! all others.

use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use tracer_kernel::capabilities;

type Work = Box<dyn FnOnce() + Send>;
/// The name of a thread, its work, and where to send its handle.
type Job = (String, Work, Sender<io::Result<thread::JoinHandle<()>>>);

/// Handle of the thread that starts the sinks' threads; see the module.
pub(crate) struct Spawner {
    jobs: Sender<Job>,
}

impl Spawner {
    /// Starts the thread. Unless `privileged`, it drops what the tracer drops; otherwise only the
    /// capabilities that a unit granted for startup alone.
    ///
    /// # Errors
    /// If the thread cannot be started, or privileges cannot be dropped.
    pub(crate) fn start(privileged: bool) -> io::Result<Self> {
        let (jobs, queued) = channel::<Job>();
        let (ready, is_ready) = channel();
        thread::Builder::new().name("sinks".to_owned()).spawn(move || {
            let dropped = if privileged {
                capabilities::drop_startup_capabilities()
            } else {
                capabilities::drop_capabilities()
            };
            let failed = dropped.is_err();
            let _ = ready.send(dropped);
            if failed {
                return;
            }
            for (name, work, answer) in queued {
                // The kernel shows 15 bytes of it.
                let started = thread::Builder::new().name(name).spawn(work);
                let _ = answer.send(started);
            }
        })?;
        is_ready.recv().map_err(|_| io::Error::other("the spawner thread has ended"))??;
        Ok(Self { jobs })
    }

    pub(super) fn run(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let ended = || io::Error::other("the spawner thread has ended");
        let (answer, answered) = channel();
        // A thread name cannot contain a NUL.
        let name = name.replace('\0', "?");
        self.jobs.send((name, Box::new(work), answer)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}
