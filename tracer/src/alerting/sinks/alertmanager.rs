//! The Alertmanager sink (API v2). Alertmanager resolves an alert that is not sent again in time, so
//! all firing alerts are sent again every minute, as Prometheus does; if filltop dies, they resolve
//! on their own.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tracer_model::alert::{Event, EventKind};

use super::http::Client;
use super::{Deliver, Failure};
use crate::config::AlertmanagerTarget;
use tracer_host::clock;

/// Number of resend intervals after which an alert expires in Alertmanager.
const EXPIRY_INTERVALS: u32 = 4;
/// How long health and action events stay active in Alertmanager.
const MESSAGE_LIFETIME: Duration = Duration::from_secs(300);

/// `postableAlert` of Alertmanager's OpenAPI specification.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Postable {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
}

pub(super) struct Alertmanager {
    client: Client,
    target: AlertmanagerTarget,
    /// The firing alerts, by key.
    firing: BTreeMap<String, Postable>,
}

impl Alertmanager {
    pub(super) fn new(target: &AlertmanagerTarget) -> Self {
        let client = Client::new(&target.endpoint);
        Self { client, target: target.clone(), firing: BTreeMap::new() }
    }

    fn postable(&self, event: &Event, now: Timestamp) -> Postable {
        let mut labels = self.target.labels.clone();
        let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        label("alertname", &camel(&event.rule));
        label("rule", &event.rule);
        label("severity", event.severity.name());
        label("instance", &event.host);
        label("job", "filltop");
        if let Some(volume) = &event.volume {
            label("volume", volume);
        }
        // Writers of a rate rule differ only in the key, not in the labels above.
        if let Some((_, writer)) = event.key.split_once('\n') {
            label("writer", writer);
        }
        if event.event == EventKind::Health {
            label("about", &event.key);
        }
        let mut annotations = BTreeMap::from([("summary", event.summary.clone())]);
        let mut annotate =
            |name, value: Option<String>| annotations.extend(value.map(|v| (name, v)));
        annotate("directory", event.directory.clone());
        annotate("avail_bytes", event.avail_bytes.map(|bytes| bytes.to_string()));
        annotate("eta_s", event.eta_s.map(|seconds| format!("{seconds:.0}")));
        annotate("command", event.suggestion.as_ref().map(|s| s.command.clone()));
        annotate(
            "culprit",
            event.culprits.first().map(|first| format!("{} ({})", first.comm, first.pid)),
        );
        let lifetime = match event.event {
            _ if event.resolved => Duration::ZERO,
            EventKind::Action | EventKind::Health => MESSAGE_LIFETIME,
            _ => self.target.resend * EXPIRY_INTERVALS,
        };
        Postable { labels, annotations, starts_at: event.since, ends_at: after(now, lifetime) }
    }

    fn post(&mut self, id: &str, alerts: &[Postable]) -> Result<(), Failure> {
        let body = serde_json::to_string(alerts).map_err(|e| Failure::Never(e.to_string()))?;
        self.client.post("/api/v2/alerts", id, &body)
    }
}

impl Deliver for Alertmanager {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        let now = clock::now();
        // From now, not from the event's time: an event that was queued must not arrive expired.
        let alert = self.postable(event, now);
        // With another severity it is another alert to Alertmanager: end the old one.
        let before = self.firing.get(&event.key).filter(|old| old.labels != alert.labels);
        let ended = before.map(|old| Postable { ends_at: now, ..old.clone() });
        let body: Vec<Postable> = ended.into_iter().chain([alert.clone()]).collect();
        self.post(&event.id, &body)?;
        match event.event {
            EventKind::Firing | EventKind::Repeat => {
                self.firing.insert(event.key.clone(), alert);
            }
            EventKind::Resolved => {
                self.firing.remove(&event.key);
            }
            EventKind::Action | EventKind::Health => {}
        }
        Ok(())
    }

    fn idle_interval(&self) -> Option<Duration> {
        Some(self.target.resend)
    }

    fn idle(&mut self) -> Result<(), Failure> {
        if self.firing.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let ends_at = after(now, self.target.resend * EXPIRY_INTERVALS);
        self.firing.values_mut().for_each(|alert| alert.ends_at = ends_at);
        let body: Vec<Postable> = self.firing.values().cloned().collect();
        self.post(&format!("resend/{}", now.as_millisecond()), &body)
    }
}

fn after(time: Timestamp, length: Duration) -> Timestamp {
    time.checked_add(length).unwrap_or(time)
}

/// Converts a rule's name to an alert name: `time-to-full` to `FilltopTimeToFull`.
fn camel(rule: &str) -> String {
    let mut out = "Filltop".to_owned();
    for part in rule.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
        let mut letters = part.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::camel;

    #[test]
    fn alert_names_follow_the_prometheus_convention() {
        assert_eq!(camel("time-to-full"), "FilltopTimeToFull");
        assert_eq!(camel("uploads over 10GiB"), "FilltopUploadsOver10GiB");
    }
}
