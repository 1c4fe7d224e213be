//! Starts the sinks' threads. Those that run programs (a script, sendmail) must not lose the
//! privileges that the tracer gives up once it is attached: capabilities and `no_new_privs` belong
//! to a thread and are handed down to those that it starts. So this thread is started before, and
//! all others by it.

use std::sync::mpsc::{Sender, channel};
use std::{io, thread};

use tracer_kernel::capabilities;

type Work = Box<dyn FnOnce() + Send>;
type Job = (String, Work, Sender<io::Result<thread::JoinHandle<()>>>);

/// See the module.
pub struct Spawner {
    jobs: Sender<Job>,
    privileged: bool,
}

impl Spawner {
    /// Starts it. Unless `privileged`, it gives up what the tracer gives up; else what a unit gave for the start
    /// alone.
    ///
    /// # Errors
    /// If there can be no more threads, or privileges cannot be given up.
    pub fn start(privileged: bool) -> io::Result<Self> {
        let (jobs, taken) = channel::<Job>();
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
            for (name, work, answer) in taken {
                // The kernel shows 15 bytes of it.
                let started = thread::Builder::new().name(name).spawn(work);
                let _ = answer.send(started);
            }
        })?;
        is_ready.recv().map_err(|_| io::Error::other("its thread has ended"))??;
        Ok(Self { jobs, privileged })
    }

    /// Do its threads have the privileges that filltop was started with?
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    pub(super) fn run(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let gone = |_| io::Error::other("the thread that starts them has ended");
        let (answer, answered) = channel();
        // A name with a NUL would be refused.
        let name = name.replace('\0', "?");
        self.jobs.send((name, Box::new(work), answer)).map_err(|_| gone(()))?;
        answered.recv().map_err(|_| gone(()))?
    }
}
