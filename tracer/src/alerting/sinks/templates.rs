//! Bodies of webhooks for chats, pagers and custom receivers.

use serde_json::{Value, json};
use tracer_model::alert::{Event, Severity};

use super::fields;
use crate::config::placeholder;

/// Maximum length of PagerDuty's summary and of its key, characters.
const PAGERDUTY: (usize, usize) = (1024, 255);

fn title(event: &Event) -> String {
    let state = if event.resolved { "resolved" } else { event.severity.name() };
    format!("[{state}] {}: {}", event.host, event.rule)
}

/// The body for Slack: `{"text": …}`.
pub(super) fn slack(event: &Event) -> String {
    let mark = match (event.resolved, event.severity) {
        (true, _) => ":white_check_mark:",
        (_, Severity::Critical) => ":rotating_light:",
        (_, Severity::Warning) => ":warning:",
    };
    // Escape Slack's markup: a file name must not become a link or a mention of a whole channel.
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = format!("{mark} *{}*\n{}", plain(&title(event)), plain(&event.summary));
    if let Some(suggestion) = &event.suggestion {
        text.push_str(&format!("\n`{}`", plain(&suggestion.command.replace('`', "'"))));
    }
    json!({ "text": text }).to_string()
}

/// The body for PagerDuty's Events API v2: `trigger` and `resolve` of one incident per alert.
pub(super) fn pagerduty(event: &Event, routing_key: &str) -> String {
    let action = if event.resolved { "resolve" } else { "trigger" };
    let key = if event.key.len() <= PAGERDUTY.1 {
        event.key.clone()
    } else {
        let start: String = event.key.chars().take(50).collect();
        format!("{start}/{:08x}", crc32fast::hash(event.key.as_bytes()))
    };
    let summary: String =
        format!("{}: {}", event.host, event.summary).chars().take(PAGERDUTY.0).collect();
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": key,
        "payload": {
            "summary": summary,
            "source": event.host,
            "severity": event.severity.name(),
            "timestamp": event.time.to_string(),
            "component": event.volume,
            "class": event.rule,
            "custom_details": event,
        },
    })
    .to_string()
}

/// The body for ntfy: a message to a topic.
pub(super) fn ntfy(event: &Event, topic: &str) -> String {
    let (priority, tag) = match (event.resolved, event.severity) {
        (true, _) => (2, "white_check_mark"),
        (_, Severity::Critical) => (5, "rotating_light"),
        (_, Severity::Warning) => (4, "warning"),
    };
    json!({
        "topic": topic,
        "title": title(event),
        "message": event.summary,
        "priority": priority,
        "tags": [tag],
    })
    .to_string()
}

/// Fills in a custom body: replaces each `{name}` with a field of the event (its name in lower case
/// and without `FILLTOP_`), escaped for the inside of a JSON string; `{json}` is the whole event as
/// an object. Unknown names become empty; the configuration has rejected them before.
pub(super) fn custom(event: &Event, text: &str) -> String {
    let fields = fields::of(event);
    let value = |name: &str| {
        let found = fields.iter().find(|(field, _)| {
            field.strip_prefix("FILLTOP_").is_some_and(|field| field.eq_ignore_ascii_case(name))
        });
        let text = found.map_or("", |(_, value)| value.as_str());
        if name == "json" {
            return text.to_owned();
        }
        let quoted = Value::String(text.to_owned()).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some((name, at)) = placeholder(rest) {
        out.push_str(&rest[..at]);
        out.push_str(&value(name));
        rest = &rest[at + name.len() + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::sinks::tests::event;
    use crate::config::TEMPLATE_NAMES;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn template_names_match_the_event_fields() {
        let have: Vec<String> = fields::of(&event())
            .iter()
            .map(|(name, _)| name.trim_start_matches("FILLTOP_").to_lowercase())
            .collect();
        assert!(have.iter().all(|name| TEMPLATE_NAMES.contains(&name.as_str())), "{have:?}");
        assert_eq!(have.len(), TEMPLATE_NAMES.len(), "the fixture has every field");
    }

    #[test]
    fn hostile_names_are_escaped() {
        let hostile = Event { summary: "\"}]<!channel> `x` \\ \u{1} {rule}".to_owned(), ..event() };
        let slack = parsed(&slack(&hostile));
        assert!(!slack["text"].as_str().unwrap().contains("<!channel>"));
        let custom =
            parsed(&custom(&hostile, r#"{"a": {"b": "{summary} on {host}"}, "e": {json}}"#));
        assert_eq!(custom["a"]["b"], format!("{} on db1", hostile.summary));
        assert_eq!(custom["e"]["rule"], "time-to-full");
        assert_eq!(parsed(&ntfy(&hostile, "disks"))["message"], hostile.summary);
    }

    #[test]
    fn a_pager_gets_one_incident_per_alert() {
        let firing = parsed(&pagerduty(&event(), "k"));
        let over = event().resolving();
        let over = parsed(&pagerduty(&over, "k"));
        assert_eq!(firing["dedup_key"], over["dedup_key"]);
        assert_eq!(
            (&firing["event_action"], &over["event_action"]),
            (&json!("trigger"), &json!("resolve"))
        );
        assert_eq!(firing["payload"]["severity"], "critical");
        let long = Event { key: "x".repeat(1000), ..event() };
        assert!(parsed(&pagerduty(&long, "k"))["dedup_key"].as_str().unwrap().len() <= 255);
    }
}
