//! `[[webhook]]` and the other sinks: where alerts go.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use tracer_host::journald;
use tracer_model::alert::Severity;
use tracer_model::units::parse;

use super::error::{ConfigError, Source, did_you_mean};
use super::raw;
use super::raw::{Format, Text};
use super::targets::{
    AlertmanagerTarget, Endpoint, ExecTarget, JournaldTarget, MailTarget, SinkConfig, SinkKind,
    SyslogAddress, SyslogTarget, WebhookTarget,
};
use super::template::{TEMPLATE_NAMES, Template, unknown_names};

/// Socket of the local system log.
const SYSLOG_SOCKET: &str = "/dev/log";
/// Default of `give_up_after`.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3600);
/// Facilities of RFC 5424 by name, without those of the kernel and of single daemons.
const FACILITIES: &[(&str, u8)] = &[
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("cron", 9),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// Builds the list of all sinks except standard output.
pub(super) fn read(source: Source<'_>, file: &raw::File) -> Result<Vec<SinkConfig>, ConfigError> {
    let reader = Reader { source };
    let mut sinks = Vec::new();
    for raw in &file.journald {
        let socket = raw.socket.as_deref().unwrap_or(journald::SOCKET).into();
        let kind = SinkKind::Journald(JournaldTarget { socket });
        sinks.push(reader.sink("journald", raw.name.as_deref(), raw.severity, None, kind)?);
    }
    for raw in file.syslog.iter().map(Spanned::get_ref) {
        let kind = SinkKind::Syslog(reader.syslog(raw)?);
        sinks.push(reader.sink("syslog", raw.name.as_deref(), raw.severity, None, kind)?);
    }
    for entry in &file.webhook {
        let raw = entry.get_ref();
        let kind = SinkKind::Webhook(reader.webhook(entry)?);
        let give_up = raw.give_up_after.as_ref();
        sinks.push(reader.sink("webhook", raw.name.as_deref(), raw.severity, give_up, kind)?);
    }
    for raw in file.alertmanager.iter().map(Spanned::get_ref) {
        let kind = SinkKind::Alertmanager(reader.alertmanager(raw)?);
        let give_up = raw.give_up_after.as_ref();
        sinks.push(reader.sink(
            "alertmanager",
            raw.name.as_deref(),
            raw.severity,
            give_up,
            kind,
        )?);
    }
    for raw in file.exec.iter().map(Spanned::get_ref) {
        let timeout = reader.timeout(raw.timeout.as_ref(), 10.0)?;
        let command = reader.command(&raw.command)?;
        let kind = SinkKind::Exec(ExecTarget { command, timeout });
        let give_up = raw.give_up_after.as_ref();
        sinks.push(reader.sink("exec", raw.name.as_deref(), raw.severity, give_up, kind)?);
    }
    for raw in file.mail.iter().map(Spanned::get_ref) {
        let kind = SinkKind::Mail(reader.mail(raw)?);
        let give_up = raw.give_up_after.as_ref();
        sinks.push(reader.sink("mail", raw.name.as_deref(), raw.severity, give_up, kind)?);
    }
    // Number sinks of the same name, so that messages can distinguish them.
    for at in 0..sinks.len() {
        let name = sinks[at].name.clone();
        let same = sinks[..at].iter().filter(|other| other.name == name).count();
        if same > 0 {
            sinks[at].name = format!("{name}-{}", same + 1);
        }
    }
    Ok(sinks)
}

struct Reader<'t> {
    source: Source<'t>,
}

