//! The file as written. Unknown keys are errors.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use tracer_model::alert::Severity;
use tracer_model::guard::GuardConfig;

pub(super) type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Time between two samples, 100ms to 1h. Default: `"1s"`.
    pub(super) interval: Option<Text>,
    /// Mount points to ignore, as patterns. Default: none.
    pub(super) ignore: Vec<String>,
    /// Whether the built-in rules are used. Default: `true`.
    pub(super) builtin_rules: Option<bool>,
    /// Whether events are also printed on standard output. Default: `true`.
    pub(super) stdout: Option<bool>,
    /// A rule. One with the name of a built-in rule changes that one, but only in the keys that
    /// are given ([alerts](../alerts.md#built-in-rules)). Names must be unique.
    pub(super) rule: Vec<Spanned<Rule>>,
    /// Automatic actions ([actions](../actions.md)). Enabling the guard needs a restart.
    pub(super) guard: Option<Spanned<GuardConfig>>,
    /// Sends events to the systemd journal, with `FILLTOP_…` fields.
    pub(super) journald: Vec<Journald>,
    /// Sends events to the local syslog socket, or to a remote daemon.
    pub(super) syslog: Vec<Spanned<Syslog>>,
    /// Sends each event with an HTTP POST.
    pub(super) webhook: Vec<Spanned<Webhook>>,
    /// Sends active alerts to the API v2 of Prometheus' Alertmanager.
    pub(super) alertmanager: Vec<Spanned<Alertmanager>>,
    /// Runs a program for each event, without a shell. The event is in its environment.
    pub(super) exec: Vec<Spanned<Exec>>,
    /// Sends a mail for each event, with the `sendmail` program.
    pub(super) mail: Vec<Spanned<Mail>>,
}

/// A value with a unit, which may also be written as a plain number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    /// With a unit.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
}

impl Number {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
        }
    }
}

/// One `[[rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// Name of the rule, without `/` and control characters. Shown in events, and part of their
    /// `key`.
    pub(super) name: Text,
    /// The condition. Required unless the name is that of a built-in rule.
    pub(super) when: Option<Spanned<When>>,
    /// Patterns of the mount points that the rule applies to. Default: all.
    #[serde(default)]
    pub(super) volumes: Option<Vec<String>>,
    /// `false` removes the rule. Default: `true`.
    pub(super) enabled: Option<bool>,
    /// Threshold of a warning: a time, size, rate, share or number, depending on `when`. A rule
    /// needs `warning`, `critical` or both, except for `full`.
    pub(super) warning: Option<Spanned<Number>>,
    /// Threshold of a critical alert, in the same form.
    pub(super) critical: Option<Spanned<Number>>,
    /// For `dir_size`, `dir_growth` and `drain`: the directory, absolute, as seen from the host's
    /// root. Required there.
    pub(super) path: Option<Text>,
    /// For `writer_rate` and `group_rate`: pattern of the names of processes or groups. Default:
    /// `"*"`.
    pub(super) who: Option<Text>,
    /// For `dir_growth`: the time over which growth is measured, 10s to 31d. Default: `"1h"`.
    pub(super) per: Option<Text>,
    /// For `avail_percent` and `avail_bytes`: only while the volume fills. Default: `false`.
    pub(super) shrinking: Option<Spanned<bool>>,
    /// How far past the threshold the value must be for the alert to resolve, as a share of the
    /// threshold. At most `"100%"` for rules that fire above a threshold. Default: `"10%"`, and
    /// `"100%"` for `time_to_full`.
    pub(super) hysteresis: Option<Spanned<Number>>,
    /// How long the condition must hold before the alert fires. Default: `"0s"`.
    #[serde(rename = "for")]
    pub(super) hold: Option<Text>,
    /// How long the condition must be over before the alert resolves. Default: `"5m"`.
    pub(super) clear_after: Option<Text>,
    /// Interval of reminders while the alert fires, 1s to 3650d, or `"never"`. Default: `"30m"`.
    pub(super) repeat: Option<Text>,
    /// Local times in which warnings are held back, e.g. `"22:00-07:00"`. Critical alerts are
    /// never held back.
    pub(super) quiet: Option<Spanned<Quiet>>,
    /// Names of rules; while one of them fires for the same volume, this rule is silent.
    pub(super) yields_to: Option<Vec<Text>>,
}

/// Quiet hours, as one text or as a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Quiet {
    /// One range of times.
    One(String),
    Several(Vec<String>),
}

/// The conditions of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum When {
    /// Likely time until the volume is full. Fires below a time.
    TimeToFull,
    /// The volume is full. No threshold; always critical.
    Full,
    /// used / (used + avail), as df shows it. Fires above a share.
    UsedPercent,
    /// Space used. Fires above a size.
    UsedBytes,
    /// Available space / size. Fires below a share.
    AvailPercent,
    /// Available space. Fires below a size.
    AvailBytes,
    /// Inodes used / inodes. Fires above a share.
    InodesPercent,
    /// Growth of the volume, smoothed over 10 s. Fires above a rate.
    Growth,
    /// Space of deleted files that are still open. Fires above a size.
    Held,
    /// Writes that failed for lack of space or quota in one sample. Fires above a number.
    NoSpaceErrors,
    /// Writes that failed for any reason in one sample. Fires above a number.
    WriteErrors,
    /// The longest fsync in one sample. Fires above a time.
    FsyncWait,
    /// Time until the space freed by a clean-up was used up again. Fires below a time.
    Refill,
    /// Size of the directory `path`. Fires above a size.
    DirSize,
    /// Growth of the directory `path` within `per`. Fires above a size.
    DirGrowth,
    /// Freed / allocated in the directory `path`, smoothed. Fires below a share.
    Drain,
    /// Bytes written by all processes of one name that matches `who`. Fires above a rate.
    WriterRate,
    /// Bytes written by one group (unit, container) whose name matches `who`. Fires above a rate.
    GroupRate,
}

