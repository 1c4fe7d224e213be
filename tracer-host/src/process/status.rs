//! /proc/PID/status (proc_pid_status(5)).

use std::fs;

/// The fields of /proc/PID/status. Without a file, all are unknown.
#[derive(Debug, Default)]
pub struct Status(String);

impl Status {
    /// Reads /proc/PID/status; `None` if the process does not exist.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        Some(Self::from_bytes(&fs::read(format!("/proc/{pid}/status")).ok()?))
    }

    /// The name of the process may be any bytes except a newline, which the kernel escapes.
    fn from_bytes(status: &[u8]) -> Self {
        Self(String::from_utf8_lossy(status).into_owned())
    }

    /// Returns the real user id.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.field("Uid:")?.split_whitespace().next()?.parse().ok()
    }

    /// Whether the process is the first of a pid namespace below filltop's own.
    #[must_use]
    pub fn is_namespace_init(&self) -> bool {
        let pids: Vec<&str> = self.field("NSpid:").unwrap_or_default().split_whitespace().collect();
        pids.len() > 1 && pids.last() == Some(&"1")
    }

    /// Returns the pid of the process that traces this one with ptrace(2); `None` if none does.
    #[must_use]
    pub fn tracer_pid(&self) -> Option<u32> {
        self.field("TracerPid:")?.parse().ok().filter(|pid| *pid != 0)
    }

    /// Returns the mask of ignored signals: bit n − 1 is signal n.
    #[must_use]
    pub fn ignored_signals(&self) -> Option<u64> {
        self.mask("SigIgn:")
    }

    /// Returns the mask of caught signals: bit n − 1 is signal n.
    #[must_use]
    pub fn caught_signals(&self) -> Option<u64> {
        self.mask("SigCgt:")
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    fn mask(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_hide_no_field() {
        let status = Status::from_bytes(
            b"Name:\tUid: 7\xff\nUid:\t1000\t0\t0\t0\nTracerPid:\t42\nNSpid:\t900\t1\n\
              SigIgn:\t0000000000010000\nSigCgt:\t0000000000000001\n",
        );
        assert_eq!((status.uid(), status.tracer_pid()), (Some(1000), Some(42)));
        assert!(status.is_namespace_init());
        assert_eq!((status.ignored_signals(), status.caught_signals()), (Some(1 << 16), Some(1)));
        let status = Status::from_bytes(b"TracerPid:\t0\nNSpid:\t1\n");
        assert_eq!((status.uid(), status.tracer_pid()), (None, None));
        assert!(!status.is_namespace_init());
        let own = Status::read(std::process::id()).unwrap();
        assert_eq!(own.uid(), Some(rustix::process::getuid().as_raw()));
    }
}
