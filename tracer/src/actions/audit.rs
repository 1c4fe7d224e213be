//! The audit line: who acts on what and why, written before the action.
//!
//! It goes to the journal in its native protocol (systemd.journal-fields(7)) if the socket exists, to
//! standard output (written by the caller), and to a file if one was requested.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use tracer_host::journald::{self, Entry};
use tracer_model::action::Action;
use tracer_model::action::event::StopEvent;
use tracer_model::sanitize;

/// The audit record of one action.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Audit {
    /// Version of the JSON form.
    pub schema: u32,
    /// [`StopEvent::Action`].
    pub event: StopEvent,
    /// Time of the action.
    pub time: Timestamp,
    /// Id for `filltop resume`; `None` if the action cannot be undone.
    pub id: Option<String>,
    /// The action, or the end of one.
    pub what: AuditedAction,
    /// Name of the target.
    pub target: String,
    /// Pids of the target's processes.
    pub pids: Vec<u32>,
    /// The method, e.g. the freezer of a cgroup.
    pub by: Option<String>,
    /// Who requested the action.
    pub who: String,
    /// Why it was requested.
    pub reason: String,
    /// Whether this is a dry run, which stops before the last system call.
    pub dry_run: bool,
}

/// What an audit line reports: `freeze`, `throttle`, …, or `end of freeze`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub(crate) enum AuditedAction {
    /// The action is about to be carried out.
    Start(Action),
    /// The suspension has ended.
    End(Action),
}

impl fmt::Display for AuditedAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(action) => f.write_str(action.name()),
            Self::End(action) => write!(f, "end of {}", action.name()),
        }
    }
}

impl From<AuditedAction> for String {
    fn from(action: AuditedAction) -> Self {
        action.to_string()
    }
}

/// Returns the user who runs this process: the user behind sudo, otherwise the real uid.
#[must_use]
pub(crate) fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    match std::env::var("SUDO_USER") {
        Ok(user) => format!("{} (uid {uid}, through sudo)", sanitize::display(&user)),
        Err(_) => format!("uid {uid}"),
    }
}

impl Audit {
    /// Creates the record of an action, with the current time.
    #[must_use]
    pub(crate) fn new(what: Action, target: &str, who: String, reason: &str) -> Self {
        Self {
            schema: tracer_model::snapshot::SCHEMA,
            event: StopEvent::Action,
            time: tracer_host::clock::now(),
            id: None,
            what: AuditedAction::Start(what),
            target: target.to_owned(),
            pids: Vec::new(),
            by: None,
            who,
            reason: reason.to_owned(),
            dry_run: false,
        }
    }

    /// Creates the record of the end of a suspension, with the current time.
    #[must_use]
    pub(crate) fn end(what: Action, id: &str, target: &str, who: &str, reason: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            what: AuditedAction::End(what),
            ..Self::new(what, target, who.to_owned(), reason)
        }
    }

    /// Returns the line, with hostile names made safe to print.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        let mut line =
            format!("filltop action: {} {:?}", self.what, sanitize::display(&self.target));
        if let Some(id) = &self.id {
            let _ = write!(line, " id={id}");
        }
        let pids: Vec<String> = self.pids.iter().take(16).map(u32::to_string).collect();
        let more = self.pids.len().saturating_sub(pids.len());
        let _ = write!(line, " pids={}", pids.join(","));
        if more > 0 {
            let _ = write!(line, ",+{more}");
        }
        if let Some(by) = &self.by {
            let _ = write!(line, " by={:?}", sanitize::display(by));
        }
        let dry = if self.dry_run { " (dry run)" } else { "" };
        let _ =
            write!(line, " requested by {}: {}{dry}", self.who, sanitize::display(&self.reason));
        line
    }

    /// Writes the line to the journal, and to `log` if given. The caller prints it to standard output.
    ///
    /// # Errors
    /// If `log` cannot be written; the action must not be carried out then.
    pub(crate) fn write(&self, log: Option<&Path>) -> io::Result<()> {
        let line = self.line();
        // The journal is optional: a machine without one must not prevent the action.
        let _ = journal(Path::new(journald::SOCKET), self, &line);
        if let Some(log) = log {
            let mut file = OpenOptions::new().append(true).create(true).open(log)?;
            writeln!(file, "{} {line}", self.time)?;
        }
        Ok(())
    }
}

/// Sends the line to the journal, without waiting for it.
fn journal(socket: &Path, audit: &Audit, line: &str) -> io::Result<()> {
    const WARNING: u8 = 4;
    let mut entry = Entry::new(line, WARNING);
    entry.field("FILLTOP_ACTION", &audit.what.to_string());
    entry.field("FILLTOP_ACTION_ID", audit.id.as_deref().unwrap_or_default());
    entry.field("FILLTOP_DRY_RUN", if audit.dry_run { "1" } else { "0" });
    entry.send(socket, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn audit() -> Audit {
        Audit {
            id: Some("freeze-3f2a".to_owned()),
            pids: (1..=20).collect(),
            by: Some("SIGSTOP".to_owned()),
            ..Audit::new(Action::Freeze, "a\nb\u{1b}[2J", "uid 0".to_owned(), "asked")
        }
    }

    #[test]
    fn a_hostile_name_stays_on_the_line() {
        let line = audit().line();
        assert!(!line.contains(['\n', '\u{1b}']), "{line:?}");
        assert!(line.contains("id=freeze-3f2a") && line.contains("16,+4"), "{line}");
    }

    #[test]
    fn the_line_goes_to_the_journal_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let audit = audit();
        journal(&path, &audit, &audit.line()).unwrap();
        let mut buffer = [0; 2048];
        let length = receiver.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("MESSAGE=filltop action: freeze"), "{text}");
        assert!(text.contains("\nFILLTOP_ACTION_ID=freeze-3f2a\n"), "{text}");
        let log = dir.path().join("log");
        audit.write(Some(&log)).unwrap();
        audit.write(Some(&log)).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
        assert!(audit.write(Some(Path::new("/nonexistent/log"))).is_err());
    }
}
