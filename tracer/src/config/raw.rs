//! The file as written. Unknown keys are errors.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use tracer_model::guard::GuardConfig;

pub(super) type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) interval: Option<Text>,
    pub(super) ignore: Vec<String>,
    pub(super) builtin_rules: Option<bool>,
    pub(super) stdout: Option<bool>,
    pub(super) rule: Vec<Spanned<Rule>>,
    pub(super) guard: Option<Spanned<GuardConfig>>,
    pub(super) journald: Vec<Journald>,
    pub(super) syslog: Vec<Spanned<Syslog>>,
    pub(super) webhook: Vec<Spanned<Webhook>>,
    pub(super) alertmanager: Vec<Spanned<Alertmanager>>,
    pub(super) exec: Vec<Spanned<Exec>>,
    pub(super) mail: Vec<Spanned<Mail>>,
}

/// A value with a unit, which may also be written as a plain number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Text(String),
    Integer(i64),
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Text,
    pub(super) when: Option<Spanned<When>>,
    #[serde(default)]
    pub(super) volumes: Option<Vec<String>>,
    pub(super) enabled: Option<bool>,
    pub(super) warning: Option<Spanned<Number>>,
    pub(super) critical: Option<Spanned<Number>>,
    pub(super) path: Option<Text>,
    pub(super) who: Option<Text>,
    pub(super) per: Option<Text>,
    pub(super) shrinking: Option<Spanned<bool>>,
    pub(super) hysteresis: Option<Spanned<Number>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Text>,
    pub(super) clear_after: Option<Text>,
    pub(super) repeat: Option<Text>,
    pub(super) quiet: Option<Spanned<Quiet>>,
    pub(super) yields_to: Option<Vec<Text>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Quiet {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum When {
    TimeToFull,
    Full,
    UsedPercent,
    UsedBytes,
    AvailPercent,
    AvailBytes,
    InodesPercent,
    Growth,
    Held,
    NoSpaceErrors,
    WriteErrors,
    FsyncWait,
    Refill,
    DirSize,
    DirGrowth,
    Drain,
    WriterRate,
    GroupRate,
}

/// Minimum severity of a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Least {
    #[default]
    Warning,
    Critical,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journald {
    pub(super) name: Option<String>,
    pub(super) socket: Option<String>,
    #[serde(default)]
    pub(super) severity: Least,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Syslog {
    pub(super) name: Option<String>,
    pub(super) to: Option<Text>,
    pub(super) facility: Option<Text>,
    #[serde(default)]
    pub(super) severity: Least,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    #[default]
    Json,
    Slack,
    Pagerduty,
    Ntfy,
    Custom,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) name: Option<String>,
    pub(super) url: Option<Text>,
    pub(super) url_file: Option<Text>,
    #[serde(default)]
    pub(super) format: Format,
    pub(super) body: Option<Text>,
    pub(super) routing_key_file: Option<Text>,
    pub(super) topic: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) bearer_file: Option<Text>,
    pub(super) ca_file: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) give_up_after: Option<Text>,
    #[serde(default)]
    pub(super) severity: Least,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alertmanager {
    pub(super) name: Option<String>,
    pub(super) url: Text,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) bearer_file: Option<Text>,
    pub(super) ca_file: Option<Text>,
    pub(super) timeout: Option<Text>,
    pub(super) resend: Option<Text>,
    pub(super) give_up_after: Option<Text>,
    #[serde(default)]
    pub(super) severity: Least,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) name: Option<String>,
    pub(super) command: Spanned<Vec<String>>,
    pub(super) timeout: Option<Text>,
    pub(super) give_up_after: Option<Text>,
    #[serde(default)]
    pub(super) severity: Least,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    pub(super) name: Option<String>,
    pub(super) to: Spanned<Vec<String>>,
    pub(super) from: Option<Text>,
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Text>,
    pub(super) give_up_after: Option<Text>,
    #[serde(default)]
    pub(super) severity: Least,
}
