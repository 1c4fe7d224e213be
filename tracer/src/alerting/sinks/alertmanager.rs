//! Alertmanager's API v2. It forgets an alert that is not sent again in time, so that all that are on
//! are sent every minute, as Prometheus does; if filltop dies, they end by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tracer_model::alert::{Event, EventKind};

use super::http::{Client, Endpoint};
use super::{Deliver, Failure};
use tracer_host::clock;

/// How many missed re-sendings an alert outlives.
const OUTLIVES: u32 = 4;
/// Messages about filltop itself, and what it did, last this long there.
const MESSAGE: Duration = Duration::from_secs(300);

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertmanagerTarget {
    /// Its base URL, without `/api/v2`.
    pub endpoint: Endpoint,
    /// Added to each alert.
    pub labels: BTreeMap<String, String>,
    /// Time between two sendings of an alert that is on.
    pub resend: Duration,
}

/// `postableAlert` of its OpenAPI description.
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
    /// By key, those that are on.
    on: BTreeMap<String, Postable>,
}

impl Alertmanager {
    pub(super) fn new(target: &AlertmanagerTarget) -> Self {
        let client = Client::new(&target.endpoint);
        Self { client, target: target.clone(), on: BTreeMap::new() }
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
        // The key tells apart what the other labels do not: the writers of a rate rule.
        if let Some((_, who)) = event.key.split_once('\n') {
            label("writer", who);
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
        let lasts = match event.event {
            _ if event.over => Duration::ZERO,
            EventKind::Action | EventKind::Health => MESSAGE,
            _ => self.target.resend * OUTLIVES,
        };
        Postable { labels, annotations, starts_at: event.since, ends_at: after(now, lasts) }
    }

    fn post(&mut self, id: &str, alerts: &[Postable]) -> Result<(), Failure> {
        let body = serde_json::to_string(alerts).map_err(|e| Failure::Never(e.to_string()))?;
        self.client.post("/api/v2/alerts", id, &body)
    }
}

impl Deliver for Alertmanager {
    fn deliver(&mut self, event: &Event) -> Result<(), Failure> {
        let now = clock::now();
        // By now, not by the event's time: one that waited must not be over before it arrives.
        let alert = self.postable(event, now);
        // Another severity is another alert there.
        let before = self.on.get(&event.key).filter(|old| old.labels != alert.labels);
        let ended = before.map(|old| Postable { ends_at: now, ..old.clone() });
        let body: Vec<Postable> = ended.into_iter().chain([alert.clone()]).collect();
        self.post(&event.id, &body)?;
        match event.event {
            EventKind::Firing | EventKind::Repeat => {
                self.on.insert(event.key.clone(), alert);
            }
            EventKind::Resolved => {
                self.on.remove(&event.key);
            }
            EventKind::Action | EventKind::Health => {}
        }
        Ok(())
    }

    fn every(&self) -> Option<Duration> {
        Some(self.target.resend)
    }

    fn idle(&mut self) -> Result<(), Failure> {
        if self.on.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let ends_at = after(now, self.target.resend * OUTLIVES);
        self.on.values_mut().for_each(|alert| alert.ends_at = ends_at);
        let body: Vec<Postable> = self.on.values().cloned().collect();
        self.post(&format!("resend/{}", now.as_millisecond()), &body)
    }
}

fn after(time: Timestamp, length: Duration) -> Timestamp {
    time.checked_add(length).unwrap_or(time)
}

/// `time-to-full` as `FilltopTimeToFull`.
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
    fn alerts_are_named_as_prometheus_people_name_them() {
        assert_eq!(camel("time-to-full"), "FilltopTimeToFull");
        assert_eq!(camel("uploads over 10GiB"), "FilltopUploadsOver10GiB");
    }
}