impl Reader<'_> {
    fn wrong(&self, text: &Text, key: &str, why: impl std::fmt::Display) -> ConfigError {
        self.source.error(Some(text.span()), format!("{key}: {why}"))
    }

    fn sink(
        &self,
        kind_name: &str,
        name: Option<&str>,
        min_severity: Option<Severity>,
        give_up_after: Option<&Text>,
        kind: SinkKind,
    ) -> Result<SinkConfig, ConfigError> {
        let give_up_after = match give_up_after {
            None => GIVE_UP_AFTER,
            Some(text) => parse::duration(text.get_ref(), 1.0, 7.0 * 86_400.0)
                .map_err(|why| self.wrong(text, "give_up_after", why))?,
        };
        Ok(SinkConfig {
            name: name.unwrap_or(kind_name).to_owned(),
            min_severity: min_severity.unwrap_or(Severity::Warning),
            give_up_after,
            kind,
        })
    }

    fn timeout(&self, text: Option<&Text>, default: f64) -> Result<Duration, ConfigError> {
        match text {
            None => Ok(Duration::from_secs_f64(default)),
            Some(text) => parse::duration(text.get_ref(), 0.1, 600.0)
                .map_err(|why| self.wrong(text, "timeout", why)),
        }
    }

    /// Reads a file that contains one secret.
    fn secret(&self, text: &Text, key: &str) -> Result<String, ConfigError> {
        let read = fs::read_to_string(text.get_ref());
        let secret = read.map_err(|e| self.wrong(text, key, format!("{}: {e}", text.get_ref())))?;
        let secret = secret.trim();
        if secret.is_empty() || secret.contains(|c: char| c.is_control()) {
            return Err(self.wrong(text, key, "the file must contain exactly one line"));
        }
        Ok(secret.to_owned())
    }

    fn endpoint(&self, raw: &HttpKeys<'_>, url: (&Text, String)) -> Result<Endpoint, ConfigError> {
        let (at, url) = url;
        let is_http = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
        let parsed: Result<ureq::http::Uri, _> = url.parse();
        if !is_http || !parsed.is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty())) {
            return Err(self.wrong(at, "url", "must be http://… or https://…"));
        }
        let mut headers = raw.headers.clone();
        if let Some(file) = raw.bearer_file {
            let token = self.secret(file, "bearer_file")?;
            headers.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        for (name, value) in &headers {
            let ok = name.parse::<ureq::http::HeaderName>().is_ok()
                && value.parse::<ureq::http::HeaderValue>().is_ok();
            if !ok {
                return Err(self.wrong(at, "headers", format!("invalid name or value: {name:?}")));
            }
        }
        Ok(Endpoint {
            url,
            headers,
            ca_file: raw.ca_file.map(|file| PathBuf::from(file.get_ref())),
            timeout: self.timeout(raw.timeout, 10.0)?,
        })
    }

    fn webhook(&self, entry: &Spanned<raw::Webhook>) -> Result<WebhookTarget, ConfigError> {
        let raw = entry.get_ref();
        let missing = |why: &str| self.source.error(Some(entry.span()), why.to_owned());
        let url = match (&raw.url, &raw.url_file) {
            (Some(url), None) => (url, url.get_ref().clone()),
            (None, Some(file)) => (file, self.secret(file, "url_file")?),
            _ => return Err(missing("a webhook needs either `url` or `url_file`")),
        };
        let template = match raw.format {
            Format::Json => Template::Json,
            Format::Slack => Template::Slack,
            Format::Pagerduty => {
                let file = raw.routing_key_file.as_ref();
                let file = file.ok_or_else(|| missing("pagerduty needs `routing_key_file`"))?;
                Template::Pagerduty { routing_key: self.secret(file, "routing_key_file")? }
            }
            Format::Ntfy => {
                let topic = raw.topic.clone().ok_or_else(|| missing("ntfy needs a `topic`"))?;
                Template::Ntfy { topic }
            }
            Format::Custom => {
                let body = raw.body.as_ref().ok_or_else(|| missing("custom needs a `body`"))?;
                if let Some(name) = unknown_names(body.get_ref()).first() {
                    let why =
                        format!("unknown field {{{name}}}{}", did_you_mean(name, TEMPLATE_NAMES));
                    return Err(self.wrong(body, "body", why));
                }
                Template::Custom(body.get_ref().clone())
            }
        };
        let inapplicable = [
            ("body", raw.body.as_ref(), raw.format == Format::Custom),
            ("routing_key_file", raw.routing_key_file.as_ref(), raw.format == Format::Pagerduty),
        ];
        for (key, text, fits) in inapplicable {
            if let (Some(text), false) = (text, fits) {
                return Err(self.wrong(text, key, "does not apply to this `format`"));
            }
        }
        let keys = HttpKeys {
            headers: &raw.headers,
            bearer_file: raw.bearer_file.as_ref(),
            ca_file: raw.ca_file.as_ref(),
            timeout: raw.timeout.as_ref(),
        };
        Ok(WebhookTarget { endpoint: self.endpoint(&keys, url)?, template })
    }

    fn alertmanager(&self, raw: &raw::Alertmanager) -> Result<AlertmanagerTarget, ConfigError> {
        let keys = HttpKeys {
            headers: &raw.headers,
            bearer_file: raw.bearer_file.as_ref(),
            ca_file: raw.ca_file.as_ref(),
            timeout: raw.timeout.as_ref(),
        };
        let url = raw.url.get_ref().trim_end_matches('/').to_owned();
        let resend = match &raw.resend {
            None => Duration::from_secs(60),
            Some(text) => parse::duration(text.get_ref(), 1.0, 3600.0)
                .map_err(|why| self.wrong(text, "resend", why))?,
        };
        let endpoint = self.endpoint(&keys, (&raw.url, url))?;
        Ok(AlertmanagerTarget { endpoint, labels: raw.labels.clone(), resend })
    }

    fn syslog(&self, raw: &raw::Syslog) -> Result<SyslogTarget, ConfigError> {
        let to = match &raw.to {
            None => SyslogAddress::Unix(SYSLOG_SOCKET.into()),
            Some(text) => match text.get_ref().split_once("://") {
                None if text.get_ref().starts_with('/') => {
                    SyslogAddress::Unix(text.get_ref().into())
                }
                Some(("udp", host)) => SyslogAddress::Udp(with_port(host, 514)),
                Some(("tcp", host)) => SyslogAddress::Tcp(with_port(host, 601)),
                _ => {
                    let why = "must be a socket path, udp://host:port or tcp://host:port";
                    return Err(self.wrong(text, "to", why));
                }
            },
        };
        let facility = match &raw.facility {
            None => 3,
            Some(text) => {
                let found = FACILITIES.iter().find(|(name, _)| name == text.get_ref());
                found.map(|(_, number)| *number).ok_or_else(|| {
                    let names: Vec<&str> = FACILITIES.iter().map(|(name, _)| *name).collect();
                    let near = did_you_mean(text.get_ref(), &names);
                    self.wrong(
                        text,
                        "facility",
                        format!("unknown value `{}`{near}", text.get_ref()),
                    )
                })?
            }
        };
        Ok(SyslogTarget { to, facility })
    }

    fn command(&self, command: &Spanned<Vec<String>>) -> Result<Vec<String>, ConfigError> {
        let wrong =
            |why: &str| Err(self.source.error(Some(command.span()), format!("command: {why}")));
        match command.get_ref().first() {
            None => wrong("must name a program"),
            Some(program) if !program.starts_with('/') => {
                wrong("the program must be an absolute path, since no shell is used")
            }
            _ if command.get_ref().iter().any(|word| word.contains('\0')) => {
                wrong("arguments must not contain a NUL")
            }
            _ => Ok(command.get_ref().clone()),
        }
    }

    fn mail(&self, raw: &raw::Mail) -> Result<MailTarget, ConfigError> {
        let is_address = |text: &String| {
            text.contains('@') && text.chars().all(|c| c.is_ascii_graphic() && c != ',')
        };
        if raw.to.get_ref().is_empty() || !raw.to.get_ref().iter().all(is_address) {
            let why = "to: must be a list of addresses such as [\"ops@example.org\"]".to_owned();
            return Err(self.source.error(Some(raw.to.span()), why));
        }
        let command = match &raw.command {
            Some(command) => self.command(command)?,
            // -t: recipients from the headers; -oi: a lone dot does not end the message.
            None => ["/usr/sbin/sendmail", "-t", "-oi"].map(str::to_owned).to_vec(),
        };
        Ok(MailTarget {
            to: raw.to.get_ref().clone(),
            from: raw.from.as_ref().map(|from| from.get_ref().clone()),
            command,
            timeout: self.timeout(raw.timeout.as_ref(), 30.0)?,
        })
    }
}

/// Keys common to all HTTP sinks.
struct HttpKeys<'r> {
    headers: &'r std::collections::BTreeMap<String, String>,
    bearer_file: Option<&'r Text>,
    ca_file: Option<&'r Text>,
    timeout: Option<&'r Text>,
}

fn with_port(host: &str, port: u16) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(before, digits)| {
        digits.parse::<u16>().is_ok() && (!before.contains(':') || before.ends_with(']'))
    });
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}
