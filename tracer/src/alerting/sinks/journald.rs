//! The journal sink. If an entry is too large for a datagram, its JSON field is omitted; all others
//! still arrive.

use std::path::PathBuf;
use std::time::Duration;

use tracer_host::journald::Entry;
use tracer_model::alert::{Event, Severity};

use super::{Deliver, Failure, fields};
use crate::config::JournaldTarget;

/// Message id of all events of filltop, for `journalctl MESSAGE_ID=`.
const MESSAGE_ID: &str = "6d0f5c1f3b3f4f0f9a6c5d0a8f11f107";
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Journald {
    socket: PathBuf,
}

impl Journald {
    pub(super) fn new(target: &JournaldTarget) -> Self {
        Self { socket: target.socket.clone() }
    }
}

impl Deliver for Journald {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        let fail = |error| Failure::Retry(format!("{}: {error}", self.socket.display()));
        let send = |with_json| entry(event, with_json).send(&self.socket, Some(TIMEOUT));
        match send(true) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => send(false).map_err(fail),
            other => other.map_err(fail),
        }
    }
}

/// The syslog severity of an event.
pub(super) fn priority(event: &Event) -> u8 {
    match (event.resolved, event.severity) {
        (true, _) => 5,
        (_, Severity::Critical) => 2,
        (_, Severity::Warning) => 4,
    }
}

fn entry(event: &Event, with_json: bool) -> Entry {
    let mut entry = Entry::new(&format!("{}: {}", event.rule, event.summary), priority(event));
    entry.field("MESSAGE_ID", MESSAGE_ID);
    for (name, value) in fields::of(event) {
        if with_json || name != "FILLTOP_JSON" {
            entry.field(name, &value);
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::alerting::sinks::tests::event;

    #[test]
    fn a_newline_in_a_name_cannot_add_a_field() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixDatagram::bind(&socket).unwrap();
        let event = Event { directory: Some("/srv/a\nPRIORITY=0".to_owned()), ..event() };
        entry(&event, false).send(&socket, Some(TIMEOUT)).unwrap();
        let mut text = vec![0; 1 << 16];
        let length = listener.recv(&mut text).unwrap();
        let text = &text[..length];
        let wanted = [b"FILLTOP_DIRECTORY\n".as_slice(), &17u64.to_le_bytes()].concat();
        let at = text.windows(wanted.len()).position(|part| part == wanted).unwrap();
        assert_eq!(&text[at + wanted.len()..][..18], b"/srv/a\nPRIORITY=0\n");
    }

    #[test]
    fn fields_arrive_and_a_missing_socket_is_retried() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut journald = Journald::new(&JournaldTarget { socket: socket.clone() });
        assert!(matches!(journald.deliver(&event()), Err(Failure::Retry(_))));
        let listener = UnixDatagram::bind(&socket).unwrap();
        journald.deliver(&event()).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let length = listener.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        for wanted in
            ["PRIORITY=2\n", "FILLTOP_RULE=time-to-full\n", "FILLTOP_CULPRIT_COMM=minio\n"]
        {
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn an_oversized_entry_is_sent_without_its_json() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixDatagram::bind(&socket).unwrap();
        let mut large = event();
        large.culprits[0].cmdline = Some("x".repeat(300_000));
        Journald::new(&JournaldTarget { socket }).deliver(&large).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let length = listener.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.contains("MESSAGE=") && !text.contains("FILLTOP_JSON"), "{length} bytes");
    }
}
