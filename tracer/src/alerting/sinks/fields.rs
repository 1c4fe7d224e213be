//! An event as names and values: the environment of programs and the fields of the journal.
//! Documented in docs/alerts.md; names must not change.

use tracer_model::alert::Event;

/// Formats the event as one line of JSON.
pub(super) fn json(event: &Event) -> String {
    // An event always serializes: its maps have text keys, and NaN and infinity become null.
    serde_json::to_string(event).unwrap_or_default()
}

/// The fields `FILLTOP_…` and their values; unknown ones are omitted.
pub(super) fn of(event: &Event) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("FILLTOP_EVENT", event.event.name().to_owned()),
        ("FILLTOP_RULE", event.rule.clone()),
        ("FILLTOP_SEVERITY", event.severity.name().to_owned()),
        ("FILLTOP_SUMMARY", event.summary.clone()),
        ("FILLTOP_TIME", event.time.to_string()),
        ("FILLTOP_SINCE", event.since.to_string()),
        ("FILLTOP_HOST", event.host.clone()),
        ("FILLTOP_KEY", event.key.clone()),
        ("FILLTOP_ID", event.id.clone()),
        ("FILLTOP_OVER", event.resolved.to_string()),
    ];
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    add("FILLTOP_VOLUME", event.volume.clone());
    add("FILLTOP_DIRECTORY", event.directory.clone());
    add("FILLTOP_AVAIL_BYTES", event.avail_bytes.map(|bytes| bytes.to_string()));
    add("FILLTOP_ETA_S", event.eta_s.map(|seconds| format!("{seconds:.0}")));
    add("FILLTOP_HELD_BYTES", event.held_bytes.map(|bytes| bytes.to_string()));
    if let Some(first) = event.culprits.first() {
        add("FILLTOP_CULPRIT_PID", Some(first.pid.to_string()));
        add("FILLTOP_CULPRIT_COMM", Some(first.comm.clone()));
        add("FILLTOP_CULPRIT_GROUP", first.group.as_ref().map(|group| group.name.clone()));
        add("FILLTOP_CULPRIT_BYTES_PER_S", Some(format!("{:.0}", first.growth_bytes_per_s)));
    }
    add("FILLTOP_COMMAND", event.suggestion.as_ref().map(|s| s.command.clone()));
    add("FILLTOP_JSON", Some(json(event)));
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::alerting::sinks::tests::event;

    /// The stable fields of `watch --json`, on which scripts rely.
    const STABLE: &str = "schema time event rule severity volume directory summary avail_bytes \
                            eta_s culprits victims held_bytes suggestion";

    #[test]
    fn every_stable_field_is_present_and_unknown_ones_are_null() {
        let json: Value = serde_json::from_str(&json(&event())).unwrap();
        for name in STABLE.split_whitespace() {
            assert!(json.get(name).is_some_and(|value| !value.is_null()), "{name}: {json}");
        }
        assert_eq!((&json["event"], &json["severity"]), (&"firing".into(), &"critical".into()));
        let time = json["time"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(json["culprits"][0]["comm"], "minio");
        let suggestion: Vec<&String> = json["suggestion"].as_object().unwrap().keys().collect();
        assert_eq!(suggestion, ["command", "frees_bytes", "how", "target"]);
        let bare = Event { eta_s: None, suggestion: None, directory: None, ..event() };
        let json: Value = serde_json::from_str(&super::json(&bare)).unwrap();
        for name in ["eta_s", "suggestion", "directory"] {
            assert!(json.get(name).is_some_and(Value::is_null), "{name}: {json}");
        }
    }
}