/// One `[[journald]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journald {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// The journal's socket. Default: `"/run/systemd/journal/socket"`.
    pub(super) socket: Option<String>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}

/// One `[[syslog]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Syslog {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// A socket path, `udp://HOST:PORT` (default port 514) or `tcp://HOST:PORT` (default port
    /// 601). Default: `"/dev/log"`.
    pub(super) to: Option<Text>,
    /// The syslog facility: `user`, `mail`, `daemon`, `auth`, `syslog`, `cron` or `local0` to
    /// `local7`. Default: `"daemon"`.
    pub(super) facility: Option<Text>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}

/// The formats of a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// The event as `filltop watch --json` prints it.
    #[default]
    Json,
    /// A message for an incoming webhook of Slack.
    Slack,
    /// An event of the PagerDuty Events API v2.
    Pagerduty,
    /// A message for an ntfy server, published as JSON.
    Ntfy,
    /// The template `body`.
    Custom,
}

/// One `[[webhook]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// Address, `http://…` or `https://…`. Either this or `url_file` is required.
    pub(super) url: Option<Text>,
    /// A file that contains the address, if that is a secret.
    pub(super) url_file: Option<Text>,
    /// The body of the request. Default: `"json"`.
    #[serde(default)]
    pub(super) format: Format,
    /// For `custom`: the body, a template with fields such as `{summary}` and `{json}`. Required
    /// there.
    pub(super) body: Option<Text>,
    /// For `pagerduty`: a file that contains the integration's routing key. Required there.
    pub(super) routing_key_file: Option<Text>,
    /// For `ntfy`: the topic. Required there.
    pub(super) topic: Option<String>,
    /// HTTP headers that are added to every request. Default: none.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// A file that contains the token for `Authorization: Bearer`.
    pub(super) bearer_file: Option<Text>,
    /// A file with the only CA certificates to trust (PEM). Default: the system's.
    pub(super) ca_file: Option<Text>,
    /// Time limit of one attempt, 100ms to 10m. Default: `"10s"`.
    pub(super) timeout: Option<Text>,
    /// How long delivery of an event is retried before it is dropped, 1s to 7d. Default: `"1h"`.
    pub(super) give_up_after: Option<Text>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}

/// One `[[alertmanager]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alertmanager {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// Address, without the path of the API, e.g. `"http://127.0.0.1:9093"`.
    pub(super) url: Text,
    /// Labels that are added to every alert. Default: none.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// HTTP headers that are added to every request. Default: none.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// A file that contains the token for `Authorization: Bearer`.
    pub(super) bearer_file: Option<Text>,
    /// A file with the only CA certificates to trust (PEM). Default: the system's.
    pub(super) ca_file: Option<Text>,
    /// Time limit of one attempt, 100ms to 10m. Default: `"10s"`.
    pub(super) timeout: Option<Text>,
    /// Interval at which active alerts are sent again, 1s to 1h. Default: `"1m"`.
    pub(super) resend: Option<Text>,
    /// How long delivery of an event is retried before it is dropped, 1s to 7d. Default: `"1h"`.
    pub(super) give_up_after: Option<Text>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}

/// One `[[exec]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// The program with its arguments. The program is an absolute path.
    pub(super) command: Spanned<Vec<String>>,
    /// Time after which the program is killed, 100ms to 10m. Default: `"10s"`.
    pub(super) timeout: Option<Text>,
    /// How long delivery of an event is retried before it is dropped, 1s to 7d. Default: `"1h"`.
    pub(super) give_up_after: Option<Text>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}

/// One `[[mail]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    /// Name of the sink in messages about it. Default: the kind of sink.
    pub(super) name: Option<String>,
    /// Addresses of the recipients.
    pub(super) to: Spanned<Vec<String>>,
    /// Address of the sender. Default: none, so that sendmail chooses it.
    pub(super) from: Option<Text>,
    /// The sendmail program with its arguments; it reads the mail, with its headers, from
    /// standard input. Default: `["/usr/sbin/sendmail", "-t", "-oi"]`.
    pub(super) command: Option<Spanned<Vec<String>>>,
    /// Time after which the program is killed, 100ms to 10m. Default: `"30s"`.
    pub(super) timeout: Option<Text>,
    /// How long delivery of an event is retried before it is dropped, 1s to 7d. Default: `"1h"`.
    pub(super) give_up_after: Option<Text>,
    /// Less severe events are not sent. Default: `"warning"`.
    pub(super) severity: Option<Severity>,
}
