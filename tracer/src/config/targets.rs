//! Sinks as plain data: where alerts go. The module `alerting::sinks` delivers to them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tracer_model::alert::Severity;

use super::template::Template;

/// A sink as the configuration describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SinkConfig {
    /// Unique name, for messages about the sink.
    pub(crate) name: String,
    /// Minimum severity: less severe events are not sent to the sink. The end of an alert that it
    /// got is always sent.
    pub(crate) min_severity: Severity,
    /// An event that could not be delivered for this long is dropped.
    pub(crate) give_up_after: Duration,
    /// The kind of sink, with its target.
    pub(crate) kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SinkKind {
    /// Lines of text, or JSON, on standard output.
    Stdout {
        /// Whether to print JSON.
        json: bool,
    },
    /// The systemd journal, with structured fields.
    Journald(JournaldTarget),
    /// The local system log, or a remote one.
    Syslog(SyslogTarget),
    /// An HTTP POST.
    Webhook(WebhookTarget),
    /// Alertmanager's API v2.
    Alertmanager(AlertmanagerTarget),
    /// A program.
    Exec(ExecTarget),
    /// A message, by sendmail(1).
    Mail(MailTarget),
}

impl SinkKind {
    /// Whether it starts programs, which need the privileges that filltop itself drops.
    #[must_use]
    pub(crate) const fn runs_programs(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Mail(_))
    }
}

/// The journal's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournaldTarget {
    /// Path of journald's socket, or of another one with the same protocol.
    pub(crate) socket: PathBuf,
}

/// The address of a system log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SyslogAddress {
    /// A Unix socket on this host.
    Unix(PathBuf),
    /// UDP, `host:port`.
    Udp(String),
    /// TCP, `host:port`.
    Tcp(String),
}

/// Destination and facility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyslogTarget {
    /// The destination.
    pub(crate) to: SyslogAddress,
    /// Facility number of RFC 5424, 0..=23.
    pub(crate) facility: u8,
}

/// Destination and format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookTarget {
    /// The destination.
    pub(crate) endpoint: Endpoint,
    /// The format of the body.
    pub(crate) template: Template,
}

/// Destination, labels and resend interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertmanagerTarget {
    /// Alertmanager's base URL, without `/api/v2`.
    pub(crate) endpoint: Endpoint,
    /// Labels added to each alert.
    pub(crate) labels: BTreeMap<String, String>,
    /// Interval at which firing alerts are sent again.
    pub(crate) resend: Duration,
}

/// A program to run for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecTarget {
    /// The program and its arguments; never empty.
    pub(crate) command: Vec<String>,
    /// After this time the program is killed, with its process group.
    pub(crate) timeout: Duration,
}

/// E-mail messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MailTarget {
    /// Recipient addresses.
    pub(crate) to: Vec<String>,
    /// Sender address; `None`: sendmail's default.
    pub(crate) from: Option<String>,
    /// The program and its arguments; never empty. It reads the message, with its headers, from
    /// standard input.
    pub(crate) command: Vec<String>,
    /// After this time the program is killed, with its process group.
    pub(crate) timeout: Duration,
}

/// An HTTP endpoint, and how to connect to it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `http://` or `https://`. May hold a secret: it is never printed.
    pub(crate) url: String,
    /// Headers sent with each request. May also hold secrets.
    pub(crate) headers: BTreeMap<String, String>,
    /// PEM file of the only certificate authorities to trust; `None`: those of the system.
    pub(crate) ca_file: Option<PathBuf>,
    /// Time-out of one request, from name resolution to the response.
    pub(crate) timeout: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.host()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The part of the URL that may be printed; its path may be a secret.
    pub(crate) fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }
}
