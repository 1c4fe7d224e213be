//! Bodies of webhooks: the formats, and the `{name}`s of a custom one.

/// The format of the posted body.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Template {
    /// The event as `watch --json` prints it.
    Json,
    /// Slack's incoming webhooks; also accepted by Mattermost and Rocket.Chat.
    Slack,
    /// PagerDuty's Events API v2.
    Pagerduty {
        /// Routing key of the integration.
        routing_key: String,
    },
    /// ntfy's JSON publishing.
    Ntfy {
        /// Topic to publish to.
        topic: String,
    },
    /// A text in which each `{name}` is replaced with its value, escaped for JSON.
    Custom(String),
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Only the variant: the contents may be secret.
        f.write_str(match self {
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Pagerduty { .. } => "pagerduty",
            Self::Ntfy { .. } => "ntfy",
            Self::Custom(_) => "custom",
        })
    }
}

/// The names allowed in a custom body.
pub(crate) const TEMPLATE_NAMES: &[&str] = &[
    "event",
    "rule",
    "severity",
    "summary",
    "time",
    "since",
    "host",
    "key",
    "id",
    "over",
    "volume",
    "directory",
    "avail_bytes",
    "eta_s",
    "held_bytes",
    "culprit_pid",
    "culprit_comm",
    "culprit_group",
    "culprit_bytes_per_s",
    "command",
    "json",
];

/// Finds the first `{name}` in a text, with its position. Braces around anything else belong to the
/// JSON.
pub(crate) fn placeholder(text: &str) -> Option<(&str, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('{').map(|at| at + from) {
        let rest = &text[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        if end > 0 && rest[end..].starts_with('}') {
            return Some((&rest[..end], at));
        }
        from = at + 1;
    }
    None
}

/// Lists the unknown names in a custom body.
pub(super) fn unknown_names(text: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some((name, at)) = placeholder(rest) {
        if !TEMPLATE_NAMES.contains(&name) {
            unknown.push(name.to_owned());
        }
        rest = &rest[at + name.len() + 2..];
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_found() {
        assert_eq!(unknown_names(r#"{"a": "{sumary}{rule}", "b": {}}"#), ["sumary"]);
    }
}
