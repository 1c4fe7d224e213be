//! The standard output sink: one line per event.

use std::io::{self, Write};

use tracer_model::alert::Event;

use super::{Deliver, Failure};

pub(super) struct Stdout<W> {
    out: W,
    json: bool,
}

impl Stdout<io::Stdout> {
    pub(super) fn new(json: bool) -> Self {
        Self { out: io::stdout(), json }
    }
}

impl<W: Write + Send> Deliver for Stdout<W> {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        let mut line = if self.json { super::fields::json(event) } else { event_line(event) };
        line.push('\n');
        let done = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        match done {
            Ok(()) => Ok(()),
            // The pipe's reader or the terminal has gone away.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
                Err(Failure::Closed)
            }
            // The line may be half written: do not write it again.
            Err(error) => Err(Failure::Never(format!("standard output: {error}"))),
        }
    }
}

/// Formats an event as text:
/// `2026-11-21T03:12:07Z CRITICAL firing time-to-full: /srv will be full in 4 min: …`.
pub(crate) fn event_line(event: &Event) -> String {
    let severity =
        if event.resolved { "OK".to_owned() } else { event.severity.name().to_uppercase() };
    let mut line = format!(
        "{:.0} {severity} {} {}: {}",
        event.time,
        event.event.name(),
        event.rule,
        event.summary
    );
    if let Some(suggestion) = &event.suggestion {
        line.push_str("  -> ");
        line.push_str(&suggestion.command);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::sinks::tests::event;

    #[test]
    fn one_event_is_one_line() {
        for json in [false, true] {
            let mut lines = Stdout { out: Vec::new(), json };
            lines.deliver(&event()).unwrap();
            let text = String::from_utf8(lines.out).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(text.ends_with('\n') && text.contains("minio"), "{text}");
        }
    }

    #[test]
    fn a_closed_reader_is_not_a_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EPIPE))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Stdout { out: Gone, json: false };
        assert_eq!(lines.deliver(&event()), Err(Failure::Closed));
    }
}
