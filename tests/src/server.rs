//! A program that runs in the background of a test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Cgroup;

/// A process that leads a process group of its own; the group is killed on drop.
pub struct Server(pub Child);

impl Server {
    /// Starts a program and discards its output.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        Self::spawn(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Starts a command as it is, without standard input.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        Ok(Self(command.stdin(Stdio::null()).process_group(0).spawn()?))
    }

    /// The same, in a control group from its first instruction on.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn spawn_in(group: &Cgroup, command: &Command) -> anyhow::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.joined_by());
        shell.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            shell.env(key, value.unwrap_or_default());
        }
        Self::spawn(shell.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}
