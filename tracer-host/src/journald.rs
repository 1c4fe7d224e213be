//! Writes entries to the journal in its native protocol (systemd's docs/JOURNAL_NATIVE_PROTOCOL.md):
//! one datagram of fields per entry.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// journald's socket.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// A journal entry: fields with their values, encoded.
#[derive(Debug, Default)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// Starts an entry of filltop. `priority` is a syslog severity (syslog(3)).
    #[must_use]
    pub fn new(message: &str, priority: u8) -> Self {
        let mut entry = Self::default();
        entry.field("MESSAGE", message);
        entry.field("PRIORITY", &priority.to_string());
        entry.field("SYSLOG_IDENTIFIER", "filltop");
        entry
    }

    /// Adds a field. The value may contain anything: one with a newline is sent with its length, so
    /// that it cannot add a field of its own.
    pub fn field(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }

    /// Sends the entry. `timeout`: how long to wait for space in the socket; without one, an entry
    /// for which there is no space is not sent.
    ///
    /// # Errors
    /// EMSGSIZE if the entry is too large for a datagram, and other errors of sendto(2).
    pub fn send(&self, socket: &Path, timeout: Option<Duration>) -> io::Result<()> {
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(timeout.is_none())?;
        sender.set_write_timeout(timeout)?;
        sender.send_to(&self.0, socket).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_in_a_value_starts_no_new_field() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut entry = Entry::new("full", 4);
        assert!(entry.send(&socket, None).is_err(), "there is no journal");
        let receiver = UnixDatagram::bind(&socket).unwrap();
        entry.field("FILLTOP_DIRECTORY", "/srv/a\nPRIORITY=0");
        entry.send(&socket, Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 512];
        let length = receiver.recv(&mut buffer).unwrap();
        let expected = [
            b"MESSAGE=full\nPRIORITY=4\nSYSLOG_IDENTIFIER=filltop\nFILLTOP_DIRECTORY\n".as_slice(),
            &17u64.to_le_bytes(),
            b"/srv/a\nPRIORITY=0\n",
        ];
        assert_eq!(buffer[..length], expected.concat());
    }
}
